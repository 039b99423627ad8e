use std::num::NonZeroUsize;

use millrace_core::{DType, Dim, Signature, TensorSpec};
use proptest::prelude::*;

use super::read;
use crate::{ModelConfig, VersionPolicy};

const WHOLE: &str = r#"
name: "fraud"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
input { name: "tokens", data_type: TYPE_STRING, dims: [ -1, 2 ] }
output [
  {
    name: "y"  # a comment
    data_type: TYPE_BF16
    dims: [ 1 ]
  }
]
dynamic_batching { preferred_batch_size: [ 8, 4, 4 ] max_queue_delay_microseconds: 100 }
version_policy: { specific { versions: [1, 3] } }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]
model_warmup [ {
  name: "first" batch_size: 2 count: 3
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: [4] random_data: true } }
  inputs { key: "tokens" value: { data_type: TYPE_STRING dims: [7, 2] zero_data: true } }
} ]
default_model_filename: "net.onnx"
"#;

fn size(rows: usize) -> NonZeroUsize {
    NonZeroUsize::new(rows).unwrap()
}

fn parse(text: &str) -> ModelConfig {
    read(text, &["fraud"]).unwrap().0
}

/// The warnings, without the place.
fn warnings(text: &str) -> Vec<String> {
    let (_, warnings) = read(text, &["fraud"]).unwrap();
    warnings.iter().map(|warning| warning.split_once(": ").unwrap().1.to_owned()).collect()
}

#[test]
fn what_triton_says_is_read() {
    let (config, warnings) = read(WHOLE, &["fraud"]).unwrap();
    assert_eq!(config.backend, None);
    let batching = &config.batching;
    assert_eq!((batching.enabled, batching.max_batch_size), (Some(true), Some(size(8))));
    assert_eq!(batching.preferred_batch_size, Some(vec![size(4), size(8)]));
    assert_eq!(batching.max_queue_delay_microseconds, Some(100));
    assert_eq!(batching.num_batch_threads, Some(size(3)));
    batching.check().unwrap();
    assert_eq!(config.versions, Some(VersionPolicy::Specific(vec![1, 3])));
    assert_eq!(config.model_file.as_deref(), Some("net.onnx"));
    let declared = config.declared.unwrap();
    assert_eq!((declared.inputs.len(), declared.outputs.len()), (2, 1));
    assert_eq!(declared.inputs[1].dtype, Some(DType::Bytes));
    assert_eq!(declared.inputs[1].dims, Some(vec![None, Some(2)]));
    assert_eq!(declared.outputs[0].dtype, Some(DType::Bf16));
    let [request] = config.warmup.requests.as_slice() else { panic!("one request") };
    assert_eq!((request.name.as_str(), request.rows, request.runs), ("first", 2, size(3)));
    assert!(request.inputs[0].is_random && !request.inputs[1].is_random);
    assert_eq!(request.inputs[1].dims, [7, 2]);
    assert_eq!(
        warnings,
        [
            "config.pbtxt, line 16, column 58: `kind` asks for a GPU; the instances run on the CPU",
            "config.pbtxt, line 16, column 73: `gpus` has no meaning here and is ignored",
        ]
    );
}

#[test]
fn a_model_without_a_batch_axis_is_not_batched() {
    assert_eq!(parse("max_batch_size: 0").batching.enabled, Some(false));
    assert_eq!(parse("").batching.enabled, None);
    assert_eq!(parse("").declared, None);
}

#[test]
fn engines_for_onnx_mean_any_here_and_others_keep_their_names() {
    for text in ["", "platform: 'onnxruntime_onnx'", "backend: \"onnxruntime\"", "backend: 'onnx' platform: ''"] {
        assert_eq!(parse(text).backend, None, "{text}");
    }
    assert_eq!(parse("platform: 'tensorrt_plan'").backend.as_deref(), Some("tensorrt_plan"));
    assert_eq!(parse("backend: 'tract'").backend.as_deref(), Some("tract"));
    assert_eq!(parse("backend: 'fil'").backend.as_deref(), Some("trees"));
}

#[test]
fn policies_are_triton_s() {
    assert_eq!(parse("version_policy { latest { num_versions: 3 } }").versions, Some(VersionPolicy::Latest(size(3))));
    assert_eq!(parse("version_policy: { latest { } }").versions, Some(VersionPolicy::default()));
    assert_eq!(parse("version_policy: { all { }}").versions, Some(VersionPolicy::All));
}

