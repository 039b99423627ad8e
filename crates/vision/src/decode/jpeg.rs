//! JPEG files: what the decoder gets to see, and in which colours its pixels come.
//!
//! `zune-jpeg` does the decoding: an integer IDCT and "fancy" (triangle) upsampling of chroma, so that pixels may differ by
//! a few levels from another decoder's, as the standard allows. It runs in its strict mode, over a copy of the file that
//! holds only the segments that pixels are made of: metadata cannot cost anything there.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{DecodeError, Limits, check_size};
use crate::Rgb8;

/// Enough for every encoder in use (a progressive file has about ten), and a bound on the work that few bytes can ask for.
const MAX_SCANS: usize = 64;
/// Tables and scans together, likewise.
const MAX_SEGMENTS: usize = 1000;
/// One byte of a scan holds at most this many pixels: a block of 64 takes at least one bit.
const MAX_PIXELS_PER_BYTE: usize = 8 * 64;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb8, DecodeError> {
    let Survey { file, width, height, ink } = survey(bytes, limits)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width)
        .set_max_height(height)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&file), options);
    let fault = |error: zune_jpeg::errors::DecodeErrors| damaged(format!("{error:?}"));
    decoder.decode_headers().map_err(fault)?;
    if decoder.dimensions() != Some((width, height)) {
        return Err(damaged("its headers contradict each other"));
    }
    let is_cmyk = decoder.input_colorspace() == Some(ColorSpace::CMYK);
    if is_cmyk {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::CMYK));
    }
    let mut pixels = vec![0; width * height * if is_cmyk { 4 } else { 3 }];
    decoder.decode_into(&mut pixels).map_err(fault)?;
    if is_cmyk {
        inks_to_rgb(&mut pixels, ink);
    }
    Rgb8::new(width, height, pixels).map_err(|error| damaged(error.to_string()))
}

pub(super) fn size(bytes: &[u8], limits: &Limits) -> Result<(usize, usize), DecodeError> {
    let mut walk = Walk { bytes, at: 2 };
    loop {
        match walk.next(0)? {
            (END | SCAN, _) => return Err(damaged("it has no size before its pixels")),
            (marker, segment) if is_frame(marker) => {
                let Frame { width, height, .. } = Frame::read(marker, segment)?;
                check_size(width, height, limits)?;
                return Ok((width, height));
            }
            _ => {}
        }
    }
}

/// How a file with four components stores its inks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    /// 255 is full ink.
    Plain,
    /// 255 is no ink: the habit of files with an Adobe marker.
    Inverted,
}

/// Turns C, M, Y, K into R, G, B in place; the buffer becomes shorter.
fn inks_to_rgb(pixels: &mut Vec<u8>, ink: Ink) {
    let flip = match ink {
        Ink::Plain => 0xff,
        Ink::Inverted => 0,
    };
    let count = pixels.len() / 4;
    for index in 0..count {
        let black = u32::from(pixels[4 * index + 3] ^ flip);
        for channel in 0..3 {
            let product = u32::from(pixels[4 * index + channel] ^ flip) * black;
            pixels[3 * index + channel] = u8::try_from((product + 127) / 255).unwrap_or(u8::MAX);
        }
    }
    pixels.truncate(3 * count);
}

/// What the headers say, and the file without what the decoder need not see.
struct Survey {
    file: Vec<u8>,
    width: usize,
    height: usize,
    ink: Ink,
}

/// Walks over the file's segments, from its start to its end marker.
fn survey(bytes: &[u8], limits: &Limits) -> Result<Survey, DecodeError> {
    let mut walk = Walk { bytes, at: 2 };
    let mut file = vec![0xff, 0xd8];
    let mut frame: Option<Frame> = None;
    let mut adobe = None;
    let mut has_restarts = false;
    let (mut n_scans, mut n_segments) = (0, 0);
    // Where component numbers stand in `file`, with the component's position.
    let mut names: Vec<(usize, usize)> = Vec::new();
    loop {
        let (marker, segment) = walk.next(n_scans)?;
        n_segments += 1;
        if n_segments > MAX_SEGMENTS {
            return Err(damaged(format!("it has more than {MAX_SEGMENTS} segments")));
        }
        let start = file.len();
        match marker {
            END => break,
            SCAN => {
                let Some(frame) = &frame else { return Err(damaged("its pixels come before its size")) };
                n_scans += 1;
                if n_scans > MAX_SCANS {
                    return Err(damaged(format!("it has more than {MAX_SCANS} scans")));
                }
                let numbers = segment.get(1..).unwrap_or_default().chunks_exact(2).map(|pair| pair[0]);
                for (index, number) in numbers.take(usize::from(segment.first().copied().unwrap_or(0))).enumerate() {
                    let position = frame.numbers.iter().position(|known| *known == number);
                    names.extend(position.map(|position| (start + 5 + 2 * index, position)));
                }
                push(&mut file, marker, segment);
                file.extend_from_slice(walk.scan());
            }
            _ if is_frame(marker) => {
                if frame.is_some() {
                    return Err(damaged("it has two sizes"));
                }
                let read = Frame::read(marker, segment)?;
                check_size(read.width, read.height, limits)?;
                if read.width * read.height / MAX_PIXELS_PER_BYTE > bytes.len() {
                    let detail = format!("{} bytes cannot hold {}x{} pixels", bytes.len(), read.width, read.height);
                    return Err(DecodeError::Truncated { format: "JPEG", detail });
                }
                names.extend((0..read.numbers.len()).map(|position| (start + 10 + 3 * position, position)));
                push(&mut file, marker, segment);
                frame = Some(read);
            }
            ADOBE if segment.starts_with(b"Adobe") => {
                adobe = segment.get(11).copied();
                push(&mut file, marker, segment);
            }
            // The decoder takes an interval of 0 for "now" and counts down past it.
            RESTART if segment == [0, 0] => {
                if has_restarts {
                    return Err(unsupported("a JPEG whose restart markers end half-way"));
                }
            }
            HUFFMAN | QUANTIZATION | RESTART => {
                has_restarts |= marker == RESTART;
                push(&mut file, marker, segment);
            }
            // Application data, comments and whatever else carries no pixels.
            0xe0..=0xff | 0x01..=0xbf => n_segments -= 1,
            0xcc => return Err(unsupported("an arithmetic-coded JPEG")),
            other => return Err(damaged(format!("it has a segment of the unknown kind {other:02x}"))),
        }
    }
    file.extend_from_slice(&[0xff, END]);
    let frame = frame.filter(|_| n_scans > 0).ok_or_else(|| damaged("it has no pixels"))?;
    if frame.numbers.len() == 3 && adobe == Some(0) {
        // Adobe's word for plain RGB. The decoder knows only the other sign for it: components that are called R, G and B.
        for (at, position) in names {
            file[at] = b"RGB"[position];
        }
    }
    let ink = if adobe.is_some() { Ink::Inverted } else { Ink::Plain };
    Ok(Survey { file, width: frame.width, height: frame.height, ink })
}

