//! One worker's state: picks a plan, fills its inputs, runs it behind the wall.

use std::sync::Arc;

use millrace_core::{Batch, BatchOutputs, Dim, Group, Instance, RunContext, RunError, Tensor};
use smallvec::SmallVec;
use tract_onnx::prelude::{TVec, TypedSimpleState};

use crate::convert;
use crate::guard::guarded;
use crate::model::Loaded;
use crate::plans::Plan;
use crate::tokens;

/// States by plan. A state holds no large buffer between runs.
pub(crate) struct TractInstance {
    loaded: Arc<Loaded>,
    states: Vec<(Plan, TypedSimpleState)>,
    generation: u64,
}

impl TractInstance {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Self {
        let generation = loaded.plans.generation();
        Self { loaded, states: Vec::new(), generation }
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
        let plan =
            loaded.plans.find(&group_of(&loaded, batch), rows).map_err(|error| RunError::Failed(Box::new(error)))?;
        let mut inputs = TVec::with_capacity(signature.inputs().len());
        for (index, spec) in signature.inputs().iter().enumerate() {
            inputs.push(convert::gather(batch, index, &spec.name)?);
        }
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let mut state = self.take_state(&plan)?;
        let outcome = guarded(|| state.run(inputs));
        let values = match outcome {
            // A state after a panic, or after an error in the midst of a run, may hold half a run: it is dropped.
            Err(panicked) => return Err(RunError::Failed(Box::new(panicked))),
            Ok(Err(error)) => return Err(RunError::Failed(error.into())),
            Ok(Ok(values)) => values,
        };
        // Recurrent operators keep their last hidden value in the state and would begin the next run with it, which is
        // somebody else's: such a state is used once.
        if state.op_states.iter().all(Option::is_none) {
            self.states.push((plan, state));
        }
        let wanted = |(index, value)| context.wanted.includes(index).then(|| convert::output(value)).transpose();
        let outputs = values.into_iter().enumerate().map(wanted);
        outputs.collect::<Result<SmallVec<[Option<Tensor>; 2]>, _>>().map(BatchOutputs)
    }
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