#[test]
fn what_is_not_heeded_is_named() {
    assert_eq!(
        warnings("optimization { cuda { graphs: true } } parameters { key: \"k\" value { string_value: \"v\" } }"),
        [
            "`optimization` has no meaning here and is ignored",
            "`parameters` `k` is Triton's engine's own and is ignored"
        ]
    );
    assert_eq!(
        warnings("dinamic_batching { }"),
        ["`dinamic_batching` is unknown and is ignored; did you mean `dynamic_batching`?"]
    );
    assert_eq!(warnings("qqqqqq: 1"), ["`qqqqqq` is unknown and is ignored"]);
    let input = |more: &str| warnings(&format!("input {{ name: 'x' {more} }}"));
    assert_eq!(input("format: FORMAT_NONE optional: false"), Vec::<String>::new());
    assert_eq!(input("optional: true"), ["`optional` has no meaning here and is ignored"]);
    assert_eq!(input("reshape { shape: [ ] }"), ["`reshape` is not applied: clients send the model's own shape"]);
    assert_eq!(
        warnings("output { name: 'y' label_filename: 'l' }"),
        ["`label_filename` has no meaning here and is ignored"]
    );
    assert_eq!(
        warnings("dynamic_batching { priority_levels: 3 }"),
        ["`priority_levels` has no meaning here and is ignored"]
    );
    let file = "model_warmup { name: 'w' inputs { key: 'x' value { input_data_file: 'raw' } } }";
    assert_eq!(warnings(file), ["`model_warmup` reads its data from a file, which is not supported; it is left out"]);
    assert_eq!(parse(file).warmup.requests, []);
}

#[test]
fn a_wrong_file_says_where() {
    let deep = "a {".repeat(100_000);
    for (text, expected) in [
        ("name: \"frod\"", "line 1, column 1: the model is called `frod`, but its folder `fraud`"),
        ("\n  max_batch_size: -1", "line 2, column 3: `max_batch_size`: expected a whole number"),
        ("max_batch_size: '8'", "expected a whole number"),
        ("input [ { name: \"x\" dims: [ 4 ", "line 1, column 31: expected `,` or `]`"),
        ("input { name: 'x' data_type: TYPE_FLOAT }", "expected a type such as TYPE_FP32"),
        ("input { name: 'x' data_type: TYPE_BYTES }", "expected a type such as TYPE_FP32"),
        ("input { name: 'x' dims: -2 }", "expected a size, or -1 where it varies"),
        ("input { dims: 1 }", "`input`: expected a `name` in it"),
        ("input: 3", "`input`: expected { … }"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", "8 is more than `max_batch_size`, 4"),
        ("dynamic_batching { preferred_batch_size: 0 }", "expected a whole number in its range"),
        ("version_policy { newest { } }", "expected `latest`, `all` or `specific`"),
        ("instance_group { kind: KIND_TPU }", "expected KIND_AUTO"),
        ("default_model_filename: '../model.onnx'", "expected the name of a file"),
        (deep.as_str(), "nest deeper than 32"),
    ] {
        let error = read(text, &["fraud"]).unwrap_err().to_string();
        assert!(error.starts_with("config.pbtxt, line ") && error.contains(expected), "{error}");
    }
}

#[test]
fn model_toml_goes_first_key_by_key() {
    let base = parse(
        "backend: 'x' max_batch_size: 8 instance_group { count: 2 } version_policy { all {} }
         dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 5 }
         model_warmup { name: 'w' }",
    );
    let over = |toml: &str| ModelConfig::parse_over(base.clone(), toml).unwrap();
    assert_eq!(over(""), base);
    assert_eq!(over("backend = 'auto'").backend, None);
    assert_eq!(over("versions = { latest = 1 }").versions, Some(VersionPolicy::default()));
    let batching = over("[batching]\nlatency_goal = '1ms'\nallowed_batch_sizes = [2, 4]").batching;
    assert_eq!((batching.max_queue_delay_microseconds, batching.preferred_batch_size), (None, None));
    assert_eq!((batching.max_batch_size, batching.num_batch_threads), (None, Some(size(2))));
    assert_eq!(over("[warmup]\nruns = 2").warmup.requests.len(), 1);
    assert_eq!(over("[warmup]\nrows = [1]").warmup.requests, []);
}

