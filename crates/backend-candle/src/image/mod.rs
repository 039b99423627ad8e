//! Networks over pictures: ViT and ResNet.

use std::sync::Arc;

use millrace_core::{LoadError, LoadErrorKind, Model};

use crate::architecture::Architecture;
use crate::backend::Loading;

/// Loads a network over pictures.
///
/// # Errors
/// [`LoadError`] naming the file and what is wrong in it.
pub(crate) fn load(_architecture: Architecture, _loading: &Loading<'_>) -> Result<Arc<dyn Model>, LoadError> {
    Err(LoadError::new(LoadErrorKind::Unsupported, "config.json: networks over pictures do not load yet"))
}
