//! Models as TorchServe's management API shows them. What TorchServe says of processes and Python is left out.

use std::num::NonZeroUsize;
use std::time::SystemTime;

use millrace_core::{ModelStatus, VersionState, VersionStatus};

use super::resolve::written_version;

/// A part of the list of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPage {
    /// The offset of the next part, where there is one.
    pub next_page_token: Option<usize>,
    /// The models, by name.
    pub models: Vec<ModelEntry>,
}

/// One model in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// Its name.
    pub model_name: String,
    /// Where it comes from, relative to the repository or a store.
    pub model_url: String,
}

/// One version of a model in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionView {
    /// The model's name.
    pub model_name: String,
    /// The version, as `1.0`.
    pub model_version: String,
    /// Where it comes from, relative to the repository or a store.
    pub model_url: String,
    /// The engine's name, once chosen.
    pub engine: Option<String>,
    /// Executors: what TorchServe calls workers.
    pub workers: Vec<Worker>,
    /// The most rows of one run; 1 where it is not batched.
    pub batch_size: usize,
    /// Milliseconds that a batch waits for company.
    pub max_batch_delay: u128,
    /// Whether it came with the repository and not by an order.
    pub loaded_at_startup: bool,
    /// Rows that may still wait.
    pub remaining_capacity: usize,
    /// Rows that wait.
    pub pending_requests: usize,
}

/// One executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its number, counted from 9000 as TorchServe does.
    pub id: String,
    /// When the version became available.
    pub started: Option<SystemTime>,
    /// Whether it takes work.
    pub is_ready: bool,
    /// Bytes that the version holds, whose memory all executors share.
    pub memory_bytes: u64,
}

/// More executors than this are not listed one by one.
const MOST_WORKERS: usize = 1024;

impl VersionView {
    /// Version `version` of `model`.
    pub fn new(model: &ModelStatus, version: &VersionStatus) -> Self {
        let worker = |number: usize| Worker {
            id: (9000 + number).to_string(),
            started: version.loaded_at,
            is_ready: version.state == VersionState::Available,
            memory_bytes: version.memory_bytes,
        };
        // Where nothing bounds the runs at once, the threads do.
        let threads = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let executors = version.executors.unwrap_or_else(threads).min(MOST_WORKERS);
        Self {
            model_name: model.name.to_string(),
            model_version: written_version(version.version),
            model_url: model.path.clone(),
            engine: version.backend.as_deref().map(str::to_owned),
            workers: (0..executors).map(worker).collect(),
            batch_size: version.max_batch_size.max(1),
            max_batch_delay: version.batch_delay.unwrap_or_default().as_millis(),
            loaded_at_startup: model.overrides.is_empty(),
            remaining_capacity: version.queue.capacity.saturating_sub(version.queue.waiting),
            pending_requests: version.queue.waiting,
        }
    }
}
