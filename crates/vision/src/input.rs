//! The declared input of kind `image`: any image model takes JPEG and PNG files, with no code of its own.
//!
//! ```toml
//! [inputs.image]
//! kind = "image"
//! range = 1
//! mean = [0.485, 0.456, 0.406]
//! std = [0.229, 0.224, 0.225]
//! resize = "shorter_side_crop"
//! shorter_side = 256
//! ```
//!
//! What the keys mean, and what follows from the network's own input, is in `options`.

mod options;

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;
use millrace_core::{DType, InputAdapter, InputAdapterFactory, InputError, LoadError, Tensor, TensorSpec};

use crate::{
    Color, DecodeError, Filter, Limits, PixelFormat, ResizeError, Rgb8, area_resize, decode, resize, resize_and_crop,
};

/// Makes the adapters of `kind = "image"`: an input of encoded pictures (`BYTES[N]`, a JPEG or PNG file each) in front of a
/// network that takes pixels.
///
/// The network's input is FP32, FP16 or UINT8 of `[N,C,H,W]`, `[N,H,W,C]` or `[N,H,W]`. The keys, all optional where the
/// network's shape says enough:
///
/// | key | means | default |
/// |---|---|---|
/// | `size` | `[height, width]` | the network's, where fixed |
/// | `layout` | `nchw` or `nhwc` | the one whose channel axis is 1 or 3 |
/// | `color` | `rgb`, `bgr` or `grey` | `grey` for one channel, else `rgb` |
/// | `range` | what a full channel becomes before mean and scale: 255 or 1, say | 255 |
/// | `mean` | subtracted; one number, or one for each channel in the network's order | 0 |
/// | `scale` | multiplied after that | 1 |
/// | `std` | divided by after that, in place of `scale` | 1 |
/// | `resize` | `stretch`, `shorter_side_crop` or `area` | `stretch` |
/// | `shorter_side` | of `shorter_side_crop`: the shorter side before the middle is cut out | the longer of `size` |
/// | `filter` | of the first two: `nearest`, `box`, `bilinear`, `bicubic` or `lanczos` | `bilinear` |
/// | `max_pixels` | the most pixels of one picture | 40000000 |
/// | `max_bytes` | the longest file | 33554432 |
/// | `max_instances` | the most pictures in one request | as many as fill 256 MiB |
///
/// A value becomes `(channel * range / 255 - mean) * scale`. UINT8 networks get the channels as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageInput;

impl InputAdapterFactory for ImageInput {
    fn name(&self) -> &'static str {
        "image"
    }

    fn build(
        &self,
        inner: &TensorSpec,
        options: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn InputAdapter>, LoadError> {
        Ok(Arc::new(options::read(inner, options)?))
    }
}

/// The adapter of one input.
#[derive(Debug)]
struct ImageAdapter {
    spec: TensorSpec,
    /// The sizes of the network's axes after the first.
    row_shape: Vec<usize>,
    values: Values,
    width: usize,
    height: usize,
    resize: Resize,
    format: PixelFormat,
    limits: Limits,
    max_instances: usize,
}

/// The numbers that the network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Fp32,
    Fp16,
    Uint8,
}

/// How a picture gets the network's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    Stretch(Filter),
    ShorterSideCrop(usize, Filter),
    Area,
}

impl ImageAdapter {
    /// Decodes, resizes and normalises one file into `out`, one row of the network's input.
    fn fill(&self, file: &[u8], out: &mut [f32]) -> Result<(), InstanceError> {
        let picture = decode(file, &self.limits)?;
        match self.resize {
            Resize::Stretch(filter) => {
                self.format.write(&resize(&picture, self.width, self.height, filter)?, out);
            }
            Resize::ShorterSideCrop(side, filter) => {
                self.format.write(&resize_and_crop(&picture, side, self.width, self.height, filter)?, out);
            }
            Resize::Area => self.fill_by_area(&picture, out),
        }
        Ok(())
    }

    fn fill_by_area(&self, picture: &Rgb8, out: &mut [f32]) {
        let count = self.width * self.height;
        let mut planes = vec![0.0; 3 * count];
        area_resize(picture, self.width, self.height, &mut planes);
        self.format.write_planes(&planes, count, out);
    }
}

/// What can be wrong with one picture.
#[derive(Debug, thiserror::Error)]
enum InstanceError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

impl InputAdapter for ImageAdapter {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn admit(&self, given: &Tensor) -> Result<(), InputError> {
        if given.strings().is_none_or(|files| files.len() <= self.max_instances) {
            return Ok(());
        }
        let (input, index) = (Arc::clone(&self.spec.name), self.max_instances);
        let detail = format!("one picture too many: a request may hold at most {index}");
        Err(InputError::Instance { input, index, detail })
    }

    fn adapt(&self, given: &Tensor) -> Result<Tensor, InputError> {
        let Some(files) = given.strings() else {
            return Err(InputError::DType {
                input: Arc::clone(&self.spec.name),
                expected: DType::Bytes,
                got: given.dtype(),
            });
        };
        self.admit(given)?;
        let wrong = |index, detail| InputError::Instance { input: Arc::clone(&self.spec.name), index, detail };
        let row = self.format.len(self.width, self.height);
        let (mut floats, mut halves, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut scratch = vec![0.0; if self.values == Values::Fp32 { 0 } else { row }];
        for (index, file) in files.iter().enumerate() {
            // Memory comes with each picture that was sound, not with the number that a request claims to hold.
            let filled = match self.values {
                Values::Fp32 => {
                    let start = floats.len();
                    floats.resize(start + row, 0.0);
                    self.fill(file, &mut floats[start..])
                }
                Values::Fp16 => self.fill(file, &mut scratch).map(|()| {
                    halves.extend(scratch.iter().map(|value| f16::from_f32(*value)));
                }),
                Values::Uint8 => self.fill(file, &mut scratch).map(|()| {
                    bytes.extend(scratch.iter().map(|value| to_u8(*value)));
                }),
            };
            filled.map_err(|error| wrong(index, error.to_string()))?;
        }
        let mut sizes = vec![files.len()];
        sizes.extend_from_slice(&self.row_shape);
        let tensor = match self.values {
            Values::Fp32 => Tensor::from_vec(&sizes, floats),
            Values::Fp16 => Tensor::from_vec(&sizes, halves),
            Values::Uint8 => Tensor::from_vec(&sizes, bytes),
        };
        tensor.map_err(|error| wrong(0, error.to_string()))
    }
}

/// The nearest byte.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast to a byte stops at 0 and 255"
)]
fn to_u8(value: f32) -> u8 {
    value.round() as u8
}

impl Color {
    /// The colours of a network with `channels` channels, where nothing else is said.
    fn usual(channels: usize) -> Self {
        if channels == 1 { Self::Grey } else { Self::Rgb }
    }
}
