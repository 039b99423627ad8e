//! The tables: reason to code and to HTTP status. Exhaustive on purpose: a new reason does not compile until it has an
//! answer here.

use std::fmt;

use millrace_core::{Code, Reason, Refusal};

/// The gRPC code for `reason`.
pub const fn code(reason: Reason) -> Code {
    match reason {
        // Triton answers a full queue as a server that cannot serve now, and its clients retry on that.
        Reason::QueueFull => Code::Unavailable,
        Reason::ModelUnknown
        | Reason::VersionUnknown
        | Reason::LabelUnknown
        | Reason::SignatureUnknown
        | Reason::NotReady
        | Reason::Loading
        | Reason::InvalidInput
        | Reason::Unsupported
        | Reason::TooLarge
        | Reason::RateLimited
        | Reason::Late
        | Reason::Cancelled
        | Reason::Draining
        | Reason::Exists
        | Reason::Conflict
        | Reason::Forbidden
        | Reason::Unauthenticated
        | Reason::BackendFailed
        | Reason::BackendBroken
        | Reason::NotSaved => reason.code(),
    }
}

/// The HTTP status for `reason`.
pub const fn http_status(reason: Reason) -> u16 {
    match reason {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => 404,
        Reason::NotReady | Reason::Loading | Reason::Draining | Reason::QueueFull => 503,
        Reason::InvalidInput | Reason::Cancelled | Reason::Exists | Reason::Conflict => 400,
        Reason::Unsupported => 501,
        Reason::TooLarge => 413,
        Reason::RateLimited => 429,
        Reason::Late => 504,
        Reason::Forbidden => 403,
        Reason::Unauthenticated => 401,
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => 500,
    }
}

/// A refusal as this protocol puts it: its gRPC code, its HTTP status, its text.
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    http_status: u16,
    refusal: Refusal,
}

impl Failure {
    /// A request that came late by its own `timeout`: it finds the server unavailable, as Triton's queue policy puts it, and
    /// not its deadline exceeded.
    pub fn of_timeout(refusal: Refusal) -> Self {
        Self::with(Code::Unavailable, 503, refusal)
    }

    /// A refusal under a code and a status that the tables do not give it.
    pub(super) fn with(code: Code, http_status: u16, refusal: Refusal) -> Self {
        Self { code, http_status, refusal }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The HTTP status.
    pub fn http_status(&self) -> u16 {
        self.http_status
    }

    /// The refusal: reason, public text, retry time and cause.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: code(refusal.reason()), http_status: http_status(refusal.reason()), refusal }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.refusal, f)
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{Code, Reason};

    use super::{code, http_status};

    #[test]
    fn the_reasons_have_tritons_codes_and_statuses() {
        let expected = [
            (Reason::ModelUnknown, Code::NotFound, 404),
            (Reason::VersionUnknown, Code::NotFound, 404),
            (Reason::NotReady, Code::Unavailable, 503),
            (Reason::Loading, Code::Unavailable, 503),
            (Reason::InvalidInput, Code::InvalidArgument, 400),
            (Reason::Unsupported, Code::Unimplemented, 501),
            (Reason::TooLarge, Code::ResourceExhausted, 413),
            (Reason::QueueFull, Code::Unavailable, 503),
            (Reason::RateLimited, Code::ResourceExhausted, 429),
            (Reason::Late, Code::DeadlineExceeded, 504),
            (Reason::Cancelled, Code::Cancelled, 400),
            (Reason::Draining, Code::Unavailable, 503),
            (Reason::Exists, Code::AlreadyExists, 400),
            (Reason::Conflict, Code::FailedPrecondition, 400),
            (Reason::Forbidden, Code::PermissionDenied, 403),
            (Reason::Unauthenticated, Code::Unauthenticated, 401),
            (Reason::BackendFailed, Code::Internal, 500),
            (Reason::BackendBroken, Code::Internal, 500),
            (Reason::NotSaved, Code::Internal, 500),
        ];
        for (reason, wanted_code, wanted_status) in expected {
            assert_eq!((code(reason), http_status(reason)), (wanted_code, wanted_status), "{}", reason.name());
        }
    }

    #[test]
    fn every_reason_is_an_error_status() {
        for reason in Reason::ALL {
            assert!((400..=599).contains(&http_status(reason)), "{}", reason.name());
        }
    }
}
