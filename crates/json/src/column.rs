//! One input being filled: nested JSON arrays in, one flat typed vector and a shape out.
//!
//! Memory follows the body, never a declared shape: the first guess at a vector's size is bounded by the bytes that are
//! left to read, and after that a vector grows as elements arrive.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{DType, Dim, MAX_RANK, Strings, Tensor, TensorError, TensorSpec};
use smallvec::SmallVec;

use crate::cursor::Cursor;
use crate::error::{Fault, Index, JsonError, value_here};
use crate::number::Leaf;

/// One input of the signature and what has been read of it.
pub(crate) struct Column<'s> {
    spec: &'s TensorSpec,
    nest: Nest,
    elements: Elements,
    /// Values read: rows in row form, at most one otherwise.
    n_values: usize,
}

enum Elements {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Strings(StringSink),
}

impl<'s> Column<'s> {
    /// An empty column for `spec`, about to read the value at `cursor`, nested at most `levels` arrays deep.
    pub(crate) fn new(spec: &'s TensorSpec, cursor: &Cursor<'_>, levels: usize) -> Result<Self, JsonError> {
        let room = capacity(spec, cursor);
        let elements = match spec.dtype {
            DType::Bool => Elements::Bool(Vec::with_capacity(room)),
            DType::Uint8 => Elements::Uint8(Vec::with_capacity(room)),
            DType::Uint32 => Elements::Uint32(Vec::with_capacity(room)),
            DType::Uint64 => Elements::Uint64(Vec::with_capacity(room)),
            DType::Int8 => Elements::Int8(Vec::with_capacity(room)),
            DType::Int16 => Elements::Int16(Vec::with_capacity(room)),
            DType::Int32 => Elements::Int32(Vec::with_capacity(room)),
            DType::Int64 => Elements::Int64(Vec::with_capacity(room)),
            DType::Fp32 => Elements::Fp32(Vec::with_capacity(room)),
            DType::Fp64 => Elements::Fp64(Vec::with_capacity(room)),
            DType::Bytes => Elements::Strings(StringSink { payload: Vec::new(), offsets: vec![0], takes_base64: true }),
            dtype @ (DType::Uint16 | DType::Fp16 | DType::Bf16) => {
                let (value, _) = value_here(cursor);
                return Err(JsonError::Unsupported { input: Arc::clone(&spec.name), value, dtype });
            }
        };
        Ok(Self { spec, nest: Nest::new(levels), elements, n_values: 0 })
    }

