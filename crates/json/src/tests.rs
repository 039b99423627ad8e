//! What the codec promises, row by row: the dialect, the two forms, the bad bodies.
//!
//! `property` states what holds for every document, `reference` holds the slow decoder that it compares with.

mod plain;
mod property;
mod ragged;
mod reader;
mod reference;
mod written;

use millrace_core::{DType, Dim, Element, Reason, Signature, Signatures, Tensor, TensorSpec};

use super::{DEFAULT_MAX_DEPTH, Form, JsonError, PredictBody, decode_predict};

/// One input `x` of a dtype, unbatched so that any shape is a fine declaration.
fn one(dtype: DType) -> Signatures {
    Signatures::single(signature(&[("x", dtype)], &[("y", dtype)]))
}

/// Two integer inputs `a` and `b`.
fn two() -> Signatures {
    let pair = [("a", DType::Int32), ("b", DType::Int32)];
    Signatures::single(signature(&pair, &[("s", DType::Int32), ("d", DType::Int32)]))
}

fn signature(inputs: &[(&str, DType)], outputs: &[(&str, DType)]) -> Signature {
    let specs = |list: &[(&str, DType)]| {
        list.iter().map(|(name, dtype)| TensorSpec::new(name, *dtype, [Dim::symbol("N")])).collect()
    };
    Signature::new(specs(inputs), specs(outputs)).unwrap()
}

/// Checks that `body` decodes to inputs that print as `expected`: `form x=FP32[2]:[1.0, 2.0]`.
#[track_caller]
fn check(signatures: &Signatures, body: &str, expected: &str) {
    match decode_predict(body.as_bytes(), signatures, DEFAULT_MAX_DEPTH) {
        Ok(decoded) => assert_eq!(shown(signatures, &decoded), expected, "{body}"),
        Err(error) => panic!("{body}: {error}"),
    }
}

/// Checks that `body` is refused as invalid input with a text that contains each of `parts`.
#[track_caller]
fn refuse(signatures: &Signatures, body: impl AsRef<[u8]>, parts: &[&str]) {
    let error = refused(signatures, body.as_ref(), DEFAULT_MAX_DEPTH);
    assert_eq!(error.reason(), Reason::InvalidInput, "{error}");
    let text = error.to_string();
    assert!(text.len() < 400, "{} bytes of error text", text.len());
    for part in parts {
        assert!(text.contains(part), "expected {part:?} in {text:?}");
    }
}

#[track_caller]
fn refused(signatures: &Signatures, body: &[u8], max_depth: usize) -> JsonError {
    match decode_predict(body, signatures, max_depth) {
        Ok(decoded) => panic!("{:?} decoded to {decoded:?}", String::from_utf8_lossy(&body[..body.len().min(100)])),
        Err(error) => error,
    }
}

fn shown(signatures: &Signatures, body: &PredictBody) -> String {
    let form = match body.form {
        Form::Rows => "rows",
        Form::Columns => "columns",
    };
    let specs = signatures.get(body.signature).unwrap().inputs();
    let tensors = body
        .inputs
        .iter()
        .zip(specs)
        .map(|(tensor, spec)| format!(" {}={}{}:{}", spec.name, tensor.dtype(), tensor.shape(), elements(tensor)));
    tensors.fold(form.to_owned(), |text, tensor| text + &tensor)
}

fn tensor_text(tensor: &Tensor) -> String {
    format!("{}{}:{}", tensor.dtype(), tensor.shape(), elements(tensor))
}

