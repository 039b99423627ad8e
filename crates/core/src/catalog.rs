//! What is loaded, and orders to load and unload.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Alias, Code, EngineChoice, ModelName, Reason, Refusal, Signatures};

/// The states of a version, in order; TensorFlow Serving's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VersionState {
    /// Known, not yet being loaded.
    Start,
    /// Being loaded or warmed up.
    Loading,
    /// Can serve.
    Available,
    /// Serves nobody new; in-flight requests finish.
    Unloading,
    /// Gone or failed.
    End,
}

impl VersionState {
    /// The name on the wire, such as `AVAILABLE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Loading => "LOADING",
            Self::Available => "AVAILABLE",
            Self::Unloading => "UNLOADING",
            Self::End => "END",
        }
    }
}

/// Why a version failed to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFailure {
    /// The code.
    pub code: Code,
    /// What was wrong; names no path.
    pub message: String,
}

/// How often something happened and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// The sum of the times.
    pub time: Duration,
}

/// Counts of one version since it became available. A request that was refused before it was queued is in none of them
/// but `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionStatistics {
    /// Requests answered, and their time from queue to answer.
    pub answered: Total,
    /// Requests that were queued and got no answer, and their time from queue to refusal.
    pub failed: Total,
    /// Requests refused before they were queued: wrong inputs, no room.
    pub refused: u64,
    /// Rows of the requests answered.
    pub rows: u64,
    /// Time that requests spent in the queue; counts requests.
    pub queue: Total,
    /// What each run cost, by its number of rows, ascending. Their sum is all runs.
    pub runs: Vec<RunStatistics>,
    /// When the last request was answered.
    pub last_answer: Option<SystemTime>,
}

impl VersionStatistics {
    /// The sum over all batch sizes; `rows` is then the rows run.
    pub fn all_runs(&self) -> RunStatistics {
        self.runs.iter().fold(RunStatistics::default(), |sum, runs| RunStatistics {
            rows: sum.rows + runs.rows.saturating_mul(runs.count),
            count: sum.count + runs.count,
            gather: sum.gather + runs.gather,
            compute: sum.compute + runs.compute,
            scatter: sum.scatter + runs.scatter,
        })
    }
}

/// The runs of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunStatistics {
    /// Rows of each run.
    pub rows: u64,
    /// How many runs.
    pub count: u64,
    /// Time from a batch's forming to the backend's beginning.
    pub gather: Duration,
    /// Time in the backend.
    pub compute: Duration,
    /// Time from the backend's end until every request had its answer.
    pub scatter: Duration,
}

/// What waits for one version now, and how much may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Rows that wait.
    pub waiting: usize,
    /// Rows that may wait.
    pub capacity: usize,
}

/// One version of one model.
#[derive(Debug, Clone)]
pub struct VersionStatus {
    /// The version.
    pub version: u64,
    /// Its state.
    pub state: VersionState,
    /// Why it failed, if it did.
    pub failure: Option<VersionFailure>,
    /// The engine's name, once chosen; of several that share the row counts, the names joined by `+`.
    pub backend: Option<Arc<str>>,
    /// What that was chosen by, where it was chosen among engines.
    pub choice: Option<Arc<EngineChoice>>,
    /// What it takes and gives, once loaded.
    pub signatures: Option<Arc<Signatures>>,
    /// How long loading and warming took.
    pub load_time: Option<Duration>,
    /// When it became available.
    pub loaded_at: Option<SystemTime>,
    /// Bytes of memory it holds.
    pub memory_bytes: u64,
    /// The most of its runs that may be at work at once, where that is bounded; 0 refuses every request.
    pub executors: Option<usize>,
    /// The most rows of one run; 0 where it is not batched.
    pub max_batch_size: usize,
    /// How long a batch waits for company, where an operator said so.
    pub batch_delay: Option<Duration>,
    /// Its waiting room.
    pub queue: QueueStatus,
    /// What it has done.
    pub statistics: VersionStatistics,
}

impl VersionStatus {
    /// A version of which nothing else is known yet.
    pub fn new(version: u64, state: VersionState) -> Self {
        Self {
            version,
            state,
            failure: None,
            backend: None,
            choice: None,
            signatures: None,
            load_time: None,
            loaded_at: None,
            memory_bytes: 0,
            executors: None,
            max_batch_size: 0,
            batch_delay: None,
            queue: QueueStatus::default(),
            statistics: VersionStatistics::default(),
        }
    }
}

/// One model.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// Its name.
    pub name: ModelName,
    /// Its known versions, ascending.
    pub versions: Vec<VersionStatus>,
    /// Its aliases.
    pub aliases: BTreeMap<Alias, u64>,
    /// The version that a request without version or alias gets now.
    pub default_version: Option<u64>,
    /// Its folder or file below the repository or a store, with `/` between names; never an absolute path.
    pub path: String,
    /// What an operator changed by API and the state directory keeps, in words; empty where nothing.
    pub overrides: Vec<String>,
}

