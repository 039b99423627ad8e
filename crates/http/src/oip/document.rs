//! What every document of this protocol shares: keys that stand once, values of the right kind, and what is wrong else.

use std::borrow::Cow;

use millrace_core::{Reason, Refusal};
use millrace_json::{JsonError, Kind, Reader, Scalar};

/// What is wrong with a document: its syntax, or what it says.
pub(super) enum Wrong {
    Json(JsonError),
    Refused(Refusal),
}

impl From<JsonError> for Wrong {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(super) fn invalid(text: String) -> Wrong {
    Wrong::Refused(Refusal::new(Reason::InvalidInput, text))
}

/// Fills the slot of `key`; every key that means something stands once.
pub(super) fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), Wrong> {
    if slot.replace(value).is_some() { Err(invalid(format!("duplicate key '{key}'"))) } else { Ok(()) }
}

/// Refuses any other kind of value than `kind`, saying what was expected.
pub(super) fn want(reader: &mut Reader<'_>, kind: Kind, expected: &str) -> Result<(), Wrong> {
    if reader.kind()? == kind { Ok(()) } else { Err(invalid(format!("{expected}, got {}", reader.shown()))) }
}

/// Reads a string.
pub(super) fn string<'a>(reader: &mut Reader<'a>, expected: &str) -> Result<Cow<'a, str>, Wrong> {
    let here = *reader;
    match reader.scalar()? {
        Some(Scalar::String(text)) => Ok(text),
        _ => Err(invalid(format!("{expected}, got {}", here.shown()))),
    }
}
