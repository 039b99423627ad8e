use millrace_core::{Batch, BatchOutputs, ContractError, DType, Dim, Part, Signature, Tensor, TensorSpec};
use proptest::prelude::*;

use crate::generate;

fn identity(dtype: DType, row: &[usize]) -> Signature {
    let shape: Vec<Dim> = std::iter::once(Dim::symbol("N")).chain(row.iter().map(|&size| Dim::Fixed(size))).collect();
    let tensor = |name| TensorSpec::new(name, dtype, shape.clone());
    Signature::new(vec![tensor("x")], vec![tensor("y")]).unwrap()
}

fn part(tensor: Tensor) -> Part {
    let rows = tensor.shape().rows().unwrap();
    Part { inputs: [tensor].into_iter().collect(), rows }
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec()).unwrap()
}

#[test]
fn padding_repeats_the_last_row_and_is_cut_off_again() {
    let batch = Batch::new(vec![part(floats(&[1.0, 2.0])), part(floats(&[3.0]))], 2);
    assert_eq!(batch.rows(), 5);
    let joined = batch.gather(0).unwrap();
    assert_eq!(joined, floats(&[1.0, 2.0, 3.0, 3.0, 3.0]));
    let mut buffer = [0_u8; 20];
    batch.gather_into(0, &mut buffer).unwrap();
    assert_eq!(&buffer[..], joined.bytes().unwrap());
    let shares = batch.split(&BatchOutputs::all([joined]), &identity(DType::Fp32, &[])).unwrap();
    assert_eq!(shares[0][0].as_ref().unwrap(), &floats(&[1.0, 2.0]));
    assert_eq!(shares[1][0].as_ref().unwrap(), &floats(&[3.0]));
}

#[test]
fn one_request_is_neither_joined_nor_cut() {
    let tensor = floats(&[1.0, 2.0]);
    let batch = Batch::single([tensor.clone()].into_iter().collect(), 2);
    assert_eq!(batch.gather(0).unwrap().bytes().unwrap().as_ptr(), tensor.bytes().unwrap().as_ptr());
}

#[test]
fn a_broken_contract_gives_nobody_rows() {
    let batch = Batch::new(vec![part(floats(&[1.0])), part(floats(&[2.0]))], 0);
    let signature = identity(DType::Fp32, &[]);
    let split = |tensors: Vec<Tensor>| batch.split(&BatchOutputs::all(tensors), &signature).unwrap_err();
    assert!(matches!(split(vec![floats(&[1.0])]), ContractError::Rows { expected: 2, .. }));
    assert!(matches!(split(vec![floats(&[1.0, 2.0, 3.0])]), ContractError::Rows { .. }));
    assert!(matches!(split(vec![]), ContractError::Count { expected: 1, got: 0 }));
    let wide = Tensor::from_vec(&[2], vec![1.0_f64, 2.0]).unwrap();
    assert!(matches!(split(vec![wide]), ContractError::DType { .. }));
    let deep = Tensor::from_vec(&[2, 1], vec![1.0_f32, 2.0]).unwrap();
    assert!(matches!(split(vec![deep]), ContractError::Rank { .. }));
    let mut short = [0_u8; 4];
    assert_eq!(batch.gather_into(0, &mut short), Err(ContractError::Gather { input: 0 }));
}

#[test]
fn requests_of_an_unbatched_model_never_share_a_run() {
    let signature = identity(DType::Fp32, &[]).unbatched();
    let batch = Batch::new(vec![part(floats(&[1.0])), part(floats(&[2.0]))], 0);
    let outputs = BatchOutputs::all([floats(&[1.0, 2.0])]);
    assert_eq!(batch.split(&outputs, &signature), Err(ContractError::Unbatched { parts: 2 }));
}

proptest! {
    #[test]
    fn splitting_what_was_joined_gives_each_its_own(
        (dtype, row, tensors, padding) in (
            generate::dtype(), proptest::collection::vec(1..3_usize, 0..3), proptest::collection::vec(1..5_usize, 1..6), 0..3_usize,
        )
            .prop_flat_map(|(dtype, row, rows, padding)| {
                let tensors: Vec<_> = rows.iter().map(|&rows| generate::tensor(dtype, rows, &row)).collect();
                (Just(dtype), Just(row), tensors, Just(padding))
            }),
    ) {
        let batch = Batch::new(tensors.iter().cloned().map(part).collect(), padding);
        let outputs = BatchOutputs::all([batch.gather(0).unwrap()]);
        let shares = batch.split(&outputs, &identity(dtype, &row)).unwrap();
        prop_assert_eq!(shares.len(), tensors.len());
        for (share, tensor) in shares.iter().zip(&tensors) {
            prop_assert_eq!(share[0].as_ref().unwrap(), tensor);
        }
    }
}

/// `ids[N,L] → y[N,L], sum[N]`, where requests of any L ride together.
fn texts() -> Signature {
    let long = vec![Dim::symbol("N"), Dim::symbol("L")];
    let outputs = vec![
        TensorSpec::new("y", DType::Fp32, long.clone()),
        TensorSpec::new("sum", DType::Fp32, vec![Dim::symbol("N")]),
    ];
    Signature::new(vec![TensorSpec::new("ids", DType::Fp32, long)], outputs).unwrap().mixed("L").unwrap()
}

fn grid(rows: usize, columns: usize, values: &[f32]) -> Tensor {
    Tensor::from_vec(&[rows, columns], values.to_vec()).unwrap()
}

#[test]
fn requests_of_different_lengths_get_their_own_length_back() {
    let batch = Batch::new(vec![part(grid(1, 1, &[1.0])), part(grid(2, 3, &[2.0; 6])), part(grid(1, 2, &[3.0; 2]))], 0);
    let y: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let outputs = BatchOutputs::all([grid(4, 3, &y), floats(&[1.0, 6.0, 6.0, 6.0])]);
    let shares = batch.split(&outputs, &texts()).unwrap();
    let y = |index: usize| shares[index][0].clone().unwrap();
    assert_eq!(y(0), grid(1, 1, &[0.0]));
    assert_eq!(y(1), grid(2, 3, &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    assert_eq!(y(2), grid(1, 2, &[9.0, 10.0]));
    assert_eq!(shares[2][1].as_ref().unwrap(), &floats(&[6.0]));
    let short = BatchOutputs::all([grid(4, 2, &[0.0; 8]), floats(&[0.0; 4])]);
    let error = batch.split(&short, &texts()).unwrap_err();
    assert!(matches!(error, ContractError::Size { output: 0, axis: 1, expected: 3, .. }), "{error}");
}
