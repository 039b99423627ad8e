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
        copy(&fixture(fixture_path), &self.path().join(model).join(version.to_string()));
        self
    }

    /// Writes the `model.toml` of `model`.
    pub(crate) fn described(self, model: &str, toml: &str) -> Self {
        fs::create_dir_all(self.path().join(model)).expect("the folder can be made");
        fs::write(self.path().join(model).join("model.toml"), toml).expect("the file can be written");
        self
    }

    pub(crate) fn file(self, model: &str, version: u64, name: &str, text: &str) -> Self {
        let folder = self.path().join(model).join(version.to_string());
        fs::create_dir_all(&folder).expect("the folder can be made");
        fs::write(folder.join(name), text).expect("the file can be written");
        self
    }
}

/// Copies the files of a folder, and those of the folders in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}
