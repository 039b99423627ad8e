//! Names, help texts and buckets of the front-ends' metrics, and the handles that requests record through.
//!
//! Rendering the page is the exporter's, which the server installs. Label values come from resolved models only, and
//! only so many of them: a client cannot make a series by inventing a name.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::tfs::code_label;
use metrics::{Counter, Histogram, Unit, describe_counter, describe_histogram};
use millrace_core::{Code, Protocol, Reason, Servable};

mod table;
mod torchserve;

pub use table::Table;
pub use torchserve::{TS_INFERENCE_LATENCY, TS_INFERENCE_REQUESTS_TOTAL, TS_QUEUE_LATENCY, TS_REQUESTS};

/// Histogram, seconds from the first byte of a request to its encoded answer; labels `model`, `version`, `protocol`.
pub const REQUEST_SECONDS: &str = "millrace_request_seconds";
/// Histogram, seconds spent decoding a request's body; same labels.
pub const DECODE_SECONDS: &str = "millrace_decode_seconds";
/// Histogram, seconds spent encoding an answer; same labels.
pub const ENCODE_SECONDS: &str = "millrace_encode_seconds";
/// Counter of inference requests; the same labels and `code`, the HTTP status or the name of the gRPC code.
pub const REQUESTS_TOTAL: &str = "millrace_requests_total";
/// Counter of bytes of request bodies; labels `model`, `version`, `protocol`.
pub const REQUEST_BYTES_TOTAL: &str = "millrace_request_bytes_total";
/// Counter of bytes of answer bodies; same labels.
pub const RESPONSE_BYTES_TOTAL: &str = "millrace_response_bytes_total";
/// Counter of refused inference requests; label `reason`.
pub const REFUSED_TOTAL: &str = "millrace_refused_total";
/// TensorFlow Serving's counter of requests; labels `model_name`, `status`.
pub const TFS_REQUEST_COUNT: &str = ":tensorflow:serving:request_count";
/// TensorFlow Serving's histogram of microseconds per successful request; labels `model_name`, `API`, `entrypoint`.
pub const TFS_REQUEST_LATENCY: &str = ":tensorflow:serving:request_latency";
/// TensorFlow Serving's histogram of microseconds that the model ran; labels `model_name`, `API`, `runtime`.
pub const TFS_RUNTIME_LATENCY: &str = ":tensorflow:serving:runtime_latency";
/// TensorFlow Serving's histogram of examples (rows) per answered request; label `model`.
pub const TFS_EXAMPLE_COUNTS: &str = ":tensorflow:serving:request_example_counts";
/// TensorFlow Serving's counter of examples (rows) in answered requests; label `model`.
pub const TFS_EXAMPLE_COUNT_TOTAL: &str = ":tensorflow:serving:request_example_count_total";

/// What stands for models and versions that have no series of their own.
pub const OTHER: &str = "other";

/// The bucket limits of every histogram of the front-ends, by family. The exporter's owner configures them.
pub fn histogram_buckets() -> Vec<(&'static str, Vec<f64>)> {
    // 25 µs to 42 s, four limits to each factor of ten: fine enough for a p99, few enough for every model.
    let seconds: Vec<f64> = (0..26).map(|step| 25e-6 * 10_f64.powf(f64::from(step) / 4.0)).collect();
    // TensorFlow Serving's own 33 limits, in microseconds.
    let microseconds: Vec<f64> = (0..33).map(|power| 10.0 * 1.8_f64.powi(power)).collect();
    // From 1 to half a million in powers of two.
    let examples: Vec<f64> = (0..20).map(|power| 2_f64.powi(power)).collect();
    vec![
        (TFS_EXAMPLE_COUNTS, examples),
        (REQUEST_SECONDS, seconds.clone()),
        (DECODE_SECONDS, seconds.clone()),
        (ENCODE_SECONDS, seconds),
        (TFS_REQUEST_LATENCY, microseconds.clone()),
        (TFS_RUNTIME_LATENCY, microseconds),
    ]
}

/// Registers the help texts. Call it once the recorder is installed.
pub fn describe_metrics() {
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "From a request's first byte to its encoded answer");
    describe_histogram!(DECODE_SECONDS, Unit::Seconds, "Decoding request bodies");
    describe_histogram!(ENCODE_SECONDS, Unit::Seconds, "Encoding answers");
    describe_counter!(REQUESTS_TOTAL, Unit::Count, "Inference requests by HTTP status or gRPC code");
    describe_counter!(REQUEST_BYTES_TOTAL, Unit::Bytes, "Bytes of request bodies");
    describe_counter!(RESPONSE_BYTES_TOTAL, Unit::Bytes, "Bytes of answer bodies");
    describe_counter!(REFUSED_TOTAL, Unit::Count, "Refused inference requests by reason");
    describe_counter!(
        TFS_REQUEST_COUNT,
        Unit::Count,
        "Requests by model and status, as TensorFlow Serving counts them"
    );
    describe_histogram!(TFS_REQUEST_LATENCY, Unit::Microseconds, "Successful requests, in microseconds");
    describe_histogram!(TFS_EXAMPLE_COUNTS, Unit::Count, "Examples, which are rows, per answered request");
    describe_counter!(TFS_EXAMPLE_COUNT_TOTAL, Unit::Count, "Examples, which are rows, of answered requests");
    describe_histogram!(TFS_RUNTIME_LATENCY, Unit::Microseconds, "Time in the model, in microseconds");
    torchserve::describe();
}

