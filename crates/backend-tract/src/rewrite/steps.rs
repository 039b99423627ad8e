//! A `QuantizeLinear` and the `DequantizeLinear` after it as one operator, [`Steps`], and as part of a convolution.
//!
//! Together they round a number to one of 256 steps. As two operators they write every number twice and read it three
//! times, and no convolution can swallow them.

use tract_onnx::prelude::{DatumType, Tensor, TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::TypedModelPatch;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8, QuantizeLinearU8};

use super::conv::{Activation, DirectConv};
use super::direct::After;

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter
        .with_rule_for::<DequantizeLinearF32>("round to steps", |(), model, node, _, op| rounded(model, node, op))
        .with_rule_for::<ElementWiseOp>("steps of a convolution", |(), model, node, _, op| swallowed(model, node, op))
}

fn rounded(model: &TypedModel, node: &TypedNode, op: &DequantizeLinearF32) -> TractResult<Option<TypedModelPatch>> {
    let before = model.node(node.inputs[0].node);
    let Some(quantise) = before.op_as::<ElementWiseOp>() else { return Ok(None) };
    // The engine keeps the scale of the first as what it multiplies by.
    let (times, zero, lowest, highest) = if let Some(op) = quantise.0.downcast_ref::<QuantizeLinearU8>() {
        (op.scale, i32::from(op.zero_point), i32::from(u8::MIN), i32::from(u8::MAX))
    } else if let Some(op) = quantise.0.downcast_ref::<QuantizeLinearI8>() {
        (op.scale, i32::from(op.zero_point), i32::from(i8::MIN), i32::from(i8::MAX))
    } else {
        return Ok(None);
    };
    let input = before.inputs[0];
    let is_ours = model.outlet_fact(input)?.datum_type == DatumType::F32
        && op.scale.recip().to_bits() == times.to_bits()
        && op.zero_point == zero
        && op.scale.is_normal()
        && times.is_normal();
    if !is_ours {
        return Ok(None);
    }
    let steps = Steps::new(op.scale, lowest - zero, highest - zero);
    let op = ElementWiseOp(Box::new(steps), None);
    TypedModelPatch::replace_single_op(model, node, &[input], op).map(Some)
}

fn swallowed(model: &TypedModel, node: &TypedNode, op: &ElementWiseOp) -> TractResult<Option<TypedModelPatch>> {
    let (Some(steps), &[input]) = (op.0.downcast_ref::<Steps>(), &*node.inputs) else { return Ok(None) };
    let conv = model.node(input.node);
    let Some(op) = conv.op_as::<DirectConv>() else { return Ok(None) };
    let is_private = model.outlet_successors(input).len() == 1 && !model.outputs.contains(&input);
    let Some(op) = is_private.then(|| op.then(Activation::Steps(*steps))).flatten() else { return Ok(None) };
    super::merged(model, conv, node, op).map(Some)
}

/// The nearest whole number of steps, between a lowest and a highest. Halves go to the even step, NaN stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Steps {
    /// The size of a step, by its bits.
    size: u32,
    lowest: i32,
    highest: i32,
}

impl Steps {
    fn new(size: f32, lowest: i32, highest: i32) -> Self {
        Self { size: size.to_bits(), lowest, highest }
    }

    /// As the loops want it.
    #[expect(clippy::cast_precision_loss, reason = "both are between -255 and 255")]
    pub(super) fn after<'a>(self) -> After<'a> {
        After::Steps { size: f32::from_bits(self.size), low: self.lowest as f32, high: self.highest as f32 }
    }
}

impl ElementWiseMiniOp for Steps {
    fn name(&self) -> String {
        "Steps".to_owned()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let After::Steps { size, low, high } = self.after() else { return Ok(()) };
        let times = size.recip();
        for number in tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()? {
            let step = *number * times;
            let step = if step < low { low } else { step };
            let step = if step > high { high } else { step };
            *number = ((step + NEAREST) - NEAREST) * size;
        }
        Ok(())
    }
}

/// Added to a small number and taken away again it leaves the nearest whole number: 1.5 * 2^23, where neighbours are 1
/// apart.
pub(super) const NEAREST: f32 = 12_582_912.0;
