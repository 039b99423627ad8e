//! Classify, regress and multi-inference: what their requests must be, and why none is answered.
//!
//! They carry examples, which a graph of TensorFlow parses itself; our models take tensors. So a request that is right
//! in everything else ends with a refusal that says so, and one that is wrong with what is wrong.

use millrace_core::{Code, ModelRef, Reason, Refusal, SERVING_DEFAULT, Servable, Signature};

use super::resolve::{Bare, Failure, Verb, signature_unknown};
use super::spec::ModelSpec;

/// One task of a multi-inference request.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Which model and signature.
    pub spec: Option<ModelSpec<'a>>,
    /// What is wanted of it, such as `tensorflow/serving/classify`.
    pub method: &'a str,
}

/// Why `verb` is refused on the signature called `name`.
pub fn refuse_examples(servable: &dyn Servable, verb: Verb, name: &str) -> Failure {
    match servable.signatures().find(name) {
        Some((_, signature)) => takes_tensors(servable, signature, verb).into(),
        None => signature_unknown(verb, name),
    }
}

/// The model that the tasks of a request mean.
///
/// # Errors
/// A [`Failure`] where there is no task, or those of [`ModelSpec::model`].
pub fn model_of_tasks<'a>(first: Option<&Task<'a>>) -> Result<ModelRef<'a>, Failure> {
    let first = first.ok_or_else(|| invalid("a MultiInferenceRequest needs at least one task".to_owned()))?;
    ModelSpec::model(first.spec.as_ref())
}

/// Why a request of these tasks, which are for `servable`, is refused.
pub fn refuse_tasks<'a>(servable: &dyn Servable, tasks: impl IntoIterator<Item = Task<'a>>) -> Failure {
    let mut seen: Vec<&str> = Vec::new();
    let mut model: Option<&str> = None;
    for task in tasks {
        let spec = task.spec.unwrap_or_default();
        if *model.get_or_insert(spec.name) != spec.name {
            return invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.".to_owned());
        }
        let name = if spec.signature.is_empty() { SERVING_DEFAULT } else { spec.signature };
        if seen.contains(&name) {
            return invalid(format!("Duplicate evaluation of signature: {}", Bare(name)));
        }
        if servable.signatures().find(name).is_none() {
            return signature_unknown(Verb::Classify, name);
        }
        if verb_of(task.method).is_none() {
            let message = format!("Unsupported signature method_name: {}", Bare(task.method));
            return Failure::with_code(Code::Unimplemented, Refusal::new(Reason::Unsupported, message));
        }
        seen.push(name);
    }
    match seen.first() {
        Some(name) => refuse_examples(servable, Verb::Classify, name),
        None => invalid("a MultiInferenceRequest needs at least one task".to_owned()),
    }
}

fn verb_of(method: &str) -> Option<Verb> {
    match method {
        "tensorflow/serving/classify" => Some(Verb::Classify),
        "tensorflow/serving/regress" => Some(Verb::Regress),
        _ => None,
    }
}

/// Why `verb` is refused on `signature`, which takes tensors.
pub fn takes_tensors(servable: &dyn Servable, signature: &Signature, verb: Verb) -> Refusal {
    let kind = match verb {
        Verb::Predict | Verb::Classify => "classification",
        Verb::Regress => "regression",
    };
    let text = match signature.inputs() {
        [input] if &*input.name == "inputs" => "its signature takes tensors and not examples".to_owned(),
        [_] => format!("No {kind} inputs found in SignatureDef"),
        _ => "Expected one input Tensor.".to_owned(),
    };
    Refusal::new(Reason::InvalidInput, format!("model `{}`: {text}; ask it with predict", servable.model()))
}

fn invalid(message: String) -> Failure {
    Refusal::new(Reason::InvalidInput, message).into()
}

#[cfg(test)]
mod tests {
    use millrace_core::{
        Code, DType, Dim, InferFuture, InferRequest, ModelName, Reason, Refusal, Servable, Signature, Signatures,
        TensorSpec,
    };

    use super::{Task, model_of_tasks, refuse_examples, refuse_tasks};
    use crate::tfs::{ModelSpec, Verb};

    #[derive(Debug)]
    struct Model(ModelName, Signatures);

    impl Model {
        fn taking(inputs: &[&str]) -> Self {
            let spec = |name: &&str| TensorSpec::new(name, DType::Fp32, [Dim::symbol("N")]);
            let signature = Signature::new(inputs.iter().map(spec).collect(), vec![spec(&"y")]).unwrap();
            Self("m".parse().unwrap(), Signatures::single(signature.clone()).with("other", signature))
        }
    }

    impl Servable for Model {
        fn model(&self) -> &ModelName {
            &self.0
        }
        fn version(&self) -> u64 {
            1
        }
        fn signatures(&self) -> &Signatures {
            &self.1
        }
        fn infer(&self, _request: InferRequest) -> InferFuture {
            InferFuture::refused(Refusal::new(Reason::Unsupported, "nobody asks it"))
        }
    }

    #[test]
    fn examples_are_refused_with_what_the_signature_lacks() {
        let refused = |inputs: &[&str], verb, name| {
            let failure = refuse_examples(&Model::taking(inputs), verb, name);
            assert_eq!(failure.code(), Code::InvalidArgument);
            failure.to_string()
        };
        assert!(refused(&["x"], Verb::Classify, "").contains("No classification inputs found in SignatureDef"));
        assert!(refused(&["x"], Verb::Regress, "other").contains("No regression inputs found in SignatureDef"));
        assert!(refused(&["a", "b"], Verb::Regress, "").contains("Expected one input Tensor."));
        assert!(refused(&["inputs"], Verb::Classify, "").contains("takes tensors and not examples"));
        assert_eq!(refused(&["x"], Verb::Classify, "s"), "No signature was found with the name: s");
    }

    #[test]
    fn tasks_are_for_one_model_and_distinct_signatures() {
        let task = |name, signature, method| {
            let spec = ModelSpec { name, signature, ..ModelSpec::default() };
            Task { spec: Some(spec), method }
        };
        let classify = "tensorflow/serving/classify";
        let refused = |tasks: &[Task<'_>]| {
            let failure = refuse_tasks(&Model::taking(&["x"]), tasks.iter().copied());
            (failure.code(), failure.to_string())
        };
        for (tasks, code, words) in [
            (&[][..], Code::InvalidArgument, "at least one task"),
            (&[task("m", "", classify), task("n", "other", classify)], Code::InvalidArgument, "same model name"),
            (
                &[task("m", "", classify), task("m", "serving_default", "tensorflow/serving/regress")],
                Code::InvalidArgument,
                "Duplicate evaluation of signature: serving_default",
            ),
            (&[task("m", "s", classify)], Code::InvalidArgument, "No signature was found with the name: s"),
            (
                &[task("m", "", classify), task("m", "other", "tensorflow/serving/predict")],
                Code::Unimplemented,
                "Unsupported signature method_name: tensorflow/serving/predict",
            ),
            (
                &[task("m", "", classify), task("m", "other", classify)],
                Code::InvalidArgument,
                "No classification inputs found",
            ),
        ] {
            let (got, message) = refused(tasks);
            assert_eq!(got, code, "{message}");
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(model_of_tasks(Some(&task("m", "", classify))).unwrap().name, "m");
        assert!(model_of_tasks(None).is_err());
        assert!(model_of_tasks(Some(&Task { spec: None, method: classify })).is_err());
    }
}
