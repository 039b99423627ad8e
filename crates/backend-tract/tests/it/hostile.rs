//! Files with one lie each, and files with random damage.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use millrace_backend_tract::{TractBackend, TractConfig};
use millrace_core::{Backend, LoadError, LoadErrorKind, MemoryFiles, ModelFiles, ModelSource};
use millrace_testkit::fixture_source;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

use crate::builder::{Onnx, source};

fn refused(onnx: &Onnx) -> LoadError {
    match TractBackend::default().load(&onnx.source()) {
        Ok(_) => panic!("it loaded"),
        Err(error) => error,
    }
}

#[track_caller]
fn explodes(onnx: &Onnx, node: &str) {
    let error = refused(onnx);
    assert!(error.to_string().contains(node), "{error}");
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}

fn one_input() -> Onnx {
    Onnx::default().input("x", DataType::Float, &["N"]).node("Neg", &["x"], &["y"], &[]).output(
        "y",
        DataType::Float,
        &["N"],
    )
}

#[test]
fn constants_that_explode_are_refused_whatever_operator_makes_them() {
    let huge = 1 << 44;
    explodes(&one_input().ints("s", &[huge]).node("ConstantOfShape", &["s"], &["big"], &[]), "big_node");
    explodes(
        &one_input().ints("s", &[huge]).floats("c", &[1], &[1.0]).node("Expand", &["c", "s"], &["big"], &[]),
        "big_node",
    );
    explodes(
        &one_input().ints("s", &[huge]).floats("c", &[1], &[1.0]).node("Tile", &["c", "s"], &["big"], &[]),
        "big_node",
    );
    explodes(&one_input().node("RandomNormal", &[], &["big"], &[("shape", &[huge, 1])]), "big_node");
    let range = one_input().ints("from", &[0]).ints("to", &[huge]).ints("step", &[1]);
    explodes(&range.node("Range", &["from", "to", "step"], &["big"], &[]), "big_node");
    let pad = one_input().floats("c", &[1], &[1.0]).ints("p", &[huge, huge]);
    explodes(&pad.node("Pad", &["c", "p"], &["big"], &[]), "big_node");
    // A column times a row of a million each: the weights are small, their product is not.
    let side = 1 << 20;
    let outer = one_input().ints("column", &[side, 1]).ints("row", &[1, side]);
    let outer = outer.node("ConstantOfShape", &["column"], &["c"], &[]).node("ConstantOfShape", &["row"], &["r"], &[]);
    explodes(&outer.clone().node("MatMul", &["c", "r"], &["big"], &[]), "big_node");
    explodes(&outer.node("Add", &["c", "r"], &["big"], &[]), "big_node");
}

#[test]
fn a_constant_doubled_again_and_again_is_refused() {
    let mut model = one_input().floats("c0", &[1], &[1.0]);
    for step in 0..60 {
        let (from, to) = (format!("c{step}"), format!("c{}", step + 1));
        model = model.node("Concat", &[&from, &from], &[&to], &[("axis", &[0])]);
    }
    assert_eq!(refused(&model).kind(), LoadErrorKind::TooLarge);
}

#[test]
fn an_input_doubled_again_and_again_is_refused() {
    let mut model = Onnx::default().input("c0", DataType::Float, &["N", "4"]);
    for step in 0..40 {
        let (from, to) = (format!("c{step}"), format!("c{}", step + 1));
        model = model.node("Concat", &[&from, &from], &[&to], &[("axis", &[1])]);
    }
    let error = refused(&model.output("c40", DataType::Float, &["N", "M"]));
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}

#[test]
fn one_model_file_is_chosen_and_two_without_a_preferred_name_are_refused() {
    let version = |names: &[&str]| {
        let files = names.iter().fold(MemoryFiles::default(), |files, name| files.with(*name, one_input().bytes()));
        ModelSource::new("named".parse().unwrap(), 1, Arc::new(files))
    };
    let backend = TractBackend::default();
    for names in [&["net.onnx"][..], &["a.onnx", "model.onnx"], &["net.onnx", "deep/other.onnx"]] {
        assert!(backend.recognises(&version(names)) && backend.load(&version(names)).is_ok(), "{names:?}");
    }
    let two = version(&["a.onnx", "b.onnx"]);
    assert!(!backend.recognises(&two));
    let error = backend.load(&two).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Invalid);
    assert!(error.to_string().contains("a.onnx, b.onnx") && error.to_string().contains("model.onnx"), "{error}");
}

