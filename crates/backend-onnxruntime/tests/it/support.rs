//! The library to test with, and loading a fixture and asking it.
//!
//! The library is looked for as the product does, and then in the folder of Python's packages that the server's tests
//! with real clients are given (`MILLRACE_PYTHON`). A machine without one still checks everything that needs none.

use std::path::PathBuf;
use std::sync::OnceLock;

use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend, OnnxRuntimeConfig};
use millrace_core::{
    Admission, Backend, Batch, LoadError, LoadErrorKind, Model, Part, RunContext, RunError, Tensor, TensorList,
};
use millrace_testkit::fixture_source;

/// The engine, or `None` where there is no library; then the test says so, loudly.
pub(crate) fn engine() -> Option<&'static OnnxRuntimeBackend> {
    static ENGINE: OnceLock<Option<OnnxRuntimeBackend>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let usual = OnnxRuntimeBackend::default();
        let beside = clients_library().map(|file| OnnxRuntimeBackend::new(&OnnxRuntimeConfig { library: Some(file) }));
        std::iter::once(usual).chain(beside).find(|engine| matches!(engine.connect(), Availability::Loaded { .. }))
    });
    if engine.is_none() {
        let why = OnnxRuntimeBackend::default().connect();
        skipped(&why);
    }
    engine.as_ref()
}

#[expect(clippy::print_stderr, reason = "a test that checks nothing must not look like one that does")]
fn skipped(why: &Availability) {
    eprintln!("SKIPPED, nothing was checked: {why}");
}

/// What pip put beside the Python that runs the server's real clients.
fn clients_library() -> Option<PathBuf> {
    let target = std::env::current_exe().ok()?;
    let target = target.ancestors().find(|folder| folder.ends_with("target"))?.to_owned();
    let mut folders = vec![target];
    // A few levels down: target/…/lib/python3.x/site-packages/onnxruntime/capi.
    for _ in 0..5 {
        let subfolders = |folder: &PathBuf| folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        let is_likely = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let venv = path.join("pyvenv.cfg").is_file();
            venv || matches!(name, "lib" | "site-packages") || name.starts_with("python3")
        };
        folders = folders.iter().flat_map(subfolders).filter(is_likely).collect();
        for folder in &folders {
            let entries = folder.join("onnxruntime/capi").read_dir().into_iter().flatten().flatten();
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut files = entries.map(|entry| entry.path());
            if let Some(file) = files.find(|path| name(path).starts_with("libonnxruntime.so")) {
                return Some(file);
            }
        }
    }
    None
}

/// Loads a version folder of the fixtures, such as `models/fraud/1`.
pub(crate) fn load(engine: &OnnxRuntimeBackend, version_dir: &str) -> Result<std::sync::Arc<dyn Model>, LoadError> {
    engine.load(&fixture_source(version_dir))
}

/// Loads what must load.
pub(crate) fn loaded(engine: &OnnxRuntimeBackend, version_dir: &str) -> std::sync::Arc<dyn Model> {
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

/// Checks named inputs as a server does, and gives them in order.
pub(crate) fn arranged(model: &dyn Model, inputs: &[(String, Tensor)]) -> (TensorList, Admission) {
    let signature = model.signature();
    let inputs = signature.arrange(inputs.iter().cloned()).expect("the inputs have the signature's names");
    let admission = signature.check(&inputs).expect("the inputs fit the signature");
    model.admit(&admission).expect("the inputs fit the model");
    (inputs, admission)
}

/// The batch of several requests.
pub(crate) fn batch(model: &dyn Model, requests: &[TensorList]) -> Batch {
    let part = |inputs: &TensorList| {
        let admission = model.signature().check(inputs).expect("the inputs fit the signature");
        Part { inputs: inputs.clone(), rows: admission.rows }
    };
    Batch::new(requests.iter().map(part).collect(), 0)
}

/// Runs several requests as one batch on a new instance.
pub(crate) fn run(model: &dyn Model, requests: &[TensorList]) -> Result<Vec<TensorList>, RunError> {
    run_with(model, requests, &RunContext::plain())
}

/// The same with as many threads as `context` says.
pub(crate) fn run_with(
    model: &dyn Model,
    requests: &[TensorList],
    context: &RunContext<'_>,
) -> Result<Vec<TensorList>, RunError> {
    let batch = batch(model, requests);
    let outputs = model.instance().expect("an instance").run(&batch, context)?;
    let shares = batch.split(&outputs, model.signature()).expect("the outputs keep the contract");
    Ok(shares.into_iter().map(|share| share.into_iter().flatten().collect()).collect())
}

/// Outputs by name, as cases compare them.
pub(crate) fn by_name<'a>(model: &'a dyn Model, outputs: &'a [Tensor]) -> Vec<(&'a str, &'a Tensor)> {
    model.signature().outputs().iter().map(|spec| &*spec.name).zip(outputs).collect()
}
