//! Tensors as TensorFlow writes and reads them: every way in, both ways out, and there and back.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use millrace_core::{Code, DType, Dim, Element, Strings, Tensor, TensorSpec};
use millrace_proto::tensorflow::serving::{ModelSpec, PredictResponse, model_spec};
use millrace_proto::tensorflow::tensor_shape_proto::Dim as DimProto;
use millrace_proto::tensorflow::{TensorProto, TensorShapeProto};
use millrace_protocol::front::Budget;
use millrace_protocol::tfs::data_type_number;
use proptest::prelude::*;
use prost::Message as _;

use super::read::tensor;
use super::write::{Answer, NumberForm, Output};
use crate::exchange::{Room, Unread};
use crate::frame::PREFIX;

/// Bytes of tensors that one request may make.
const LIMIT: usize = 64 << 20;
/// As many FP32.
const ELEMENTS: i64 = 16 << 20;

fn budget() -> Arc<Budget> {
    Budget::new(1 << 30)
}

fn spec(dtype: DType) -> TensorSpec {
    TensorSpec::new("x", dtype, [Dim::symbol("N")])
}

fn proto(dtype: DType, sizes: &[i64]) -> TensorProto {
    let dim = sizes.iter().map(|&size| DimProto { size, name: String::new() }).collect();
    TensorProto {
        dtype: data_type_number(dtype),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        ..TensorProto::default()
    }
}

fn read_bytes(bytes: &[u8], dtype: DType) -> Result<Tensor, Unread> {
    let message = Bytes::copy_from_slice(bytes);
    tensor(&message, &message, &spec(dtype), &mut Room::new(usize::MAX, LIMIT, &budget()))
}

#[track_caller]
fn read(proto: &TensorProto, dtype: DType) -> Tensor {
    read_bytes(&proto.encode_to_vec(), dtype).unwrap()
}

#[track_caller]
fn refused(proto: &TensorProto, dtype: DType) -> String {
    refused_bytes(&proto.encode_to_vec(), dtype)
}

#[track_caller]
fn refused_bytes(bytes: &[u8], dtype: DType) -> String {
    match read_bytes(bytes, dtype) {
        Err(Unread::Refused(failure)) => {
            assert_eq!(failure.code(), Code::InvalidArgument);
            failure.refusal().message().to_owned()
        }
        other => panic!("{other:?} is no refusal"),
    }
}

fn vector<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_vec(&[elements.len()], elements.to_vec()).unwrap()
}

#[test]
fn the_last_value_fills_a_list_that_is_too_short() {
    let given = TensorProto { float_val: vec![1.0, 2.0], ..proto(DType::Fp32, &[2, 2]) };
    assert_eq!(read(&given, DType::Fp32), Tensor::from_vec(&[2, 2], vec![1_f32, 2.0, 2.0, 2.0]).unwrap());
    let given = TensorProto { double_val: vec![0.5], ..proto(DType::Fp64, &[7]) };
    assert_eq!(read(&given, DType::Fp64), vector(&[0.5_f64; 7]));
    let given = TensorProto { int64_val: vec![-1, 300], ..proto(DType::Int64, &[5]) };
    assert_eq!(read(&given, DType::Int64), vector(&[-1_i64, 300, 300, 300, 300]));
    let given = TensorProto { string_val: vec!["a".into(), "bc".into()], ..proto(DType::Bytes, &[4]) };
    assert_eq!(read(&given, DType::Bytes).strings().unwrap(), &["a", "bc", "bc", "bc"].iter().collect::<Strings>());
}

#[test]
fn no_value_at_all_means_zeros_and_what_is_too_much_is_left_out() {
    assert_eq!(read(&proto(DType::Fp32, &[3]), DType::Fp32), vector(&[0_f32; 3]));
    assert_eq!(read(&proto(DType::Bool, &[2]), DType::Bool), vector(&[false; 2]));
    assert_eq!(
        read(&proto(DType::Bytes, &[2]), DType::Bytes).strings().unwrap(),
        &["", ""].iter().collect::<Strings>()
    );
    // Another dtype's list is nothing to this one.
    let given = TensorProto { double_val: vec![1.0, 2.0], ..proto(DType::Fp32, &[2]) };
    assert_eq!(read(&given, DType::Fp32), vector(&[0_f32; 2]));
    let given = TensorProto { float_val: vec![1.0, 2.0, 3.0], ..proto(DType::Fp32, &[2]) };
    assert_eq!(read(&given, DType::Fp32), vector(&[1_f32, 2.0]));
    let given = TensorProto { uint64_val: vec![u64::MAX, 2, 3], ..proto(DType::Uint64, &[1]) };
    assert_eq!(read(&given, DType::Uint64), vector(&[u64::MAX]));
    let given = TensorProto { string_val: vec!["a".into(), "b".into()], ..proto(DType::Bytes, &[1]) };
    assert_eq!(read(&given, DType::Bytes).strings().unwrap(), &["a"].iter().collect::<Strings>());
}

