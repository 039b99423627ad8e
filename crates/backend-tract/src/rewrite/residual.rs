//! The sum of two tensors of one shape and the `Relu` after it, the end of every block of a residual network, in one pass.

use tract_onnx::prelude::{DatumType, IntoTensor, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TValue, TractResult, TypedModelPatch, TypedOp, as_op, bail, ensure,
    op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Add, Max};

use super::activation::is_zero;
use super::conv::numbers;

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter.with_rule_for::<TypedBinOp>("Relu of a sum", |(), model, node, _, op| rule(model, node, op))
}

fn rule(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<TypedModelPatch>> {
    if !op.0.is::<Max>() || op.1.is_some() {
        return Ok(None);
    }
    let &[a, b] = &*node.inputs else { return Ok(None) };
    for (sum, zero) in [(a, b), (b, a)] {
        let added = model.node(sum.node);
        let (Some(op), &[a, b]) = (added.op_as::<TypedBinOp>(), &*added.inputs) else { continue };
        let is_private = model.outlet_successors(sum).len() == 1 && !model.outputs.contains(&sum);
        let (a_fact, b_fact) = (model.outlet_fact(a)?, model.outlet_fact(b)?);
        let is_ours = op.0.is::<Add>()
            && op.1.is_none()
            && (a_fact.datum_type, b_fact.datum_type) == (DatumType::F32, DatumType::F32)
            && a_fact.shape == b_fact.shape;
        if is_private && is_ours && is_zero(model, zero)? {
            return TypedModelPatch::replace_single_op(model, node, &[a, b], AddRelu).map(Some);
        }
    }
    Ok(None)
}

/// `max(a + b, 0)`; NaN stays NaN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AddRelu;

impl Op for AddRelu {
    fn name(&self) -> StaticName {
        "AddRelu".into()
    }

    op_as_typed_op!();
}

impl EvalOp for AddRelu {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (Some(b), Some(a)) = (inputs.pop(), inputs.pop()) else { bail!("expected two inputs") };
        ensure!(a.shape() == b.shape(), "expected one shape, got {:?} and {:?}", a.shape(), b.shape());
        let mut sum = a.into_tensor();
        for (sum, added) in sum.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.iter_mut().zip(numbers(&b)?) {
            let number = *sum + added;
            *sum = if number < 0.0 { 0.0 } else { number };
        }
        Ok(tvec!(sum.into()))
    }
}

impl TypedOp for AddRelu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, inputs[0].shape.clone())))
    }

    as_op!();
}
