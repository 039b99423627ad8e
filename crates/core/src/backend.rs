//! The seam to the engines, in three roles: load once, share immutably, one mutable state per run.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::{
    Admission, Batch, BatchOutputs, Code, ContractError, EngineChoice, Group, InputError, ModelSource, Signature,
    Tensor, TensorError, Wanted,
};

/// An engine: turns a version's files into a [`Model`].
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The engine's name, as `backend = "…"` in `model.toml` and as metrics and tables show it.
    fn name(&self) -> &'static str;

    /// Whether the files look like something this engine loads, by their names. Cheap; reads nothing.
    fn recognises(&self, source: &ModelSource) -> bool;

    /// Reads and compiles a model. Blocks, perhaps for seconds; called on a loader thread.
    ///
    /// # Errors
    /// [`LoadError`] with a text for the operator: which file, which node, what would be right.
    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError>;
}

/// A loaded model: immutable, shared by all threads.
pub trait Model: fmt::Debug + Send + Sync + 'static {
    /// Inputs and outputs.
    fn signature(&self) -> &Signature;

    /// A new mutable state. Several may run at once, each on its own thread.
    ///
    /// # Errors
    /// [`LoadError`] when the state cannot be made.
    fn instance(&self) -> Result<Box<dyn Instance>, LoadError>;

    /// Bytes of memory that this model holds, as well as the engine can tell.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// A further check of a request whose inputs fit the signature: inner sizes that must not become negative, say.
    /// Called for the first request of each group and row count range; must be cheap and must not block.
    ///
    /// # Errors
    /// [`InputError`] naming what does not fit.
    fn admit(&self, _admission: &Admission) -> Result<(), InputError> {
        Ok(())
    }

    /// How much work a request is, in units of the model's own (tokens, say), and a further check that needs its values.
    /// Asked about every request, but only where the signature [mixes](Signature::mixed) sizes; elsewhere a row is the unit.
    /// Must be cheap and must not block.
    ///
    /// # Errors
    /// [`InputError`] naming what does not fit.
    fn weigh(&self, _inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        Ok(admission.rows)
    }

    /// For which row counts of `group` this model is specialised now.
    fn prepared(&self, _group: &Group) -> Prepared {
        Prepared::Any
    }

    /// Specialises for `rows` rows of `group`. Blocks; called on a loader thread, never on the request path.
    ///
    /// # Errors
    /// [`LoadError`] when that cannot be done; the model keeps running such batches as before.
    fn prepare(&self, _group: &Group, _rows: usize) -> Result<(), LoadError> {
        Ok(())
    }

    /// Whether runs take less time when [`RunContext::threads`] is more than one. Where this is false, no run is given more.
    fn uses_threads(&self) -> bool {
        false
    }

    /// What `inspect` shows.
    fn facts(&self) -> ModelFacts {
        ModelFacts::default()
    }
}

/// The mutable state of one worker.
pub trait Instance: Send {
    /// Runs a batch. The caller has checked the inputs against the signature and through [`Model::admit`].
    ///
    /// # Errors
    /// [`RunError`]. After an error the instance must still be usable; after a panic it is thrown away.
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError>;

    /// How many units (see [`Model::weigh`]) the last run computed, padding included; 0 where it computed just what it
    /// was given. The difference is counted as waste.
    fn computed(&self) -> usize {
        0
    }
}

/// What a run may know about its batch.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// The earliest deadline among the batch's requests.
    pub deadline: Option<Instant>,
    /// The outputs that some request of the batch wants; the others may stay `None`.
    pub wanted: &'a Wanted,
    /// How many threads this run may use, the calling one included. More than one only where [`Model::uses_threads`].
    pub threads: usize,
    /// True once every caller of the batch has gone. Long runs ask now and then and stop with [`RunError::Cancelled`].
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl RunContext<'static> {
    /// One thread, no deadline, all outputs, never cancelled.
    pub fn plain() -> Self {
        Self { deadline: None, wanted: &Wanted::All, threads: 1, cancelled: &|| false }
    }
}

impl fmt::Debug for RunContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext")
            .field("deadline", &self.deadline)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Row counts for which a model is specialised. Any other count runs too, perhaps slower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// No count is special.
    Any,
    /// These, ascending.
    Sizes(SmallVec<[usize; 8]>),
}

/// What `inspect` shows about a loaded model. An engine fills in what it knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelFacts {
    /// Operators and how often each stands in the file.
    pub operators: BTreeMap<String, usize>,
    /// Nodes in the file.
    pub nodes: Option<usize>,
    /// Nodes after optimisation.
    pub nodes_optimised: Option<usize>,
    /// Bytes of weights.
    pub weight_bytes: Option<u64>,
    /// The same by element type as the file has it: `FP32`, `FP16`, `BF16`, `INT8`, `INT4` and so on.
    pub weight_types: BTreeMap<String, u64>,
    /// Who wrote the file, format versions and the like, by name.
    pub properties: BTreeMap<String, String>,
    /// Which engines serve it, where some were chosen among others.
    pub choice: Option<Arc<EngineChoice>>,
}

impl ModelFacts {
    /// The property that says how a text network's vectors of tokens become one: `mean`, `cls` and so on.
    pub const POOLING: &'static str = "pooling";
}

/// Why a model did not load.
#[derive(Debug)]
pub struct LoadError {
    kind: LoadErrorKind,
    message: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of load failure. They decide whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadErrorKind {
    /// A file is not there or cannot be read.
    Missing,
    /// A file is damaged or contradicts itself.
    Invalid,
    /// The file is sound but uses what the engine does not have.
    Unsupported,
    /// The file is not of the kind that this engine runs, though its name looked like it: a network for an engine of
    /// trees, say. Another engine may well take it.
    Foreign,
    /// It would need more memory than it may have.
    TooLarge,
    /// It refers to something outside its version directory.
    Forbidden,
    /// The engine panicked or failed for a reason of its own.
    Engine,
}

impl LoadError {
    /// An error with a text that names no path of the machine.
    pub fn new(kind: LoadErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// Adds the cause, for logs.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> LoadErrorKind {
        self.kind
    }

    /// The code that status answers carry.
    pub fn code(&self) -> Code {
        match self.kind {
            LoadErrorKind::Missing => Code::NotFound,
            LoadErrorKind::Invalid | LoadErrorKind::Forbidden => Code::FailedPrecondition,
            LoadErrorKind::Unsupported | LoadErrorKind::Foreign => Code::Unimplemented,
            LoadErrorKind::TooLarge => Code::ResourceExhausted,
            LoadErrorKind::Engine => Code::Internal,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Why a batch did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Some request's values are wrong in a way that only the run could tell. Its batch mates are run again without it.
    #[error("{0}")]
    InvalidInput(String),
    /// The engine failed.
    #[error("the backend failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// Everybody who wanted the answer has gone.
    #[error("cancelled")]
    Cancelled,
}

impl From<ContractError> for RunError {
    fn from(error: ContractError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<TensorError> for RunError {
    fn from(error: TensorError) -> Self {
        Self::Failed(Box::new(error))
    }
}