#[test]
fn whole_numbers_are_cut_to_their_width_and_never_refused() {
    let given = |dtype| TensorProto { int_val: vec![300, -1, 65_537], ..proto(dtype, &[3]) };
    assert_eq!(read(&given(DType::Int8), DType::Int8), vector(&[44_i8, -1, 1]));
    assert_eq!(read(&given(DType::Uint8), DType::Uint8), vector(&[44_u8, 255, 1]));
    assert_eq!(read(&given(DType::Int16), DType::Int16), vector(&[300_i16, -1, 1]));
    assert_eq!(read(&given(DType::Uint16), DType::Uint16), vector(&[300_u16, 65_535, 1]));
    assert_eq!(read(&given(DType::Int32), DType::Int32), vector(&[300_i32, -1, 65_537]));
    let given = TensorProto { uint32_val: vec![u32::MAX, 1], ..proto(DType::Uint32, &[2]) };
    assert_eq!(read(&given, DType::Uint32), vector(&[u32::MAX, 1]));
}

#[test]
fn half_floats_are_the_low_halves_of_numbers() {
    let given =
        |dtype| TensorProto { half_val: vec![0x3c00, 0xffff_0000_u32.cast_signed() | 0x3f80], ..proto(dtype, &[3]) };
    let bits = |bits: &[u16]| bits.iter().map(|bits| f16::from_bits(*bits)).collect::<Vec<_>>();
    assert_eq!(read(&given(DType::Fp16), DType::Fp16), vector(&bits(&[0x3c00, 0x3f80, 0x3f80])));
    let bits = |bits: &[u16]| bits.iter().map(|bits| bf16::from_bits(*bits)).collect::<Vec<_>>();
    assert_eq!(read(&given(DType::Bf16), DType::Bf16), vector(&bits(&[0x3c00, 0x3f80, 0x3f80])));
}

#[test]
fn content_is_used_alone_and_must_fit() {
    let bytes: Bytes = [1_f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let given = TensorProto { tensor_content: bytes, float_val: vec![9.0], ..proto(DType::Fp32, &[2]) };
    assert_eq!(read(&given, DType::Fp32), vector(&[1_f32, 2.0]));
    let short = TensorProto { tensor_content: given.tensor_content.slice(1..), ..given.clone() };
    assert!(refused(&short, DType::Fp32).starts_with("tensor parsing error: x: "));
    let long = TensorProto { tensor_content: vec![0; 9].into(), ..given };
    assert!(refused(&long, DType::Fp32).starts_with("tensor parsing error: x: "));
    let bools = TensorProto { tensor_content: vec![1, 0, 2].into(), ..proto(DType::Bool, &[3]) };
    assert!(refused(&bools, DType::Bool).starts_with("tensor parsing error: x: "));
    let strings = TensorProto { tensor_content: vec![1, b'a'].into(), ..proto(DType::Bytes, &[1]) };
    assert!(refused(&strings, DType::Bytes).contains("string_val"));
    let empty = TensorProto { tensor_content: vec![0; 4].into(), ..proto(DType::Fp32, &[0]) };
    assert!(refused(&empty, DType::Fp32).starts_with("tensor parsing error: x: "));
}

#[test]
fn no_dimension_is_a_scalar_and_a_zero_an_empty_tensor() {
    let scalar = TensorProto { float_val: vec![5.0], ..proto(DType::Fp32, &[]) };
    assert_eq!(read(&scalar, DType::Fp32), Tensor::from_vec(&[], vec![5_f32]).unwrap());
    let bare = TensorProto { tensor_shape: None, ..scalar };
    assert_eq!(read(&bare, DType::Fp32), Tensor::from_vec(&[], vec![5_f32]).unwrap());
    for sizes in [&[0, 4][..], &[4, 0]] {
        let given = TensorProto { float_val: vec![5.0], ..proto(DType::Fp32, sizes) };
        assert_eq!(read(&given, DType::Fp32).shape().n_elements(), 0);
        let given = TensorProto { string_val: vec!["a".into()], ..proto(DType::Bytes, sizes) };
        assert_eq!(read(&given, DType::Bytes).strings().unwrap().len(), 0);
    }
}

#[test]
fn shapes_that_cannot_be_are_parsing_errors() {
    for sizes in [&[-1][..], &[-2, -2], &[1 << 62, 4], &[1 << 32, 1 << 32], &[16, (1 << 60) + 2], &[0, i64::MAX, 4]] {
        let given = TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, sizes) };
        assert!(refused(&given, DType::Fp32).starts_with("tensor parsing error: x: "), "{sizes:?}");
    }
    let mut unknown = proto(DType::Fp32, &[]);
    unknown.tensor_shape = Some(TensorShapeProto { dim: Vec::new(), unknown_rank: true });
    assert!(refused(&unknown, DType::Fp32).contains("rank is known"));
    assert!(refused(&proto(DType::Fp32, &[1; 1_000_000]), DType::Fp32).contains("rank is above the limit of 32"));
    assert_eq!(read(&proto(DType::Fp32, &[1; 32]), DType::Fp32).shape().len(), 32);
}

