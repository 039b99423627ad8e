//! The metrics of this crate: their names, and the handles of one queue.
//!
//! Handles are taken once per queue from whatever recorder is installed then, so recording costs no look-up.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use millrace_core::{ClosedBy, ModelName, Reason};

/// Seconds from entering the queue to leaving it in a batch; one value per answered request.
pub const QUEUE_SECONDS: &str = "millrace_batching_queue_seconds";
/// Seconds that the backend ran; one value per answered request, that of the batch it rode in.
pub const COMPUTE_SECONDS: &str = "millrace_batching_compute_seconds";
/// Rows per run of the backend, padding included.
pub const BATCH_ROWS: &str = "millrace_batching_batch_rows";
/// Requests refused or failed, by `reason`.
pub const REFUSED_TOTAL: &str = "millrace_batching_refused_total";
/// Requests whose caller had gone before they reached a run.
pub const SKIPPED_CANCELLED_TOTAL: &str = "millrace_batching_skipped_cancelled_total";
/// Batches, by `closed_by`: why each was not larger.
pub const BATCHES_TOTAL: &str = "millrace_batching_batches_total";

/// Tokens that runs computed, padding included; of models that run requests of different lengths together.
pub const TOKENS_TOTAL: &str = "millrace_batching_tokens_total";
/// Those of them that were padding.
pub const PADDING_TOKENS_TOTAL: &str = "millrace_batching_padding_tokens_total";

/// What stands for models and versions that have no series of their own.
const OTHER: &str = "other";

/// Tells the installed recorder what the metrics mean. Called by each queue; saying it again changes nothing.
fn describe() {
    describe_histogram!(QUEUE_SECONDS, metrics::Unit::Seconds, "Time from entering the queue to leaving it in a batch");
    describe_histogram!(COMPUTE_SECONDS, metrics::Unit::Seconds, "Time in the backend, per request");
    describe_histogram!(BATCH_ROWS, "Rows per run of the backend, padding included");
    describe_counter!(REFUSED_TOTAL, "Requests refused or failed, by reason");
    describe_counter!(SKIPPED_CANCELLED_TOTAL, "Requests whose caller had gone before they reached a run");
    describe_counter!(TOKENS_TOTAL, "Tokens that runs computed, padding included");
    describe_counter!(PADDING_TOKENS_TOTAL, "Tokens that runs computed for padding alone");
    describe_counter!(BATCHES_TOTAL, "Batches, by why each was not larger");
}

/// The handles of one queue.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) queue: Histogram,
    pub(crate) compute: Histogram,
    pub(crate) rows: Histogram,
    pub(crate) skipped: Counter,
    /// Tokens and those of padding, of mixed models.
    tokens: Option<[Counter; 2]>,
    model: String,
    version: String,
    batches: [Counter; ClosedBy::ALL.len()],
    /// Registered when first needed: most reasons never come up, and each would be a series.
    refused: [OnceLock<Counter>; Reason::ALL.len()],
}

impl Metrics {
    /// The handles for `version` of `model`, or those that all share which have no series of their own.
    pub(crate) fn new(model: &ModelName, version: u64, has_own_series: bool, is_mixed: bool) -> Self {
        describe();
        let (model, version) = if has_own_series {
            (model.to_string(), version.to_string())
        } else {
            (OTHER.to_owned(), OTHER.to_owned())
        };
        let labels = [("model", model.clone()), ("version", version.clone())];
        let closed = |by: ClosedBy| counter!(BATCHES_TOTAL, "model" => model.clone(), "version" => version.clone(), "closed_by" => by.name());
        Self {
            queue: histogram!(QUEUE_SECONDS, &labels),
            compute: histogram!(COMPUTE_SECONDS, &labels),
            rows: histogram!(BATCH_ROWS, &labels),
            skipped: counter!(SKIPPED_CANCELLED_TOTAL, &labels),
            tokens: is_mixed.then(|| [counter!(TOKENS_TOTAL, &labels), counter!(PADDING_TOKENS_TOTAL, &labels)]),
            batches: ClosedBy::ALL.map(closed),
            refused: [const { OnceLock::new() }; Reason::ALL.len()],
            model,
            version,
        }
    }

    pub(crate) fn batch(&self, closed_by: ClosedBy) {
        if let Some(index) = ClosedBy::ALL.iter().position(|known| *known == closed_by) {
            self.batches[index].increment(1);
        }
    }

    /// A run of a mixed model: what it was given, and what it says that it computed (0: just that).
    pub(crate) fn worked(&self, given: usize, computed: usize) {
        if let Some([tokens, padding]) = &self.tokens {
            tokens.increment(computed.max(given) as u64);
            padding.increment(computed.saturating_sub(given) as u64);
        }
    }

    pub(crate) fn refused(&self, reason: Reason) {
        if let Some(index) = Reason::ALL.iter().position(|known| *known == reason) {
            let register = || {
                let (model, version) = (self.model.clone(), self.version.clone());
                counter!(REFUSED_TOTAL, "model" => model, "version" => version, "reason" => reason.name())
            };
            self.refused[index].get_or_init(register).increment(1);
        }
    }
}
