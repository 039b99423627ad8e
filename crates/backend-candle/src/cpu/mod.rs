//! The arithmetic of encoders on the CPU, in FP32, over rows that lie one after another.
//!
//! candle's own product lays weights out anew on every call; here that is done once, at load, and what follows a product (the
//! bias, a function) happens while its numbers are still at hand. Weights may be kept in fewer bits: they are widened panel
//! by panel, so that only the memory is smaller and the arithmetic is the same. Threads are those of rayon's current pool.

mod attention;
mod isa;
mod math;
mod matrix;
mod norm;
mod product;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use attention::attention;
pub(crate) use math::apply;
pub(crate) use matrix::Matrix;
pub(crate) use norm::{Norm, layer_norm};
pub(crate) use store::{Quantised, Store};