#[test]
fn another_dtype_is_named_with_the_one_that_is_wanted() {
    assert_eq!(refused(&proto(DType::Fp64, &[1]), DType::Fp32), "input `x`: expected FP32, got FP64");
    for number in [0, 8, 20, 101, -1, i32::MAX] {
        let given = TensorProto { dtype: number, ..proto(DType::Fp32, &[1]) };
        let text = refused(&given, DType::Fp32);
        assert!(text.contains(&format!("data type {number} is not supported; expected 1, FP32")), "{text}");
    }
}

#[test]
fn a_value_that_fills_too_much_is_refused_before_anything_is_made() {
    for (dtype, given) in [
        (DType::Fp32, TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, &[1 << 20, 1 << 20]) }),
        (DType::Fp32, proto(DType::Fp32, &[1 << 40])),
        (DType::Bool, TensorProto { bool_val: vec![true], ..proto(DType::Bool, &[1 << 40]) }),
        (DType::Int64, TensorProto { int64_val: vec![1], ..proto(DType::Int64, &[1 << 60]) }),
        (DType::Bytes, proto(DType::Bytes, &[1 << 40])),
        (DType::Bytes, TensorProto { string_val: vec![vec![b'x'; 1 << 16].into()], ..proto(DType::Bytes, &[1 << 20]) }),
        // Within what memory can address, and just over the limit.
        (DType::Fp32, TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, &[ELEMENTS + 1]) }),
    ] {
        let text = refused(&given, dtype);
        assert!(text.contains("too large"), "{text}");
    }
    let fits = TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, &[ELEMENTS]) };
    assert_eq!(read(&fits, DType::Fp32).n_bytes(), LIMIT);
}

#[test]
fn what_is_made_for_all_requests_together_is_bounded() {
    let budget = Budget::new(1 << 20);
    let given = TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, &[200_000]) };
    let message = Bytes::from(given.encode_to_vec());
    let ask = || tensor(&message, &message, &spec(DType::Fp32), &mut Room::new(usize::MAX, LIMIT, &budget));
    let first = ask().unwrap();
    match ask() {
        Err(Unread::Refused(failure)) => assert_eq!(failure.code(), Code::Unavailable),
        other => panic!("{other:?}"),
    }
    drop(first);
    assert!(ask().is_ok());
}

#[test]
fn long_work_is_left_to_another_thread_and_what_costs_nothing_is_not() {
    let ask = |given: &TensorProto, dtype| {
        let message = Bytes::from(given.encode_to_vec());
        tensor(&message, &message, &spec(dtype), &mut Room::new(100_000, LIMIT, &budget()))
    };
    let content = TensorProto { tensor_content: vec![0; 1 << 20].into(), ..proto(DType::Fp32, &[1 << 18]) };
    assert!(ask(&content, DType::Fp32).is_ok());
    let packed = TensorProto { float_val: vec![1.0; 1 << 18], ..proto(DType::Fp32, &[1 << 18]) };
    assert!(ask(&packed, DType::Fp32).is_ok());
    let converted = TensorProto { int64_val: vec![1; 1 << 18], ..proto(DType::Int64, &[1 << 18]) };
    assert!(matches!(ask(&converted, DType::Int64), Err(Unread::Long)));
    let filled = TensorProto { float_val: vec![1.0], ..proto(DType::Fp32, &[1 << 18]) };
    assert!(matches!(ask(&filled, DType::Fp32), Err(Unread::Long)));
    let strings = TensorProto { string_val: vec!["".into(); 100_000], ..proto(DType::Bytes, &[100_000]) };
    assert!(matches!(ask(&strings, DType::Bytes), Err(Unread::Long)));
}

