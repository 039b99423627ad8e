use millrace_core::{DType, Dim, Signature, Tensor, TensorList, TensorSpec};

use super::{Attempt, Data, Fill, Spread};
use crate::runner::Trouble;

fn signature(dtype: DType, shape: &[Dim]) -> Signature {
    let spec = |name| TensorSpec::new(name, dtype, shape.to_vec());
    Signature::new(vec![spec("x")], vec![spec("y")]).unwrap()
}

fn invented(signature: &Signature, fill: Fill) -> Data {
    Data::grown(signature, fill, Spread::Narrow, 8, |_| Attempt { result: Ok(()), is_quick: true }).unwrap().0
}

/// The shape of the first input that is settled on, and every size tried, by a model that runs `takes`.
fn grown(
    signature: &Signature,
    takes: impl Fn(&[usize]) -> bool,
    is_quick: impl Fn(&[usize]) -> bool,
) -> (Option<Vec<usize>>, Vec<Vec<usize>>) {
    let mut tried = Vec::new();
    let found = Data::grown(signature, Fill::Varied, Spread::Narrow, 8, |data| {
        let shape = data.all()[0][0].shape().to_vec();
        let result = if takes(&shape) { Ok(()) } else { Err(Trouble::Failed("too long".to_owned())) };
        let is_quick = is_quick(&shape);
        tried.push(shape);
        Attempt { result, is_quick }
    });
    (found.ok().map(|(data, ())| data.all()[0][0].shape().to_vec()), tried)
}

#[test]
fn every_dtype_can_be_invented_at_every_tameness_and_fits() {
    for dtype in DType::ALL {
        for fill in Fill::ALL {
            let signature = signature(dtype, &[Dim::symbol("N"), Dim::Fixed(3)]);
            let inputs = invented(&signature, fill).inputs(5).unwrap();
            assert_eq!(signature.check(&inputs).unwrap().rows, 5, "{dtype} {fill:?}");
        }
    }
}

#[test]
fn rows_differ_and_are_the_same_at_every_load() {
    let signature = signature(DType::Fp32, &[Dim::symbol("N"), Dim::Fixed(4)]);
    let first = invented(&signature, Fill::Varied);
    let inputs = first.inputs(8).unwrap();
    let rows: Vec<Vec<u8>> = (0..8).map(|row| inputs[0].rows(row..row + 1).bytes().unwrap().to_vec()).collect();
    let distinct: std::collections::BTreeSet<&Vec<u8>> = rows.iter().collect();
    assert_eq!(distinct.len(), 8);
    assert_eq!(invented(&signature, Fill::Varied).inputs(8).unwrap()[0], inputs[0]);
    let many = first.inputs(20).unwrap();
    assert_eq!(many[0].rows(8..16), inputs[0]);
}

#[test]
fn open_axes_grow_as_long_as_runs_are_quick() {
    let sequence = signature(DType::Int64, &[Dim::symbol("N"), Dim::symbol("S")]);
    let (found, tried) = grown(&sequence, |_| true, |_| true);
    assert_eq!((found, tried), (Some(vec![1, 32]), vec![vec![1, 8], vec![1, 32]]));
    let picture = signature(DType::Fp32, &[Dim::symbol("N"), Dim::Fixed(1), Dim::symbol("H"), Dim::symbol("W")]);
    assert_eq!(grown(&picture, |_| true, |_| true).0, Some(vec![1, 1, 224, 224]));
    assert_eq!(grown(&picture, |_| true, |shape| shape[2] < 64).0, Some(vec![1, 1, 32, 32]));
    // A run that is slow counts where nothing smaller is there.
    assert_eq!(grown(&picture, |_| true, |_| false).0, Some(vec![1, 1, 8, 8]));
    assert_eq!(grown(&picture, |shape| shape[2] >= 128, |_| true).0, Some(vec![1, 1, 224, 224]));
    assert_eq!(grown(&picture, |_| false, |_| true).0, None);
}

#[test]
fn sizes_that_fail_in_a_run_give_way_to_others() {
    let sequence = signature(DType::Int64, &[Dim::symbol("N"), Dim::symbol("S")]);
    assert_eq!(grown(&sequence, |shape| shape[1] <= 16, |_| true).0, Some(vec![1, 8]));
    assert_eq!(grown(&sequence, |shape| shape[1] == 128, |_| true).0, Some(vec![1, 128]));
    let (found, tried) = grown(&sequence, |shape| shape[1] == 1, |_| true);
    assert_eq!((found, tried.len()), (Some(vec![1, 1]), 5));
}

