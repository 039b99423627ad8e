//! What answers look like.

use half::{bf16, f16};
use millrace_core::{DType, Element, Reason, Strings, Tensor};

use super::signature;
use crate::{Form, JsonError, encode_float, encode_floats, encode_predict, encode_predict_within};

/// Writes outputs given as names and tensors.
fn write(form: Form, outputs: &[(&str, Tensor)]) -> Result<String, String> {
    let specs = outputs.iter().map(|(name, tensor)| (*name, tensor.dtype())).collect::<Vec<_>>();
    let tensors = outputs.iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>();
    let written = encode_predict(form, &signature(&[("x", DType::Fp32)], &specs), &tensors);
    written.map(|text| String::from_utf8(text).unwrap()).map_err(|error| {
        assert_eq!(error.reason(), Reason::InvalidInput);
        error.to_string()
    })
}

#[track_caller]
fn check(form: Form, outputs: &[(&str, Tensor)], expected: &str) {
    assert_eq!(write(form, outputs).as_deref(), Ok(expected));
}

fn tensor<T: Element + Clone>(sizes: &[usize], elements: &[T]) -> Tensor {
    Tensor::from_vec(sizes, elements.to_vec()).unwrap()
}

fn strings(sizes: &[usize], elements: &[&[u8]]) -> Tensor {
    Tensor::from_strings(sizes, elements.iter().collect::<Strings>()).unwrap()
}

#[test]
fn floats_are_written_as_elements_are() {
    let mut text = Vec::new();
    encode_floats(&mut text, &[0.1, 3.0, 0.0, -2.5]);
    encode_float(&mut text, 0.25);
    encode_floats(&mut text, &[]);
    assert_eq!(text, b"[0.1,3.0,0.0,-2.5]0.25[]");
}

