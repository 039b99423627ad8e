//! [`BlockConv`]: a convolution whose output, and usually input, has its channels in blocks of sixteen.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, TVec, TypedFact, tvec};
use tract_onnx::tract_core::internal::{
    Cost, EvalContext, EvalOp, Op, StaticName, TDim, TValue, Tensor, ToDim, TractResult, TypedOp, as_op, bail, ensure,
    op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::ops::cnn::PoolSpec;

use super::cells;
use super::kernel::{Cell, LANES};
use super::sums::{self, Pictures, Weights};
use crate::rewrite::conv::{Activation, DirectConv, geometry, numbers};
use crate::rewrite::direct::{After, Isa};
use crate::rewrite::memory::fresh;

/// A two-dimensional convolution with bias, perhaps a second input added to the sums, and perhaps an activation.
///
/// The first input is `[N, C, H, W]` or `[N, blocks, H, W, 16]`, the others and the output the latter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BlockConv {
    pool: PoolSpec,
    /// 1, or groups of whole blocks, or as many as there are channels.
    groups: usize,
    /// Cells, as [`sums::pack`] or [`sums::pack_depthwise`] make them.
    weights: Arc<Tensor>,
    /// Cells.
    bias: Arc<Tensor>,
    activation: Activation,
    has_residual: bool,
}

impl BlockConv {
    /// `conv` over blocks; `None` where that would compute more than it saves.
    ///
    /// # Errors
    /// Where a constant does not hold what its type says.
    pub(super) fn new(conv: &DirectConv) -> TractResult<Option<Self>> {
        let pool = conv.pool();
        let (inputs, outputs, groups) = (pool.input_channels, pool.output_channels, conv.groups());
        let taps: usize = pool.kernel_shape.iter().product();
        let is_whole = |channels: usize| channels.is_multiple_of(LANES);
        // Lanes beyond the last channel are computed for nothing.
        let is_full = |channels: usize| 4 * channels >= 3 * channels.next_multiple_of(LANES);
        let is_depthwise = groups == inputs && groups == outputs && groups > 1;
        let is_ours = conv.channel_axis() == 1
            && is_full(outputs)
            && (groups == 1 || is_depthwise || (is_whole(inputs / groups) && is_whole(outputs / groups)));
        if !is_ours {
            return Ok(None);
        }
        let weights = conv.kernel()?;
        let packed = if is_depthwise {
            sums::pack_depthwise(&weights, outputs, taps)
        } else {
            sums::pack(&weights, outputs, inputs / groups, taps)
        };
        let activation = match conv.activation() {
            Activation::Prelu(slopes) => Activation::Prelu(tensor(&sums::pack_channels(numbers(slopes)?))?),
            other => other.clone(),
        };
        Ok(Some(Self {
            pool: pool.clone(),
            groups,
            weights: tensor(&packed)?,
            bias: tensor(&sums::pack_channels(numbers(conv.bias())?))?,
            activation,
            has_residual: false,
        }))
    }

    /// This with a second input added to its sums and then `activation`, or `None` where it has one already.
    pub(super) fn plus(&self, activation: Activation) -> Option<Self> {
        let is_free = !self.has_residual && self.activation == Activation::None && !self.is_depthwise();
        is_free.then(|| Self { has_residual: true, activation, ..self.clone() })
    }

    /// Channels of the output.
    pub(super) fn channels(&self) -> usize {
        self.pool.output_channels
    }

    /// Bytes of its constants.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<f32>() * (self.weights.len() + self.bias.len())) as u64
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.pool.input_channels && self.groups == self.pool.output_channels
    }
}

fn tensor(cells: &[Cell]) -> TractResult<Arc<Tensor>> {
    Ok(Arc::new(Tensor::from_shape(&[cells.len(), LANES], cells.as_flattened())?))
}

impl Op for BlockConv {
    fn name(&self) -> StaticName {
        "BlockConv".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let mut info = self.pool.info();
        info.push(format!("{} groups, {:?}, residual: {}", self.groups, self.activation, self.has_residual));
        Ok(info)
    }

    op_as_typed_op!();
}

impl EvalOp for BlockConv {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (input, residual) = match (&*inputs, self.has_residual) {
            ([input], false) => (input, None),
            ([input, residual], true) => (input, Some(cells(residual)?)),
            _ => bail!("expected {} inputs, got {}", 1 + usize::from(self.has_residual), inputs.len()),
        };
        let &[batch, channels, height, width, ..] = input.shape() else { bail!("expected a picture") };
        let blocks = self.pool.input_channels.div_ceil(LANES);
        let is_plain = input.rank() == 4;
        let want = if is_plain { self.pool.input_channels } else { blocks };
        ensure!(channels == want, "expected {want} channels or blocks, got {channels}");
        let geometry = geometry(&self.pool, batch, [height, width])?;
        let shape = [batch, self.pool.output_channels.div_ceil(LANES), geometry.y.output, geometry.x.output, LANES];
        if let Some(residual) = residual {
            ensure!(
                residual.len() * LANES == shape.iter().product::<usize>(),
                "what is added has another shape than the sums"
            );
        }
        let mut output = fresh(&shape)?;
        let after = match &self.activation {
            Activation::None => After::Nothing,
            Activation::Relu => After::Relu,
            Activation::Clip(limits) => limits.after(),
            Activation::Steps(steps) => steps.after(),
            Activation::Prelu(slopes) => After::Prelu(numbers(slopes)?),
        };
        let weights = Weights {
            groups: if self.is_depthwise() { 1 } else { self.groups },
            packed: numbers(&self.weights)?.as_chunks().0,
            bias: numbers(&self.bias)?.as_chunks().0,
            after,
        };
        let mut plain = output.try_as_plain_ram_mut()?;
        let cells_out = plain.as_slice_mut::<f32>()?.as_chunks_mut().0;
        if self.is_depthwise() {
            let turned;
            let input = if is_plain {
                turned = super::into_blocks(numbers(input)?, self.pool.input_channels, height * width);
                &turned
            } else {
                cells(input)?
            };
            sums::depthwise(Isa::best(), &geometry, weights, input, cells_out);
        } else {
            let input = if is_plain { Pictures::Planes(numbers(input)?) } else { Pictures::Blocks(cells(input)?) };
            sums::dense(Isa::best(), &geometry, weights, input, residual, cells_out);
        }
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for BlockConv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [batch, _, height, width, ..] = &*inputs[0].shape else { bail!("expected a picture") };
        let planes = [batch.clone(), self.pool.input_channels.to_dim(), height.clone(), width.clone()];
        let planes = self.pool.output_shape(&planes)?.shape;
        let blocks = self.pool.output_channels.div_ceil(LANES).to_dim();
        let shape = [planes[0].clone(), blocks, planes[2].clone(), planes[3].clone(), LANES.to_dim()];
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, &shape)))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let places: TDim = self.output_facts(inputs)?[0].shape.iter().product();
        let per_place = self.weights.len() / self.pool.output_channels.next_multiple_of(LANES).max(1);
        Ok(tvec!((Cost::FMA(DatumType::F32), places * per_place)))
    }

    as_op!();
}
