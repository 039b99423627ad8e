//! Pictures into tensors.
//!
//! - [`decode`]: JPEG and PNG into [`Rgb8`], checked against [`Limits`] before any pixel is allocated; [`size`] reads the
//!   header alone.
//! - [`IntegralImage`]: area resizing of any crop, many crops of one picture at little cost each; [`area_resize`]: once.
//! - [`resize`], [`resize_and_crop`]: one picture once, as image classifiers want it.
//! - [`PixelFormat`]: the order, scale and layout in which a network wants its pixels.
//! - [`Similarity`] and [`warp`]: aligning a picture to landmarks.
//! - [`ImageInput`]: all of it behind `kind = "image"` in a `model.toml`.
//!
//! Plain functions over slices: no threads, no clock, no files. Whoever calls them does so where CPU work belongs.

#![forbid(unsafe_code)]

mod area;
mod decode;
mod input;
mod picture;
mod pixel;
mod resize;
mod similarity;
mod warp;

pub use area::{IntegralImage, area_resize};
pub use decode::{DecodeError, Limits, decode, size};
pub use input::ImageInput;
pub use picture::{Crop, PictureError, Rgb8};
pub use pixel::{Color, Layout, Normalization, PixelFormat};
pub use resize::{Filter, MAX_SIDE, ResizeError, resize, resize_and_crop};
pub use similarity::Similarity;
pub use warp::{MAX_SAMPLES, warp};
