use bytes::Bytes;
use millrace_core::{DType, MAX_RANK, Shape, ShapeError, Strings, Tensor, TensorError};
use proptest::prelude::*;

use crate::generate;

#[test]
fn shapes_that_overflow_are_refused_before_anything_is_allocated() {
    for sizes in [&[1 << 62, 4][..], &[1 << 32, 1 << 32], &[16, (1 << 60) + 2], &[0, 1 << 62, 4], &[usize::MAX]] {
        assert_eq!(Shape::new(sizes), Err(ShapeError::Overflow), "{sizes:?}");
    }
    assert_eq!(Shape::new(&[1; MAX_RANK + 1]), Err(ShapeError::Rank { rank: MAX_RANK + 1 }));
    assert_eq!(Shape::new(&[0, 4]).unwrap().n_elements(), 0);
    assert_eq!(Shape::scalar().n_elements(), 1);
}

#[test]
fn a_shape_of_many_elements_and_few_bytes_is_a_length_error() {
    let shape = Shape::new(&[1, 1 << 40]).unwrap();
    let error = Tensor::new(DType::Fp32, shape, Bytes::from_static(&[0; 16])).unwrap_err();
    assert_eq!(error.to_string(), "shape [1,1099511627776] of FP32 wants 4398046511104 bytes, got 16");
}

#[test]
fn a_bool_is_zero_or_one() {
    let shape = Shape::new(&[2]).unwrap();
    assert!(Tensor::new(DType::Bool, shape.clone(), Bytes::from_static(&[0, 1])).is_ok());
    assert_eq!(Tensor::new(DType::Bool, shape, Bytes::from_static(&[0, 2])), Err(TensorError::Bool));
}

#[test]
fn rows_share_the_buffer() {
    let whole = Tensor::from_vec(&[4, 2], (0..8).map(|n| n as f32).collect()).unwrap();
    let rows = whole.rows(1..3);
    assert_eq!(rows.elements::<f32>().unwrap().as_ref(), [2.0, 3.0, 4.0, 5.0]);
    let (whole, rows) = (whole.bytes().unwrap().as_ptr_range(), rows.bytes().unwrap().as_ptr_range());
    assert!(whole.start < rows.start && rows.end < whole.end);
}

#[test]
fn unaligned_bytes_read_the_same_by_a_copy() {
    let mut bytes = vec![0_u8];
    bytes.extend([1.5_f32, -2.5].iter().flat_map(|x| x.to_le_bytes()));
    let tensor = Tensor::new(DType::Fp32, Shape::new(&[2]).unwrap(), Bytes::from(bytes).slice(1..)).unwrap();
    assert_eq!(tensor.elements::<f32>().unwrap().as_ref(), [1.5, -2.5]);
}

#[test]
fn elements_of_another_type_are_an_error() {
    let tensor = Tensor::from_vec(&[1], vec![1.0_f32]).unwrap();
    let expected = TensorError::DType { expected: DType::Int32, got: DType::Fp32 };
    assert_eq!(tensor.elements::<i32>().unwrap_err(), expected);
}

#[test]
fn string_offsets_must_ascend_and_stay_inside() {
    let buffer = Bytes::from_static(b"abc");
    assert!(Strings::new(buffer.clone(), vec![]).is_none());
    assert!(Strings::new(buffer.clone(), vec![0, 2, 1]).is_none());
    assert!(Strings::new(buffer.clone(), vec![0, 4]).is_none());
    let strings = Strings::new(buffer, vec![0, 1, 1, 3]).unwrap();
    assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
}

#[test]
fn tensors_of_different_rows_do_not_join() {
    let left = Tensor::from_vec(&[1, 2], vec![1.0_f32, 2.0]).unwrap();
    let right = Tensor::from_vec(&[1, 3], vec![1.0_f32, 2.0, 3.0]).unwrap();
    assert!(matches!(Tensor::concat(&[left, right]), Err(TensorError::Join { .. })));
    assert!(matches!(Tensor::concat(&[]), Err(TensorError::Join { .. })));
}

proptest! {
    #[test]
    fn cutting_and_joining_gives_the_same_tensor(
        (whole, cut) in (generate::dtype(), 1..6_usize, proptest::collection::vec(1..4_usize, 0..3), 0..6_usize)
            .prop_flat_map(|(dtype, rows, row, cut)| (generate::tensor(dtype, rows, &row), Just(cut.min(rows)))),
    ) {
        let rows = whole.shape().rows().unwrap();
        let joined = Tensor::concat(&[whole.rows(0..cut), whole.rows(cut..rows)]).unwrap();
        prop_assert_eq!(&joined, &whole);
        prop_assert_eq!(&whole.rows(0..cut).detached(), &whole.rows(0..cut));
    }
}

#[test]
fn narrowing_keeps_the_first_of_an_axis() {
    let values: Vec<i32> = (0..12).collect();
    let tensor = Tensor::from_vec(&[2, 3, 2], values).unwrap();
    let narrow = tensor.narrowed(1, 2).unwrap();
    assert_eq!(narrow, Tensor::from_vec(&[2, 2, 2], vec![0, 1, 2, 3, 6, 7, 8, 9]).unwrap());
    assert_eq!(tensor.narrowed(2, 1).unwrap(), Tensor::from_vec(&[2, 3, 1], vec![0, 2, 4, 6, 8, 10]).unwrap());
    assert_eq!(tensor.narrowed(0, 0).unwrap().shape().to_vec(), [0, 3, 2]);
    assert_eq!(tensor.narrowed(1, 3).unwrap().bytes().unwrap().as_ptr(), tensor.bytes().unwrap().as_ptr());
    assert!(tensor.narrowed(1, 4).is_none() && tensor.narrowed(3, 1).is_none());
    let words = Strings::from_iter(["a", "b", "c", "d"]);
    let words = Tensor::from_strings(&[2, 2], words).unwrap().narrowed(1, 1).unwrap();
    assert_eq!(words.strings().unwrap().iter().collect::<Vec<_>>(), [b"a".as_slice(), b"c"]);
}
