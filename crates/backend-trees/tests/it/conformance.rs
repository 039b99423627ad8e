//! The suite that every backend passes, on the fixtures.

use millrace_backend_trees::TreesBackend;
use millrace_core::Tensor;
use millrace_testkit::conformance::{self, Subject};
use millrace_testkit::{Case, fixture_source};

use crate::support::source;

fn subject(model: &str, cases: &[Case]) -> Subject {
    let of_model: Vec<&Case> = cases.iter().filter(|case| case.model == model).collect();
    assert!(!of_model.is_empty(), "no case for {model}");
    of_model.iter().fold(Subject::new(fixture_source(&format!("trees/onnx/{model}/1"))), |subject, case| {
        let named = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.clone());
        subject.case(case.inputs.iter().map(named), case.outputs.iter().map(named), case.tolerance)
    })
}

#[test]
fn conforms() {
    let cases = Case::folder("cases/trees");
    let good: Vec<Subject> = [
        "random_forest",
        "random_forest_words",
        "gradient_boosting_three",
        "hist_gradient_boosting",
        "columns_forest",
        "columns_boosted",
        "svc_probability",
        "linear_svc",
        "one_hot_words",
        "ordinal_words",
        "forest_of_doubles",
        "forest_of_any_width",
        "ensemble_1_fp32",
        "shapes",
        "logic",
        "casts",
        "mixes_rows",
        "fixed_rows",
    ]
    .map(|model| subject(model, &cases))
    .into();
    let bad = [
        source("model.onnx", &b""[..]),
        source("model.onnx", &b"not a model"[..]),
        source("weights.bin", &b"nothing"[..]),
        fixture_source("models/fraud/1"),
        fixture_source("bad-models/truncated/1"),
        fixture_source("bad-models/deep_subgraph/1"),
    ];
    conformance::run(&TreesBackend::default(), &good, &bad, &[]);
}
