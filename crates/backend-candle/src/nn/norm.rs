//! Layer normalisation.

use candle_core::{Result, Tensor};
use millrace_core::LoadError;

use super::{Kernels, on_cpu, with_floats};
use crate::cpu::{self, Norm};
use crate::weights::Scope;

/// Rows to mean 0 and variance 1, then a learned scale and shift.
#[derive(Debug)]
pub(crate) struct LayerNorm(Form);

#[derive(Debug)]
enum Form {
    Own(Norm),
    Candle { weight: Tensor, bias: Tensor, eps: f32 },
}

impl LayerNorm {
    /// The layer whose `weight` and `bias`, or `gamma` and `beta` as old files call them, lie in `scope`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is missing or has another shape.
    pub(crate) fn load(
        scope: &Scope<'_>,
        width: usize,
        eps: f64,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let (weight, bias) = (scope.either(&["weight", "gamma"]), scope.either(&["bias", "beta"]));
        #[expect(clippy::cast_possible_truncation, reason = "a small number that is added to a variance in FP32")]
        let eps = eps as f32;
        Ok(Self(match kernels {
            Kernels::Own => {
                Form::Own(Norm { weight: scope.floats(weight, &[width])?, bias: scope.floats(bias, &[width])?, eps })
            }
            Kernels::Candle => {
                Form::Candle { weight: scope.tensor(weight, &[width])?, bias: scope.tensor(bias, &[width])?, eps }
            }
        }))
    }

    /// The normalised rows of `x`, or of `x + added`, both [rows, width].
    ///
    /// # Errors
    /// candle's.
    pub(crate) fn forward(&self, x: &Tensor, added: Option<&Tensor>) -> Result<Tensor> {
        match &self.0 {
            Form::Own(norm) => {
                let numbers = match added {
                    Some(added) => {
                        with_floats(x, |x| with_floats(added, |added| cpu::layer_norm(norm, x, Some(added))))??
                    }
                    None => with_floats(x, |x| cpu::layer_norm(norm, x, None))?,
                };
                on_cpu(numbers, x.dims2()?)
            }
            Form::Candle { weight, bias, eps } => {
                let sum = match added {
                    Some(added) => (x + added)?,
                    None => x.contiguous()?,
                };
                candle_nn::ops::layer_norm(&sum, weight, bias, *eps)
            }
        }
    }
}
