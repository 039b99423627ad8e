//! The libraries' own models say what the libraries say; damaged ones say what is wrong with them.

use std::fs;
use std::path::PathBuf;

use millrace_core::{Batch, MemoryFiles, Part, Tensor};
use millrace_testkit::{assert_close, fixture};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The folders with a model in `fixtures/trees/LIBRARY`.
fn folders(library: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(fixture(&format!("trees/{library}"))).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() > 15, "{library}: {folders:?}");
    folders
}

/// The model file of a folder.
fn bytes(folder: &std::path::Path) -> Vec<u8> {
    let names = ["model.json", "model.ubj", "model.txt"];
    names.into_iter().find_map(|name| fs::read(folder.join(name)).ok()).unwrap()
}

fn source() -> ModelSource {
    ModelSource::new("trees".parse().unwrap(), 1, Arc::new(MemoryFiles::default()))
}

/// A tensor of a case.
fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
    let data = value["data"].as_array().unwrap();
    if value["dtype"] == "INT64" {
        return Tensor::from_vec(&shape, data.iter().map(|number| number.as_i64().unwrap()).collect()).unwrap();
    }
    let number = |number: &Value| match number.as_str() {
        Some(text) => text.replace("Infinity", "inf").parse().unwrap(),
        None => number.to_string().parse::<f32>().unwrap(),
    };
    Tensor::from_vec(&shape, data.iter().map(number).collect()).unwrap()
}

/// Runs `input` in batches of `rows`, each batch of two parts where it can be.
fn run(model: &Arc<dyn Model>, input: &Tensor, rows: usize) -> Vec<Tensor> {
    let mut instance = model.instance().unwrap();
    let total = input.shape().rows().unwrap();
    let mut outputs: Vec<Vec<Tensor>> = vec![Vec::new(); model.signature().outputs().len()];
    for from in (0..total).step_by(rows) {
        let to = (from + rows).min(total);
        let middle = if to - from > 3 { from + 2 } else { to };
        let part = |from, to| Part { inputs: [input.rows(from..to)].into_iter().collect(), rows: to - from };
        let parts = if middle == to { vec![part(from, to)] } else { vec![part(from, middle), part(middle, to)] };
        let answer = instance.run(&Batch::new(parts, 0), &millrace_core::RunContext::plain()).unwrap();
        for (outputs, tensor) in outputs.iter_mut().zip(answer.0) {
            outputs.push(tensor.unwrap());
        }
    }
    outputs.iter().map(|tensors| Tensor::concat(tensors).unwrap()).collect()
}

#[track_caller]
fn says_what_the_library_says(library: &str) {
    for folder in folders(library) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let model = load(&name, &bytes(&folder).into(), &source()).unwrap_or_else(|error| panic!("{error}"));
        let cases: Value = serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let input = tensor(&case["inputs"]["input"]);
            for rows in [1, 5, 64] {
                let answers = run(&model, &input, rows);
                let wanted = case["outputs"].as_object().unwrap();
                assert_eq!(wanted.len(), answers.len(), "{name}");
                for (spec, answer) in model.signature().outputs().iter().zip(&answers) {
                    let want = tensor(&wanted[&*spec.name]);
                    assert_close(answer, &want, case["tolerance"].as_f64().unwrap(), &format!("{name} {}", spec.name));
                }
            }
        }
    }
}

#[test]
fn xgboost_models_say_what_xgboost_says() {
    says_what_the_library_says("xgboost");
}

#[test]
fn lightgbm_models_say_what_lightgbm_says() {
    says_what_the_library_says("lightgbm");
}

/// The file of `fixtures/trees/PATH`, which must load.
fn sound(path: &str) -> Vec<u8> {
    let bytes = fs::read(fixture(&format!("trees/{path}"))).unwrap();
    load("model", &bytes.clone().into(), &source()).unwrap();
    bytes
}

/// Does not load, for this reason.
#[track_caller]
fn refused(bytes: impl Into<Bytes>, kind: LoadErrorKind, text: &str) {
    let error = load("model", &bytes.into(), &source()).expect_err("it does not load");
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, format!("model: {text}").as_str()));
}

