//! Named, checked access to the tensors of safetensors files.
//!
//! A header is believed only where it agrees with the file's length; a tensor is handed out only in the shape that the
//! network asks for. What is too large is refused before it is copied.

mod convert;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use millrace_core::{LoadError, LoadErrorKind, ModelSource, Quoted};
use safetensors::Dtype;

use crate::device::Place;
use crate::options::Precision;
use convert::Floats;
use shards::{Found, Shards};

/// The tensors of one model, in the precision and place that it computes in.
#[derive(Debug)]
pub(crate) struct Weights {
    shards: Shards,
    place: Place,
    precision: Precision,
}

impl Weights {
    /// Reads the headers of the safetensors files in `folder`, which is empty or ends in `/`. Without a `precision`, that is FP32 on the CPU and elsewhere
    /// the one that most of the file's bytes have.
    ///
    /// # Errors
    /// [`LoadError`] for files that are absent, damaged or, together with the tensors made from them, larger than the memory
    /// budget.
    pub(crate) fn open(
        source: &ModelSource,
        folder: &str,
        place: &Place,
        precision: Option<Precision>,
    ) -> Result<Self, LoadError> {
        let shards = Shards::open(source, folder)?;
        let precision = precision.unwrap_or_else(|| default_precision(place, &shards.bytes_by_type()));
        let weights = Self { shards, place: place.clone(), precision };
        let (file_bytes, held) = (weights.shards.file_bytes(), weights.n_bytes());
        let need = file_bytes.saturating_add(held);
        if need > source.memory_budget {
            let text = format!(
                "the weights take {held} bytes in {}, and {need} while they load; the memory budget is {}",
                precision.name(),
                source.memory_budget
            );
            return Err(LoadError::new(LoadErrorKind::TooLarge, text));
        }
        Ok(weights)
    }

    /// The precision that the tensors come in.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the tensors lie.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Bytes that all floating-point tensors take in the precision that they come in.
    pub(crate) fn n_bytes(&self) -> u64 {
        let size = self.precision.dtype().size_in_bytes() as u64;
        self.shards.n_floats().saturating_mul(size)
    }

    /// Bytes of tensors in the files by element type, as [`ModelFacts`](millrace_core::ModelFacts) has them.
    pub(crate) fn bytes_by_type(&self) -> BTreeMap<String, u64> {
        self.shards.bytes_by_type()
    }

    /// How many tensors the files hold.
    pub(crate) fn n_tensors(&self) -> usize {
        self.shards.n_tensors()
    }

    /// The tensors below no prefix.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }
}

fn default_precision(place: &Place, bytes_by_type: &BTreeMap<String, u64>) -> Precision {
    if place.is_cpu() {
        return Precision::Fp32;
    }
    let of = |precision: &Precision| bytes_by_type.get(precision.name()).copied().unwrap_or(0);
    let all = [Precision::Fp32, Precision::Bf16, Precision::Fp16];
    all.into_iter().max_by_key(of).unwrap_or(Precision::Fp32)
}

/// The tensors whose names begin alike.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The tensors below `part`, such as `encoder.layer.0`.
    pub(crate) fn at(&self, part: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}{part}.", self.prefix) }
    }

    /// The weights that this is a part of.
    pub(crate) fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// Whether there is a tensor called `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.shards.find(&self.full(name)).is_some()
    }

    /// The first of `names` that there is, or else the first.
    pub(crate) fn either<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().copied().find(|name| self.has(name)).unwrap_or(names[0])
    }

    /// The shape of tensor `name`, where there is one.
    pub(crate) fn shape_of(&self, name: &str) -> Option<&'a [usize]> {
        self.weights.shards.find(&self.full(name)).map(|found| found.shape)
    }

    /// The tensor `name`, of just this shape, in the weights' precision and place.
    ///
    /// # Errors
    /// [`LoadError`] where it is not there, has another shape, or is not of floating-point numbers.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.tensor_as(name, shape, self.weights.precision.dtype())
    }

    /// The same in FP32, for what is always computed so.
    ///
    /// # Errors
    /// As [`Scope::tensor`].
    pub(crate) fn tensor_fp32(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.tensor_as(name, shape, DType::F32)
    }

    /// The elements of tensor `name` in FP32, row-major, in the machine's own memory.
    ///
    /// # Errors
    /// As [`Scope::tensor`].
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let found = self.find(name, shape)?;
        Ok(self.read(name, &found)?.to_f32())
    }

    fn tensor_as(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, LoadError> {
        let found = self.find(name, shape)?;
        let floats = self.read(name, &found)?;
        floats.tensor(shape, dtype, self.weights.place.device()).map_err(|error| {
            let text = format!("tensor {}: it does not come to {}", self.quoted(name), self.weights.place.name());
            LoadError::new(LoadErrorKind::Engine, text).with_cause(error)
        })
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Found<'a>, LoadError> {
        let found = self.weights.shards.find(&self.full(name)).ok_or_else(|| {
            let text = format!("the weights have no tensor {}; expected one of shape {shape:?}", self.quoted(name));
            LoadError::new(LoadErrorKind::Invalid, text)
        })?;
        if found.shape != shape {
            let text = format!(
                "{}: tensor {}: expected shape {shape:?}, got {:?}",
                found.file,
                self.quoted(name),
                found.shape
            );
            return Err(LoadError::new(LoadErrorKind::Invalid, text));
        }
        Ok(found)
    }

    fn read(&self, name: &str, found: &Found<'a>) -> Result<Floats<'a>, LoadError> {
        Floats::new(found.dtype, found.data).ok_or_else(|| {
            let text = format!(
                "{}: tensor {}: expected FP32, FP16, BF16 or FP64, got {}",
                found.file,
                self.quoted(name),
                type_name(found.dtype)
            );
            LoadError::new(LoadErrorKind::Unsupported, text)
        })
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn quoted(&self, name: &str) -> String {
        Quoted(&self.full(name)).to_string()
    }
}

/// An element type of a file as facts and messages write it.
fn type_name(dtype: Dtype) -> String {
    match dtype {
        Dtype::F64 => "FP64".to_owned(),
        Dtype::F32 => "FP32".to_owned(),
        Dtype::F16 => "FP16".to_owned(),
        Dtype::BF16 => "BF16".to_owned(),
        Dtype::I64 => "INT64".to_owned(),
        Dtype::I32 => "INT32".to_owned(),
        Dtype::I8 => "INT8".to_owned(),
        Dtype::U8 => "UINT8".to_owned(),
        Dtype::BOOL => "BOOL".to_owned(),
        other => format!("{other:?}").to_uppercase(),
    }
}
