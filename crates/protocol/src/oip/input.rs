//! A request's inputs against the signature: names, datatypes, shapes, in the signature's order.
//!
//! What only the whole request can tell (symbols that must agree, sizes of outputs) the servable checks itself.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    DType, Dim, MAX_RANK, ModelName, Refusal, Shape, ShapeError, Signature, Tensor, TensorList, TensorSpec,
};
use smallvec::SmallVec;

use super::raw;
use super::words;

/// The inputs of one request as they come in.
#[derive(Debug)]
pub struct Inputs<'s> {
    model: &'s ModelName,
    signature: &'s Signature,
    slots: SmallVec<[Option<Tensor>; 1]>,
}

/// An input whose name, datatype and shape fit the signature, still without its elements.
#[derive(Debug, Clone)]
pub struct Declared<'s> {
    /// Its position in the signature.
    pub index: usize,
    /// What the signature says of it.
    pub spec: &'s TensorSpec,
    /// The request's shape.
    pub shape: Shape,
}

impl<'s> Inputs<'s> {
    /// None yet, for `signature` of `model`.
    pub fn new(model: &'s ModelName, signature: &'s Signature) -> Self {
        Self { model, signature, slots: SmallVec::from_elem(None, signature.inputs().len()) }
    }

    /// The model.
    pub fn model(&self) -> &'s ModelName {
        self.model
    }

    /// What the signature says of its input, where it has only one.
    pub fn only(&self) -> Option<&'s TensorSpec> {
        if let [spec] = self.signature.inputs() { Some(spec) } else { None }
    }

    /// What the signature says of the input `name`, and its position.
    ///
    /// # Errors
    /// `InvalidInput` when the model has no such input, or the request had it already.
    pub fn find(&self, name: &str) -> Result<(usize, &'s TensorSpec), Refusal> {
        let specs = self.signature.inputs();
        let index = self.signature.input_index(name);
        let index = index.ok_or_else(|| words::unexpected_input(self.model, name, specs))?;
        if self.slots[index].is_some() {
            return Err(words::input_twice(name));
        }
        Ok((index, &specs[index]))
    }

    /// Checks that `text` is the datatype of the input of `spec`.
    ///
    /// # Errors
    /// `InvalidInput` when it is another one or none at all.
    pub fn check_datatype(&self, spec: &TensorSpec, text: &str) -> Result<(), Refusal> {
        let is_it = text.parse::<DType>().is_ok_and(|dtype| dtype == spec.dtype);
        if is_it { Ok(()) } else { Err(words::wrong_datatype(self.model, spec, text)) }
    }

    /// The request's `sizes` as a shape that fits the input of `spec` as far as one input can tell.
    ///
    /// # Errors
    /// `InvalidInput` for a negative size, too high a rank, too many elements, another rank or another fixed size.
    pub fn shape(&self, spec: &TensorSpec, sizes: &[i64]) -> Result<Shape, Refusal> {
        let mut checked: SmallVec<[usize; 8]> = SmallVec::new();
        if sizes.len() > MAX_RANK {
            return Err(words::bad_shape(&spec.name, ShapeError::Rank { rank: sizes.len() }));
        }
        for &size in sizes {
            let size = usize::try_from(size).map_err(|_| {
                words::bad_shape(&spec.name, format_args!("bad dimension {size}: sizes must not be negative"))
            })?;
            checked.push(size);
        }
        let shape = Shape::new(&checked).map_err(|error| words::bad_shape(&spec.name, error))?;
        let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
        if spec.shape.len() != shape.len() || !spec.shape.iter().zip(shape.iter()).all(fits) {
            return Err(words::unexpected_shape(self.model, spec, &shape));
        }
        Ok(shape)
    }

    /// An input by its name, datatype and shape.
    ///
    /// # Errors
    /// Those of [`find`](Self::find), [`check_datatype`](Self::check_datatype) and [`shape`](Self::shape).
    pub fn declare(&self, name: &str, datatype: &str, sizes: &[i64]) -> Result<Declared<'s>, Refusal> {
        let (index, spec) = self.find(name)?;
        self.check_datatype(spec, datatype)?;
        Ok(Declared { index, spec, shape: self.shape(spec, sizes)? })
    }

    /// The input at `index` in a shape that it was declared with before.
    ///
    /// # Panics
    /// Where the signature has no such input.
    pub fn declared(&self, index: usize, shape: Shape) -> Declared<'s> {
        Declared { index, spec: &self.signature.inputs()[index], shape }
    }

    /// Takes in an input whose elements are `bytes`, in the layout of raw tensors and without a copy where that is possible.
    ///
    /// # Errors
    /// `InvalidInput` when the bytes are not those of a tensor of the declared datatype and shape.
    pub fn put_raw(&mut self, declared: Declared<'s>, bytes: Bytes) -> Result<(), Refusal> {
        let Declared { index, spec, shape } = declared;
        let tensor = raw::tensor_from_raw(self.model, &spec.name, spec.dtype, shape, bytes)?;
        self.put(index, tensor);
        Ok(())
    }

    /// Takes in the tensor of the input at `index`, whose datatype and shape were declared.
    pub fn put(&mut self, index: usize, tensor: Tensor) {
        self.slots[index] = Some(tensor);
    }

    /// The tensors in the signature's order.
    ///
    /// # Errors
    /// `InvalidInput` naming the inputs that are missing.
    pub fn finish(self) -> Result<TensorList, Refusal> {
        if self.slots.iter().any(Option::is_none) {
            let is_there = |index: usize| self.slots[index].is_some();
            return Err(words::missing_inputs(self.model, self.signature.inputs(), is_there));
        }
        Ok(self.slots.into_iter().flatten().collect())
    }

    /// The only input of a model whose request is nothing but its raw bytes: the one size that the signature leaves open
    /// follows from their number. A `BYTES` input takes them all as its single element.
    ///
    /// # Errors
    /// `InvalidInput` when the model has several inputs, more than one open size, or the bytes do not divide.
    pub fn only_raw(mut self, bytes: Bytes) -> Result<TensorList, Refusal> {
        let [spec] = self.signature.inputs() else {
            return Err(words::invalid(format!(
                "a raw request needs a model with one input, but model '{}' has {}",
                self.model,
                self.signature.inputs().len()
            )));
        };
        let tensor = raw::whole_body(self.model, spec, bytes)?;
        self.put(0, tensor);
        self.finish()
    }
}

impl Declared<'_> {
    /// The input's name.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }
}

#[cfg(test)]
mod tests;
