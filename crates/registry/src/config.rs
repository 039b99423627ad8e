//! What the registry must be told: where models lie, how often to look, how to retry. Complete, with defaults.
//!
//! These are the settled forms; flags, environment and files are the server's work. What a model says about itself in
//! its `model.toml` is in `model_config`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use millrace_batching::BatchConfig;
use millrace_core::{Alias, ModelName};

use crate::{BatchOverrides, VersionPolicy};

/// Where the models are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSet {
    /// Every folder directly below this one is a model.
    Repository(PathBuf),
    /// These and no others: TensorFlow Serving's `model_config_file`, or its `MODEL_NAME` and `MODEL_BASE_PATH`.
    Listed(Vec<ListedModel>),
}

/// One model of [`ModelSet::Listed`]. A `model.toml` in its folder is read too and goes before what is said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// Its name.
    pub name: ModelName,
    /// The folder whose children are its versions.
    pub base_path: PathBuf,
    /// Which versions are wanted.
    pub policy: VersionPolicy,
    /// Its aliases (`version_labels`).
    pub aliases: BTreeMap<Alias, u64>,
}

impl ListedModel {
    /// A model with the default policy and no aliases.
    pub fn new(name: ModelName, base_path: impl Into<PathBuf>) -> Self {
        Self { name, base_path: base_path.into(), policy: VersionPolicy::default(), aliases: BTreeMap::new() }
    }
}

/// How long to wait before a failed load is tried again: doubling from `first` up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConfig {
    /// The first wait. Default: 1 s.
    pub first: Duration,
    /// The longest wait. Default: 60 s.
    pub max: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl RetryConfig {
    /// The wait after `failures` failures in a row (at least one).
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// Everything that [`Registry::start`](crate::Registry::start) is told.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where the models are.
    pub models: ModelSet,
    /// Whether changes on disk are followed. Without it, the repository is read at the start and when ordered to.
    /// Default: true.
    pub watch: bool,
    /// How often the repository is read again, watched or not: the safety net where events get lost (network file
    /// systems have none). Default: 1 s.
    pub poll_interval: Duration,
    /// How long the files of a version that appears while serving must stay as they are before it is loaded.
    /// Default: 1 s.
    pub quiet_period: Duration,
    /// Where orders are kept so that they survive a restart. It belongs to this one set of models. Without it, orders
    /// hold until the process ends. Default: none.
    pub state_dir: Option<PathBuf>,
    /// Folders from which an operator may register models by API, beside the models' own. Default: none.
    pub stores: Vec<PathBuf>,
    /// The most bytes that all loaded models may hold together. Default: no limit.
    pub memory_budget: Option<u64>,
    /// The most bytes that the files of one version may have together. Default: 16 GiB.
    pub max_model_bytes: u64,
    /// How many versions load at once. Default: the cores, at most 4.
    pub load_threads: NonZeroUsize,
    /// When failed loads are tried again.
    pub retry: RetryConfig,
    /// How many versions get metrics of their own, counted from the start. Default: 1000.
    pub max_metric_series: usize,
    /// Batching of models that say nothing else.
    pub batching: BatchConfig,
    /// What goes before the `[batching]` of every `model.toml`. Default: nothing.
    pub batching_overrides: BatchOverrides,
}

impl RegistryConfig {
    /// The defaults for `models`.
    pub fn new(models: ModelSet) -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            models,
            watch: true,
            poll_interval: Duration::from_secs(1),
            quiet_period: Duration::from_secs(1),
            state_dir: None,
            stores: Vec::new(),
            memory_budget: None,
            max_model_bytes: 16 << 30,
            load_threads: cores.min(NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN)),
            retry: RetryConfig::default(),
            max_metric_series: 1000,
            batching: BatchConfig::default(),
            batching_overrides: BatchOverrides::default(),
        }
    }

    /// The defaults for every model below the folder `path`.
    pub fn repository(path: impl Into<PathBuf>) -> Self {
        Self::new(ModelSet::Repository(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RetryConfig;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = RetryConfig::default();
        let waits: Vec<u64> = [1, 2, 3, 6, 7, 8, 1000].map(|failures| retry.wait(failures).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60, 60]);
        let none = RetryConfig { first: Duration::ZERO, max: Duration::ZERO };
        assert_eq!(none.wait(9), Duration::ZERO);
    }
}
