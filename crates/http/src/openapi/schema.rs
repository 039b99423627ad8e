//! Signatures as JSON schemas: what a value for a tensor looks like in each protocol.

use std::borrow::Borrow;

use millrace_core::{DType, Dim, Signature, TensorSpec};
use serde_json::{Map, Value, json};

use crate::general::predictions;

/// A value of `axes` nested lists of `dtype`'s elements.
fn nested(dtype: DType, axes: &[Dim]) -> Value {
    axes.iter().rev().fold(element(dtype), |items, dim| match dim {
        Dim::Fixed(size) => json!({"type": "array", "items": items, "minItems": size, "maxItems": size}),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => json!({"type": "array", "items": items}),
    })
}

/// One element as JSON has it.
fn element(dtype: DType) -> Value {
    let integer = |least: i64, most: u64| json!({"type": "integer", "minimum": least, "maximum": most});
    match dtype {
        DType::Bool => json!({"type": "boolean"}),
        DType::Uint8 => integer(0, u8::MAX.into()),
        DType::Uint16 => integer(0, u16::MAX.into()),
        DType::Uint32 => integer(0, u32::MAX.into()),
        DType::Uint64 => integer(0, u64::MAX),
        DType::Int8 => integer(i8::MIN.into(), 127),
        DType::Int16 => integer(i16::MIN.into(), 32_767),
        DType::Int32 => integer(i32::MIN.into(), 2_147_483_647),
        DType::Int64 => integer(i64::MIN, u64::MAX / 2),
        DType::Fp16 | DType::Bf16 => json!({"type": "number"}),
        DType::Fp32 => json!({"type": "number", "format": "float"}),
        DType::Fp64 => json!({"type": "number", "format": "double"}),
        DType::Bytes => json!({"oneOf": [
            {"type": "string"},
            {"type": "object", "required": ["b64"], "additionalProperties": false,
             "properties": {"b64": {"type": "string", "format": "byte"}}},
        ]}),
    }
}

/// A whole tensor for `spec`.
pub(super) fn tensor(spec: &TensorSpec) -> Value {
    let mut schema = nested(spec.dtype, &spec.shape);
    schema["description"] = json!(spec.to_string());
    schema
}

/// One row of a tensor for `spec`.
fn row(spec: &TensorSpec) -> Value {
    let mut schema = nested(spec.dtype, spec.shape.get(1..).unwrap_or_default());
    schema["description"] = json!(format!("one row of {spec}"));
    schema
}

