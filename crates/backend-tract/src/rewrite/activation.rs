//! `PRelu` and `Relu` as part of the convolution before them, and `PRelu` as one operator elsewhere.
//!
//! The engine reads `PRelu` as a comparison, a product and a choice, each a pass over all elements.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, IntoTensor, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, OutletId, StaticName, TValue, Tensor, TractResult, TypedModelPatch, TypedOp, as_op, bail,
    ensure, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{CompGT, CompLT, Iff};
use tract_onnx::tract_core::ops::math::{Max, Min, Mul};

use super::conv::{Activation, DirectConv, constant, numbers};

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter
        .with_rule_for::<Iff>("PRelu", |(), model, node, _, _| prelu(model, node))
        .with_rule_for::<TypedBinOp>("Relu of a convolution", |(), model, node, _, op| relu(model, node, op))
        .with_rule_for::<TypedBinOp>("Clip of a convolution", |(), model, node, _, op| clip(model, node, op))
}

/// `if 0 > x { x * slope } else { x }`.
fn prelu(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let &[test, scaled, input] = &*node.inputs else { return Ok(None) };
    if !is_negative(model, test, input)? || model.outlet_fact(input)?.datum_type != DatumType::F32 {
        return Ok(None);
    }
    let Some(slopes) = slopes(model, scaled, input)? else { return Ok(None) };
    let shape = &model.outlet_fact(input)?.shape;
    let Some(axis) = channel_axis(&slopes, shape.rank()) else { return Ok(None) };
    if slopes.len() > 1 && shape[axis] != slopes.len().into() {
        return Ok(None);
    }
    let conv = model.node(input.node);
    if let Some(op) = conv.op_as::<DirectConv>() {
        let ours = [test.node, scaled.node, node.id];
        let is_private = model.outlet_successors(input).iter().all(|next| ours.contains(&next.node))
            && !model.outputs.contains(&input)
            && axis == op.channel_axis();
        if let Some(op) = is_private.then(|| op.then(Activation::Prelu(Arc::clone(&slopes)))).flatten() {
            return super::merged(model, conv, node, op).map(Some);
        }
    }
    TypedModelPatch::replace_single_op(model, node, &[input], Prelu { axis, slopes }).map(Some)
}

/// Whether `test` is `0 > input`.
fn is_negative(model: &TypedModel, test: OutletId, input: OutletId) -> TractResult<bool> {
    let node = model.node(test.node);
    let (Some(op), &[a, b]) = (node.op_as::<TypedBinOp>(), &*node.inputs) else { return Ok(false) };
    let zero = if op.0.is::<CompGT>() && b == input {
        a
    } else if op.0.is::<CompLT>() && a == input {
        b
    } else {
        return Ok(false);
    };
    is_zero(model, zero)
}

/// Whether `outlet` is one constant 0.
pub(super) fn is_zero(model: &TypedModel, outlet: OutletId) -> TractResult<bool> {
    let Some(value) = constant(model, outlet)? else { return Ok(false) };
    Ok(value.datum_type() == DatumType::F32 && value.len() == 1 && numbers(&value)?[0] == 0.0)
}

/// The other factor, where `product` is `input` times a constant.
fn slopes(model: &TypedModel, product: OutletId, input: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    let node = model.node(product.node);
    let (Some(op), &[a, b]) = (node.op_as::<TypedBinOp>(), &*node.inputs) else { return Ok(None) };
    if !op.0.is::<Mul>() || op.1.is_some() || (a == input) == (b == input) {
        return Ok(None);
    }
    let value = constant(model, if a == input { b } else { a })?;
    Ok(value.filter(|value| value.datum_type() == DatumType::F32 && value.len() > 0))
}

/// The one axis of `slopes` that is longer than 1; 1 where there is none.
fn channel_axis(slopes: &Tensor, rank: usize) -> Option<usize> {
    if slopes.rank() != rank {
        return None;
    }
    let mut long = (0..rank).filter(|&axis| slopes.shape()[axis] != 1);
    match (long.next(), long.next()) {
        (None, _) => Some(1.min(rank.saturating_sub(1))),
        (Some(axis), None) => Some(axis),
        (Some(_), Some(_)) => None,
    }
}

/// `max(x, 0)`, which is also how the engine reads `Relu`. It answers 0 to NaN; ONNX, and this, answer NaN.
fn relu(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<TypedModelPatch>> {
    if !op.0.is::<Max>() || op.1.is_some() {
        return Ok(None);
    }
    for (slot, other) in [(0, 1), (1, 0)] {
        let (Some(&input), Some(&zero)) = (node.inputs.get(slot), node.inputs.get(other)) else { return Ok(None) };
        let conv = model.node(input.node);
        let Some(op) = conv.op_as::<DirectConv>() else { continue };
        let is_private = model.outlet_successors(input).len() == 1 && !model.outputs.contains(&input);
        if !is_private || !is_zero(model, zero)? {
            continue;
        }
        if let Some(op) = op.then(Activation::Relu) {
            return super::merged(model, conv, node, op).map(Some);
        }
    }
    Ok(None)
}

/// `min(x, high)`, the second half of what the engine makes of `Clip`; the first is read as `Relu` where it is one.
fn clip(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<TypedModelPatch>> {
    if !op.0.is::<Min>() || op.1.is_some() {
        return Ok(None);
    }
    for (slot, other) in [(0, 1), (1, 0)] {
        let (Some(&input), Some(&high)) = (node.inputs.get(slot), node.inputs.get(other)) else { return Ok(None) };
        let conv = model.node(input.node);
        let Some(op) = conv.op_as::<DirectConv>() else { continue };
        let is_private = model.outlet_successors(input).len() == 1 && !model.outputs.contains(&input);
        let Some(high) = constant(model, high)?.filter(|_| is_private) else { continue };
        if high.datum_type() != DatumType::F32 || high.len() != 1 {
            continue;
        }
        // A NaN as limit would be another function.
        let Some(high) = numbers(&high)?.first().copied().filter(|high| *high >= 0.0) else { continue };
        if let Some(op) = op.at_most(high) {
            return super::merged(model, conv, node, op).map(Some);
        }
    }
    Ok(None)
}

/// ONNX's `PRelu` with one slope, or one per entry of an axis. NaN stays NaN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Prelu {
    axis: usize,
    slopes: Arc<Tensor>,
}

impl Op for Prelu {
    fn name(&self) -> StaticName {
        "Prelu".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{} slopes along axis {}", self.slopes.len(), self.axis)])
    }

    op_as_typed_op!();
}

impl EvalOp for Prelu {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Some(input) = inputs.pop() else { bail!("expected an input") };
        let mut tensor = input.into_tensor();
        let slopes = numbers(&self.slopes)?;
        let inner: usize = tensor.shape()[self.axis + 1..].iter().product();
        let channels = tensor.shape()[self.axis];
        ensure!(slopes.len() == 1 || slopes.len() == channels, "{} slopes for {channels}", slopes.len());
        if tensor.len() > 0 {
            let mut plain = tensor.try_as_plain_ram_mut()?;
            let runs = plain.as_slice_mut::<f32>()?.chunks_exact_mut(inner);
            for (run, slope) in runs.zip((0..channels).map(|channel| slopes[channel % slopes.len()]).cycle()) {
                for number in run {
                    *number = if *number < 0.0 { *number * slope } else { *number };
                }
            }
        }
        Ok(tvec!(tensor.into()))
    }
}

impl TypedOp for Prelu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, inputs[0].shape.clone())))
    }

    as_op!();
}
