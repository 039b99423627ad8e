//! Which safetensors files a folder's tensors lie in, and what their headers say.

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, ModelSource};
use millrace_huggingface::ShardIndex;
use safetensors::{Dtype, SafeTensors};

use super::found::{Kind, Placed, Tensors};
use crate::backend::refused;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of the safetensors files of `folder`, which is empty or ends in `/`.
///
/// # Errors
/// [`LoadError`] for files that are absent, damaged, too large for the budget or do not fit one another.
pub(super) fn read(source: &ModelSource, folder: &str) -> Result<Tensors, LoadError> {
    let files = files(source, folder)?;
    let size = |file: &String| source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
    let total = files.iter().map(size).fold(0, u64::saturating_add);
    if total > source.memory_budget {
        let text = format!("the weights' files take {total} bytes; the memory budget is {}", source.memory_budget);
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    let mut tensors = Tensors::default();
    for file in files {
        let content = content(&file, source)?;
        add(&mut tensors, &file, content)?;
    }
    Ok(tensors)
}

fn add(tensors: &mut Tensors, file: &str, content: Bytes) -> Result<(), LoadError> {
    // Refuses headers that are no JSON, tensors that overlap, leave gaps or differ from their shape, and files that are
    // shorter or longer than their tensors.
    let (header, metadata) = SafeTensors::read_metadata(&content).map_err(|error| {
        LoadError::new(LoadErrorKind::Invalid, format!("{file}: not a sound safetensors file: {error}"))
            .with_cause(error)
    })?;
    let start = header + size_of::<u64>();
    let number = tensors.file(file.to_owned(), content);
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (begin, end) = info.data_offsets;
        let range = start.saturating_add(begin)..start.saturating_add(end);
        let placed = Placed { file: number, kind: kind(info.dtype), shape: info.shape.clone(), range };
        let refused = |detail| LoadError::new(LoadErrorKind::Invalid, format!("{file}: {detail}"));
        tensors.place(&name, placed).map_err(refused)?;
    }
    Ok(())
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Fp64,
        Dtype::F32 => Kind::Fp32,
        Dtype::F16 => Kind::Fp16,
        Dtype::BF16 => Kind::Bf16,
        Dtype::I64 => Kind::Other("INT64".to_owned()),
        Dtype::I32 => Kind::Other("INT32".to_owned()),
        Dtype::I16 => Kind::Other("INT16".to_owned()),
        Dtype::I8 => Kind::Other("INT8".to_owned()),
        Dtype::U8 => Kind::Other("UINT8".to_owned()),
        other => Kind::Other(format!("{other:?}").to_uppercase()),
    }
}

/// The content of `file`.
///
/// # Errors
/// [`LoadErrorKind::Missing`] where it cannot be read.
pub(super) fn content(file: &str, source: &ModelSource) -> Result<Bytes, LoadError> {
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
        let index = ShardIndex::parse(&file, &content(&file, source)?).map_err(|error| refused(&error))?;
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
