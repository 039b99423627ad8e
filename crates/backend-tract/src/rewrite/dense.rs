//! Small dense layers (products with a constant matrix, their bias and activation) as one operator, [`Dense`].
//!
//! A small network's layers take tenths of a microsecond, and the engine a microsecond or more for each of the operators
//! that it makes of one: packing, a product, a pass for the bias. Here a layer is one loop over blocks of sixteen outputs,
//! and layers after one another are one operator, whose numbers stay in the nearest cache between them. No plan for an
//! exact number of rows would be faster.
//!
//! Left to the engine: large matrices, where its products for many rows and for one row are better.

use std::sync::Arc;

use smallvec::SmallVec;
use tract_onnx::prelude::{DatumType, TVec, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    Cost, EvalContext, EvalOp, Op, OutletId, StaticName, TDim, TValue, Tensor, ToDim, TractResult, TypedModelPatch,
    TypedOp, as_op, bail, ensure, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::{Add, Max, Min};

use super::activation::is_zero;
use super::blocked::kernel::{self, Cell, LANES, Run};
use super::conv::{Activation, Limits, constant, numbers};
use super::direct::{After, Isa};
use super::memory::fresh;

/// The most weights of a layer: above, a single row is faster with the engine's product of a matrix and a vector.
const MOST: usize = 1 << 14;

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter
        .with_rule_for::<EinSum>("dense layer", |(), model, node, _, op| product(model, node, op))
        .with_rule_for::<TypedBinOp>("end of a dense layer", |(), model, node, _, op| end(model, node, op))
        .with_rule_for::<Dense>("dense layers after one another", |(), model, node, _, op| chained(model, node, op))
}

/// `[N, inputs]` times a constant `[inputs, outputs]`, in whichever order the constant has its axes, or `[inputs]`.
fn product(model: &TypedModel, node: &TypedNode, op: &EinSum) -> TractResult<Option<TypedModelPatch>> {
    let &[rows, weights] = &*node.inputs else { return Ok(None) };
    let (fact, Some(weights)) = (model.outlet_fact(rows)?, constant(model, weights)?) else { return Ok(None) };
    let is_ours = op.q_params.is_none()
        && op.operating_dt == DatumType::F32
        && (fact.datum_type, weights.datum_type()) == (DatumType::F32, DatumType::F32)
        && fact.rank() == 2
        && matches!(weights.rank(), 1 | 2)
        && (1..=MOST).contains(&weights.len());
    if !is_ours {
        return Ok(None);
    }
    // Where there is one output the engine drops that axis of the weights.
    let mut output_axis = (weights.rank() == 1).then_some(1);
    for axis in op.axes.iter_all_axes() {
        match (&*axis.inputs[0], &*axis.inputs[1], &*axis.outputs[0]) {
            ([0], [], [0]) | ([1], [_], []) => {}
            ([], [], [1]) if weights.rank() == 1 => {}
            ([], &[axis], [1]) if weights.rank() == 2 => output_axis = Some(axis),
            _ => return Ok(None),
        }
    }
    let Some(output_axis) = output_axis else { return Ok(None) };
    let layer = Layer::new(&weights, output_axis)?;
    TypedModelPatch::replace_single_op(model, node, &[rows], Dense { layers: vec![layer] }).map(Some)
}

/// The bias or activation of the layer before, which nobody else reads.
fn end(model: &TypedModel, node: &TypedNode, op: &TypedBinOp) -> TractResult<Option<TypedModelPatch>> {
    if op.1.is_some() {
        return Ok(None);
    }
    for (slot, other) in [(0, 1), (1, 0)] {
        let (Some(&input), Some(&other)) = (node.inputs.get(slot), node.inputs.get(other)) else { return Ok(None) };
        let before = model.node(input.node);
        let Some(dense) = before.op_as::<Dense>().filter(|_| is_private(model, input)) else { continue };
        let Some(value) = constant(model, other)?.filter(|value| value.datum_type() == DatumType::F32) else {
            continue;
        };
        let longer = if op.0.is::<Add>() {
            dense.plus(&value)?
        } else if op.0.is::<Max>() && is_zero(model, other)? {
            dense.then(Activation::Relu)
        } else if op.0.is::<Min>() && value.len() == 1 {
            dense.at_most(numbers(&value)?[0])
        } else {
            None
        };
        if let Some(longer) = longer {
            return replaced(model, before, node, longer).map(Some);
        }
    }
    Ok(None)
}

