//! Cases in the words of the general endpoints: tables of floats in, tables of floats out.

use millrace_core::{DType, Tensor};
use millrace_testkit::Case;
use serde_json::json;

use super::{Asker, Outputs};
use crate::support::json::{self, Text};

/// One table in, one table out, and no value that strict JSON lacks.
pub(super) fn is_table(case: &Case) -> bool {
    let table = |tensor: &Tensor| {
        let finite = match tensor.dtype() {
            DType::Fp32 => tensor.elements::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
            DType::Fp64 => tensor.elements::<f64>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
            _ => false,
        };
        finite && tensor.shape().len() == 2
    };
    case.inputs.len() == 1 && case.outputs.len() == 1 && table(&case.inputs[0].1) && table(&case.outputs[0].1)
}

pub(super) fn predict(asker: &mut Asker, case: &Case) -> Outputs {
    let (model, version) = (json!(case.model), json!(case.version.to_string()));
    let data = json::nested(&case.inputs[0].1, Text::Plain);
    let body = format!("{{\"model_name\": {model}, \"model_version\": {version}, \"input_data\": {data}}}");
    let reply = asker.http.post("/predict", body);
    assert_eq!(reply.status, 200, "{}: {}", case.model, reply.text());
    let answer = json::parse(&reply.text());
    assert_eq!((&answer["model_name"], &answer["model_version"]), (&model, &version));
    let (name, want) = &case.outputs[0];
    vec![(name.clone(), json::tensor(&answer["predictions"], want))]
}
