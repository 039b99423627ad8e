//! The layers that encoders are made of, over candle's tensors: on the CPU through `cpu`, elsewhere through candle's own
//! operations.
//!
//! A packed tensor is `[tokens, width]`: the tokens of all rows one after another, without padding.

mod activation;
mod attention;
mod linear;
mod norm;
mod table;

use candle_core::{CpuStorage, Result, Storage, Tensor};

pub(crate) use activation::activate;
pub(crate) use attention::{Group, Ranges, attention};
pub(crate) use linear::Linear;
pub(crate) use norm::LayerNorm;
pub(crate) use table::{Numbers, Table};

use crate::weights::Weights;

/// How layers compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernels {
    /// Those of `cpu`, in FP32 whatever the weights are kept in.
    Own,
    /// candle's operations, in the weights' precision.
    Candle,
}

impl Kernels {
    /// What is best for these weights' place.
    pub(crate) fn of(weights: &Weights) -> Self {
        if weights.place().is_cpu() { Self::Own } else { Self::Candle }
    }
}

/// Hands the numbers of an FP32 tensor in the machine's own memory to `work`, row-major.
pub(crate) fn with_floats<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) => Ok(work(&numbers[start..end])),
        _ => candle_core::bail!("expected FP32 in the machine's own memory, got {:?}", tensor.dtype()),
    }
}

/// A tensor of FP32 in the machine's own memory.
fn on_cpu(numbers: Vec<f32>, shape: (usize, usize)) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape, &candle_core::Device::Cpu)
}
