//! `MaxPool` of `f32` pictures, first down the columns of a window, then along its rows.
//!
//! The first step is a maximum of whole rows, which is all vectors; the engine takes each window by itself where the
//! stride is not 1.

use tract_onnx::prelude::{DatumType, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TValue, Tensor, TractResult, TypedModelPatch, TypedOp, as_op, bail,
    op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::cnn::{MaxPool, PoolSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::conv::numbers;

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter.with_rule_for::<MaxPool>("pool by rows", |(), model, node, _, op| rule(model, node, op))
}

fn rule(model: &TypedModel, node: &TypedNode, op: &MaxPool) -> TractResult<Option<TypedModelPatch>> {
    let pool = &op.pool_spec;
    let is_ours = op.with_index_outputs.is_none()
        && matches!(pool.data_format, DataFormat::NCHW | DataFormat::CHW)
        && pool.rank() == 2
        && pool.dilations().iter().all(|dilation| *dilation == 1);
    let &[input] = &*node.inputs else { return Ok(None) };
    if !is_ours || model.outlet_fact(input)?.datum_type != DatumType::F32 {
        return Ok(None);
    }
    TypedModelPatch::replace_single_op(model, node, &[input], RowPool { pool: pool.clone() }).map(Some)
}

/// The largest number in each window; NaN counts as smaller than any, as in the engine. A window of nothing but NaN or
/// padding gives -∞.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RowPool {
    pool: PoolSpec,
}

impl RowPool {
    /// Sizes and steps.
    pub(super) fn pool(&self) -> &PoolSpec {
        &self.pool
    }
}

/// A window's place along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    pad_before: usize,
}

impl Op for RowPool {
    fn name(&self) -> StaticName {
        "RowPool".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(self.pool.info())
    }

    op_as_typed_op!();
}

impl EvalOp for RowPool {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("expected one input, got {}", inputs.len()) };
        let shape = self.pool.data_format.shape(input.shape())?;
        let &[height, width] = shape.hw_dims() else { bail!("expected two spatial axes in {shape:?}") };
        let computed = self.pool.computed_padding(&[height, width]);
        let axis = |index: usize, input: usize| Axis {
            input,
            output: computed[index].convoluted,
            kernel: self.pool.kernel_shape[index],
            stride: self.pool.stride(index),
            pad_before: computed[index].pad_before,
        };
        let mut output = Tensor::zero::<f32>(&self.pool.output_shape(input.shape())?.shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        pool(axis(0, height), axis(1, width), numbers(input)?, plain.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for RowPool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.pool.output_facts(inputs)
    }

    as_op!();
}

/// Pools `input` `[planes, y, x]` into `output`.
fn pool(y: Axis, x: Axis, input: &[f32], output: &mut [f32]) {
    if output.is_empty() {
        return;
    }
    if input.is_empty() {
        output.fill(f32::NEG_INFINITY); // windows of padding only
        return;
    }
    // One row of maxima, between what stands for padding; one number more, so that pairs are always whole.
    let len = (x.pad_before + x.input).max((x.output - 1) * x.stride + x.kernel) + 1;
    let mut line = vec![f32::NEG_INFINITY; len];
    let planes = input.chunks_exact(y.input * x.input);
    for (plane, output) in planes.zip(output.chunks_exact_mut(y.output * x.output)) {
        for (row, output) in output.chunks_exact_mut(x.output).enumerate() {
            let first = (row * y.stride).saturating_sub(y.pad_before).min(y.input);
            let last = (row * y.stride + y.kernel).saturating_sub(y.pad_before).min(y.input);
            let maxima = &mut line[x.pad_before..x.pad_before + x.input];
            let mut rows = plane[first * x.input..last * x.input].chunks_exact(x.input);
            match rows.next() {
                Some(row) => {
                    maxima.iter_mut().zip(row).for_each(|(most, number)| *most = largest(f32::NEG_INFINITY, *number))
                }
                None => maxima.fill(f32::NEG_INFINITY),
            }
            for row in rows {
                for (most, number) in maxima.iter_mut().zip(row) {
                    *most = largest(*most, *number);
                }
            }
            along(&line, x.kernel, x.stride, output);
        }
    }
}

/// The largest number of each window of `kernel` numbers of `line`.
fn along(line: &[f32], kernel: usize, stride: usize, output: &mut [f32]) {
    output.fill(f32::NEG_INFINITY);
    match stride {
        1 => {
            for tap in 0..kernel {
                for (most, number) in output.iter_mut().zip(&line[tap..]) {
                    *most = largest(*most, *number);
                }
            }
        }
        2 => {
            for tap in (0..kernel).step_by(2) {
                let pairs = output.iter_mut().zip(line[tap..].as_chunks::<2>().0);
                if tap + 1 < kernel {
                    pairs.for_each(|(most, [a, b])| *most = largest(*most, largest(*a, *b)));
                } else {
                    pairs.for_each(|(most, [a, _])| *most = largest(*most, *a));
                }
            }
        }
        _ => {
            for tap in 0..kernel {
                for (most, number) in output.iter_mut().zip(line[tap..].iter().step_by(stride)) {
                    *most = largest(*most, *number);
                }
            }
        }
    }
}

/// The larger number; `most` where `number` is NaN. One instruction.
fn largest(most: f32, number: f32) -> f32 {
    if number > most { number } else { most }
}
