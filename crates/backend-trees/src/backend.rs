//! From files to a loaded model: find the file and hand it to its reader.

use std::sync::Arc;

use millrace_core::{Backend, LoadError, LoadErrorKind, Model, ModelSource};

use crate::formats;

/// The engine: trees, and the pipelines that they stand in, on the CPU.
#[derive(Debug, Clone, Default)]
pub struct TreesBackend {}

impl Backend for TreesBackend {
    fn name(&self) -> &'static str {
        "trees"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        model_file(source).is_ok()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let file = model_file(source)?;
        let bytes = source.files.read(file).map_err(|error| {
            LoadError::new(LoadErrorKind::Missing, format!("{file}: reading: {error}")).with_cause(error)
        })?;
        formats::load(file, &bytes, source)
    }
}

/// The one model file of the version.
fn model_file(source: &ModelSource) -> Result<&str, LoadError> {
    let names = || source.files.list().iter().map(|(name, _)| name.as_str());
    formats::NAMES
        .into_iter()
        .find_map(|wanted| names().find(|name| *name == wanted))
        .ok_or_else(|| LoadError::new(LoadErrorKind::Missing, "no model file"))
}
