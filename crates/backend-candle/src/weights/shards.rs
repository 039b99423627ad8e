//! Which files the tensors lie in, and what their headers say.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, ModelSource, Quoted};
use millrace_huggingface::ShardIndex;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::type_name;
use crate::backend::refused;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All files of one model.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<Shard>,
    /// The shard that each tensor lies in.
    places: HashMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    file: String,
    bytes: Bytes,
    /// Where the tensors begin.
    start: usize,
    metadata: Metadata,
}

/// A tensor in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) file: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) data: &'a [u8],
}

impl Shards {
    /// The files of `folder`, which is empty or ends in `/`.
    pub(super) fn open(source: &ModelSource, folder: &str) -> Result<Self, LoadError> {
        let files = files(source, folder)?;
        let size =
            |file: &String| source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
        let total = files.iter().map(size).fold(0, u64::saturating_add);
        if total > source.memory_budget {
            let text = format!("the weights' files take {total} bytes; the memory budget is {}", source.memory_budget);
            return Err(LoadError::new(LoadErrorKind::TooLarge, text));
        }
        let shards = files.iter().map(|file| Shard::open(file, source)).collect::<Result<Vec<_>, _>>()?;
        let mut places = HashMap::new();
        for (index, shard) in shards.iter().enumerate() {
            for name in shard.metadata.offset_keys() {
                if let Some(other) = places.insert(name.clone(), index) {
                    let text =
                        format!("{}: tensor {} stands in {} as well", shard.file, Quoted(&name), shards[other].file);
                    return Err(LoadError::new(LoadErrorKind::Invalid, text));
                }
            }
        }
        Ok(Self { shards, places })
    }

    pub(super) fn find(&self, name: &str) -> Option<Found<'_>> {
        let shard = &self.shards[*self.places.get(name)?];
        let info = shard.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let data = shard.bytes.get(shard.start.checked_add(start)?..shard.start.checked_add(end)?)?;
        Some(Found { file: &shard.file, dtype: info.dtype, shape: &info.shape, data })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }

    pub(super) fn n_tensors(&self) -> usize {
        self.places.len()
    }

    /// Elements of all tensors of floating-point numbers.
    pub(super) fn n_floats(&self) -> u64 {
        let is_float = |found: &Found<'_>| matches!(found.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let size = |found: Found<'_>| (found.data.len() * 8 / found.dtype.bitsize()) as u64;
        self.all().filter(is_float).map(size).sum()
    }

    pub(super) fn bytes_by_type(&self) -> BTreeMap<String, u64> {
        let mut types = BTreeMap::new();
        for found in self.all() {
            *types.entry(type_name(found.dtype)).or_insert(0) += found.data.len() as u64;
        }
        types
    }

    fn all(&self) -> impl Iterator<Item = Found<'_>> {
        self.places.keys().filter_map(|name| self.find(name))
    }
}

impl Shard {
    fn open(file: &str, source: &ModelSource) -> Result<Self, LoadError> {
        let bytes = read(file, source)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            LoadError::new(LoadErrorKind::Invalid, format!("{file}: not a sound safetensors file: {error}"))
                .with_cause(error)
        })?;
        let start = header + size_of::<u64>();
        Ok(Self { file: file.to_owned(), bytes, start, metadata })
    }
}

fn read(file: &str, source: &ModelSource) -> Result<Bytes, LoadError> {
    source.files.read(file).map_err(|error| {
        let text = format!("{file}: it cannot be read: {}", error.kind());
        LoadError::new(LoadErrorKind::Missing, text).with_cause(error)
    })
}

/// The files of `folder` that hold the weights: `model.safetensors`, else those of the index, else the only one.
fn files(source: &ModelSource, folder: &str) -> Result<Vec<String>, LoadError> {
    let names = || source.files.list().iter().filter_map(|(name, _)| name.strip_prefix(folder));
    let full = |name: &str| format!("{folder}{name}");
    if names().any(|name| name == SINGLE) {
        return Ok(vec![full(SINGLE)]);
    }
    if names().any(|name| name == INDEX) {
        let file = full(INDEX);
        let index = ShardIndex::parse(&file, &read(&file, source)?).map_err(|error| refused(&error))?;
        return Ok(index.files().iter().map(|name| full(name)).collect());
    }
    let found: Vec<&str> = names().filter(|name| name.ends_with(".safetensors") && !name.contains('/')).collect();
    match found.as_slice() {
        [file] => Ok(vec![full(file)]),
        [] => Err(LoadError::new(LoadErrorKind::Missing, format!("no weights: expected {folder}{SINGLE}"))),
        _ => {
            let text = format!(
                "which weights? expected {folder}{SINGLE}, or {folder}{INDEX} for several files; got {}",
                found.join(", ")
            );
            Err(LoadError::new(LoadErrorKind::Invalid, text))
        }
    }
}
