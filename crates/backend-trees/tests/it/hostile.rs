//! Files that contradict themselves, are cut off, or describe what there is no end of: refused with the place, never a
//! panic.

use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, LoadErrorKind};
use millrace_testkit::{Case, fixture_source};

use crate::builder::{Attribute, Node, file, ints, stump};
use crate::support::{arranged, run, source};

fn refused(bytes: Vec<u8>) -> (LoadErrorKind, String) {
    match TreesBackend::default().load(&source("model.onnx", bytes)) {
        Ok(_) => panic!("it loads"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

/// A stump with one attribute replaced.
fn with(name: &str, attribute: Attribute) -> Vec<u8> {
    file(&[stump().with(name, attribute)])
}

#[test]
fn the_plain_stump_loads_and_answers() {
    let model = TreesBackend::default().load(&source("model.onnx", file(&[stump()]))).unwrap();
    let x = millrace_core::Tensor::from_vec(&[2, 2], vec![0.0_f32, 1.0, 0.75, 1.0]).unwrap();
    let (inputs, _) = arranged(&*model, &[("x".to_owned(), x)]);
    let answer = run(&*model, &[inputs]).unwrap();
    assert_eq!(answer[0][0].elements::<f32>().unwrap().as_ref(), [1.0, -1.0]);
}

#[test]
fn a_network_without_trees_is_foreign() {
    let (kind, text) = refused(file(&[Node::new("", "Relu")]));
    assert_eq!(kind, LoadErrorKind::Foreign, "{text}");
    let error = TreesBackend::default().load(&fixture_source("models/fraud/1")).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Foreign);
}

#[test]
fn an_operator_that_is_not_there_is_named_with_its_domain_and_what_there_is() {
    let nodes = [stump().to("trees"), Node::new("ai.onnx.ml", "Frobnicate").from("trees")];
    let (kind, text) = refused(file(&nodes));
    assert_eq!(kind, LoadErrorKind::Unsupported);
    for part in ["node `y` (Frobnicate)", "ai.onnx.ml.Frobnicate", "opset 3", "TreeEnsembleRegressor", "model.onnx"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn trees_that_are_none_are_refused_by_the_attribute_or_the_node_at_fault() {
    let check = |name: &str, attribute: Attribute, expected: &str| {
        let (kind, text) = refused(with(name, attribute));
        assert!(matches!(kind, LoadErrorKind::Invalid | LoadErrorKind::Unsupported), "{name}: {kind:?}");
        assert!(text.contains(expected) && text.contains("TreeEnsembleRegressor"), "{name}: {text}");
    };
    check("nodes_truenodeids", ints(&[0, 0, 0]), "tree 0, node 0: child 0");
    check("nodes_truenodeids", ints(&[2, 0, 0]), "is reached in two ways");
    check("nodes_truenodeids", ints(&[7, 0, 0]), "its child 7 is not there");
    check("nodes_falsenodeids", ints(&[-1, 0, 0]), "its child -1 is not there");
    check("nodes_falsenodeids", ints(&[2, 0]), "`nodes_falsenodeids` has 2 entries; expected 3");
    check("nodes_nodeids", ints(&[0, 1, 1]), "two nodes 1");
    check("nodes_treeids", ints(&[]), "it has no trees");
    check("nodes_featureids", ints(&[2, 0, 0]), "asks about feature 2 of 2");
    check("nodes_featureids", ints(&[i64::MAX, 0, 0]), "asks about feature");
    check("nodes_featureids", ints(&[-4, 0, 0]), "asks about feature -4");
    check("nodes_values", Attribute::Floats(vec![f32::NAN, 0.0, 0.0]), "compares with NaN");
    check("nodes_values", Attribute::Ints(vec![1, 2, 3]), "`nodes_values` is Ints; expected Floats");
    check("nodes_modes", Attribute::Strings(vec!["BRANCH_LEQ", "LEAF", "TWIG"]), "mode `TWIG`");
    check("target_treeids", ints(&[0, 5]), "a vote in tree 5");
    check("target_nodeids", ints(&[1, 9]), "a vote of node 9");
    check("target_ids", ints(&[0, 1]), "a vote for 1");
    check("target_weights", Attribute::Floats(vec![1.0, f32::NAN]), "votes NaN");
    check("n_targets", Attribute::Int(0), "0 targets");
    check("n_targets", Attribute::Int(i64::MAX), "targets");
    check("aggregate_function", Attribute::String("MEDIAN"), "MEDIAN");
    check("post_transform", Attribute::String("SQUARE"), "SQUARE");
    check("base_values", Attribute::Floats(vec![1.0, 2.0]), "`base_values` has 2 entries; expected 1");
}

#[test]
fn a_missing_attribute_is_named() {
    for name in ["nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_values", "target_weights", "target_ids"] {
        let (kind, text) = refused(file(&[stump().without(name)]));
        assert_eq!(kind, LoadErrorKind::Invalid, "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn graphs_that_do_not_hold_together_are_refused() {
    let reads_nothing = stump().from("nowhere");
    assert!(refused(file(&[reads_nothing])).1.contains("`nowhere`, which no node before it writes"));
    let twice = [stump().to("y"), stump().to("y")];
    assert!(refused(file(&twice)).1.contains("two nodes or constants write `y`"));
    let unwritten = stump().to("elsewhere");
    assert!(refused(file(&[unwritten])).1.contains("nothing writes the output `y`"));
    let cycle = [stump().from("b").to("a"), stump().from("a").to("b"), stump().from("b").to("y")];
    assert_eq!(refused(file(&cycle)).0, LoadErrorKind::Invalid);
    let nodes: Vec<Node> = (0..70).fold(stump(), |node, n| node.with(&format!("a{n}"), Attribute::Int(1))).into();
    assert!(refused(file(&nodes)).1.contains("attributes"));
}

#[test]
fn constants_as_large_as_no_machine_are_refused_when_they_are_folded() {
    let size = Node::new("", "Constant").without_input().to("size").with("value_ints", ints(&[1 << 40, 1 << 20]));
    let fill = Node::new("", "ConstantOfShape").from("size").to("huge");
    let nodes = [stump().to("trees"), size, fill, Node::new("", "Add").from("trees").from("huge").to("y")];
    let (kind, text) = refused(file(&nodes));
    assert_eq!(kind, LoadErrorKind::Invalid, "{text}");
    assert!(text.contains("too many elements"), "{text}");
}

#[test]
fn a_small_budget_refuses_many_nodes_before_they_are_laid_out() {
    let count = 20_000;
    let many = stump()
        .with("nodes_treeids", Attribute::Ints((0..).take(count).collect()))
        .with("nodes_modes", Attribute::Strings(vec!["LEAF"; count]));
    let mut small = source("model.onnx", file(&[many]));
    small.memory_budget = 1 << 20;
    let error = TreesBackend::default().load(&small).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}

#[test]
fn a_file_cut_off_anywhere_or_with_a_byte_changed_does_not_panic() {
    let whole = file(&[stump()]);
    for length in 0..whole.len() {
        assert!(TreesBackend::default().load(&source("model.onnx", whole[..length].to_vec())).is_err(), "{length}");
    }
    for place in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            let Ok(model) = TreesBackend::default().load(&source("model.onnx", bytes)) else { continue };
            assert!(model.instance().is_ok());
        }
    }
}

#[test]
fn every_fixture_cut_off_is_refused() {
    for case in Case::folder("cases/trees").iter().step_by(5) {
        let source = fixture_source(&format!("trees/onnx/{}/1", case.model));
        let whole = source.files.read("model.onnx").unwrap();
        for part in [whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let cut = crate::support::source("model.onnx", whole.slice(..part));
            assert!(TreesBackend::default().load(&cut).is_err(), "{} cut to {part}", case.model);
        }
    }
}

#[test]
fn external_data_outside_of_the_folder_is_not_opened() {
    let error = TreesBackend::default().load(&fixture_source("bad-models/external_outside/1")).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Foreign, "{error}");
}

#[test]
fn a_request_with_a_category_that_nobody_knows_is_the_callers_error() {
    let encoder =
        Node::new("ai.onnx.ml", "OneHotEncoder").with("cats_int64s", ints(&[1, 2])).with("zeros", Attribute::Int(0));
    let model = TreesBackend::default().load(&source("model.onnx", file(&[encoder]))).unwrap();
    let ask = |value: f32| {
        let x = millrace_core::Tensor::from_vec(&[1, 2], vec![1.0, value]).unwrap();
        let (inputs, _) = arranged(&*model, &[("x".to_owned(), x)]);
        run(&*model, &[inputs])
    };
    assert!(ask(2.0).is_ok());
    let error = ask(3.0).unwrap_err();
    assert!(matches!(error, millrace_core::RunError::InvalidInput(_)), "{error:?}");
}
