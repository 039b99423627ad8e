//! Cutting an upright, aligned piece out of a picture.

use crate::{Layout, Rgb8, Similarity};

/// The most samples per axis that one output pixel is the mean of. Without a bound, landmarks that lie far apart would cost
/// any amount of work; 64 is enough for a piece of 150 pixels out of 9600.
pub const MAX_SAMPLES: usize = 64;

/// Writes the `width` x `height` piece that `transform` (picture to piece) shows, into `out`: RGB values 0 to 255, not rounded.
///
/// Integer coordinates are pixel centres in both pictures. Each output pixel goes back through the inverse and is read
/// bilinearly, coordinates clamped to the picture. Where the transform shrinks, an output pixel is the mean of `k` x `k`
/// samples spread evenly inside it: `k = max(1, ceil(1/scale - 1e-6))`, at most [`MAX_SAMPLES`]; sample `j` of pixel `i`
/// lies at `i + (j + 0.5)/k - 0.5`. Positions are f64, colours f32: within 1e-4 of what f64 throughout would give.
///
/// # Panics
/// When `out` has another length than `width * height * 3`.
pub fn warp(picture: &Rgb8, transform: &Similarity, width: usize, height: usize, layout: Layout, out: &mut [f32]) {
    let count = width * height;
    assert_eq!(out.len(), 3 * count, "{width}x{height} pixels of 3 channels");
    let samples = samples(transform.scale());
    let padded = padded(picture);
    let sampler = Sampler::new(padded.as_ref().unwrap_or(picture), picture, transform.inverse());
    let share = 1.0 / to_f64(samples * samples);
    let offsets: Vec<f64> = (0..samples).map(|j| (to_f64(j) + 0.5) / to_f64(samples) - 0.5).collect();
    for y in 0..height {
        for x in 0..width {
            let mut sum = [0.0_f64; 3];
            for dy in &offsets {
                let mut line = [0.0_f32; 3];
                for dx in &offsets {
                    let sample = sampler.at([to_f64(x) + dx, to_f64(y) + dy]);
                    line = std::array::from_fn(|channel| line[channel] + sample[channel]);
                }
                sum = std::array::from_fn(|channel| sum[channel] + f64::from(line[channel]));
            }
            for (channel, sum) in sum.into_iter().enumerate() {
                let index = match layout {
                    Layout::Planar => channel * count + y * width + x,
                    Layout::Interleaved => (y * width + x) * 3 + channel,
                };
                out[index] = to_f32(sum * share);
            }
        }
    }
}

/// A picture of one row or one column with that one twice, so that a sampler finds two of each; `None` for any other.
fn padded(picture: &Rgb8) -> Option<Rgb8> {
    let (columns, rows) = (picture.width().max(2), picture.height().max(2));
    if (columns, rows) == (picture.width(), picture.height()) {
        return None;
    }
    let row = |y: usize| (0..columns).flat_map(move |x| picture.pixel(x.min(picture.width() - 1), y));
    let pixels = (0..rows).flat_map(|y| row(y.min(picture.height() - 1))).collect();
    Rgb8::new(columns, rows, pixels).ok()
}

/// Samples per axis for a transform of this scale.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=64 first")]
fn samples(scale: f64) -> usize {
    // The small number keeps a scale of 1/2, say, at 2 samples although its square root came out a little less.
    let wanted = (1.0 / scale - 1e-6).ceil();
    wanted.clamp(1.0, to_f64(MAX_SAMPLES)) as usize
}

/// Reads a picture between its pixels.
struct Sampler<'a> {
    /// At least two pixels wide and high.
    pixels: &'a [u8],
    stride: usize,
    back: Similarity,
    /// The largest coordinates.
    right: f64,
    bottom: f64,
    /// The last column and row that have a neighbour behind them.
    last_left: usize,
    last_top: usize,
}

impl<'a> Sampler<'a> {
    fn new(padded: &'a Rgb8, picture: &Rgb8, back: Similarity) -> Self {
        Self {
            pixels: padded.pixels(),
            stride: 3 * padded.width(),
            back,
            right: to_f64(picture.width() - 1),
            bottom: to_f64(picture.height() - 1),
            last_left: padded.width() - 2,
            last_top: padded.height() - 2,
        }
    }

    /// The picture's colour where the inverse brings `point`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture first")]
    fn at(&self, point: [f64; 2]) -> [f32; 3] {
        let [x, y] = self.back.apply(point);
        // `max` before `min`: it turns a NaN into 0, so that the casts below are always inside.
        let (x, y) = (x.max(0.0).min(self.right), y.max(0.0).min(self.bottom));
        // On the last column the share of the right neighbour is 1, so that it alone counts; rows likewise.
        let (left, top) = ((x as usize).min(self.last_left), (y as usize).min(self.last_top));
        let (fx, fy) = (to_f32(x - to_f64(left)), to_f32(y - to_f64(top)));
        let upper = &self.pixels[top * self.stride + 3 * left..][..6];
        let lower = &self.pixels[(top + 1) * self.stride + 3 * left..][..6];
        std::array::from_fn(|channel| {
            let [a, b] = [upper[channel], upper[channel + 3]].map(f32::from);
            let [c, d] = [lower[channel], lower[channel + 3]].map(f32::from);
            let (above, below) = (a + (b - a) * fx, c + (d - c) * fx);
            above + (below - above) * fy
        })
    }
}

/// Exact: pixel coordinates are far below 2^53.
fn to_f64(size: usize) -> f64 {
    size as f64
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a colour or a share of one pixel")]
fn to_f32(value: f64) -> f32 {
    value as f32
}
