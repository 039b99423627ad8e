//! Halves (`FP16`, `BF16`) become `f32` before the engine sees them: it has kernels for few operators of `FP16` and no
//! `BF16` at all, and every half is an `f32`, so that nothing is lost but memory.
//!
//! Inputs and outputs keep their declared type for requests; [`crate::convert`] changes it at the border. Sums are `f32`
//! throughout, which is at least as accurate as rounding to halves between operators.

use std::collections::HashMap;

use half::{bf16, f16};
use millrace_core::{DType, LoadError};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, TensorProto, ValueInfoProto};

use super::Checker;

/// Inputs and outputs of the graph that requests carry as halves, by name.
pub(crate) type Halves = HashMap<String, DType>;

/// Widens every constant, declared type and attribute of the graph and of the graphs inside it. Constants have been read
/// in and lie in `raw_data`.
///
/// # Errors
/// [`LoadError`] naming the constant that is too large as `f32`.
pub(super) fn settle(checker: &Checker<'_>, graph: &mut GraphProto) -> Result<Halves, LoadError> {
    let mut halves = Halves::new();
    for info in graph.input.iter().chain(&graph.output) {
        let dtype = match element_type(info) {
            Some(DataType::Float16) => DType::Fp16,
            Some(DataType::Bfloat16) => DType::Bf16,
            _ => continue,
        };
        halves.insert(info.name.clone(), dtype);
    }
    let mut total = 0;
    widen(checker, graph, &mut total)?;
    Ok(halves)
}

fn element_type(info: &ValueInfoProto) -> Option<DataType> {
    let Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    DataType::try_from(tensor.elem_type).ok()
}

fn is_half(code: i64) -> bool {
    code == DataType::Float16 as i64 || code == DataType::Bfloat16 as i64
}

fn widen(checker: &Checker<'_>, graph: &mut GraphProto, total: &mut u64) -> Result<(), LoadError> {
    for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        if let Some(Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|r#type| r#type.value.as_mut())
            && is_half(tensor.elem_type.into())
        {
            tensor.elem_type = DataType::Float as i32;
        }
    }
    let mut tensors: Vec<&mut TensorProto> = graph.initializer.iter_mut().collect();
    let mut inner: Vec<&mut GraphProto> = Vec::new();
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        // What `Cast` makes, and the random operators, and `QuantizeLinear` of later operator sets.
        if matches!(attribute.name.as_str(), "to" | "dtype" | "output_dtype") && is_half(attribute.i) {
            attribute.i = DataType::Float as i64;
        }
        tensors.extend(attribute.t.iter_mut().chain(&mut attribute.tensors));
        inner.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
    }
    for tensor in tensors {
        tensor_to_f32(tensor);
        let bytes = tensor.raw_data.len() as u64;
        *total = total.saturating_add(bytes);
        let limit = checker.max_tensor_bytes();
        if bytes > limit || *total > checker.source.memory_budget {
            let name = &tensor.name;
            let text = format_args!(
                "constant `{name}` takes {bytes} bytes as FP32, {total} with those before it; the limit is {limit}"
            );
            return Err(checker.too_large(text));
        }
    }
    inner.into_iter().try_for_each(|graph| widen(checker, graph, total))
}

fn tensor_to_f32(tensor: &mut TensorProto) {
    let widen: fn([u8; 2]) -> f32 = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float16) => |bytes| f16::from_le_bytes(bytes).to_f32(),
        Ok(DataType::Bfloat16) => |bytes| bf16::from_le_bytes(bytes).to_f32(),
        _ => return,
    };
    let numbers = tensor.raw_data.as_chunks::<2>().0.iter();
    tensor.raw_data = numbers.flat_map(|bytes| widen(*bytes).to_le_bytes()).collect();
    tensor.data_type = DataType::Float as i32;
}