fn elements(tensor: &Tensor) -> String {
    fn list<T: Element>(tensor: &Tensor) -> String {
        format!("{:?}", tensor.elements::<T>().unwrap())
    }
    match tensor.dtype() {
        DType::Bool => list::<bool>(tensor),
        DType::Uint8 => list::<u8>(tensor),
        DType::Uint32 => list::<u32>(tensor),
        DType::Uint64 => list::<u64>(tensor),
        DType::Int8 => list::<i8>(tensor),
        DType::Int16 => list::<i16>(tensor),
        DType::Int32 => list::<i32>(tensor),
        DType::Int64 => list::<i64>(tensor),
        DType::Fp32 => list::<f32>(tensor),
        DType::Fp64 => list::<f64>(tensor),
        DType::Bytes => {
            let strings = tensor.strings().unwrap().iter();
            format!("{:?}", strings.map(|bytes| bytes.escape_ascii().to_string()).collect::<Vec<_>>())
        }
        DType::Uint16 | DType::Fp16 | DType::Bf16 => panic!("{} has no JSON form in requests", tensor.dtype()),
    }
}

#[test]
fn rows_of_values_become_one_tensor() {
    let f32s = one(DType::Fp32);
    check(&f32s, r#"{"instances": [1.0, 2.0, 5.0]}"#, "rows x=FP32[3]:[1.0, 2.0, 5.0]");
    check(&f32s, r#"{"instances": [[1, 2], [3, 4], [5, 6]]}"#, "rows x=FP32[3,2]:[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]");
    check(&f32s, "\n{ \"instances\"\t:\r[ [ [ 1 ] ] ] }", "rows x=FP32[1,1,1]:[1.0]");
    check(&f32s, r#"{"instances": [[], []]}"#, "rows x=FP32[2,0]:[]");
    check(&f32s, r#"{"instances": [[[], []]]}"#, "rows x=FP32[1,2,0]:[]");
}

#[test]
fn rows_of_objects_become_a_tensor_for_each_input() {
    let expected = "rows a=INT32[2]:[1, 4] b=INT32[2,2]:[2, 3, 5, 6]";
    check(&two(), r#"{"instances":[{"a":1,"b":[2,3]},{"a":4,"b":[5,6]}]}"#, expected);
    check(&two(), r#"{"instances":[{"b":[2,3],"a":1},{"a":4,"b":[5,6]}]}"#, expected);
    check(&one(DType::Fp32), r#"{"instances":[{"x":[1]},{"x":[2]}]}"#, "rows x=FP32[2,1]:[1.0, 2.0]");
    check(&one(DType::Fp32), r#"{"instances":[{"\u0078":1}]}"#, "rows x=FP32[1]:[1.0]");
}

#[test]
fn columns_are_whole_tensors() {
    let f32s = one(DType::Fp32);
    check(&f32s, r#"{"inputs": [1.0, 2.0]}"#, "columns x=FP32[2]:[1.0, 2.0]");
    check(&f32s, r#"{"inputs": {"x": [[1.0], [2.0]]}}"#, "columns x=FP32[2,1]:[1.0, 2.0]");
    check(&f32s, r#"{"inputs": []}"#, "columns x=FP32[0]:[]");
    check(&two(), r#"{"inputs": {"b": [3], "a": [1, 2]}}"#, "columns a=INT32[2]:[1, 2] b=INT32[1]:[3]");
}

#[test]
fn a_bare_value_in_columns_has_rank_0() {
    check(&one(DType::Fp32), r#"{"inputs": 5}"#, "columns x=FP32[]:[5.0]");
    check(&one(DType::Fp32), r#"{"inputs": {"x": 5}}"#, "columns x=FP32[]:[5.0]");
    check(&one(DType::Bytes), r#"{"inputs": {"b64": "YQ=="}}"#, r#"columns x=BYTES[]:["a"]"#);
}

#[test]
fn signature_name_may_stand_before_or_after_the_values() {
    let signatures = one(DType::Fp32).with("other", signature(&[("x", DType::Int64)], &[("y", DType::Int64)]));
    for name in ["", "serving_default"] {
        check(&signatures, &format!(r#"{{"signature_name":"{name}","instances":[1]}}"#), "rows x=FP32[1]:[1.0]");
        check(&signatures, &format!(r#"{{"instances":[1],"signature_name":"{name}"}}"#), "rows x=FP32[1]:[1.0]");
    }
    check(&signatures, r#"{"signature_name":"other","instances":[1]}"#, "rows x=INT64[1]:[1]");
    check(&signatures, r#"{"instances":[1],"signature_name":"other"}"#, "rows x=INT64[1]:[1]");
    check(
        &signatures,
        r#"{"instances":[9007199254740993],"signature_name":"oth\u0065r"}"#,
        "rows x=INT64[1]:[9007199254740993]",
    );
}

#[test]
fn a_signature_name_that_is_no_string_or_no_signature_is_refused() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, r#"{"signature_name": 3, "instances": [1]}"#, &["signature_name", "string", "`3`"]);
    refuse(&f32s, r#"{"instances": [1], "signature_name": null}"#, &["signature_name", "`null`"]);
    for body in [r#"{"signature_name": "s\nt", "instances": [1]}"#, r#"{"instances": ["x"], "signature_name": "s\nt"}"#]
    {
        let error = refused(&f32s, body.as_bytes(), DEFAULT_MAX_DEPTH);
        assert_eq!(error.reason(), Reason::SignatureUnknown);
        assert_eq!(error.to_string(), r#"Serving signature name: "s\nt" not found in signature def"#);
    }
}

#[test]
fn unknown_keys_are_skipped_but_must_be_json() {
    let f32s = one(DType::Fp32);
    let unknown = r#"{"options": {"a": [1, "]}", {"b": null}, -1.5e3, true]}, "instances": [1], "z": "\ud83d\ude00"}"#;
    check(&f32s, unknown, "rows x=FP32[1]:[1.0]");
    refuse(&f32s, r#"{"options": [01], "instances": [1]}"#, &["JSON Parse error"]);
    refuse(&f32s, r#"{"options": "\x", "instances": [1]}"#, &["JSON Parse error", "escape"]);
    refuse(&f32s, r#"{"options": "\ud83d", "instances": [1]}"#, &["JSON Parse error", "escape"]);
    refuse(&f32s, r#"{"options": 1e999, "instances": [1]}"#, &["JSON Parse error", "out of range"]);
    refuse(&f32s, r#"{"instances": [1], "options": nope}"#, &["JSON Parse error", "byte 30"]);
}

#[test]
fn the_first_of_equal_keys_counts() {
    let f32s = one(DType::Fp32);
    check(&f32s, r#"{"instances": [1], "instances": ["no number"]}"#, "rows x=FP32[1]:[1.0]");
    check(&f32s, r#"{"inputs": {"x": [1], "x": [2]}}"#, "columns x=FP32[1]:[1.0]");
    check(&f32s, r#"{"instances": [{"x": 1, "x": 2}, {"x": 3}]}"#, "rows x=FP32[2]:[1.0, 3.0]");
    check(&f32s, r#"{"signature_name": "", "signature_name": 7, "instances": [1]}"#, "rows x=FP32[1]:[1.0]");
}

#[test]
fn bytes_after_the_document_are_not_looked_at() {
    check(&one(DType::Fp32), r#"{"instances": [1]} trailing"#, "rows x=FP32[1]:[1.0]");
    check(&one(DType::Fp32), "{\"instances\": [1]}{\"", "rows x=FP32[1]:[1.0]");
}

#[test]
fn tokens_beyond_json_are_floats() {
    let body = r#"{"instances": [NaN, Inf, Infinity, -Inf, -Infinity]}"#;
    check(&one(DType::Fp32), body, "rows x=FP32[5]:[NaN, inf, inf, -inf, -inf]");
    check(&one(DType::Fp64), body, "rows x=FP64[5]:[NaN, inf, inf, -inf, -inf]");
    for token in ["nan", "inf", "NAN", "-NaN", "+Infinity", "Infinit", "NaN1"] {
        refuse(&one(DType::Fp32), format!(r#"{{"instances": [{token}]}}"#), &["JSON Parse error"]);
    }
    refuse(&one(DType::Int32), r#"{"instances": [NaN]}"#, &["`x` at index [0]", "not of expected type: int32"]);
}

#[test]
fn each_dtype_takes_its_own_values_only() {
    for (dtype, good, bad) in [
        (DType::Fp32, "1 1.5 -2e3 0.0", "true null \"1\" {} {\"b64\":\"YQ==\"}"),
        (DType::Fp64, "1 1.5 -2E-3 0.0", "false null \"1\" {} {\"b64\":\"YQ==\"}"),
        (DType::Bool, "true false", "0 1 null \"true\" {} {\"b64\":\"YQ==\"}"),
        (DType::Int8, "-128 127 -0", "1.0 1e0 true null \"1\" 128 -129"),
        (DType::Int16, "-32768 32767", "1.0 1e0 true null \"1\" 32768 -32769"),
        (DType::Int32, "-2147483648 2147483647", "1.0 1e0 true null \"1\" 2147483648 -2147483649"),
        (DType::Int64, "-9223372036854775808 9223372036854775807", "1.0 1e0 true null 9223372036854775808"),
        (DType::Uint8, "0 255", "1.0 1e0 true null \"1\" -1 256"),
        (DType::Uint32, "0 4294967295", "1.0 1e0 true null -1 4294967296"),
        (DType::Uint64, "0 18446744073709551615", "1.0 1e0 true null -1 18446744073709551616"),
        (DType::Bytes, "\"\" \"a\" {\"b64\":\"YQ\"}", "1 true null {} {\"b64\":1} {\"b64\":\"YQ\",\"c\":1}"),
    ] {
        for value in good.split(' ') {
            let body = format!(r#"{{"inputs": [{value}]}}"#);
            assert!(decode_predict(body.as_bytes(), &one(dtype), 64).is_ok(), "{dtype} should take {value}");
        }
        for value in bad.split(' ') {
            let type_name = format!("is not of expected type: {}", super::error::tensorflow_name(dtype));
            refuse(
                &one(dtype),
                format!(r#"{{"inputs": [{value}]}}"#),
                &["`x` at index [0]", "JSON Value: ", &type_name],
            );
        }
    }
}

#[test]
fn dtypes_without_a_json_form_are_unsupported() {
    for dtype in [DType::Fp16, DType::Bf16, DType::Uint16] {
        for body in [r#"{"instances": [1]}"#, r#"{"instances": [{"x": 1}]}"#, r#"{"inputs": {"x": [1]}}"#] {
            let error = refused(&one(dtype), body.as_bytes(), DEFAULT_MAX_DEPTH);
            assert_eq!(error.reason(), Reason::Unsupported, "{error}");
            assert!(error.to_string().contains("Conversion of JSON Value: "), "{error}");
            assert!(error.to_string().contains(&format!("to type: {dtype}")), "{error}");
        }
    }
}

#[test]
fn strings_arrive_as_their_utf8_bytes() {
    let strings = one(DType::Bytes);
    check(&strings, r#"{"instances": ["a", "", "grün"]}"#, r#"rows x=BYTES[3]:["a", "", "gr\\xc3\\xbcn"]"#);
    let escapes = r#"{"instances": ["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 plain \u0000"]}"#;
    let expected = "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600} plain \0";
    let decoded = decode_predict(escapes.as_bytes(), &strings, DEFAULT_MAX_DEPTH).unwrap();
    assert_eq!(decoded.inputs[0].strings().unwrap().get(0).unwrap(), expected.as_bytes());
}

#[test]
fn base64_is_decoded_with_or_without_padding() {
    let strings = one(DType::Bytes);
    check(&strings, r#"{"instances": [{"b64": "/9j/4A=="}]}"#, r#"rows x=BYTES[1]:["\\xff\\xd8\\xff\\xe0"]"#);
    check(&strings, r#"{"instances": [{"b64": "YQ"}, {"b64": "YWI"}, "c"]}"#, r#"rows x=BYTES[3]:["a", "ab", "c"]"#);
    check(&strings, r#"{"instances": [{"b64": "\/9j\/4A"}]}"#, r#"rows x=BYTES[1]:["\\xff\\xd8\\xff\\xe0"]"#);
    check(&strings, r#"{"instances": [{"x": {"b64": "YQ=="}}]}"#, r#"rows x=BYTES[1]:["a"]"#);
    check(&strings, r#"{"instances": [[{"b64": "YQ=="}, {"b64": ""}]]}"#, r#"rows x=BYTES[1,2]:["a", ""]"#);
    for text in ["Y", "YQ=", "Y=Q=", "YQ===", "Y Q", "_-8=", "ä"] {
        let body = format!(r#"{{"instances": ["a", {{"b64": "{text}"}}]}}"#);
        refuse(&strings, body, &["`x` at index [1]", "Unable to base64 decode"]);
    }
}

#[test]
fn floats_are_the_nearest_of_their_own_width() {
    // Just above the midpoint of two f32s: by way of f64 it would be a tie, and go down to 1.
    let above = r#"{"instances": [1.00000005960464477540]}"#;
    check(&one(DType::Fp32), above, &format!("rows x=FP32[1]:[{:?}]", 1.0_f32 + f32::EPSILON));
    check(&one(DType::Fp32), r#"{"instances": [16777217]}"#, "rows x=FP32[1]:[16777216.0]");
    check(
        &one(DType::Fp32),
        r#"{"instances": [1e-45, 1e-999, 3.4028235e38]}"#,
        "rows x=FP32[3]:[1e-45, 0.0, 3.4028235e38]",
    );
    check(&one(DType::Fp32), r#"{"instances": [-0.0, -0]}"#, "rows x=FP32[2]:[-0.0, -0.0]");
    check(&one(DType::Fp64), r#"{"instances": [0.1, -0.0, 1e308]}"#, "rows x=FP64[3]:[0.1, -0.0, 1e308]");
}

#[test]
fn a_ragged_list_is_refused_with_its_place() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, r#"{"instances": [[1,2],[3]]}"#, &["input `x` at index [1]", "ragged", "expected 2 elements, got 1"]);
    refuse(&f32s, r#"{"inputs": [[[1],[2]],[[3],[4],[5]]]}"#, &["[1]", "ragged", "expected 2 elements, got 3"]);
    refuse(&f32s, r#"{"instances": [[[1]],[]]}"#, &["input `x` at index [1]", "ragged"]);
    refuse(&f32s, r#"{"instances": [[],[1]]}"#, &["input `x` at index [1]", "ragged"]);
    refuse(&f32s, r#"{"instances": [[],[[]]]}"#, &["input `x` at index [1]", "ragged"]);
    refuse(&two(), r#"{"instances": [{"a":1,"b":[1]},{"a":2,"b":[1,2]}]}"#, &["input `b` at index [1]", "ragged"]);
}

#[test]
fn values_of_different_rank_are_refused_with_their_place() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, r#"{"instances": [1, [1]]}"#, &["input `x` at index [1]", "ragged", "single value"]);
    refuse(&f32s, r#"{"instances": [[1], 1]}"#, &["input `x` at index [1]", "ragged", "an array"]);
    refuse(&f32s, r#"{"instances": [[1, [1]]]}"#, &["input `x` at index [0][1]", "ragged"]);
    refuse(&f32s, r#"{"instances": [{"x":1}, {"x":[1]}]}"#, &["input `x` at index [1]", "ragged"]);
}

#[test]
fn rows_are_all_objects_or_all_values() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, r#"{"instances": [{"x":1}, 1]}"#, &["instances[1]", "object", "`1`"]);
    refuse(&f32s, r#"{"instances": [1, {"x":1}]}"#, &["input `x` at index [1]", "Object"]);
    refuse(&one(DType::Bytes), r#"{"instances": [{"b64":"YQ"}, {"x":"a"}]}"#, &["input `x` at index [1]", "Object"]);
}

#[test]
fn a_row_has_each_input_and_no_other_key() {
    refuse(&two(), r#"{"instances": [{"a":1,"b":1},{"a":1}]}"#, &["instances[1]", "`b` is missing"]);
    refuse(&two(), r#"{"instances": [{"a":1,"b":1,"c\u0007":1}]}"#, &["instances[0]", r"`c\u{7}`", "expected: a, b"]);
    refuse(&two(), r#"{"instances": [{}]}"#, &["instances[0]", "`a` is missing"]);
}

#[test]
fn columns_need_each_input_and_ignore_other_keys() {
    refuse(&two(), r#"{"inputs": {"a": [1]}}"#, &["`b` is missing"]);
    refuse(&two(), r#"{"inputs": {}}"#, &["`a` is missing"]);
    let extra = r#"{"inputs": {"a": [1], "c": [[1], "x"], "b": [2]}}"#;
    check(&two(), extra, "columns a=INT32[1]:[1] b=INT32[1]:[2]");
}

#[test]
fn several_inputs_need_names() {
    refuse(&two(), r#"{"instances": [1, 2]}"#, &["'instances' must name each input", "a, b"]);
    refuse(&two(), r#"{"inputs": [1, 2]}"#, &["'inputs' must name each input", "a, b"]);
    refuse(&two(), r#"{"inputs": 1}"#, &["'inputs' must name each input"]);
}

#[test]
fn instances_must_be_a_list_with_something_in_it() {
    let f32s = one(DType::Fp32);
    for value in ["[]", "[ ]", "{\"x\": [1]}", "5", "null", "\"a\""] {
        refuse(&f32s, format!(r#"{{"instances": {value}}}"#), &["'instances' must be a non-empty list"]);
    }
}

#[test]
fn exactly_one_form_must_be_there() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, "{}", &["Missing 'inputs' or 'instances' key"]);
    refuse(&f32s, r#"{"signature_name": "serving_default", "x": [1]}"#, &["Missing 'inputs' or 'instances' key"]);
    refuse(&f32s, r#"{"instances": [1], "inputs": [1]}"#, &["'inputs' and 'instances'", "both"]);
}

#[test]
fn null_is_never_a_value() {
    for body in [
        r#"{"instances": [null]}"#,
        r#"{"inputs": null}"#,
        r#"{"inputs": {"x": null}}"#,
        r#"{"instances": [{"x": null}]}"#,
    ] {
        refuse(&one(DType::Fp32), body, &["`x`", "Type: Null", "not of expected type: float"]);
    }
}

#[test]
fn faults_are_reported_in_the_order_of_syntax_signature_keys_values() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, r#"{"instances": ["a"], "signature_name": "s", "#, &["JSON Parse error"]);
    refuse(&f32s, r#"{"instances": ["a"], "inputs": 1}"#, &["both"]);
    let error = refused(&f32s, br#"{"instances": ["a"], "inputs": 1, "signature_name": "s"}"#, 64);
    assert_eq!(error.reason(), Reason::SignatureUnknown);
}

#[test]
fn robustness_1_an_empty_or_broken_document_is_refused() {
    let f32s = one(DType::Fp32);
    refuse(&f32s, "", &["JSON Parse error: The document is empty"]);
    refuse(&f32s, " \n", &["JSON Parse error: The document is empty"]);
    for broken in [
        "{",
        "{\"instances\"",
        "{\"instances\": [1",
        "{\"instances\": [1,]}",
        "{,}",
        "{\"a\" 1}",
        "{\"instances\": [1 2]}",
    ] {
        refuse(&f32s, broken, &["JSON Parse error", "byte"]);
    }
    for other in ["null", "[]", "[1,2]", "3", "\"a\""] {
        refuse(&f32s, other, &["is not of expected type: object"]);
    }
}

#[test]
fn robustness_2_nesting_of_100_000_is_refused_everywhere() {
    let f32s = one(DType::Fp32);
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(100_000);
        for start in [
            "",
            "{\"instances\":",
            "{\"inputs\":",
            "{\"inputs\":{\"x\":",
            "{\"inputs\":{\"y\":",
            "{\"unknown\":",
            "{\"signature_name\":",
        ] {
            refuse(&f32s, format!("{start}{deep}"), &["nesting is deeper than the limit of 64 levels"]);
        }
    }
}

#[test]
fn the_nesting_limit_counts_every_container() {
    let f32s = one(DType::Fp32);
    let body = |n: usize| format!(r#"{{"a": {}1{}, "instances": [[1]]}}"#, "[".repeat(n), "]".repeat(n));
    assert!(decode_predict(body(9).as_bytes(), &f32s, 10).is_ok());
    assert_eq!(refused(&f32s, body(10).as_bytes(), 10), JsonError::Depth { limit: 10 });
    assert!(decode_predict(br#"{"instances": [[1]]}"#, &f32s, 3).is_ok());
    assert_eq!(refused(&f32s, br#"{"instances": [[1]]}"#, 2), JsonError::Depth { limit: 2 });
    assert_eq!(refused(&f32s, br#"{"inputs": {"x": [1]}}"#, 2), JsonError::Depth { limit: 2 });
    assert_eq!(refused(&f32s, b"{}", 0), JsonError::Depth { limit: 0 });
}

#[test]
fn a_tensor_of_more_than_32_axes_is_refused() {
    let nested = |n: usize| format!(r#"{{"inputs": {}1{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(decode_predict(nested(32).as_bytes(), &one(DType::Fp32), 64).is_ok());
    refuse(&one(DType::Fp32), nested(33), &["`x`", "rank 33", "limit of 32"]);
}

#[test]
fn robustness_3_a_million_unclosed_brackets_are_refused() {
    refuse(&one(DType::Fp32), "[".repeat(1_000_000), &["nesting is deeper than the limit of 64 levels"]);
}

#[test]
fn robustness_4_anything_but_utf8_is_refused() {
    let f32s = one(DType::Fp32);
    let body = r#"{"instances": [1]}"#;
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| body.encode_utf16().flat_map(to_bytes).collect::<Vec<_>>();
    refuse(&f32s, utf16(u16::to_le_bytes), &["UTF-16", "expected UTF-8"]);
    refuse(&f32s, utf16(u16::to_be_bytes), &["UTF-16", "expected UTF-8"]);
    refuse(&f32s, [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat(), &["UTF-16", "expected UTF-8"]);
    refuse(&f32s, format!("\u{feff}{body}"), &["byte order mark", "expected UTF-8"]);
    refuse(&f32s, b"{\"instances\": [1], \"a\": \"\xff\"}", &["expected UTF-8", "byte 25"]);
    refuse(&f32s, b"{\"instances\": [1\xc3]}", &["expected UTF-8"]);
    refuse(&one(DType::Bytes), b"{\"instances\": [\"\xed\xa0\x80\"]}", &["expected UTF-8"]);
    for control in ["\0", "\n", "\x1f"] {
        let body = format!("{{\"instances\": [\"a long enough text {control}\"]}}");
        refuse(&one(DType::Bytes), body, &["raw control character", "expected UTF-8"]);
    }
}

#[test]
fn robustness_5_and_6_duplicates_and_trailing_bytes_follow_tensorflow_serving() {
    check(&one(DType::Fp32), r#"{"inputs": [1], "inputs": [2]} x"#, "columns x=FP32[1]:[1.0]");
}

#[test]
fn robustness_7_numbers_out_of_range_name_their_input() {
    let f32s = one(DType::Fp32);
    let huge = "1".repeat(100_000);
    for number in ["1e999", "-1e999", "1e39", "3.5e38", &huge] {
        for body in [format!(r#"{{"instances": [0, {number}]}}"#), format!(r#"{{"inputs": {{"x": [0, {number}]}}}}"#)] {
            refuse(&f32s, body, &["input `x` at index [1]", "out of range"]);
        }
    }
    refuse(&one(DType::Fp64), r#"{"instances": [1e309]}"#, &["input `x` at index [0]", "out of range"]);
    refuse(&one(DType::Int64), format!(r#"{{"instances": [{huge}]}}"#), &["input `x` at index [0]", "out of range"]);
    let long = format!(r#"{{"instances": [0.{}]}}"#, "3".repeat(100_000));
    check(&f32s, &long, "rows x=FP32[1]:[0.33333334]");
}

#[test]
fn robustness_8_infinities_and_nan_are_numbers_here() {
    check(&one(DType::Fp32), r#"{"instances":[NaN, Infinity, -Infinity]}"#, "rows x=FP32[3]:[NaN, inf, -inf]");
}

#[test]
fn robustness_9_a_value_of_the_wrong_kind_names_its_input() {
    let f32s = one(DType::Fp32);
    for (value, kind) in [("null", "Null"), ("{\"a\":1}", "Object"), ("\"a\"", "String"), ("true", "True")] {
        refuse(&f32s, format!(r#"{{"inputs": {{"x": {value}}}}}"#), &["`x`", &format!("Type: {kind}")]);
        refuse(
            &f32s,
            format!(r#"{{"inputs": {{"x": [1, {value}]}}}}"#),
            &["`x` at index [1]", &format!("Type: {kind}")],
        );
    }
}

#[test]
fn malformed_numbers_are_syntax_errors() {
    for number in ["01", "-", "1.", ".5", "+1", "1e", "1e+", "0x10", "1_0", "--1", "1.e5", "-01"] {
        for dtype in [DType::Fp32, DType::Fp64, DType::Int32] {
            refuse(&one(dtype), format!(r#"{{"instances": [{number}]}}"#), &["JSON Parse error"]);
        }
    }
}

#[test]
fn a_signature_that_declares_a_huge_shape_allocates_nothing_for_it() {
    let huge = TensorSpec::new("x", DType::Fp64, [Dim::Fixed(1 << 40), Dim::Fixed(1 << 40)]);
    let output = TensorSpec::new("y", DType::Fp64, [Dim::Fixed(1)]);
    let signatures = Signatures::single(Signature::new(vec![huge], vec![output]).unwrap());
    check(&signatures, r#"{"inputs": [[1.0]]}"#, "columns x=FP64[1,1]:[1.0]");
}

#[test]
fn classify_and_regress_bodies_need_sound_json_with_examples() {
    let signatures = one(DType::Fp32);
    let check_examples = |body, depth| super::check_examples(body, &signatures, depth);
    assert_eq!(check_examples(br#"{"examples": [{"a": 1}], "context": {}}"#, 64), Ok(0));
    for body in [r#"{"examples": []}"#, r#"{"examples": {}}"#, "{}"] {
        assert_eq!(check_examples(body.as_bytes(), 64), Err(JsonError::NoExamples), "{body}");
    }
    assert!(matches!(check_examples(br#"{"examples": [{"a": 1]}"#, 64), Err(JsonError::Syntax { .. })));
    assert_eq!(check_examples(b"", 64), Err(JsonError::Empty));
    assert!(matches!(check_examples(b"[1]", 64), Err(JsonError::NotAnObject { .. })));
    let named = check_examples(br#"{"signature_name": "s", "examples": []}"#, 64);
    assert_eq!(named, Err(JsonError::SignatureUnknown { name: "s".to_owned() }));
}

#[test]
fn error_texts_quote_foreign_text_safely_and_shortly() {
    let long = format!(r#"{{"inputs": {{"x": "{}\u001b"}}}}"#, "\u{1f600}".repeat(5_000));
    let text = refused(&one(DType::Fp32), long.as_bytes(), 64).to_string();
    assert!(text.is_ascii() || text.contains('…'), "{text}");
    assert!(text.len() < 300, "{text}");
}
