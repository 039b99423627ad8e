//! One run: the requests of a batch are packed, computed, and unpacked into the outputs that somebody wants.

use std::sync::Arc;

use candle_core::{DType, Result};
use millrace_core::{Batch, BatchOutputs, Instance, RunContext, RunError, Tensor, guarded};
use smallvec::SmallVec;

use super::encoder::{Stopped, Tokens};
use super::head::{Answers, Vectors, picks};
use super::model::{Loaded, Outputs};
use super::packed::Packed;
use super::pooling::Needs;
use crate::device::Staging;
use crate::nn::{Kernels, Numbers, Ranges};

/// The most numbers in the vectors of all tokens of a batch.
const MOST_NUMBERS: usize = 1 << 28;

pub(super) struct TextInstance {
    loaded: Arc<Loaded>,
    staging: Staging,
    computed: usize,
}

impl TextInstance {
    pub(super) fn new(loaded: Arc<Loaded>) -> Self {
        let staging = loaded.place.staging();
        Self { loaded, staging, computed: 0 }
    }
}

impl Instance for TextInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> std::result::Result<BatchOutputs, RunError> {
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let parts = batch.parts().iter().map(|part| part.inputs.as_slice());
        let packed = Packed::new(&self.loaded.limits, parts).map_err(|error| {
            self.computed = 0;
            RunError::InvalidInput(error.to_string())
        })?;
        let run = Run { loaded: &self.loaded, packed: &packed, context, rows: batch.rows() };
        let staging = &mut self.staging;
        let work = || self.loaded.place.run(context.threads, || run.compute(staging));
        let outcome = guarded(work).map_err(|panicked| RunError::Failed(Box::new(panicked)))?;
        let (outputs, computed) = outcome.map_err(|error| RunError::Failed(Box::new(error)))??;
        self.computed = computed;
        Ok(outputs)
    }

    fn computed(&self) -> usize {
        self.computed
    }
}

struct Run<'a> {
    loaded: &'a Loaded,
    packed: &'a Packed,
    context: &'a RunContext<'a>,
    rows: usize,
}

