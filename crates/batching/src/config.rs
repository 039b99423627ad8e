//! What an operator may say about the pool and about one model's queue, with complete defaults.
//!
//! These are the settled forms: parsing files and judging what was written is the server's work.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The compute pool shared by all models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Compute threads. Default: the cores that this process may use.
    pub threads: NonZeroUsize,
    /// How many hung threads are replaced by fresh ones. One more and the pool is no longer healthy. Default: 4.
    pub max_replacements: usize,
    /// Grace on top of `hang_factor` predictions before a run counts as hung. Default: 1 s.
    pub hang_grace: Duration,
    /// How many times its prediction a run may take, `hang_grace` aside. Default: 10.
    pub hang_factor: u32,
    /// Stands in for the prediction of a run about which nothing has been learned yet. Default: 6 s, which with the
    /// other defaults gives the first run of a model one minute.
    pub hang_unknown: Duration,
    /// How many jobs given to [`Compute::run`](millrace_core::Compute::run) may wait. Default: 1024.
    pub max_jobs: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_replacements: 4,
            hang_grace: Duration::from_secs(1),
            hang_factor: 10,
            hang_unknown: Duration::from_secs(6),
            max_jobs: 1024,
        }
    }
}

/// One model's queue. The default is *auto*: batch, learn what pays, never wait in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchConfig {
    /// Whether requests may share a run at all. Default: true.
    pub enabled: bool,
    /// The most rows in one run, padding included. Default: 1024.
    pub max_batch_size: NonZeroUsize,
    /// The most tokens in one run of a model that runs requests of different lengths together (the units of
    /// [`Model::weigh`](millrace_core::Model::weigh)). A longer request is cut into pieces by its rows; a single row that
    /// is longer runs alone. Other models do not look at it. Default: 16 384.
    pub max_batch_tokens: NonZeroUsize,
    /// What happens to a request with more rows than `max_batch_size`. Default: [`Oversized::Split`].
    pub oversized: Oversized,
    /// How long a batch may wait for more rows. Default: [`Waiting::Learned`].
    pub waiting: Waiting,
    /// Which row counts runs should have. Default: [`Sizes::Learned`]. Models that run requests of different lengths
    /// together learn in any case.
    pub sizes: Sizes,
    /// How many runs of this model may go on at once. Default: [`Instances::PerThread`].
    pub instances: Instances,
    /// Queue limit in full batches, as TensorFlow Serving's `max_enqueued_batches`. Default: no limit but the others.
    pub max_enqueued_batches: usize,
    /// Queue limit in rows. Default: 65 536.
    pub max_queue_rows: usize,
    /// Queue limit in bytes of input. Default: 256 MiB.
    pub max_queue_bytes: usize,
    /// Queue limit in predicted compute time, shared among the model's instances. Default: 30 s.
    pub max_queue_time: Duration,
    /// How many groups (assignments of the symbols other than the batch) are remembered. Default: 64.
    pub max_groups: usize,
    /// How many extra runs one caller's failing requests may cost its batch mates before that caller's requests run
    /// alone for a while. Default: 32.
    pub poison_budget: u32,
    /// Whether the queue's metrics carry its model and version, or share the labels `other`. Recorders never forget a
    /// series, so whoever loads ever new versions bounds how many have their own. Default: true.
    pub has_own_series: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_batch_size: NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN),
            max_batch_tokens: NonZeroUsize::new(16_384).unwrap_or(NonZeroUsize::MIN),
            oversized: Oversized::Split,
            waiting: Waiting::Learned,
            sizes: Sizes::Learned,
            instances: Instances::PerThread,
            max_enqueued_batches: usize::MAX,
            max_queue_rows: 65_536,
            max_queue_bytes: 256 << 20,
            max_queue_time: Duration::from_secs(30),
            max_groups: 64,
            poison_budget: 32,
            has_own_series: true,
        }
    }
}

/// What happens to a request with more rows than one run may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// It is cut into several runs and its answer joined again (`enable_large_batch_splitting`).
    Split,
    /// It is refused, as TensorFlow Serving does where `max_batch_size` is given without splitting.
    Refuse,
}

/// How long an idle worker leaves queued requests waiting for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Only where that was learned to raise throughput, and at most as long as one row takes to run.
    Learned,
    /// The same, but at most this long (`latency_goal`); and no batch has more rows than run within that time, one row
    /// aside, so that nobody who comes while it runs waits longer for it. Zero never waits and bounds no batch.
    LearnedWithin(Duration),
    /// Until the batch is full or its oldest request has waited this long (`batch_timeout_micros`,
    /// `max_queue_delay_microseconds`). Zero never waits.
    Fixed(Duration),
}

/// Which row counts runs should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// Whatever was learned to be best, among them sizes that the model is asked to prepare for.
    Learned,
    /// Runs are padded up to the next of these (`allowed_batch_sizes`), which the model is asked to prepare for.
    Allowed(Vec<NonZeroUsize>),
    /// A waiting batch leaves as soon as it has one of these sizes (`preferred_batch_size`); nothing is padded.
    Preferred(Vec<NonZeroUsize>),
}

/// How many runs of one model may go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// As many as the pool has threads.
    PerThread,
    /// This many (`num_batch_threads`, instance groups), but never more than the pool has threads.
    Exactly(NonZeroUsize),
}
