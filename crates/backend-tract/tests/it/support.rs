//! Loading a fixture and asking it.

use std::sync::Arc;

use millrace_backend_tract::TractBackend;
use millrace_core::{Backend, LoadError, Model};
use millrace_testkit::fixture_source;
pub(crate) use millrace_testkit::{arranged, by_name, run};

/// Loads a version folder of the fixtures, such as `models/fraud/1`.
pub(crate) fn load(version_dir: &str) -> Result<Arc<dyn Model>, LoadError> {
    TractBackend::default().load(&fixture_source(version_dir))
}

/// Loads what must load.
pub(crate) fn loaded(version_dir: &str) -> Arc<dyn Model> {
    load(version_dir).unwrap_or_else(|error| panic!("{version_dir}: {error}"))
}
