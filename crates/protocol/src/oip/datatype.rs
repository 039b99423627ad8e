//! Element types and shapes as metadata and configuration spell them. A request's datatype is the dtype's own name.

use millrace_core::{DType, Dim, TensorSpec};

/// The name in a model's configuration, such as `TYPE_FP32`.
pub const fn data_type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "TYPE_BOOL",
        DType::Uint8 => "TYPE_UINT8",
        DType::Uint16 => "TYPE_UINT16",
        DType::Uint32 => "TYPE_UINT32",
        DType::Uint64 => "TYPE_UINT64",
        DType::Int8 => "TYPE_INT8",
        DType::Int16 => "TYPE_INT16",
        DType::Int32 => "TYPE_INT32",
        DType::Int64 => "TYPE_INT64",
        DType::Fp16 => "TYPE_FP16",
        DType::Bf16 => "TYPE_BF16",
        DType::Fp32 => "TYPE_FP32",
        DType::Fp64 => "TYPE_FP64",
        DType::Bytes => "TYPE_STRING",
    }
}

/// The number of that name in protobuf messages.
pub const fn data_type_number(dtype: DType) -> i32 {
    match dtype {
        DType::Bool => 1,
        DType::Uint8 => 2,
        DType::Uint16 => 3,
        DType::Uint32 => 4,
        DType::Uint64 => 5,
        DType::Int8 => 6,
        DType::Int16 => 7,
        DType::Int32 => 8,
        DType::Int64 => 9,
        DType::Fp16 => 10,
        DType::Fp32 => 11,
        DType::Fp64 => 12,
        DType::Bytes => 13,
        DType::Bf16 => 14,
    }
}

/// A signature's sizes, the batch axis included; `-1` where a request or the run decides.
pub fn spec_sizes(spec: &TensorSpec) -> impl ExactSizeIterator<Item = i64> {
    spec.shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => signed(*size),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => -1,
    })
}

/// A tensor's sizes as the wire has them.
pub fn sizes_of(shape: &[usize]) -> impl ExactSizeIterator<Item = i64> {
    shape.iter().map(|&size| signed(size))
}

fn signed(size: usize) -> i64 {
    // A zero beside it may leave a size as large as it likes, but nothing larger than this was ever asked for by number.
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use millrace_core::{DType, Dim, TensorSpec};

    use super::{data_type_name, data_type_number, spec_sizes};

    #[test]
    fn no_two_dtypes_share_a_name_or_a_number() {
        let names: HashSet<_> = DType::ALL.into_iter().map(data_type_name).collect();
        let numbers: HashSet<_> = DType::ALL.into_iter().map(data_type_number).collect();
        assert_eq!((names.len(), numbers.len()), (DType::ALL.len(), DType::ALL.len()));
        assert_eq!((data_type_number(DType::Fp32), data_type_number(DType::Bf16)), (11, 14));
        assert_eq!(data_type_name(DType::Bytes), "TYPE_STRING");
    }

    #[test]
    fn what_a_request_chooses_is_minus_one() {
        let spec = TensorSpec::new("x", DType::Fp32, [Dim::symbol("N"), Dim::Fixed(4), Dim::Unknown]);
        assert_eq!(spec_sizes(&spec).collect::<Vec<_>>(), [-1, 4, -1]);
    }
}
