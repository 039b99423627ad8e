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
/// lies at `i + (j + 0.5)/k - 0.5`. Arithmetic in f64.
///
/// # Panics
/// When `out` has another length than `width * height * 3`.
pub fn warp(picture: &Rgb8, transform: &Similarity, width: usize, height: usize, layout: Layout, out: &mut [f32]) {
    let count = width * height;
    assert_eq!(out.len(), 3 * count, "{width}x{height} pixels of 3 channels");
    let samples = samples(transform.scale());
    let sampler = Sampler::new(picture, transform.inverse());
    let share = 1.0 / to_f64(samples * samples);
    let offsets: Vec<f64> = (0..samples).map(|j| (to_f64(j) + 0.5) / to_f64(samples) - 0.5).collect();
    for y in 0..height {
        for x in 0..width {
            let mut sum = [0.0; 3];
            for dy in &offsets {
                for dx in &offsets {
                    let sample = sampler.at([to_f64(x) + dx, to_f64(y) + dy]);
                    sum = std::array::from_fn(|channel| sum[channel] + sample[channel]);
                }
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

/// Samples per axis for a transform of this scale.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=64 first")]
fn samples(scale: f64) -> usize {
    // The small number keeps a scale of 1/2, say, at 2 samples although its square root came out a little less.
    let wanted = (1.0 / scale - 1e-6).ceil();
    wanted.clamp(1.0, to_f64(MAX_SAMPLES)) as usize
}

/// Reads a picture between its pixels.
struct Sampler<'a> {
    picture: &'a Rgb8,
    back: Similarity,
    right: f64,
    bottom: f64,
}

impl<'a> Sampler<'a> {
    fn new(picture: &'a Rgb8, back: Similarity) -> Self {
        Self { picture, back, right: to_f64(picture.width() - 1), bottom: to_f64(picture.height() - 1) }
    }

    /// The picture's colour where the inverse brings `point`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture first")]
    fn at(&self, point: [f64; 2]) -> [f64; 3] {
        let [x, y] = self.back.apply(point);
        // `max` before `min`: it turns a NaN into 0, so that the casts below are always inside.
        let (x, y) = (x.max(0.0).min(self.right), y.max(0.0).min(self.bottom));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.picture.width() - 1), (top + 1).min(self.picture.height() - 1));
        let (fx, fy) = (x - to_f64(left), y - to_f64(top));
        let (upper, lower) = (self.picture.row(top), self.picture.row(bottom));
        let corner = |row: &[u8], x: usize, channel: usize| f64::from(row[x * 3 + channel]);
        std::array::from_fn(|channel| {
            corner(upper, left, channel) * (1.0 - fx) * (1.0 - fy)
                + corner(upper, right, channel) * fx * (1.0 - fy)
                + corner(lower, left, channel) * (1.0 - fx) * fy
                + corner(lower, right, channel) * fx * fy
        })
    }
}

/// Exact: pixel coordinates are far below 2^53.
fn to_f64(size: usize) -> f64 {
    size as f64
}

#[expect(clippy::cast_possible_truncation, reason = "between 0 and 255")]
fn to_f32(value: f64) -> f32 {
    value as f32
}
