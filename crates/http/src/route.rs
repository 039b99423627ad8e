//! From a path to a route, by hand on the bytes and without allocating (a percent-encoded name excepted).
//!
//! Paths match as a whole and without regard to case; names are percent-decoded after matching, so an encoded slash is
//! part of a name and never a separator. Which methods a route has is the caller's affair.

use std::borrow::Cow;

use millrace_core::{ModelRef, VersionChoice};
use millrace_protocol::tfs::Verb;
use percent_encoding::percent_decode_str;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `…:predict`, `…:classify`, `…:regress`.
    Infer(Target<'a>, Verb),
    /// `/v1/models/{name}…`.
    Status(Target<'a>),
    /// `…/metadata`.
    Metadata(Target<'a>),
    /// `/v1/models`.
    List,
    /// Anything else below `/v1/`.
    Malformed,
    /// The metrics page, under either of its names.
    Metrics,
    /// `/health`.
    Health,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// Nothing of ours.
    Unknown,
}

/// The model that a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    name: Cow<'a, str>,
    version: Picked<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Picked<'a> {
    Default,
    Digits(&'a str),
    Label(Cow<'a, str>),
}

/// A version that is all digits but no 64-bit number. Holds the digits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VersionTooLarge<'a>(pub(crate) &'a str);

impl Target<'_> {
    /// The model and version asked for.
    ///
    /// # Errors
    /// [`VersionTooLarge`] when the version does not fit a signed 64-bit number, as TensorFlow Serving counts.
    pub(crate) fn model(&self) -> Result<ModelRef<'_>, VersionTooLarge<'_>> {
        let version = match &self.version {
            Picked::Default => VersionChoice::Default,
            Picked::Digits(digits) => match digits.parse::<i64>().map(u64::try_from) {
                Ok(Ok(number)) => VersionChoice::Number(number),
                Ok(Err(_)) | Err(_) => return Err(VersionTooLarge(digits)),
            },
            Picked::Label(label) => VersionChoice::Label(label),
        };
        Ok(ModelRef { name: &self.name, version })
    }
}

/// The route that `path` means.
pub(crate) fn route(path: &str) -> Route<'_> {
    if let Some(rest) = strip(path, "/v1/") {
        return tfs(rest).unwrap_or(Route::Malformed);
    }
    let is = |known: &str| path.eq_ignore_ascii_case(known);
    match path.len() {
        7 if is("/health") => Route::Health,
        8 if is("/metrics") => Route::Metrics,
        15 if is("/v2/health/live") => Route::Live,
        16 if is("/v2/health/ready") => Route::Ready,
        30 if is("/monitoring/prometheus/metrics") => Route::Metrics,
        _ => Route::Unknown,
    }
}

/// The part of a path after `/v1/`.
fn tfs(rest: &str) -> Option<Route<'_>> {
    if rest.eq_ignore_ascii_case("models") {
        return Some(Route::List);
    }
    let rest = strip(rest, "models/")?;
    if let Some((model, verb)) = rest.split_once(':') {
        return Some(Route::Infer(target(model)?, parse_verb(verb)?));
    }
    // A model or a label may be called `metadata` too.
    let metadata = rest.rsplit_once('/').filter(|(_, last)| last.eq_ignore_ascii_case("metadata"));
    let metadata = metadata.and_then(|(model, _)| target(model)).map(Route::Metadata);
    metadata.or_else(|| target(rest).map(Route::Status))
}

fn parse_verb(text: &str) -> Option<Verb> {
    [Verb::Predict, Verb::Classify, Verb::Regress].into_iter().find(|verb| text.eq_ignore_ascii_case(verb.name()))
}

/// `{name}`, `{name}/versions/{digits}` or `{name}/labels/{label}`.
fn target(text: &str) -> Option<Target<'_>> {
    let mut parts = text.split('/');
    let name = segment(parts.next()?)?;
    let version = match parts.next() {
        None => Picked::Default,
        Some(kind) if kind.eq_ignore_ascii_case("versions") => {
            let digits = parts.next()?;
            let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            all_digits.then_some(Picked::Digits(digits))?
        }
        Some(kind) if kind.eq_ignore_ascii_case("labels") => Picked::Label(segment(parts.next()?)?),
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Target { name, version })
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
mod tests;