#[test]
fn graphs_nested_deeper_than_the_limit_are_refused() {
    let inner = |depth: usize| {
        (0..depth).fold(GraphProto::default(), |inner, level| {
            let attribute = |name: &str| AttributeProto {
                name: name.to_owned(),
                r#type: AttributeType::Graph as i32,
                g: Some(inner.clone()),
                ..AttributeProto::default()
            };
            let attribute = vec![attribute("then_branch")];
            let output = vec![format!("level{level}")];
            let node = NodeProto {
                op_type: "If".to_owned(),
                input: vec!["x".to_owned()],
                output,
                attribute,
                ..NodeProto::default()
            };
            GraphProto { node: vec![node], ..GraphProto::default() }
        })
    };
    let mut model = one_input();
    model.graph.node.extend(inner(5).node);
    let config = TractConfig { max_subgraph_depth: 4, ..TractConfig::default() };
    let error = TractBackend::new(config).load(&model.source()).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
    assert!(error.to_string().contains("nested too deep") && error.to_string().contains("limit is 4"), "{error}");
}

#[test]
fn too_many_nodes_are_refused() {
    let config = TractConfig { max_nodes: 3, ..TractConfig::default() };
    let model = (0..4).fold(one_input(), |model, n| model.node("Neg", &["x"], &[&format!("n{n}")], &[]));
    let error = TractBackend::new(config).load(&model.source()).unwrap_err();
    assert!(error.to_string().contains("more than 3 nodes"), "{error}");
}

#[test]
fn a_graph_without_inputs_or_outputs_is_refused() {
    let no_input = Onnx::default().floats("c", &[1], &[1.0]).node("Neg", &["c"], &["y"], &[]);
    let error = refused(&no_input.output("y", DataType::Float, &["1"]));
    assert!(error.to_string().contains("no input"), "{error}");
    let error = refused(&Onnx::default().input("x", DataType::Float, &["N"]));
    assert!(error.to_string().contains("no output"), "{error}");
    let error = refused(&one_input().output("z", DataType::Float, &["N"]));
    assert!(error.to_string().contains("`z` is written by no node"), "{error}");
}

#[test]
fn a_size_in_words_that_nests_too_deep_is_not_parsed() {
    let deep = format!("{}N{}", "(".repeat(50_000), ")".repeat(50_000));
    let model = Onnx::default().input("x", DataType::Float, &["N", "4"]).node("Neg", &["x"], &["y"], &[]);
    let model = model.output("y", DataType::Float, &[&deep, "4"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    assert_eq!(model.signature().outputs()[0].to_string(), "y FP32[N,4]");
}

#[test]
fn axes_with_names_that_are_no_words_become_symbols() {
    let model = Onnx::default().input("x", DataType::Float, &["batch size", "?", "-1", "2"]);
    let model = model.node("Neg", &["x"], &["y"], &[]).output("y", DataType::Float, &["batch size", "?", "-1", "2"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    assert_eq!(model.signature().inputs()[0].to_string(), "x FP32[batch_size,x_1,x_2,2]");
    assert!(model.signature().is_batched());
}

/// A version whose list names an external file that cannot be opened, as a link out of the folder cannot.
struct Unreadable(ModelSource);

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unreadable")
    }
}

impl ModelFiles for Unreadable {
    fn list(&self) -> &[(String, u64)] {
        self.0.files.list()
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        if name.ends_with(".onnx") { self.0.files.read(name) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

#[test]
fn external_data_that_cannot_be_opened_is_refused_without_a_path() {
    let whole = fixture_source("extra/external_inside/1");
    let source = ModelSource { files: Arc::new(Unreadable(whole.clone())), ..whole };
    let error = TractBackend::default().load(&source).unwrap_err();
    assert!(error.to_string().contains("external data `weights.bin` cannot be read"), "{error}");
}

/// A small generator with a fixed seed, so that a failure comes back.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit as u64)).unwrap()
    }
}

#[test]
fn damaged_files_never_panic_or_take_more_than_the_budget() {
    let originals = ["models/row_mean/1", "models/sum_diff/1", "extra/shrinking_conv/1", "extra/gather_tokens/1"];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut loaded, mut refused) = (0, 0);
    for dir in originals {
        let original = fixture_source(dir).files.read("model.onnx").unwrap().to_vec();
        for _ in 0..100 {
            let mut damaged = original.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len());
                match random.below(4) {
                    0 => damaged[at] = u8::try_from(random.below(256)).unwrap(),
                    1 => damaged[at] ^= 1 << random.below(8),
                    2 => drop(damaged.remove(at)),
                    _ => damaged.insert(at, u8::try_from(random.below(256)).unwrap()),
                }
            }
            let mut source = source(damaged);
            source.memory_budget = 64 << 20;
            match TractBackend::default().load(&source) {
                Ok(_) => loaded += 1,
                Err(error) => {
                    assert!(error.to_string().starts_with("model.onnx"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(loaded > 0 && refused > 100, "{loaded} loaded, {refused} refused: the damage is too weak or too strong");
}
