//! The paths below `/v1/`, by hand on the bytes and without allocating (a percent-encoded name excepted).
//!
//! Paths match as a whole and without regard to case; names are percent-decoded after matching, so an encoded slash is
//! part of a name and never a separator. Which methods a route has is the caller's affair.

use std::borrow::Cow;

use millrace_core::{ModelRef, VersionChoice};
use millrace_protocol::tfs::Verb;

use crate::route::{parts, segment, strip};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `…:predict`, `…:classify`, `…:regress`.
    Infer(Target<'a>, Verb),
    /// `…:explain`, KServe's.
    Explain(Target<'a>),
    /// `/v1/models/{name}…`.
    Status(Target<'a>),
    /// `…/metadata`.
    Metadata(Target<'a>),
    /// `/v1/models`.
    List,
    /// Anything else.
    Malformed,
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

/// The route that a path means whose part after `/v1/` is `rest`.
pub(super) fn route(rest: &str) -> Route<'_> {
    known(rest).unwrap_or(Route::Malformed)
}

fn known(rest: &str) -> Option<Route<'_>> {
    if rest.eq_ignore_ascii_case("models") {
        return Some(Route::List);
    }
    let rest = strip(rest, "models/")?;
    if let Some((model, verb)) = rest.split_once(':') {
        if verb.eq_ignore_ascii_case("explain") {
            return Some(Route::Explain(target(model)?));
        }
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
    let mut parts = parts(text);
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

#[cfg(test)]
mod tests;
