//! JPEG and PNG files into pixels, whatever the file says and however it was damaged.
//!
//! Sizes are read from the header and checked before pixels get memory. The decoders are not ours (`png`, `zune-jpeg`); what
//! stands here is which files they get to see, in which way, and what a caller reads when they fail.
//!
//! What is defined:
//! - Greyscale becomes R = G = B. Palettes are looked up. Of 16-bit channels the high byte is taken (no rounding).
//! - Alpha, and a PNG's transparent colour, are dropped: the colour under transparent pixels shows, nothing is blended.
//! - An animated PNG gives its default image; frames are not looked at.
//! - An EXIF rotation is not applied. ICC profiles, gamma and text are ignored; values are taken as sRGB.
//! - JPEG: baseline and progressive, 8 bits, 1, 3 or 4 components. Four are CMYK or YCCK: with an Adobe marker the inks are
//!   stored inverted (255 = none), without one they are not; then `R = (255 - C) * (255 - K) / 255`, rounded, and G, B alike.
//! - A file that ends early is an error: half a picture is never passed off as a whole one. So is damage, where it shows: a
//!   PNG has checksums; a JPEG has none, and wrong bits inside its scans may read as another picture.

mod jpeg;
mod png;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Rgb8;

/// What a picture may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels. A picture takes three bytes each; a progressive JPEG three to twelve more while it is decoded.
    pub max_pixels: usize,
    /// The longest side, in pixels.
    pub max_side: usize,
    /// The longest file, in bytes.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 40 megapixels, 65535 pixels a side (a JPEG's most), 32 MiB.
    fn default() -> Self {
        Self { max_pixels: 40_000_000, max_side: 65_535, max_bytes: 32 << 20 }
    }
}

/// Why some bytes are not a picture. The texts are for whoever sent them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("empty; expected a JPEG or PNG file")]
    Empty,
    /// The file is longer than the limit.
    #[error("{got} bytes are more than the limit of {limit}")]
    TooLong {
        /// The file's length in bytes.
        got: usize,
        /// [`Limits::max_bytes`].
        limit: usize,
    },
    /// Neither JPEG nor PNG.
    #[error("{format} is not supported; expected JPEG or PNG")]
    Format {
        /// The format's name.
        format: &'static str,
    },
    /// Nothing known.
    #[error("not a JPEG or PNG file: begins with {begins}")]
    Unknown {
        /// The first bytes in hexadecimal.
        begins: String,
    },
    /// More pixels than the limit.
    #[error("{width}x{height} pixels are more than the limit of {limit} pixels")]
    TooManyPixels {
        /// The width that the header claims.
        width: usize,
        /// The height that the header claims.
        height: usize,
        /// [`Limits::max_pixels`].
        limit: usize,
    },
    /// A side longer than the limit.
    #[error("{width}x{height} pixels have a side longer than the limit of {limit} pixels")]
    TooWide {
        /// The width that the header claims.
        width: usize,
        /// The height that the header claims.
        height: usize,
        /// [`Limits::max_side`].
        limit: usize,
    },
    /// The file is a JPEG or PNG of a kind that is not decoded here.
    #[error("{what} is not supported; expected {expected}")]
    Kind {
        /// What the file is.
        what: String,
        /// What would be decoded.
        expected: &'static str,
    },
    /// The file ends before its picture does.
    #[error("the {format} file is truncated: {detail}")]
    Truncated {
        /// `JPEG` or `PNG`.
        format: &'static str,
        /// How far it went.
        detail: String,
    },
    /// The file contradicts itself.
    #[error("the {format} file is damaged: {detail}")]
    Damaged {
        /// `JPEG` or `PNG`.
        format: &'static str,
        /// The decoder's words, or ours.
        detail: String,
    },
}

/// Decodes a JPEG or PNG file. The file's first bytes tell which; names and content types are not asked.
///
/// # Errors
/// [`DecodeError`], with a text for whoever sent the file.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb8, DecodeError> {
    let (format, decoder): (_, fn(&[u8], &Limits) -> _) = match check_file(bytes, limits)? {
        Format::Jpeg => ("JPEG", jpeg::decode),
        Format::Png => ("PNG", png::decode),
    };
    // The decoders are fuzzed and not known to panic. Should one, on a file that nobody has thought of, then this file is the
    // caller's mistake and not a fault of the model that was asked. Nothing outlives the call that could be half changed.
    catch_unwind(AssertUnwindSafe(|| decoder(bytes, limits)))
        .unwrap_or_else(|_panic| Err(DecodeError::Damaged { format, detail: "the decoder gave up".to_owned() }))
}

/// Width and height of a JPEG or PNG file, read from its header and checked against the limits; nothing is decoded. What a
/// picture will cost is thus known before it costs anything.
///
/// # Errors
/// [`DecodeError`], as [`decode`] would give it for the header. That the rest is sound, only decoding shows.
pub fn size(bytes: &[u8], limits: &Limits) -> Result<(usize, usize), DecodeError> {
    match check_file(bytes, limits)? {
        Format::Jpeg => jpeg::size(bytes, limits),
        Format::Png => png::size(bytes, limits),
    }
}

enum Format {
    Jpeg,
    Png,
}

/// The format of a file that is neither empty nor too long.
fn check_file(bytes: &[u8], limits: &Limits) -> Result<Format, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::TooLong { got: bytes.len(), limit: limits.max_bytes });
    }
    sniff(bytes)
}

/// Formats by their first bytes.
fn sniff(bytes: &[u8]) -> Result<Format, DecodeError> {
    let brand =
        |brands: &[&[u8]]| bytes.get(4..8) == Some(b"ftyp") && bytes.get(8..12).is_some_and(|b| brands.contains(&b));
    let riff = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let text = bytes.trim_ascii_start();
    let format = match bytes {
        [0xff, 0xd8, 0xff, ..] => return Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => return Ok(Format::Png),
        [b'G', b'I', b'F', b'8', ..] => "GIF",
        [b'B', b'M', ..] => "BMP",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "TIFF",
        [0, 0, 1, 0, ..] => "ICO",
        [b'8', b'B', b'P', b'S', ..] => "PSD",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "JPEG XL",
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => "JPEG 2000",
        _ if riff => "WebP",
        _ if brand(&[b"avif", b"avis"]) => "AVIF",
        _ if brand(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1"]) => "HEIC",
        _ if text.starts_with(b"<svg") || text.starts_with(b"<?xml") => "SVG",
        _ => {
            let begins = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return Err(DecodeError::Unknown { begins });
        }
    };
    Err(DecodeError::Format { format })
}

/// Checks a header's sizes against the limit.
fn check_size(width: usize, height: usize, limits: &Limits) -> Result<(), DecodeError> {
    if width.checked_mul(height).is_none_or(|pixels| pixels > limits.max_pixels) {
        return Err(DecodeError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    if width.max(height) > limits.max_side {
        return Err(DecodeError::TooWide { width, height, limit: limits.max_side });
    }
    Ok(())
}