/// How long each stage of an answered request took, and how much it carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered {
    /// From the request's first byte to its encoded answer.
    pub total: Duration,
    /// Decoding the request.
    pub decode: Duration,
    /// Encoding the answer.
    pub encode: Duration,
    /// In the queue.
    pub queue: Duration,
    /// In the backend.
    pub compute: Duration,
    /// Rows.
    pub examples: usize,
    /// Whether the request named the version and not the model alone.
    pub names_version: bool,
    /// Of the body, as sent.
    pub request_bytes: usize,
    /// Of the body, as sent.
    pub response_bytes: usize,
}

/// How a request ended, as its protocol says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// An HTTP status.
    Http(u16),
    /// A gRPC code; `None` is OK.
    Grpc(Option<Code>),
}

impl Status {
    /// The status of a request that `protocol` answered well.
    const fn ok(protocol: Protocol) -> Self {
        if is_grpc(protocol) { Self::Grpc(None) } else { Self::Http(200) }
    }

    /// The status that counts where the client left before there was one.
    pub const fn cancelled(protocol: Protocol) -> Self {
        if is_grpc(protocol) { Self::Grpc(Some(Code::Cancelled)) } else { Self::Http(499) }
    }

    /// Its place among the counters of a series.
    fn index(self) -> usize {
        match self {
            Self::Http(status) => STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1),
            Self::Grpc(code) => STATUSES.len() + code.map_or(0, |code| usize::from(code.number())),
        }
    }

    fn label(self) -> Cow<'static, str> {
        match self {
            Self::Http(_) => Cow::Owned(STATUSES[self.index()].to_string()),
            Self::Grpc(code) => Cow::Borrowed(code_label(code)),
        }
    }
}

const fn is_grpc(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TfsGrpc | Protocol::OipGrpc | Protocol::TorchServeGrpc)
}

/// Every HTTP status that an inference request can end with; what is not among them counts as 0.
const STATUSES: [u16; 21] =
    [200, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 424, 429, 499, 500, 501, 503, 504, 507, 0];
/// Codes of gRPC, OK included.
const CODES: usize = 17;

/// The handles of one version, or of all that share `other`. Made once; recording looks nothing up.
pub struct Series {
    model: Arc<str>,
    version: Arc<str>,
    hostname: Arc<str>,
    torchserve: torchserve::Handles,
    /// By [`Protocol`].
    protocols: [OnceLock<Box<Handles>>; Protocol::ALL.len()],
    /// By number; 0 is OK.
    tfs_requests: [OnceLock<Counter>; CODES],
    /// Over REST and over gRPC.
    tfs_latency: [OnceLock<(Histogram, Histogram)>; 2],
    tfs_examples: OnceLock<(Histogram, Counter)>,
}

/// Those of one protocol.
struct Handles {
    request_seconds: Histogram,
    decode_seconds: Histogram,
    encode_seconds: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    /// By [`Status::index`].
    requests: [OnceLock<Counter>; STATUSES.len() + CODES],
}

impl Handles {
    fn new(series: &Series, protocol: Protocol) -> Self {
        let labels = [
            metrics::Label::new("model", Arc::clone(&series.model)),
            metrics::Label::new("version", Arc::clone(&series.version)),
            metrics::Label::new("protocol", protocol.name()),
        ];
        Self {
            request_seconds: metrics::histogram!(REQUEST_SECONDS, labels.iter()),
            decode_seconds: metrics::histogram!(DECODE_SECONDS, labels.iter()),
            encode_seconds: metrics::histogram!(ENCODE_SECONDS, labels.iter()),
            request_bytes: metrics::counter!(REQUEST_BYTES_TOTAL, labels.iter()),
            response_bytes: metrics::counter!(RESPONSE_BYTES_TOTAL, labels.iter()),
            requests: [const { OnceLock::new() }; STATUSES.len() + CODES],
        }
    }
}

impl Series {
    fn new(model: &str, version: &str, hostname: &Arc<str>) -> Self {
        Self {
            model: Arc::from(model),
            version: Arc::from(version),
            hostname: Arc::clone(hostname),
            torchserve: torchserve::Handles::default(),
            protocols: Default::default(),
            tfs_requests: Default::default(),
            tfs_latency: Default::default(),
            tfs_examples: OnceLock::new(),
        }
    }

    /// Those of a request to no model that is known.
    fn other(hostname: &Arc<str>) -> Self {
        Self::new(OTHER, OTHER, hostname)
    }

    fn of(servable: &dyn Servable, hostname: &Arc<str>) -> Self {
        Self::new(servable.model().as_str(), &servable.version().to_string(), hostname)
    }

