//! TorchServe's families, recorded for its protocols only.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Label, Unit, describe_counter};
use millrace_core::Code;

use super::{Answered, Status};

/// TorchServe's counter of inference requests; labels `model_name`, `model_version` (`default` where the request named
/// none) and `hostname`.
pub const TS_INFERENCE_REQUESTS_TOTAL: &str = "ts_inference_requests_total";
/// TorchServe's counter of microseconds from request to answer; same labels.
pub const TS_INFERENCE_LATENCY: &str = "ts_inference_latency_microseconds";
/// TorchServe's counter of microseconds in the queue; same labels.
pub const TS_QUEUE_LATENCY: &str = "ts_queue_latency_microseconds";
/// TorchServe's counters of answers by the first digit of their status; labels `Level` and `Hostname`.
pub const TS_REQUESTS: [&str; 3] = ["Requests2XX", "Requests4XX", "Requests5XX"];

pub(super) fn describe() {
    describe_counter!(TS_INFERENCE_REQUESTS_TOTAL, Unit::Count, "Inference requests over TorchServe's protocols");
    describe_counter!(TS_INFERENCE_LATENCY, Unit::Microseconds, "From request to answer, summed up");
    describe_counter!(TS_QUEUE_LATENCY, Unit::Microseconds, "In the queue, summed up");
    for family in TS_REQUESTS {
        describe_counter!(
            family,
            Unit::Count,
            "Answers over TorchServe's protocols by the first digit of their status"
        );
    }
}

/// The handles of one version.
#[derive(Default)]
pub(super) struct Handles {
    /// For requests without a version, and for those that name it.
    versions: [OnceLock<Version>; 2],
    classes: [OnceLock<Counter>; TS_REQUESTS.len()],
}

struct Version {
    requests: Counter,
    latency: Counter,
    queue: Counter,
}

/// Whose handles they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a> {
    pub(super) model: &'a Arc<str>,
    pub(super) version: &'a Arc<str>,
    pub(super) hostname: &'a Arc<str>,
}

impl Handles {
    /// Records an answer.
    pub(super) fn answered(&self, of: Labels<'_>, answered: &Answered) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let version = self.versions[usize::from(answered.names_version)].get_or_init(|| {
            let version = if answered.names_version { Arc::clone(of.version) } else { Arc::from("default") };
            let labels = [
                Label::new("model_name", Arc::clone(of.model)),
                Label::new("model_version", version),
                Label::new("hostname", Arc::clone(of.hostname)),
            ];
            Version {
                requests: metrics::counter!(TS_INFERENCE_REQUESTS_TOTAL, labels.iter()),
                latency: metrics::counter!(TS_INFERENCE_LATENCY, labels.iter()),
                queue: metrics::counter!(TS_QUEUE_LATENCY, labels.iter()),
            }
        });
        version.requests.increment(1);
        version.latency.increment(micros(answered.total));
        version.queue.increment(micros(answered.queue));
    }

    /// Counts a status.
    pub(super) fn count(&self, hostname: &Arc<str>, status: Status) {
        let class = class(status);
        let register = || metrics::counter!(TS_REQUESTS[class], "Level" => "Host", "Hostname" => Arc::clone(hostname));
        self.classes[class].get_or_init(register).increment(1);
    }
}

/// The place of a status in [`TS_REQUESTS`].
fn class(status: Status) -> usize {
    match status {
        Status::Http(200..=399) | Status::Grpc(None) => 0,
        Status::Http(400..=499) => 1,
        Status::Http(_) => 2,
        Status::Grpc(Some(code)) => match code {
            Code::Unknown
            | Code::Internal
            | Code::DataLoss
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unimplemented => 2,
            Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unauthenticated => 1,
        },
    }
}
