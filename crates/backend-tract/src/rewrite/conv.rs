//! Convolutions of `f32` pictures with constant weights as one operator, [`DirectConv`], that also does what follows.
//!
//! The engine unfolds a convolution's input into a matrix and multiplies. For networks of few channels the unfolding, and
//! the separate passes for bias and activation that a batch brings, cost several times what the products do.
//! How the sums are done is the business of [`super::direct`], which activation follows that of [`super::activation`].
//!
//! Left to the engine: other types than `f32`, other layouts than channels first,
//! weights that are not constant, and pointwise convolutions, which it reads as matrix products (see
//! [`super::pointwise`]).

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, TVec, TypedFact, TypedModel, TypedNode, tensor1, tvec};
use tract_onnx::tract_core::internal::{
    Cost, EvalContext, EvalOp, Op, OutletId, StaticName, TDim, TValue, Tensor, TractResult, TypedModelPatch, TypedOp,
    as_op, bail, ensure, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::direct::{self, After, Axis, Geometry, Weights};
use super::memory::fresh;
use super::steps::Steps;

/// A two-dimensional convolution of its one input, with bias and perhaps an activation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DirectConv {
    pool: PoolSpec,
    groups: usize,
    /// By group, as [`direct::pack`] makes them for this processor.
    weights: Arc<Tensor>,
    /// `[outputs]`.
    bias: Arc<Tensor>,
    activation: Activation,
}

/// What is done to each sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Activation {
    /// Nothing.
    None,
    /// ONNX's `Relu`.
    Relu,
    /// ONNX's `PRelu`: one slope per output channel.
    Prelu(Arc<Tensor>),
    /// ONNX's `Clip`.
    Clip(Limits),
    /// Rounded as a quantisation does.
    Steps(Steps),
}

/// Two numbers, by their bits: graphs compare and hash what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Limits {
    low: u32,
    high: u32,
}

impl Limits {
    /// Limits to clip at; either may be infinite.
    pub(super) fn new(low: f32, high: f32) -> Self {
        Self { low: low.to_bits(), high: high.to_bits() }
    }

    /// As the loops want them.
    pub(super) fn after<'a>(self) -> After<'a> {
        After::Clip(f32::from_bits(self.low), f32::from_bits(self.high))
    }
}

pub(super) fn rules(rewriter: Rewriter<()>) -> Rewriter<()> {
    rewriter.with_rule_for::<Conv>("direct convolution", |(), model, node, _, conv| rule(model, node, conv))
}

fn rule(model: &TypedModel, node: &TypedNode, conv: &Conv) -> TractResult<Option<TypedModelPatch>> {
    let &[input, kernel, bias] = &*node.inputs else { return Ok(None) };
    let is_ours = conv.q_params.is_none() && conv.kernel_fmt == KernelFormat::OIHW;
    let (Some(kernel), Some(bias)) = (constant(model, kernel)?, constant(model, bias)?) else { return Ok(None) };
    if !is_ours || model.outlet_fact(input)?.datum_type != DatumType::F32 {
        return Ok(None);
    }
    let Some(op) = DirectConv::new(&conv.pool_spec, conv.group, &kernel, &bias)? else { return Ok(None) };
    TypedModelPatch::replace_single_op(model, node, &[input], op).map(Some)
}

/// The value of `outlet`, where it is known and lies in plain memory.
pub(super) fn constant(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    Ok(model.outlet_fact(outlet)?.konst.clone().filter(|value| value.is_plain_ram()))
}