/// Declares and loads; what the check says, if anything.
fn check(pbtxt: &str, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Result<(), String> {
    let signature = Signature::new(inputs, outputs).unwrap();
    parse(pbtxt).declared.unwrap().check(&signature).map_err(|error| error.to_string())
}

#[test]
fn a_model_must_be_what_was_declared() {
    let x = || TensorSpec::new("x", DType::Fp32, vec![Dim::symbol("N"), Dim::Fixed(4)]);
    let y = || TensorSpec::new("y", DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("L")]);
    let z = || TensorSpec::new("z", DType::Int64, vec![Dim::symbol("N"), Dim::symbol("L")]);
    let model = |pbtxt: &str| check(pbtxt, vec![x(), y()], vec![z()]);
    let both = "input { name: 'x' data_type: TYPE_FP32 dims: 4 } input { name: 'y' dims: -1 }";
    for good in [
        format!("max_batch_size: 8 {both} output {{ name: 'z' data_type: TYPE_INT64 dims: [ -1 ] }}"),
        format!("max_batch_size: 8 {both} output {{ name: 'z' dims: 16 }}"),
        both.to_owned(),
        "input { name: 'x' dims: [-1, 4] } input { name: 'y' dims: [-1, -1] }".to_owned(),
        "max_batch_size: 0 input { name: 'x' dims: [-1, 4] } input { name: 'y' dims: [2, 3] }".to_owned(),
        "max_batch_size: 2 output { name: 'z' }".to_owned(),
    ] {
        assert_eq!(model(&good), Ok(()), "{good}");
    }
    for (wrong, expected) in [
        ("input { name: 'q' dims: 4 }", "the model has no input `q`; it has x, y"),
        ("input { name: 'x' dims: 4 }", "the model's input `y` is not in it"),
        ("output { name: 'x' }", "the model has no output `x`; it has z"),
        ("output { name: 'z' data_type: TYPE_INT32 }", "output `z`: it says INT32, the model has INT64"),
        (
            "max_batch_size: 8 input { name: 'x' dims: [ -1, 4 ] }",
            "input `x`: its dims are [-1,4], the model has x FP32[N,4], whose first axis is the batch",
        ),
        ("max_batch_size: 0 input { name: 'x' dims: 4 }", "input `x`: its dims are [4], the model has x FP32[N,4]"),
        ("max_batch_size: 8 input { name: 'x' dims: 5 }", "its dims are [5]"),
        ("max_batch_size: 8 input { name: 'x' dims: -1 }", "its dims are [-1]"),
    ] {
        let error = model(wrong).unwrap_err();
        assert!(error.starts_with("config.pbtxt: ") && error.contains(expected), "{error}");
    }
    let fixed = || TensorSpec::new("x", DType::Fp32, vec![Dim::Fixed(1), Dim::Fixed(4)]);
    let error = check("max_batch_size: 8 input { name: 'x' dims: 4 }", vec![fixed()], vec![]).unwrap_err();
    assert!(error.contains("`max_batch_size` is 8, but the model's x FP32[1,4] has no batch axis"), "{error}");
    assert_eq!(check("max_batch_size: 0 input { name: 'x' dims: [1, 4] }", vec![fixed()], vec![]), Ok(()));
}

/// Pieces of which honest and dishonest files are made.
fn pieces() -> impl Strategy<Value = String> {
    let words: Vec<&str> =
        WHOLE.split_whitespace().chain(["<", ">", ";", "\\", "'", "\"", "-1", "\u{e9}", "#"]).collect();
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![pieces(), any::<String>()]) {
        if let Err(error) = read(&text, &["fraud"]) {
            prop_assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty());
        }
    }

    /// A good file that lost or changed a part.
    #[test]
    fn a_damaged_file_is_read_or_refused(start in 0..WHOLE.len(), length in 0..40_usize, new in "[ -~]{0,3}") {
        let end = (start + length).min(WHOLE.len());
        let text = format!("{}{new}{}", &WHOLE[..start], &WHOLE[end..]);
        if let Err(error) = read(&text, &["fraud"]) {
            prop_assert!(error.to_string().starts_with("config.pbtxt, line "));
        }
    }
}
