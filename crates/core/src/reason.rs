//! Why a request was not answered: one closed list, known to every protocol.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every way a request or an order can be refused. Closed on purpose: each protocol has one exhaustive table over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No model of that name is known.
    ModelUnknown,
    /// The model has no such version available.
    VersionUnknown,
    /// The model has no such alias.
    LabelUnknown,
    /// The model has no such signature.
    SignatureUnknown,
    /// The model is known but no version of it can serve now.
    NotReady,
    /// The model's first version is still loading.
    Loading,
    /// The request's bytes, names, dtypes, shapes or values are wrong.
    InvalidInput,
    /// The request is well formed but asks for what this server does not do.
    Unsupported,
    /// The request is larger than a configured limit.
    TooLarge,
    /// The model's queue is full; trying later may work.
    QueueFull,
    /// The caller is over its allowance.
    RateLimited,
    /// The deadline passed, or would pass before an answer.
    Late,
    /// The caller went away.
    Cancelled,
    /// The server or the version is shutting down.
    Draining,
    /// The thing to be made exists already.
    Exists,
    /// The order contradicts the present state, such as an alias to a version that is not available.
    Conflict,
    /// Not allowed here, such as an admin verb on the data port.
    Forbidden,
    /// No or wrong credentials.
    Unauthenticated,
    /// The backend could not run this request.
    BackendFailed,
    /// The backend broke its contract, panicked or hung.
    BackendBroken,
    /// A state change could not be made durable and was not made.
    NotSaved,
}

impl Reason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 21] = [
        Self::ModelUnknown,
        Self::VersionUnknown,
        Self::LabelUnknown,
        Self::SignatureUnknown,
        Self::NotReady,
        Self::Loading,
        Self::InvalidInput,
        Self::Unsupported,
        Self::TooLarge,
        Self::QueueFull,
        Self::RateLimited,
        Self::Late,
        Self::Cancelled,
        Self::Draining,
        Self::Exists,
        Self::Conflict,
        Self::Forbidden,
        Self::Unauthenticated,
        Self::BackendFailed,
        Self::BackendBroken,
        Self::NotSaved,
    ];

    /// A stable name for metrics and logs, in `snake_case`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ModelUnknown => "model_unknown",
            Self::VersionUnknown => "version_unknown",
            Self::LabelUnknown => "label_unknown",
            Self::SignatureUnknown => "signature_unknown",
            Self::NotReady => "not_ready",
            Self::Loading => "loading",
            Self::InvalidInput => "invalid_input",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::RateLimited => "rate_limited",
            Self::Late => "late",
            Self::Cancelled => "cancelled",
            Self::Draining => "draining",
            Self::Exists => "exists",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::BackendFailed => "backend_failed",
            Self::BackendBroken => "backend_broken",
            Self::NotSaved => "not_saved",
        }
    }

    /// The canonical code that most protocols start from.
    pub const fn code(self) -> Code {
        match self {
            Self::ModelUnknown | Self::VersionUnknown => Code::NotFound,
            Self::LabelUnknown | Self::SignatureUnknown | Self::InvalidInput => Code::InvalidArgument,
            Self::NotReady | Self::Loading | Self::Draining => Code::Unavailable,
            Self::Unsupported => Code::Unimplemented,
            Self::TooLarge | Self::QueueFull | Self::RateLimited => Code::ResourceExhausted,
            Self::Late => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Exists => Code::AlreadyExists,
            Self::Conflict => Code::FailedPrecondition,
            Self::Forbidden => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::BackendFailed | Self::BackendBroken | Self::NotSaved => Code::Internal,
        }
    }
}

/// The canonical status codes that gRPC and TensorFlow share (`google.rpc.Code`), without `OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are google.rpc.Code's own")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::DataLoss => 15,
            Self::Unauthenticated => 16,
        }
    }

    /// The name on the wire, such as `INVALID_ARGUMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// A refused request: a [`Reason`], a text that the caller may see, and a cause that only the log may.
#[derive(Clone)]
pub struct Refusal(Box<Inner>);

#[derive(Clone)]
struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    progress: Option<Progress>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// How far a request had come with its model when it was refused there, for whoever asks where the time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was not let into the queue.
    Door,
    /// It was `queued`, and left the queue without a run.
    Queue {
        /// Entered the queue.
        queued: Instant,
    },
    /// Its run failed.
    Run {
        /// Entered the queue.
        queued: Instant,
        /// Left it as part of a batch.
        formed: Instant,
        /// The backend began.
        started: Instant,
    },
}

impl Refusal {
    /// A refusal with its public text: what was wrong, where, and what would be right. Foreign text inside it should
    /// have passed through [`Quoted`](crate::Quoted).
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { reason, message: message.into(), retry_after: None, progress: None, cause: None }))
    }

    /// Adds the private cause: paths, internals, whatever the operator needs and the caller must not see.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Arc<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds how long the caller should wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds how far the request had come.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.0.progress = Some(progress);
        self
    }

    /// The same refusal in a protocol's own words: reason, retry time and progress stay, the former text becomes the cause.
    #[must_use]
    pub fn reworded(self, message: impl Into<Cow<'static, str>>) -> Self {
        let Inner { reason, retry_after, progress, .. } = *self.0;
        let cause: Arc<dyn Error + Send + Sync> = Arc::new(self);
        Self(Box::new(Inner { reason, message: message.into(), retry_after, progress, cause: Some(cause) }))
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// [`Reason::code`] of the reason.
    pub fn code(&self) -> Code {
        self.0.reason.code()
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How long to wait before trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How far the request had come with its model; `None` where it did not come to it, or nobody knows.
    pub fn progress(&self) -> Option<Progress> {
        self.0.progress
    }

    /// The private cause, for logs.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.0.cause.as_deref()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("reason", &self.0.reason)
            .field("message", &self.0.message)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::time::Duration;

    use super::{Progress, Reason, Refusal};

    #[test]
    fn other_words_keep_the_reason_and_when_to_come_back() {
        let refusal = Refusal::new(Reason::Loading, "ours").with_retry_after(Duration::from_secs(3));
        let refusal = refusal.with_progress(Progress::Door).reworded("theirs");
        assert_eq!((refusal.reason(), refusal.message()), (Reason::Loading, "theirs"));
        assert_eq!(refusal.progress(), Some(Progress::Door));
        assert_eq!(refusal.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(refusal.source().map(ToString::to_string).as_deref(), Some("ours"));
    }
}