/// A layer over what another gives, and nobody else reads.
fn chained(model: &TypedModel, node: &TypedNode, op: &Dense) -> TractResult<Option<TypedModelPatch>> {
    let input = node.inputs[0];
    let before = model.node(input.node);
    let Some(first) = before.op_as::<Dense>().filter(|_| is_private(model, input)) else { return Ok(None) };
    let layers = first.layers.iter().chain(&op.layers).cloned().collect();
    replaced(model, before, node, Dense { layers }).map(Some)
}

fn is_private(model: &TypedModel, outlet: OutletId) -> bool {
    model.outlet_successors(outlet).len() == 1 && !model.outputs.contains(&outlet)
}

/// Puts `op` in the place of `first` and of `last`, which is all that becomes of it.
fn replaced(model: &TypedModel, first: &TypedNode, last: &TypedNode, op: Dense) -> TractResult<TypedModelPatch> {
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, first.inputs[0])?;
    let output = patch.wire_node(&last.name, op, &[input])?;
    patch.shunt_outside(model, last.id.into(), output[0])?;
    Ok(patch)
}

/// Layers of rows `[N, inputs]`, each the input of the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Dense {
    layers: Vec<Layer>,
}

/// One product, with bias and perhaps an activation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Layer {
    inputs: usize,
    outputs: usize,
    /// Cells: by block of outputs, then input.
    weights: Arc<Tensor>,
    /// Cells.
    bias: Arc<Tensor>,
    activation: Activation,
}

impl Layer {
    fn new(weights: &Tensor, output_axis: usize) -> TractResult<Self> {
        let (outputs, inputs) = match *weights.shape() {
            [inputs] => (1, inputs),
            [first, second] if output_axis == 0 => (first, second),
            [first, second] => (second, first),
            _ => bail!("weights of shape {:?}", weights.shape()),
        };
        let numbers = numbers(weights)?;
        let at = |input: usize, output: usize| {
            if output_axis == 0 { output * inputs + input } else { input * outputs + output }
        };
        let mut cells = vec![[0.0; LANES]; outputs.div_ceil(LANES) * inputs];
        for output in 0..outputs {
            for input in 0..inputs {
                cells[output / LANES * inputs + input][output % LANES] = numbers[at(input, output)];
            }
        }
        let bias = tensor(&vec![[0.0; LANES]; outputs.div_ceil(LANES)])?;
        Ok(Self { inputs, outputs, weights: tensor(&cells)?, bias, activation: Activation::None })
    }

    fn blocks(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The rows of `from`, by block and then row, to those of `to`.
    fn run(&self, isa: Isa, rows: usize, from: &[Cell], to: &mut [Cell]) -> TractResult<()> {
        let runs: SmallVec<[Run; 16]> = (0..self.inputs.div_ceil(LANES))
            .map(|block| Run { at: block * rows * LANES, channels: (self.inputs - block * LANES).min(LANES) })
            .collect();
        let (weights, bias): (&[Cell], &[Cell]) =
            (numbers(&self.weights)?.as_chunks().0, numbers(&self.bias)?.as_chunks().0);
        let step = kernel::blocks(isa);
        for first in (0..self.blocks()).step_by(step) {
            let blocks = first..(first + step).min(self.blocks());
            let job = kernel::Dense {
                input: from.as_flattened(),
                cell: LANES,
                at: 0,
                runs: &runs,
                places: rows,
                weights: &weights[blocks.start * self.inputs..blocks.end * self.inputs],
                bias: &bias[blocks],
                after: match &self.activation {
                    Activation::Relu => After::Relu,
                    Activation::Clip(limits) => limits.after(),
                    Activation::None | Activation::Prelu(_) | Activation::Steps(_) => After::Nothing,
                },
                residual: None,
            };
            kernel::dense(isa, &job, &mut to[first * rows..], rows);
        }
        Ok(())
    }
}

fn tensor(cells: &[Cell]) -> TractResult<Arc<Tensor>> {
    Ok(Arc::new(Tensor::from_shape(&[cells.len(), LANES], cells.as_flattened())?))
}

impl Dense {
    fn last(&self) -> TractResult<&Layer> {
        let Some(last) = self.layers.last() else { bail!("no layers") };
        Ok(last)
    }

