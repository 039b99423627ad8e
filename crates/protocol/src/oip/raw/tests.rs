use bytes::Bytes;
use millrace_core::{DType, Dim, ModelName, Reason, Shape, Strings, Tensor, TensorSpec};
use proptest::prelude::*;

use super::{raw_bytes, raw_len, strings_from_raw, tensor_from_raw, whole_body};

fn model() -> ModelName {
    "m".parse().unwrap()
}

#[test]
fn strings_have_their_length_before_them() {
    let strings: Strings = ["ab", ""].into_iter().collect();
    let tensor = Tensor::from_strings(&[2], strings).unwrap();
    assert_eq!(raw_bytes(&tensor).unwrap(), &[2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0][..]);
    assert_eq!(raw_len(&tensor), 10);
}

#[test]
fn numbers_are_not_copied() {
    let bytes = Bytes::from(vec![0_u8; 16]);
    let tensor = tensor_from_raw(&model(), "x", DType::Fp32, Shape::new(&[4]).unwrap(), bytes.clone()).unwrap();
    assert_eq!(tensor.bytes().unwrap().as_ptr(), bytes.as_ptr());
    assert_eq!(raw_bytes(&tensor).unwrap().as_ptr(), bytes.as_ptr());
}

#[test]
fn strings_that_do_not_fit_are_refused_without_allocating() {
    let cases: [(&[u8], usize); 8] = [
        (b"", 1),
        (b"\x02\0\0", 1),
        (b"\x02\0\0\0a", 1),
        (b"\xff\xff\xff\xffa", 1),
        (b"\x01\0\0\0ab", 1),
        (b"\x01\0\0\0a\x01\0\0\0b", 1),
        (b"\x01\0\0\0a", 2),
        (b"\x01\0\0\0a", usize::MAX),
    ];
    for (bytes, n_elements) in cases {
        let refusal = strings_from_raw("x", bytes, n_elements).unwrap_err();
        assert_eq!(refusal.reason(), Reason::InvalidInput, "{bytes:?}");
        assert!(refusal.message().contains("BYTES element"), "{refusal}");
    }
}

#[test]
fn a_wrong_number_of_bytes_names_input_model_and_both_sizes() {
    let shape = Shape::new(&[8]).unwrap();
    let refusal = tensor_from_raw(&model(), "x", DType::Fp32, shape, Bytes::from(vec![0; 31])).unwrap_err();
    assert_eq!(refusal.message(), "input byte size mismatch for input 'x' for model 'm'. Expected 32, got 31");
    let shape = Shape::new(&[2]).unwrap();
    let refusal = tensor_from_raw(&model(), "x", DType::Bool, shape, Bytes::from(vec![0, 2])).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
}

#[test]
fn a_whole_body_fixes_the_one_open_size() {
    let spec = |dtype, dims: Vec<Dim>| TensorSpec::new("x", dtype, dims);
    let batched = spec(DType::Fp32, vec![Dim::symbol("N"), Dim::Fixed(4)]);
    assert_eq!(
        *whole_body(&model(), &batched, Bytes::from(vec![0; 48])).unwrap().shape(),
        Shape::new(&[3, 4]).unwrap()
    );
    for wrong in [47, 50] {
        assert!(whole_body(&model(), &batched, Bytes::from(vec![0; wrong])).is_err(), "{wrong}");
    }
    let open = spec(DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("M")]);
    assert!(whole_body(&model(), &open, Bytes::from(vec![0; 48])).unwrap_err().message().contains("variable"));
    let text = spec(DType::Bytes, vec![Dim::symbol("N"), Dim::Fixed(1)]);
    let tensor = whole_body(&model(), &text, Bytes::from_static(b"abc")).unwrap();
    assert_eq!((tensor.strings().unwrap().get(0).unwrap(), &tensor.shape()[..]), (&b"abc"[..], &[1, 1][..]));
    let two = spec(DType::Bytes, vec![Dim::Fixed(2)]);
    assert!(whole_body(&model(), &two, Bytes::from_static(b"abc")).is_err());
    let huge = spec(DType::Fp32, vec![Dim::Fixed(usize::MAX), Dim::Fixed(usize::MAX)]);
    assert!(whole_body(&model(), &huge, Bytes::new()).is_err());
}

proptest! {
    #[test]
    fn what_is_written_reads_back(strings: Vec<Vec<u8>>) {
        let n = strings.len();
        let tensor = Tensor::from_strings(&[n], strings.iter().collect()).unwrap();
        let raw = raw_bytes(&tensor).unwrap();
        prop_assert_eq!(raw.len(), raw_len(&tensor));
        let again = tensor_from_raw(&model(), "x", DType::Bytes, tensor.shape().clone(), raw).unwrap();
        prop_assert_eq!(again, tensor);
    }

    #[test]
    fn any_bytes_are_strings_or_an_error(bytes: Vec<u8>, n in 0_usize..64) {
        if let Ok(strings) = strings_from_raw("x", &bytes, n) {
            prop_assert_eq!(strings.len(), n);
            prop_assert_eq!(strings.payload().len() + 4 * n, bytes.len());
        }
    }
}
