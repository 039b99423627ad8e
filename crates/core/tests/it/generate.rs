//! Strategies for tensors of every dtype.

use bytes::Bytes;
use millrace_core::{DType, Shape, Strings, Tensor};
use proptest::collection::vec;
use proptest::prelude::*;

/// Any dtype.
pub(crate) fn dtype() -> impl Strategy<Value = DType> {
    proptest::sample::select(DType::ALL.to_vec())
}

/// A tensor of `dtype` with `rows` rows of shape `row`, of any content.
pub(crate) fn tensor(dtype: DType, rows: usize, row: &[usize]) -> BoxedStrategy<Tensor> {
    let sizes: Vec<usize> = std::iter::once(rows).chain(row.iter().copied()).collect();
    let shape = Shape::new(&sizes).unwrap();
    let n_elements = shape.n_elements();
    let Some(size) = dtype.size() else {
        return vec(vec(any::<u8>(), 0..5), n_elements)
            .prop_map(move |strings| Tensor::from_strings(&sizes, strings.iter().collect::<Strings>()).unwrap())
            .boxed();
    };
    let byte = if dtype == DType::Bool { (0..=1_u8).boxed() } else { any::<u8>().boxed() };
    vec(byte, n_elements * size)
        .prop_map(move |bytes| Tensor::new(dtype, shape.clone(), Bytes::from(bytes)).unwrap())
        .boxed()
}
