//! Reads the keys of an `[inputs.NAME]` table of kind `image`, together with what the network's own input says.
//!
//! Values arrive as text: strings without their quotes, everything else as the TOML file has it.

use std::collections::BTreeMap;
use std::str::FromStr;

use millrace_core::{DType, Dim, LoadError, LoadErrorKind, Quoted, TensorSpec, nearest};

use super::{ImageAdapter, Resize, Values};
use crate::{Color, Filter, Layout, Limits, MAX_SIDE, Normalization, PixelFormat};

const KEYS: [&str; 13] = [
    "color",
    "filter",
    "layout",
    "max_bytes",
    "max_instances",
    "max_pixels",
    "mean",
    "range",
    "resize",
    "scale",
    "shorter_side",
    "size",
    "std",
];
/// What the pictures of one request may become together, where `max_instances` does not say otherwise.
const REQUEST_BYTES: usize = 256 << 20;

/// The options of one input.
struct Options<'a> {
    input: &'a str,
    texts: &'a BTreeMap<String, String>,
}

/// What the axes of the network's input mean. A size of `None` is open.
struct Axes {
    layout: Layout,
    channels: usize,
    height: Option<usize>,
    width: Option<usize>,
    /// Whether there is an axis for the channels.
    is_rank_4: bool,
}

pub(super) fn read(inner: &TensorSpec, texts: &BTreeMap<String, String>) -> Result<ImageAdapter, LoadError> {
    let options = Options { input: &inner.name, texts };
    options.check_keys()?;
    let values = match inner.dtype {
        DType::Fp32 => Values::Fp32,
        DType::Fp16 => Values::Fp16,
        DType::Uint8 => Values::Uint8,
        other => {
            return Err(options.error(
                LoadErrorKind::Unsupported,
                &format!("the network takes {other}; pictures can become FP32, FP16 or UINT8"),
            ));
        }
    };
    let axes = options.axes(inner)?;
    let (height, width) = options.size(&axes)?;
    let color = options.color(axes.channels)?;
    let format =
        PixelFormat { layout: axes.layout, color, normalization: options.normalization(values, axes.channels)? };
    let resize = options.resize(height, width)?;
    let usual = Limits::default();
    let limits = Limits {
        max_pixels: options.count("max_pixels")?.unwrap_or(usual.max_pixels),
        max_bytes: options.count("max_bytes")?.unwrap_or(usual.max_bytes),
        ..usual
    };
    let row_bytes = format.len(width, height) * inner.dtype.size().unwrap_or(1);
    let max_instances = options.count("max_instances")?.unwrap_or_else(|| (REQUEST_BYTES / row_bytes).max(1));
    let row_shape = match (axes.is_rank_4, axes.layout) {
        (false, _) => vec![height, width],
        (true, Layout::Planar) => vec![axes.channels, height, width],
        (true, Layout::Interleaved) => vec![height, width, axes.channels],
    };
    let spec = TensorSpec::new(&inner.name, DType::Bytes, inner.shape.first().cloned().into_iter().collect::<Vec<_>>());
    Ok(ImageAdapter { spec, row_shape, values, width, height, resize, format, limits, max_instances })
}

