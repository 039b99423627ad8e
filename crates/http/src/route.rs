//! From a path to the family of routes that it belongs to. Each family reads the rest of its paths itself.
//!
//! Which family a path belongs to depends on what the listener is for: `/models` is an order's on one for operators and
//! a client's on any other.

use std::borrow::Cow;

use millrace_protocol::front::Roles;
use percent_encoding::percent_decode_str;

/// Routes that are read and answered in one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Family<'a> {
    /// Below `/v1/`: TensorFlow Serving's and KServe's v1. Holds the path after it.
    Tfs(&'a str),
    /// `/v2` and below: the Open Inference Protocol. Holds the path after it.
    Oip(&'a str),
    /// Below `/admin/`: our own orders. Holds the path after it.
    Admin(&'a str),
    /// The metrics page, under either of its names.
    Metrics,
    /// `/health`.
    Health,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// Nothing of ours, or not on this listener.
    Unknown,
}

/// The family of `path` on a listener of `roles`.
pub(crate) fn family(path: &str, roles: Roles) -> Family<'_> {
    let is = |known: &str| path.eq_ignore_ascii_case(known);
    if roles.inference
        && let Some(rest) = strip(path, "/v1/")
    {
        return Family::Tfs(rest);
    }
    if roles.management
        && let Some(rest) = strip(path, "/admin/")
    {
        return Family::Admin(rest);
    }
    if (roles.inference || roles.repository)
        && let Some(rest) = strip(path, "/v2").filter(|rest| rest.is_empty() || rest.starts_with('/'))
    {
        return Family::Oip(rest);
    }
    match path.len() {
        7 if is("/health") => Family::Health,
        8 if is("/metrics") => Family::Metrics,
        15 if is("/v2/health/live") => Family::Live,
        16 if is("/v2/health/ready") => Family::Ready,
        30 if is("/monitoring/prometheus/metrics") => Family::Metrics,
        _ => Family::Unknown,
    }
}

/// One part of a path, decoded. Bytes that are not UTF-8 become U+FFFD, which no model's name contains.
pub(crate) fn segment(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() {
        return None;
    }
    Some(if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { Cow::Borrowed(text) })
}

/// `text` without `prefix`, which may be in any case.
pub(crate) fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

#[cfg(test)]
mod tests {
    use millrace_protocol::front::Roles;

    use super::{Family, family};

    #[test]
    fn a_path_belongs_to_a_family_in_any_case() {
        assert_eq!(family("/V1/models", Roles::DATA), Family::Tfs("models"));
        assert_eq!(family("/metrics", Roles::DATA), Family::Metrics);
        assert_eq!(family("/monitoring/prometheus/metrics", Roles::DATA), Family::Metrics);
        assert_eq!(family("/health", Roles::DATA), Family::Health);
        assert_eq!(family("/v2/health/live", Roles::DATA), Family::Live);
        assert_eq!(family("/V2/HEALTH/READY", Roles::DATA), Family::Ready);
        for path in ["", "*", "/v1", "/nonsense", "/healthz", "/admin/models"] {
            assert_eq!(family(path, Roles::DATA), Family::Unknown, "{path}");
        }
    }

    #[test]
    fn what_a_listener_is_for_decides_what_it_answers() {
        assert_eq!(family("/admin/models", Roles::ADMIN), Family::Admin("models"));
        assert_eq!(family("/v1/models/m", Roles::ADMIN), Family::Unknown);
        let both = Roles::DATA.and(Roles::ADMIN);
        assert_eq!(family("/admin/models", both), Family::Admin("models"));
        assert_eq!(family("/v1/models/m", both), Family::Tfs("models/m"));
        assert_eq!(family("/metrics", Roles::METRICS), Family::Metrics);
        assert_eq!(family("/v1/models/m", Roles::METRICS), Family::Unknown);
    }
}
