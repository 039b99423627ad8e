//! One worker's state: picks a plan, fills its inputs, runs it behind the wall.

use std::sync::Arc;

use millrace_core::{
    Batch, BatchOutputs, DType, Dim, Group, Instance, Part, RunContext, RunError, Tensor, TensorList, TensorSpec,
    guarded,
};
use smallvec::SmallVec;
use tract_onnx::prelude::{TValue, TVec, TypedSimpleState};

use crate::convert;
use crate::model::Loaded;
use crate::plans::Plan;
use crate::tokens;

/// States by plan. A state holds no large buffer between runs.
pub(crate) struct TractInstance {
    loaded: Arc<Loaded>,
    states: Vec<(Plan, TypedSimpleState)>,
    generation: u64,
    /// Whether a batch may be run some rows at a time.
    may_divide: bool,
}

impl TractInstance {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Self {
        let generation = loaded.plans.generation();
        Self { loaded, states: Vec::new(), generation, may_divide: true }
    }

    /// One that runs all rows of a batch together, however many they are: to learn whether that is sound.
    pub(crate) fn undivided(loaded: Arc<Loaded>) -> Self {
        Self { may_divide: false, ..Self::new(loaded) }
    }

    /// Lets go of the plans that have left the model's own list.
    fn forget_old_plans(&mut self) {
        let generation = self.loaded.plans.generation();
        if generation != self.generation {
            self.states.retain(|(plan, _)| self.loaded.plans.holds(plan));
            self.generation = generation;
        }
    }

    /// The state for `plan`, taken out: it comes back only after a run that left it sound.
    fn take_state(&mut self, plan: &Plan) -> Result<TypedSimpleState, RunError> {
        if let Some(index) = self.states.iter().position(|(known, _)| Arc::ptr_eq(known, plan)) {
            return Ok(self.states.swap_remove(index).1);
        }
        let state = guarded(|| plan.spawn()).map_err(|panicked| RunError::Failed(Box::new(panicked)))?;
        state.map_err(|error| RunError::Failed(error.into()))
    }
}

impl Instance for TractInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.forget_old_plans();
        let loaded = Arc::clone(&self.loaded);
        let signature = &loaded.signature;
        tokens::check(&loaded.lookups, batch, signature)?;
        let rows = if signature.is_batched() { batch.rows() } else { 1 };
        let group = group_of(&loaded, batch);
        let step = self.may_divide.then(|| rows_at_once(&loaded, &group)).flatten();
        if let Some(step) = step.filter(|step| *step < rows) {
            return self.run_apart(batch, &group, step, context);
        }
        let plan = loaded.plans.find(&group, rows).map_err(|error| RunError::Failed(Box::new(error)))?;
        let mut inputs = TVec::with_capacity(signature.inputs().len());
        for (index, spec) in signature.inputs().iter().enumerate() {
            inputs.push(convert::gather(batch, index, &spec.name)?);
        }
        self.run_once(&plan, inputs, context)
    }
}

impl TractInstance {
    /// Runs `step` rows after `step` rows, and joins what comes out.
    fn run_apart(
        &mut self,
        batch: &Batch,
        group: &Group,
        step: usize,
        context: &RunContext<'_>,
    ) -> Result<BatchOutputs, RunError> {
        let loaded = Arc::clone(&self.loaded);
        let specs = loaded.signature.inputs();
        let mut answers: Vec<SmallVec<[Tensor; 16]>> = vec![SmallVec::new(); loaded.signature.outputs().len()];
        let mut rows = batch.rows();
        for piece in pieces(batch, step)? {
            let at_once = step.min(rows);
            rows -= at_once;
            let plan = loaded.plans.find(group, at_once).map_err(|error| RunError::Failed(Box::new(error)))?;
            let inputs = piece.iter().zip(specs).map(|(tensor, spec)| convert::whole(tensor, &spec.name));
            let outputs = self.run_once(&plan, inputs.collect::<Result<_, _>>()?, context)?;
            for (answers, output) in answers.iter_mut().zip(outputs.0) {
                answers.extend(output);
            }
        }
        let joined = answers.iter().map(|parts| (!parts.is_empty()).then(|| Tensor::concat(parts)).transpose());
        Ok(BatchOutputs(joined.collect::<Result<_, _>>()?))
    }

