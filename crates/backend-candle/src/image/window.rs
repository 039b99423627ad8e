//! Windows over pictures: what a convolution multiplies with its weights, and the largest numbers of a pooling.
//!
//! Pictures are `[height, width, channels]`: a convolution is then one matrix product, and where the window is a single
//! pixel nothing is copied for it. On the CPU windows are cut in one pass over memory; elsewhere they are put together from
//! operations that candle has.

use std::ops::Range;

use candle_core::{Result, Tensor};

/// A square window and how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Height and width of the window, in pixels; odd.
    size: usize,
    /// Pixels from one window to the next, down and to the right.
    stride: usize,
    /// Pixels around the picture that windows reach out to.
    padding: usize,
}

/// One picture's numbers, line by line, pixel by pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Window {
    /// A window of odd `size`, the first of which has the picture's first pixel in its middle.
    pub(super) fn new(size: usize, stride: usize) -> Self {
        Self { size, stride, padding: size / 2 }
    }

    /// How many windows find place along a side of `length` pixels: each `stride`th pixel is the middle of one.
    pub(super) fn places(self, length: usize) -> usize {
        length.div_ceil(self.stride)
    }

    /// Pixels along a side of the window.
    pub(super) fn size(self) -> usize {
        self.size
    }

    /// Pixels of a window.
    pub(super) fn n_pixels(self) -> usize {
        self.size * self.size
    }

    /// Whether each window is just one pixel, and each pixel in one window.
    pub(super) fn is_pixel(self) -> bool {
        self.size == 1 && self.stride == 1
    }

    /// Appends the pixels of each window in some `lines` of windows: `[windows, size · size · channels]`, with zeros around
    /// the picture.
    pub(super) fn cut(self, picture: Picture<'_>, lines: Range<usize>, windows: &mut Vec<f32>) {
        for y in lines {
            for x in 0..self.places(picture.width) {
                self.push(picture, (y, x), windows);
            }
        }
    }

    fn push(self, picture: Picture<'_>, place: (usize, usize), windows: &mut Vec<f32>) {
        let pad = |windows: &mut Vec<f32>, pixels: usize| {
            windows.extend(std::iter::repeat_n(0.0, pixels * picture.channels));
        };
        let (ys, xs, lines) = self.seen(picture, place);
        pad(windows, ys.start * self.size);
        for line in lines {
            pad(windows, xs.start);
            windows.extend_from_slice(line);
            pad(windows, self.size - xs.end);
        }
        pad(windows, (self.size - ys.end) * self.size);
    }

    /// The largest number of each channel in each window: `[places down, places across, channels]`.
    pub(super) fn largest(self, picture: Picture<'_>) -> Vec<f32> {
        let (down, across) = (self.places(picture.height), self.places(picture.width));
        let mut found = Vec::with_capacity(down * across * picture.channels);
        for place in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
            let start = found.len();
            let (_, _, lines) = self.seen(picture, place);
            for pixel in lines.flat_map(|line| line.chunks_exact(picture.channels)) {
                if found.len() == start {
                    found.extend_from_slice(pixel);
                } else {
                    for (most, &number) in found[start..].iter_mut().zip(pixel) {
                        *most = if number > *most { number } else { *most };
                    }
                }
            }
        }
        found
    }

    /// Which lines and columns of the window at `place` lie in the picture, and that part of each line.
    fn seen(
        self,
        picture: Picture<'_>,
        (y, x): (usize, usize),
    ) -> (Range<usize>, Range<usize>, impl Iterator<Item = &[f32]>) {
        let (ys, xs) = (self.inside(y, picture.height), self.inside(x, picture.width));
        let top = y * self.stride + ys.start - self.padding;
        let left = x * self.stride + xs.start - self.padding;
        let (start, length) = (left * picture.channels, xs.len() * picture.channels);
        let line = move |line| &picture.numbers[line * picture.width * picture.channels + start..][..length];
        (ys.clone(), xs, (top..top + ys.len()).map(line))
    }

    /// Which pixels of the window at `place` lie on a side of `length`, counted from the window's first.
    fn inside(self, place: usize, length: usize) -> Range<usize> {
        let start = place * self.stride;
        let end = (length + self.padding).saturating_sub(start).min(self.size);
        self.padding.saturating_sub(start).min(end)..end
    }

    /// The pixels of each window of `[rows, height, width, channels]`: `[windows, size · size · channels]`.
    pub(super) fn cut_by_candle(self, pictures: &Tensor) -> Result<Tensor> {
        let (rows, height, width, channels) = pictures.dims4()?;
        let (down, across) = (self.places(height), self.places(width));
        let padded = pictures.pad_with_zeros(1, self.padding, self.behind(height))?;
        let padded = padded.pad_with_zeros(2, self.padding, self.behind(width))?;
        let parts = self.shifted(&padded, down, across)?;
        let columns = parts.iter().map(|part| part.reshape((rows * down * across, channels)));
        Tensor::cat(&columns.collect::<Result<Vec<_>>>()?, 1)
    }

    /// The largest number of each channel in each window of `[rows, height, width, channels]`.
    pub(super) fn largest_by_candle(self, pictures: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = pictures.dims4()?;
        // The edge of a picture stands in for what lies beyond it: no window reaches out and not to the edge.
        let padded = pictures.pad_with_same(1, self.padding, self.behind(height))?;
        let padded = padded.pad_with_same(2, self.padding, self.behind(width))?;
        let mut parts = self.shifted(&padded, self.places(height), self.places(width))?.into_iter();
        let first = parts.next().expect("a window has a pixel");
        parts.try_fold(first, |largest, part| largest.maximum(&part))
    }

    /// Pixels to put behind a side of `length`, so that [`Window::shifted`] finds whole strides everywhere.
    fn behind(self, length: usize) -> usize {
        (self.places(length) * self.stride + self.size - 1).saturating_sub(self.padding + length)
    }

    /// For each pixel of the window, that pixel of all windows: `[rows, down, across, channels]`.
    fn shifted(self, padded: &Tensor, down: usize, across: usize) -> Result<Vec<Tensor>> {
        let (rows, _, _, channels) = padded.dims4()?;
        let mut parts = Vec::with_capacity(self.n_pixels());
        for y in 0..self.size {
            let lines = padded.narrow(1, y, down * self.stride)?;
            for x in 0..self.size {
                let part = lines.narrow(2, x, across * self.stride)?.contiguous()?;
                let strides = part.reshape(&[rows, down, self.stride, across, self.stride, channels])?;
                parts.push(strides.narrow(2, 0, 1)?.narrow(4, 0, 1)?.squeeze(4)?.squeeze(2)?.contiguous()?);
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{Picture, Window};

    /// Every number different, some negative.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|index| f32::from(u8::try_from((index * 37 + 11) % 101).unwrap()) - 60.0).collect()
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// By both ways alike, and as candle's own convolution has it.
    #[test]
    fn windows_are_the_same_wherever_they_are_cut() {
        let channels = 3;
        for (size, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (5, 3), (7, 2)] {
            let window = Window::new(size, stride);
            for (height, width) in [(1, 1), (2, 1), (3, 3), (4, 7), (8, 5)] {
                let numbers = numbers(height * width * channels);
                let picture = Picture { numbers: &numbers, height, width, channels };
                let mut cut = Vec::new();
                window.cut(picture, 0..window.places(height), &mut cut);
                let tensor = Tensor::from_slice(&numbers, (1, height, width, channels), &Device::Cpu).unwrap();
                let by_candle = window.cut_by_candle(&tensor).unwrap();
                assert_eq!(cut, flat(&by_candle));
                assert_eq!(window.largest(picture), flat(&window.largest_by_candle(&tensor).unwrap()));
                // A kernel of ones adds all that is in a window.
                let ones = Tensor::ones((1, channels, size, size), DType::F32, &Device::Cpu).unwrap();
                let channels_first = tensor.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
                let sums = channels_first.conv2d(&ones, size / 2, stride, 1, 1).unwrap();
                assert_eq!(flat(&by_candle.sum(1).unwrap()), flat(&sums), "{window:?} {height} {width}");
            }
        }
    }

    #[test]
    fn the_largest_of_a_window_is_in_the_picture() {
        let picture = Picture { numbers: &[-3.0; 16], height: 4, width: 4, channels: 1 };
        assert_eq!(Window::new(3, 2).largest(picture), [-3.0; 4]);
        let picture = Picture { numbers: &[-1.0, -9.0, -2.0, -8.0], height: 2, width: 1, channels: 2 };
        assert_eq!(Window::new(3, 2).largest(picture), [-1.0, -8.0]);
    }

    #[test]
    fn lines_of_windows_join_to_all_of_them() {
        let (window, numbers) = (Window::new(3, 2), numbers(9 * 6 * 2));
        let picture = Picture { numbers: &numbers, height: 9, width: 6, channels: 2 };
        let (mut parts, mut whole) = (Vec::new(), Vec::new());
        [0..2, 2..3, 3..5].into_iter().for_each(|lines| window.cut(picture, lines, &mut parts));
        window.cut(picture, 0..5, &mut whole);
        assert_eq!(parts, whole);
    }
}
