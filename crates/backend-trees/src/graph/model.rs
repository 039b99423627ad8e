//! A loaded pipeline and the state of one worker.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use millrace_core::{
    Admission, Batch, BatchOutputs, InputError, Instance, LoadError, Model, ModelFacts, RunContext, RunError,
    Signature, Strings, Tensor, TensorList,
};

use super::compile::Plan;
use super::kernel::{Inputs, Place, Scratch};
use super::value::{Data, Item, Kind, Sizes, Value};

/// The most bytes of values in between that one run may need.
const MAX_RUN_BYTES: u64 = 4 << 30;

/// A pipeline, shared by all instances.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) plan: Arc<Plan>,
    pub(crate) facts: ModelFacts,
}

impl Model for Pipeline {
    fn signature(&self) -> &Signature {
        &self.plan.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(PipelineInstance::new(&self.plan)))
    }

    fn memory_bytes(&self) -> u64 {
        let constants = self.plan.constants.iter().map(|value| value.data.bytes());
        let kernels = self.plan.steps.iter().map(|step| step.kernel.bytes());
        constants.chain(kernels).sum::<usize>() as u64
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        let bytes = self.plan.row_bytes.saturating_mul(admission.rows as u64);
        if bytes <= MAX_RUN_BYTES {
            return Ok(());
        }
        let output = Arc::clone(&self.plan.signature.outputs()[0].name);
        let detail =
            format!("{} rows need {bytes} bytes in between; at most {MAX_RUN_BYTES} are to be had", admission.rows);
        Err(InputError::OutputSize { output, detail })
    }

    fn facts(&self) -> ModelFacts {
        self.facts.clone()
    }
}

/// One worker's values. They keep their memory from run to run, but for those that leave as outputs.
struct PipelineInstance {
    plan: Arc<Plan>,
    slots: Vec<Value>,
    scratch: Scratch,
    /// Workers for a share of the rows each, made when threads are granted.
    helpers: Vec<Self>,
}

/// The fewest rows that are worth a thread of their own.
const ROWS_PER_THREAD: usize = 256;

impl Instance for PipelineInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let threads = context.threads.min(batch.rows() / ROWS_PER_THREAD);
        if threads > 1 && self.plan.signature.is_batched() {
            self.run_apart(batch, context, threads)
        } else {
            self.run_whole(batch, context)
        }
    }
}

impl PipelineInstance {
    fn new(plan: &Arc<Plan>) -> Self {
        let slots = vec![Value::default(); plan.n_slots];
        Self { plan: Arc::clone(plan), slots, scratch: Scratch::default(), helpers: Vec::new() }
    }

