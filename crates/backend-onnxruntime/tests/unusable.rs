//! Libraries that cannot be used, and that a right one still can afterwards. A process of its own: the library of a
//! process cannot be changed once it is loaded.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend, OnnxRuntimeConfig};
use millrace_core::{Backend, LoadErrorKind};
use millrace_testkit::fixture_source;

fn backend(library: PathBuf) -> OnnxRuntimeBackend {
    OnnxRuntimeBackend::new(&OnnxRuntimeConfig { library: Some(library) })
}

/// Loading a model says `words` and nothing else happens.
#[track_caller]
fn refused(library: PathBuf, words: &[&str]) {
    let engine = backend(library);
    let (connected, loaded) = (engine.connect(), engine.load(&fixture_source("models/fraud/1")));
    let Err(error) = loaded else { panic!("a model loaded") };
    assert_eq!(error.kind(), LoadErrorKind::Unsupported, "{error}");
    for text in [connected.to_string(), error.to_string()] {
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(matches!(connected, Availability::Absent(_)));
}

/// A library that looks like the engine's as far as `source` goes, or `None` without a C compiler.
fn compiled(folder: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let (code, library) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
    std::fs::write(&code, source).expect("the folder is ours");
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status();
    if compiler.is_ok_and(|status| status.success()) {
        return Some(library);
    }
    std::io::stderr().write_all(b"SKIPPED without a C compiler: libraries that are not ours\n").expect("a stream");
    None
}

fn claiming(version: &str) -> String {
    format!(
        "typedef struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} Base;\n\
         static const void *api(unsigned asked) {{ (void)asked; return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const Base base = {{ api, version }};\n\
         const Base *OrtGetApiBase(void) {{ return &base; }}\n"
    )
}

#[test]
fn wrong_libraries_give_a_text_and_a_right_one_still_loads() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").expect("the folder is ours");
    refused(text, &["libonnxruntime.so cannot be loaded"]);
    refused(folder.path().to_owned(), &["is not a regular file", "pip install onnxruntime"]);
    let absent = folder.path().join("absent.so");
    assert!(matches!(backend(absent.clone()).availability(), Availability::Absent(_)));
    assert!(!backend(absent.clone()).recognises(&fixture_source("models/fraud/1")));
    refused(absent, &["absent.so", "not found", "ORT_DYLIB_PATH"]);
    if let Some(other) = compiled(folder.path(), "other", "int nothing(void) { return 0; }") {
        refused(other, &["is another library", "OrtGetApiBase"]);
    }
    if let Some(old) = compiled(folder.path(), "old", &claiming("1.9.0")) {
        refused(old, &["is version 1.9.0; expected 1.18 or newer"]);
    }
    // It says that it is new enough and has no interface all the same.
    if let Some(liar) = compiled(folder.path(), "liar", &claiming("1.99.0")) {
        refused(liar, &["is version 1.99.0"]);
    }
    if let Some(broken) = compiled(folder.path(), "none", "const void *OrtGetApiBase(void) { return 0; }") {
        refused(broken, &["gives no interface"]);
    }
    let right = OnnxRuntimeBackend::default();
    if let Availability::Found { library } = right.availability() {
        assert!(matches!(right.connect(), Availability::Loaded { .. }), "{}", library.display());
        assert!(right.load(&fixture_source("models/fraud/1")).is_ok());
    }
}
