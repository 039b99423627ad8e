//! The golden cases of every good fixture, asked over a socket in TensorFlow Serving's JSON.

use base64_simd::STANDARD;
use millrace_core::{DType, Strings, Tensor};
use millrace_testkit::{Case, assert_close};
use serde_json::{Value, json};

use crate::support::TestServer;

/// How many of the cases TensorFlow Serving's JSON cannot carry: FP16 and UINT16 have no form in it.
fn has_json(tensor: &Tensor) -> bool {
    !matches!(tensor.dtype(), DType::Fp16 | DType::Bf16 | DType::Uint16)
}

#[test]
fn every_fixture_answers_its_golden_cases() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    let mut asked = std::collections::BTreeSet::new();
    for case in Case::models() {
        let path = format!("/v1/models/{}/versions/{}:predict", case.model, case.version);
        let inputs: Vec<String> =
            case.inputs.iter().map(|(name, tensor)| format!("{}: {}", json!(name), text(tensor))).collect();
        let reply = client.post(&path, format!("{{\"inputs\": {{{}}}}}", inputs.join(", ")));
        if !case.inputs.iter().all(|(_, tensor)| has_json(tensor)) {
            assert_eq!(reply.status, 501, "{}: {}", case.model, reply.text());
            continue;
        }
        assert_eq!(reply.status, 200, "{}: {}", case.model, reply.text());
        let outputs = parse(&reply.text());
        for (name, want) in &case.outputs {
            let value = if case.outputs.len() == 1 { &outputs["outputs"] } else { &outputs["outputs"][name] };
            let got = tensor(value, want);
            assert_close(&got, want, case.tolerance, &format!("{} {name}", case.model));
        }
        asked.insert(case.model);
    }
    assert!(asked.len() >= 15, "only {asked:?}");
}

#[test]
fn rows_and_columns_give_the_same() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    let path = "/v1/models/half_plus_two/versions/1:predict";
    client.post(path, r#"{"instances": [1.0, 2.0, 5.0]}"#).gives(&json!({"predictions": [2.5, 3.0, 4.5]}));
    client.post(path, r#"{"inputs": {"x": [1.0, 2.0, 5.0]}}"#).gives(&json!({"outputs": [2.5, 3.0, 4.5]}));
    let rows = r#"{"instances": [{"a": 1, "b": [2, 3]}, {"a": 4, "b": [5, 6]}]}"#;
    client
        .post("/v1/models/sum_diff:predict", rows)
        .gives(&json!({"predictions": [{"s": 6, "d": -4}, {"s": 15, "d": -7}]}));
    client.post("/v1/models/scale_scalar:predict", r#"{"inputs": 5}"#).gives(&json!({"outputs": 15.0}));
}

#[test]
fn versions_and_labels_choose_between_two_versions() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    for (target, answer) in [("", 5.0), ("/versions/2", 5.0), ("/versions/1", 4.0), ("/labels/stable", 4.0)] {
        let path = format!("/v1/models/half_plus_two{target}:predict");
        client.post(&path, r#"{"instances": [4.0]}"#).gives(&json!({"predictions": [answer]}));
    }
}

/// Nested JSON, written by hand: `serde_json` has no NaN.
fn text(tensor: &Tensor) -> String {
    let leaves: Vec<String> = match tensor.dtype() {
        DType::Bool => list::<bool>(tensor, |value| value.to_string()),
        DType::Uint8 => list::<u8>(tensor, |value| value.to_string()),
        DType::Uint16 => list::<u16>(tensor, |value| value.to_string()),
        DType::Uint32 => list::<u32>(tensor, |value| value.to_string()),
        DType::Uint64 => list::<u64>(tensor, |value| value.to_string()),
        DType::Int8 => list::<i8>(tensor, |value| value.to_string()),
        DType::Int16 => list::<i16>(tensor, |value| value.to_string()),
        DType::Int32 => list::<i32>(tensor, |value| value.to_string()),
        DType::Int64 => list::<i64>(tensor, |value| value.to_string()),
        DType::Fp32 => list::<f32>(tensor, |value| float(f64::from(value), format!("{value:?}"))),
        DType::Fp64 => list::<f64>(tensor, |value| float(value, format!("{value:?}"))),
        DType::Fp16 | DType::Bf16 => vec!["0.0".to_owned(); tensor.shape().n_elements()],
        DType::Bytes => tensor
            .strings()
            .unwrap()
            .iter()
            .map(|bytes| json!({"b64": STANDARD.encode_to_string(bytes)}).to_string())
            .collect(),
    };
    let mut leaves = leaves.into_iter();
    nest(tensor.shape(), &mut leaves)
}

fn list<T: millrace_core::Element>(tensor: &Tensor, write: impl Fn(T) -> String) -> Vec<String> {
    tensor.elements::<T>().unwrap().iter().map(|value| write(*value)).collect()
}

fn float(value: f64, finite: String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    finite
}

fn nest(sizes: &[usize], leaves: &mut impl Iterator<Item = String>) -> String {
    match sizes.split_first() {
        None => leaves.next().unwrap(),
        Some((size, inner)) => {
            let items: Vec<String> = (0..*size).map(|_| nest(inner, leaves)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// The answer with its bare NaN and Infinity made strings.
fn parse(text: &str) -> Value {
    let text = text.replace("-Infinity", "\"-inf\"").replace("Infinity", "\"inf\"").replace("NaN", "\"NaN\"");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The JSON as a tensor of the dtype of `like`, with the shape that the JSON has.
fn tensor(value: &Value, like: &Tensor) -> Tensor {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Some(list) = inner.as_array() {
        shape.push(list.len());
        let Some(first) = list.first() else { break };
        inner = first;
    }
    let mut leaves = Vec::new();
    flatten(value, &mut leaves);
    macro_rules! numbers {
        ($type:ty) => {
            Tensor::from_vec::<$type>(&shape, leaves.iter().map(|leaf| leaf_text(leaf).parse().unwrap()).collect())
        };
    }
    match like.dtype() {
        DType::Bool => numbers!(bool),
        DType::Uint8 => numbers!(u8),
        DType::Uint16 => numbers!(u16),
        DType::Uint32 => numbers!(u32),
        DType::Uint64 => numbers!(u64),
        DType::Int8 => numbers!(i8),
        DType::Int16 => numbers!(i16),
        DType::Int32 => numbers!(i32),
        DType::Int64 => numbers!(i64),
        DType::Fp32 => numbers!(f32),
        DType::Fp64 => numbers!(f64),
        DType::Bytes => {
            let strings: Strings = leaves.iter().map(|leaf| leaf.as_str().unwrap().as_bytes().to_vec()).collect();
            Tensor::from_strings(&shape, strings)
        }
        DType::Fp16 | DType::Bf16 => panic!("TensorFlow Serving's JSON has no form for it"),
    }
    .unwrap()
}

fn leaf_text(leaf: &Value) -> String {
    leaf.as_str().map_or_else(|| leaf.to_string(), str::to_owned)
}

fn flatten<'a>(value: &'a Value, leaves: &mut Vec<&'a Value>) {
    match value.as_array() {
        Some(list) => list.iter().for_each(|inner| flatten(inner, leaves)),
        None => leaves.push(value),
    }
}
