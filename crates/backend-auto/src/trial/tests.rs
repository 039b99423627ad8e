use millrace_core::{DType, Dim, PartOutputs, Signature, Tensor, TensorList, TensorSpec};

use super::{Reference, is_telling};
use crate::compare::{Comparison, Precision};
use crate::data::Data;

fn answer(sizes: &[usize], values: Vec<f32>) -> PartOutputs {
    [Some(Tensor::from_vec(sizes, values).unwrap())].into_iter().collect()
}

#[test]
fn answers_tell_something_where_they_are_numbers_that_vary() {
    let telling = |answers: &[[f32; 2]]| {
        is_telling(&answers.iter().map(|values| answer(&[1, 2], values.to_vec())).collect::<Vec<_>>())
    };
    assert!(telling(&[[1.0, 2.0]]) && telling(&[[1.0, 1.0], [2.0, 2.0]]));
    assert!(!telling(&[[1.0, 1.0], [1.0, 1.0]]) && !telling(&[[f32::NAN, f32::NAN]]));
    assert!(telling(&[[f32::NAN, 1.0], [2.0, 3.0]]) && !telling(&[[f32::NAN, f32::INFINITY], [f32::NAN, 1.0]]));
    // Labels are all that some models give, and one number may be all that there is.
    let labels: PartOutputs = [Some(Tensor::from_vec(&[1], vec![3_i64]).unwrap())].into_iter().collect();
    assert!(is_telling(&[labels.clone(), labels]) && is_telling(&[answer(&[1], vec![0.5])]));
}

#[test]
fn what_is_kept_is_counted_before_more_is_asked_for() {
    let spec = |name, width| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N"), Dim::Fixed(width)]);
    let signature = Signature::new(vec![spec("x", 1)], vec![spec("y", 1000)]).unwrap();
    let request = TensorList::from_iter([Tensor::from_vec(&[1, 1], vec![1.0_f32]).unwrap()]);
    let mut reference = Reference {
        name: "first".to_owned(),
        data: Data::recorded(&signature, vec![request]).unwrap(),
        comparison: Comparison::new(Precision::Single, &signature),
        signature,
        answers: Vec::new(),
    };
    assert_eq!(reference.bytes(64), 0);
    reference.answers.push(((1, 0), answer(&[1, 1000], vec![0.0; 1000])));
    assert_eq!((reference.bytes(1), reference.bytes(4)), (8000, 20_000));
    reference.answers.push(((4, 0), answer(&[4, 1000], vec![0.0; 4000])));
    // What another engine has answered already is not kept twice.
    assert_eq!((reference.bytes(4), reference.bytes(16)), (20_000, 84_000));
}
