//! Resizing one picture once, as image classifiers want it. For many crops of one picture, see `area`.
//!
//! `fast_image_resize` does the work. Every filter but [`Filter::Nearest`] widens with the factor when it shrinks
//! (antialiasing), and results are rounded to 8 bits, as in Pillow and in what torchvision does to Pillow's pictures.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::Rgb8;

/// The longest side, before and after, that is resized.
pub const MAX_SIDE: usize = 65_535;

/// How pixels are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// The pixel under the new one's centre.
    Nearest,
    /// The mean of what the new pixel covers, edges by their share.
    Box,
    /// A triangle; what most image classifiers were trained with.
    #[default]
    Bilinear,
    /// A cubic with a = -0.5, as Pillow's `BICUBIC`.
    CatmullRom,
    /// The windowed sinc over three pixels to either side.
    Lanczos3,
}

/// Why a picture was not resized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResizeError {
    /// A side of 0, or longer than [`MAX_SIDE`].
    #[error("a side of {side} pixels; resizing takes 1 to {MAX_SIDE}")]
    Side {
        /// The side's length.
        side: usize,
    },
    /// The part to be cut out is larger than the resized picture.
    #[error("{width}x{height} pixels cannot be cut out of a picture whose shorter side is {shorter_side}")]
    Crop {
        /// The width to be cut out.
        width: usize,
        /// The height to be cut out.
        height: usize,
        /// The shorter side after resizing.
        shorter_side: usize,
    },
    /// The library refused.
    #[error("the picture cannot be resized: {0}")]
    Library(String),
}

/// A part of a picture, between pixels: left, top, width, height.
#[derive(Clone, Copy)]
struct Window([f64; 4]);

/// The picture stretched to `width` x `height`, whatever its own proportions.
///
/// # Errors
/// [`ResizeError::Side`] when a side of either picture is 0 or longer than [`MAX_SIDE`].
pub fn resize(picture: &Rgb8, width: usize, height: usize, filter: Filter) -> Result<Rgb8, ResizeError> {
    let window = Window([0.0, 0.0, to_f64(picture.width()), to_f64(picture.height())]);
    resize_window(picture, window, width, height, filter)
}

/// The picture resized so that its shorter side is `shorter_side`, and of that the middle `width` x `height`: the usual
/// preparation of image classifiers. The longer side is rounded down, the middle to the nearer pixel. Only what is cut out
/// is computed, so that a picture of a thousand times its height costs no more than another.
///
/// # Errors
/// [`ResizeError`] when a side is 0 or longer than [`MAX_SIDE`], or `width` or `height` is more than `shorter_side`.
pub fn resize_and_crop(
    picture: &Rgb8,
    shorter_side: usize,
    width: usize,
    height: usize,
    filter: Filter,
) -> Result<Rgb8, ResizeError> {
    check_sides(&[picture.width(), picture.height(), shorter_side])?;
    if width > shorter_side || height > shorter_side {
        return Err(ResizeError::Crop { width, height, shorter_side });
    }
    let shorter = picture.width().min(picture.height());
    let middle = |side: usize, wanted: usize| {
        let resized = side * shorter_side / shorter;
        let factor = to_f64(side) / to_f64(resized);
        let start = to_f64((resized - wanted).div_ceil(2)) * factor;
        // Rounding must not make the window reach past the picture.
        (start, (to_f64(wanted) * factor).min(to_f64(side) - start))
    };
    let (left, window_width) = middle(picture.width(), width);
    let (top, window_height) = middle(picture.height(), height);
    resize_window(picture, Window([left, top, window_width, window_height]), width, height, filter)
}

fn check_sides(sides: &[usize]) -> Result<(), ResizeError> {
    let bad = sides.iter().copied().find(|side| *side == 0 || *side > MAX_SIDE);
    bad.map_or(Ok(()), |side| Err(ResizeError::Side { side }))
}

fn resize_window(
    picture: &Rgb8,
    Window([left, top, window_width, window_height]): Window,
    width: usize,
    height: usize,
    filter: Filter,
) -> Result<Rgb8, ResizeError> {
    check_sides(&[picture.width(), picture.height(), width, height])?;
    // The library resizes columns first, into a picture of the old width and the new height. For a very wide picture that
    // would be far more memory than either picture, so its rows are resized first, in a step of their own.
    if picture.width() * height > 4 * width * picture.height() {
        let whole_height = to_f64(picture.height());
        let narrow = run(picture, [left, 0.0, window_width, whole_height], width, picture.height(), filter)?;
        return run(&narrow, [0.0, top, to_f64(width), window_height], width, height, filter);
    }
    run(picture, [left, top, window_width, window_height], width, height, filter)
}

fn run(picture: &Rgb8, window: [f64; 4], width: usize, height: usize, filter: Filter) -> Result<Rgb8, ResizeError> {
    let side = |side: usize| u32::try_from(side).map_err(|_| ResizeError::Side { side });
    let library = |error: &dyn std::fmt::Display| ResizeError::Library(error.to_string());
    let (columns, rows) = (side(picture.width())?, side(picture.height())?);
    let source =
        TypedImageRef::<U8x3>::from_buffer(columns, rows, picture.pixels()).map_err(|error| library(&error))?;
    let mut pixels = vec![0; 3 * width * height];
    let mut target =
        TypedImage::<U8x3>::from_buffer(side(width)?, side(height)?, &mut pixels).map_err(|error| library(&error))?;
    let [left, top, window_width, window_height] = window;
    let options = ResizeOptions::new()
        .resize_alg(filter.algorithm())
        .crop(left, top, window_width, window_height)
        .use_alpha(false);
    // Pixels of a known type: asked by a value, the library brings its code for every type into the program.
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| library(&error))?;
    Rgb8::new(width, height, pixels).map_err(|error| library(&error))
}

impl Filter {
    fn algorithm(self) -> ResizeAlg {
        match self {
            Self::Nearest => ResizeAlg::Nearest,
            Self::Box => ResizeAlg::Convolution(FilterType::Box),
            Self::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Self::CatmullRom => ResizeAlg::Convolution(FilterType::CatmullRom),
            Self::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
        }
    }
}

/// Exact: sides are far below 2^53.
fn to_f64(side: usize) -> f64 {
    side as f64
}
