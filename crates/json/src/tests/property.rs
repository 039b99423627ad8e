//! What holds for every document and every tensor.

use millrace_core::{DType, Element, Signature, Signatures, Strings, Tensor};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::reference::{self, Printed};
use super::{one, signature, two};
use crate::predict::{Document, straight};
use crate::{DEFAULT_MAX_DEPTH, Form, decode_predict, encode_predict};

/// Writes the tensors as outputs and reads the text back as inputs.
fn round_trip(form: Form, tensors: &[Tensor]) -> Vec<Tensor> {
    // An output whose name ends so is sent as base64, and an input takes that under any name.
    let names = ["a_bytes", "b_bytes"];
    let specs = names.into_iter().zip(tensors.iter().map(Tensor::dtype)).collect::<Vec<_>>();
    let signature = signature(&specs, &specs);
    let text = String::from_utf8(encode_predict(form, &signature, tensors).unwrap()).unwrap();
    let text = text.replacen("\"predictions\"", "\"instances\"", 1).replacen("\"outputs\"", "\"inputs\"", 1);
    let decoded = decode_predict(text.as_bytes(), &Signatures::single(signature), DEFAULT_MAX_DEPTH).unwrap();
    assert_eq!(decoded.form, form);
    decoded.inputs.into_vec()
}

/// A tensor of each dtype that requests can carry, with as many rows as asked for. Not-a-number is the one that decoding
/// gives: text does not tell one from another.
fn any_tensor(sizes: Vec<usize>) -> BoxedStrategy<Tensor> {
    fn of<T: Element + Arbitrary + Clone>(sizes: &[usize], map: fn(T) -> T) -> BoxedStrategy<Tensor> {
        let sizes = sizes.to_vec();
        vec(any::<T>().prop_map(map), sizes.iter().product::<usize>())
            .prop_map(move |elements| Tensor::from_vec(&sizes, elements).unwrap())
            .boxed()
    }
    let floats = |map: fn(u32) -> f32, sizes: Vec<usize>| {
        vec(any::<u32>().prop_map(map), sizes.iter().product::<usize>())
            .prop_map(move |elements| Tensor::from_vec(&sizes, elements).unwrap())
    };
    let doubles = |map: fn(u64) -> f64, sizes: Vec<usize>| {
        vec(any::<u64>().prop_map(map), sizes.iter().product::<usize>())
            .prop_map(move |elements| Tensor::from_vec(&sizes, elements).unwrap())
    };
    let strings = |sizes: Vec<usize>| {
        vec(vec(any::<u8>(), 0..20), sizes.iter().product::<usize>())
            .prop_map(move |elements| Tensor::from_strings(&sizes, elements.iter().collect::<Strings>()).unwrap())
    };
    prop_oneof![
        floats(|bits| Some(f32::from_bits(bits)).filter(|float| !float.is_nan()).unwrap_or(f32::NAN), sizes.clone()),
        doubles(|bits| Some(f64::from_bits(bits)).filter(|float| !float.is_nan()).unwrap_or(f64::NAN), sizes.clone()),
        of::<bool>(&sizes, |it| it),
        of::<u8>(&sizes, |it| it),
        of::<u32>(&sizes, |it| it),
        of::<u64>(&sizes, |it| it),
        of::<i8>(&sizes, |it| it),
        of::<i16>(&sizes, |it| it),
        of::<i32>(&sizes, |it| it),
        of::<i64>(&sizes, |it| it),
        strings(sizes),
    ]
    .boxed()
}

/// Inner sizes without a zero but in the last place: text cannot say what is inside an empty list.
fn inner_sizes() -> impl Strategy<Value = Vec<usize>> {
    (vec(1..4_usize, 0..3), proptest::option::of(0..4_usize)).prop_map(|(mut sizes, last)| {
        sizes.extend(last);
        sizes
    })
}

fn any_tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let sized = |rows: usize| inner_sizes().prop_flat_map(move |inner| any_tensor([vec![rows], inner].concat()));
    (1..5_usize).prop_flat_map(move |rows| vec(sized(rows), 1..=2))
}

