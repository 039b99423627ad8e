//! Whether the rows of a batch are independent: a model may look batched by its shapes and still mix its rows.
//!
//! Two callers' rows in one run would then change each other's answers, so such a model must never be batched. The
//! operators that mix along an axis are known; an axis carries rows where its size contains the batch symbol.

use tract_onnx::prelude::{Symbol, TractResult, TypedFact, TypedModel, TypedNode};
use tract_onnx::tract_core::ops::Downsample;
use tract_onnx::tract_core::ops::array::{
    CumSum, Gather, GatherElements, GatherNd, ScatterElements, ScatterNd, Slice, Topk,
};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::{Reduce, RmsNorm, Softmax};
use tract_onnx::tract_core::ops::scan::{InputMapping, Scan};

/// The first node that mixes rows of the axis `batch`, in words, or `None`.
///
/// # Errors
/// What the engine says where it does not know its own graph.
pub(crate) fn mixing(model: &TypedModel, batch: &Symbol) -> TractResult<Option<String>> {
    for id in model.eval_order()? {
        let node = model.node(id);
        let facts = model.node_input_facts(id)?;
        if mixes(node, &facts, batch) {
            return Ok(Some(format!("node `{}` ({}) works across the rows of a batch", node.name, node.op.name())));
        }
    }
    Ok(None)
}

fn mixes(node: &TypedNode, inputs: &[&TypedFact], batch: &Symbol) -> bool {
    let carries = |slot: usize, axis: usize| {
        let dim = inputs.get(slot).and_then(|fact| fact.shape.get(axis));
        dim.is_some_and(|dim| dim.symbols().contains(batch))
    };
    if let Some(op) = node.op_as::<Reduce>() {
        return op.axes.iter().any(|&axis| carries(0, axis));
    }
    if let Some(op) = node.op_as::<Softmax>() {
        return op.axes.iter().any(|&axis| carries(0, axis));
    }
    if let Some(op) = node.op_as::<EinSum>() {
        let summed = |slot: usize, positions: &[usize]| positions.iter().any(|&axis| carries(slot, axis));
        return op.axes.iter_all_axes().any(|axis| {
            let lost = axis.outputs.iter().all(|positions| positions.is_empty());
            lost && axis.inputs.iter().enumerate().any(|(slot, positions)| summed(slot, positions))
        });
    }
    if let Some(op) = node.op_as::<Scan>() {
        return op.input_mapping.iter().enumerate().any(|(slot, mapping)| match mapping {
            InputMapping::Scan(info) => carries(slot, info.axis),
            InputMapping::Full | InputMapping::State => false,
        });
    }
    let axis = node
        .op_as::<Slice>()
        .map(|op| op.axis)
        .or_else(|| node.op_as::<Downsample>().map(|op| op.axis))
        .or_else(|| node.op_as::<Gather>().map(|op| op.axis))
        .or_else(|| node.op_as::<GatherElements>().map(|op| op.axis))
        .or_else(|| node.op_as::<GatherNd>().map(|op| op.batch_dims))
        .or_else(|| node.op_as::<ScatterElements>().map(|op| op.axis))
        .or_else(|| node.op_as::<ScatterNd>().map(|_| 0))
        .or_else(|| node.op_as::<Topk>().map(|op| op.axis))
        .or_else(|| node.op_as::<CumSum>().map(|op| op.axis))
        .or_else(|| node.op_as::<RmsNorm>().map(|op| op.axis));
    axis.is_some_and(|axis| carries(0, axis))
}
