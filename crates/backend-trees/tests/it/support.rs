//! Loading a fixture and asking it.

use std::sync::Arc;

use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, LoadError, MemoryFiles, Model, ModelSource};
use millrace_testkit::fixture_source;
pub(crate) use millrace_testkit::{arranged, by_name, run};

/// Loads a version folder of the fixtures, such as `trees/onnx/svc/1`.
pub(crate) fn load(version_dir: &str) -> Result<Arc<dyn Model>, LoadError> {
    TreesBackend::default().load(&fixture_source(version_dir))
}

/// A source of one file.
pub(crate) fn source(file: &str, bytes: impl Into<bytes::Bytes>) -> ModelSource {
    let files = MemoryFiles::default().with(file, bytes);
    ModelSource::new("made".parse().unwrap(), 1, Arc::new(files))
}
