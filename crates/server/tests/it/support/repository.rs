//! A model repository in a temporary folder.

use std::fs;
use std::path::Path;

use millrace_testkit::{FakeBackend, fixture};
use tempfile::TempDir;

/// Removed with the test.
#[derive(Debug)]
pub(crate) struct Repository(TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds version `version` of `model` for the fake engine: `y = x * scale + offset`.
    pub(crate) fn fake(self, model: &str, version: u64, scale: f32, offset: f32) -> Self {
        self.file(model, version, "model.fake", &FakeBackend::file(scale, offset))
    }

    /// Adds a copy of a version among the fixtures, such as `models/fraud/1`, as version `version` of `model`.
    pub(crate) fn copy(self, fixture_path: &str, model: &str, version: u64) -> Self {
        let folder = self.path().join(model).join(version.to_string());
        fs::create_dir_all(&folder).expect("the folder can be made");
        for entry in fs::read_dir(fixture(fixture_path)).expect("the fixture is there") {
            let entry = entry.expect("it can be read");
            if entry.file_type().expect("it has a type").is_file() {
                fs::copy(entry.path(), folder.join(entry.file_name())).expect("it can be copied");
            }
        }
        self
    }

    pub(crate) fn file(self, model: &str, version: u64, name: &str, text: &str) -> Self {
        let folder = self.path().join(model).join(version.to_string());
        fs::create_dir_all(&folder).expect("the folder can be made");
        fs::write(folder.join(name), text).expect("the file can be written");
        self
    }
}
