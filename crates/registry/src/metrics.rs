//! The names of what the registry measures, and which versions have series of their own.

use std::collections::HashSet;

use millrace_core::{EngineChoice, ModelName, VersionState};
use parking_lot::Mutex;

/// Seconds that loading and warming a version took; a histogram with labels `model` and `version`. Versions beyond
/// [`RegistryConfig::max_metric_series`](crate::RegistryConfig::max_metric_series) share `other`.
pub const LOAD_SECONDS: &str = "millrace_registry_load_seconds";
/// Failed loads; a counter with label `model`.
pub const LOAD_FAILURES: &str = "millrace_registry_load_failures_total";
/// Bytes of memory that a loaded version holds; a gauge with labels `model` and `version`, for as many versions.
pub const MEMORY_BYTES: &str = "millrace_registry_memory_bytes";
/// 1 for each engine that serves a loaded version, from so many rows of a run on; a gauge with labels `model`, `version`,
/// `engine` and `rows_from`, for as many versions. Only where engines were chosen among.
pub const ENGINE_CHOSEN: &str = "millrace_registry_engine_chosen";
/// Seconds that trying the engines of a version took when it was measured; a gauge with labels `model` and `version`, for
/// as many versions.
pub const ENGINE_TRIAL_SECONDS: &str = "millrace_registry_engine_trial_seconds";
/// How many versions of a model are in a state; a gauge with labels `model` and `state`.
pub const VERSIONS: &str = "millrace_registry_versions";

/// What stands for models and versions that have no series of their own.
const OTHER: &str = "other";

/// The versions that have series of their own: the first ones up to a limit. Exporters never forget a series and versions
/// come for as long as the server runs, so neither does this, and there is a limit.
#[derive(Debug)]
pub(crate) struct Series {
    named: Mutex<HashSet<(ModelName, u64)>>,
    limit: usize,
}

impl Series {
    pub(crate) fn new(limit: usize) -> Self {
        Self { named: Mutex::default(), limit }
    }

    /// Whether `version` of `model` has series of its own; it gets them if there is room.
    pub(crate) fn names(&self, model: &ModelName, version: u64) -> bool {
        let mut named = self.named.lock();
        let pair = (model.clone(), version);
        named.contains(&pair) || (named.len() < self.limit && named.insert(pair))
    }

    /// Records how long a load took.
    pub(crate) fn load(&self, model: &ModelName, version: u64, seconds: f64) {
        let labels = if self.names(model, version) {
            [("model", model.to_string()), ("version", version.to_string())]
        } else {
            [("model", OTHER.to_owned()), ("version", OTHER.to_owned())]
        };
        metrics::histogram!(LOAD_SECONDS, &labels).record(seconds);
    }

    /// Records what a version holds now. One without a series of its own is left out: a sum that forgets to shrink would be
    /// worse than nothing.
    pub(crate) fn memory(&self, model: &ModelName, version: u64, bytes: u64) {
        if !self.names(model, version) {
            return;
        }
        let labels = [("model", model.to_string()), ("version", version.to_string())];
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are enough")]
        metrics::gauge!(MEMORY_BYTES, &labels).set(bytes as f64);
    }

    /// Records which engines serve a version, or that they do no longer.
    pub(crate) fn engines(&self, model: &ModelName, version: u64, choice: &EngineChoice, serves: bool) {
        if !self.names(model, version) {
            return;
        }
        for range in &choice.ranges {
            let labels = [
                ("model", model.to_string()),
                ("version", version.to_string()),
                ("engine", range.engine.to_string()),
                ("rows_from", range.rows_from.to_string()),
            ];
            metrics::gauge!(ENGINE_CHOSEN, &labels).set(if serves { 1.0 } else { 0.0 });
        }
        let labels = [("model", model.to_string()), ("version", version.to_string())];
        metrics::gauge!(ENGINE_TRIAL_SECONDS, &labels).set(if serves { choice.took.as_secs_f64() } else { 0.0 });
    }
}

/// Tells the metrics recorder what the names mean. Call it once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_histogram!(LOAD_SECONDS, metrics::Unit::Seconds, "Time to load and warm a version");
    metrics::describe_counter!(LOAD_FAILURES, "Loads that failed");
    metrics::describe_gauge!(MEMORY_BYTES, metrics::Unit::Bytes, "Memory that a loaded version holds");
    metrics::describe_gauge!(ENGINE_CHOSEN, "1 for each engine that serves a version, from so many rows of a run on");
    let trial = "Time that trying the engines of a version took when it was measured";
    metrics::describe_gauge!(ENGINE_TRIAL_SECONDS, metrics::Unit::Seconds, trial);
    metrics::describe_gauge!(VERSIONS, "Versions by state");
}

pub(crate) fn load_failure(model: &ModelName) {
    metrics::counter!(LOAD_FAILURES, "model" => model.to_string()).increment(1);
}

pub(crate) fn versions(model: &ModelName, count: impl Fn(VersionState) -> u32) {
    let states = [
        VersionState::Start,
        VersionState::Loading,
        VersionState::Available,
        VersionState::Unloading,
        VersionState::End,
    ];
    for state in states {
        let labels = [("model", model.to_string()), ("state", state.name().to_owned())];
        metrics::gauge!(VERSIONS, &labels).set(f64::from(count(state)));
    }
}
