//! Elements of a file, which may lie unaligned, as numbers and tensors.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor, QuantizedType};
use candle_core::{Device, Result, Tensor};
use half::{bf16, f16};

use super::found::{Found, Kind};
use crate::cpu::{Quantised, Store};
use crate::options::Precision;

/// The elements in FP32; `None` where they are no numbers that weights can be made of.
#[expect(clippy::cast_possible_truncation, reason = "FP64 weights are rounded to FP32, as every loader does")]
pub(super) fn to_f32(found: &Found<'_>) -> Result<Option<Vec<f32>>> {
    let data = found.data;
    Ok(Some(match found.kind {
        Kind::Fp64 => data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        Kind::Fp32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Kind::Fp16 => data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Kind::Bf16 => data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        Kind::Blocks(dtype) => {
            let storage = QStorage::Cpu(blocks(*dtype, data));
            QTensor::new(storage, found.shape)?.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?
        }
        Kind::Other(_) => return Ok(None),
    }))
}

/// A tensor in `precision` on `device`.
pub(super) fn tensor(found: &Found<'_>, precision: Precision, device: &Device) -> Result<Option<Tensor>> {
    let data = found.data;
    // What already is of that type is not widened on its way.
    let tensor = match (found.kind, precision) {
        (Kind::Fp16, Precision::Fp16) => Tensor::from_vec(fp16(data), found.shape, device)?,
        (Kind::Bf16, Precision::Bf16) => Tensor::from_vec(brain(data), found.shape, device)?,
        _ => {
            let Some(numbers) = to_f32(found)? else { return Ok(None) };
            match precision {
                Precision::Fp32 => Tensor::from_vec(numbers, found.shape, device)?,
                Precision::Fp16 => {
                    Tensor::from_vec(numbers.into_iter().map(f16::from_f32).collect::<Vec<_>>(), found.shape, device)?
                }
                Precision::Bf16 => {
                    Tensor::from_vec(numbers.into_iter().map(bf16::from_f32).collect::<Vec<_>>(), found.shape, device)?
                }
            }
        }
    };
    Ok(Some(tensor))
}

/// The elements as the CPU keeps them: quantised ones as they are, others in `precision`.
pub(super) fn store(found: &Found<'_>, precision: Precision) -> Result<Option<Store>> {
    let data = found.data;
    Ok(Some(match (found.kind, precision) {
        (Kind::Blocks(dtype), _) => {
            let (rows, width) = (found.shape.iter().rev().skip(1).product(), found.shape.last().copied().unwrap_or(1));
            let Some(matrix) = Quantised::new(blocks(*dtype, data), rows, width) else { return Ok(None) };
            Store::Blocks(Arc::new(matrix))
        }
        (Kind::Fp16, Precision::Fp16) => Store::Fp16(fp16(data)),
        (Kind::Bf16, Precision::Bf16) => Store::Bf16(brain(data)),
        _ => {
            let Some(numbers) = to_f32(found)? else { return Ok(None) };
            match precision {
                Precision::Fp32 => Store::Fp32(numbers),
                Precision::Fp16 => Store::Fp16(numbers.into_iter().map(f16::from_f32).collect()),
                Precision::Bf16 => Store::Bf16(numbers.into_iter().map(bf16::from_f32).collect()),
            }
        }
    }))
}

fn fp16(data: &[u8]) -> Vec<f16> {
    data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect()
}

fn brain(data: &[u8]) -> Vec<bf16> {
    data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect()
}

/// Quantised numbers for `device`, as they are; `None` where they are not quantised.
pub(super) fn quantised(found: &Found<'_>, device: &Device) -> Result<Option<QTensor>> {
    let Kind::Blocks(dtype) = found.kind else { return Ok(None) };
    let mut aligned = vec![0_u64; found.data.len().div_ceil(size_of::<u64>())];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
    bytes[..found.data.len()].copy_from_slice(found.data);
    let storage = QStorage::from_data(Cow::Borrowed(&bytes[..found.data.len()]), device, *dtype)?;
    QTensor::new(storage, found.shape).map(Some)
}

/// A copy of the blocks. candle wants them to lie at a multiple of their alignment, which those of a file need not.
fn blocks(dtype: GgmlDType, data: &[u8]) -> Box<dyn QuantizedType> {
    let mut aligned = vec![0_u64; data.len().div_ceil(size_of::<u64>())];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
    bytes[..data.len()].copy_from_slice(data);
    dtype.from_data(Cow::Borrowed(&bytes[..data.len()]))
}
