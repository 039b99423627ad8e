//! Every golden case of pipelines and operators, and what is known about the models.

use std::panic::catch_unwind;

use millrace_core::{Batch, DType, Part, RunContext};
use millrace_testkit::Case;

use crate::support::{arranged, by_name, load, run};

fn check(case: &Case) {
    let model = load(&format!("trees/onnx/{}/{}", case.model, case.version))
        .unwrap_or_else(|error| panic!("{}: {error}", case.model));
    let (inputs, _) = arranged(&*model, &case.inputs);
    let answer = run(&*model, &[inputs]).unwrap_or_else(|error| panic!("{}: {error}", case.model));
    case.check(by_name(&*model, &answer[0]));
}

#[test]
fn every_exporter_and_every_operator_answers_as_onnx_runtime_and_scikit_learn_do() {
    let cases = Case::folder("cases/trees");
    assert!(cases.len() > 200, "{} cases", cases.len());
    let wrong: Vec<_> =
        cases.iter().filter(|case| catch_unwind(|| check(case)).is_err()).map(|case| &case.model).collect();
    assert!(wrong.is_empty(), "{} of {} cases: {wrong:?}", wrong.len(), cases.len());
}

#[test]
fn rows_are_batched_where_they_keep_to_themselves() {
    for model in ["random_forest", "columns_boosted", "svc_three", "bagging", "ada_boost", "shapes", "sized"] {
        let loaded = load(&format!("trees/onnx/{model}/1")).unwrap();
        assert!(loaded.signature().is_batched(), "{model}: {:?}", loaded.facts().properties);
    }
    let mixing = load("trees/onnx/mixes_rows/1").unwrap();
    assert!(!mixing.signature().is_batched());
    assert!(mixing.facts().properties["not batched"].contains("`y`"));
    assert!(!load("trees/onnx/fixed_rows/1").unwrap().signature().is_batched());
}

#[test]
fn a_map_of_labels_is_served_as_a_row_of_scores_and_the_facts_name_the_classes() {
    let model = load("trees/onnx/random_forest_words/1").unwrap();
    let specs: Vec<String> = model.signature().outputs().iter().map(ToString::to_string).collect();
    assert_eq!(specs, ["output_label BYTES[N]", "output_probability FP32[N,3]"]);
    let facts = model.facts();
    assert_eq!(facts.properties["classes"], "maybe, no, yes");
    assert_eq!((facts.operators["ZipMap"], &*facts.properties["trees"]), (1, "8"));
    assert!(facts.weight_types["FP32"] > 0 && facts.weight_bytes == Some(facts.weight_types.values().sum()));
    assert!(model.memory_bytes() > 0);
}

#[test]
fn inputs_of_several_types_share_their_rows() {
    let model = load("trees/onnx/columns_forest/1").unwrap();
    let dtypes: Vec<DType> = model.signature().inputs().iter().map(|spec| spec.dtype).collect();
    assert_eq!(dtypes, [DType::Fp32, DType::Fp32, DType::Fp32, DType::Bytes, DType::Int64]);
    assert_eq!(model.signature().batch_symbol().map(|symbol| &**symbol), Some("N"));
}

#[test]
fn threads_change_nothing() {
    let model = load("trees/onnx/columns_boosted/1").unwrap();
    let case = Case::folder("cases/trees").into_iter().find(|case| case.model == "columns_boosted").unwrap();
    let (inputs, admission) = arranged(&*model, &case.inputs);
    let requests = 1100 / admission.rows;
    let parts = (0..requests).map(|_| Part { inputs: inputs.clone(), rows: admission.rows }).collect();
    let batch = Batch::new(parts, 2);
    let mut instance = model.instance().unwrap();
    let mut bits = |threads: usize| -> Vec<Option<bytes::Bytes>> {
        let outputs = instance.run(&batch, &RunContext { threads, ..RunContext::plain() }).unwrap();
        batch.split(&outputs, model.signature()).unwrap();
        outputs.0.iter().flatten().map(|tensor| tensor.bytes().cloned()).collect()
    };
    let alone = bits(1);
    assert_eq!(alone.len(), 2);
    assert!([2, 3, 4, 9].into_iter().all(|threads| bits(threads) == alone));
}

#[test]
fn boosted_trees_for_fraud_have_the_networks_signature_and_answer_as_their_library() {
    let model = load("models/fraud/2").unwrap();
    let signature = model.signature();
    let specs: Vec<String> = signature.inputs().iter().chain(signature.outputs()).map(ToString::to_string).collect();
    assert_eq!(specs, ["transaction FP32[N,10]", "probability FP32[N,1]"]);
    let cases: Vec<Case> = Case::of("fraud").into_iter().filter(|case| case.version == 2).collect();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (inputs, _) = arranged(&*model, &case.inputs);
        case.check(by_name(&*model, &run(&*model, &[inputs]).unwrap()[0]));
    }
}