#[test]
fn elements_that_stand_as_in_memory_are_parts_of_the_message() {
    let within = |given: &TensorProto, dtype| {
        let message = Bytes::from(given.encode_to_vec());
        let read = tensor(&message, &message, &spec(dtype), &mut Room::new(usize::MAX, LIMIT, &budget())).unwrap();
        let start = read.bytes().map_or_else(|| read.strings().unwrap().payload().as_ptr(), |bytes| bytes.as_ptr());
        message.as_ptr_range().contains(&start)
    };
    assert!(within(&TensorProto { tensor_content: vec![0; 8].into(), ..proto(DType::Int32, &[2]) }, DType::Int32));
    assert!(within(&TensorProto { float_val: vec![1.0; 3], ..proto(DType::Fp32, &[2]) }, DType::Fp32));
    assert!(within(&TensorProto { double_val: vec![1.0; 2], ..proto(DType::Fp64, &[2]) }, DType::Fp64));
    assert!(within(&TensorProto { bool_val: vec![true, false], ..proto(DType::Bool, &[2]) }, DType::Bool));
    assert!(within(&TensorProto { int_val: vec![127, 0], ..proto(DType::Uint8, &[2]) }, DType::Uint8));
    assert!(within(&TensorProto { string_val: vec!["image".into()], ..proto(DType::Bytes, &[1]) }, DType::Bytes));
    assert!(!within(&TensorProto { int_val: vec![128, 0], ..proto(DType::Uint8, &[2]) }, DType::Uint8));
}

#[test]
fn lists_that_are_not_packed_or_come_in_pieces_are_read_too() {
    let head = proto(DType::Fp32, &[4]).encode_to_vec();
    let one = |value: f32| [&[0x2d][..], &value.to_le_bytes()].concat();
    let packed = |values: [f32; 2]| [&[0x2a, 8][..], &values.map(f32::to_le_bytes).concat()].concat();
    let pieces = [head.clone(), one(1.0), packed([2.0, 3.0]), one(4.0)].concat();
    assert_eq!(read_bytes(&pieces, DType::Fp32).unwrap(), vector(&[1_f32, 2.0, 3.0, 4.0]));
    // The dtype may come last, and what follows too many values is not looked at.
    let pieces = [one(1.0), packed([2.0, 3.0]), packed([4.0, 5.0]), one(6.0), head].concat();
    assert_eq!(read_bytes(&pieces, DType::Fp32).unwrap(), vector(&[1_f32, 2.0, 3.0, 4.0]));
    let head = proto(DType::Bool, &[3]).encode_to_vec();
    let pieces = [&head[..], &[0x58, 7], &[0x5a, 3, 0, 0x80, 1]].concat();
    assert_eq!(read_bytes(&pieces, DType::Bool).unwrap(), vector(&[true, false, true]));
}

