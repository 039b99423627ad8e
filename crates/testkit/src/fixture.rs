//! The folder `fixtures` of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_core::{MemoryFiles, ModelSource};

/// The folder `fixtures`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A path inside the folder `fixtures`, such as `models/fraud/1/model.onnx`.
pub fn fixture(path: &str) -> PathBuf {
    fixtures().join(path)
}

/// The files of a version folder such as `models/fraud/1`, in memory, as a backend takes them.
///
/// # Panics
/// When the folder is not there or is not called after a version.
pub fn fixture_source(version_dir: &str) -> ModelSource {
    let dir = fixture(version_dir);
    let mut parts = version_dir.rsplit('/');
    let version = parts.next().and_then(|text| text.parse().ok()).expect("the last part is a version");
    let model = parts.next().and_then(|text| text.parse().ok()).expect("the part before it is a model name");
    let mut files = MemoryFiles::default();
    collect(&dir, "", &mut files);
    ModelSource::new(model, version, Arc::new(files))
}

fn collect(dir: &Path, prefix: &str, files: &mut MemoryFiles) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("the folder can be listed");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            let bytes = fs::read(entry.path()).expect("the file can be read");
            *files = std::mem::take(files).with(name, bytes);
        }
    }
}
