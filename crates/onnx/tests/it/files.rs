//! What is said about real files.

use std::path::Path;

use millrace_onnx::{Axis, ElementType, ML_DOMAIN, Model, OnnxError, ValueKind};

use crate::walk::walk;

pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn a_network_is_described() {
    let file = fixture("models/fraud/1/model.onnx");
    let model = Model::parse(&file).unwrap();
    assert!(walk(&model) > 0);
    assert_eq!((model.ir_version(), model.producer_name(), model.opset("")), (8, "millrace-fixtures", Some(15)));
    let graph = model.graph();
    let input = graph.inputs().next().unwrap();
    assert_eq!((input.name(), input.kind()), ("transaction", ValueKind::Tensor(ElementType::Fp32)));
    assert_eq!(input.shape().unwrap().collect::<Vec<_>>(), [Axis::Named("N"), Axis::Fixed(10)]);
    let weights = graph.initializers().find(|tensor| tensor.name() == "weight_1").unwrap();
    assert_eq!(weights.shape().unwrap(), [10, 64]);
    assert_eq!(weights.data(|_| Err::<Vec<u8>, _>(std::io::ErrorKind::NotFound.into())).unwrap().len(), 2560);
    let facts = model.facts();
    assert_eq!((facts.nodes, facts.operators["Gemm"], facts.has_ml), (6, 3, false));
    assert_eq!(facts.weight_types.get("FP32"), Some(&facts.weight_bytes()));
}

#[test]
fn trees_are_described() {
    let file = fixture("trees/onnx/random_forest_words/1/model.onnx");
    let model = Model::parse(&file).unwrap();
    assert!(model.facts().has_ml && model.opset(ML_DOMAIN).is_some());
    let trees = model.graph().nodes().find(|node| node.op_type() == "TreeEnsembleClassifier").unwrap();
    let named = |name: &str| trees.attributes().find(|attribute| attribute.name() == name).unwrap();
    let count = named("nodes_treeids").ints().count();
    assert!(count > 0 && named("nodes_values").floats().count() == count);
    assert_eq!(named("nodes_modes").strings().count(), count);
    assert_eq!(named("nodes_values").ints().count(), 0, "another kind gives nothing");
    assert_eq!(named("post_transform").string(), Some(&b"NONE"[..]));
    let map = model.graph().outputs().last().unwrap();
    assert_eq!(map.kind(), ValueKind::Maps(ElementType::String, ElementType::Fp32));
}

#[test]
fn every_fixture_is_walked_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let (mut sound, mut refused) = (0, 0);
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "onnx") {
                match Model::parse(&std::fs::read(entry.path()).unwrap()) {
                    Ok(model) => {
                        walk(&model);
                        sound += 1;
                    }
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(sound > 250 && refused >= 4, "{sound} sound, {refused} refused");
}

#[test]
fn bad_fixtures_are_refused_with_the_place() {
    let refuse = |name: &str| Model::parse(&fixture(&format!("bad-models/{name}/1/model.onnx"))).unwrap_err();
    assert!(matches!(refuse("empty"), OnnxError::Damaged { .. }));
    assert!(matches!(refuse("garbage"), OnnxError::Damaged { .. }));
    assert!(matches!(refuse("truncated"), OnnxError::Damaged { .. }));
    assert!(matches!(refuse("deep_subgraph"), OnnxError::Unsupported { .. }));
}

#[test]
fn external_data_stays_in_the_folder() {
    let file = fixture("bad-models/external_outside/1/model.onnx");
    let model = Model::parse(&file).unwrap();
    assert!(model.facts().external_files.is_empty());
    let tensor = model.graph().initializers().find(|tensor| tensor.external().is_err()).unwrap();
    let error = tensor.data(|_| -> std::io::Result<Vec<u8>> { panic!("it was opened") }).unwrap_err();
    assert!(matches!(error, OnnxError::Outside { .. }), "{error}");
    let file = fixture("bad-models/external_missing/1/model.onnx");
    let model = Model::parse(&file).unwrap();
    assert_eq!(model.facts().external_files.iter().collect::<Vec<_>>(), ["weights.bin"]);
}
