//! The training libraries' own files: XGBoost's JSON and UBJ, LightGBM's text.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, Model, ModelSource};

/// The file names that these formats have by custom, most wanted first. A name is only a hint: [`load`] looks at the
/// content.
pub(crate) const NAMES: [&str; 0] = [];

/// Reads `bytes`, the content of the file `file` of `source`, whose name is one of [`NAMES`].
pub(crate) fn load(file: &str, _bytes: &Bytes, _source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    Err(LoadError::new(LoadErrorKind::Foreign, format!("{file}: not a file of trees")))
}
