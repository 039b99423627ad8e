//! The names of what the registry measures.

use millrace_core::{ModelName, VersionState};

/// Seconds that loading and warming a version took; a histogram with labels `model` and `version`.
pub const LOAD_SECONDS: &str = "millrace_registry_load_seconds";
/// Failed loads; a counter with label `model`.
pub const LOAD_FAILURES: &str = "millrace_registry_load_failures_total";
/// Bytes of memory that a loaded version holds; a gauge with labels `model` and `version`.
pub const MEMORY_BYTES: &str = "millrace_registry_memory_bytes";
/// How many versions of a model are in a state; a gauge with labels `model` and `state`.
pub const VERSIONS: &str = "millrace_registry_versions";

/// Tells the metrics recorder what the names mean. Call it once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_histogram!(LOAD_SECONDS, metrics::Unit::Seconds, "Time to load and warm a version");
    metrics::describe_counter!(LOAD_FAILURES, "Loads that failed");
    metrics::describe_gauge!(MEMORY_BYTES, metrics::Unit::Bytes, "Memory that a loaded version holds");
    metrics::describe_gauge!(VERSIONS, "Versions by state");
}

pub(crate) fn load(model: &ModelName, version: u64, seconds: f64) {
    let labels = [("model", model.to_string()), ("version", version.to_string())];
    metrics::histogram!(LOAD_SECONDS, &labels).record(seconds);
}

pub(crate) fn load_failure(model: &ModelName) {
    metrics::counter!(LOAD_FAILURES, "model" => model.to_string()).increment(1);
}

pub(crate) fn memory(model: &ModelName, version: u64, bytes: u64) {
    let labels = [("model", model.to_string()), ("version", version.to_string())];
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are enough")]
    metrics::gauge!(MEMORY_BYTES, &labels).set(bytes as f64);
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