    /// This with its last layer changed, where that has no activation yet.
    fn changed(&self, change: impl FnOnce(&mut Layer)) -> Option<Self> {
        let mut layers = self.layers.clone();
        let last = layers.last_mut().filter(|last| last.activation == Activation::None)?;
        change(last);
        Some(Self { layers })
    }

    fn then(&self, activation: Activation) -> Option<Self> {
        self.changed(|last| last.activation = activation)
    }

    /// This with at most `high`, after `Relu` or nothing. A NaN as limit would be another function.
    fn at_most(&self, high: f32) -> Option<Self> {
        let mut layers = self.layers.clone();
        let last = layers.last_mut().filter(|_| high >= 0.0)?;
        let low = match last.activation {
            Activation::None => f32::NEG_INFINITY,
            Activation::Relu => 0.0,
            Activation::Prelu(_) | Activation::Clip(_) | Activation::Steps(_) => return None,
        };
        last.activation = Activation::Clip(Limits::new(low, high));
        Some(Self { layers })
    }

    /// This with `added` to its sums, where that is one number, or one for each output.
    fn plus(&self, added: &Tensor) -> TractResult<Option<Self>> {
        let (outputs, numbers) = (self.last()?.outputs, numbers(added)?);
        let is_per_output = added.rank() == 2 && added.shape() == [1, outputs];
        if !is_per_output && added.len() != 1 {
            return Ok(None);
        }
        let mut bias = vec![[0.0; LANES]; outputs.div_ceil(LANES)];
        let known = self::numbers(&self.last()?.bias)?;
        for (output, place) in bias.as_flattened_mut().iter_mut().enumerate().take(outputs) {
            *place = known[output] + numbers[output % numbers.len()];
        }
        let bias = tensor(&bias)?;
        Ok(self.changed(|last| last.bias = bias))
    }

    /// Bytes of its constants.
    pub(super) fn bytes(&self) -> u64 {
        let numbers = self.layers.iter().map(|layer| layer.weights.len() + layer.bias.len()).sum::<usize>();
        (size_of::<f32>() * numbers) as u64
    }

    fn run(&self, isa: Isa, input: &[f32], output: &mut [f32]) -> TractResult<()> {
        let Some(Layer { inputs, .. }) = self.layers.first() else { bail!("no layers") };
        let (inputs, outputs) = (*inputs, self.last()?.outputs);
        let widest = self.layers.iter().map(Layer::blocks).fold(inputs.div_ceil(LANES), usize::max);
        let at_once = kernel::places(isa).min(input.len() / inputs).max(1);
        let (mut from, mut to) = (vec![[0.0; LANES]; widest * at_once], vec![[0.0; LANES]; widest * at_once]);
        let tiles = input.chunks(at_once * inputs).zip(output.chunks_mut(at_once * outputs));
        for (input, output) in tiles {
            let rows = input.len() / inputs;
            for (row, numbers) in input.chunks_exact(inputs).enumerate() {
                for (block, numbers) in numbers.chunks(LANES).enumerate() {
                    from[block * rows + row][..numbers.len()].copy_from_slice(numbers);
                }
            }
            for layer in &self.layers {
                layer.run(isa, rows, &from, &mut to)?;
                std::mem::swap(&mut from, &mut to);
            }
            for (row, numbers) in output.chunks_exact_mut(outputs).enumerate() {
                for (block, numbers) in numbers.chunks_mut(LANES).enumerate() {
                    numbers.copy_from_slice(&from[block * rows + row][..numbers.len()]);
                }
            }
        }
        Ok(())
    }
}

impl Op for Dense {
    fn name(&self) -> StaticName {
        "Dense".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let layer = |layer: &Layer| format!("{} to {}, then {:?}", layer.inputs, layer.outputs, layer.activation);
        Ok(self.layers.iter().map(layer).collect())
    }