const END: u8 = 0xd9;
const SCAN: u8 = 0xda;
const HUFFMAN: u8 = 0xc4;
const QUANTIZATION: u8 = 0xdb;
const RESTART: u8 = 0xdd;
const ADOBE: u8 = 0xee;

/// Whether a marker begins a frame: sizes, and which kind of JPEG it is.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, HUFFMAN | 0xc8 | 0xcc)
}

/// Appends a segment. Its length was read from two bytes, so it fits into two bytes.
fn push(file: &mut Vec<u8>, marker: u8, segment: &[u8]) {
    let length = u16::try_from(segment.len() + 2).unwrap_or(u16::MAX);
    file.extend_from_slice(&[0xff, marker]);
    file.extend_from_slice(&length.to_be_bytes());
    file.extend_from_slice(segment);
}

/// The size and the components' numbers.
struct Frame {
    width: usize,
    height: usize,
    numbers: Vec<u8>,
}

impl Frame {
    /// Reads a start-of-frame segment and refuses the kinds that are not decoded.
    fn read(marker: u8, segment: &[u8]) -> Result<Self, DecodeError> {
        match marker {
            0xc0..=0xc2 => {}
            0xc3 | 0xcb => return Err(unsupported("a lossless JPEG")),
            0xc9 | 0xca => return Err(unsupported("an arithmetic-coded JPEG")),
            _ => return Err(unsupported("a hierarchical JPEG")),
        }
        let &[precision, h1, h0, w1, w0, n_components, ref components @ ..] = segment else {
            return Err(damaged("its size is not there"));
        };
        if precision != 8 {
            return Err(unsupported(&format!("a JPEG of {precision} bits")));
        }
        let (width, height) = (usize::from(u16::from_be_bytes([w1, w0])), usize::from(u16::from_be_bytes([h1, h0])));
        if width == 0 || height == 0 {
            return Err(damaged(format!("it claims {width}x{height} pixels")));
        }
        if !matches!(n_components, 1 | 3 | 4) {
            return Err(unsupported(&format!("a JPEG of {n_components} components")));
        }
        if components.len() != 3 * usize::from(n_components) {
            return Err(damaged("its list of components has the wrong length"));
        }
        Ok(Self { width, height, numbers: components.chunks_exact(3).map(|component| component[0]).collect() })
    }
}

/// A place between two segments.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// The next marker with its segment; markers that have none are passed over, but for the last.
    fn next(&mut self, n_scans: usize) -> Result<(u8, &'a [u8]), DecodeError> {
        let truncated = || {
            let detail = format!("it ends without an end marker, after {n_scans} scans had begun");
            DecodeError::Truncated { format: "JPEG", detail }
        };
        loop {
            // Some cameras leave a few bytes between segments.
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let skip = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
            let marker_at = self.at + skip.ok_or_else(truncated)?;
            let marker = self.bytes[marker_at + 1];
            self.at = marker_at + 2;
            match marker {
                END => return Ok((END, &[])),
                0x01 | 0xd0..=0xd8 => {}
                _ => {
                    let length = self.bytes.get(self.at..self.at + 2).ok_or_else(truncated)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let content = length.checked_sub(2).ok_or_else(|| damaged("a segment has a length below 2"))?;
                    let segment = self.bytes.get(self.at + 2..).and_then(|rest| rest.get(..content));
                    self.at += length;
                    return Ok((marker, segment.ok_or_else(truncated)?));
                }
            }
        }
    }

    /// The compressed data that follow a scan's header, up to the next marker that is not part of them.
    fn scan(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let belongs = |byte: u8| matches!(byte, 0 | 0xd0..=0xd7 | 0xff);
        let length = rest.windows(2).position(|pair| pair[0] == 0xff && !belongs(pair[1])).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

fn damaged(detail: impl Into<String>) -> DecodeError {
    DecodeError::Damaged { format: "JPEG", detail: detail.into() }
}

fn unsupported(what: &str) -> DecodeError {
    let expected = "a baseline or progressive JPEG of 8 bits and 1, 3 or 4 components";
    DecodeError::Kind { what: what.to_owned(), expected }
}
