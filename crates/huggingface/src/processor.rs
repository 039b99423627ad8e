//! `preprocessor_config.json`: how pictures are made into what a network takes.

use serde_json::Value;

use crate::error::HuggingFaceError;
use crate::fields::Fields;

const FILE: &str = "preprocessor_config.json";
const MAX_SIDE: usize = 1 << 14;

/// How pictures are prepared: resized, cropped, scaled and normalised, in this order; each `None` where it is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// The size that pictures are brought to first.
    pub resize: Option<ImageSize>,
    /// Which filter does it, as the library PIL counts them: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic.
    pub resample: usize,
    /// Height and width that are then cut out of the middle.
    pub crop: Option<(usize, usize)>,
    /// What the numbers 0 to 255 are multiplied by.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each channel, which are taken off and divided by.
    pub normalise: Option<(Vec<f64>, Vec<f64>)>,
}

/// A size to bring pictures to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// Height and width, whatever they were before.
    Exact {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
    /// The shorter side, the other in proportion.
    ShortestEdge(usize),
}

impl ImageProcessor {
    /// Reads the content of a `preprocessor_config.json`. What it does not say is as the processor of vision transformers
    /// has it: resize to 224 by 224 bilinearly, multiply by 1/255, mean and deviation one half.
    ///
    /// # Errors
    /// No JSON object; a key with an impossible value.
    pub fn parse(bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(FILE, bytes)?;
        let does = |key: &str, default: bool| Ok::<_, HuggingFaceError>(fields.flag(key)?.unwrap_or(default));
        let resize = if does("do_resize", true)? { Some(size(&fields, "size")?) } else { None };
        let crop = match (does("do_center_crop", false)?, size(&fields, "crop_size")?) {
            (false, _) => None,
            (true, ImageSize::Exact { height, width }) => Some((height, width)),
            (true, ImageSize::ShortestEdge(_)) => return Err(fields.wrong("crop_size", "height and width")),
        };
        let rescale = if does("do_rescale", true)? {
            Some(fields.number("rescale_factor", 1e-9..=1e9)?.unwrap_or(1.0 / 255.0))
        } else {
            None
        };
        let normalise = if does("do_normalize", true)? {
            let mean = fields.numbers("image_mean", -1e6..=1e6, 1024)?.unwrap_or_else(|| vec![0.5; 3]);
            let std = fields.numbers("image_std", 1e-9..=1e6, 1024)?.unwrap_or_else(|| vec![0.5; 3]);
            if mean.len() != std.len() {
                return Err(fields.wrong("image_std", format!("as many numbers as `image_mean` has, {}", mean.len())));
            }
            Some((mean, std))
        } else {
            None
        };
        let resample = fields.size("resample", 0..=5)?.unwrap_or(2);
        Ok(Self { resize, resample, crop, rescale, normalise })
    }
}

/// One number (both sides), `{height, width}` or `{shortest_edge}`.
fn size(fields: &Fields, key: &str) -> Result<ImageSize, HuggingFaceError> {
    const DEFAULT: usize = 224;
    match fields.get(key) {
        None => Ok(ImageSize::Exact { height: DEFAULT, width: DEFAULT }),
        Some(Value::Object(map)) => {
            let inner = Fields::of(&format!("{}: `{key}`", fields.file()), map.clone());
            match inner.size("shortest_edge", 1..=MAX_SIDE)? {
                Some(edge) => Ok(ImageSize::ShortestEdge(edge)),
                None => Ok(ImageSize::Exact {
                    height: inner.needed_size("height", 1..=MAX_SIDE)?,
                    width: inner.needed_size("width", 1..=MAX_SIDE)?,
                }),
            }
        }
        Some(_) => {
            let side = fields.needed_size(key, 1..=MAX_SIDE)?;
            Ok(ImageSize::Exact { height: side, width: side })
        }
    }
}
