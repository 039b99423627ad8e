//! What was found, as pictures: the photograph with boxes and landmarks beside the faces cut out of it.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use millrace_face::{CHIP_LEN, CHIP_SIDE, align};
use millrace_vision::{Limits, Rgb8, decode};

use crate::finder::Face;

/// One colour a face, over and over.
const COLORS: [[u8; 3]; 6] =
    [[64, 224, 96], [255, 176, 0], [0, 176, 255], [255, 96, 192], [240, 240, 64], [160, 128, 255]];
/// Around what is drawn, so that it shows on any ground.
const DARK: [u8; 3] = [16, 16, 16];
/// Between the photograph and the faces beside it.
const GAP: usize = 6;

/// A photograph and the faces in it.
pub(crate) struct Photo {
    pixels: Rgb8,
    /// Boxes and landmarks in pixels.
    faces: Vec<([f32; 4], [[f32; 2]; 5])>,
    chips: Vec<Rgb8>,
}

impl Photo {
    /// Decodes a file and cuts out its faces.
    pub(crate) fn new(file: &[u8], faces: &[Face]) -> Result<Self, Box<dyn Error>> {
        let pixels = decode(file, &Limits::default())?;
        let (width, height) = (pixels.width() as f32, pixels.height() as f32);
        let point = |[x, y]: [f32; 2]| [x * width, y * height];
        let places = faces.iter().map(|face| {
            let [left, top, right, bottom] = face.bbox;
            let ([left, top], [right, bottom]) = (point([left, top]), point([right, bottom]));
            ([left, top, right, bottom], face.landmarks.map(point))
        });
        let faces: Vec<_> = places.collect();
        let chips = faces.iter().map(|(_, landmarks)| chip(&pixels, landmarks)).collect::<Result<_, _>>()?;
        Ok(Self { pixels, faces, chips })
    }

    pub(crate) fn width(&self) -> usize {
        self.pixels.width()
    }

    pub(crate) fn height(&self) -> usize {
        self.pixels.height()
    }

    /// Each face upright, as the recognition network sees it.
    pub(crate) fn chips(&self) -> &[Rgb8] {
        &self.chips
    }

    /// The photograph with boxes and landmarks; to its right the chips in columns, in frames of their boxes' colours. No more
    /// columns than make the picture twice as wide: a crowd's further faces are drawn, but do not stand beside it.
    pub(crate) fn marked(&self) -> Rgb8 {
        let (width, height) = (self.width(), self.height());
        let cell = CHIP_SIDE + 2 * GAP;
        let rows = (height / cell).max(1);
        let columns = self.chips.len().div_ceil(rows).min((width / cell).max(1));
        let mut canvas = Canvas::new(width + columns * cell, height.max(self.chips.len().min(rows) * cell));
        canvas.paste(&self.pixels, 0, 0);
        let colors = COLORS.iter().copied().cycle();
        for ((corners, landmarks), color) in self.faces.iter().zip(colors.clone()) {
            // Small faces have thin lines, so that these do not hide them.
            let thickness = ((corners[2] - corners[0]) / 60.0).clamp(1.0, 12.0);
            canvas.frame(corners.map(pixel), pixel(thickness), color, [width, height]);
            for &[x, y] in landmarks {
                canvas.dot([x, y], 1.2 * thickness, color, [width, height]);
            }
        }
        for (index, (chip, color)) in self.chips.iter().zip(colors).take(rows * columns).enumerate() {
            let (left, top) = (width + index / rows * cell + GAP, index % rows * cell + GAP);
            canvas.paste(chip, left, top);
            let corners = [left, top, left + CHIP_SIDE, top + CHIP_SIDE];
            let whole = [canvas.width, canvas.height];
            canvas.frame(corners.map(|side| i64::try_from(side).unwrap_or(i64::MAX)), 2, color, whole);
        }
        canvas.finish()
    }
}

