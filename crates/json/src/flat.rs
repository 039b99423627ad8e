//! A tensor whose elements come as lists, nested in any way: only their order counts, and the shape stands elsewhere.

use std::sync::Arc;

use millrace_core::{DType, Shape, Tensor, TensorError, TensorSpec};

use super::column::{Sink, StringSink, capacity};
use super::cursor::Cursor;
use super::error::{Fault, Index, JsonError, value_here};
use super::number::Leaf;

/// Reads the list at `cursor`. `depth` is how many containers are open and how many may be.
pub(crate) fn tensor(
    cursor: &mut Cursor<'_>,
    spec: &TensorSpec,
    shape: Option<&Shape>,
    depth: (usize, usize),
) -> Result<Tensor, JsonError> {
    cursor.space();
    if cursor.peek() != Some(b'[') {
        let (value, _) = value_here(cursor);
        return Err(JsonError::NotAList { input: Arc::clone(&spec.name), value });
    }
    let reading = Reading { spec, shape, depth };
    match spec.dtype {
        DType::Bool => reading.numbers::<bool>(cursor),
        DType::Uint8 => reading.numbers::<u8>(cursor),
        DType::Uint16 => reading.numbers::<u16>(cursor),
        DType::Uint32 => reading.numbers::<u32>(cursor),
        DType::Uint64 => reading.numbers::<u64>(cursor),
        DType::Int8 => reading.numbers::<i8>(cursor),
        DType::Int16 => reading.numbers::<i16>(cursor),
        DType::Int32 => reading.numbers::<i32>(cursor),
        DType::Int64 => reading.numbers::<i64>(cursor),
        DType::Fp32 => reading.numbers::<f32>(cursor),
        DType::Fp64 => reading.numbers::<f64>(cursor),
        DType::Bytes => {
            let mut strings = StringSink::text_only();
            let n_read = reading.leaves(cursor, &mut strings)?;
            reading.finish(n_read, |sizes| strings.finish(sizes))
        }
        dtype @ (DType::Fp16 | DType::Bf16) => {
            let (value, _) = value_here(cursor);
            Err(JsonError::Unsupported { input: Arc::clone(&spec.name), value, dtype })
        }
    }
}

struct Reading<'a> {
    spec: &'a TensorSpec,
    shape: Option<&'a Shape>,
    depth: (usize, usize),
}

impl Reading<'_> {
    fn numbers<T: Leaf>(&self, cursor: &mut Cursor<'_>) -> Result<Tensor, JsonError> {
        let room = match self.shape {
            // An element takes at least two bytes: itself and a comma.
            Some(shape) => shape.n_elements().min((cursor.text.len() - cursor.at) / 2 + 1),
            None => capacity(self.spec, cursor),
        };
        let mut elements: Vec<T> = Vec::with_capacity(room);
        let n_read = self.leaves(cursor, &mut elements)?;
        self.finish(n_read, |sizes| Tensor::from_vec(sizes, elements))
    }

    /// How many elements were read.
    fn leaves<S: Sink>(&self, cursor: &mut Cursor<'_>, sink: &mut S) -> Result<usize, JsonError> {
        let (open, max_depth) = self.depth;
        let expected = self.shape.map_or(usize::MAX, |shape| shape.n_elements());
        let mut n_read = 0;
        let end = leaves(cursor, sink, max_depth.saturating_sub(open), expected, &mut n_read);
        let count = |got: String| JsonError::Count { input: Arc::clone(&self.spec.name), expected, got };
        match end {
            Ok(true) if n_read == expected || self.shape.is_none() => Ok(n_read),
            Ok(true) => Err(count(n_read.to_string())),
            Ok(false) => Err(count("more".to_owned())),
            Err(fault) => Err(self.error(cursor, fault, n_read)),
        }
    }

    #[cold]
    fn error(&self, cursor: &Cursor<'_>, fault: Fault, n_read: usize) -> JsonError {
        if !matches!(fault, Fault::Type | Fault::Range) {
            return JsonError::syntax(cursor, fault, self.depth.1);
        }
        let (value, kind) = value_here(cursor);
        JsonError::Element {
            input: Arc::clone(&self.spec.name),
            index: Index([n_read].into()),
            value,
            kind,
            expected: self.spec.dtype,
            is_out_of_range: fault == Fault::Range,
        }
    }

    fn finish(
        &self,
        n_read: usize,
        tensor: impl FnOnce(&[usize]) -> Result<Tensor, TensorError>,
    ) -> Result<Tensor, JsonError> {
        let flat = [n_read];
        let sizes = self.shape.map_or(&flat[..], |shape| &shape[..]);
        tensor(sizes).map_err(|error| JsonError::Tensor { input: Arc::clone(&self.spec.name), error })
    }
}

/// Reads the value at the cursor, lists at most `levels` deep, and hands its leaves to `sink`; false once there are more
/// than `most`, with the cursor at the first that is too many. An open list costs a count, not a stack frame.
#[inline]
fn leaves<S: Sink>(
    cursor: &mut Cursor<'_>,
    sink: &mut S,
    levels: usize,
    most: usize,
    n_read: &mut usize,
) -> Result<bool, Fault> {
    let mut depth = 0;
    loop {
        if cursor.peek_value()? == b'[' {
            if depth == levels {
                return Err(Fault::Depth);
            }
            if cursor.open(b'[', b']')? {
                depth += 1;
                continue;
            }
        } else {
            if *n_read == most {
                return Ok(false);
            }
            sink.leaf(cursor)?;
            *n_read += 1;
        }
        loop {
            if depth == 0 {
                return Ok(true);
            }
            if cursor.another(b']')? {
                break;
            }
            depth -= 1;
        }
    }
}