impl Options<'_> {
    fn error(&self, kind: LoadErrorKind, detail: &str) -> LoadError {
        LoadError::new(kind, format!("[inputs.{}], kind \"image\": {detail}", self.input))
    }

    /// The error for the value of `key`.
    fn wrong(&self, key: &str, expected: &str) -> LoadError {
        let got = self.texts.get(key).map_or("nothing", String::as_str);
        self.error(LoadErrorKind::Invalid, &format!("`{key}` is {}; expected {expected}", Quoted(got)))
    }

    fn check_keys(&self) -> Result<(), LoadError> {
        let Some(unknown) = self.texts.keys().find(|key| !KEYS.contains(&key.as_str())) else { return Ok(()) };
        let hint = match nearest(unknown, KEYS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", KEYS.join(", ")),
        };
        Err(self.error(LoadErrorKind::Invalid, &format!("unknown key {}; {hint}", Quoted(unknown))))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// One of several words.
    fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, LoadError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let list = || words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| self.wrong(key, &format!("one of {}", list())))
    }

    /// A whole number of at least 1.
    fn count(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let parse = |text: &str| number::<usize>(text).filter(|count| *count > 0);
        self.text(key)
            .map(|text| parse(text).ok_or_else(|| self.wrong(key, "a whole number of at least 1")))
            .transpose()
    }

    /// One number for all channels, or a list with one for each.
    fn channels(&self, key: &str, channels: usize, default: f32) -> Result<[f32; 3], LoadError> {
        let Some(text) = self.text(key) else { return Ok([default; 3]) };
        let finite = |value: &f32| value.is_finite();
        let values = match list::<f32>(text) {
            Some(values) => values,
            None => number::<f32>(text).into_iter().collect(),
        };
        match *values {
            [one] if one.is_finite() => Ok([one; 3]),
            [first, second, third] if channels == 3 && values.iter().all(finite) => Ok([first, second, third]),
            _ if channels == 1 => Err(self.wrong(key, "a number")),
            _ => Err(self.wrong(key, "a number, or a list of 3 numbers")),
        }
    }

    /// What the network's axes mean.
    fn axes(&self, inner: &TensorSpec) -> Result<Axes, LoadError> {
        let unsupported = |detail: &str| {
            let detail = format!("the network takes {inner}; {detail}");
            self.error(LoadErrorKind::Unsupported, &detail)
        };
        let named = self.word("layout", &[("nchw", Layout::Planar), ("nhwc", Layout::Interleaved)])?;
        let sizes: Vec<Option<usize>> = inner.shape.iter().map(fixed).collect();
        match *sizes {
            [_, height, width] => match named {
                None => Ok(Axes { layout: Layout::Planar, channels: 1, height, width, is_rank_4: false }),
                Some(_) => Err(self.wrong("layout", "no layout: the network's input has no axis for the channels")),
            },
            [_, one, two, three] => {
                let is_channels = |size: Option<usize>| matches!(size, Some(1 | 3));
                let layout = match (named, is_channels(one), is_channels(three)) {
                    (Some(layout), ..) => layout,
                    (None, true, false) => Layout::Planar,
                    (None, false, true) => Layout::Interleaved,
                    (None, true, true) => {
                        let detail = "either axis may be the channels; say which by `layout = \"nchw\"` or \"nhwc\"";
                        return Err(self.error(LoadErrorKind::Invalid, &format!("the network takes {inner}; {detail}")));
                    }
                    (None, false, false) => return Err(unsupported("neither axis 1 nor axis 3 has 1 or 3 channels")),
                };
                let (channels, height, width) = match layout {
                    Layout::Planar => (one, two, three),
                    Layout::Interleaved => (three, one, two),
                };
                match channels {
                    Some(channels @ (1 | 3)) => Ok(Axes { layout, channels, height, width, is_rank_4: true }),
                    _ => Err(unsupported("the axis of the channels must be 1 or 3 by this layout")),
                }
            }
            _ => Err(unsupported("a picture needs [N,C,H,W], [N,H,W,C] or [N,H,W]")),
        }
    }

    /// Height and width, from `size` and the network.
    fn size(&self, axes: &Axes) -> Result<(usize, usize), LoadError> {
        let own = axes.height.zip(axes.width);
        let usable = |side: &usize| (1..=MAX_SIDE).contains(side);
        let (height, width) = match self.text("size").map(list::<usize>) {
            Some(Some(size)) if size.len() == 2 && size.iter().all(usable) => (size[0], size[1]),
            Some(_) => {
                return Err(self.wrong("size", &format!("[height, width], two whole numbers from 1 to {MAX_SIDE}")));
            }
            None => own.ok_or_else(|| {
                let detail = "`size` is missing: the network's input leaves height or width open";
                self.error(LoadErrorKind::Invalid, detail)
            })?,
        };
        let fits = |own: Option<usize>, given: usize| own.is_none_or(|own| own == given);
        if !fits(axes.height, height) || !fits(axes.width, width) {
            let show = |size: Option<usize>| size.map_or_else(|| "any".to_owned(), |size| size.to_string());
            return Err(self.wrong("size", &format!("the network's own [{}, {}]", show(axes.height), show(axes.width))));
        }
        let fits_memory = height.checked_mul(width).is_some_and(|count| count <= REQUEST_BYTES / 16);
        if !fits_memory {
            let detail =
                format!("the network's pictures of {width}x{height} pixels are too large to be declared inputs");
            return Err(self.error(LoadErrorKind::TooLarge, &detail));
        }
        Ok((height, width))
    }

    fn color(&self, channels: usize) -> Result<Color, LoadError> {
        let color = self.word("color", &[("rgb", Color::Rgb), ("bgr", Color::Bgr), ("grey", Color::Grey)])?;
        match color {
            None => Ok(Color::usual(channels)),
            Some(color) if color.channels() == channels => Ok(color),
            Some(_) if channels == 1 => Err(self.wrong("color", "\"grey\": the network takes one channel")),
            Some(_) => Err(self.wrong("color", "\"rgb\" or \"bgr\": the network takes three channels")),
        }
    }

    /// `(channel * range / 255 - mean) * scale`, written as `(channel - mean') * scale'`.
    fn normalization(&self, values: Values, channels: usize) -> Result<Normalization, LoadError> {
        if values == Values::Uint8
            && let Some(key) = ["range", "mean", "scale", "std"].into_iter().find(|key| self.texts.contains_key(*key))
        {
            return Err(self.wrong(key, "no such key: the network takes UINT8, so it gets the channels as they are"));
        }
        let range = match self.text("range") {
            None => 255.0,
            Some(text) => number::<f32>(text)
                .filter(|range| range.is_finite() && *range > 0.0)
                .ok_or_else(|| self.wrong("range", "a number above 0, such as 1 or 255"))?,
        };
        let mean = self.channels("mean", channels, 0.0)?;
        let scale = if self.texts.contains_key("std") {
            if self.texts.contains_key("scale") {
                return Err(
                    self.error(LoadErrorKind::Invalid, "both `scale` and `std` are given; expected one of them")
                );
            }
            let std = self.channels("std", channels, 1.0)?;
            if std.iter().any(|std| *std <= 0.0) {
                return Err(self.wrong("std", "numbers above 0"));
            }
            // Published means and deviations mostly speak of values from 0 to 1. Taken for 0 to 255 they would give nonsense
            // without any error.
            if range > 1.0 && std.iter().any(|std| *std < 1.0) {
                return Err(
                    self.wrong("std", "1 or more for values from 0 to 255; for values from 0 to 1 add `range = 1`")
                );
            }
            std.map(f32::recip)
        } else {
            self.channels("scale", channels, 1.0)?
        };
        let unit = range / 255.0;
        Ok(Normalization { mean: mean.map(|mean| mean / unit), scale: scale.map(|scale| scale * unit) })
    }

    fn resize(&self, height: usize, width: usize) -> Result<Resize, LoadError> {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Stretch,
            ShorterSideCrop,
            Area,
        }
        let kinds = [("stretch", Kind::Stretch), ("shorter_side_crop", Kind::ShorterSideCrop), ("area", Kind::Area)];
        let kind = self.word("resize", &kinds)?.unwrap_or(Kind::Stretch);
        let filters = [
            ("nearest", Filter::Nearest),
            ("box", Filter::Box),
            ("bilinear", Filter::Bilinear),
            ("bicubic", Filter::CatmullRom),
            ("lanczos", Filter::Lanczos3),
        ];
        let filter = self.word("filter", &filters)?;
        if kind == Kind::Area && filter.is_some() {
            return Err(self.wrong("filter", "no such key: `resize = \"area\"` has no filter"));
        }
        let filter = filter.unwrap_or_default();
        let longer = height.max(width);
        let shorter_side = self.count("shorter_side")?;
        match (kind, shorter_side) {
            (Kind::Stretch, None) => Ok(Resize::Stretch(filter)),
            (Kind::Area, None) => Ok(Resize::Area),
            (Kind::Stretch | Kind::Area, Some(_)) => {
                Err(self.wrong("shorter_side", "no such key: it belongs to `resize = \"shorter_side_crop\"`"))
            }
            (Kind::ShorterSideCrop, side) => {
                let side = side.unwrap_or(longer);
                if (longer..=MAX_SIDE).contains(&side) {
                    Ok(Resize::ShorterSideCrop(side, filter))
                } else {
                    Err(self.wrong("shorter_side", &format!("{longer} to {MAX_SIDE}, so that `size` fits inside")))
                }
            }
        }
    }
}

fn fixed(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => None,
    }
}

/// A number as TOML writes it.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.trim().replace('_', "").parse().ok()
}

/// A list of numbers as TOML writes it: over several lines perhaps, with comments, with a comma at its end.
fn list<T: FromStr>(text: &str) -> Option<Vec<T>> {
    let plain: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
    let inside = plain.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    inside.split(',').map(number).collect()
}
