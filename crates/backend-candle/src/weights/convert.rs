//! Elements of a file, which may lie unaligned, as numbers and tensors.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

/// The bytes of a tensor of floating-point numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Floats<'a> {
    F64(&'a [[u8; 8]]),
    F32(&'a [[u8; 4]]),
    F16(&'a [[u8; 2]]),
    Bf16(&'a [[u8; 2]]),
}

impl<'a> Floats<'a> {
    /// `None` where the type is no floating-point number of at least 16 bits.
    pub(super) fn new(dtype: Dtype, data: &'a [u8]) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Self::F64(data.as_chunks().0),
            Dtype::F32 => Self::F32(data.as_chunks().0),
            Dtype::F16 => Self::F16(data.as_chunks().0),
            Dtype::BF16 => Self::Bf16(data.as_chunks().0),
            _ => return None,
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "FP64 weights are rounded to FP32, as every loader does")]
    pub(super) fn to_f32(self) -> Vec<f32> {
        match self {
            Self::F64(data) => data.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Self::F32(data) => data.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Self::F16(data) => data.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            Self::Bf16(data) => data.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        }
    }

    /// A tensor of `dtype` on `device`.
    pub(super) fn tensor(self, shape: &[usize], dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match (self, dtype) {
            // What already is of that type is not widened on its way.
            (Self::F16(data), DType::F16) => {
                let elements = data.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect::<Vec<_>>();
                Tensor::from_vec(elements, shape, device)
            }
            (Self::Bf16(data), DType::BF16) => {
                let elements = data.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect::<Vec<_>>();
                Tensor::from_vec(elements, shape, device)
            }
            (_, DType::F16) => {
                Tensor::from_vec(self.to_f32().into_iter().map(f16::from_f32).collect::<Vec<_>>(), shape, device)
            }
            (_, DType::BF16) => {
                Tensor::from_vec(self.to_f32().into_iter().map(bf16::from_f32).collect::<Vec<_>>(), shape, device)
            }
            _ => Tensor::from_vec(self.to_f32(), shape, device)?.to_dtype(dtype),
        }
    }
}