    /// Gives each thread a share of the rows, and joins what comes out: rows keep to themselves, so that nothing changes.
    fn run_apart(&mut self, batch: &Batch, context: &RunContext<'_>, threads: usize) -> Result<BatchOutputs, RunError> {
        let inputs = (0..self.plan.inputs.len()).map(|index| batch.gather(index)).collect::<Result<TensorList, _>>()?;
        let rows = batch.rows();
        let share = |number: usize| {
            let range = rows * number / threads..rows * (number + 1) / threads;
            Batch::single(inputs.iter().map(|input| input.rows(range.clone())).collect(), range.len())
        };
        let mut helpers = std::mem::take(&mut self.helpers);
        helpers.resize_with(helpers.len().max(threads - 1), || Self::new(&self.plan));
        let context = RunContext { threads: 1, ..*context };
        let run = |(number, helper): (usize, &mut Self)| helper.run_whole(&share(number), &context);
        let outcomes = thread::scope(|scope| {
            let run = &run;
            let others = (1..threads).zip(&mut helpers).map(|work| scope.spawn(move || run(work)));
            let others: Vec<_> = others.collect();
            let mut outcomes = vec![run((0, self))];
            outcomes.extend(others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))));
            outcomes
        });
        self.helpers = helpers;
        let shares = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let joined = (0..self.plan.outputs.len()).map(|index| {
            let pieces: Vec<Tensor> = shares.iter().filter_map(|share| share.0[index].clone()).collect();
            (!pieces.is_empty()).then(|| Tensor::concat(&pieces)).transpose()
        });
        Ok(BatchOutputs(joined.collect::<Result<_, _>>()?))
    }

    fn run_whole(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let Self { plan, slots, scratch, .. } = self;
        for (index, kind) in plan.inputs.iter().enumerate() {
            fill(&mut slots[index], *kind, batch, index, plan.signature.is_batched())?;
        }
        let wanted = (0..plan.outputs.len().min(64)).filter(|index| context.wanted.includes(*index));
        let wanted = wanted.fold(0_u64, |bits, index| bits | 1 << index);
        for step in plan.steps.iter().filter(|step| step.needed_by & wanted != 0 || step.needed_by == u64::MAX) {
            if (context.cancelled)() {
                return Err(RunError::Cancelled);
            }
            let (before, rest) = slots.split_at_mut(step.first_output);
            let inputs = Inputs { slots: before, constants: &plan.constants, places: &step.inputs };
            let outcome = step.kernel.run(&inputs, &mut rest[..step.n_outputs], scratch);
            outcome.map_err(|fault| fault.into_run_error(&step.name))?;
        }
        let mut outputs = BatchOutputs(smallvec::SmallVec::with_capacity(plan.outputs.len()));
        for (index, place) in plan.outputs.iter().enumerate() {
            if !context.wanted.includes(index) {
                outputs.0.push(None);
                continue;
            }
            let is_last = !plan.outputs[index + 1..].contains(place);
            let value = match place {
                // An input that leaves as it came, too: nothing of it is read again.
                Place::Slot(slot) if is_last => std::mem::take(&mut slots[*slot]),
                Place::Slot(slot) => slots[*slot].clone(),
                Place::Constant(constant) => plan.constants[*constant].clone(),
                Place::Nowhere => Value::default(),
            };
            outputs.0.push(Some(tensor(value)?));
        }
        Ok(outputs)
    }
}

/// Copies input `index` of the batch into `value`.
fn fill(value: &mut Value, kind: Kind, batch: &Batch, index: usize, is_batched: bool) -> Result<(), RunError> {
    let first = batch.parts().first().and_then(|part| part.inputs.get(index));
    let Some(first) = first else { return Err(RunError::Failed("a batch without parts or inputs".into())) };
    value.shape = Sizes::from_slice(first.shape());
    if is_batched && let Some(rows) = value.shape.first_mut() {
        *rows = batch.rows();
    }
    match kind {
        Kind::F32 => gather::<f32>(value, batch, index),
        Kind::F64 => gather::<f64>(value, batch, index),
        Kind::I64 => gather::<i64>(value, batch, index),
        Kind::I32 => gather::<i32>(value, batch, index),
        Kind::Bool => {
            let whole = batch.gather(index)?;
            bool::fresh(&mut value.data).extend_from_slice(&whole.elements::<bool>()?);
            Ok(())
        }
        Kind::Text => {
            let whole = batch.gather(index)?;
            let texts = value.data.fresh_texts();
            whole.strings().into_iter().flat_map(Strings::iter).for_each(|text| texts.push(text));
            Ok(())
        }
    }
}

fn gather<T: Item + bytemuck::Pod>(value: &mut Value, batch: &Batch, index: usize) -> Result<(), RunError> {
    let items = T::fresh(&mut value.data);
    items.resize(value.shape.iter().product(), T::zeroed());
    batch.gather_into(index, bytemuck::cast_slice_mut(items)).map_err(RunError::from)
}

fn tensor(value: Value) -> Result<Tensor, RunError> {
    let shape = &value.shape;
    Ok(match value.data {
        Data::F32(items) => Tensor::from_vec(shape, items)?,
        Data::F64(items) => Tensor::from_vec(shape, items)?,
        Data::I64(items) => Tensor::from_vec(shape, items)?,
        Data::I32(items) => Tensor::from_vec(shape, items)?,
        Data::Bool(items) => Tensor::from_vec(shape, items)?,
        Data::Text(texts) => {
            let (bytes, offsets) = texts.into_parts();
            let strings =
                Strings::new(Bytes::from(bytes), offsets).unwrap_or_else(|| std::iter::empty::<&[u8]>().collect());
            Tensor::from_strings(shape, strings)?
        }
    })
}
