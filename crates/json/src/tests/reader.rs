//! The step-by-step reader and the flat lists of elements that it reads.

use millrace_core::{DType, Dim, Shape, TensorSpec};
use proptest::prelude::*;

use super::tensor_text;
use crate::{JsonError, Kind, Reader, Scalar, encode_elements, encode_string};

fn spec(dtype: DType) -> TensorSpec {
    TensorSpec::new("x", dtype, [Dim::symbol("N")])
}

/// Reads `text` as the elements of a tensor of `dtype` and `sizes`; a wrong one as its error.
fn elements(dtype: DType, sizes: &[usize], text: &str) -> String {
    let mut reader = Reader::new(text.as_bytes(), 8);
    let read = reader.elements(&spec(dtype), Some(&Shape::new(sizes).unwrap()));
    read.and_then(|tensor| reader.finish().map(|()| tensor_text(&tensor))).unwrap_or_else(|error| error.to_string())
}

#[test]
fn only_the_order_of_leaves_counts() {
    for text in
        ["[1,2,3,4]", "[[1,2],[3,4]]", " [ [ [ 1 ] , 2 ] , [ ] , [ 3 , [ [ 4 ] ] ] ] ", "[[],[1],[2,3,4],[[[]]]]"]
    {
        assert_eq!(elements(DType::Int32, &[2, 2], text), "INT32[2,2]:[1, 2, 3, 4]", "{text}");
    }
    assert_eq!(elements(DType::Fp32, &[], "[1.5]"), "FP32[]:[1.5]");
    let mut reader = Reader::new(b"[0,[65535]]", 8);
    let tensor = reader.elements(&spec(DType::Uint16), Some(&Shape::new(&[2]).unwrap())).unwrap();
    assert_eq!(*tensor.elements::<u16>().unwrap(), [0, u16::MAX]);
    assert_eq!(elements(DType::Bool, &[0], "[]"), "BOOL[0]:[]");
}

#[test]
fn too_many_too_few_and_wrong_ones_are_named() {
    let cases = [
        (DType::Int32, "[1]", "input `x`: expected 2 elements, got 1"),
        (DType::Int32, "[1,2,3]", "input `x`: expected 2 elements, got more"),
        (DType::Int32, "[[],[]]", "input `x`: expected 2 elements, got 0"),
        (DType::Int32, "5", "input `x`: expected a list of elements, got `5`"),
        (DType::Int32, "{}", "input `x`: expected a list of elements, got `{}`"),
        (
            DType::Uint8,
            "[1,256]",
            "input `x` at index [1]: JSON Value: `256` Type: Number is not of expected type: uint8 (out of range)",
        ),
        (
            DType::Bytes,
            "[\"a\",{\"b64\":\"AA==\"}]",
            "input `x` at index [1]: JSON Value: `{\"b64\":\"AA==\"}` Type: Object is not of expected type: string",
        ),
        (DType::Int32, "[1,]", "input `x` at index [1]: JSON Value: `]` Type: Number is not of expected type: int32"),
        (DType::Int32, "[1 2]", "JSON Parse error: an unexpected character stands at byte 3"),
        (DType::Int32, "[1,2", "JSON Parse error: the document ends too early at byte 4"),
        (DType::Int32, "[1,2]]", "JSON Parse error: trailing bytes after the document, from byte 5 on"),
        (DType::Int32, "[[[[[[[[[1,2]]]]]]]]]", "JSON Parse error: nesting is deeper than the limit of 8 levels"),
        (DType::Fp16, "[1,2]", "input `x`: Conversion of JSON Value: `[1,2]` to type: FP16 is not supported"),
    ];
    for (dtype, text, expected) in cases {
        assert_eq!(elements(dtype, &[2], text), expected, "{text}");
    }
}

#[test]
fn without_a_shape_there_are_as_many_as_there_are() {
    let mut reader = Reader::new(b"[[1,2],[3]]", 8);
    assert_eq!(tensor_text(&reader.elements(&spec(DType::Int8), None).unwrap()), "INT8[3]:[1, 2, 3]");
    reader.finish().unwrap();
}

