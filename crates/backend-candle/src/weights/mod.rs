//! Named, checked access to the tensors of safetensors and GGUF files.
//!
//! A header is believed only where it agrees with the file's length; a tensor is handed out only in the shape that the
//! network asks for. What is too large is refused before it is copied.

mod convert;
mod found;
mod gguf;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_core::quantized::QTensor;
use millrace_core::{LoadError, LoadErrorKind, ModelSource, Quoted};

use crate::cpu::Store;
use crate::device::Place;
use crate::options::Precision;
use found::{Found, Kind, Tensors};

pub(crate) use gguf::Metadata;

/// The tensors of one model, in the precision and place that it computes in.
#[derive(Debug)]
pub(crate) struct Weights {
    tensors: Tensors,
    place: Place,
    precision: Precision,
    /// Bytes that all tensors take as they are kept.
    kept: u64,
}

/// The names of tables whose rows are looked up.
type Tables = &'static [&'static str];

impl Weights {
    /// Reads the headers of the safetensors files in the version's folder. Without a `precision`, that is FP32 on the CPU and
    /// elsewhere the one that most of the files' bytes have.
    ///
    /// # Errors
    /// [`LoadError`] for files that are absent, damaged or, together with the tensors made from them, larger than the memory
    /// budget.
    pub(crate) fn open(source: &ModelSource, place: &Place, precision: Option<Precision>) -> Result<Self, LoadError> {
        let tensors = shards::read(source, "")?;
        let precision = precision.unwrap_or_else(|| default_precision(place, &tensors.bytes_by_kind()));
        Self::of(tensors, source, place, precision, (&[], 0))
    }

    /// Those of `folder`, which ends in `/`, in the same precision and place, while these and `more` bytes are held.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub(crate) fn open_beside(&self, source: &ModelSource, folder: &str, more: u64) -> Result<Self, LoadError> {
        let taken = self.needed().saturating_add(more);
        Self::of(shards::read(source, folder)?, source, &self.place, self.precision, (&[], taken))
    }

    /// Reads the header of the GGUF file `file`, which says about the model what `config.json` says in a folder. Blocks of
    /// the tables called `tables` are kept as plain numbers on a card, where no row can be looked up in blocks.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub(crate) fn open_gguf(
        source: &ModelSource,
        file: &str,
        place: &Place,
        precision: Option<Precision>,
        tables: Tables,
    ) -> Result<(Self, Metadata), LoadError> {
        let (tensors, metadata) = gguf::read(source, file)?;
        let precision = precision.unwrap_or_else(|| default_precision(place, &tensors.bytes_by_kind()));
        Ok((Self::of(tensors, source, place, precision, (tables, 0))?, metadata))
    }

    /// `taken` are bytes that other weights of the model need meanwhile.
    fn of(
        tensors: Tensors,
        source: &ModelSource,
        place: &Place,
        precision: Precision,
        (tables, taken): (Tables, u64),
    ) -> Result<Self, LoadError> {
        let is_widened =
            |name: &str, found: &Found<'_>| found.shape.len() < 2 || (!place.is_cpu() && tables.contains(&name));
        let bytes = |(name, found): (&str, Found<'_>)| kept(&found, precision, is_widened(name, &found)) as u64;
        let kept = tensors.all().map(bytes).fold(0, u64::saturating_add);
        let weights = Self { tensors, place: place.clone(), precision, kept };
        let need = weights.needed().saturating_add(taken);
        if need > source.memory_budget {
            let beside =
                if taken > 0 { format!(", {taken} of them for the model's other weights") } else { String::new() };
            let text = format!(
                "the weights take {kept} bytes in {}, and {need} while they load{beside}; the memory budget is {}",
                precision.name(),
                source.memory_budget
            );
            return Err(LoadError::new(LoadErrorKind::TooLarge, text));
        }
        place.hold_weights(kept)?;
        Ok(weights)
    }

    /// Bytes while they load: the files' and those of all tensors.
    fn needed(&self) -> u64 {
        self.tensors.file_bytes().saturating_add(self.kept)
    }

    /// The precision that tensors come in.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Where tensors lie.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Bytes that all tensors take as they are kept.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.kept
    }

    /// Bytes of tensors in the files by element type, as [`ModelFacts`](millrace_core::ModelFacts) has them.
    pub(crate) fn bytes_by_type(&self) -> BTreeMap<String, u64> {
        self.tensors.bytes_by_kind()
    }

    /// The tensors below no prefix.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }
}

