//! PNG files, row by row, so that no more than the RGB pixels and a few rows are ever in memory.

use std::io::{Cursor, ErrorKind};

use png::{ColorType, Decoder, DecodingError, Transformations};

use super::{DecodeError, Limits, check_size};
use crate::Rgb8;

/// What the decoder may take for palettes, text and its own rows, besides what one row of pixels needs.
const BYTES_BESIDE_ROWS: usize = 1 << 20;
/// Deflate never makes more than this out of one byte.
const HIGHEST_RATIO: usize = 1032;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb8, DecodeError> {
    let mut decoder = decoder(bytes);
    let (width, height, bits_per_pixel) = header(&mut decoder, limits)?;
    // At most 8 bytes a pixel, and no overflow: the pixels were counted.
    let raw = (width * bits_per_pixel).div_ceil(8) * height;
    if raw / HIGHEST_RATIO > bytes.len() {
        let detail = format!("{} bytes cannot hold {width}x{height} pixels", bytes.len());
        return Err(DecodeError::Truncated { format: "PNG", detail });
    }
    decoder.set_limits(png::Limits { bytes: BYTES_BESIDE_ROWS + 64 * width });

    let mut reader = decoder.read_info().map_err(|error| fault(error, "before its pixels"))?;
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(damaged("its palette was not expanded")),
    };
    let mut pixels = vec![0; width * height * 3];
    let places = places(width, height, reader.info().interlaced);
    for (n_rows, Place { first, step, y }) in places.enumerate() {
        let row = reader
            .next_interlaced_row()
            .map_err(|error| fault(error, &format!("after {n_rows} rows of pixels")))?
            .ok_or_else(|| damaged(format!("it has only {n_rows} rows of pixels")))?;
        let target = &mut pixels[y * width * 3..][..width * 3];
        let samples = row.data();
        if channels == 3 && step == 1 && samples.len() == target.len() {
            target.copy_from_slice(samples);
            continue;
        }
        for (pixel, sample) in target.chunks_exact_mut(3).skip(first).step_by(step).zip(samples.chunks_exact(channels))
        {
            match *sample {
                [grey] | [grey, _] => pixel.fill(grey),
                [red, green, blue, ..] => pixel.copy_from_slice(&[red, green, blue]),
                [] => {}
            }
        }
    }
    // Reads on to the end of the pixel data, whose checksum would otherwise not be looked at.
    reader.next_interlaced_row().map_err(|error| fault(error, "after the last row of pixels"))?;
    Rgb8::new(width, height, pixels).map_err(|error| damaged(error.to_string()))
}

pub(super) fn size(bytes: &[u8], limits: &Limits) -> Result<(usize, usize), DecodeError> {
    let (width, height, _) = header(&mut decoder(bytes), limits)?;
    Ok((width, height))
}

fn decoder(bytes: &[u8]) -> Decoder<Cursor<&[u8]>> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    // Neither is used, and both can hide a bomb.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

/// Width, height and bits of one pixel, checked.
fn header(decoder: &mut Decoder<Cursor<&[u8]>>, limits: &Limits) -> Result<(usize, usize, usize), DecodeError> {
    let header = decoder.read_header_info().map_err(|error| fault(error, "before its header"))?;
    let (Ok(width), Ok(height)) = (usize::try_from(header.width), usize::try_from(header.height)) else {
        return Err(DecodeError::TooManyPixels { width: usize::MAX, height: usize::MAX, limit: limits.max_pixels });
    };
    check_size(width, height, limits)?;
    Ok((width, height, header.bits_per_pixel()))
}

/// Where a stored row belongs: from column `first`, every `step` columns, in row `y`.
struct Place {
    first: usize,
    step: usize,
    y: usize,
}

/// The rows in the order in which a file stores them. An interlaced file (Adam7) has seven passes over ever finer grids; of a
/// pass without any column nothing is stored.
fn places(width: usize, height: usize, is_interlaced: bool) -> impl Iterator<Item = Place> {
    /// First column, distance of columns, first row, distance of rows.
    const PASSES: [[usize; 4]; 7] =
        [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];
    const ONE_PASS: [[usize; 4]; 1] = [[0, 1, 0, 1]];
    let passes = if is_interlaced { PASSES.as_slice() } else { ONE_PASS.as_slice() };
    passes.iter().filter(move |[first, ..]| *first < width).flat_map(move |&[first, step, top, distance]| {
        (top..height).step_by(distance).map(move |y| Place { first, step, y })
    })
}

fn damaged(detail: impl Into<String>) -> DecodeError {
    DecodeError::Damaged { format: "PNG", detail: detail.into() }
}

/// The decoder's error in our words; `reached` says how far it had come.
fn fault(error: DecodingError, reached: &str) -> DecodeError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { format: "PNG", detail: format!("it ends {reached}") }
        }
        DecodingError::LimitsExceeded => damaged("its headers want more memory than a picture of this size needs"),
        other => damaged(format!("{other} ({reached})")),
    }
}