    /// Records an answer.
    pub fn answered(&self, protocol: Protocol, answered: &Answered) {
        let handles = self.count(protocol, Status::ok(protocol), None);
        handles.request_seconds.record(answered.total);
        handles.decode_seconds.record(answered.decode);
        handles.encode_seconds.record(answered.encode);
        handles.request_bytes.increment(answered.request_bytes as u64);
        handles.response_bytes.increment(answered.response_bytes as u64);
        match protocol {
            // Only predict ever succeeds: no signature takes examples.
            Protocol::TfsRest => self.answered_tfs(0, "predict", "REST", answered),
            Protocol::TfsGrpc => self.answered_tfs(1, "Predict", "GRPC", answered),
            Protocol::TorchServeRest | Protocol::TorchServeGrpc => {
                let of = torchserve::Labels { model: &self.model, version: &self.version, hostname: &self.hostname };
                self.torchserve.answered(of, answered);
            }
            Protocol::Local
            | Protocol::OipRest
            | Protocol::OipGrpc
            | Protocol::General
            | Protocol::Platform
            | Protocol::Text => {}
        }
    }

    fn answered_tfs(&self, index: usize, api: &'static str, entrypoint: &'static str, answered: &Answered) {
        let (latency, runtime) = self.tfs_latency[index].get_or_init(|| {
            let model = || Arc::clone(&self.model);
            let latency = metrics::histogram!(TFS_REQUEST_LATENCY,
                "model_name" => model(), "API" => api, "entrypoint" => entrypoint);
            let runtime = metrics::histogram!(TFS_RUNTIME_LATENCY,
                "model_name" => model(), "API" => api, "runtime" => "millrace");
            (latency, runtime)
        });
        latency.record(answered.total.as_secs_f64() * 1e6);
        runtime.record(answered.compute.as_secs_f64() * 1e6);
        let (counts, total) = self.tfs_examples.get_or_init(|| {
            let model = || Arc::clone(&self.model);
            (
                metrics::histogram!(TFS_EXAMPLE_COUNTS, "model" => model()),
                metrics::counter!(TFS_EXAMPLE_COUNT_TOTAL, "model" => model()),
            )
        });
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats; 2^53 rows are enough")]
        counts.record(answered.examples as f64);
        total.increment(answered.examples as u64);
    }

    /// Records a refusal.
    pub fn refused(&self, protocol: Protocol, status: Status, code: Code, total: Duration, request_bytes: usize) {
        let handles = self.count(protocol, status, Some(code));
        handles.request_seconds.record(total);
        handles.request_bytes.increment(request_bytes as u64);
    }

    fn count(&self, protocol: Protocol, status: Status, code: Option<Code>) -> &Handles {
        let handles = self.protocols[protocol as usize].get_or_init(|| Box::new(Handles::new(self, protocol)));
        let register = || {
            metrics::counter!(REQUESTS_TOTAL,
                "model" => Arc::clone(&self.model), "version" => Arc::clone(&self.version),
                "protocol" => protocol.name(), "code" => status.label())
        };
        handles.requests[status.index()].get_or_init(register).increment(1);
        if matches!(protocol, Protocol::TorchServeRest | Protocol::TorchServeGrpc) {
            self.torchserve.count(&self.hostname, status);
        }
        if matches!(protocol, Protocol::TfsRest | Protocol::TfsGrpc) {
            let register = || {
                metrics::counter!(TFS_REQUEST_COUNT,
                    "model_name" => Arc::clone(&self.model), "status" => code_label(code))
            };
            self.tfs_requests[code.map_or(0, |code| usize::from(code.number()))].get_or_init(register).increment(1);
        }
        handles
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series").field("model", &self.model).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Refusals by reason, whatever the model.
#[derive(Debug, Default)]
pub struct Refusals([OnceLock<Counter>; Reason::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        let register = || metrics::counter!(REFUSED_TOTAL, "reason" => reason.name());
        self.0[reason as usize].get_or_init(register).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Reason;

    use super::{STATUSES, TFS_REQUEST_LATENCY, histogram_buckets};
    use crate::plain::http_status;
    use crate::tfs::rest_status;

    #[test]
    fn every_status_of_the_table_has_a_series() {
        for reason in Reason::ALL {
            assert!(STATUSES.contains(&rest_status(reason)), "{}", reason.name());
            assert!(STATUSES.contains(&http_status(reason)), "{}", reason.name());
            assert!((reason as usize) < Reason::ALL.len());
        }
    }

    #[test]
    fn buckets_ascend_and_tensorflow_servings_are_its_own() {
        for (family, limits) in histogram_buckets() {
            assert!(limits.is_sorted_by(|a, b| a < b), "{family}");
        }
        let (_, limits) = histogram_buckets().into_iter().find(|(family, _)| *family == TFS_REQUEST_LATENCY).unwrap();
        assert_eq!((limits.len(), limits[0], limits[1]), (33, 10.0, 18.0));
    }
}