/// Bytes that a tensor takes as it is kept: blocks as they are, unless they are made plain numbers.
fn kept(found: &Found<'_>, precision: Precision, is_widened: bool) -> usize {
    let (bytes, size) = (found.data.len(), precision.dtype().size_in_bytes());
    match found.kind {
        Kind::Blocks(dtype) if is_widened => bytes / dtype.type_size() * dtype.block_size() * size,
        Kind::Blocks(_) => bytes,
        Kind::Fp64 => bytes / 8 * size,
        Kind::Fp32 => bytes / 4 * size,
        Kind::Fp16 | Kind::Bf16 => bytes / 2 * size,
        Kind::Other(_) => 0,
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
    /// The tensors below `part`, such as `encoder.layer.0`; those of this scope itself where it is empty.
    pub(crate) fn at(&self, part: impl std::fmt::Display) -> Self {
        let part = part.to_string();
        let dot = if part.is_empty() { "" } else { "." };
        Self { weights: self.weights, prefix: format!("{}{part}{dot}", self.prefix) }
    }

    /// The weights that this is a part of.
    pub(crate) fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// Whether there is a tensor called `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.tensors.find(&self.full(name)).is_some()
    }

    /// The first of `names` that there is, or else the first.
    pub(crate) fn either<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().copied().find(|name| self.has(name)).unwrap_or(names[0])
    }

    /// How many layers there are beyond the `used` first of those called `part.0`, `part.1` and so on. To name fewer in the
    /// configuration is a usual way to shorten a network, and `transformers` loads it with a warning; so does this.
    pub(crate) fn unused_layers(&self, part: &str, used: usize, source: &ModelSource) -> usize {
        let number = |name: &str| name.strip_prefix(part)?.strip_prefix('.')?.split('.').next()?.parse().ok();
        let last: Option<usize> = self.names().filter_map(number).max();
        let unused = last.map_or(0, |last| last.saturating_add(1)).saturating_sub(used);
        if unused > 0 {
            warn_of_unused(source, used, unused);
        }
        unused
    }

    /// The names of all tensors here, without the scope's own.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.weights.tensors.all().filter_map(|(name, _)| name.strip_prefix(&*self.prefix))
    }

    /// The shape of tensor `name`, where there is one.
    pub(crate) fn shape_of(&self, name: &str) -> Option<&'a [usize]> {
        self.weights.tensors.find(&self.full(name)).map(|found| found.shape)
    }

    /// The tensor `name`, of just this shape, in the weights' precision and place.
    ///
    /// # Errors
    /// [`LoadError`] where it is not there, has another shape, or is not of numbers that weights can be.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let (precision, device) = (self.weights.precision, self.weights.place.device());
        self.made(name, shape, |found| convert::tensor(found, precision, device))
    }

    /// The elements of tensor `name` in FP32, row-major, in the machine's own memory.
    ///
    /// # Errors
    /// As [`Scope::tensor`].
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.made(name, shape, convert::to_f32)
    }

    /// Tensor `name` as the CPU keeps it.
    ///
    /// # Errors
    /// As [`Scope::tensor`].
    pub(crate) fn store(&self, name: &str, shape: &[usize]) -> Result<Store, LoadError> {
        self.made(name, shape, |found| convert::store(found, self.weights.precision))
    }

    /// Tensor `name` as blocks in the weights' place, or `None` where the file has plain numbers.
    ///
    /// # Errors
    /// As [`Scope::tensor`].
    pub(crate) fn quantised(&self, name: &str, shape: &[usize]) -> Result<Option<QTensor>, LoadError> {
        self.made(name, shape, |found| convert::quantised(found, self.weights.place.device()).map(Some))
    }

    fn made<T>(
        &self,
        name: &str,
        shape: &[usize],
        make: impl FnOnce(&Found<'a>) -> candle_core::Result<Option<T>>,
    ) -> Result<T, LoadError> {
        let name = self.full(name);
        let quoted = Quoted(&name);
        let found = self.weights.tensors.find(&name).ok_or_else(|| {
            let text = format!("the weights have no tensor {quoted}; expected one of shape {shape:?}");
            LoadError::new(LoadErrorKind::Invalid, text)
        })?;
        if found.shape != shape {
            let text = format!("{}: tensor {quoted}: expected shape {shape:?}, got {:?}", found.file, found.shape);
            return Err(LoadError::new(LoadErrorKind::Invalid, text));
        }
        let made = make(&found)
            .map_err(|error| self.weights.place.load_failed(&format!("{}: tensor {quoted}", found.file), error))?;
        made.ok_or_else(|| {
            let text = format!(
                "{}: tensor {quoted}: expected FP32, FP16, BF16 or FP64, got {}",
                found.file,
                found.kind.name()
            );
            LoadError::new(LoadErrorKind::Unsupported, text)
        })
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Logs that beside the `used` layers of a network its weights have `unused` ones.
pub(crate) fn warn_of_unused(source: &ModelSource, used: usize, unused: usize) {
    tracing::warn!(
        model = %source.model, version = source.version, used, unused,
        "the weights have more layers than the configuration names; the last ones are not used"
    );
}