#[test]
fn one_output_is_written_without_its_name() {
    let y = [("y", tensor(&[3], &[2.5_f32, 3.0, 4.5]))];
    check(Form::Rows, &y, r#"{"predictions":[2.5,3.0,4.5]}"#);
    check(Form::Columns, &y, r#"{"outputs":[2.5,3.0,4.5]}"#);
    check(Form::Columns, &[("y", tensor(&[2, 1, 2], &[1_i64, -2, 3, 4]))], r#"{"outputs":[[[1,-2]],[[3,4]]]}"#);
    check(Form::Rows, &[("y", tensor(&[1, 2], &[1_u8, 255]))], r#"{"predictions":[[1,255]]}"#);
}

#[test]
fn several_outputs_are_objects_of_rows_or_of_columns() {
    let pair = [("s", tensor(&[2], &[6_i32, 15])), ("d\"", tensor(&[2, 2], &[-4_i32, 0, -7, 1]))];
    check(Form::Rows, &pair, r#"{"predictions":[{"s":6,"d\"":[-4,0]},{"s":15,"d\"":[-7,1]}]}"#);
    check(Form::Columns, &pair, r#"{"outputs":{"s":[6,15],"d\"":[[-4,0],[-7,1]]}}"#);
}

#[test]
fn an_output_of_rank_0_is_a_bare_value_in_columns_and_refused_in_rows() {
    let y = [("y", tensor(&[], &[5.0_f32]))];
    check(Form::Columns, &y, r#"{"outputs":5.0}"#);
    assert!(write(Form::Rows, &y).unwrap_err().contains("Tensor name: y has no shape information"));
}

#[test]
fn outputs_that_differ_in_rows_are_refused_in_rows() {
    let pair = [("s", tensor(&[2], &[6_i32, 15])), ("d", tensor(&[1], &[1_i32]))];
    assert!(
        write(Form::Rows, &pair).unwrap_err().contains("Tensor name: d has inconsistent batch size: 1 expecting: 2")
    );
    check(Form::Columns, &pair, r#"{"outputs":{"s":[6,15],"d":[1]}}"#);
}

#[test]
fn every_float_looks_like_one_and_reads_back() {
    let values = [2.5_f32, 3.0, 9_000_000.0, 0.00003, 0.1, 1.0 / 3.0, 16_777_216.0, -0.0, f32::MAX, 1e-45, 1e20];
    let text = write(Form::Columns, &[("y", tensor(&[values.len()], &values))]).unwrap();
    let list = text.strip_prefix(r#"{"outputs":["#).unwrap().strip_suffix("]}").unwrap();
    for (token, value) in list.split(',').zip(values) {
        assert!(token.contains(['.', 'e', 'E']), "{token}");
        assert_eq!(token.parse::<f32>().unwrap().to_bits(), value.to_bits(), "{token}");
    }
}

#[test]
fn infinities_and_nan_are_bare_tokens() {
    let y = [("y", tensor(&[3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]))];
    check(Form::Rows, &y, r#"{"predictions":[NaN,Infinity,-Infinity]}"#);
    let y = [("y", tensor(&[2], &[f64::NAN, f64::NEG_INFINITY]))];
    check(Form::Rows, &y, r#"{"predictions":[NaN,-Infinity]}"#);
}

#[test]
fn integers_and_booleans_are_plain() {
    check(
        Form::Columns,
        &[("y", tensor(&[2], &[i64::MIN, i64::MAX]))],
        r#"{"outputs":[-9223372036854775808,9223372036854775807]}"#,
    );
    check(Form::Columns, &[("y", tensor(&[1], &[u64::MAX]))], r#"{"outputs":[18446744073709551615]}"#);
    check(Form::Columns, &[("y", tensor(&[2], &[true, false]))], r#"{"outputs":[true,false]}"#);
    check(Form::Columns, &[("y", tensor(&[1], &[65_535_u16]))], r#"{"outputs":[65535]}"#);
}

#[test]
fn half_floats_have_no_json_form() {
    for y in [tensor(&[1], &[f16::ONE]), tensor(&[1], &[bf16::ONE])] {
        assert!(write(Form::Rows, &[("y", y)]).unwrap_err().contains("Failed to write JSON value for tensor type: "));
    }
}

#[test]
fn strings_are_escaped() {
    let y = [("y", strings(&[2], &[b"a\"\\\n\r\t\x01\x1f/", "grün \u{1f600}".as_bytes()]))];
    check(Form::Rows, &y, "{\"predictions\":[\"a\\\"\\\\\\n\\r\\t\\u0001\\u001f/\",\"grün \u{1f600}\"]}");
}

#[test]
fn outputs_named_bytes_are_sent_as_base64() {
    let bytes: [&[u8]; 2] = [b"\xff\xd8\xff\xe0", b""];
    let text = r#"{"predictions":[{"b64":"/9j/4A=="},{"b64":""}]}"#;
    check(Form::Rows, &[("image_bytes", strings(&[2], &bytes))], text);
    let error = write(Form::Rows, &[("image", strings(&[2], &bytes))]).unwrap_err();
    assert!(error.contains("output `image`") && error.contains("_bytes"), "{error}");
}

#[test]
fn rows_of_a_shared_unaligned_buffer_are_written() {
    let bytes = [&[0_u8][..], &1.5_f32.to_le_bytes(), &2.5_f32.to_le_bytes()].concat();
    let shifted = bytes::Bytes::from(bytes).slice(1..);
    let y = Tensor::new(DType::Fp32, millrace_core::Shape::new(&[2]).unwrap(), shifted).unwrap();
    check(Form::Rows, &[("y", y.clone())], r#"{"predictions":[1.5,2.5]}"#);
    check(Form::Rows, &[("y", y.rows(1..2))], r#"{"predictions":[2.5]}"#);
}

#[test]
fn empty_axes_are_empty_lists() {
    check(Form::Columns, &[("y", tensor::<f32>(&[0], &[]))], r#"{"outputs":[]}"#);
    check(Form::Columns, &[("y", tensor::<f32>(&[2, 0], &[]))], r#"{"outputs":[[],[]]}"#);
    check(Form::Rows, &[("y", tensor::<f32>(&[0, 2], &[]))], r#"{"predictions":[]}"#);
}

#[test]
fn an_answer_with_another_number_of_outputs_is_the_models_fault() {
    let signature = signature(&[("x", DType::Fp32)], &[("y", DType::Fp32)]);
    assert_eq!(encode_predict(Form::Rows, &signature, &[]).unwrap_err().reason(), Reason::BackendBroken);
}

#[test]
fn an_answer_above_the_limit_is_refused_before_it_is_written() {
    let specs = |names: &[&'static str]| names.iter().map(|name| (*name, DType::Int64)).collect::<Vec<_>>();
    let empty = |sizes: &[usize]| Tensor::from_vec::<i64>(sizes, Vec::new()).unwrap();
    let written = |form, names: &[&'static str], tensors: &[Tensor], limit| {
        let signature = signature(&[("x", DType::Fp32)], &specs(names));
        encode_predict_within(form, &signature, tensors, limit)
    };
    let too_large = |limit| Err(JsonError::AnswerTooLarge { limit });
    for form in [Form::Rows, Form::Columns] {
        // No memory would hold these brackets.
        assert_eq!(written(form, &["y"], &[empty(&[1 << 62, 0])], 1 << 20), too_large(1 << 20));
        assert_eq!(written(form, &["y"], &[empty(&[1 << 30, 1 << 30, 0, 2])], 1 << 20), too_large(1 << 20));
        let several = [empty(&[1 << 61, 0]), empty(&[1 << 61, 0])];
        assert_eq!(written(form, &["y", "z"], &several, 1 << 20), too_large(1 << 20));
    }
    let numbers = Tensor::from_vec(&[2], vec![i64::MIN, 7]).unwrap();
    let text = r#"{"outputs":[-9223372036854775808,7]}"#;
    let exact = written(Form::Columns, &["y"], std::slice::from_ref(&numbers), text.len()).unwrap();
    assert_eq!(exact, text.as_bytes());
    let short = text.len() - 1;
    assert_eq!(written(Form::Columns, &["y"], &[numbers], short), too_large(short), "what only writing can tell");
}
