//! GGUF files: what stands in front of the tensors, and the tensors themselves.
//!
//! The layout is that of the specification in ggml's repository (docs/gguf.md), versions 2 and 3. Of the metadata, single values
//! are kept and lists are only skipped: a vocabulary is none of an engine's business.

use std::collections::BTreeMap;

use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use millrace_core::{LoadError, LoadErrorKind, ModelSource, Quoted};

use super::found::{Kind, Placed, Tensors};

/// What a file says about its model, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metadata(BTreeMap<String, Value>);

/// A single value; flags are 0 and 1. Lists are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Whole(i128),
    Float(f64),
    Text(String),
}

impl Metadata {
    /// The whole number of `key`, if it is one that fits.
    pub(crate) fn size(&self, key: &str) -> Option<usize> {
        if let Some(Value::Whole(number)) = self.0.get(key) { usize::try_from(*number).ok() } else { None }
    }

    /// The number of `key`.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        if let Some(Value::Float(number)) = self.0.get(key) { Some(*number) } else { None }
    }

    /// The text of `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        if let Some(Value::Text(text)) = self.0.get(key) { Some(text) } else { None }
    }
}

/// More of either than any file has.
const MOST_ENTRIES: u64 = 1 << 20;
const MOST_AXES: u32 = 4;
/// Lists of lists are allowed, and nobody writes them.
const MOST_NESTED: usize = 4;

/// Reads `file`.
///
/// # Errors
/// [`LoadError`] where it is absent, damaged or larger than the budget.
pub(super) fn read(source: &ModelSource, file: &str) -> Result<(Tensors, Metadata), LoadError> {
    let size = source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
    if size > source.memory_budget {
        let text = format!("{file}: {size} bytes; the memory budget is {}", source.memory_budget);
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    let content = super::shards::content(file, source)?;
    parse(file, &content).map_err(|(kind, detail)| LoadError::new(kind, format!("{file}: {detail}")))
}

type Fault = (LoadErrorKind, String);

fn damaged(detail: impl Into<String>) -> Fault {
    (LoadErrorKind::Invalid, detail.into())
}

fn parse(file: &str, content: &Bytes) -> Result<(Tensors, Metadata), Fault> {
    let mut reader = Reader { rest: content, total: content.len() };
    if reader.take(4)? != b"GGUF" {
        return Err(damaged("not a GGUF file: its first bytes are not `GGUF`"));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err((
            LoadErrorKind::Unsupported,
            format!("GGUF version {version} does not load here; expected 2 or 3"),
        ));
    }
    let (n_tensors, n_entries) = (reader.u64()?, reader.u64()?);
    if n_tensors > MOST_ENTRIES || n_entries > MOST_ENTRIES {
        return Err(damaged(format!("{n_tensors} tensors and {n_entries} entries; at most {MOST_ENTRIES} of each")));
    }
    let mut metadata = Metadata::default();
    for _ in 0..n_entries {
        let key = reader.text()?;
        let kind = reader.u32()?;
        if let Some(value) = reader.value(kind, 0)? {
            metadata.0.insert(key, value);
        }
    }
    let mut infos = Vec::new();
    for _ in 0..n_tensors {
        infos.push(reader.info()?);
    }
    let alignment = metadata.size("general.alignment").unwrap_or(32);
    if alignment == 0 || !alignment.is_multiple_of(8) {
        return Err(damaged(format!("`general.alignment` is {alignment}; expected a multiple of 8")));
    }
    let start = (content.len() - reader.rest.len()).next_multiple_of(alignment);
    let mut tensors = Tensors::default();
    let number = tensors.file(file.to_owned(), content.clone());
    for info in infos {
        let overflow = || damaged(format!("tensor {}: its size or place does not fit", Quoted(&info.name)));
        let elements = info.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let elements = elements.ok_or_else(overflow)?;
        let block = info.dtype.block_size();
        if !info.shape.last().copied().unwrap_or(1).is_multiple_of(block) {
            let text = format!(
                "tensor {}: rows of {:?} come in blocks of {block}, got shape {:?}",
                Quoted(&info.name),
                info.dtype,
                info.shape
            );
            return Err(damaged(text));
        }
        let bytes = (elements / block).checked_mul(info.dtype.type_size()).ok_or_else(overflow)?;
        let offset = usize::try_from(info.offset).map_err(|_| overflow())?;
        let begin = start.checked_add(offset).ok_or_else(overflow)?;
        let range = begin..begin.checked_add(bytes).ok_or_else(overflow)?;
        let kind = match info.dtype {
            GgmlDType::F32 => Kind::Fp32,
            GgmlDType::F16 => Kind::Fp16,
            GgmlDType::BF16 => Kind::Bf16,
            blocks => Kind::Blocks(blocks),
        };
        let placed = Placed { file: number, kind, shape: info.shape, range };
        tensors.place(&info.name, placed).map_err(damaged)?;
    }
    Ok((tensors, metadata))
}

struct Info {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    dtype: GgmlDType,
    offset: u64,
}

/// What has not been read yet.
struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else {
            let at = self.total - self.rest.len();
            return Err(damaged(format!(
                "it ends at byte {}, where {count} more from byte {at} on were expected",
                self.total
            )));
        };
        self.rest = tail;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Fault> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// A value of the kind that the specification gives this number, or `None` for a list.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<Value>, Fault> {
        Ok(Some(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.bytes()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Whole(u32::from_le_bytes(self.bytes()?).into()),
            5 => Value::Whole(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Whole((self.bytes::<1>()? != [0]).into()),
            8 => Value::Text(self.text()?),
            9 => {
                self.skip_list(depth)?;
                return Ok(None);
            }
            10 => Value::Whole(u64::from_le_bytes(self.bytes()?).into()),
            11 => Value::Whole(i64::from_le_bytes(self.bytes()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => return Err(damaged(format!("metadata of the kind {other}; kinds are 0 to 12"))),
        }))
    }

    fn skip_list(&mut self, depth: usize) -> Result<(), Fault> {
        if depth == MOST_NESTED {
            return Err(damaged(format!("lists are nested more than {MOST_NESTED} deep")));
        }
        let kind = self.u32()?;
        let length = self.u64()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => {
                // Each takes some bytes, so that the file's end stops a length that is too large.
                for _ in 0..length {
                    match kind {
                        8 => self.skip_text()?,
                        9 => self.skip_list(depth + 1)?,
                        other => return Err(damaged(format!("a list of the kind {other}; kinds are 0 to 12"))),
                    }
                }
                return Ok(());
            }
        };
        let bytes = usize::try_from(length).ok().and_then(|length| length.checked_mul(size)).unwrap_or(usize::MAX);
        self.take(bytes).map(|_| ())
    }

    fn skip_text(&mut self) -> Result<(), Fault> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.take(length).map(|_| ())
    }

    fn info(&mut self) -> Result<Info, Fault> {
        let name = self.text()?;
        let axes = self.u32()?;
        if !(1..=MOST_AXES).contains(&axes) {
            return Err(damaged(format!("tensor {}: {axes} axes; expected 1 to {MOST_AXES}", Quoted(&name))));
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            shape.push(usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let number = self.u32()?;
        let dtype = dtype(number).ok_or_else(|| {
            let known = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";
            let text =
                format!("tensor {}: ggml's type {number} does not load here; those that do: {known}", Quoted(&name));
            (LoadErrorKind::Unsupported, text)
        })?;
        Ok(Info { name, shape, dtype, offset: self.u64()? })
    }
}

/// The type that ggml gives this number (ggml.h, `enum ggml_type`), of those that weights are written in and candle knows.
fn dtype(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
