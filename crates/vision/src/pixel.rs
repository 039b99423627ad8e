//! The form in which a network wants pixels: order of colours, normalisation, layout. Resizing happens elsewhere.

use crate::Rgb8;

/// Where the channels of a pixel stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One plane per channel: `[C,H,W]`, as ONNX image networks mostly want it.
    Planar,
    /// The channels of a pixel side by side: `[H,W,C]`.
    Interleaved,
}

/// Which channels, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of brightness: 0.299 R + 0.587 G + 0.114 B, in steps of 1/65536 so that grey stays exactly as it was.
    Grey,
}

impl Color {
    /// How many channels.
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }

    /// The channels of one RGB pixel; of [`Color::Grey`], the first counts.
    #[inline]
    fn arrange(self, [red, green, blue]: [f32; 3]) -> [f32; 3] {
        match self {
            Self::Rgb => [red, green, blue],
            Self::Bgr => [blue, green, red],
            // The weights are sums of few powers of two, and they add up to 65536: of equal channels nothing is rounded.
            Self::Grey => [(red * 19595.0 + green * 38470.0 + blue * 7471.0) / 65536.0; 3],
        }
    }
}

/// What happens to each value: `(value - mean) * scale`, channel by channel, in f32 and in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Subtracted first; one for each channel, in the order of the output. Of one channel the first counts.
    pub mean: [f32; 3],
    /// Multiplied then.
    pub scale: [f32; 3],
}

impl Normalization {
    /// Values stay 0 to 255.
    pub const NONE: Self = Self { mean: [0.0; 3], scale: [1.0; 3] };

    /// The same mean and scale for all channels.
    pub const fn uniform(mean: f32, scale: f32) -> Self {
        Self { mean: [mean; 3], scale: [scale; 3] }
    }

    #[inline]
    fn apply(&self, pixel: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|channel| (pixel[channel] - self.mean[channel]) * self.scale[channel])
    }
}

/// Everything about the form of the numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelFormat {
    /// Where the channels stand.
    pub layout: Layout,
    /// Which channels.
    pub color: Color,
    /// What happens to the values.
    pub normalization: Normalization,
}

impl PixelFormat {
    /// How many numbers a picture of `width` x `height` gives.
    pub const fn len(&self, width: usize, height: usize) -> usize {
        width * height * self.color.channels()
    }

    /// Writes `picture` into `out`: `[C,H,W]` or `[H,W,C]` by the layout.
    ///
    /// # Panics
    /// When `out` has another length than [`PixelFormat::len`] says.
    pub fn write(&self, picture: &Rgb8, out: &mut [f32]) {
        let pixels = picture.pixels().chunks_exact(3).map(|bytes| [bytes[0], bytes[1], bytes[2]].map(f32::from));
        self.put(picture.width() * picture.height(), pixels, out);
    }

    /// Writes planes of RGB values, `[3,H,W]` with `count` = H * W, into `out`: the values of an area resize, say, which are
    /// not whole numbers.
    ///
    /// # Panics
    /// When `planes` has another length than `3 * count`, or `out` than `count` times the channels.
    pub fn write_planes(&self, planes: &[f32], count: usize, out: &mut [f32]) {
        assert_eq!(planes.len(), 3 * count, "three planes of {count} values");
        let (red, rest) = planes.split_at(count);
        let (green, blue) = rest.split_at(count);
        let pixels = red.iter().zip(green).zip(blue).map(|((&red, &green), &blue)| [red, green, blue]);
        self.put(count, pixels, out);
    }

    fn put(&self, count: usize, pixels: impl Iterator<Item = [f32; 3]>, out: &mut [f32]) {
        let channels = self.color.channels();
        assert_eq!(out.len(), count * channels, "{count} pixels of {channels} channels");
        let pixels = pixels.map(|pixel| self.normalization.apply(self.color.arrange(pixel)));
        match (self.layout, self.color) {
            (_, Color::Grey) => out.iter_mut().zip(pixels).for_each(|(out, pixel)| *out = pixel[0]),
            (Layout::Interleaved, _) => {
                out.chunks_exact_mut(3).zip(pixels).for_each(|(out, pixel)| out.copy_from_slice(&pixel));
            }
            (Layout::Planar, _) => {
                let (first, rest) = out.split_at_mut(count);
                let (second, third) = rest.split_at_mut(count);
                for (((first, second), third), pixel) in first.iter_mut().zip(second).zip(third).zip(pixels) {
                    [*first, *second, *third] = pixel;
                }
            }
        }
    }
}
