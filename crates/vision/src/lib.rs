//! Pictures into tensors.
//!
//! - [`decode`]: JPEG and PNG into [`Rgb8`], checked against [`Limits`] before any pixel is allocated; [`size`] reads the
//!   header alone.
//! - [`IntegralImage`]: area resizing of any crop, many crops of one picture at little cost each.
//! - [`PixelFormat`]: the order, scale and layout in which a network wants its pixels.
//! - [`Similarity`] and [`warp`]: aligning a picture to landmarks.
//!
//! Plain functions over slices: no threads, no clock, no files. Whoever calls them does so where CPU work belongs.

#![forbid(unsafe_code)]

mod area;
mod decode;
mod picture;
mod pixel;
mod similarity;
mod warp;

pub use area::IntegralImage;
pub use decode::{DecodeError, Limits, decode, size};
pub use picture::{Crop, PictureError, Rgb8};
pub use pixel::{Color, Layout, Normalization, PixelFormat};
pub use similarity::Similarity;
pub use warp::{MAX_SAMPLES, warp};
