//! The statuses of millrace's own HTTP routes: health, metrics and the admin plane.
//!
//! Protocols that others defined have their own tables; this one follows HTTP's plain meaning of each status.

use millrace_core::Reason;

/// The HTTP status for `reason` on a route of our own.
pub const fn http_status(reason: Reason) -> u16 {
    match reason {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => 404,
        Reason::NotReady | Reason::Loading | Reason::Draining => 503,
        Reason::InvalidInput => 400,
        Reason::Unsupported => 501,
        Reason::TooLarge => 413,
        Reason::QueueFull | Reason::RateLimited => 429,
        Reason::Late => 504,
        // Not in any standard; the number that proxies log for a client that left.
        Reason::Cancelled => 499,
        Reason::Exists | Reason::Conflict => 409,
        Reason::Forbidden => 403,
        Reason::Unauthenticated => 401,
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => 500,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Reason;

    use super::http_status;

    #[test]
    fn every_reason_is_an_error_status_and_only_our_own_faults_are_500() {
        for reason in Reason::ALL {
            let status = http_status(reason);
            assert!((400..=599).contains(&status), "{}: {status}", reason.name());
            let ours = matches!(reason, Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved);
            assert_eq!(status == 500, ours, "{}", reason.name());
        }
    }

    #[test]
    fn a_full_queue_is_429_and_a_large_body_413() {
        assert_eq!(http_status(Reason::QueueFull), 429);
        assert_eq!(http_status(Reason::TooLarge), 413);
    }
}
