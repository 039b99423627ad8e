//! Convolutions with a kernel of one place, which the engine reads as a matrix product over channels.
//!
//! With rows to a batch it would transpose the picture before and after such a product and add the bias in a pass of its
//! own. As a [`DirectConv`] it reads the channels where they lie.

use tract_onnx::prelude::{DatumType, IntoTensor, TypedModel, TypedNode, tensor0, tvec};
use tract_onnx::tract_core::internal::{AxesMapping, TractResult, TypedModelPatch};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::Downsample;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::Add;
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::conv::{DirectConv, constant};

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter
        .with_rule_for::<EinSum>("pointwise convolution", |(), model, node, _, op| product(model, node, op))
        .with_rule_for::<DirectConv>("stride of a pointwise convolution", |(), model, node, _, op| {
            strided(model, node, op)
        })
        .with_rule_for::<TypedBinOp>("bias of a convolution", |(), model, node, _, op| bias(model, node, op))
}

/// A product that sums over the channels of a picture `[N, I, H, W]` and constant weights.
fn product(model: &TypedModel, node: &TypedNode, op: &EinSum) -> TractResult<Option<TypedModelPatch>> {
    let &[picture, weights] = &*node.inputs else { return Ok(None) };
    let (fact, Some(weights)) = (model.outlet_fact(picture)?, constant(model, weights)?) else { return Ok(None) };
    let is_ours = op.q_params.is_none()
        && op.operating_dt == DatumType::F32
        && (fact.datum_type, weights.datum_type()) == (DatumType::F32, DatumType::F32)
        && (fact.rank(), weights.rank()) == (4, 2);
    let Some(output_axis) = is_ours.then(|| output_axis(&op.axes)).flatten() else { return Ok(None) };
    let weights = if output_axis == 0 { weights.into_tensor() } else { weights.into_tensor().permute_axes(&[1, 0])? };
    let (outputs, inputs) = (weights.shape()[0], weights.shape()[1]);
    let pool = PoolSpec::new(DataFormat::NCHW, tvec!(1, 1), PaddingSpec::Valid, None, None, inputs, outputs);
    let kernel = weights.into_shape(&[outputs, inputs, 1, 1])?;
    let Some(op) = DirectConv::new(&pool, 1, &kernel, &tensor0(0_f32))? else { return Ok(None) };
    TypedModelPatch::replace_single_op(model, node, &[picture], op).map(Some)
}

/// Which axis of the weights is the output's channels, where `axes` are those of a pointwise convolution.
fn output_axis(axes: &AxesMapping) -> Option<usize> {
    let mut channels = None;
    for axis in axes.iter_all_axes() {
        match (&*axis.inputs[0], &*axis.inputs[1], &*axis.outputs[0]) {
            ([0], [], [0]) | ([2], [], [2]) | ([3], [], [3]) | ([1], [_], []) => {}
            ([], &[axis], [1]) => channels = Some(axis),
            _ => return None,
        }
    }
    channels
}

/// The engine takes places away before it convolves those that are left, in a pass of its own per axis.
fn strided(model: &TypedModel, node: &TypedNode, op: &DirectConv) -> TractResult<Option<TypedModelPatch>> {
    let before = model.node(node.inputs[0].node);
    let Some(down) = before.op_as::<Downsample>().filter(|down| down.modulo == 0) else { return Ok(None) };
    let Ok(step) = usize::try_from(down.stride) else { return Ok(None) };
    let Some(op) = op.strided(down.axis, step) else { return Ok(None) };
    TypedModelPatch::replace_single_op(model, node, &[before.inputs[0]], op).map(Some)
}

/// A constant per channel added to a convolution without an activation.
fn bias(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<TypedModelPatch>> {
    if !op.0.is::<Add>() || op.1.is_some() {
        return Ok(None);
    }
    for (slot, other) in [(0, 1), (1, 0)] {
        let (Some(&sum), Some(&added)) = (node.inputs.get(slot), node.inputs.get(other)) else { return Ok(None) };
        let (conv, Some(added)) = (model.node(sum.node), constant(model, added)?) else { continue };
        let Some(op) = conv.op_as::<DirectConv>() else { continue };
        let is_private = model.outlet_successors(sum).len() == 1 && !model.outputs.contains(&sum);
        let Some(op) = is_private.then(|| op.plus(&added)).transpose()?.flatten() else { continue };
        return super::merged(model, conv, node, op).map(Some);
    }
    Ok(None)
}
