//! One model on several streams of a card: loaded once for each, and instances spread over them in turn.
//!
//! Weights are not shared between streams, for candle ties every tensor to one stream; `device_memory` counts them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{
    Admission, Group, InputError, Instance, LoadError, Model, ModelFacts, Prepared, Signature, Tensor,
};

use super::Place;

/// The model that `load` makes in each of `places`.
///
/// # Errors
/// The first that loading gives.
pub(crate) fn spread(
    places: Vec<Place>,
    mut load: impl FnMut(Place) -> Result<Arc<dyn Model>, LoadError>,
) -> Result<Arc<dyn Model>, LoadError> {
    let mut models = places.into_iter().map(&mut load).collect::<Result<Vec<_>, _>>()?;
    match models.pop() {
        Some(only) if models.is_empty() => Ok(only),
        Some(first) => Ok(Arc::new(Streams { first, others: models, next: AtomicUsize::new(0) })),
        None => unreachable!("every device has one place at least"),
    }
}

/// Models that differ only in where they are.
#[derive(Debug)]
struct Streams {
    first: Arc<dyn Model>,
    others: Vec<Arc<dyn Model>>,
    next: AtomicUsize,
}

impl Streams {
    fn all(&self) -> impl Iterator<Item = &Arc<dyn Model>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Model for Streams {
    fn signature(&self) -> &Signature {
        self.first.signature()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % (1 + self.others.len());
        turn.checked_sub(1).map_or(&self.first, |other| &self.others[other]).instance()
    }

    fn memory_bytes(&self) -> u64 {
        self.all().map(|model| model.memory_bytes()).fold(0, u64::saturating_add)
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.first.admit(admission)
    }

    fn weigh(&self, inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        self.first.weigh(inputs, admission)
    }

    fn prepared(&self, group: &Group) -> Prepared {
        self.first.prepared(group)
    }

    fn prepare(&self, group: &Group, rows: usize) -> Result<(), LoadError> {
        self.all().try_for_each(|model| model.prepare(group, rows))
    }

    fn uses_threads(&self) -> bool {
        self.first.uses_threads()
    }

    fn facts(&self) -> ModelFacts {
        let mut facts = self.first.facts();
        facts.properties.insert("streams".to_owned(), (1 + self.others.len()).to_string());
        facts
    }
}
