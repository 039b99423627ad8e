//! Linear layers: `f(x·Wᵀ + b)`.

use std::sync::Arc;

use candle_core::quantized::QMatMul;
use candle_core::{DType, Module, Result, Tensor};
use millrace_core::LoadError;
use millrace_huggingface::Activation;

use super::{Kernels, activate, on_cpu, with_floats};
use crate::cpu::{Matrix, Store};
use crate::weights::Scope;

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear(Form);

#[derive(Debug)]
enum Form {
    Own(Matrix),
    Candle(Product),
    /// Several layers over the same input, whose results stand side by side.
    Several(Vec<Product>),
}

/// One product with candle's operations.
#[derive(Debug)]
struct Product {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Weight {
    /// Wᵀ
    Plain(Tensor),
    Quantised(QMatMul),
}

impl Linear {
    /// The layer whose `weight` [outputs, inputs] and, where there is one, `bias` [outputs] lie in `scope`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is missing or has another shape.
    pub(crate) fn load(
        scope: &Scope<'_>,
        inputs: usize,
        outputs: usize,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        Self::joined(std::slice::from_ref(scope), inputs, outputs, kernels)
    }

    /// Layers over the same input as one, whose results stand side by side. `outputs` are those of each.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub(crate) fn joined(
        scopes: &[Scope<'_>],
        inputs: usize,
        outputs: usize,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        if kernels == Kernels::Own {
            let shape = [outputs, inputs];
            let stores =
                scopes.iter().map(|scope| scope.store("weight", &shape)).collect::<std::result::Result<Vec<_>, _>>()?;
            let mut bias = Vec::new();
            for scope in scopes {
                match scope.has("bias") {
                    true => bias.extend(scope.floats("bias", &[outputs])?),
                    false => bias.resize(bias.len() + outputs, 0.0),
                }
            }
            let weights = Store::joined(stores, outputs * inputs);
            return Ok(Self(Form::Own(Matrix::new(inputs, outputs * scopes.len(), weights, bias))));
        }
        let mut products = scopes
            .iter()
            .map(|scope| Product::load(scope, inputs, outputs))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        if let [_] = products.as_slice() {
            return Ok(Self(Form::Candle(products.remove(0))));
        }
        let place = scopes[0].weights().place();
        match Product::side_by_side(&products).map_err(|error| place.load_failed("joined weights", error))? {
            Some(joined) => Ok(Self(Form::Candle(joined))),
            None => Ok(Self(Form::Several(products))),
        }
    }

    /// Checks that each of `scopes` has a bias. A file in which one has another name would else answer, wrongly.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is missing or has another shape.
    pub(crate) fn need_bias(scopes: &[Scope<'_>], outputs: usize) -> std::result::Result<(), LoadError> {
        scopes.iter().try_for_each(|scope| scope.floats("bias", &[outputs]).map(drop))
    }

    /// `activation(x·Wᵀ + b)` for `x` of [rows, inputs].
    ///
    /// # Errors
    /// candle's.
    pub(crate) fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match &self.0 {
            Form::Own(matrix) => {
                let (rows, _) = x.dims2()?;
                on_cpu(with_floats(x, |x| matrix.multiply(x, activation))?, (rows, matrix.outputs()))
            }
            Form::Candle(product) => activate(activation, &product.forward(x)?),
            Form::Several(products) => {
                let parts = products.iter().map(|product| product.forward(x)).collect::<Result<Vec<_>>>()?;
                activate(activation, &Tensor::cat(&parts, 1)?)
            }
        }
    }

    /// Bytes that it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        match &self.0 {
            Form::Own(matrix) => matrix.n_bytes(),
            Form::Candle(product) => product.n_bytes(),
            Form::Several(products) => products.iter().map(Product::n_bytes).sum(),
        }
    }
}

impl Product {
    fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> std::result::Result<Self, LoadError> {
        let shape = [outputs, inputs];
        let place = scope.weights().place();
        let failed = |error| place.load_failed("weights", error);
        let weight = match scope.quantised("weight", &shape)? {
            Some(blocks) => Weight::Quantised(QMatMul::from_arc(Arc::new(blocks)).map_err(failed)?),
            None => Weight::Plain(scope.tensor("weight", &shape)?.t().map_err(failed)?),
        };
        let bias = if scope.has("bias") { Some(scope.tensor("bias", &[outputs])?) } else { None };
        Ok(Self { weight, bias })
    }

    /// Several as one, unless some are quantised, which cannot be joined.
    fn side_by_side(products: &[Self]) -> Result<Option<Self>> {
        let weights: Option<Vec<Tensor>> = products
            .iter()
            .map(|one| if let Weight::Plain(weight) = &one.weight { Some(weight.clone()) } else { None })
            .collect();
        let biases: Vec<&Tensor> = products.iter().filter_map(|one| one.bias.as_ref()).collect();
        let Some(weights) = weights else { return Ok(None) };
        if !biases.is_empty() && biases.len() != products.len() {
            return Ok(None);
        }
        let rows = weights.iter().map(Tensor::t).collect::<Result<Vec<_>>>()?;
        let weight = Weight::Plain(Tensor::cat(&rows, 0)?.t()?);
        let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
        Ok(Some(Self { weight, bias }))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weight {
            Weight::Plain(weight) => x.matmul(weight)?,
            // Quantised products take and give FP32 alone.
            Weight::Quantised(weight) => weight.forward(&x.to_dtype(DType::F32)?.contiguous()?)?.to_dtype(x.dtype())?,
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    fn n_bytes(&self) -> usize {
        let size = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let weight = match &self.weight {
            Weight::Plain(weight) => size(weight),
            Weight::Quantised(QMatMul::QTensor(blocks)) => blocks.storage_size_in_bytes(),
            Weight::Quantised(QMatMul::Tensor(weight) | QMatMul::TensorF16(weight)) => size(weight),
        };
        weight + self.bias.as_ref().map_or(0, size)
    }
}