#[test]
fn rows_that_are_not_independent_do_not_grow_with_other_axes() {
    let tokens = signature(DType::Int64, &[Dim::symbol("N"), Dim::symbol("S")]).unbatched();
    assert_eq!(grown(&tokens, |_| true, |_| true).0, Some(vec![2, 32]));
    let table = signature(DType::Fp32, &[Dim::symbol("N"), Dim::Fixed(3)]).unbatched();
    let (found, tried) = grown(&table, |_| true, |_| true);
    assert_eq!((found, tried.len()), (Some(vec![2, 3]), 1));
    // An axis that must equal another one is no axis of rows.
    let square = signature(DType::Fp32, &[Dim::symbol("S"), Dim::symbol("S")]);
    assert_eq!(grown(&square, |_| true, |_| true).0, Some(vec![224, 224]));
}

#[test]
fn recorded_rows_are_no_more_than_it_takes() {
    let signature = signature(DType::Fp32, &[Dim::symbol("N"), Dim::Fixed(1)]);
    let request = || TensorList::from_iter([Tensor::from_vec(&[50, 1], vec![1.0_f32; 50]).unwrap()]);
    let data = Data::recorded(&signature, vec![request(), request(), request()]).unwrap();
    assert_eq!(data.all().len(), 64);
}

#[test]
fn what_is_too_large_is_not_made() {
    let huge = signature(DType::Fp32, &[Dim::symbol("N"), Dim::Fixed(1 << 24)]);
    let data = invented(&huge, Fill::Zeros);
    assert!(data.inputs(1).is_some() && data.inputs(2).is_none());
    let larger = signature(DType::Fp32, &[Dim::Fixed(1 << 20), Dim::Fixed(1 << 20)]);
    assert!(Data::invented(&larger, 1, Fill::Zeros, Spread::Narrow, 8).is_none());
}

#[test]
fn recorded_requests_of_one_group_become_rows() {
    let signature = signature(DType::Fp32, &[Dim::symbol("N"), Dim::symbol("S")]);
    let request = |sizes: &[usize]| {
        let elements = sizes.iter().product::<usize>();
        TensorList::from_iter([Tensor::from_vec(sizes, vec![elements as f32; elements]).unwrap()])
    };
    let data = Data::recorded(&signature, vec![request(&[2, 3]), request(&[1, 5]), request(&[1, 3])]).unwrap();
    let inputs = data.inputs(3).unwrap();
    assert_eq!(inputs[0].elements::<f32>().unwrap().as_ref(), [6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 3.0, 3.0, 3.0]);
    assert!(Data::recorded(&signature, vec![]).is_none());
}

#[test]
fn rows_of_mixed_lengths_have_masks_that_end_and_ids_of_words() {
    let spec = |name| TensorSpec::new(name, DType::Int64, vec![Dim::symbol("N"), Dim::symbol("S")]);
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(spec).to_vec();
    let output = TensorSpec::new("y", DType::Fp32, vec![Dim::symbol("N"), Dim::Fixed(2)]);
    let signature = Signature::new(inputs, vec![output]).unwrap().mixed("S").unwrap();
    for fill in Fill::ALL {
        let data = invented(&signature, fill);
        let lengths: Vec<i64> =
            data.all().iter().map(|inputs| inputs[1].elements::<i64>().unwrap().iter().sum()).collect();
        assert_eq!(lengths[0], 32, "{fill:?}");
        assert!(lengths.iter().all(|length| (1..=32).contains(length)), "{fill:?} {lengths:?}");
        assert!(lengths.iter().collect::<std::collections::BTreeSet<_>>().len() > 4, "{fill:?} {lengths:?}");
        for inputs in data.all() {
            // Ones first, then zeros.
            assert!(inputs[1].elements::<i64>().unwrap().is_sorted_by(|a, b| a >= b));
            assert!(inputs[2].elements::<i64>().unwrap().iter().all(|kind| (0..2).contains(kind)));
        }
    }
    let ids = invented(&signature, Fill::Varied).inputs(8).unwrap()[0].elements::<i64>().unwrap().into_owned();
    assert!(ids.iter().all(|id| (4..64).contains(id)) && ids.iter().any(|id| *id > 50));
}
