//! The tables: reason to code, reason to REST status, state to number. Exhaustive on purpose: a new reason does not
//! compile until it has an answer here.

use millrace_core::{Code, Reason, VersionState};

/// The canonical code that TensorFlow Serving gives for `reason`, over gRPC and in metrics.
pub const fn code(reason: Reason) -> Code {
    match reason {
        // Its overload answer is UNAVAILABLE; RESOURCE_EXHAUSTED would tell its clients not to retry.
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

/// The REST status for `reason`.
pub const fn rest_status(reason: Reason) -> u16 {
    match reason {
        // TensorFlow Serving has no body limit, so its page says nothing; the general rule is 413 and not its 429.
        Reason::TooLarge => 413,
        Reason::ModelUnknown
        | Reason::VersionUnknown
        | Reason::LabelUnknown
        | Reason::SignatureUnknown
        | Reason::NotReady
        | Reason::Loading
        | Reason::InvalidInput
        | Reason::Unsupported
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
        | Reason::NotSaved => rest_status_of_code(code(reason)),
    }
}

/// The REST status for a canonical code.
pub(crate) const fn rest_status_of_code(code: Code) -> u16 {
    match code {
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
    }
}

/// The number of a version's state in protobuf messages.
pub const fn state_number(state: VersionState) -> i32 {
    match state {
        VersionState::Start => 10,
        VersionState::Loading => 20,
        VersionState::Available => 30,
        VersionState::Unloading => 40,
        VersionState::End => 50,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{Code, Reason};

    use super::{code, rest_status};

    #[test]
    fn a_full_queue_is_unavailable_and_503() {
        assert_eq!(code(Reason::QueueFull), Code::Unavailable);
        assert_eq!(rest_status(Reason::QueueFull), 503);
    }

    #[test]
    fn an_unknown_model_or_version_is_404_and_an_unknown_label_or_signature_400() {
        let statuses = [Reason::ModelUnknown, Reason::VersionUnknown, Reason::LabelUnknown, Reason::SignatureUnknown]
            .map(rest_status);
        assert_eq!(statuses, [404, 404, 400, 400]);
    }

    #[test]
    fn the_reasons_keep_their_meaning_over_rest() {
        let expected = [
            (Reason::InvalidInput, 400),
            (Reason::Unsupported, 501),
            (Reason::TooLarge, 413),
            (Reason::RateLimited, 429),
            (Reason::Late, 504),
            (Reason::Cancelled, 499),
            (Reason::Draining, 503),
            (Reason::Exists, 409),
            (Reason::Conflict, 400),
            (Reason::Forbidden, 403),
            (Reason::Unauthenticated, 401),
            (Reason::BackendFailed, 500),
            (Reason::BackendBroken, 500),
            (Reason::NotSaved, 500),
        ];
        for (reason, status) in expected {
            assert_eq!(rest_status(reason), status, "{}", reason.name());
        }
    }
}