    op_as_typed_op!();
}

impl EvalOp for Dense {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("expected one input, got {}", inputs.len()) };
        let &[rows, columns] = input.shape() else { bail!("expected rows, got {:?}", input.shape()) };
        let expected = self.layers.first().map_or(0, |layer| layer.inputs);
        ensure!(columns == expected, "expected rows of {expected}, got {columns}");
        let mut output = fresh(&[rows, self.last()?.outputs])?;
        if rows > 0 {
            let mut plain = output.try_as_plain_ram_mut()?;
            self.run(Isa::best(), numbers(input)?, plain.as_slice_mut::<f32>()?)?;
        }
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for Dense {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = [inputs[0].shape[0].clone(), self.last()?.outputs.to_dim()];
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, &shape)))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let per_row = self.layers.iter().map(|layer| layer.inputs * layer.outputs).sum::<usize>();
        Ok(tvec!((Cost::FMA(DatumType::F32), inputs[0].shape[0].clone() * per_row)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn every_instruction_set_sums_what_plain_loops_sum() {
        for (sizes, rows) in [([10, 64, 32, 1], 1), ([3, 17, 16, 5], 2), ([40, 33, 50, 18], 31), ([1, 1, 1, 1], 14)] {
            let input = noise(rows * sizes[0], 9);
            let mut expected = input.clone();
            let mut layers = Vec::new();
            for (index, pair) in (0_u32..).zip(sizes.windows(2)) {
                let (inputs, outputs) = (pair[0], pair[1]);
                let (weights, bias) = (noise(inputs * outputs, 1 + index), noise(outputs, 77 + index));
                let by_output = (index % 2) as usize;
                let shape = if by_output == 0 { [outputs, inputs] } else { [inputs, outputs] };
                let at = |input: usize, output: usize| {
                    if by_output == 0 { output * inputs + input } else { input * outputs + output }
                };
                let layer = Layer::new(&Tensor::from_shape(&shape, &weights).unwrap(), by_output).unwrap();
                let dense = Dense { layers: vec![layer] };
                let dense = dense.plus(&Tensor::from_shape(&[1, outputs], &bias).unwrap()).unwrap().unwrap();
                let dense = if index < 2 { dense.then(Activation::Relu).unwrap() } else { dense.at_most(0.5).unwrap() };
                layers.extend(dense.layers);
                let sum = |row: &[f32], output: usize| {
                    let products = (0..inputs).map(|input| row[input] * weights[at(input, output)]);
                    let sum = bias[output] + products.sum::<f32>();
                    if index < 2 { sum.max(0.0) } else { sum.min(0.5) }
                };
                let sums = |row: &[f32]| (0..outputs).map(|output| sum(row, output)).collect::<Vec<_>>();
                expected = expected.chunks_exact(inputs).flat_map(sums).collect();
            }
            let dense = Dense { layers };
            for isa in Isa::all() {
                let mut output = vec![f32::NAN; expected.len()];
                dense.run(isa, &input, &mut output).unwrap();
                for (got, expected) in output.iter().zip(&expected) {
                    assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{isa:?}: {got}, not {expected}");
                }
            }
        }
    }
}
