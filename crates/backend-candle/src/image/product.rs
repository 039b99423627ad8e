//! A matrix whose numbers are made at load from several tensors, in the precision and place of the network.

use candle_core::{Result, Tensor};
use half::{bf16, f16};
use millrace_core::LoadError;
use millrace_huggingface::Activation;

use crate::cpu::{self, Matrix, Store};
use crate::nn::{Kernels, activate, with_floats};
use crate::options::Precision;
use crate::weights::Weights;

/// `activation(x·Wᵀ + b)`
#[derive(Debug)]
pub(super) enum Product {
    Own(Matrix),
    Candle {
        /// Wᵀ, `[inputs, outputs]`.
        weight: Tensor,
        bias: Tensor,
    },
}

impl Product {
    /// From W of `outputs` rows of `inputs` numbers, row by row, and b.
    ///
    /// # Errors
    /// [`LoadError`] where they do not come to the network's place.
    pub(super) fn new(
        weights: &Weights,
        (inputs, outputs): (usize, usize),
        rows: Vec<f32>,
        bias: Vec<f32>,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let (place, precision) = (weights.place(), weights.precision());
        if kernels == Kernels::Own {
            let store = match precision {
                Precision::Fp32 => Store::Fp32(rows),
                Precision::Fp16 => Store::Fp16(rows.into_iter().map(f16::from_f32).collect()),
                Precision::Bf16 => Store::Bf16(rows.into_iter().map(bf16::from_f32).collect()),
            };
            return Ok(Self::Own(Matrix::new(inputs, outputs, store, bias)));
        }
        let tensor = |numbers: Vec<f32>, shape: &[usize]| {
            Tensor::from_vec(numbers, shape, place.device())?.to_dtype(precision.dtype())
        };
        let made =
            || Ok(Self::Candle { weight: tensor(rows, &[outputs, inputs])?.t()?, bias: tensor(bias, &[outputs])? });
        made().map_err(|error| place.load_failed("the weights", error))
    }

    /// `activation(x·Wᵀ + b + added)` for `x` of `[rows, inputs]`.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(&self, x: &Tensor, activation: Activation, added: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Own(matrix) => {
                let shape = (x.dim(0)?, matrix.outputs());
                let numbers = match added {
                    Some(added) => {
                        with_floats(x, |x| with_floats(added, |added| multiply(matrix, x, activation, Some(added))))??
                    }
                    None => with_floats(x, |x| multiply(matrix, x, activation, None))?,
                };
                Tensor::from_vec(numbers, shape, x.device())
            }
            Self::Candle { weight, bias } => {
                let mut sum = x.matmul(weight)?.broadcast_add(bias)?;
                if let Some(added) = added {
                    sum = (sum + added)?;
                }
                activate(activation, &sum)
            }
        }
    }
}

/// `activation(x·Wᵀ + b + added)`
pub(super) fn multiply(matrix: &Matrix, x: &[f32], activation: Activation, added: Option<&[f32]>) -> Vec<f32> {
    let Some(added) = added else { return matrix.multiply(x, activation) };
    let mut numbers = matrix.multiply(x, Activation::Identity);
    numbers.iter_mut().zip(added).for_each(|(number, added)| *number += added);
    cpu::apply(activation, &mut numbers);
    numbers
}