/// An XGBoost file with the value at `pointer` replaced, or the key taken out.
fn xgboost_with(pointer: &str, value: Option<Value>) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(&sound("xgboost/binary_json/model.json")).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(object), Some(value)) => drop(object.insert(key.to_owned(), value)),
        (Value::Object(object), None) => drop(object.remove(key).unwrap()),
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer} leads to {other:?}"),
    }
    serde_json::to_vec(&file).unwrap()
}

const TREE: &str = "/learner/gradient_booster/model/trees/1";

#[test]
fn what_xgboost_has_and_this_engine_has_not_is_refused_by_name() {
    use LoadErrorKind::Unsupported;
    let with = |pointer: &str, value: Value| xgboost_with(pointer, Some(value));
    refused(with("/learner/objective/name", "survival:aft".into()), Unsupported, "XGBoost's objective `survival:aft`");
    let linear = serde_json::json!({"name": "gblinear", "model": {"weights": [0.5, 1.0], "boosted_rounds": 4}});
    let text = "XGBoost's booster `gblinear`: only `gbtree` and `dart` are trees";
    refused(with("/learner/gradient_booster", linear), Unsupported, text);
    let text = "XGBoost's trees with vectors in their leaves (`multi_output_tree`)";
    refused(with(&format!("{TREE}/tree_param/size_leaf_vector"), "2".into()), Unsupported, text);
    let text = "XGBoost's objective `binary:logistic` over 3 targets";
    refused(with("/learner/learner_model_param/num_target", "3".into()), Unsupported, text);
    let text = "XGBoost's old binary format is not read: save the model again as model.ubj or model.json";
    refused(&b"binf\x00\x00\x00"[..], Unsupported, text);
}

#[test]
fn an_xgboost_file_that_contradicts_itself_is_refused() {
    use LoadErrorKind::Invalid;
    let with = |pointer: &str, value: Value| xgboost_with(pointer, Some(value));
    refused(with(&format!("{TREE}/left_children/0"), 99.into()), Invalid, "tree 1, node 0: child 99 of 15 nodes");
    refused(
        with(&format!("{TREE}/left_children/0"), 0.into()),
        Invalid,
        "tree 1, node 0: child 0 is reached in two ways",
    );
    refused(with(&format!("{TREE}/left_children/0"), (-2).into()), Invalid, "tree 1, node 0: left child -2");
    refused(with(&format!("{TREE}/split_indices/0"), 5.into()), Invalid, "tree 1, node 0: feature 5 of 5");
    refused(with(&format!("{TREE}/split_type/0"), 2.into()), Invalid, "tree 1, node 0: split type 2");
    let text = "tree 1: `default_left` has 1 entries for 15 nodes";
    refused(with(&format!("{TREE}/default_left"), serde_json::json!([0])), Invalid, text);
    let text = "tree 1: its lists of categories contradict each other";
    refused(with(&format!("{TREE}/categories_nodes"), serde_json::json!([0])), Invalid, text);
    let text = "`tree_info` has 1 entries for 6 trees";
    refused(with("/learner/gradient_booster/model/tree_info", serde_json::json!([0])), Invalid, text);
    let text = "tree 0, node 7: target 1 of 1";
    refused(with("/learner/gradient_booster/model/tree_info/0", 1.into()), Invalid, text);
    let text = "`base_score` is out of range for the objective `binary:logistic`";
    refused(with("/learner/learner_model_param/base_score", "1.5".into()), Invalid, text);
    let text = "`base_score` has 2 entries for 1 targets";
    refused(with("/learner/learner_model_param/base_score", "[0.5,0.5]".into()), Invalid, text);
    let text = "`best_iteration` is 6, beyond the iterations";
    refused(with("/learner/attributes", serde_json::json!({"best_iteration": "6"})), Invalid, text);
    let text = "a forest needs a feature and a target";
    refused(with("/learner/learner_model_param/num_feature", "0".into()), Invalid, text);
    refused(xgboost_with("/learner/gradient_booster/model/trees", None), Invalid, "the model has no `trees`");
    let missing = load("model", &xgboost_with("/learner/objective", None).into(), &source()).unwrap_err();
    assert!(missing.to_string().starts_with("model: XGBoost's JSON: missing field `objective` at line 1"), "{missing}");
}

