//! The tensors of one or several files, by name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use millrace_core::Quoted;

/// How a file writes the elements of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Fp64,
    Fp32,
    Fp16,
    Bf16,
    /// Blocks of quantised numbers with a scale for each.
    Blocks(GgmlDType),
    /// Something else, by its name.
    Other(String),
}

impl Kind {
    /// As facts and messages write it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Fp64 => "FP64".to_owned(),
            Self::Fp32 => "FP32".to_owned(),
            Self::Fp16 => "FP16".to_owned(),
            Self::Bf16 => "BF16".to_owned(),
            Self::Blocks(dtype) => format!("{dtype:?}").replace('K', "_K"),
            Self::Other(name) => name.clone(),
        }
    }
}

/// All tensors of one model.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    files: Vec<(String, Bytes)>,
    places: HashMap<String, Placed>,
}

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct Placed {
    /// Which of the files.
    pub(super) file: usize,
    pub(super) kind: Kind,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// A tensor in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) file: &'a str,
    pub(super) kind: &'a Kind,
    pub(super) shape: &'a [usize],
    pub(super) data: &'a [u8],
}

impl Tensors {
    /// Adds a file and gives its number.
    pub(super) fn file(&mut self, name: String, content: Bytes) -> usize {
        self.files.push((name, content));
        self.files.len() - 1
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// What is wrong where it reaches out of its file or its name is taken.
    pub(super) fn place(&mut self, name: &str, placed: Placed) -> Result<(), String> {
        let (_, content) = &self.files[placed.file];
        if content.get(placed.range.clone()).is_none() {
            let (name, end) = (Quoted(name), placed.range.end);
            return Err(format!("tensor {name} would end at byte {end}, the file at {}", content.len()));
        }
        match self.places.insert(name.to_owned(), placed) {
            None => Ok(()),
            Some(other) => Err(format!("tensor {} stands in {} as well", Quoted(name), self.files[other.file].0)),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Found<'_>> {
        self.places.get(name).and_then(|placed| self.found(placed))
    }

    fn found<'a>(&'a self, placed: &'a Placed) -> Option<Found<'a>> {
        let (file, content) = self.files.get(placed.file)?;
        let data = content.get(placed.range.clone())?;
        Some(Found { file, kind: &placed.kind, shape: &placed.shape, data })
    }

    /// All of them with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Found<'_>)> {
        self.places.iter().filter_map(|(name, placed)| Some((name.as_str(), self.found(placed)?)))
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|(_, content)| content.len() as u64).sum()
    }

    pub(super) fn bytes_by_kind(&self) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for (_, found) in self.all() {
            *kinds.entry(found.kind.name()).or_insert(0) += found.data.len() as u64;
        }
        kinds
    }
}
