//! Area resizing: every output value is the plain mean of the input pixels that it covers.
//!
//! One table of sums over the picture answers any crop at any size in four look-ups a value, which is what face detection
//! needs: a pyramid of the picture and hundreds of overlapping crops of it. For one resize of one picture there is a
//! function without a table.

use crate::{Crop, Normalization, Rgb8};

/// The most pixels whose sum, at 255 each, an f32 holds exactly.
const EXACT_IN_F32: usize = (1 << 24) / 255;
/// The side of the largest square whose sum is certain to fit the table's 32 bits.
const TILE: usize = 4096;

/// Sums of a picture's channels over every rectangle that starts at its top left corner.
///
/// Sums wrap around at 32 bits. The difference of four of them is still exact for any rectangle of up to 4096 x 4096 pixels;
/// larger ones are added up from such tiles.
#[derive(Debug, Clone)]
pub struct IntegralImage {
    width: usize,
    height: usize,
    /// `height + 1` rows of `width + 1` entries of R, G, B; the first row and column are zero. One number more at the end,
    /// so that four can be read at every entry.
    sums: Vec<u32>,
}

/// The columns that one output column covers, as positions in a row of the table.
#[derive(Clone, Copy)]
struct Column {
    from: usize,
    to: usize,
    width: f32,
}

impl IntegralImage {
    /// Adds up `picture`. Takes [`IntegralImage::n_bytes`] of memory: four times as much as the picture.
    pub fn new(picture: &Rgb8) -> Self {
        let (width, height) = (picture.width(), picture.height());
        let stride = (width + 1) * 3;
        let mut sums = vec![0_u32; stride * (height + 1) + 1];
        for y in 0..height {
            let (above, below) = sums.split_at_mut((y + 1) * stride);
            let above = above[y * stride + 3..].chunks_exact(3);
            let row = below[3..stride].chunks_exact_mut(3);
            let mut left = [0_u32; 3];
            for ((pixel, above), sum) in picture.row(y).chunks_exact(3).zip(above).zip(row) {
                for channel in 0..3 {
                    left[channel] = left[channel].wrapping_add(u32::from(pixel[channel]));
                    sum[channel] = above[channel].wrapping_add(left[channel]);
                }
            }
        }
        Self { width, height, sums }
    }

    /// Bytes of memory that the table of a picture of `width` x `height` takes.
    pub const fn n_bytes(width: usize, height: usize) -> usize {
        4 * (3 * (width + 1) * (height + 1) + 1)
    }

    /// The picture's width.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The picture's height.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Resizes `crop` to `width` x `height`, smaller or larger, into the planes `[3, height, width]` of `out`.
    ///
    /// Output `i` of `m`, from `n` inputs, is the mean of the inputs `floor(i*n/m)` to `ceil((i+1)*n/m) - 1`, in both
    /// directions (adaptive average pooling): an exact sum, divided, rounded once to f32, then normalised in f32.
    ///
    /// # Panics
    /// When `crop` does not fit the picture, `width` or `height` is 0, or `out` has another length than
    /// `3 * height * width`.
    pub fn area_resize(&self, crop: Crop, width: usize, height: usize, normalization: &Normalization, out: &mut [f32]) {
        assert!(crop.fits(self.width, self.height), "{crop:?} of {}x{}", self.width, self.height);
        assert!(width > 0 && height > 0, "an area resize to {width}x{height}");
        let plane = width * height;
        assert_eq!(out.len(), 3 * plane, "planes of {width}x{height}");
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let mut planes = [red, green, blue].map(|plane| plane.chunks_exact_mut(width));
        let rows = (0..height).map(|i| span(crop.top, crop.height(), i, height));
        // A cell covers one pixel more than its share at either end.
        let largest = (crop.width() / width + 2) * (crop.height() / height + 2);
        let columns: Vec<Column> = (0..width)
            .map(|i| {
                let (from, to) = span(crop.left, crop.width(), i, width);
                Column { from: 3 * from, to: 3 * to, width: to_f32(to - from) }
            })
            .collect();
        for (top, bottom) in rows {
            let [Some(red), Some(green), Some(blue)] = planes.each_mut().map(Iterator::next) else { return };
            if largest <= EXACT_IN_F32 {
                self.small_cells((top, bottom), &columns, normalization, [red, green, blue]);
            } else {
                self.large_cells((top, bottom), &columns, normalization, [red, green, blue]);
            }
        }
    }

