//! What all instances of a wrapped network share.

use std::sync::Arc;

use millrace_core::{
    Admission, Group, InputError, Instance, LoadError, LoadErrorKind, Model, ModelFacts, Signature, Tensor,
};
use parking_lot::Mutex;

use super::cost::Cost;
use super::instance::TextInstance;
use super::rows::{Request, Vocabulary};
use super::steps::Steps;
use crate::export::{Export, Gives};

/// The most columns of a request to a network whose files do not say how long texts may be.
const MOST_COLUMNS: usize = 1 << 16;

/// A text network in canonical form.
#[derive(Debug)]
pub(crate) struct TextModel(Arc<Shared>);

/// The inner model, how it is dealt with, and what is learned about it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inner: Arc<dyn Model>,
    pub(super) export: Export,
    pub(super) steps: Steps,
    pub(super) vocabulary: Vocabulary,
    pub(super) signature: Signature,
    /// What runs cost on one thread, and on more.
    pub(super) costs: [Mutex<Cost>; 2],
}

impl TextModel {
    pub(crate) fn new(
        inner: Arc<dyn Model>,
        export: Export,
        steps: Steps,
        vocabulary: Vocabulary,
    ) -> Result<Self, LoadError> {
        let signature = export.canonical(steps.width, steps.before).map_err(|error| {
            LoadError::new(LoadErrorKind::Engine, format!("the text network has no signature: {error}"))
                .with_cause(error)
        })?;
        let width = match export.gives {
            Gives::Hidden { width, .. } | Gives::Sentence { hidden: Some((_, width)), .. } => width,
            // Those of all small models; it only says from which length on attention counts.
            Gives::Sentence { .. } | Gives::Logits { .. } => 384,
        };
        let costs = [0, 1].map(|_| Mutex::new(Cost::new(width)));
        Ok(Self(Arc::new(Shared { inner, export, steps, vocabulary, signature, costs })))
    }
}

impl Model for TextModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(TextInstance::new(Arc::clone(&self.0), self.0.inner.instance()?)))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.inner.memory_bytes() + self.0.steps.bytes()
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        let width = admission.group.0.first().copied().unwrap_or(0);
        // Columns of padding are not run, but vectors of tokens have a place for each.
        let most = self.0.vocabulary.positions.unwrap_or(MOST_COLUMNS);
        if width > most {
            let detail = format!("expected at most {most} tokens in a row, padding included, got {width}");
            return Err(InputError::Instance { input: Arc::from(crate::canonical::IDS), index: 0, detail });
        }
        // A run may have one row.
        self.0.admit(1, width)
    }

    fn weigh(&self, inputs: &[Tensor], _: &Admission) -> Result<usize, InputError> {
        let request = Request::of(inputs).map_err(|error| InputError::Instance {
            input: Arc::from(crate::canonical::IDS),
            index: 0,
            detail: error.to_string(),
        })?;
        request.check(&self.0.vocabulary)
    }

    // What the inner engine is specialised for are sizes of runs, which are decided here, batch by batch; so nothing is
    // special to those who form batches, and `prepared` and `prepare` stay as they are.

    fn uses_threads(&self) -> bool {
        self.0.inner.uses_threads()
    }

    fn facts(&self) -> ModelFacts {
        let mut facts = self.0.inner.facts();
        let text = match self.0.export.gives {
            Gives::Hidden { .. } => {
                facts.properties.insert(ModelFacts::POOLING.to_owned(), self.0.steps.pooling());
                "vectors of tokens, pooled here".to_owned()
            }
            Gives::Sentence { .. } => "vectors of texts, pooled by the network".to_owned(),
            Gives::Logits { .. } => "a classification".to_owned(),
        };
        facts.properties.insert("text network".to_owned(), text);
        facts
    }
}

impl Shared {
    /// Whether the inner model can run so many rows of this length.
    pub(super) fn admit(&self, rows: usize, length: usize) -> Result<(), InputError> {
        self.inner.admit(&Admission { rows, group: Group([length].as_slice().into()) })
    }
}
