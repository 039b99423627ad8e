//! What the engine would open by itself: data of tensors in other files.
//!
//! The engine gets external files from memory, by the names that the file has, and only for the initializers of the
//! outermost graph. So every other tensor that says that its data lies elsewhere is refused, wherever it hides: in an
//! attribute, a graph inside one, a function, a sparse tensor. That is looked for by walking the message itself, since
//! what one reader passes over another may take seriously.

use std::collections::BTreeMap;
use std::ffi::CString;

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, ModelSource, Quoted};
use millrace_onnx::Model;

use crate::backend::refused;

/// The external files of `model`, read from `source`, under the names by which the engine asks for them.
///
/// # Errors
/// [`LoadError`] naming the tensor and what is wrong with where its data lies.
pub(crate) fn files(
    file: &str,
    bytes: &[u8],
    model: &Model<'_>,
    source: &ModelSource,
) -> Result<Vec<(CString, Bytes)>, LoadError> {
    let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, format!("{file}: {text}"));
    let marks = Marks::of(bytes).ok_or_else(|| invalid("not an ONNX model, or damaged".to_owned()))?;
    if let Some(text) = marks.misplaced {
        return Err(LoadError::new(LoadErrorKind::Unsupported, format!("{file}: {text}")));
    }
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut total = 0_u64;
    let mut found = 0;
    for tensor in model.graph().initializers() {
        let Some(external) = tensor.external().map_err(|error| refused(file, &error))? else { continue };
        found += 1;
        let place = format!("external data of the initializer {}", Quoted(tensor.name()));
        let name = external.location;
        let Some((_, size)) = source.files.list().iter().find(|(known, _)| known == name) else {
            let text = format!("{file}: {place}: there is no file {}", Quoted(name));
            return Err(LoadError::new(LoadErrorKind::Missing, text));
        };
        let length = external.length.or_else(|| tensor.n_bytes()).unwrap_or(0);
        if external.offset.checked_add(length).is_none_or(|end| end > *size) {
            let (quoted, offset) = (Quoted(name), external.offset);
            return Err(invalid(format!(
                "{place}: {length} bytes from {offset} on reach past the {size} bytes of {quoted}"
            )));
        }
        let is_wrong = external.length.is_some_and(|length| tensor.n_bytes().is_some_and(|bytes| bytes != length));
        if is_wrong {
            let bytes = tensor.n_bytes().unwrap_or(0);
            return Err(invalid(format!("{place}: {length} bytes; its shape and type ask for {bytes}")));
        }
        if files.contains_key(name) {
            continue;
        }
        total = total.saturating_add(*size);
        if total > source.memory_budget {
            let text = format!("{file}: external data of {total} bytes; the memory budget is {}", source.memory_budget);
            return Err(LoadError::new(LoadErrorKind::TooLarge, text));
        }
        let content = source.files.read(name).map_err(|error| {
            let text = format!("{file}: external data {} cannot be read: {}", Quoted(name), error.kind());
            LoadError::new(LoadErrorKind::Missing, text).with_cause(error)
        })?;
        files.insert(name.to_owned(), content);
    }
    if found != marks.initializers {
        return Err(invalid("the initializers do not agree on where their data lies".to_owned()));
    }
    let keyed = files.into_iter().map(|(name, content)| CString::new(name).map(|name| (name, content)));
    keyed.collect::<Result<_, _>>().map_err(|_| invalid("external data: a zero in a file's name".to_owned()))
}

/// Tensors that say that their data lies elsewhere.
#[derive(Debug, Default)]
struct Marks {
    /// How many initializers of the outermost graph do.
    initializers: usize,
    /// The first that is none of those, or that contradicts itself, in words.
    misplaced: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    /// The outermost graph or another one.
    Graph(bool),
    Node,
    Function,
    Attribute,
    Sparse,
    /// A tensor, and whether it is an initializer of the outermost graph.
    Tensor(bool),
}

impl Message {
    /// What field `number` of this message holds, where tensors may be inside.
    fn inside(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) => Self::Graph(true),
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph(false),
            (Self::Graph(_), 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph(outermost), 5) => Self::Tensor(outermost),
            (Self::Graph(_), 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor(false),
            _ => return None,
        })
    }
}

impl Marks {
    /// Walks a whole file; `None` where it is damaged.
    fn of(file: &[u8]) -> Option<Self> {
        let mut marks = Self::default();
        marks.walk(file, Message::Model, 0)?;
        Some(marks)
    }

    fn walk(&mut self, mut message: &[u8], kind: Message, depth: usize) -> Option<()> {
        /// Four messages per graph inside a graph; the reader has refused deeper ones by then.
        const DEEPEST: usize = 4 * millrace_onnx::MAX_GRAPH_DEPTH + 16;
        if depth > DEEPEST {
            return None;
        }
        if let Message::Tensor(outermost) = kind {
            return self.tensor(message, outermost);
        }
        while !message.is_empty() {
            let (number, value) = field(&mut message)?;
            if let (Some(inner), Some(body)) = (kind.inside(number), value.message()) {
                self.walk(body, inner, depth + 1)?;
            }
        }
        Some(())
    }

    fn tensor(&mut self, mut tensor: &[u8], outermost: bool) -> Option<()> {
        let (mut locations, mut entries, mut name) = (Vec::new(), [0_usize; 3], String::new());
        while !tensor.is_empty() {
            let (number, value) = field(&mut tensor)?;
            match (number, value) {
                (8, Field::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
                (14, Field::Number(location)) => locations.push(location),
                (14, Field::Bytes(_) | Field::Other) => locations.push(u64::MAX),
                (13, Field::Bytes(mut entry)) => {
                    while !entry.is_empty() {
                        if let (1, Field::Bytes(key)) = field(&mut entry)? {
                            let known = [&b"location"[..], b"offset", b"length"];
                            known.iter().position(|word| *word == key).into_iter().for_each(|at| entries[at] += 1);
                        }
                    }
                }
                _ => {}
            }
        }
        // Without a mark, or with the one that says "here", the entries mean nothing.
        if locations.iter().all(|location| *location == 0) {
            return Some(());
        }
        let what = if locations != [1] || entries.iter().any(|count| *count > 1) {
            Some("contradicts itself")
        } else if outermost {
            self.initializers += 1;
            None
        } else {
            Some("stands where this engine takes none: only initializers of the outermost graph may have it")
        };
        if let Some(what) = what {
            self.misplaced.get_or_insert_with(|| format!("external data of the tensor {} {what}", Quoted(&name)));
        }
        Some(())
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn message(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(body) => Some(body),
            Self::Number(_) | Self::Other => None,
        }
    }
}

/// The next field of a protobuf message: its number and value.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(message)?;
    let value = match tag & 7 {
        0 => Field::Number(varint(message)?),
        1 => {
            take(message, 8)?;
            Field::Other
        }
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            Field::Bytes(take(message, length)?)
        }
        5 => {
            take(message, 4)?;
            Field::Other
        }
        _ => return None,
    };
    // Field numbers have 29 bits; readers drop what is above.
    Some(((tag >> 3) & 0x1fff_ffff, value))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = message.split_at_checked(length)?;
    *message = tail;
    Some(head)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests;
