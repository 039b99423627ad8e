//! The suite that every backend passes, on the fixtures.

use millrace_core::Tensor;
use millrace_testkit::conformance::{self, Subject};
use millrace_testkit::{Case, fixture_source};

use crate::support::engine;

fn subject(folder: &str, model: &str, cases: &[Case]) -> Subject {
    let of_model: Vec<&Case> = cases.iter().filter(|case| case.model == model && case.version == 1).collect();
    assert!(!of_model.is_empty(), "no case for {model}");
    of_model.iter().fold(Subject::new(fixture_source(&format!("{folder}/{model}/1"))), |subject, case| {
        let named = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.clone());
        subject.case(case.inputs.iter().map(named), case.outputs.iter().map(named), case.tolerance)
    })
}

#[test]
fn conforms() {
    let Some(engine) = engine() else { return };
    let (models, extra) = (Case::models(), Case::extra());
    let mut good: Vec<Subject> = ["half_plus_two", "sum_diff", "row_mean", "scale_scalar", "fraud", "iris", "digits"]
        .map(|model| subject("models", model, &models))
        .into();
    good.extend(["identity_bool", "identity_fp16", "identity_string"].map(|model| subject("models", model, &models)));
    good.extend(
        ["no_batch", "output_const", "cross_rows", "shrinking_conv", "f16_gemm", "lstm_symbolic", "tree_binary"]
            .map(|model| subject("extra", model, &extra)),
    );
    let outside = Tensor::from_vec(&[1, 1], vec![99_i64]).unwrap();
    good.push(subject("extra", "gather_tokens", &extra).invalid([("ids", outside)]));
    let bad =
        ["truncated", "garbage", "empty", "wrong_extension", "unknown_op", "cyclic", "deep_subgraph", "huge_constant"]
            .map(|model| fixture_source(&format!("bad-models/{model}/1")));
    conformance::run(engine, &good, &bad, &[]);
}