/// A JSON value of little depth, out of few words, so that it is often nearly right.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => (-40..40_i64).prop_map(|number| json!(number)),
        2 => (-40..40_i32).prop_map(|number| json!(f64::from(number) / 4.0)),
        1 => any::<bool>().prop_map(|value| json!(value)),
        1 => Just(Value::Null),
        1 => Just(json!("YQ")),
        1 => Just(json!("\u{e9}\"\n")),
        1 => Just(json!({"b64": "YQ"})),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            2 => vec(inner.clone(), 0..4).prop_map(Value::from),
            2 => (inner.clone(), 0..4_usize).prop_map(|(value, n)| Value::from(vec![value; n])),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"a": a, "b": b})),
            1 => inner.clone().prop_map(|x| json!({"x": x})),
            1 => vec((prop_oneof![Just("a"), Just("b"), Just("x"), Just("b64")], inner), 0..3)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
                .prop_map(Value::from),
        ]
    })
}

fn any_document() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => any_value().prop_map(|value| json!({"instances": value})),
        4 => vec(any_value(), 0..3).prop_map(|rows| json!({"instances": rows})),
        8 => any_value().prop_map(|value| json!({"inputs": value})),
        1 => (any_value(), any_value()).prop_map(|(a, b)| json!({"inputs": a, "instances": b})),
        1 => any_value().prop_map(|value| json!({"other": value})),
        1 => (any_value(), any_value()).prop_map(|(a, b)| json!({"inputs": a, "other": b})),
        1 => any_value(),
    ]
}

fn any_signature() -> impl Strategy<Value = Signature> {
    let dtype = prop_oneof![Just(DType::Fp64), Just(DType::Int64), Just(DType::Bool), Just(DType::Bytes)];
    let pair = (dtype.clone(), dtype.clone());
    prop_oneof![
        dtype.prop_map(|dtype| signature(&[("x", dtype)], &[("y", dtype)])),
        pair.prop_map(|(a, b)| signature(&[("a", a), ("b", b)], &[("y", a)])),
    ]
}

fn printed(tensor: &Tensor) -> Printed {
    fn list<T: Element>(tensor: &Tensor) -> Vec<String> {
        tensor.elements::<T>().unwrap().iter().map(|element| format!("{element:?}")).collect()
    }
    let elements = match tensor.dtype() {
        DType::Fp64 => list::<f64>(tensor),
        DType::Int64 => list::<i64>(tensor),
        DType::Bool => list::<bool>(tensor),
        _ => tensor.strings().unwrap().iter().map(|bytes| format!("{bytes:?}")).collect(),
    };
    (tensor.shape().to_vec(), elements)
}

/// Valid bodies to spoil.
const BODIES: [&str; 5] = [
    r#"{"signature_name": "", "instances": [[1.5, -2e3], [NaN, 0.25]]}"#,
    r#"{"instances": [{"a": 1, "b": [2, 3]}, {"b": [4, 5], "a": -6}], "extra": {"k": ["\u00e9", null]}}"#,
    r#"{"inputs": {"a": [[1, 2], [3, 4]], "b": 5}, "signature_name": "serving_default"}"#,
    r#"{"instances": ["text", {"b64": "/9j/4A=="}, "\ud83d\ude00"]}"#,
    r#"{"inputs": [[[], []], [[], []]]}"#,
];

/// One change to a body: at a place, by a byte, of a kind.
fn spoil(mut body: Vec<u8>, changes: &[(usize, u8, u8)]) -> Vec<u8> {
    for (place, byte, kind) in changes {
        let at = place % (body.len() + 1);
        // Mostly bytes that mean something in JSON: others are refused early.
        let words = b"[]{},:\"\\0123456789.-+eEtrufalsnNI b64x";
        let byte = if *byte < 224 { words[usize::from(*byte) % words.len()] } else { *byte };
        match kind % 4 {
            0 => body.insert(at, byte),
            1 if at < body.len() => body[at] = byte,
            2 if at < body.len() => drop(body.remove(at)),
            3 => body.truncate(at),
            _ => {}
        }
    }
    body
}