    /// Runs `plan` behind the wall.
    fn run_once(
        &mut self,
        plan: &Plan,
        mut inputs: TVec<TValue>,
        context: &RunContext<'_>,
    ) -> Result<BatchOutputs, RunError> {
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let mut state = self.take_state(plan)?;
        let mut run = || state.run(std::mem::take(&mut inputs));
        let outcome = guarded(|| match context.threads {
            0 | 1 => run(),
            several => millrace_threads::within(several, &mut run).unwrap_or_else(|error| {
                // More threads would only have made it shorter.
                tracing::debug!(%error, "no threads to lend; the run stays on its own");
                run()
            }),
        });
        let values = match outcome {
            // A state after a panic, or after an error in the midst of a run, may hold half a run: it is dropped.
            Err(panicked) => return Err(RunError::Failed(Box::new(panicked))),
            Ok(Err(error)) => return Err(RunError::Failed(error.into())),
            Ok(Ok(values)) => values,
        };
        // Recurrent operators keep their last hidden value in the state and would begin the next run with it, which is
        // somebody else's: such a state is used once.
        if state.op_states.iter().all(Option::is_none) {
            self.states.push((Arc::clone(plan), state));
        }
        let specs = self.loaded.signature.outputs();
        let wanted = |(index, value): (usize, TValue)| {
            let declared = specs.get(index).map_or(DType::Fp32, |spec| spec.dtype);
            context.wanted.includes(index).then(|| convert::output(value, declared)).transpose()
        };
        let outputs = values.into_iter().enumerate().map(wanted);
        outputs.collect::<Result<SmallVec<[Option<Tensor>; 2]>, _>>().map(BatchOutputs)
    }
}

/// The inputs of `batch`, `step` rows at a time.
fn pieces(batch: &Batch, step: usize) -> Result<Vec<TensorList>, RunError> {
    let of_parts = batch.parts().iter().map(|part| part.rows).sum::<usize>();
    if step == 1 && of_parts == batch.rows() {
        // Nothing needs to lie together, so nothing is copied.
        let row = |part: &Part, row: usize| part.inputs.iter().map(|input| input.rows(row..row + 1)).collect();
        return Ok(batch.parts().iter().flat_map(|part| (0..part.rows).map(move |index| row(part, index))).collect());
    }
    let inputs = batch.parts().first().map_or(0, |part| part.inputs.len());
    let all = (0..inputs).map(|index| batch.gather(index)).collect::<Result<Vec<_>, _>>()?;
    let piece = |from: usize| all.iter().map(|tensor| tensor.rows(from..(from + step).min(batch.rows()))).collect();
    Ok((0..batch.rows()).step_by(step).map(piece).collect())
}

/// How many rows of `group` are run together at most, where that is not all of them: convolutions gain nothing from more
/// rows, and lose where the picture between two of them no longer stays in a cache.
fn rows_at_once(loaded: &Loaded, group: &Group) -> Option<usize> {
    /// What a second-level cache holds.
    const NEAR: u64 = 1 << 20;
    /// So many small pictures are convolved place by place.
    const LANES: u64 = 16;
    let signature = &loaded.signature;
    let is_by_rows = |spec: &TensorSpec| spec.batch_axis == Some(0);
    let may = signature.is_batched()
        && loaded.plans.may_run_apart()
        && signature.inputs().iter().chain(signature.outputs()).all(is_by_rows);
    let rows = may.then(|| NEAR / loaded.sizes.row_bytes(group))?;
    let rows = if rows >= LANES { rows - rows % LANES } else { rows.max(1) };
    usize::try_from(rows).ok()
}

/// The sizes of the batch's symbols, read from its first part, which all others equal.
fn group_of(loaded: &Loaded, batch: &Batch) -> Group {
    let signature = &loaded.signature;
    let size = |symbol: &Arc<str>| {
        let inputs = batch.parts().first().map(|part| &part.inputs)?;
        signature.inputs().iter().zip(inputs).find_map(|(spec, tensor)| {
            let axis = spec.shape.iter().position(|dim| matches!(dim, Dim::Symbol(name) if name == symbol))?;
            tensor.shape().get(axis).copied()
        })
    };
    Group(signature.symbols().iter().map(|symbol| size(symbol).unwrap_or_default()).collect())
}
