//! The training libraries' own files: XGBoost's JSON and UBJ, LightGBM's text.
//!
//! Each reader turns a file into a [`forest`](crate::forest) and a [`model::Link`]; what is served, and how, is the same
//! for all of them and stands in `model`. Pickles and XGBoost's old binary files are not read.

mod lightgbm;
mod model;
mod ubj;
mod xgboost;

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, Model, ModelSource, OptionReader};

use self::model::LibraryModel;
use crate::forest::ForestError;

/// The file names that these formats have by custom, most wanted first. A name is only a hint: [`load`] looks at the
/// content.
pub(crate) const NAMES: [&str; 10] = [
    "model.ubj",
    "model.json",
    "model.txt",
    "xgboost.ubj",
    "xgboost.json",
    "lightgbm.txt",
    "model.xgb",
    "model.lgb",
    "model.bst",
    "xgboost.model",
];

/// Reads `bytes`, the content of the file `file` of `source`, whose name is one of [`NAMES`].
///
/// # Errors
/// [`LoadError`]: `Foreign` where the content is of none of these formats.
pub(crate) fn load(file: &str, bytes: &Bytes, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    // There are none yet; a word that does nothing would be taken for one that works.
    OptionReader::new(&source.options).finish()?;
    let model = read(bytes).map_err(|error| {
        let text = format!("{file}: {error}");
        LoadError::new(error.kind(), text).with_cause(error)
    })?;
    let held = model.memory_bytes();
    if held > source.memory_budget {
        let text = format!("{file}: its trees take {held} bytes, and {} may be taken", source.memory_budget);
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    Ok(Arc::new(model))
}

/// Reads a file of any of the formats.
fn read(bytes: &[u8]) -> Result<LibraryModel, LoadError> {
    match kind(bytes) {
        Some(Kind::XgboostJson) => xgboost::json(bytes),
        Some(Kind::XgboostUbj) => xgboost::ubj(bytes),
        Some(Kind::LightgbmText) => lightgbm::text(bytes),
        None if bytes.starts_with(b"binf") || bytes.starts_with(b"bs64") => Err(LoadError::new(
            LoadErrorKind::Unsupported,
            "XGBoost's old binary format is not read: save the model again as model.ubj or model.json",
        )),
        None => Err(LoadError::new(
            LoadErrorKind::Foreign,
            "neither XGBoost's JSON or UBJ nor LightGBM's text, as `save_model` writes them",
        )),
    }
}

enum Kind {
    XgboostJson,
    XgboostUbj,
    LightgbmText,
}

/// What `bytes` look like, by how they begin.
fn kind(bytes: &[u8]) -> Option<Kind> {
    let text = bytes.trim_ascii_start();
    match text {
        [b'{', rest @ ..] => match rest.trim_ascii_start() {
            [b'"', ..] => Some(Kind::XgboostJson),
            // In UBJ the first key's length comes next, behind the mark of its type.
            [b'i' | b'U' | b'I' | b'l' | b'L' | b'#' | b'$', ..] => Some(Kind::XgboostUbj),
            _ => None,
        },
        _ if text.starts_with(b"tree") && text[4..].trim_ascii_start().starts_with(b"version=") => {
            Some(Kind::LightgbmText)
        }
        _ => None,
    }
}

fn invalid(text: impl Into<String>) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, text)
}

fn unsupported(text: impl Into<String>) -> LoadError {
    LoadError::new(LoadErrorKind::Unsupported, text)
}

impl From<ForestError> for LoadError {
    fn from(error: ForestError) -> Self {
        let kind = match error {
            ForestError::TooLarge { .. } => LoadErrorKind::TooLarge,
            _ => LoadErrorKind::Invalid,
        };
        Self::new(kind, error.to_string()).with_cause(error)
    }
}

#[cfg(test)]
mod tests;
