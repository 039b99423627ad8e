//! Memory for answers.

use tract_onnx::tract_core::internal::{Tensor, TractResult};

/// A tensor of `f32` whose numbers are not chosen yet, for an operator that writes each of them before anybody reads one.
///
/// Zeros would be a second pass over all that a network writes, tens of megabytes per picture.
///
/// # Errors
/// Where the size does not fit in memory.
#[expect(unsafe_code, reason = "the engine has no safe way to memory that is not cleared first")]
pub(super) fn fresh(shape: &[usize]) -> TractResult<Tensor> {
    // SAFETY: all bit patterns are numbers, and the callers (the convolutions, the pool and the change of layout) assign
    // every element, which their tests check by comparing all of them with a reference.
    unsafe { Tensor::uninitialized::<f32>(shape) }
}
