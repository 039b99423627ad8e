//! Inputs of a signature with `a` `FP32[N,4]` and `b` `BYTES[N]`.

use bytes::Bytes;
use millrace_core::{DType, Dim, ModelName, Reason, Refusal, Signature, TensorSpec};
use proptest::prelude::*;

use super::Inputs;

fn signature() -> Signature {
    let a = TensorSpec::new("a", DType::Fp32, [Dim::symbol("N"), Dim::Fixed(4)]);
    let b = TensorSpec::new("b", DType::Bytes, [Dim::symbol("N")]);
    Signature::new(vec![a, b], vec![TensorSpec::new("y", DType::Fp32, [Dim::symbol("N")])]).unwrap()
}

fn model() -> ModelName {
    "m".parse().unwrap()
}

#[track_caller]
fn refuses(refusal: &Refusal, words: &str) {
    assert_eq!(refusal.reason(), Reason::InvalidInput, "{refusal}");
    assert!(refusal.message().contains(words), "`{refusal}` does not say `{words}`");
}

#[test]
fn inputs_come_out_in_the_signatures_order() {
    let (model, signature) = (model(), signature());
    let mut inputs = Inputs::new(&model, &signature);
    inputs.put_raw(inputs.declare("b", "BYTES", &[1]).unwrap(), Bytes::from_static(b"\x01\0\0\0t")).unwrap();
    inputs.put_raw(inputs.declare("a", "FP32", &[1, 4]).unwrap(), Bytes::from(vec![0; 16])).unwrap();
    let tensors = inputs.finish().unwrap();
    assert_eq!((tensors[0].dtype(), tensors[1].dtype()), (DType::Fp32, DType::Bytes));
}

#[test]
fn a_name_datatype_or_shape_that_does_not_fit_is_said_in_tritons_words() {
    let (model, signature) = (model(), signature());
    let inputs = Inputs::new(&model, &signature);
    let cases: [(&str, &str, &[i64], &str); 9] = [
        ("c", "FP32", &[1, 4], "unexpected inference input 'c' for model 'm'; expected: 'a', 'b'"),
        ("", "FP32", &[1, 4], "unexpected inference input '' for model 'm'"),
        ("a", "fp32", &[1, 4], "inference input 'a' data-type is 'fp32', but model 'm' expects 'FP32'"),
        ("a", "INT64", &[1, 4], "inference input 'a' data-type is 'INT64', but model 'm' expects 'FP32'"),
        ("a", "FP32", &[2, 5], "unexpected shape for input 'a' for model 'm'. Expected [-1,4], got [2,5]"),
        ("a", "FP32", &[4], "unexpected shape for input 'a' for model 'm'. Expected [-1,4], got [4]"),
        ("a", "FP32", &[-1, 4], "input 'a': bad dimension -1"),
        ("a", "FP32", &[i64::MAX, 4], "input 'a': shape overflow"),
        ("a", "FP32", &[1; 33], "input 'a': rank 33 is above the limit of 32"),
    ];
    for (name, datatype, sizes, words) in cases {
        refuses(&inputs.declare(name, datatype, sizes).unwrap_err(), words);
    }
}

#[test]
fn an_input_given_twice_or_not_at_all_is_named() {
    let (model, signature) = (model(), signature());
    let mut inputs = Inputs::new(&model, &signature);
    let declared = inputs.declare("a", "FP32", &[1, 4]).unwrap();
    inputs.put_raw(declared, Bytes::from(vec![0; 16])).unwrap();
    refuses(&inputs.declare("a", "FP32", &[1, 4]).unwrap_err(), "input 'a' already exists in request");
    let missing =
        "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b'].";
    refuses(&inputs.finish().unwrap_err(), missing);
}

#[test]
fn only_a_model_with_one_input_takes_a_whole_body() {
    let (model, signature) = (model(), signature());
    refuses(&Inputs::new(&model, &signature).only_raw(Bytes::new()).unwrap_err(), "has 2");
    assert!(Inputs::new(&model, &signature).only().is_none());
}

proptest! {
    #[test]
    fn any_sizes_and_bytes_are_a_tensor_or_an_error(sizes in prop::collection::vec(any::<i64>(), 0..4), n in 0_usize..64) {
        let (model, signature) = (model(), signature());
        let mut inputs = Inputs::new(&model, &signature);
        if let Ok(declared) = inputs.declare("a", "FP32", &sizes) {
            let elements = declared.shape.n_elements();
            let put = inputs.put_raw(declared, Bytes::from(vec![0; n]));
            prop_assert_eq!(put.is_ok(), elements.checked_mul(4) == Some(n));
        }
    }
}
