//! Tensors across the border: one copy on the way in, none on the way out, but one where halves become `f32` and back.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use millrace_core::{Batch, ContractError, DType, Element, RunError, Shape, Strings, Tensor};
use smallvec::SmallVec;
use tract_onnx::prelude::{Datum, DatumType, IntoArcTensor, IntoTensor, TValue, Tensor as TractTensor, tract_ndarray};
use tract_onnx::tract_core::internal::vector_size;

/// The dtype that clients see for the engine's, or `None` where there is none. The engine's own symbolic sizes are
/// written as 64-bit integers, as ONNX has them, and quantised types as the integers that they are.
pub(crate) fn dtype_of(datum_type: DatumType) -> Option<DType> {
    Some(match datum_type.unquantized() {
        DatumType::Bool => DType::Bool,
        DatumType::U8 => DType::Uint8,
        DatumType::U16 => DType::Uint16,
        DatumType::U32 => DType::Uint32,
        DatumType::U64 => DType::Uint64,
        DatumType::I8 => DType::Int8,
        DatumType::I16 => DType::Int16,
        DatumType::I32 => DType::Int32,
        DatumType::I64 | DatumType::TDim => DType::Int64,
        DatumType::F32 => DType::Fp32,
        DatumType::F64 => DType::Fp64,
        DatumType::String => DType::Bytes,
        _ => return None,
    })
}

fn datum_type_of(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::Bool => DatumType::Bool,
        DType::Uint8 => DatumType::U8,
        DType::Uint16 => DatumType::U16,
        DType::Uint32 => DatumType::U32,
        DType::Uint64 => DatumType::U64,
        DType::Int8 => DatumType::I8,
        DType::Int16 => DatumType::I16,
        DType::Int32 => DatumType::I32,
        DType::Int64 => DatumType::I64,
        DType::Fp32 => DatumType::F32,
        DType::Fp64 => DatumType::F64,
        DType::Bytes => DatumType::String,
        DType::Fp16 | DType::Bf16 => return None,
    })
}

/// Input `index` (called `name`) of the whole batch, in the engine's own aligned memory.
///
/// # Errors
/// [`RunError::InvalidInput`] for a `BYTES` element that is not UTF-8, which is all the engine's strings can hold;
/// [`RunError::Failed`] when the parts do not join or the engine has no such dtype.
pub(crate) fn gather(batch: &Batch, index: usize, name: &str) -> Result<TValue, RunError> {
    let wrong = || ContractError::Gather { input: index };
    let parts = batch.parts();
    let first = parts.first().and_then(|part| part.inputs.get(index)).ok_or_else(wrong)?;
    if let ([_], true) = (parts, batch.rows() == parts[0].rows) {
        return whole(first, name);
    }
    let shape = first.shape().with_rows(batch.rows()).map_err(|_| wrong())?;
    if matches!(first.dtype(), DType::Bytes | DType::Fp16 | DType::Bf16) {
        return whole(&batch.gather(index)?, name);
    }
    let datum_type = datum_type_of(first.dtype()).ok_or_else(wrong)?;
    let mut joined = TractTensor::zero_aligned_dt(datum_type, &shape, vector_size()).map_err(failed)?;
    batch.gather_into(index, joined.as_bytes_mut())?;
    Ok(TValue::from(joined))
}

/// `tensor`, an input called `name`, in the engine's own aligned memory.
///
/// # Errors
/// As [`gather`].
pub(crate) fn whole(tensor: &Tensor, name: &str) -> Result<TValue, RunError> {
    single(tensor, name).map(TValue::from)
}

/// A request that rides alone needs no zeroed buffer first, where its elements can be read as they lie: they are copied
/// straight into an aligned one.
fn single(tensor: &Tensor, name: &str) -> Result<TractTensor, RunError> {
    match tensor.dtype() {
        DType::Bool => copied::<bool>(tensor),
        DType::Uint8 => copied::<u8>(tensor),
        DType::Uint16 => copied::<u16>(tensor),
        DType::Uint32 => copied::<u32>(tensor),
        DType::Uint64 => copied::<u64>(tensor),
        DType::Int8 => copied::<i8>(tensor),
        DType::Int16 => copied::<i16>(tensor),
        DType::Int32 => copied::<i32>(tensor),
        DType::Int64 => copied::<i64>(tensor),
        DType::Fp16 => widened(tensor, f16::to_f32),
        DType::Bf16 => widened(tensor, bf16::to_f32),
        DType::Fp32 => copied::<f32>(tensor),
        DType::Fp64 => copied::<f64>(tensor),
        DType::Bytes => strings(tensor, name),
    }
}

