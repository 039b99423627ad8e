//! Bodies without an envelope, and documents taken apart.

use bytes::Bytes;
use millrace_core::{DType, Dim, Reason, Signature, Signatures, Tensor, TensorSpec};

use super::{DEFAULT_MAX_DEPTH, one, tensor_text, two};
use crate::{
    Content, Field, JsonError, MOST_KEYS, decode_content, decode_fields, decode_plain, encode_plain_within,
    encode_value_within, list, object,
};

fn decoded(signatures: &Signatures, body: &str) -> String {
    let body =
        decode_plain(body.as_bytes(), signatures, DEFAULT_MAX_DEPTH).unwrap_or_else(|error| panic!("{body}: {error}"));
    body.inputs.iter().map(tensor_text).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn refuses(signatures: &Signatures, body: &str, words: &str) {
    match decode_plain(body.as_bytes(), signatures, DEFAULT_MAX_DEPTH) {
        Ok(decoded) => panic!("{body} decoded to {decoded:?}"),
        Err(error) => {
            assert_eq!(error.reason(), Reason::InvalidInput, "{error}");
            assert!(error.to_string().contains(words), "expected {words:?} in {error}");
        }
    }
}

#[test]
fn a_value_is_the_only_input_and_an_object_names_each() {
    let single = one(DType::Fp32);
    for body in [
        "[[1, 2.5]]",
        " [[1,2.5]]\n",
        r#"{"x": [[1, 2.5]]}"#,
        r#"{"instances": [[1, 2.5]]}"#,
        r#"{"inputs": {"x": [[1, 2.5]]}}"#,
    ] {
        assert_eq!(decoded(&single, body), "FP32[1,2]:[1.0, 2.5]", "{body}");
    }
    assert_eq!(decoded(&single, "5"), "FP32[]:[5.0]");
    let several = two();
    let expected = "INT32[1]:[1] INT32[1]:[2]";
    for body in
        [r#"{"b": [2], "a": [1]}"#, r#"{"instances": [{"a": 1, "b": 2}]}"#, r#"{"inputs": {"a": [1], "b": [2]}}"#]
    {
        assert_eq!(decoded(&several, body), expected, "{body}");
    }
}

#[test]
fn an_object_of_base64_is_a_value() {
    let strings = one(DType::Bytes);
    // Alone it is an element, as raw bytes are.
    for body in [
        r#"{"b64": "YQ=="}"#,
        r#"[{"b64": "YQ=="}]"#,
        r#"{"x": {"b64": "YQ=="}}"#,
        r#"{"x": [{"b64": "YQ=="}]}"#,
        r#""a""#,
    ] {
        let body = decode_plain(body.as_bytes(), &strings, DEFAULT_MAX_DEPTH).unwrap();
        assert_eq!(body.inputs[0].strings().unwrap().get(0), Some(&b"a"[..]));
        assert_eq!(&**body.inputs[0].shape(), [1]);
    }
}

#[test]
fn an_input_called_inputs_is_an_input() {
    let signature = super::signature(&[("inputs", DType::Fp32), ("b", DType::Fp32)], &[("y", DType::Fp32)]);
    let signatures = Signatures::single(signature);
    assert_eq!(decoded(&signatures, r#"{"inputs": [1], "b": [2]}"#), "FP32[1]:[1.0] FP32[1]:[2.0]");
}

#[test]
fn bytes_that_are_no_json_are_an_element_of_an_input_that_takes_bytes() {
    let strings = one(DType::Bytes);
    let first = |body: &'static [u8], content| {
        let body = decode_content(&Bytes::from_static(body), content, &strings, DEFAULT_MAX_DEPTH).unwrap();
        assert_eq!(&**body.inputs[0].shape(), [1]);
        body.inputs[0].strings().unwrap().get(0).unwrap().to_vec()
    };
    assert_eq!(first(b"\xff\xd8[1]", Content::Unknown), b"\xff\xd8[1]");
    assert_eq!(first(b"[\"a\"]", Content::Unknown), b"a");
    assert_eq!(first(b"[\"a\"]", Content::Raw), b"[\"a\"]");
    assert_eq!(first(b"[\"a\"]", Content::Json), b"a");
    let numbers = one(DType::Fp32);
    let body = decode_content(&Bytes::from_static(b"[1]"), Content::Raw, &numbers, DEFAULT_MAX_DEPTH).unwrap();
    assert_eq!(tensor_text(&body.inputs[0]), "FP32[1]:[1.0]");
    assert!(decode_content(&Bytes::from_static(b"\xff"), Content::Json, &strings, DEFAULT_MAX_DEPTH).is_err());
    let pairs =
        Signatures::single(Signature::new(vec![TensorSpec::new("x", DType::Bytes, [Dim::Fixed(2)])], vec![]).unwrap());
    let error = decode_content(&Bytes::from_static(b"a"), Content::Raw, &pairs, DEFAULT_MAX_DEPTH).unwrap_err();
    assert!(error.to_string().contains("x BYTES[2]"), "{error}");
}

#[test]
fn named_parts_are_one_body_or_an_input_each() {
    let field = |name, text: &'static str| Field {
        name,
        content: Content::Unknown,
        bytes: Bytes::from_static(text.as_bytes()),
    };
    let read = |signatures: &Signatures, fields: &[Field<'_>]| {
        decode_fields(fields, signatures, DEFAULT_MAX_DEPTH)
            .map(|body| body.inputs.iter().map(tensor_text).collect::<Vec<_>>().join(" "))
            .map_err(|error| error.to_string())
    };
    let (single, several) = (one(DType::Int32), two());
    assert_eq!(
        read(&single, &[field("body", "[9]"), field("data", "[1]"), field("x", "[2]")]).unwrap(),
        "INT32[1]:[1]"
    );
    assert_eq!(read(&single, &[field("body", "[9]")]).unwrap(), "INT32[1]:[9]");
    assert_eq!(read(&several, &[field("b", "[2]"), field("a", "[1]")]).unwrap(), "INT32[1]:[1] INT32[1]:[2]");
    assert_eq!(read(&several, &[field("data", r#"{"a": [1], "b": [2]}"#)]).unwrap(), "INT32[1]:[1] INT32[1]:[2]");
    assert!(read(&several, &[field("a", "[1]")]).unwrap_err().contains("input `b` is missing"));
    assert!(read(&several, &[field("a", "[1]"), field("a", "[1]")]).unwrap_err().contains("duplicate"));
    assert!(read(&single, &[field("file", "[1]")]).unwrap_err().contains("unknown input `file`"));
    assert!(read(&single, &[]).unwrap_err().contains("input `x` is missing"));
    assert!(read(&single, &[field("x", "[1]]")]).unwrap_err().contains("trailing"));
    let called_data = Signatures::single(super::signature(&[("data", DType::Int32), ("body", DType::Int32)], &[]));
    assert_eq!(read(&called_data, &[field("data", "[1]"), field("body", "[2]")]).unwrap(), "INT32[1]:[1] INT32[1]:[2]");
}

#[test]
fn what_is_no_input_is_refused_and_named() {
    let (single, several) = (one(DType::Fp32), two());
    refuses(&single, "", "empty");
    refuses(&single, "null", "x");
    refuses(&single, "{}", "input `x` is missing");
    refuses(&single, r#"{"z": [1]}"#, "unknown input `z`");
    refuses(&single, r#"{"x": [1], "x": [2]}"#, "duplicate key `x`");
    refuses(&single, r#"{"instances": [1], "instances": [2]}"#, "duplicate key `instances`");
    refuses(&single, "[1] [2]", "trailing");
    refuses(&single, r#"{"x": [1]}}"#, "trailing");
    refuses(&single, "[[1], [2, 3]]", "ragged");
    refuses(&single, "[1, \"a\"]", "[1]");
    refuses(&single, "[1,", "too early");
    refuses(&several, "[1]", "a, b");
    refuses(&several, "[1", "too early");
    refuses(&several, r#"{"a": [1]}"#, "input `b` is missing");
    refuses(&single, &"[".repeat(100_000), "nesting");
    refuses(&single, &r#"{"a":"#.repeat(100_000), "nesting");
}

#[test]
fn documents_come_apart_without_losing_their_places() {
    let body = br#" {"name": "m\u0041", "data": [[1, 2], [3, 4]], "none": null, "more": {"a": {"b": 1}}} "#;
    let members = object(body, DEFAULT_MAX_DEPTH).unwrap();
    let keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["name", "data", "none", "more"]);
    assert_eq!(members[0].1.string().as_deref(), Some("mA"));
    assert_eq!(members[1].1.text(), b"[[1, 2], [3, 4]]");
    assert!(members[2].1.is_null() && members[3].1.is_object() && !members[1].1.is_base64());
    let spec = &one(DType::Int32).get(0).unwrap().inputs()[0].clone();
    assert_eq!(tensor_text(&members[1].1.tensor(spec, 8).unwrap()), "INT32[2,2]:[1, 2, 3, 4]");
    let inner = members[3].1.object(8).unwrap();
    assert_eq!((inner.len(), inner[0].1.text()), (1, &br#"{"b": 1}"#[..]));
    assert!(matches!(members[3].1.object(1), Err(JsonError::Depth { limit: 1 })));
    assert!(matches!(members[1].1.object(8), Err(JsonError::NotAnObject { .. })));

    let items = list(b"[1, [2], {}]", DEFAULT_MAX_DEPTH, 3).unwrap().unwrap();
    assert_eq!(items.iter().map(|item| item.text()).collect::<Vec<_>>(), [&b"1"[..], b"[2]", b"{}"]);
    assert!(list(b"{}", DEFAULT_MAX_DEPTH, 3).unwrap().is_none());
    assert!(matches!(list(b"[1,2]", DEFAULT_MAX_DEPTH, 1), Err(JsonError::TooMany { limit: 1, .. })));
    assert!(matches!(list(b"[1]x", DEFAULT_MAX_DEPTH, 1), Err(JsonError::Trailing { at: 3 })));
    let many = format!("{{{}}}", (0..=MOST_KEYS).map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(","));
    assert!(matches!(object(many.as_bytes(), DEFAULT_MAX_DEPTH), Err(JsonError::TooMany { .. })));
}

#[test]
fn answers_stand_between_what_is_around_them() {
    let outputs = [Tensor::from_vec(&[2], vec![1_i32, 2]).unwrap(), Tensor::from_vec(&[], vec![3_i32]).unwrap()];
    let signatures = two();
    let signature = signatures.get(0).unwrap();
    let text = encode_plain_within(signature, &outputs, (b"<", b">"), 100).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), r#"<{"s":[1,2],"d":3}>"#);
    let single = one(DType::Int32);
    let text = encode_plain_within(single.get(0).unwrap(), &outputs[..1], (b"", b""), 5).unwrap();
    assert_eq!(text, b"[1,2]");
    let error = encode_plain_within(single.get(0).unwrap(), &outputs[..1], (b"", b"}"), 5).unwrap_err();
    assert!(matches!(error, JsonError::AnswerTooLarge { limit: 5 }));
    let second = &signature.outputs()[1];
    assert_eq!(encode_value_within(second, &outputs[1], (b"<", b">"), 5).unwrap(), b"<3>");
}