impl DirectConv {
    /// The convolution with weights `kernel` `[outputs, inputs of a group, y, x]` and `bias`, one number or one per output; `None`
    /// for what this operator does not do.
    ///
    /// # Errors
    /// Where a constant does not hold what its type says.
    pub(super) fn new(pool: &PoolSpec, groups: usize, kernel: &Tensor, bias: &Tensor) -> TractResult<Option<Self>> {
        let divides = |channels: usize| groups > 0 && channels.is_multiple_of(groups);
        if !divides(pool.input_channels) || !divides(pool.output_channels) {
            return Ok(None);
        }
        let is_ours = matches!(pool.data_format, DataFormat::NCHW | DataFormat::CHW)
            && pool.rank() == 2
            && kernel.shape() == [&[pool.output_channels, pool.input_channels / groups], &*pool.kernel_shape].concat()
            && (bias.len() == 1 || bias.len() == pool.output_channels)
            && (kernel.datum_type(), bias.datum_type()) == (DatumType::F32, DatumType::F32)
            && kernel.len() > 0;
        if !is_ours {
            return Ok(None);
        }
        let of_groups = numbers(kernel)?.chunks_exact(kernel.len() / groups);
        let weights = of_groups.flat_map(|weights| direct::pack(weights, pool.output_channels / groups));
        let weights: Vec<f32> = weights.collect();
        let mut bias = numbers(bias)?.to_vec();
        if bias.len() == 1 {
            bias = vec![bias[0]; pool.output_channels];
        }
        let (weights, bias) = (Arc::new(tensor1(&weights)), Arc::new(tensor1(&bias)));
        Ok(Some(Self { pool: pool.clone(), groups, weights, bias, activation: Activation::None }))
    }

    /// This with `activation` after it, or `None` where there is one already or the slopes are not one per output.
    pub(super) fn then(&self, activation: Activation) -> Option<Self> {
        let fits = match &activation {
            Activation::None | Activation::Relu | Activation::Clip(_) | Activation::Steps(_) => true,
            Activation::Prelu(slopes) => slopes.len() == self.pool.output_channels,
        };
        (fits && self.activation == Activation::None).then(|| Self { activation, ..self.clone() })
    }

    /// This with at most `high`, where it has no activation but perhaps `Relu`.
    pub(super) fn at_most(&self, high: f32) -> Option<Self> {
        let low = match self.activation {
            Activation::None => f32::NEG_INFINITY,
            Activation::Relu => 0.0,
            Activation::Prelu(_) | Activation::Clip(_) | Activation::Steps(_) => return None,
        };
        Some(Self { activation: Activation::Clip(Limits::new(low, high)), ..self.clone() })
    }

    /// This over every `step`-th place of the axis `axis` of its input, where its kernel is one place without padding.
    pub(super) fn strided(&self, axis: usize, step: usize) -> Option<Self> {
        let index = axis.checked_sub(self.channel_axis() + 1)?;
        let is_pointwise = self.pool.kernel_shape.iter().all(|side| *side == 1);
        if !is_pointwise || self.pool.padding != PaddingSpec::Valid || index >= self.pool.rank() {
            return None;
        }
        let mut strides: TVec<usize> = (0..self.pool.rank()).map(|index| self.pool.stride(index)).collect();
        strides[index] *= step;
        Some(Self { pool: PoolSpec { strides: Some(strides), ..self.pool.clone() }, ..self.clone() })
    }

    /// Sizes and steps.
    pub(super) fn pool(&self) -> &PoolSpec {
        &self.pool
    }

    /// Groups of channels.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// The weights `[outputs, inputs of a group, y, x]`.
    ///
    /// # Errors
    /// Where a constant does not hold what its type says.
    pub(super) fn kernel(&self) -> TractResult<Vec<f32>> {
        let of_groups = numbers(&self.weights)?.chunks_exact(self.weights.len() / self.groups);
        Ok(of_groups.flat_map(|packed| direct::unpack(packed, self.pool.output_channels / self.groups)).collect())
    }

    /// `[outputs]`.
    pub(super) fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// What follows the sums.
    pub(super) fn activation(&self) -> &Activation {
        &self.activation
    }

    /// This with `added` to its sums, or `None` where that is not one number per channel, or comes after an activation.
    ///
    /// # Errors
    /// Where a constant does not hold what its type says.
    pub(super) fn plus(&self, added: &Tensor) -> TractResult<Option<Self>> {
        let rank = self.channel_axis() + 3;
        let is_per_channel = added.rank() == rank
            && added.len() == self.pool.output_channels
            && added.shape()[self.channel_axis()] == added.len();
        if self.activation != Activation::None || added.datum_type() != DatumType::F32 || !is_per_channel {
            return Ok(None);
        }
        let bias: Vec<f32> = numbers(&self.bias)?.iter().zip(numbers(added)?).map(|(a, b)| a + b).collect();
        Ok(Some(Self { bias: Arc::new(tensor1(&bias)), ..self.clone() }))
    }

