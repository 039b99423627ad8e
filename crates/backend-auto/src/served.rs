//! What is served in the end: the winner's model as it is, or several engines' models behind one.
//!
//! A lone winner's instances are the engine's own, so that a run costs nothing more. Several engines share by the rows of
//! each run; a worker makes its state of an engine when the first such run comes.

use std::fmt;
use std::sync::Arc;

use millrace_core::{
    Admission, Batch, BatchOutputs, EngineChoice, Group, InputError, Instance, LoadError, Model, ModelFacts, Prepared,
    RunContext, RunError, Signature, Tensor,
};
use smallvec::SmallVec;

use crate::terms::Terms;

/// One engine's model, and what it was chosen by.
#[derive(Debug)]
pub(crate) struct Alone {
    model: Arc<dyn Model>,
    choice: Arc<EngineChoice>,
}

impl Alone {
    pub(crate) fn new(model: Arc<dyn Model>, choice: EngineChoice) -> Self {
        Self { model, choice: Arc::new(choice) }
    }
}

impl Model for Alone {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        self.model.instance()
    }

    fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.model.admit(admission)
    }

    fn weigh(&self, inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        self.model.weigh(inputs, admission)
    }

    fn prepared(&self, group: &Group) -> Prepared {
        self.model.prepared(group)
    }

    fn prepare(&self, group: &Group, rows: usize) -> Result<(), LoadError> {
        self.model.prepare(group, rows)
    }

    fn uses_threads(&self) -> bool {
        self.model.uses_threads()
    }

    fn facts(&self) -> ModelFacts {
        ModelFacts { choice: Some(Arc::clone(&self.choice)), ..self.model.facts() }
    }
}

/// Several engines' models, each for its share of the row counts.
#[derive(Debug)]
pub(crate) struct Shared {
    signature: Signature,
    ways: Arc<Ways>,
    choice: Arc<EngineChoice>,
}

/// Which model runs how many rows.
#[derive(Debug)]
struct Ways {
    /// `(from, model)`, ascending, the first from 1.
    ranges: Vec<(usize, usize)>,
    models: Vec<(Arc<dyn Model>, Terms)>,
}

impl Ways {
    /// The model for `rows` rows.
    fn index(&self, rows: usize) -> usize {
        let after = self.ranges.partition_point(|(from, _)| *from <= rows);
        self.ranges[after.saturating_sub(1)].1
    }
}

impl Shared {
    /// `ranges` point into `models`, of which the first one's signature is served.
    ///
    /// # Errors
    /// What another model's signature asks for besides.
    pub(crate) fn new(
        ranges: Vec<(usize, usize)>,
        models: Vec<Arc<dyn Model>>,
        choice: EngineChoice,
    ) -> Result<Self, String> {
        let Some(first) = models.first() else { return Err("there is no model".to_owned()) };
        let signature = first.signature().clone();
        let with_terms = |model: Arc<dyn Model>| Ok((Arc::clone(&model), Terms::agree(&signature, model.signature())?));
        let models = models.into_iter().map(with_terms).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { signature, ways: Arc::new(Ways { ranges, models }), choice: Arc::new(choice) })
    }
}

impl Model for Shared {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let instances = self.ways.models.iter().map(|_| None).collect();
        Ok(Box::new(Dispatch { ways: Arc::clone(&self.ways), instances, computed: 0 }))
    }

    fn memory_bytes(&self) -> u64 {
        self.ways.models.iter().map(|(model, _)| model.memory_bytes()).sum()
    }

    /// A request may ride in a run of any size, so every engine has a say.
    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.ways.models.iter().try_for_each(|(model, terms)| model.admit(&terms.admission(admission)))
    }

    /// Here too every engine has a say; the work is what the one says that counts most of it.
    fn weigh(&self, inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        let mut weighed =
            self.ways.models.iter().map(|(model, terms)| model.weigh(inputs, &terms.admission(admission)));
        weighed.try_fold(0, |most, work| Ok(most.max(work?)))
    }

    fn prepared(&self, group: &Group) -> Prepared {
        let mut sizes: SmallVec<[usize; 8]> = SmallVec::new();
        let mut is_any = true;
        for (index, (model, terms)) in self.ways.models.iter().enumerate() {
            if let Prepared::Sizes(own) = model.prepared(&terms.group(group, 1)) {
                is_any = false;
                sizes.extend(own.into_iter().filter(|rows| self.ways.index(*rows) == index));
            }
        }
        sizes.sort_unstable();
        if is_any { Prepared::Any } else { Prepared::Sizes(sizes) }
    }

    fn prepare(&self, group: &Group, rows: usize) -> Result<(), LoadError> {
        let (model, terms) = &self.ways.models[self.ways.index(rows)];
        model.prepare(&terms.group(group, rows), rows)
    }

    fn uses_threads(&self) -> bool {
        self.ways.models.iter().any(|(model, _)| model.uses_threads())
    }

    /// Those of the first engine, and the choice.
    fn facts(&self) -> ModelFacts {
        let facts = self.ways.models.first().map(|(model, _)| model.facts()).unwrap_or_default();
        ModelFacts { choice: Some(Arc::clone(&self.choice)), ..facts }
    }
}

/// A worker's states, one for each engine that it has needed.
struct Dispatch {
    ways: Arc<Ways>,
    instances: Vec<Option<Box<dyn Instance>>>,
    /// What whoever ran last says that it computed.
    computed: usize,
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("ways", &self.ways).finish_non_exhaustive()
    }
}

impl Instance for Dispatch {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let index = self.ways.index(batch.rows());
        let instance = match &mut self.instances[index] {
            Some(instance) => instance,
            empty => {
                let made = self.ways.models[index].0.instance();
                empty.insert(made.map_err(|error| RunError::Failed(Box::new(error)))?)
            }
        };
        let outputs = instance.run(batch, context)?;
        self.computed = instance.computed();
        Ok(outputs)
    }

    fn computed(&self) -> usize {
        self.computed
    }
}
