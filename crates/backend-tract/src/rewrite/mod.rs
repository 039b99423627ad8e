//! Rewrites of a typed graph before plans are made from it, each for a measured gain, none for one model alone.
//!
//! Every operator here works for any sizes of its input, so a plan with symbolic sizes runs as fast as one that is made
//! for the sizes of a request: photographs of sizes never seen before need no plan of their own. Nothing in here knows
//! of requests or models; it is written against the engine alone.

mod activation;
mod blocked;
mod conv;
mod dense;
mod direct;
mod memory;
mod pointwise;
mod pool;
mod residual;
mod share;
mod softmax;
mod steps;
#[cfg(test)]
mod tests;

use tract_onnx::prelude::{TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::{Cost, SymbolValues, TypedModelPatch};
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
    let rules = pool::rules(rules);
    let rules = residual::rules(rules);
    let rules = steps::rules(rules);
    let rules = dense::rules(rules);
    rules.rewrite(&(), model)?;
    // Only now: what follows a convolution must have become a part of it.
    blocked::rules(Rewriter::default()).rewrite(&(), model)
}

/// Bytes of the constants that rewritten operators hold in themselves.
pub(crate) fn held_bytes(model: &TypedModel) -> u64 {
    let bytes = |node: &TypedNode| {
        node.op_as::<conv::DirectConv>().map_or(0, conv::DirectConv::bytes)
            + node.op_as::<dense::Dense>().map_or(0, dense::Dense::bytes)
            + blocked::held_bytes(node)
    };
    model.nodes().iter().map(bytes).sum()
}

/// Whether most of the model's work is convolutions and layers that were rewritten: then plans for exact sizes gain nothing, and rows
/// run one after the other are as fast as together, or faster where together they do not fit in a cache.
pub(crate) fn is_mostly_ours(model: &TypedModel) -> bool {
    /// Stands for each size that a request chooses, where work is compared.
    const TYPICAL: i64 = 64;
    let mut values = SymbolValues::default();
    for symbol in model.nodes().iter().flat_map(|node| &node.outputs).flat_map(|output| output.fact.shape.iter()) {
        for symbol in symbol.symbols() {
            values.set(&symbol, TYPICAL);
        }
    }
    let work = |node: &TypedNode| -> i64 {
        let costs = model.node_input_facts(node.id).and_then(|facts| node.op.cost(&facts)).unwrap_or_default();
        let products = costs.iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        products.map(|(_, count)| count.eval(&values).to_i64().unwrap_or(0)).fold(0, i64::saturating_add)
    };
    let (mut ours, mut all) = (0_i64, 0_i64);
    for node in model.nodes() {
        let work = work(node);
        all = all.saturating_add(work);
        if node.op_is::<conv::DirectConv>() || node.op_is::<dense::Dense>() || blocked::is_conv(node) {
            ours = ours.saturating_add(work);
        }
    }
    ours > 0 && ours / 4 >= all / 5
}

/// Whether any operator of the model divides its work among the threads of its run.
pub(crate) fn divides_work(model: &TypedModel) -> bool {
    model.nodes().iter().any(blocked::is_conv)
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
