//! What is loaded, and orders to load and unload.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::{Alias, Code, ModelName, Refusal, Signatures};

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

/// Counts of one version since it became available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VersionStatistics {
    /// Requests answered.
    pub answered: u64,
    /// Requests refused or failed.
    pub refused: u64,
    /// Rows run.
    pub rows: u64,
    /// Runs of the backend.
    pub batches: u64,
    /// Time that answered requests spent in the queue.
    pub queue: Duration,
    /// Time that answered requests spent in the backend.
    pub compute: Duration,
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
    /// The engine's name, once chosen.
    pub backend: Option<Arc<str>>,
    /// What it takes and gives, once loaded.
    pub signatures: Option<Arc<Signatures>>,
    /// How long loading and warming took.
    pub load_time: Option<Duration>,
    /// Bytes of memory it holds.
    pub memory_bytes: u64,
    /// What it has done.
    pub statistics: VersionStatistics,
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
    /// What an operator changed by API and the state directory keeps, in words; empty where nothing.
    pub overrides: Vec<String>,
}

impl ModelStatus {
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
}
