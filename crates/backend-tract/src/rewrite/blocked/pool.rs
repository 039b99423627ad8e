//! [`BlockPool`]: `MaxPool` of pictures whose channels lie in blocks.

use tract_onnx::prelude::{TVec, TypedFact, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TValue, ToDim, TractResult, TypedOp, as_op, bail, op_as_typed_op,
    op_out_of_plan,
};
use tract_onnx::tract_core::ops::cnn::PoolSpec;

use super::kernel::LANES;
use super::{cells, sums};
use crate::rewrite::conv::geometry;
use crate::rewrite::memory::fresh;
use crate::rewrite::pool::RowPool;

/// The largest number in each window; NaN counts as smaller than any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BlockPool {
    pool: PoolSpec,
}

impl BlockPool {
    /// `pool` over blocks, where its picture has a batch axis.
    pub(super) fn new(pool: &RowPool) -> Option<Self> {
        let pool = pool.pool();
        pool.data_format.has_n().then(|| Self { pool: pool.clone() })
    }
}

impl Op for BlockPool {
    fn name(&self) -> StaticName {
        "BlockPool".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(self.pool.info())
    }

    op_as_typed_op!();
}

impl EvalOp for BlockPool {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("expected one input, got {}", inputs.len()) };
        let &[batch, blocks, height, width, LANES] = input.shape() else { bail!("expected blocks") };
        let geometry = geometry(&self.pool, batch, [height, width])?;
        let mut output = fresh(&[batch, blocks, geometry.y.output, geometry.x.output, LANES])?;
        let mut plain = output.try_as_plain_ram_mut()?;
        sums::pool(geometry.y, geometry.x, cells(input)?, plain.as_slice_mut::<f32>()?.as_chunks_mut().0);
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for BlockPool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [batch, blocks, height, width, lanes] = &*inputs[0].shape else { bail!("expected blocks") };
        let planes = [batch.clone(), self.pool.input_channels.to_dim(), height.clone(), width.clone()];
        let planes = self.pool.output_shape(&planes)?.shape;
        let shape = [batch.clone(), blocks.clone(), planes[2].clone(), planes[3].clone(), lanes.clone()];
        Ok(tvec!(TypedFact::dt_shape(inputs[0].datum_type, &shape)))
    }

    as_op!();
}