/// Decodes under several signatures; checks that both ways agree and that nothing grows beyond the body.
fn survives(body: &[u8]) {
    let signatures = [DType::Fp32, DType::Fp64, DType::Int64, DType::Uint8, DType::Bytes, DType::Bool].map(one);
    for signatures in signatures.iter().chain([&two()]) {
        let careful = Document::scan(body, 64).and_then(|document| document.predict(signatures, 64));
        if let Some(fast) = straight(body, signatures, 64) {
            let careful = careful.expect("what the straight way accepts, the careful one does");
            assert_eq!(format!("{fast:?}"), format!("{careful:?}"));
            let n_bytes = |body: &crate::PredictBody| body.inputs.iter().map(Tensor::n_bytes).sum::<usize>();
            assert!(n_bytes(&fast) <= 8 * body.len(), "{} bytes out of {}", n_bytes(&fast), body.len());
            assert!(bytes_of(&fast).eq(bytes_of(&careful)));
        } else if let Err(error) = careful {
            assert!(error.to_string().len() < 500);
        }
    }
}

fn bytes_of(body: &crate::PredictBody) -> impl Iterator<Item = Option<&bytes::Bytes>> {
    body.inputs.iter().map(Tensor::bytes)
}

proptest! {
    #[test]
    fn what_is_written_reads_back_bit_for_bit(tensors in any_tensors()) {
        for form in [Form::Rows, Form::Columns] {
            for (read, written) in round_trip(form, &tensors).iter().zip(&tensors) {
                prop_assert_eq!(read.shape(), written.shape());
                prop_assert_eq!(read.bytes(), written.bytes());
                prop_assert_eq!(read.strings(), written.strings());
            }
        }
    }

    #[test]
    fn text_reads_back_as_text(texts in vec(".*", 1..5)) {
        let tensor = Tensor::from_strings(&[texts.len()], texts.iter().collect::<Strings>()).unwrap();
        let signature = signature(&[("x", DType::Bytes)], &[("y", DType::Bytes)]);
        let text = encode_predict(Form::Columns, &signature, std::slice::from_ref(&tensor)).unwrap();
        let text = String::from_utf8(text).unwrap().replacen("outputs", "inputs", 1);
        let decoded = decode_predict(text.as_bytes(), &one(DType::Bytes), 64).unwrap();
        prop_assert_eq!(decoded.inputs[0].strings(), tensor.strings());
        let parsed: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(parsed, json!({ "inputs": texts }));
    }

    #[test]
    fn a_slow_decoder_over_a_tree_agrees(document in any_document(), signature in any_signature(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let expected = reference::decode(&document, &signature);
        let decoded = decode_predict(text.unwrap().as_bytes(), &Signatures::single(signature), 64);
        let got = decoded.ok().map(|body| body.inputs.iter().map(printed).collect::<Vec<_>>());
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn spoilt_bodies_are_survived(which in 0..BODIES.len(), changes in vec(any::<(usize, u8, u8)>(), 1..6)) {
        survives(&spoil(BODIES[which].as_bytes().to_vec(), &changes));
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        survives(&bytes);
        survives(&[b"{\"instances\":[", &*bytes].concat());
        survives(&[b"{\"inputs\":{\"x\":\"", &*bytes].concat());
    }

    #[test]
    fn any_decimal_is_the_nearest_f32_and_f64(digits in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?") {
        nearest(&digits)?;
    }

    #[test]
    fn decimals_at_the_midpoint_of_two_floats_are_rounded_to_the_nearest(bits in 0..0x7f7f_ffff_u32, places in 1..30_usize) {
        let midpoint = f64::midpoint(f32::from_bits(bits).into(), f32::from_bits(bits + 1).into());
        for near in [midpoint, midpoint.next_up(), midpoint.next_down()] {
            nearest(&format!("{near:?}"))?;
            nearest(&format!("{near:.places$e}"))?;
            nearest(&format!("{near:.places$}"))?;
        }
    }
}

/// Checks a decimal against the standard library's parser.
fn nearest(decimal: &str) -> Result<(), TestCaseError> {
    let text = format!(r#"{{"instances":[{decimal}]}}"#);
    let narrow = decode_predict(text.as_bytes(), &one(DType::Fp32), 64).ok();
    let expected = decimal.parse::<f32>().unwrap();
    let narrow = narrow.map(|body| body.inputs[0].elements::<f32>().unwrap()[0].to_bits());
    prop_assert_eq!(narrow, expected.is_finite().then_some(expected.to_bits()), "{}", decimal);
    let wide = decode_predict(text.as_bytes(), &one(DType::Fp64), 64).unwrap();
    prop_assert_eq!(wide.inputs[0].elements::<f64>().unwrap()[0].to_bits(), decimal.parse::<f64>().unwrap().to_bits());
    Ok(())
}