    /// One output row whose cells' sums are exact in f32. A quotient of two exact f32 is what the quotient in f64, rounded
    /// to f32, would be; so nothing is lost by dividing in f32.
    fn small_cells(
        &self,
        (top, bottom): (usize, usize),
        columns: &[Column],
        normalization: &Normalization,
        [red, green, blue]: [&mut [f32]; 3],
    ) {
        let Normalization { mean, scale } = normalization;
        let (mean, scale) = ([mean[0], mean[1], mean[2], 0.0], [scale[0], scale[1], scale[2], 0.0]);
        let (above, below) = (self.row(top), self.row(bottom));
        let height = to_f32(bottom - top);
        for (((column, red), green), blue) in columns.iter().zip(red).zip(green).zip(blue) {
            // Four lanes rather than three: the compiler makes vector instructions of them. The fourth is the neighbour's.
            let (a, b) = (four(above, column.from), four(above, column.to));
            let (c, d) = (four(below, column.from), four(below, column.to));
            let area = column.width * height;
            let values: [f32; 4] = std::array::from_fn(|lane| {
                let sum = d[lane].wrapping_sub(c[lane]).wrapping_sub(b[lane]).wrapping_add(a[lane]);
                (narrow(sum) / area - mean[lane]) * scale[lane]
            });
            [*red, *green, *blue] = [values[0], values[1], values[2]];
        }
    }

    /// One output row of cells of any size.
    fn large_cells(
        &self,
        (top, bottom): (usize, usize),
        columns: &[Column],
        normalization: &Normalization,
        [red, green, blue]: [&mut [f32]; 3],
    ) {
        for (((column, red), green), blue) in columns.iter().zip(red).zip(green).zip(blue) {
            let (left, right) = (column.from / 3, column.to / 3);
            let sums = self.sum(Crop { left, top, right, bottom });
            let area = (right - left) * (bottom - top);
            let values: [f32; 3] = std::array::from_fn(|channel| {
                (quotient(sums[channel], area) - normalization.mean[channel]) * normalization.scale[channel]
            });
            [*red, *green, *blue] = values;
        }
    }

    /// The exact sums of a rectangle of any size.
    fn sum(&self, crop: Crop) -> [u64; 3] {
        let mut total = [0_u64; 3];
        for top in (crop.top..crop.bottom).step_by(TILE) {
            let (above, below) = (self.row(top), self.row(crop.bottom.min(top + TILE)));
            for left in (crop.left..crop.right).step_by(TILE) {
                let (from, to) = (3 * left, 3 * crop.right.min(left + TILE));
                for (channel, total) in total.iter_mut().enumerate() {
                    let lower = below[to + channel].wrapping_sub(below[from + channel]);
                    let upper = above[to + channel].wrapping_sub(above[from + channel]);
                    *total += u64::from(lower.wrapping_sub(upper));
                }
            }
        }
        total
    }

    /// The table's row above pixel row `y`, one number longer than it is.
    fn row(&self, y: usize) -> &[u32] {
        let stride = (self.width + 1) * 3;
        &self.sums[y * stride..=(y + 1) * stride]
    }
}

/// Resizes the whole of `picture` to `width` x `height`, smaller or larger, into the planes `[3, height, width]` of `out`:
/// what [`IntegralImage::area_resize`] gives without normalisation, but for one use the memory of one row is enough.
///
/// # Panics
/// When `width` or `height` is 0, or `out` has another length than `3 * height * width`.
pub fn area_resize(picture: &Rgb8, width: usize, height: usize, out: &mut [f32]) {
    assert!(width > 0 && height > 0, "an area resize to {width}x{height}");
    let plane = width * height;
    assert_eq!(out.len(), 3 * plane, "planes of {width}x{height}");
    let mut sums = vec![0_u64; 3 * picture.width()];
    for y in 0..height {
        let (top, bottom) = span(0, picture.height(), y, height);
        sums.fill(0);
        for row in top..bottom {
            for (sum, value) in sums.iter_mut().zip(picture.row(row)) {
                *sum += u64::from(*value);
            }
        }
        for x in 0..width {
            let (left, right) = span(0, picture.width(), x, width);
            let mut cell = [0_u64; 3];
            for column in sums[3 * left..3 * right].chunks_exact(3) {
                cell = std::array::from_fn(|channel| cell[channel] + column[channel]);
            }
            for (channel, sum) in cell.into_iter().enumerate() {
                out[channel * plane + y * width + x] = quotient(sum, (right - left) * (bottom - top));
            }
        }
    }
}

/// The inputs that output `i` of `outputs` covers, of `inputs` that begin at `start`.
fn span(start: usize, inputs: usize, i: usize, outputs: usize) -> (usize, usize) {
    (start + i * inputs / outputs, start + ((i + 1) * inputs).div_ceil(outputs))
}

#[inline]
fn four(row: &[u32], at: usize) -> [u32; 4] {
    let entry = &row[at..at + 4];
    [entry[0], entry[1], entry[2], entry[3]]
}

/// The sum as f32. By way of i32, for which there is an instruction on every machine; of the three real channels it is
/// below 2^24, and what the fourth lane holds does not matter.
#[inline]
#[expect(clippy::cast_possible_wrap, reason = "small_cells gets only sums below 2^24")]
fn narrow(sum: u32) -> f32 {
    sum as i32 as f32
}

/// Exact for the sizes of small cells, and never used for others.
fn to_f32(size: usize) -> f32 {
    size as f32
}

#[expect(clippy::cast_possible_truncation, reason = "a mean of bytes; the one rounding of an area resize")]
fn quotient(sum: u64, area: usize) -> f32 {
    (sum as f64 / area as f64) as f32
}

#[cfg(test)]
mod tests;
