//! Element types of the engine in our terms and back.

use millrace_core::DType;
use ort::sys::ONNXTensorElementDataType as Kind;
use ort::value::TensorElementType;

/// The dtype that clients see for the engine's, or `None` where there is none.
pub(crate) fn dtype_of(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Bool => DType::Bool,
        TensorElementType::Uint8 => DType::Uint8,
        TensorElementType::Uint16 => DType::Uint16,
        TensorElementType::Uint32 => DType::Uint32,
        TensorElementType::Uint64 => DType::Uint64,
        TensorElementType::Int8 => DType::Int8,
        TensorElementType::Int16 => DType::Int16,
        TensorElementType::Int32 => DType::Int32,
        TensorElementType::Int64 => DType::Int64,
        TensorElementType::Float16 => DType::Fp16,
        TensorElementType::Bfloat16 => DType::Bf16,
        TensorElementType::Float32 => DType::Fp32,
        TensorElementType::Float64 => DType::Fp64,
        TensorElementType::String => DType::Bytes,
        _ => return None,
    })
}

/// The engine's number for `dtype`.
pub(crate) fn element_type(dtype: DType) -> Kind {
    match dtype {
        DType::Bool => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::Uint8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::Uint16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::Uint32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::Uint64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Int8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::Int16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::Int32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::Int64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Fp16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::Fp32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::Fp64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::Bytes => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// The dtype behind the engine's number, or `None` where there is none.
pub(crate) fn dtype_of_number(number: i32) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| element_type(*dtype) as i32 == number)
}
