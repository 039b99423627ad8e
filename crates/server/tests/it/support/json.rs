//! Tensors as JSON and back, with the bare `NaN` and `Infinity` that `serde_json` does not have.

use base64_simd::STANDARD;
use millrace_core::{DType, Element, Strings, Tensor};
use serde_json::{Value, json};

/// How an element of a `BYTES` tensor is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    /// As a string, which it must be.
    Plain,
    /// As TensorFlow Serving's `{"b64": …}`.
    Base64,
}

/// The tensor as nested lists.
pub(crate) fn nested(tensor: &Tensor, text: Text) -> String {
    nest(tensor.shape(), &mut leaves(tensor, text).into_iter())
}

/// The tensor's elements as one list.
pub(crate) fn flat(tensor: &Tensor, text: Text) -> String {
    format!("[{}]", leaves(tensor, text).join(", "))
}

/// Row `row` of the tensor as nested lists.
pub(crate) fn row(tensor: &Tensor, row: usize, text: Text) -> String {
    let row = tensor.rows(row..row + 1);
    nest(&row.shape()[1..], &mut leaves(&row, text).into_iter())
}

fn leaves(tensor: &Tensor, text: Text) -> Vec<String> {
    match tensor.dtype() {
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
        DType::Fp16 | DType::Bf16 => panic!("no JSON of ours has half precision"),
        DType::Bytes => {
            let write = |bytes: &[u8]| match text {
                Text::Plain => json!(std::str::from_utf8(bytes).expect("the case holds UTF-8")).to_string(),
                Text::Base64 => json!({"b64": STANDARD.encode_to_string(bytes)}).to_string(),
            };
            tensor.strings().expect("it is BYTES").iter().map(write).collect()
        }
    }
}

fn list<T: Element>(tensor: &Tensor, write: impl Fn(T) -> String) -> Vec<String> {
    tensor.elements::<T>().expect("the dtype was matched").iter().map(|value| write(*value)).collect()
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
        None => leaves.next().expect("as many leaves as the shape says"),
        Some((size, inner)) => {
            let items: Vec<String> = (0..*size).map(|_| nest(inner, leaves)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// The document, with its bare `NaN` and `Infinity` made strings.
#[track_caller]
pub(crate) fn parse(text: &str) -> Value {
    let mut strict = String::new();
    // Every other piece is inside of quotes; an escaped quote does not end one.
    let mut inside = false;
    let mut escaped = false;
    let mut outside = String::new();
    let quoted =
        |text: &str| text.replace("-Infinity", "\"-inf\"").replace("Infinity", "\"inf\"").replace("NaN", "\"NaN\"");
    for character in text.chars() {
        if inside || character == '"' {
            strict.push_str(&quoted(&std::mem::take(&mut outside)));
            strict.push(character);
            if !escaped && character == '"' {
                inside = !inside;
            }
            escaped = !escaped && character == '\\';
        } else {
            outside.push(character);
        }
    }
    strict.push_str(&quoted(&outside));
    serde_json::from_str(&strict).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Nested lists as a tensor of the dtype of `like`, with the shape that they have.
#[track_caller]
pub(crate) fn tensor(value: &Value, like: &Tensor) -> Tensor {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Some(list) = inner.as_array() {
        shape.push(list.len());
        let Some(first) = list.first() else { break };
        inner = first;
    }
    tensor_of(&shape, value, like)
}

/// Lists, nested in any way, as a tensor of this shape and of the dtype of `like`.
#[track_caller]
pub(crate) fn tensor_of(shape: &[usize], value: &Value, like: &Tensor) -> Tensor {
    let mut leaves = Vec::new();
    flatten(value, &mut leaves);
    macro_rules! numbers {
        ($type:ty) => {
            Tensor::from_vec::<$type>(shape, leaves.iter().map(|leaf| leaf_text(leaf).parse().unwrap()).collect())
        };
    }
    let tensor = match like.dtype() {
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
            Tensor::from_strings(shape, strings)
        }
        DType::Fp16 | DType::Bf16 => panic!("no JSON of ours has half precision"),
    };
    tensor.expect("as many elements as the shape says")
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
