//! A refusal as TorchServe puts it: status, type, text. Exhaustive tables: a new reason does not compile until it has an
//! answer here.

use std::fmt;

use millrace_core::{Code, Reason, Refusal};

use super::text::error_text;

/// The REST status for `reason`.
pub const fn rest_status(reason: Reason) -> u16 {
    match reason {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown => 404,
        Reason::SignatureUnknown | Reason::InvalidInput => 400,
        Reason::NotReady | Reason::Loading | Reason::QueueFull | Reason::Draining => 503,
        Reason::Unsupported => 501,
        Reason::TooLarge => 413,
        Reason::RateLimited => 429,
        Reason::Late => 504,
        Reason::Cancelled => 499,
        Reason::Exists | Reason::Conflict => 409,
        Reason::Forbidden => 403,
        Reason::Unauthenticated => 401,
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => 500,
    }
}

/// The name that clients match on in an error's `type`: a Java exception's where TorchServe has one for it.
pub const fn kind(reason: Reason) -> &'static str {
    match reason {
        Reason::ModelUnknown => "ModelNotFoundException",
        Reason::VersionUnknown | Reason::LabelUnknown => "ModelVersionNotFoundException",
        Reason::SignatureUnknown | Reason::InvalidInput => "BadRequestException",
        Reason::NotReady | Reason::Loading | Reason::QueueFull | Reason::Draining => "ServiceUnavailableException",
        Reason::Unsupported => "UnsupportedOperationException",
        Reason::TooLarge => "RequestTooLargeException",
        Reason::RateLimited => "TooManyRequestsException",
        Reason::Late => "RequestTimeoutException",
        Reason::Cancelled => "RequestCancelledException",
        Reason::Exists | Reason::Conflict => "ConflictStatusException",
        Reason::Forbidden => "ForbiddenException",
        Reason::Unauthenticated => "InvalidKeyException",
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => "InternalServerException",
    }
}

/// The `type` of a refusal for `reason` that is answered with `status`, which for a few is not the usual one.
pub const fn kind_of(status: u16, reason: Reason) -> &'static str {
    match (status, reason) {
        (404, Reason::Unsupported) => "ResourceNotFoundException",
        (405, _) => "MethodNotAllowedException",
        (403, Reason::Conflict) => "InvalidModelVersionException",
        _ => kind(reason),
    }
}

/// The canonical code for `reason`, over gRPC and in metrics.
const fn code(reason: Reason) -> Code {
    match reason {
        // A version that does not exist, whatever its string looks like.
        Reason::LabelUnknown => Code::NotFound,
        Reason::ModelUnknown
        | Reason::VersionUnknown
        | Reason::SignatureUnknown
        | Reason::NotReady
        | Reason::Loading
        | Reason::InvalidInput
        | Reason::Unsupported
        | Reason::TooLarge
        | Reason::QueueFull
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

/// A refusal as TorchServe puts it.
#[derive(Debug, Clone)]
pub struct Failure {
    status: u16,
    code: Code,
    refusal: Refusal,
}

impl Failure {
    /// No such path.
    pub fn no_such_resource() -> Self {
        let message = "Requested resource is not found, please refer to API document.";
        Self { status: 404, code: Code::NotFound, refusal: Refusal::new(Reason::Unsupported, message) }
    }

    /// A path that has other methods.
    pub fn method_not_allowed() -> Self {
        let message = "Requested method is not allowed, please refer to API document.";
        Self { status: 405, code: Code::Unimplemented, refusal: Refusal::new(Reason::Unsupported, message) }
    }

    /// The default version cannot go while `model`, whose name is safe to show, has others.
    pub(super) fn default_version_in_use(model: &str) -> Self {
        let message = format!("Cannot remove default version for model {model}");
        Self { status: 403, code: Code::FailedPrecondition, refusal: Refusal::new(Reason::Conflict, message) }
    }

    /// The same failure in other words; the words that it had become the cause.
    #[must_use]
    pub(super) fn reworded(refusal: Refusal, message: String) -> Self {
        refusal.reworded(message).into()
    }

    /// The HTTP status.
    pub fn rest_status(&self) -> u16 {
        self.status
    }

    /// The `type` that clients match on.
    pub fn kind(&self) -> &'static str {
        kind_of(self.status, self.refusal.reason())
    }

    /// The canonical code, for gRPC and metrics.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The refusal: reason, public text, retry time and cause.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The error as TorchServe writes it, JSON text.
    pub fn text(&self) -> String {
        error_text(self.status, self.kind(), self.refusal.message())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason();
        Self { status: rest_status(reason), code: code(reason), refusal }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.refusal, f)
    }
}