    pub(crate) fn spec(&self) -> &'s TensorSpec {
        self.spec
    }

    pub(crate) fn n_values(&self) -> usize {
        self.n_values
    }

    /// Reads the value at the cursor: an element, or arrays of them shaped like the values before.
    pub(crate) fn read(&mut self, cursor: &mut Cursor<'_>, row: Option<usize>) -> Result<(), JsonError> {
        let nest = &mut self.nest;
        let read = match &mut self.elements {
            Elements::Bool(elements) => nest.read(cursor, elements),
            Elements::Uint8(elements) => nest.read(cursor, elements),
            Elements::Uint32(elements) => nest.read(cursor, elements),
            Elements::Uint64(elements) => nest.read(cursor, elements),
            Elements::Int8(elements) => nest.read(cursor, elements),
            Elements::Int16(elements) => nest.read(cursor, elements),
            Elements::Int32(elements) => nest.read(cursor, elements),
            Elements::Int64(elements) => nest.read(cursor, elements),
            Elements::Fp32(elements) => nest.read(cursor, elements),
            Elements::Fp64(elements) => nest.read(cursor, elements),
            Elements::Strings(elements) => nest.read(cursor, elements),
        };
        self.n_values += 1;
        read.map_err(|fault| self.error(cursor, fault, row))
    }

    /// The tensor: of the shape of the one value read, or with an axis in front that counts the `rows`.
    pub(crate) fn finish(self, rows: Option<usize>) -> Result<Tensor, JsonError> {
        let mut sizes = SmallVec::<[usize; 8]>::new();
        sizes.extend(rows);
        sizes.extend(self.nest.sizes());
        let tensor = match self.elements {
            Elements::Bool(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Uint8(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Uint32(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Uint64(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Int8(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Int16(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Int32(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Int64(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Fp32(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Fp64(elements) => Tensor::from_vec(&sizes, elements),
            Elements::Strings(elements) => elements.finish(&sizes),
        };
        tensor.map_err(|error| JsonError::Tensor { input: Arc::clone(&self.spec.name), error })
    }

    #[cold]
    fn error(&self, cursor: &Cursor<'_>, fault: Fault, row: Option<usize>) -> JsonError {
        let input = Arc::clone(&self.spec.name);
        let index = Index(row.into_iter().chain(self.nest.place()).collect());
        let (value, kind) = value_here(cursor);
        match fault {
            Fault::Type | Fault::Range => {
                let (expected, is_out_of_range) = (self.spec.dtype, fault == Fault::Range);
                JsonError::Element { input, index, value, kind, expected, is_out_of_range }
            }
            Fault::Base64 => JsonError::Base64 { input, index, value },
            Fault::Ragged => {
                let (expected, got) = self.nest.disagreement();
                let (expected, got) = (format!("{expected} elements"), got.to_string());
                JsonError::Ragged { input, index, expected, got }
            }
            Fault::Level if kind == "Array" => {
                JsonError::Ragged { input, index, expected: "a single value".to_owned(), got: value }
            }
            Fault::Level => JsonError::Ragged { input, index, expected: "an array".to_owned(), got: value },
            Fault::Rank => JsonError::Tensor {
                input,
                error: TensorError::Shape(millrace_core::ShapeError::Rank { rank: MAX_RANK + 1 }),
            },
            Fault::End
            | Fault::Unexpected
            | Fault::Number
            | Fault::Control
            | Fault::Escape
            | Fault::Utf8
            | Fault::Depth => JsonError::syntax(cursor, fault, self.nest.levels),
        }
    }
}

/// How many elements to make room for: those that the signature declares for one row, or as many as could still follow.
pub(crate) fn capacity(spec: &TensorSpec, cursor: &Cursor<'_>) -> usize {
    let declared = spec.shape.iter().fold(1_usize, |product, dim| match dim {
        Dim::Fixed(size) => product.saturating_mul(*size),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => product,
    });
    // An element takes at least two bytes: itself and a comma.
    declared.min((cursor.text.len() - cursor.at) / 2 + 1)
}

/// The shape that nested arrays turn out to have. The first branch decides; every other must agree.
struct Nest {
    /// The number of axes, known from the first leaf or empty array on.
    rank: Option<usize>,
    /// For each axis its size, [`UNKNOWN`] until its first array has ended, and how many elements have been read of
    /// the array that is or was open there last.
    axes: SmallVec<[Axis; 4]>,
    /// How many arrays are open.
    depth: usize,
    /// The most that may be.
    levels: usize,
}

#[derive(Debug, Clone, Copy)]
struct Axis {
    size: usize,
    count: usize,
}

const UNKNOWN: usize = usize::MAX;

/// Where the leaves go.
pub(crate) trait Sink {
    /// Reads one element at the cursor.
    fn leaf(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault>;
}

impl Nest {
    fn new(levels: usize) -> Self {
        Self { rank: None, axes: SmallVec::new(), depth: 0, levels }
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.axes.iter().map(|axis| axis.size)
    }

    /// The indices of the element that is being read.
    fn place(&self) -> impl Iterator<Item = usize> {
        self.axes[..self.depth].iter().map(|axis| axis.count)
    }

    /// The size that the array which has just ended should have had, and the one it has.
    fn disagreement(&self) -> (usize, usize) {
        let axis = self.axes[self.depth];
        (axis.size, axis.count)
    }

    /// Reads one value. An open array costs a counter, not a stack frame.
    fn read<S: Sink>(&mut self, cursor: &mut Cursor<'_>, sink: &mut S) -> Result<(), Fault> {
        self.depth = 0;
        loop {
            if cursor.peek_value()? == b'[' {
                if self.open(cursor)? {
                    continue;
                }
            } else if *self.rank.get_or_insert(self.depth) != self.depth {
                return Err(Fault::Level);
            } else if self.depth == 0 {
                return sink.leaf(cursor);
            } else {
                self.innermost(cursor, sink)?;
                self.close()?;
            }
            loop {
                let Some(axis) = self.depth.checked_sub(1) else { return Ok(()) };
                self.axes[axis].count += 1;
                if cursor.another(b']')? {
                    break;
                }
                self.close()?;
            }
        }
    }

    /// Moves into an array; says whether it has elements. An empty one is closed at once.
    fn open(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
        if self.rank.is_some_and(|rank| self.depth >= rank) {
            return Err(Fault::Level);
        }
        if self.depth >= self.levels {
            return Err(Fault::Depth);
        }
        if self.depth >= MAX_RANK {
            return Err(Fault::Rank);
        }
        let has_elements = cursor.open(b'[', b']')?;
        match self.axes.get_mut(self.depth) {
            Some(axis) => axis.count = 0,
            None => self.axes.push(Axis { size: UNKNOWN, count: 0 }),
        }
        self.depth += 1;
        if !has_elements {
            // Nothing inside says how many axes there are, so there are as many as there are brackets.
            self.rank.get_or_insert(self.depth);
            self.close()?;
        }
        Ok(has_elements)
    }

    /// Leaves the innermost open array, whose elements have been counted.
    fn close(&mut self) -> Result<(), Fault> {
        self.depth -= 1;
        let axis = &mut self.axes[self.depth];
        if axis.size == UNKNOWN {
            axis.size = axis.count;
        }
        if axis.size == axis.count { Ok(()) } else { Err(Fault::Ragged) }
    }

    /// Reads the elements of an innermost array and its closing bracket: the loop that all the time is spent in.
    #[inline]
    fn innermost<S: Sink>(&mut self, cursor: &mut Cursor<'_>, sink: &mut S) -> Result<(), Fault> {
        let mut count = 0;
        let end = loop {
            if let Err(fault) = sink.leaf(cursor) {
                break Err(if fault == Fault::Type && cursor.peek() == Some(b'[') { Fault::Level } else { fault });
            }
            count += 1;
            match cursor.another(b']') {
                Ok(true) => cursor.space(),
                Ok(false) => break Ok(()),
                Err(fault) => break Err(fault),
            }
        };
        self.axes[self.depth - 1].count = count;
        end
    }
}

impl<T: Leaf> Sink for Vec<T> {
    #[inline]
    fn leaf(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        self.push(T::read(cursor)?);
        Ok(())
    }
}

/// Byte strings, back to back.
pub(crate) struct StringSink {
    payload: Vec<u8>,
    offsets: Vec<usize>,
    takes_base64: bool,
}

impl Sink for StringSink {
    fn leaf(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        match cursor.peek() {
            Some(b'"') => cursor.string()?.append_to(&mut self.payload),
            Some(b'{') if self.takes_base64 => {
                let mut ahead = *cursor;
                let text = ahead.base64_object().ok_or(Fault::Type)?;
                decode_base64(&text.bytes(), &mut self.payload)?;
                *cursor = ahead;
            }
            _ => return Err(Fault::Type),
        }
        self.offsets.push(self.payload.len());
        Ok(())
    }
}

impl StringSink {
    /// Empty, for strings that are written as strings and in no other way.
    pub(crate) fn text_only() -> Self {
        Self { payload: Vec::new(), offsets: vec![0], takes_base64: false }
    }

    pub(crate) fn finish(self, sizes: &[usize]) -> Result<Tensor, TensorError> {
        let strings = Strings::new(Bytes::from(self.payload), self.offsets).expect("offsets follow the payload");
        Tensor::from_strings(sizes, strings)
    }
}

/// Appends decoded base64: the standard alphabet, with its padding or without any.
fn decode_base64(text: &[u8], payload: &mut Vec<u8>) -> Result<(), Fault> {
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        _ => text,
    };
    // Doubling, as the decoder itself asks for exactly what it needs and many short strings would copy again and again.
    payload.reserve(bare.len());
    base64_simd::STANDARD_NO_PAD.decode_append(bare, payload).map_err(|_| Fault::Base64)
}
