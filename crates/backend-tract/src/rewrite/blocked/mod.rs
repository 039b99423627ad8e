//! Convolutions whose channels lie in blocks of sixteen, one after another, without turning the picture between them.
//!
//! With channels in the innermost axis a vector is always full, however narrow the picture, and one number of the input
//! meets a whole vector of weights: what large networks spend their time with, pointwise and depthwise convolutions of
//! small pictures, then runs near what the processor can do. A convolution reads planes or blocks and writes blocks;
//! [`Unblock`] turns its answer back, and is pushed down, through whatever works on blocks as well, until the next
//! convolution swallows it.

mod conv;
pub(super) mod kernel;
mod pool;
mod sums;
#[cfg(test)]
mod tests;

use tract_onnx::prelude::{DatumType, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, OutletId, StaticName, TValue, Tensor, ToDim, TractResult, TypedModelPatch, TypedOp, as_op,
    bail, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::Add;

use super::conv::{Activation, DirectConv, numbers};
use super::memory::fresh;
use super::pool::RowPool;
use super::residual::AddRelu;
use conv::BlockConv;
use kernel::{Cell, LANES};
use pool::BlockPool;

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter
        .with_rule_for::<DirectConv>("convolution of blocks", |(), model, node, _, op| lower(model, node, op))
        .with_rule_for::<BlockConv>("blocks to blocks", |(), model, node, _, op| swallow(model, node, op))
        .with_rule_for::<AddRelu>("sum of blocks and Relu", |(), model, node, _, _| sum(model, node, &Activation::Relu))
        .with_rule_for::<TypedBinOp>("sum of blocks", |(), model, node, _, op| {
            if !op.0.is::<Add>() || op.1.is_some() {
                return Ok(None);
            }
            Ok(sum(model, node, &Activation::None)?.or(apart(model, node)?))
        })
        .with_rule_for::<ElementWiseOp>("function of blocks", |(), model, node, _, _| apart(model, node))
        .with_rule_for::<RowPool>("pool of blocks", |(), model, node, _, op| pooled(model, node, op))
        .with_rule_for::<TypedConcat>("blocks after blocks", |(), model, node, _, op| joined(model, node, op))
}

/// Bytes of the constants that the operators here hold in themselves.
pub(super) fn held_bytes(node: &TypedNode) -> u64 {
    node.op_as::<BlockConv>().map_or(0, BlockConv::bytes)
}

/// Whether `node` is a convolution of blocks.
pub(super) fn is_conv(node: &TypedNode) -> bool {
    node.op_is::<BlockConv>()
}

fn lower(model: &TypedModel, node: &TypedNode, op: &DirectConv) -> TractResult<Option<TypedModelPatch>> {
    let Some(op) = BlockConv::new(op)? else { return Ok(None) };
    let channels = op.channels();
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, node.inputs[0])?;
    let blocks = patch.wire_node(format!("{}.blocks", node.name), op, &[input])?;
    finish(model, node, patch, blocks[0], channels).map(Some)
}

/// Turns `blocks` back and puts that in the place of `node`.
fn finish(
    model: &TypedModel,
    node: &TypedNode,
    mut patch: TypedModelPatch,
    blocks: OutletId,
    channels: usize,
) -> TractResult<TypedModelPatch> {
    let planes = patch.wire_node(&node.name, Unblock { channels }, &[blocks])?;
    patch.shunt_outside(model, node.id.into(), planes[0])?;
    Ok(patch)
}

/// What `planes` is turned from, if from blocks, and of how many channels.
fn blocks_of(model: &TypedModel, planes: OutletId) -> Option<(OutletId, usize)> {
    let node = model.node(planes.node);
    node.op_as::<Unblock>().map(|op| (node.inputs[0], op.channels))
}

/// A convolution that reads what was turned back reads the blocks instead.
fn swallow(model: &TypedModel, node: &TypedNode, op: &BlockConv) -> TractResult<Option<TypedModelPatch>> {
    let Some((blocks, _)) = blocks_of(model, node.inputs[0]) else { return Ok(None) };
    let inputs: Vec<OutletId> = std::iter::once(blocks).chain(node.inputs[1..].iter().copied()).collect();
    TypedModelPatch::replace_single_op(model, node, &inputs, op.clone()).map(Some)
}

/// The sum of a convolution and of other blocks is the convolution's business.
fn sum(model: &TypedModel, node: &TypedNode, activation: &Activation) -> TractResult<Option<TypedModelPatch>> {
    let &[a, b] = &*node.inputs else { return Ok(None) };
    let (Some((a_blocks, channels)), Some((b_blocks, _))) = (blocks_of(model, a), blocks_of(model, b)) else {
        return Ok(None);
    };
    let is_private = |outlet: OutletId| model.outlet_successors(outlet).len() == 1 && !model.outputs.contains(&outlet);
    if model.outlet_fact(a)?.shape != model.outlet_fact(b)?.shape {
        return Ok(None);
    }
    for (planes, blocks, other) in [(a, a_blocks, b_blocks), (b, b_blocks, a_blocks)] {
        let conv = model.node(blocks.node);
        let Some(op) = conv.op_as::<BlockConv>() else { continue };
        let Some(op) = op.plus(activation.clone()).filter(|_| is_private(planes) && is_private(blocks)) else {
            continue;
        };
        let mut patch = TypedModelPatch::default();
        let inputs = [patch.tap_model(model, conv.inputs[0])?, patch.tap_model(model, other)?];
        let blocks = patch.wire_node(&conv.name, op, &inputs)?;
        return finish(model, node, patch, blocks[0], channels).map(Some);
    }
    Ok(None)
}