#[test]
fn files_of_others_are_left_to_others() {
    let text = "JSON without a `learner`, so not of XGBoost";
    refused(&br#"{"model": "something else", "layers": []}"#[..], LoadErrorKind::Foreign, text);
    let text = "neither XGBoost's JSON or UBJ nor LightGBM's text, as `save_model` writes them";
    for other in ["", "a shopping list", "trees and flowers", "[1, 2]", "{", "\u{8}\u{3}onnx"] {
        refused(other, LoadErrorKind::Foreign, text);
    }
}

#[test]
fn old_spellings_of_xgboost_are_read() {
    // Files of 1.x: truth values for directions, no categories, no ends of iterations, one base score for all.
    let mut file: Value = serde_json::from_slice(&sound("xgboost/binary_json/model.json")).unwrap();
    let want = load("model", &serde_json::to_vec(&file).unwrap().into(), &source()).unwrap();
    file["learner"]["learner_model_param"]["base_score"] = "3E-1".into();
    let booster = &mut file["learner"]["gradient_booster"]["model"];
    booster.as_object_mut().unwrap().remove("iteration_indptr");
    for tree in booster["trees"].as_array_mut().unwrap() {
        let tree = tree.as_object_mut().unwrap();
        for key in ["categories", "categories_nodes", "categories_segments", "categories_sizes", "split_type"] {
            tree.remove(key).unwrap();
        }
        for flag in tree["default_left"].as_array_mut().unwrap() {
            *flag = (flag.as_u64() == Some(1)).into();
        }
    }
    let got = load("model", &serde_json::to_vec(&file).unwrap().into(), &source()).unwrap();
    let rows = (0..50_u16).map(|value| f32::from(value % 13) / 4.0 - 1.5).collect();
    let rows = Tensor::from_vec(&[10, 5], rows).unwrap();
    assert_eq!(run(&got, &rows, 10), run(&want, &rows, 10));
}

/// A LightGBM file with one text in place of another, which must be there.
fn lightgbm_with(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(sound("lightgbm/categories_6/model.txt")).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn what_lightgbm_has_and_this_engine_has_not_is_refused_by_name() {
    use LoadErrorKind::Unsupported;
    let text = "tree 0: LightGBM's trees with linear models in their leaves";
    refused(lightgbm_with("is_linear=0", "is_linear=1"), Unsupported, text);
    let text = "LightGBM's objective `cox` over 1 trees per iteration";
    refused(lightgbm_with("objective=binary", "objective=cox"), Unsupported, text);
    let text = "LightGBM's objective `multiclass` over 1 trees per iteration";
    refused(lightgbm_with("objective=binary", "objective=multiclass"), Unsupported, text);
}

#[test]
fn a_lightgbm_file_that_contradicts_itself_is_refused() {
    use LoadErrorKind::Invalid;
    refused(lightgbm_with("end of trees", ""), Invalid, "the file ends before `end of trees`");
    refused(lightgbm_with("Tree=1", "Tree=2"), Invalid, "expected `Tree=1`, got `Tree=2`");
    refused(lightgbm_with("num_leaves=", "num_sheets="), Invalid, "tree 0: `num_leaves` is missing");
    let text = "tree 0: expected 8 numbers in `leaf_value`, got 7";
    refused(lightgbm_with("num_leaves=7", "num_leaves=8"), Invalid, text);
    let text = "tree 0: `left_child` has `x`, which is not such a number";
    refused(lightgbm_with("left_child=", "left_child=x "), Invalid, text);
    let text = "tree 0: `num_leaves` has `99999999999999999999`, which is not such a number";
    refused(lightgbm_with("num_leaves=7", "num_leaves=99999999999999999999"), Invalid, text);
    refused(lightgbm_with("num_leaves=7", "num_leaves=0"), Invalid, "tree 0: it has no leaves");
    let text = "the header: `max_feature_idx` is missing";
    refused(lightgbm_with("max_feature_idx=", "max_feature="), Invalid, text);
    let text = "the header: `num_tree_per_iteration` is 0";
    refused(lightgbm_with("num_tree_per_iteration=1", "num_tree_per_iteration=0"), Invalid, text);
    let text = "the header: `objective` has `sigmoid:0`, which is not a steepness";
    refused(lightgbm_with("sigmoid:1", "sigmoid:0"), Invalid, text);
}

#[test]
fn a_model_that_would_take_more_than_its_budget_is_refused() {
    let source = ModelSource { memory_budget: 100, ..source() };
    let error = load("model.txt", &sound("lightgbm/binary/model.txt").into(), &source).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge);
    assert!(error.to_string().ends_with("bytes, and 100 may be taken"), "{error}");
}

#[test]
fn an_option_that_nobody_knows_is_refused() {
    let source = ModelSource { options: [("missing".to_owned(), "-1".to_owned())].into(), ..source() };
    let error = load("model.txt", &sound("lightgbm/binary/model.txt").into(), &source).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Invalid);
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn ubj_that_promises_more_than_it_holds_is_refused() {
    use LoadErrorKind::Invalid;
    let begin = b"{L\x00\x00\x00\x00\x00\x00\x00\x07version";
    let with = |rest: &[u8]| [begin, rest].concat();
    let huge = b"[$l#L\x00\xff\xff\xff\xff\xff\xff\xff";
    refused(with(huge), Invalid, "XGBoost's UBJ: the file ends early at byte 30");
    let nothings = b"[$T#L\x00\xff\xff\xff\xff\xff\xff\xff";
    refused(with(nothings), Invalid, "XGBoost's UBJ: elements that take no bytes are not read at byte 18");
    let negative = b"[$l#L\xff\xff\xff\xff\xff\xff\xff\xff";
    refused(with(negative), Invalid, "XGBoost's UBJ: expected a length at byte 21");
    let other = b"{i\x01x";
    refused([&other[..], &b"[".repeat(100_000)].concat(), Invalid, "XGBoost's UBJ: nested deeper than 64 at byte 68");
    let mut more = sound("xgboost/binary_ubj/model.ubj");
    let length = more.len();
    more.push(b'}');
    refused(more, Invalid, &format!("XGBoost's UBJ: more bytes after the end at byte {length}"));
}

/// Files of every format and kind.
const VICTIMS: [&str; 6] = [
    "xgboost/binary_json/model.json",
    "xgboost/categories_70/model.ubj",
    "xgboost/best_iteration/model.ubj",
    "xgboost/dart/model.json",
    "lightgbm/categories_70/model.txt",
    "lightgbm/forest_multiclass/model.txt",
];

/// Loads what may be damaged, and runs it if it loads: nothing may panic.
fn survives(bytes: Vec<u8>) {
    if let Ok(model) = load("model", &bytes.into(), &source()) {
        let features = model.signature().inputs()[0].shape[1].clone();
        if let millrace_core::Dim::Fixed(features @ 1..1000) = features {
            let rows = Tensor::from_vec(&[9, features], vec![0.5_f32; 9 * features]).unwrap();
            run(&model, &rows, 9);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_never_panic(
        victim in 0..VICTIMS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(fixture(&format!("trees/{}", VICTIMS[victim]))).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            // Digits mostly: other bytes seldom get past the parser.
            bytes[place] = if byte < 200 { b'0' + byte % 10 } else { byte };
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survives(bytes);
    }

    #[test]
    fn noise_never_panics(start in 0..3_usize, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let start: &[u8] = [&b"{\"learner\":"[..], b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner", b"tree\nversion=v4\n"][start];
        survives([start, &noise].concat());
    }
}