fn chip(photo: &Rgb8, landmarks: &[[f32; 2]; 5]) -> Result<Rgb8, Box<dyn Error>> {
    let mut planes = vec![0.0; CHIP_LEN];
    align(photo, landmarks, &mut planes)?;
    let (red, rest) = planes.split_at(CHIP_LEN / 3);
    let (green, blue) = rest.split_at(CHIP_LEN / 3);
    let pixels = red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [*r, *g, *b].map(byte)).collect();
    Ok(Rgb8::new(CHIP_SIDE, CHIP_SIDE, pixels)?)
}

/// Rounded, and within a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` keeps to the ends of the range")]
fn byte(value: f32) -> u8 {
    value.round() as u8
}

/// The pixel at a place, which may lie outside of the picture.
#[expect(clippy::cast_possible_truncation, reason = "`as` keeps to the ends of the range")]
fn pixel(place: f32) -> i64 {
    place.round() as i64
}

/// Writes a picture as PNG.
pub(crate) fn write(path: &Path, picture: &Rgb8) -> Result<(), Box<dyn Error>> {
    let named = |error: &dyn Error| format!("{}: {error}", path.display());
    let file = BufWriter::new(File::create(path).map_err(|error| named(&error))?);
    let (width, height) = (u32::try_from(picture.width())?, u32::try_from(picture.height())?);
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let encode = || {
        let mut writer = encoder.write_header()?;
        writer.write_image_data(picture.pixels())?;
        writer.finish()
    };
    Ok(encode().map_err(|error| named(&error))?)
}

/// A picture that is being drawn on.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: DARK.repeat(width * height) }
    }

    fn paste(&mut self, picture: &Rgb8, left: usize, top: usize) {
        for y in 0..picture.height() {
            let start = 3 * ((top + y) * self.width + left);
            self.pixels[start..][..3 * picture.width()].copy_from_slice(picture.row(y));
        }
    }

    /// Mixes a colour into a pixel, if it lies within `bounds`.
    fn mix(&mut self, [x, y]: [i64; 2], color: [u8; 3], share: f32, bounds: [usize; 2]) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < bounds[0] && y < bounds[1] {
            let start = 3 * (y * self.width + x);
            for (old, new) in self.pixels[start..start + 3].iter_mut().zip(color) {
                *old = byte(f32::from(*old) * (1.0 - share) + f32::from(new) * share);
            }
        }
    }

    /// A frame around a box, outwards from its edge, with a dark line of one pixel on both sides.
    fn frame(&mut self, [left, top, right, bottom]: [i64; 4], thickness: i64, color: [u8; 3], bounds: [usize; 2]) {
        for out in -1..=thickness {
            let color = if (0..thickness).contains(&out) { color } else { DARK };
            // What lies far outside need not be walked.
            let within =
                |from: i64, to: i64, side: usize| from.max(0)..=to.min(i64::try_from(side).unwrap_or(i64::MAX));
            let (x1, y1, x2, y2) = (left - out, top - out, right + out, bottom + out);
            for x in within(x1, x2, bounds[0]) {
                self.mix([x, y1], color, 1.0, bounds);
                self.mix([x, y2], color, 1.0, bounds);
            }
            for y in within(y1, y2, bounds[1]) {
                self.mix([x1, y], color, 1.0, bounds);
                self.mix([x2, y], color, 1.0, bounds);
            }
        }
    }

    /// A disc with a dark rim, with smooth edges.
    fn dot(&mut self, [x, y]: [f32; 2], radius: f32, color: [u8; 3], bounds: [usize; 2]) {
        for (radius, color) in [(radius + 1.0, DARK), (radius, color)] {
            let reach = radius + 1.0;
            for row in pixel(y - reach)..=pixel(y + reach) {
                for column in pixel(x - reach)..=pixel(x + reach) {
                    let away = (column as f32 - x).hypot(row as f32 - y);
                    self.mix([column, row], color, (radius + 0.5 - away).clamp(0.0, 1.0), bounds);
                }
            }
        }
    }

    fn finish(self) -> Rgb8 {
        Rgb8::new(self.width, self.height, self.pixels).expect("a canvas has three bytes for each of its pixels")
    }
}