/// What works on each number by itself works on blocks too.
fn apart(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let turned: Option<Vec<(OutletId, usize)>> = node.inputs.iter().map(|input| blocks_of(model, *input)).collect();
    let Some(turned) = turned else { return Ok(None) };
    let Some(&(_, channels)) = turned.first() else { return Ok(None) };
    let shape = &model.outlet_fact(node.inputs[0])?.shape;
    for input in &node.inputs {
        if model.outlet_fact(*input)?.shape != *shape || model.outlet_fact(*input)?.datum_type != DatumType::F32 {
            return Ok(None);
        }
    }
    if node.outputs[0].fact.datum_type != DatumType::F32 {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::default();
    let inputs = turned.iter().map(|(blocks, _)| patch.tap_model(model, *blocks)).collect::<TractResult<Vec<_>>>()?;
    let blocks = patch.wire_node(format!("{}.blocks", node.name), node.op.clone(), &inputs)?;
    finish(model, node, patch, blocks[0], channels).map(Some)
}

fn pooled(model: &TypedModel, node: &TypedNode, op: &RowPool) -> TractResult<Option<TypedModelPatch>> {
    let Some((blocks, channels)) = blocks_of(model, node.inputs[0]) else { return Ok(None) };
    let Some(op) = BlockPool::new(op) else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, blocks)?;
    let blocks = patch.wire_node(format!("{}.blocks", node.name), op, &[input])?;
    finish(model, node, patch, blocks[0], channels).map(Some)
}

/// Whole blocks after each other.
fn joined(model: &TypedModel, node: &TypedNode, op: &TypedConcat) -> TractResult<Option<TypedModelPatch>> {
    let turned: Option<Vec<(OutletId, usize)>> = node.inputs.iter().map(|input| blocks_of(model, *input)).collect();
    let Some(turned) = turned.filter(|turned| op.axis == 1 && !turned.is_empty()) else { return Ok(None) };
    let (_, before_last) = turned.split_last().expect("there is one");
    if !before_last.iter().all(|(_, channels)| channels.is_multiple_of(LANES)) {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::default();
    let inputs = turned.iter().map(|(blocks, _)| patch.tap_model(model, *blocks)).collect::<TractResult<Vec<_>>>()?;
    let blocks = patch.wire_node(format!("{}.blocks", node.name), op.clone(), &inputs)?;
    let channels = turned.iter().map(|(_, channels)| channels).sum();
    finish(model, node, patch, blocks[0], channels).map(Some)
}

/// The cells of a tensor `[…, 16]`.
fn cells(tensor: &Tensor) -> TractResult<&[Cell]> {
    Ok(numbers(tensor)?.as_chunks().0)
}

/// `[N, blocks, H, W, 16]` as `[N, C, H, W]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Unblock {
    channels: usize,
}

impl Op for Unblock {
    fn name(&self) -> StaticName {
        "Unblock".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Unblock {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("expected one input, got {}", inputs.len()) };
        let &[batch, _, height, width, LANES] = input.shape() else { bail!("expected blocks") };
        let mut output = fresh(&[batch, self.channels, height, width])?;
        let mut plain = output.try_as_plain_ram_mut()?;
        from_blocks(cells(input)?, self.channels, height * width, plain.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for Unblock {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [batch, _, height, width, _] = &*inputs[0].shape else { bail!("expected blocks") };
        let shape = [batch.clone(), self.channels.to_dim(), height.clone(), width.clone()];
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, &shape)))
    }

    as_op!();
}

/// `[batch, blocks, plane]` of cells as `[batch, channels, plane]`.
fn from_blocks(cells: &[Cell], channels: usize, plane: usize, output: &mut [f32]) {
    if output.is_empty() {
        return;
    }
    let blocks = channels.div_ceil(LANES);
    for (index, output) in output.chunks_exact_mut(plane).enumerate() {
        let (image, channel) = (index / channels, index % channels);
        let cells = &cells[(image * blocks + channel / LANES) * plane..][..plane];
        for (number, cell) in output.iter_mut().zip(cells) {
            *number = cell[channel % LANES];
        }
    }
}

/// `[batch, channels, plane]` as `[batch, blocks, plane]` of cells.
fn into_blocks(numbers: &[f32], channels: usize, plane: usize) -> Vec<Cell> {
    let blocks = channels.div_ceil(LANES);
    let images = numbers.len().checked_div(channels * plane).unwrap_or(0);
    let mut cells = vec![[0.0; LANES]; images * blocks * plane];
    for (index, numbers) in numbers.chunks_exact(plane.max(1)).enumerate() {
        let (image, channel) = (index / channels, index % channels);
        let cells = &mut cells[(image * blocks + channel / LANES) * plane..][..plane];
        for (cell, number) in cells.iter_mut().zip(numbers) {
            cell[channel % LANES] = *number;
        }
    }
    cells
}
