//! A loaded model: what all its instances share.

use std::sync::Arc;

use millrace_core::{Admission, Group, InputError, Instance, LoadError, Model, ModelFacts, Prepared, Signature};

use crate::dims::Sizes;
use crate::instance::TractInstance;
use crate::plans::{Plans, weight_bytes};
use crate::tokens::Lookup;

/// Everything about a model that does not change, and its plans.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) signature: Signature,
    pub(crate) plans: Plans,
    pub(crate) sizes: Sizes,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) facts: ModelFacts,
}

/// The model as the seams see it.
#[derive(Debug)]
pub(crate) struct TractModel(pub(crate) Arc<Loaded>);

impl Model for TractModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(TractInstance::new(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        weight_bytes(self.0.plans.model()) + self.0.plans.bytes()
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.0.sizes.check(admission)
    }

    fn prepared(&self, group: &Group) -> Prepared {
        self.0.plans.prepared(group)
    }

    fn prepare(&self, group: &Group, rows: usize) -> Result<(), LoadError> {
        self.0.plans.prepare(group, rows)
    }

    /// The convolutions of [`crate::rewrite`] divide their channels.
    fn uses_threads(&self) -> bool {
        self.0.plans.divide_work()
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}