#[test]
fn scalars_keep_their_kind() {
    let scalar = |text: &'static str| Reader::new(text.as_bytes(), 8).scalar();
    assert_eq!(scalar("null").unwrap(), Some(Scalar::Null));
    assert_eq!(scalar(" true").unwrap(), Some(Scalar::Bool(true)));
    assert_eq!(scalar("-5").unwrap(), Some(Scalar::Int(-5)));
    assert_eq!(scalar("18446744073709551615").unwrap(), Some(Scalar::Uint(u64::MAX)));
    assert_eq!(scalar("1.0").unwrap(), Some(Scalar::Double(1.0)));
    assert_eq!(scalar("18446744073709551616").unwrap(), Some(Scalar::Double(18_446_744_073_709_551_616.0)));
    assert_eq!(scalar("\"a\\n\"").unwrap(), Some(Scalar::String("a\n".into())));
    assert_eq!(scalar("[1]").unwrap(), None);
    for bad in ["", "nul", "tru", "1e999", "-", "\"a", "}"] {
        assert!(scalar(bad).is_err(), "{bad}");
    }
}

#[test]
fn objects_and_lists_call_back_and_a_copy_reads_again() {
    let mut reader = Reader::new(br#" {"a": [1, {"b": 2}], "c": "d"} "#, 8);
    let (mut seen, mut later) = (Vec::new(), None);
    reader
        .object(|reader, key| {
            seen.push(key.text().into_owned());
            if key.is("a") {
                later = Some(*reader);
            }
            reader.skip()
        })
        .unwrap();
    reader.finish().unwrap();
    assert_eq!(seen, ["a", "c"]);
    let mut kinds = Vec::new();
    let mut again = later.unwrap();
    again
        .list(|reader, index| {
            kinds.push((index, reader.kind()?));
            reader.skip()
        })
        .unwrap();
    assert_eq!(kinds, [(0, Kind::Number), (1, Kind::Object)]);
    let wrong =
        |text: &'static str| Reader::new(text.as_bytes(), 8).object(|reader, _| reader.skip()).map(drop).unwrap_err();
    assert!(matches!(wrong("[1]"), JsonError::NotAnObject { .. }));
    assert!(matches!(wrong("\u{feff}{}"), JsonError::Encoding { .. }));
    assert!(matches!(wrong(""), JsonError::Empty));
    assert!(matches!(wrong("{\"a\":[[[[[[[[1]]]]]]]]}"), JsonError::Depth { .. }));
}

proptest! {
    #[test]
    fn what_is_written_flat_reads_back(numbers: Vec<f32>, texts: Vec<String>) {
        let n = numbers.len();
        let tensor = millrace_core::Tensor::from_vec(&[n], numbers).unwrap();
        let mut text = Vec::new();
        encode_elements(&mut text, &spec(DType::Fp32), &tensor, usize::MAX).unwrap();
        let again = Reader::new(&text, 8).elements(&spec(DType::Fp32), Some(tensor.shape())).unwrap();
        let bits = |tensor: &millrace_core::Tensor| -> Vec<u32> {
            tensor.elements::<f32>().unwrap().iter().map(|value| if value.is_nan() { 0 } else { value.to_bits() }).collect()
        };
        prop_assert_eq!(bits(&again), bits(&tensor));
        let strings = millrace_core::Tensor::from_strings(&[texts.len()], texts.iter().collect()).unwrap();
        let mut text = Vec::new();
        encode_elements(&mut text, &spec(DType::Bytes), &strings, usize::MAX).unwrap();
        prop_assert_eq!(Reader::new(&text, 8).elements(&spec(DType::Bytes), None).unwrap(), strings);
    }

    #[test]
    fn a_string_that_is_written_reads_back(value: String) {
        let mut text = Vec::new();
        encode_string(&mut text, &value);
        prop_assert_eq!(Reader::new(&text, 8).scalar().unwrap(), Some(Scalar::String(value.into())));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\":,0-9a-z.eE+\\\\ -]{0,64}", n in 0_usize..8) {
        for dtype in DType::ALL {
            let mut reader = Reader::new(text.as_bytes(), 8);
            if let Ok(tensor) = reader.elements(&spec(dtype), Some(&Shape::new(&[n]).unwrap())) {
                prop_assert_eq!(tensor.shape().n_elements(), n);
            }
        }
    }
}
