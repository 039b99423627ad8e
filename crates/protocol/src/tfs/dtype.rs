//! TensorFlow's names and numbers for element types.

use millrace_core::DType;

/// The name in metadata, such as `DT_FLOAT`.
pub const fn data_type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "DT_BOOL",
        DType::Uint8 => "DT_UINT8",
        DType::Uint16 => "DT_UINT16",
        DType::Uint32 => "DT_UINT32",
        DType::Uint64 => "DT_UINT64",
        DType::Int8 => "DT_INT8",
        DType::Int16 => "DT_INT16",
        DType::Int32 => "DT_INT32",
        DType::Int64 => "DT_INT64",
        DType::Fp16 => "DT_HALF",
        DType::Bf16 => "DT_BFLOAT16",
        DType::Fp32 => "DT_FLOAT",
        DType::Fp64 => "DT_DOUBLE",
        DType::Bytes => "DT_STRING",
    }
}

/// The number in protobuf messages.
pub const fn data_type_number(dtype: DType) -> i32 {
    match dtype {
        DType::Fp32 => 1,
        DType::Fp64 => 2,
        DType::Int32 => 3,
        DType::Uint8 => 4,
        DType::Int16 => 5,
        DType::Int8 => 6,
        DType::Bytes => 7,
        DType::Int64 => 9,
        DType::Bool => 10,
        DType::Bf16 => 14,
        DType::Uint16 => 17,
        DType::Fp16 => 19,
        DType::Uint32 => 22,
        DType::Uint64 => 23,
    }
}

/// The dtype of a number in protobuf messages, where it is one that we have.
pub fn data_type(number: i32) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| data_type_number(*dtype) == number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use millrace_core::DType;

    use super::{data_type, data_type_name, data_type_number};

    #[test]
    fn no_two_dtypes_share_a_name_or_a_number() {
        let names: HashSet<_> = DType::ALL.into_iter().map(data_type_name).collect();
        let numbers: HashSet<_> = DType::ALL.into_iter().map(data_type_number).collect();
        assert_eq!((names.len(), numbers.len()), (DType::ALL.len(), DType::ALL.len()));
        assert!(DType::ALL.into_iter().all(|dtype| data_type(data_type_number(dtype)) == Some(dtype)));
        assert_eq!((data_type(0), data_type(8), data_type(101)), (None, None, None));
        assert_eq!(data_type_number(DType::Fp16), 19);
        assert_eq!(data_type_name(DType::Bytes), "DT_STRING");
    }
}
