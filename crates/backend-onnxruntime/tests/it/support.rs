//! The library to test with, and loading a fixture and asking it.
//!
//! The library is looked for as the product does; a machine without one gets it from `tests/library.sh`, once, into the
//! target folder. Where there is no Python for that either, everything that needs no library is still checked.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend, OnnxRuntimeConfig};
use millrace_core::{Backend, LoadError, LoadErrorKind, Model};
use millrace_testkit::fixture_source;
pub(crate) use millrace_testkit::{arranged, batch, by_name, run, run_with};

/// The engine, or `None` where there is no library; then the test says so, past the test harness's capture.
pub(crate) fn engine() -> Option<&'static OnnxRuntimeBackend> {
    static ENGINE: OnceLock<Option<OnnxRuntimeBackend>> = OnceLock::new();
    let make = || {
        let usual = OnnxRuntimeBackend::default();
        if matches!(usual.connect(), Availability::Loaded { .. }) {
            return Some(usual);
        }
        let Some(library) = installed() else {
            let note = format!("SKIPPED, nothing was checked: {}\n", usual.connect());
            std::io::stderr().write_all(note.as_bytes()).expect("there is an error stream");
            return None;
        };
        let engine = OnnxRuntimeBackend::new(&OnnxRuntimeConfig { library: Some(library) });
        let availability = engine.connect();
        assert!(matches!(availability, Availability::Loaded { .. }), "{availability}");
        Some(engine)
    };
    ENGINE.get_or_init(make).as_ref()
}

/// The library that pip gets, or `None` where there is no Python.
fn installed() -> Option<PathBuf> {
    match Command::new("python3").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        other => other.expect("python3 starts"),
    };
    // The folder above the one for tests' temporary files is where cargo builds.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library.sh");
    let made = Command::new("sh").arg(script).arg(target).output().expect("sh starts");
    assert!(made.status.success(), "no library: {}", String::from_utf8_lossy(&made.stderr));
    Some(PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim_end()))
}

/// Loads a version folder of the fixtures, such as `models/fraud/1`.
pub(crate) fn load(engine: &OnnxRuntimeBackend, version_dir: &str) -> Result<Arc<dyn Model>, LoadError> {
    engine.load(&fixture_source(version_dir))
}

/// Loads what must load.
pub(crate) fn loaded(engine: &OnnxRuntimeBackend, version_dir: &str) -> Arc<dyn Model> {
    load(engine, version_dir).unwrap_or_else(|error| panic!("{version_dir}: {error}"))
}

/// Checks that a folder does not load, with this kind and these words and no path of the machine.
#[track_caller]
pub(crate) fn refuses(version_dir: &str, kinds: &[LoadErrorKind], words: &[&str]) {
    let Some(engine) = engine() else { return };
    let Err(error) = load(engine, version_dir) else { panic!("{version_dir} loaded") };
    let text = error.to_string();
    assert!(kinds.contains(&error.kind()), "{version_dir}: {:?}: {text}", error.kind());
    for word in words {
        assert!(text.contains(word), "{version_dir}: `{word}` is not in: {text}");
    }
    assert!(!text.contains("/etc") && !text.contains("../") && !text.contains("onnxruntime_src"), "{text}");
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
}
