//! Loading a fixture and asking it.

use std::sync::Arc;

use millrace_backend_trees::TreesBackend;
use millrace_core::{
    Admission, Backend, Batch, LoadError, MemoryFiles, Model, ModelSource, Part, RunContext, RunError, Tensor,
    TensorList,
};
use millrace_testkit::fixture_source;

/// Loads a version folder of the fixtures, such as `trees/onnx/svc/1`.
pub(crate) fn load(version_dir: &str) -> Result<Arc<dyn Model>, LoadError> {
    TreesBackend::default().load(&fixture_source(version_dir))
}

/// A source of one file.
pub(crate) fn source(file: &str, bytes: impl Into<bytes::Bytes>) -> ModelSource {
    let files = MemoryFiles::default().with(file, bytes);
    ModelSource::new("made".parse().unwrap(), 1, Arc::new(files))
}

/// Checks named inputs as a server does, and gives them in order.
pub(crate) fn arranged(model: &dyn Model, inputs: &[(String, Tensor)]) -> (TensorList, Admission) {
    let signature = model.signature();
    let inputs = signature.arrange(inputs.iter().cloned()).expect("the inputs have the signature's names");
    let admission = signature.check(&inputs).expect("the inputs fit the signature");
    model.admit(&admission).expect("the inputs fit the model");
    (inputs, admission)
}

/// Runs several requests as one batch on a new instance.
pub(crate) fn run(model: &dyn Model, requests: &[TensorList]) -> Result<Vec<TensorList>, RunError> {
    let signature = model.signature();
    let part = |inputs: &TensorList| {
        let admission = signature.check(inputs).expect("the inputs fit the signature");
        Part { inputs: inputs.clone(), rows: admission.rows }
    };
    let batch = Batch::new(requests.iter().map(part).collect(), 0);
    let outputs = model.instance().expect("an instance").run(&batch, &RunContext::plain())?;
    let shares = batch.split(&outputs, signature).expect("the outputs keep the contract");
    Ok(shares.into_iter().map(|share| share.into_iter().flatten().collect()).collect())
}

/// Outputs by name, as cases compare them.
pub(crate) fn by_name<'a>(model: &'a dyn Model, outputs: &'a [Tensor]) -> Vec<(&'a str, &'a Tensor)> {
    model.signature().outputs().iter().map(|spec| &*spec.name).zip(outputs).collect()
}
