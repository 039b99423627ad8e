use millrace_core::{
    Batch, BatchOutputs, DType, Dim, Part, PartOutputs, Shape, Signature, Strings, Tensor, TensorSpec,
};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::cut;
use crate::reply::join;

const WIDTH: usize = 3;

/// Rows of any dtype, all of them different.
fn tensor(dtype: DType, start: usize, rows: usize) -> Tensor {
    let numbers = start * WIDTH..(start + rows) * WIDTH;
    let Some(size) = dtype.size() else {
        let strings: Strings = numbers.map(|number| "x".repeat(number % 5) + &number.to_string()).collect();
        return Tensor::from_strings(&[rows, WIDTH], strings).unwrap();
    };
    let byte = |number: usize| if dtype == DType::Bool { number % 2 } else { number % 251 };
    let bytes: Vec<u8> =
        numbers.flat_map(|number| std::iter::repeat_n(u8::try_from(byte(number)).unwrap(), size)).collect();
    Tensor::new(dtype, Shape::new(&[rows, WIDTH]).unwrap(), bytes.into()).unwrap()
}

fn parts(dtype: DType, sizes: &[usize]) -> Vec<Part> {
    let mut start = 0;
    let mut part = |&rows: &usize| {
        let tensor = tensor(dtype, start, rows);
        start += rows;
        Part { inputs: [tensor].into_iter().collect(), rows }
    };
    sizes.iter().map(&mut part).collect()
}

fn identity(dtype: DType) -> Signature {
    let spec = |name| TensorSpec::new(name, dtype, vec![Dim::symbol("N"), Dim::Fixed(WIDTH)]);
    Signature::new(vec![spec("x")], vec![spec("y")]).unwrap()
}

/// What the identity model gives for a batch, cut among its parts.
fn echo(batch: &Batch, signature: &Signature) -> Vec<PartOutputs> {
    batch.split(&BatchOutputs::all([batch.gather(0).unwrap()]), signature).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// `split(concat(x)) == x`, with padding and without.
    #[test]
    fn joined_parts_come_apart_as_they_were(
        dtype in prop::sample::select(DType::ALL.as_slice()),
        sizes in prop::collection::vec(1_usize..7, 1..9),
        padding in 0_usize..5,
    ) {
        let batch = Batch::new(parts(dtype, &sizes), padding);
        let shares = echo(&batch, &identity(dtype));
        prop_assert_eq!(shares.len(), sizes.len());
        for (share, part) in shares.iter().zip(batch.parts()) {
            prop_assert_eq!(share[0].as_ref(), Some(&part.inputs[0]));
        }
    }

    /// Parts that are cut for several runs come back whole and in order.
    #[test]
    fn parts_run_in_several_runs_come_back_whole(
        dtype in prop::sample::select(DType::ALL.as_slice()),
        sizes in prop::collection::vec(1_usize..9, 1..7),
        run_rows in 1_usize..6,
    ) {
        let whole = parts(dtype, &sizes);
        let mut pieces: Vec<SmallVec<[PartOutputs; 1]>> = vec![SmallVec::new(); sizes.len()];
        for (owners, parts) in cut(parts(dtype, &sizes), run_rows) {
            let batch = Batch::new(parts, 0);
            prop_assert!(batch.rows() <= run_rows);
            for (owner, share) in owners.into_iter().zip(echo(&batch, &identity(dtype))) {
                pieces[owner].push(share);
            }
        }
        for (pieces, part) in pieces.iter().zip(&whole) {
            let joined = join(pieces).unwrap();
            prop_assert_eq!(joined[0].as_ref(), Some(&part.inputs[0]));
        }
    }
}