impl ModelStatus {
    /// A model without versions.
    pub fn new(name: ModelName) -> Self {
        let path = name.to_string();
        Self {
            name,
            versions: Vec::new(),
            aliases: BTreeMap::new(),
            default_version: None,
            path,
            overrides: Vec::new(),
        }
    }

    /// Whether some version can serve.
    pub fn is_ready(&self) -> bool {
        self.default_version.is_some()
    }
}

/// Reads what is loaded. Never blocks on a load.
pub trait Catalog: fmt::Debug + Send + Sync {
    /// Every known model, by name.
    fn models(&self) -> Vec<ModelStatus>;

    /// One model, or `None` where the name is unknown.
    fn model(&self, name: &str) -> Option<ModelStatus>;

    /// Whether the first scan has settled: every wanted version is available or has failed.
    fn is_ready(&self) -> bool;
}

/// What an order gives in the end.
pub type ControlFuture = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'static>>;

/// Orders from an operator. They are kept in the state directory and survive restarts.
pub trait Control: fmt::Debug + Send + Sync {
    /// Loads `version` of `model`, or every version its policy wants; clears an earlier unload. Ends when the versions are
    /// available or have failed.
    fn load(&self, model: &ModelName, version: Option<u64>) -> ControlFuture;

    /// Unloads `version` of `model`, or all of them. Ends when in-flight requests have finished.
    fn unload(&self, model: &ModelName, version: Option<u64>) -> ControlFuture;

    /// Points `alias` of `model` at `version`, atomically.
    fn set_alias(&self, model: &ModelName, alias: &Alias, version: u64) -> ControlFuture;

    /// Removes `alias` of `model`.
    fn remove_alias(&self, model: &ModelName, alias: &Alias) -> ControlFuture;

    /// Scans the repository now.
    fn rescan(&self) -> ControlFuture;

    /// Bounds the runs of `version` of `model` (or of its default version) that may be at work at once; 0 refuses every
    /// request until a later order.
    fn scale(&self, model: &ModelName, version: Option<u64>, executors: usize) -> ControlFuture {
        let _ = (model, version, executors);
        unsupported("scaling a version")
    }

    /// Adds a model from the repository or an allowed store. Ends when its version is available or has failed.
    fn register(&self, registration: Registration) -> RegisterFuture {
        let _ = registration;
        unsupported("registering a model")
    }

    /// Takes a model out that was registered, with all its versions, or unloads one that the repository has.
    fn unregister(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.unload(model, version)
    }

    /// Makes `models` all that is wanted: loads what is new, unloads what is not among them. Refused as a whole, with
    /// nothing changed, where any of it is wrong. Ends when the wanted versions are available or have failed.
    fn replace(&self, models: Vec<WantedModel>) -> ControlFuture {
        let _ = models;
        unsupported("replacing the set of models")
    }
}

fn unsupported<T: Send + 'static>(what: &'static str) -> Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>> {
    Box::pin(std::future::ready(Err(Refusal::new(Reason::Unsupported, format!("{what} is not supported here")))))
}

/// What registering gives in the end.
pub type RegisterFuture = Pin<Box<dyn Future<Output = Result<Registered, Refusal>> + Send + 'static>>;

/// A model to be added from the repository or a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// A model's folder, a version's folder or a single model file, relative to the repository or to a store.
    pub path: String,
    /// Its name; by default that of the folder, or of the file without its ending.
    pub name: Option<ModelName>,
    /// Its version where the path does not say; by default 1.
    pub version: Option<u64>,
    /// The most of its runs that may be at work at once; by default what its configuration says.
    pub executors: Option<usize>,
    /// The most rows of one run; by default what its configuration says.
    pub max_batch_size: Option<usize>,
    /// How long a batch waits for company; by default what its configuration says.
    pub batch_delay: Option<Duration>,
    /// Whether a version that is the default now stays it, although a higher one comes.
    pub keep_default: bool,
}

impl Registration {
    /// A registration of `path` that leaves everything else to defaults.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            name: None,
            version: None,
            executors: None,
            max_batch_size: None,
            batch_delay: None,
            keep_default: false,
        }
    }
}

/// What was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: u64,
}

/// One model of a whole set that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedModel {
    /// Its name.
    pub name: ModelName,
    /// The folder of its versions: absolute, and inside of the repository, a listed model's folder or a store.
    pub base_path: String,
    /// Which of its versions.
    pub versions: WantedVersions,
    /// Its aliases.
    pub aliases: BTreeMap<Alias, u64>,
}

/// Which versions of a model are wanted; TensorFlow Serving's policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedVersions {
    /// The highest so many.
    Latest(u32),
    /// Every one.
    All,
    /// These.
    Specific(Vec<u64>),
}