/// An object with a key for each of `specs`.
fn named<S: Borrow<TensorSpec>>(specs: &[S], value: impl Fn(&TensorSpec) -> Value) -> Value {
    let specs = || specs.iter().map(Borrow::borrow);
    let properties: Map<_, _> = specs().map(|spec| (spec.name.to_string(), value(spec))).collect();
    let required: Vec<_> = specs().map(|spec| &*spec.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// What an answer has for `outputs`: the only value, or an object with the names. Ragged outputs are lists as they are for one
/// instance, and become lists of those by `several`; their counts are not shown, and records are lists of objects.
fn answered(outputs: &[TensorSpec], value: impl Fn(&TensorSpec) -> Value, several: impl Fn(&Value) -> Value) -> Value {
    if let [only] = outputs {
        return value(only);
    }
    let mut properties = Map::new();
    for spec in outputs.iter().filter(|spec| !counts(outputs, spec)) {
        match (&spec.ragged_by, &spec.record) {
            (None, _) => properties.insert(spec.name.to_string(), value(spec)),
            (Some(_), None) => properties.insert(spec.name.to_string(), several(&tensor(spec))),
            (Some(_), Some(record)) => {
                let fields: Vec<_> = outputs.iter().filter(|spec| spec.record.as_ref() == Some(record)).collect();
                let list = json!({"type": "array", "items": named(&fields, row)});
                properties.insert(record.to_string(), several(&list))
            }
        };
    }
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// Whether `spec` counts the rows of some other output.
fn counts(outputs: &[TensorSpec], spec: &TensorSpec) -> bool {
    outputs.iter().any(|output| output.ragged_by.as_ref() == Some(&spec.name))
}

/// A list with an entry for each instance.
fn list_of(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// Whether JSON can hold what goes in and what comes out. Lists of the Open Inference Protocol hold one dtype more.
pub(super) fn is_json(signature: &Signature, dtypes_of_oip: bool) -> bool {
    let is_half = |spec: &TensorSpec| matches!(spec.dtype, DType::Fp16 | DType::Bf16);
    let is_short = |spec: &TensorSpec| spec.dtype == DType::Uint16 && !dtypes_of_oip;
    !signature.inputs().iter().any(|spec| is_half(spec) || is_short(spec)) && !signature.outputs().iter().any(is_half)
}

/// A request of the general endpoints and its answer, where they take this signature.
pub(super) fn rows(signature: &Signature) -> Option<(Value, Value)> {
    let [input] = signature.inputs() else { return None };
    let output = signature.outputs().get(predictions(signature)?)?;
    if input.dtype == DType::Bytes || input.shape.is_empty() {
        return None;
    }
    let list = |spec: &TensorSpec| {
        let width = spec.shape.iter().skip(1).try_fold(1_usize, |product, dim| match dim {
            Dim::Fixed(size) => product.checked_mul(*size),
            Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => None,
        });
        let row: Vec<_> = [width.map_or(Dim::Unknown, Dim::Fixed)].into();
        json!({"type": "array", "minItems": 1, "items": nested(spec.dtype, &row), "description": spec.to_string()})
    };
    let text = || json!({"type": "string", "nullable": true});
    let request = json!({"type": "object", "required": ["input_data"], "properties": {
        "model_name": {"type": "string"}, "model_version": text(), "input_data": list(input), "batch_id": text(),
    }});
    let required = ["predictions", "model_name", "model_version", "inference_time_ms", "batch_id"];
    let answer = json!({"type": "object", "required": required, "properties": {
        "predictions": list(output), "model_name": {"type": "string"}, "model_version": {"type": "string"},
        "inference_time_ms": {"type": "number"}, "batch_id": text(),
    }});
    Some((request, answer))
}

/// A predict request of TensorFlow Serving and its answer.
pub(super) fn predict(signature: &Signature) -> (Value, Value) {
    let (inputs, outputs) = (signature.inputs(), signature.outputs());
    let has_rows = !inputs.iter().chain(outputs).any(|spec| spec.shape.is_empty());
    let instance = match inputs {
        [only] => json!({"oneOf": [row(only), named(inputs, row)]}),
        several => named(several, row),
    };
    let columns = match inputs {
        [only] => json!({"oneOf": [tensor(only), named(inputs, tensor)]}),
        several => named(several, tensor),
    };
    let name = json!({"type": "string", "description": "the signature; by default serving_default"});
    let mut request = vec![
        json!({"type": "object", "required": ["inputs"], "properties": {"signature_name": name, "inputs": columns}}),
    ];
    let mut answer = vec![
        json!({"type": "object", "required": ["outputs"], "properties": {"outputs": answered(outputs, tensor, list_of)}}),
    ];
    // A scalar has no rows.
    if has_rows {
        let rows = |items: Value| json!({"type": "array", "minItems": 1, "items": items});
        let request_rows = json!({"signature_name": name, "instances": rows(instance)});
        request.insert(0, json!({"type": "object", "required": ["instances"], "properties": request_rows}));
        let answer_rows = json!({"predictions": rows(answered(outputs, row, Value::clone))});
        answer.insert(0, json!({"type": "object", "required": ["predictions"], "properties": answer_rows}));
    }
    (json!({"oneOf": request}), json!({"oneOf": answer}))
}

/// A request of TorchServe and its answer.
pub(super) fn plain(signature: &Signature) -> (Value, Value) {
    let inputs = signature.inputs();
    // A string may stand for a list of one.
    let value = |spec: &TensorSpec| match spec.dtype {
        DType::Bytes if !spec.shape.is_empty() => json!({"oneOf": [element(spec.dtype), tensor(spec)]}),
        _ => tensor(spec),
    };
    let request = match inputs {
        [only] => json!({"oneOf": [value(only), named(inputs, value)]}),
        several => named(several, value),
    };
    (request, answered(signature.outputs(), tensor, list_of))
}

/// Whether a body may be the bytes of the only input, such as a picture.
pub(super) fn takes_raw(signature: &Signature) -> bool {
    let has_one = |spec: &TensorSpec| spec.shape.iter().all(|dim| matches!(dim, Dim::Symbol(_) | Dim::Fixed(1)));
    matches!(signature.inputs(), [only] if only.dtype == DType::Bytes && has_one(only))
}

/// An inference request of the Open Inference Protocol and its answer.
pub(super) fn infer(signature: &Signature) -> (Value, Value) {
    let one = |spec: &TensorSpec, data: Value| {
        let rank = spec.shape.len();
        let required = ["name", "datatype", "shape"];
        json!({"type": "object", "required": required, "description": spec.to_string(), "properties": {
            "name": {"type": "string", "enum": [&*spec.name]},
            "datatype": {"type": "string", "enum": [spec.dtype.name()]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": rank, "maxItems": rank},
            "parameters": {"type": "object"},
            "data": data,
        }})
    };
    let list = |specs: &[TensorSpec]| -> Value {
        let items: Vec<_> =
            specs.iter().map(|spec| one(spec, json!({"type": "array", "items": data_element(spec.dtype)}))).collect();
        let n_items = items.len();
        let items = if let [only] = &*items { only.clone() } else { json!({"oneOf": items}) };
        json!({"type": "array", "items": items, "minItems": n_items, "maxItems": n_items})
    };
    let request = json!({"type": "object", "required": ["inputs"], "properties": {
        "id": {"type": "string"}, "parameters": {"type": "object"}, "inputs": list(signature.inputs()),
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "parameters": {"type": "object"},
        }}},
    }});
    let answer = json!({"type": "object", "required": ["model_name", "outputs"], "properties": {
        "id": {"type": "string"}, "model_name": {"type": "string"}, "model_version": {"type": "string"},
        "parameters": {"type": "object"}, "outputs": list(signature.outputs()),
    }});
    (request, answer)
}

/// Data there may be flat or nested, and strings are strings.
fn data_element(dtype: DType) -> Value {
    let flat = if dtype == DType::Bytes { json!({"type": "string"}) } else { element(dtype) };
    json!({"oneOf": [flat, {"type": "array", "items": {}}]})
}

#[cfg(test)]
mod tests {
    use millrace_core::{DType, Dim, Signature, TensorSpec};
    use serde_json::json;

    use super::{infer, plain, predict, tensor};

    fn spec(name: &str, dtype: DType, row: &[usize]) -> TensorSpec {
        let dims = row.iter().map(|size| Dim::Fixed(*size));
        TensorSpec::new(name, dtype, [Dim::symbol("N")].into_iter().chain(dims).collect::<Vec<_>>())
    }

    #[test]
    fn a_tensor_is_lists_of_its_sizes() {
        let expected = json!({
            "type": "array", "description": "x FP32[N,2]",
            "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number", "format": "float"}},
        });
        assert_eq!(tensor(&spec("x", DType::Fp32, &[2])), expected);
    }

    #[test]
    fn each_protocol_has_its_own_envelope() {
        let signature = Signature::new(
            vec![spec("a", DType::Int8, &[]), spec("b", DType::Bytes, &[])],
            vec![spec("y", DType::Bool, &[])],
        );
        let signature = signature.unwrap();
        let (request, answer) = predict(&signature);
        assert_eq!(request["oneOf"][0]["properties"]["instances"]["items"]["required"], json!(["a", "b"]));
        assert_eq!(request["oneOf"][0]["properties"]["instances"]["items"]["properties"]["a"]["minimum"], -128);
        assert_eq!(answer["oneOf"][0]["properties"]["predictions"]["items"]["type"], "boolean");
        let (request, answer) = plain(&signature);
        assert_eq!((&request["required"], &answer["type"]), (&json!(["a", "b"]), &json!("array")));
        let (request, _) = infer(&signature);
        assert_eq!(request["properties"]["inputs"]["minItems"], 2);
        assert_eq!(
            request["properties"]["inputs"]["items"]["oneOf"][1]["properties"]["datatype"]["enum"],
            json!(["BYTES"])
        );
    }
}