#[test]
fn broken_lists_are_parsing_errors() {
    let head = |dtype| proto(dtype, &[2]).encode_to_vec();
    for (dtype, rest) in [
        (DType::Fp32, &[0x2a, 3, 0, 0, 0][..]),
        (DType::Fp32, &[0x28, 1]),
        (DType::Fp64, &[0x35, 0, 0, 0, 0]),
        (DType::Int64, &[0x52, 2, 1, 0x80]),
        (DType::Int64, &[0x55, 0, 0, 0, 0]),
        (DType::Int64, &[0x52, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        (DType::Bytes, &[0x40, 1]),
        (DType::Fp32, &[0x2a, 200]),
        (DType::Bytes, &[0x42, 200, 1, b'a']),
    ] {
        let text = refused_bytes(&[&head(dtype)[..], rest].concat(), dtype);
        assert!(text.starts_with("tensor parsing error: x: "), "{text}");
    }
}

fn written(outputs: &[(&str, &Tensor)], form: NumberForm, version: u64) -> Vec<Bytes> {
    let outputs = outputs.iter().map(|(name, tensor)| Output::new(name, tensor, form)).collect();
    let answer = Answer { model: "half_plus_two", version, signature: "serving_default", outputs };
    answer.write().unwrap().into_pieces().into_vec()
}

/// The message without its prefix, which must say how long it is.
fn message(pieces: &[Bytes]) -> Bytes {
    let whole = Bytes::from(pieces.concat());
    assert_eq!(&whole[1..PREFIX], &u32::try_from(whole.len() - PREFIX).unwrap().to_be_bytes());
    whole.slice(PREFIX..)
}

#[test]
fn an_answer_is_byte_for_byte_tensorflow_servings() {
    let pieces = written(&[("y", &vector(&[2.5_f32, 3.0, 4.5]))], NumberForm::Lists, 1);
    let expected = [
        &[0x0a, 0x1b, 0x0a, 0x01, b'y', 0x12, 0x16, 0x08, 0x01, 0x12, 0x04, 0x12, 0x02, 0x08, 0x03, 0x2a, 0x0c][..],
        &[0, 0, 0x20, 0x40, 0, 0, 0x40, 0x40, 0, 0, 0x90, 0x40],
        &[0x12, 0x24, 0x0a, 0x0d],
        b"half_plus_two",
        &[0x12, 0x02, 0x08, 0x01, 0x1a, 0x0f],
        b"serving_default",
    ];
    assert_eq!(message(&pieces), expected.concat());
    assert_eq!(pieces.len(), 1);
}

#[test]
fn a_large_tensor_leaves_as_it_is() {
    let large = vector(&[1.5_f32; 10_000]);
    for form in [NumberForm::Lists, NumberForm::Content] {
        let pieces = written(&[("a", &large), ("b", &vector(&[1_f32]))], form, 1);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.bytes().unwrap().as_ptr());
    }
}

#[test]
fn an_empty_output_has_no_values_and_version_0_is_a_version() {
    for form in [NumberForm::Lists, NumberForm::Content] {
        let response = PredictResponse::decode(message(&written(&[("y", &vector::<f32>(&[]))], form, 0))).unwrap();
        assert_eq!(response.outputs["y"], proto(DType::Fp32, &[0]));
        let version = response.model_spec.unwrap().version_choice;
        assert_eq!(version, Some(model_spec::VersionChoice::Version(0)));
    }
}

/// A tensor of any dtype and of up to three axes.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let sizes = prop::collection::vec(0_usize..4, 0..4);
    (prop::sample::select(DType::ALL.to_vec()), sizes).prop_flat_map(|(dtype, sizes)| {
        let n: usize = sizes.iter().product();
        let strings = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), n);
        let bytes = prop::collection::vec(any::<u8>(), n * dtype.size().unwrap_or(0));
        (strings, bytes).prop_map(move |(strings, bytes)| {
            let shape = millrace_core::Shape::new(&sizes).unwrap();
            match dtype {
                DType::Bytes => Tensor::from_strings(&sizes, strings.iter().collect()).unwrap(),
                DType::Bool => Tensor::new(dtype, shape, bytes.iter().map(|byte| byte & 1).collect()).unwrap(),
                _ => Tensor::new(dtype, shape, bytes.into()).unwrap(),
            }
        })
    })
}

proptest! {
    #[test]
    fn a_tensor_that_was_written_is_read_as_the_same(
        tensors in prop::collection::vec(any_tensor(), 1..4),
        content in any::<bool>(),
    ) {
        let form = if content { NumberForm::Content } else { NumberForm::Lists };
        let names: Vec<String> = (0..tensors.len()).map(|index| format!("output {index}")).collect();
        let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).collect();
        let message = message(&written(&outputs, form, 7));
        // What protobuf itself makes of it, and what it makes of that again.
        let response = PredictResponse::decode(message.clone()).unwrap();
        prop_assert_eq!(response.encoded_len(), message.len());
        let spec_of = ModelSpec {
            name: "half_plus_two".to_owned(),
            signature_name: "serving_default".to_owned(),
            version_choice: Some(model_spec::VersionChoice::Version(7)),
        };
        prop_assert_eq!(response.model_spec.as_ref(), Some(&spec_of));
        for (name, tensor) in outputs {
            let proto = &response.outputs[name];
            let is_content = !proto.tensor_content.is_empty();
            prop_assert_eq!(is_content, content && tensor.dtype() != DType::Bytes && tensor.n_bytes() > 0);
            prop_assert_eq!(&read(proto, tensor.dtype()), tensor);
        }
    }

    #[test]
    fn no_bytes_make_reading_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        dtype in prop::sample::select(DType::ALL.to_vec()),
        n in 0_i64..6,
    ) {
        let _either = read_bytes(&bytes, dtype);
        let with_head = [proto(dtype, &[n]).encode_to_vec(), bytes].concat();
        let _either = read_bytes(&with_head, dtype);
    }
}
