//! `Softmax` over one axis that is not the last: whole planes at a time.
//!
//! The engine gathers the elements of each softmax by strided access and, for two classes over a picture, spends most of
//! a small network's time there.

use tract_onnx::prelude::{DatumType, IntoTensor, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TValue, TractResult, TypedModelPatch, TypedOp, as_op, bail, op_as_typed_op,
    op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::nn::{Softmax, SoftmaxKind};

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter.with_rule_for::<Softmax>("softmax of planes", |(), model, node, _, op| rule(model, node, op))
}

fn rule(model: &TypedModel, node: &TypedNode, op: &Softmax) -> TractResult<Option<TypedModelPatch>> {
    let &[input] = &*node.inputs else { return Ok(None) };
    let fact = model.outlet_fact(input)?;
    let is_ours = op.kind == SoftmaxKind::Softmax && op.quant_output_dt.is_none() && fact.datum_type == DatumType::F32;
    match *op.axes {
        [axis] if is_ours && axis + 1 < fact.rank() => {
            TypedModelPatch::replace_single_op(model, node, &[input], PlaneSoftmax { axis }).map(Some)
        }
        _ => Ok(None),
    }
}

/// Softmax over `axis`, the elements after it being a plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PlaneSoftmax {
    axis: usize,
}

impl Op for PlaneSoftmax {
    fn name(&self) -> StaticName {
        "PlaneSoftmax".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("axis {}", self.axis)])
    }

    op_as_typed_op!();
}

impl EvalOp for PlaneSoftmax {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Some(input) = inputs.pop() else { bail!("expected an input") };
        let mut tensor = input.into_tensor();
        let plane: usize = tensor.shape()[self.axis + 1..].iter().product();
        let classes = tensor.shape()[self.axis];
        if tensor.len() > 0 {
            let mut plain = tensor.try_as_plain_ram_mut()?;
            softmax(plain.as_slice_mut::<f32>()?, classes, plane);
        }
        Ok(tvec!(tensor.into()))
    }
}

impl TypedOp for PlaneSoftmax {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, inputs[0].shape.clone())))
    }

    as_op!();
}

/// Softmax in place over the middle axis of `[any, classes, plane]`.
fn softmax(numbers: &mut [f32], classes: usize, plane: usize) {
    /// Places that are done for all classes before the next ones: they stay in the nearest cache.
    const AT_ONCE: usize = 1024;
    let mut most = [0.0; AT_ONCE];
    let mut sums = [0.0; AT_ONCE];
    for numbers in numbers.chunks_exact_mut(classes * plane) {
        for from in (0..plane).step_by(AT_ONCE) {
            let (most, sums) = (&mut most[..AT_ONCE.min(plane - from)], &mut sums[..AT_ONCE.min(plane - from)]);
            most.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            for class in numbers.chunks_exact(plane) {
                for (most, number) in most.iter_mut().zip(&class[from..]) {
                    // NaN is never the most; it comes through in its own exponential.
                    *most = if *number > *most { *number } else { *most };
                }
            }
            for class in numbers.chunks_exact_mut(plane) {
                for ((number, most), sum) in class[from..].iter_mut().zip(&*most).zip(&mut *sums) {
                    *number = exp(*number - *most);
                    *sum += *number;
                }
            }
            for class in numbers.chunks_exact_mut(plane) {
                for (number, sum) in class[from..].iter_mut().zip(&*sums) {
                    *number /= *sum;
                }
            }
        }
    }
}

/// e to the power of a number of at most 0, within 2 units in the last place; 0 where that is below the smallest normal
/// number; NaN for NaN. Without branches or calls, so that loops over it become vectors.
///
/// The number is split into `n ln 2 + r` with `r` within half of `ln 2` of 0; the power of `r` is its Taylor series up to
/// the seventh term, that of `n ln 2` is put together from its bits.
fn exp(x: f32) -> f32 {
    /// Adding this to a small number rounds it, and leaves the integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` in two parts; the first has so few bits that its product with `n` is exact.
    const LN_2: (f32, f32) = (355.0 / 512.0, -2.121_944_4e-4);
    const LOWEST: f32 = -87.3;
    let is_tiny = x < LOWEST;
    let x = if is_tiny { LOWEST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2.0 - n * LN_2.1;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let power = (series * r * r + r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if is_tiny { 0.0 } else { power * scale }
}