impl Run<'_> {
    /// The outputs, and how many token positions were computed for them.
    fn compute(&self, staging: &mut Staging) -> std::result::Result<(BatchOutputs, usize), RunError> {
        let failed = |error| self.loaded.place.failed(error);
        let network = &self.loaded.network;
        let grouping = self.loaded.grouping;
        let ranges = Ranges::new(&self.packed.lengths, network.kernels, grouping, staging).map_err(failed)?;
        let _room = self.loaded.place.hold_run(self.bytes(&ranges))?;
        let vectors = self.vectors(&ranges, staging).map_err(|stopped| match stopped {
            Stopped::Cancelled => RunError::Cancelled,
            Stopped::Failed(error) => failed(error),
        })?;
        let answers = if self.wants(Some(Outputs::MAIN)) || self.wants(self.loaded.outputs.pooled) {
            network.head.forward(&vectors, self.packed, &ranges, network.kernels, staging).map_err(failed)?
        } else {
            Answers::default()
        };
        let mut outputs: SmallVec<[Option<Tensor>; 2]> = SmallVec::from_elem(None, self.loaded.outputs.count);
        if let Some(main) = answers.main.filter(|_| self.wants(Some(Outputs::MAIN))) {
            outputs[Outputs::MAIN] = Some(self.by_row(&main, staging)?);
        }
        if let (Some(index), Some(pooled)) = (self.loaded.outputs.pooled, answers.pooled)
            && self.wants(Some(index))
        {
            outputs[index] = Some(self.by_row(&pooled, staging)?);
        }
        if let (Some(index), Vectors::All(hidden)) = (self.loaded.outputs.hidden, &vectors)
            && self.wants(Some(index))
        {
            outputs[index] = Some(self.by_token(hidden, staging)?);
        }
        Ok((BatchOutputs(outputs), ranges.computed()))
    }

    fn wants(&self, output: Option<usize>) -> bool {
        output.is_some_and(|index| self.context.wanted.includes(index))
    }

    /// The vectors of all tokens, or of the few that are looked at where that is enough.
    fn vectors(&self, ranges: &Ranges, staging: &mut Staging) -> std::result::Result<Vectors, Stopped> {
        let (network, packed) = (&self.loaded.network, self.packed);
        let needs = if self.wants(self.loaded.outputs.hidden) { Needs::All } else { network.head.needs() };
        let lists = [&packed.ids, &packed.positions, &packed.types];
        let mut there = Vec::new();
        if network.kernels == Kernels::Candle {
            there = lists.iter().map(|list| staging.upload(list, &[list.len()])).collect::<Result<_>>()?;
        }
        let [ids, positions, types] =
            std::array::from_fn(|index| Numbers { plain: lists[index], there: there.get(index) });
        let tokens = Tokens { ids, positions, types };
        let kept = if needs == Needs::All { None } else { Some(picks(needs, ranges, staging)?) };
        let hidden = network.encoder.forward(tokens, ranges, kept.as_ref(), self.context.cancelled)?;
        Ok(if kept.is_some() { Vectors::Picked(hidden) } else { Vectors::All(hidden) })
    }

    /// Bytes that a run takes on a card beside the weights, about: what is alive at the widest place of a layer.
    fn bytes(&self, ranges: &Ranges) -> u64 {
        let config = &self.loaded.network.config;
        let (tokens, padded) = (self.packed.ids.len() as u64, ranges.computed() as u64);
        let in_layers = tokens * (4 * config.hidden_size + 2 * config.intermediate_size) as u64;
        let in_attention = padded * (8 * config.hidden_size) as u64;
        let scores = 3 * ranges.cells() * config.heads as u64;
        (in_layers + in_attention + scores) * self.loaded.number_bytes
    }

    /// [rows, …] in the order of the batch.
    fn by_row(&self, packed: &candle_core::Tensor, staging: &mut Staging) -> std::result::Result<Tensor, RunError> {
        let width = packed.dim(1).map_err(|error| self.loaded.place.failed(error))?;
        let numbers = self.numbers(packed, staging)?;
        let mut out = vec![0.0_f32; self.rows * width];
        for (row, place) in numbers.chunks_exact(width).zip(&self.packed.order) {
            out[place * width..(place + 1) * width].copy_from_slice(row);
        }
        Ok(Tensor::from_vec(&[self.rows, width], out)?)
    }

    /// [rows, sequence, …] in the order of the batch, zeros where no token was computed.
    fn by_token(&self, packed: &candle_core::Tensor, staging: &mut Staging) -> std::result::Result<Tensor, RunError> {
        let width = packed.dim(1).map_err(|error| self.loaded.place.failed(error))?;
        let numbers = self.numbers(packed, staging)?;
        let sequence = self.packed.sequence;
        let size = self.rows.saturating_mul(sequence).saturating_mul(width);
        if size > MOST_NUMBERS {
            // One by one they may fit: a batch that is refused is halved.
            let text = format!("vectors of tokens take {size} numbers together; expected at most {MOST_NUMBERS}");
            return Err(RunError::InvalidInput(text));
        }
        let mut out = vec![0.0_f32; size];
        let rows = self.packed.order.iter().zip(&self.packed.lengths);
        let places = rows.flat_map(|(row, length)| std::iter::repeat_n(row * sequence, *length));
        for ((vector, start), column) in numbers.chunks_exact(width).zip(places).zip(&self.packed.columns) {
            out[(start + column) * width..][..width].copy_from_slice(vector);
        }
        Ok(Tensor::from_vec(&[self.rows, sequence, width], out)?)
    }

    fn numbers(&self, tensor: &candle_core::Tensor, staging: &mut Staging) -> std::result::Result<Vec<f32>, RunError> {
        let failed = |error| self.loaded.place.failed(error);
        let bytes = staging.download(&tensor.to_dtype(DType::F32).map_err(failed)?).map_err(failed)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
    }
}
