//! Rewrites of a typed graph before plans are made from it, each for a measured gain, none for one model alone.
//!
//! Every operator here works for any sizes of its input, so a plan with symbolic sizes runs as fast as one that is made
//! for the sizes of a request: photographs of sizes never seen before need no plan of their own. Nothing in here knows
//! of requests or models; it is written against the engine alone.

mod activation;
mod conv;
mod direct;
mod pointwise;
mod softmax;

use tract_onnx::prelude::{TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::TypedModelPatch;
use tract_onnx::tract_core::model::Rewriter;

/// Rewrites what is known to gain by it.
///
/// # Errors
/// What the engine says where it does not know its own graph; the model may be half rewritten then.
pub(crate) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    let rules = conv::rules(Rewriter::default());
    let rules = pointwise::rules(rules);
    let rules = activation::rules(rules);
    let rules = softmax::rules(rules);
    rules.rewrite(&(), model)
}

/// Bytes of the constants that rewritten operators hold in themselves.
pub(crate) fn held_bytes(model: &TypedModel) -> u64 {
    let bytes = |op: &conv::DirectConv| op.bytes();
    model.nodes().iter().filter_map(|node| node.op_as::<conv::DirectConv>().map(bytes)).sum()
}

/// Puts `op` in the place of the convolution `conv` and of `last`, which is all that becomes of it.
fn merged(
    model: &TypedModel,
    conv: &TypedNode,
    last: &TypedNode,
    op: conv::DirectConv,
) -> TractResult<TypedModelPatch> {
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, conv.inputs[0])?;
    let output = patch.wire_node(&last.name, op, &[input])?;
    patch.shunt_outside(model, last.id.into(), output[0])?;
    Ok(patch)
}
