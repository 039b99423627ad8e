//! From a path to the family of routes that it belongs to. Each family reads the rest of its paths itself.
//!
//! Which family a path belongs to depends on what the listener is for: `/models` is an order's on one for operators and
//! a client's on any other.

use std::borrow::Cow;

use millrace_protocol::front::Roles;
use percent_encoding::percent_decode_str;

use crate::{general, platform, text};

/// Routes that are read and answered in one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Family<'a> {
    /// Below `/v1/`: TensorFlow Serving's and KServe's v1. Holds the path after it.
    Tfs(&'a str),
    /// `/v2` and below: the Open Inference Protocol. Holds the path after it.
    Oip(&'a str),
    /// Below `/admin/`: our own orders. Holds the path after it.
    Admin(&'a str),
    /// What a hosting platform prescribes.
    Platform(platform::Route<'a>),
    /// TorchServe's inference API.
    TorchServe,
    /// TorchServe's management API.
    Management,
    /// The general endpoints.
    General(general::Route<'a>),
    /// The routes of text models.
    Text(text::Route<'a>),
    /// `/`.
    Root,
    /// `/openapi.json`.
    OpenApi,
    /// `/docs`.
    Docs,
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
        return if rest.eq_ignore_ascii_case("embeddings") { Family::Text(text::OPENAI) } else { Family::Tfs(rest) };
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
        _ => by_first_name(path, roles),
    }
}

/// The family of a path that its first name decides.
fn by_first_name(path: &str, roles: Roles) -> Family<'_> {
    let first = path.strip_prefix('/').map(|rest| rest.split_once('/').map_or(rest, |(first, _)| first));
    let general = general::route(path).filter(|_| roles.inference);
    match (first, general) {
        (Some("models"), None | Some(general::Route::Models)) if roles.management => Family::Management,
        (_, Some(route)) => Family::General(route),
        (Some("predictions" | "explanations" | "ping" | "api-description"), None) if roles.inference => {
            Family::TorchServe
        }
        (Some(""), None) if roles.inference && path == "/" => Family::Root,
        (Some("openapi.json"), None) if roles.inference && path == "/openapi.json" => Family::OpenApi,
        (Some("docs"), None) if roles.inference && path == "/docs" => Family::Docs,
        // What only TorchServe's management port has.
        (Some("" | "api-description" | "v1"), None) if roles.management => Family::Management,
        _ => text::route(path).filter(|_| roles.inference).map_or(Family::Unknown, Family::Text),
    }
}

/// What stands between slashes. Byte by byte, which for texts this short is quicker than a search for each slash.
pub(crate) fn parts(path: &str) -> impl Iterator<Item = &str> {
    let mut left = Some(path);
    std::iter::from_fn(move || {
        let path = left?;
        let slash = path.bytes().position(|byte| byte == b'/');
        left = slash.and_then(|at| path.get(at + 1..));
        path.get(..slash.unwrap_or(path.len()))
    })
}

/// One part of a path, decoded. Bytes that are not UTF-8 become U+FFFD, which no model's name contains.
pub(crate) fn segment(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() {
        return None;
    }
    let is_encoded = text.bytes().any(|byte| byte == b'%');
    Some(if is_encoded { percent_decode_str(text).decode_utf8_lossy() } else { Cow::Borrowed(text) })
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
    use crate::general;

    #[test]
    fn a_path_belongs_to_a_family_in_any_case() {
        assert_eq!(family("/V1/models", Roles::DATA), Family::Tfs("models"));
        assert_eq!(family("/metrics", Roles::DATA), Family::Metrics);
        assert_eq!(family("/monitoring/prometheus/metrics", Roles::DATA), Family::Metrics);
        assert_eq!(family("/health", Roles::DATA), Family::Health);
        assert_eq!(family("/v2/health/live", Roles::DATA), Family::Oip("/health/live"));
        assert_eq!(family("/v2/health/live", Roles::METRICS), Family::Live);
        assert_eq!(family("/V2/HEALTH/READY", Roles::METRICS), Family::Ready);
        assert_eq!(family("/", Roles::DATA), Family::Root);
        assert_eq!(family("/openapi.json", Roles::DATA), Family::OpenApi);
        assert_eq!(family("/docs", Roles::DATA), Family::Docs);
        assert_eq!(family("/predict/m", Roles::DATA), Family::General(general::Route::Predict(Some("m"))));
        for path in ["/predictions/m", "/predictions", "/explanations/m", "/ping", "/api-description"] {
            assert_eq!(family(path, Roles::DATA), Family::TorchServe, "{path}");
        }
        for path in ["", "*", "/v1", "/nonsense", "/healthz", "/admin/models", "/models/m", "/predictionsx", "/docs/"] {
            assert_eq!(family(path, Roles::DATA), Family::Unknown, "{path}");
        }
    }

    #[test]
    fn what_a_listener_is_for_decides_what_it_answers() {
        assert_eq!(family("/admin/models", Roles::ADMIN), Family::Admin("models"));
        for path in ["/models", "/models/m/1.0", "/v1/models/m", "/", "/api-description"] {
            assert_eq!(family(path, Roles::ADMIN), Family::Management, "{path}");
        }
        assert_eq!(family("/predictions/m", Roles::ADMIN), Family::Unknown);
        assert_eq!(family("/models", Roles::DATA), Family::General(general::Route::Models));
        let both = Roles::DATA.and(Roles::ADMIN);
        assert_eq!(family("/admin/models", both), Family::Admin("models"));
        assert_eq!(family("/v1/models/m", both), Family::Tfs("models/m"));
        assert_eq!(family("/models", both), Family::Management);
        assert_eq!(family("/models/m/metrics", both), Family::General(general::Route::Metrics("m")));
        assert_eq!(family("/models/m/1.0", both), Family::Management);
        assert_eq!(family("/metrics", Roles::METRICS), Family::Metrics);
        assert_eq!(family("/v1/models/m", Roles::METRICS), Family::Unknown);
    }
}
