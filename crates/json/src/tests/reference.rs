//! A slow decoder over `serde_json`'s tree, written from the rules and not from the fast one, to compare with.

use millrace_core::{DType, Signature};
use serde_json::{Map, Value};

/// One tensor: its shape and its elements, each printed.
pub(super) type Printed = (Vec<usize>, Vec<String>);

/// The inputs that a document means, in the order of `signature`; `None` where it must be refused. Documents have no
/// `signature_name` and no numbers that their text does not say exactly.
pub(super) fn decode(document: &Value, signature: &Signature) -> Option<Vec<Printed>> {
    let document = document.as_object()?;
    match (document.get("instances"), document.get("inputs")) {
        (Some(rows), None) => decode_rows(rows.as_array()?, signature),
        (None, Some(columns)) => decode_columns(columns, signature),
        _ => None,
    }
}

fn decode_rows(rows: &[Value], signature: &Signature) -> Option<Vec<Printed>> {
    let specs = signature.inputs();
    let Some(objects) = named(rows.first()?).map(|_| rows.iter().map(Value::as_object)) else {
        let [spec] = specs else { return None };
        return Some(vec![stack(rows.iter(), spec.dtype)?]);
    };
    let objects = objects.collect::<Option<Vec<_>>>()?;
    if objects.iter().any(|object| object.len() != specs.len()) {
        return None;
    }
    let column = |spec: &millrace_core::TensorSpec| {
        let values = objects.iter().map(|object| object.get(&*spec.name)).collect::<Option<Vec<_>>>()?;
        stack(values.into_iter(), spec.dtype)
    };
    specs.iter().map(column).collect()
}

fn decode_columns(columns: &Value, signature: &Signature) -> Option<Vec<Printed>> {
    let specs = signature.inputs();
    if let Some(object) = named(columns) {
        return specs.iter().map(|spec| tensor(object.get(&*spec.name)?, spec.dtype)).collect();
    }
    let [spec] = specs else { return None };
    Some(vec![tensor(columns, spec.dtype)?])
}

/// The object, where it is one that names inputs rather than a base64 value.
fn named(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|_| base64(value).is_none())
}

fn base64(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get("b64")?.as_str()
}

fn tensor(value: &Value, dtype: DType) -> Option<Printed> {
    match value.as_array() {
        Some(values) => stack(values.iter(), dtype),
        None => Some((Vec::new(), vec![element(value, dtype)?])),
    }
}

fn stack<'a>(values: impl Iterator<Item = &'a Value>, dtype: DType) -> Option<Printed> {
    let tensors = values.map(|value| tensor(value, dtype)).collect::<Option<Vec<_>>>()?;
    let shape = tensors.first().map(|(shape, _)| shape.clone()).unwrap_or_default();
    if tensors.iter().any(|(other, _)| *other != shape) {
        return None;
    }
    let shape = [vec![tensors.len()], shape].concat();
    Some((shape, tensors.into_iter().flat_map(|(_, elements)| elements).collect()))
}

fn element(value: &Value, dtype: DType) -> Option<String> {
    match dtype {
        DType::Fp64 => Some(format!("{:?}", value.as_f64()?)),
        DType::Int64 => Some(value.as_i64()?.to_string()),
        DType::Bool => Some(value.as_bool()?.to_string()),
        DType::Bytes => match (value.as_str(), base64(value)) {
            (Some(text), _) => Some(format!("{:?}", text.as_bytes())),
            (None, Some(text)) => {
                let bytes = base64_simd::forgiving_decode_to_vec(text.as_bytes()).ok()?;
                Some(format!("{bytes:?}"))
            }
            (None, None) => None,
        },
        _ => panic!("documents are made for four dtypes, not for {dtype}"),
    }
}
