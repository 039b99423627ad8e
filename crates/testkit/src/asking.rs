//! Asking a model without a server: several requests as one batch, as cases put them.

use millrace_core::{Admission, Batch, Model, Part, RunContext, RunError, Tensor, TensorList};

/// Checks named inputs as a server does, and gives them in order.
pub fn arranged(model: &dyn Model, inputs: &[(String, Tensor)]) -> (TensorList, Admission) {
    let signature = model.signature();
    let inputs = signature.arrange(inputs.iter().cloned()).expect("the inputs have the signature's names");
    let admission = signature.check(&inputs).expect("the inputs fit the signature");
    model.admit(&admission).expect("the inputs fit the model");
    (inputs, admission)
}

/// The batch of several requests.
pub fn batch(model: &dyn Model, requests: &[TensorList]) -> Batch {
    let part = |inputs: &TensorList| {
        let admission = model.signature().check(inputs).expect("the inputs fit the signature");
        Part { inputs: inputs.clone(), rows: admission.rows }
    };
    Batch::new(requests.iter().map(part).collect(), 0)
}

/// Runs several requests as one batch on a new instance.
pub fn run(model: &dyn Model, requests: &[TensorList]) -> Result<Vec<TensorList>, RunError> {
    run_with(model, requests, &RunContext::plain())
}

/// The same with as many threads as `context` says.
pub fn run_with(
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
pub fn by_name<'a>(model: &'a dyn Model, outputs: &'a [Tensor]) -> Vec<(&'a str, &'a Tensor)> {
    model.signature().outputs().iter().map(|spec| &*spec.name).zip(outputs).collect()
}