fn copied<T: Element + Datum + Copy>(tensor: &Tensor) -> Result<TractTensor, RunError> {
    if let Some(bytes) = tensor.bytes().filter(|bytes| !bytes.as_ptr().cast::<T>().is_aligned()) {
        // A binary body's head is as long as it is. One copy here, where reading the elements would make another.
        let mut copy = TractTensor::zero_aligned_dt(T::datum_type(), tensor.shape(), vector_size()).map_err(failed)?;
        copy.as_bytes_mut().copy_from_slice(bytes);
        return Ok(copy);
    }
    TractTensor::from_shape(tensor.shape(), &tensor.elements::<T>()?).map_err(failed)
}

/// Halves as the engine runs them.
fn widened<T: Element + Copy>(tensor: &Tensor, widen: fn(T) -> f32) -> Result<TractTensor, RunError> {
    let numbers: Vec<f32> = tensor.elements::<T>()?.iter().map(|number| widen(*number)).collect();
    TractTensor::from_shape(tensor.shape(), &numbers).map_err(failed)
}

fn strings(tensor: &Tensor, name: &str) -> Result<TractTensor, RunError> {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
    let elements = tensor.strings().map(|strings| strings.iter().map(utf8).collect::<Result<Vec<String>, _>>());
    let elements = elements
        .ok_or_else(|| RunError::Failed("expected BYTES".into()))?
        .map_err(|_| RunError::InvalidInput(format!("input `{name}`: this engine takes only BYTES that are UTF-8")))?;
    let array = tract_ndarray::ArrayD::from_shape_vec(&**tensor.shape(), elements);
    array.map(TractTensor::from).map_err(|error| RunError::Failed(Box::new(error)))
}

/// Keeps the engine's tensor alive behind the bytes of ours.
struct Held(Arc<TractTensor>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The engine's output as a tensor over the same memory, or, where `declared` says so, as halves.
///
/// # Errors
/// [`RunError::Failed`] when its dtype has no counterpart or its elements do not lie in plain memory.
pub(crate) fn output(value: TValue, declared: DType) -> Result<Tensor, RunError> {
    let datum_type = value.datum_type();
    let dtype = dtype_of(datum_type).ok_or_else(|| RunError::Failed(format!("an output is {datum_type:?}").into()))?;
    let value = if datum_type.is_tdim() {
        value.into_tensor().cast_to::<i64>().map_err(failed)?.into_owned().into_arc_tensor()
    } else {
        value.into_arc_tensor()
    };
    if !value.is_plain_ram() {
        return Err(RunError::Failed("an output does not lie in plain memory".into()));
    }
    let sizes: SmallVec<[usize; 8]> = SmallVec::from_slice(value.shape());
    if dtype == DType::Bytes {
        let view = value.try_as_plain_ram().map_err(failed)?;
        let elements = view.as_slice::<String>().map_err(failed)?.iter().collect::<Strings>();
        return Ok(Tensor::from_strings(&sizes, elements)?);
    }
    if dtype == DType::Fp32 && declared != dtype {
        let view = value.try_as_plain_ram().map_err(failed)?;
        let numbers = view.as_slice::<f32>().map_err(failed)?.iter().copied();
        return match declared {
            DType::Fp16 => Ok(Tensor::from_vec(&sizes, numbers.map(f16::from_f32).collect())?),
            DType::Bf16 => Ok(Tensor::from_vec(&sizes, numbers.map(bf16::from_f32).collect())?),
            other => Err(RunError::Failed(format!("an output is f32 where {other} is declared").into())),
        };
    }
    let shape = Shape::new(&sizes).map_err(|error| RunError::Failed(Box::new(error)))?;
    Ok(Tensor::new(dtype, shape, Bytes::from_owner(Held(value)))?)
}

fn failed(error: tract_onnx::prelude::TractError) -> RunError {
    RunError::Failed(error.into())
}