    /// The axis of its output that channels lie along.
    pub(super) fn channel_axis(&self) -> usize {
        usize::from(self.pool.data_format.has_n())
    }

    /// Bytes of its constants.
    pub(super) fn bytes(&self) -> u64 {
        let slopes = match &self.activation {
            Activation::Prelu(slopes) => slopes.len(),
            Activation::None | Activation::Relu | Activation::Clip(_) | Activation::Steps(_) => 0,
        };
        (size_of::<f32>() * (self.weights.len() + self.bias.len() + slopes)) as u64
    }
}

/// The sizes of a convolution or pool over `batch` pictures of a size.
///
/// # Errors
/// Where the picture is smaller than a window.
pub(super) fn geometry(pool: &PoolSpec, batch: usize, [height, width]: [usize; 2]) -> TractResult<Geometry> {
    let computed = pool.computed_padding(&[height, width]);
    let axis = |index: usize, input: usize| -> TractResult<Axis> {
        let (kernel, dilation) = (pool.kernel_shape[index], pool.dilation(index));
        let seen = input + computed[index].pad_before + computed[index].pad_after;
        ensure!(seen > (kernel - 1) * dilation, "{seen} places are fewer than a kernel of {kernel} needs");
        Ok(Axis {
            input,
            output: computed[index].convoluted,
            kernel,
            stride: pool.stride(index),
            dilation,
            pad_before: computed[index].pad_before,
        })
    };
    let (inputs, outputs) = (pool.input_channels, pool.output_channels);
    Ok(Geometry { batch, inputs, outputs, y: axis(0, height)?, x: axis(1, width)? })
}

/// The elements of `tensor`, which are `f32`.
pub(super) fn numbers(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

impl Op for DirectConv {
    fn name(&self) -> StaticName {
        "DirectConv".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let mut info = self.pool.info();
        info.push(match self.activation {
            Activation::None => "no activation".to_owned(),
            Activation::Relu => "then Relu".to_owned(),
            Activation::Prelu(_) => "then PRelu".to_owned(),
            Activation::Clip(_) => "then Clip".to_owned(),
            Activation::Steps(_) => "then rounded to steps".to_owned(),
        });
        Ok(info)
    }

    op_as_typed_op!();
}

impl EvalOp for DirectConv {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("expected one input, got {}", inputs.len()) };
        let pictures = self.pool.data_format.shape(input.shape())?;
        let &[height, width] = pictures.hw_dims() else { bail!("expected two spatial axes in {pictures:?}") };
        ensure!(*pictures.c() == self.pool.input_channels, "expected {} channels", self.pool.input_channels);
        let geometry = geometry(&self.pool, *pictures.n().unwrap_or(&1), [height, width])?;
        let shape = self.pool.output_shape(input.shape())?;
        let mut output = fresh(&shape.shape)?;
        let after = match &self.activation {
            Activation::None => After::Nothing,
            Activation::Relu => After::Relu,
            Activation::Prelu(slopes) => After::Prelu(numbers(slopes)?),
            Activation::Clip(limits) => limits.after(),
            Activation::Steps(steps) => steps.after(),
        };
        let weights = Weights { packed: numbers(&self.weights)?, bias: numbers(&self.bias)?, after };
        let mut plain = output.try_as_plain_ram_mut()?;
        direct::run_groups(self.groups, &geometry, numbers(input)?, weights, plain.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for DirectConv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.pool.output_facts(inputs)
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let places: TDim = self.pool.output_shape(&inputs[0].shape)?.shape.iter().product();
        let per_place = self.weights.len() / self.pool.output_channels.max(1);
        Ok(tvec!((Cost::FMA(DatumType::F32), places * per_place)))
    }

    as_op!();
}
