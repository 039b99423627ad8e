//! Answers as JSON text: one buffer, written front to back, nothing allocated per element.
//!
//! Outputs with another number of rows for each instance are cut in `ragged`.
//!
//! Floats are the shortest text that reads back as the same number, and always look like floats: `3.0`, never `3`. Not
//! a number and the infinities are the bare tokens `NaN`, `Infinity` and `-Infinity`, as TensorFlow Serving writes them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use millrace_core::{DType, Element, Strings, Tensor, TensorSpec};
use smallvec::SmallVec;

use crate::Form;
use crate::error::JsonError;

mod ragged;

/// What stands around the outputs, and how much all of it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) form: Form,
    pub(crate) before: &'a [u8],
    pub(crate) after: &'a [u8],
    /// The most bytes.
    pub(crate) limit: usize,
}

/// Writes the whole body.
pub(crate) fn body(envelope: Envelope<'_>, specs: &[TensorSpec], outputs: &[Tensor]) -> Result<Vec<u8>, JsonError> {
    let Envelope { form, limit, .. } = envelope;
    if specs.len() != outputs.len() {
        return Err(JsonError::Outputs { expected: specs.len(), got: outputs.len() });
    }
    if specs.iter().any(|spec| spec.ragged_by.is_some()) {
        return ragged::body(envelope, specs, outputs);
    }
    let columns = specs.iter().zip(outputs).map(Column::new).collect::<Result<SmallVec<[_; 2]>, _>>()?;
    let n_rows = match form {
        Form::Rows => rows(columns.iter().map(|column| (column.spec, column.sizes)))?,
        Form::Columns => 0,
    };
    // A tensor without elements is free whatever its sizes, its text is not: `[2^40,0]` is a terabyte of brackets.
    let names = columns.iter().map(|column| column.spec.name.len() + 3).sum::<usize>().saturating_mul(n_rows);
    let least = columns.iter().map(Column::least_len).fold(names, usize::saturating_add);
    if least > limit {
        return Err(JsonError::AnswerTooLarge { limit });
    }
    let names = columns.iter().map(|column| column.spec.name.len() + 8).sum::<usize>().saturating_mul(n_rows.max(1));
    let guess = columns.iter().map(Column::text_len).fold(names, usize::saturating_add);
    envelope.around(guess, |text| match (form, &*columns) {
        (_, [only]) => only.write(text),
        (Form::Columns, several) => object(text, named(several), |text, column| column.write(text)),
        (Form::Rows, several) => {
            list(text, 0..n_rows, |text, row| object(text, named(several), |text, column| column.write_row(text, row)))
        }
    })
}

impl Envelope<'_> {
    /// The whole body around what `write` writes, about `guess` bytes.
    fn around(
        self,
        guess: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), JsonError>,
    ) -> Result<Vec<u8>, JsonError> {
        let Self { before, after, limit, .. } = self;
        let guess = guess.saturating_add(before.len()).saturating_add(after.len()).saturating_add(32);
        let mut text = Vec::with_capacity(guess.min(limit));
        text.extend_from_slice(before);
        write(&mut text)?;
        text.extend_from_slice(after);
        if text.len() > limit { Err(JsonError::AnswerTooLarge { limit }) } else { Ok(text) }
    }
}

/// Appends the elements of `tensor` as one list; strings as strings, whatever the output is called.
pub(crate) fn elements(text: &mut Vec<u8>, spec: &TensorSpec, tensor: &Tensor, limit: usize) -> Result<(), JsonError> {
    let sizes = [tensor.shape().n_elements()];
    let mut column = Column { sizes: &sizes, ..Column::new((spec, tensor))? };
    if let Some(strings) = tensor.strings() {
        column.elements = Elements::Text(strings);
    }
    let room = limit.saturating_sub(text.len());
    if column.least_len() > room {
        return Err(JsonError::AnswerTooLarge { limit });
    }
    text.reserve(column.text_len().min(room));
    column.write(text)?;
    if text.len() > limit { Err(JsonError::AnswerTooLarge { limit }) } else { Ok(()) }
}

/// The number of rows that all outputs share.
fn rows<'a>(outputs: impl Iterator<Item = (&'a TensorSpec, &'a [usize])>) -> Result<usize, JsonError> {
    let mut shared = None;
    for (spec, sizes) in outputs {
        let output = || Arc::clone(&spec.name);
        let got = *sizes.first().ok_or_else(|| JsonError::NoRows { output: output() })?;
        let expected = *shared.get_or_insert(got);
        if got != expected {
            return Err(JsonError::Rows { output: output(), expected, got });
        }
    }
    Ok(shared.unwrap_or(0))
}

/// One output: its elements in their own type, looked up once rather than at each row.
struct Column<'a> {
    spec: &'a TensorSpec,
    sizes: &'a [usize],
    elements: Elements<'a>,
}

enum Elements<'a> {
    Bool(Cow<'a, [bool]>),
    Uint8(Cow<'a, [u8]>),
    Uint16(Cow<'a, [u16]>),
    Uint32(Cow<'a, [u32]>),
    Uint64(Cow<'a, [u64]>),
    Int8(Cow<'a, [i8]>),
    Int16(Cow<'a, [i16]>),
    Int32(Cow<'a, [i32]>),
    Int64(Cow<'a, [i64]>),
    Fp32(Cow<'a, [f32]>),
    Fp64(Cow<'a, [f64]>),
    Text(&'a Strings),
    Base64(&'a Strings),
}

impl<'a> Column<'a> {
    fn new((spec, tensor): (&'a TensorSpec, &'a Tensor)) -> Result<Self, JsonError> {
        let unwritable = || JsonError::OutputType { output: Arc::clone(&spec.name), dtype: tensor.dtype() };
        let elements = match tensor.dtype() {
            DType::Bool => tensor.elements().map(Elements::Bool),
            DType::Uint8 => tensor.elements().map(Elements::Uint8),
            DType::Uint16 => tensor.elements().map(Elements::Uint16),
            DType::Uint32 => tensor.elements().map(Elements::Uint32),
            DType::Uint64 => tensor.elements().map(Elements::Uint64),
            DType::Int8 => tensor.elements().map(Elements::Int8),
            DType::Int16 => tensor.elements().map(Elements::Int16),
            DType::Int32 => tensor.elements().map(Elements::Int32),
            DType::Int64 => tensor.elements().map(Elements::Int64),
            DType::Fp32 => tensor.elements().map(Elements::Fp32),
            DType::Fp64 => tensor.elements().map(Elements::Fp64),
            DType::Fp16 | DType::Bf16 => return Err(unwritable()),
            DType::Bytes => {
                let strings = tensor.strings().ok_or_else(unwritable)?;
                let is_base64 = spec.name.ends_with("_bytes");
                Ok(if is_base64 { Elements::Base64(strings) } else { Elements::Text(strings) })
            }
        };
        Ok(Self { spec, sizes: tensor.shape(), elements: elements.map_err(|_| unwritable())? })
    }

    /// The shortest text that the tensor has.
    fn least_len(&self) -> usize {
        self.least_of(self.sizes)
    }

    /// The shortest text that tensors of `sizes` have: brackets, commas, the least of each element.
    fn least_of(&self, sizes: &[usize]) -> usize {
        let (mut lists, mut bytes) = (1_usize, 0_usize);
        for &n in sizes {
            bytes = bytes.saturating_add(lists.saturating_mul(n.saturating_add(1).max(2)));
            lists = lists.saturating_mul(n);
        }
        let element = match &self.elements {
            Elements::Bool(_) => 4,
            Elements::Fp32(_) | Elements::Fp64(_) => 3,
            Elements::Text(_) => 2,
            Elements::Base64(_) => 10,
            Elements::Uint8(_)
            | Elements::Uint16(_)
            | Elements::Uint32(_)
            | Elements::Uint64(_)
            | Elements::Int8(_)
            | Elements::Int16(_)
            | Elements::Int32(_)
            | Elements::Int64(_) => 1,
        };
        bytes.saturating_add(lists.saturating_mul(element))
    }

    /// A guess at the length of the text, on the high side of what values between 0 and 1 take.
    fn text_len(&self) -> usize {
        let n_elements: usize = self.sizes.iter().product();
        let payload = |strings: &Strings| strings.payload().len();
        let width = match &self.elements {
            Elements::Uint8(_) | Elements::Int8(_) => 5,
            Elements::Bool(_) | Elements::Uint16(_) | Elements::Int16(_) => 7,
            Elements::Uint32(_) | Elements::Int32(_) => 8,
            Elements::Uint64(_) | Elements::Int64(_) => 12,
            Elements::Fp32(_) => 13,
            Elements::Fp64(_) => 22,
            Elements::Text(strings) => return 3 * n_elements + payload(strings) + payload(strings) / 8,
            Elements::Base64(strings) => return 16 * n_elements + payload(strings) / 3 * 4,
        };
        width * n_elements + 2 * n_elements / self.sizes.last().copied().unwrap_or(1).max(1) + 2
    }

    fn write(&self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        self.nested(text, self.sizes, 0)
    }

    fn write_row(&self, text: &mut Vec<u8>, row: usize) -> Result<(), JsonError> {
        let sizes = self.row_sizes();
        self.nested(text, sizes, row * sizes.iter().product::<usize>())
    }

    /// The axes but the first.
    fn row_sizes(&self) -> &'a [usize] {
        self.sizes.get(1..).unwrap_or_default()
    }

    fn nested(&self, text: &mut Vec<u8>, sizes: &[usize], from: usize) -> Result<(), JsonError> {
        match &self.elements {
            Elements::Bool(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Uint8(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Uint16(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Uint32(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Uint64(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Int8(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Int16(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Int32(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Int64(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Fp32(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Fp64(elements) => numbers(text, sizes, &elements[from..]),
            Elements::Text(strings) => return self.strings(text, sizes, strings, from),
            Elements::Base64(strings) => nest(text, sizes, from, &mut |text, at, n| {
                list_of(text, (at..at + n).filter_map(|index| strings.get(index)), base64);
            }),
        }
        Ok(())
    }

    fn strings(&self, text: &mut Vec<u8>, sizes: &[usize], strings: &Strings, from: usize) -> Result<(), JsonError> {
        let mut is_text = true;
        nest(text, sizes, from, &mut |text, at, n| {
            list_of(
                text,
                (at..at + n).filter_map(|index| strings.get(index)),
                |text, bytes| match std::str::from_utf8(bytes) {
                    Ok(value) => string(text, value),
                    Err(_) => is_text = false,
                },
            );
        });
        if is_text { Ok(()) } else { Err(JsonError::OutputText { output: Arc::clone(&self.spec.name) }) }
    }
}

/// Writes one number.
pub(crate) fn float(text: &mut Vec<u8>, number: f32) {
    number.write(text);
}

/// Writes numbers as one list.
pub(crate) fn floats(text: &mut Vec<u8>, numbers: &[f32]) {
    text.reserve(numbers.len().saturating_mul(12));
    text.push(b'[');
    list_of(text, numbers, |text, number| number.write(text));
    text.push(b']');
}

fn numbers<T: Number>(text: &mut Vec<u8>, sizes: &[usize], elements: &[T]) {
    nest(text, sizes, 0, &mut |text, at, n| {
        list_of(text, &elements[at..at + n], |text, element| element.write(text));
    });
}

/// Writes the brackets of a tensor of `sizes`, outermost first. `innermost(text, at, n)` writes the `n` elements from
/// `at` on with commas between them. As deep as the tensor's rank, which is bounded.
fn nest(text: &mut Vec<u8>, sizes: &[usize], at: usize, innermost: &mut dyn FnMut(&mut Vec<u8>, usize, usize)) {
    match sizes {
        [] => innermost(text, at, 1),
        [n] => {
            text.push(b'[');
            innermost(text, at, *n);
            text.push(b']');
        }
        [n, inner @ ..] => {
            let width = inner.iter().product::<usize>();
            text.push(b'[');
            list_of(text, 0..*n, |text, index| nest(text, inner, at + index * width, innermost));
            text.push(b']');
        }
    }
}

/// Writes items with commas between them.
#[inline]
fn list_of<I: IntoIterator>(text: &mut Vec<u8>, items: I, mut write: impl FnMut(&mut Vec<u8>, I::Item)) {
    let mut is_first = true;
    for item in items {
        if !is_first {
            text.push(b',');
        }
        is_first = false;
        write(text, item);
    }
}

/// Writes an item for each index of `range`, in brackets.
fn list(
    text: &mut Vec<u8>,
    range: Range<usize>,
    mut write: impl FnMut(&mut Vec<u8>, usize) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    text.push(b'[');
    let first = range.start;
    for index in range {
        if index > first {
            text.push(b',');
        }
        write(text, index)?;
    }
    text.push(b']');
    Ok(())
}

/// Writes an object of keys and what `write` writes for each.
fn object<'a, T>(
    text: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, T)>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    text.push(b'{');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        string(text, key);
        text.push(b':');
        write(text, value)?;
    }
    text.push(b'}');
    Ok(())
}

/// Columns as members of an object.
fn named<'c, 'a>(columns: &'c [Column<'a>]) -> impl Iterator<Item = (&'c str, &'c Column<'a>)> {
    columns.iter().map(|column| (&*column.spec.name, column))
}

/// An element that is written without quotes.
trait Number: Element + Copy {
    fn write(self, text: &mut Vec<u8>);
}

impl Number for bool {
    fn write(self, text: &mut Vec<u8>) {
        text.extend_from_slice(if self { b"true" } else { b"false" });
    }
}

macro_rules! numbers {
    (integers: $($integer:ty),*; floats: $($float:ty),*) => {
        $(impl Number for $integer {
            #[inline]
            fn write(self, text: &mut Vec<u8>) {
                text.extend_from_slice(itoa::Buffer::new().format(self).as_bytes());
            }
        })*
        $(impl Number for $float {
            #[inline]
            fn write(self, text: &mut Vec<u8>) {
                if self.is_finite() {
                    text.extend_from_slice(zmij::Buffer::new().format_finite(self).as_bytes());
                } else {
                    text.extend_from_slice(token(self.is_nan(), self > 0.0));
                }
            }
        })*
    };
}

numbers!(integers: u8, u16, u32, u64, i8, i16, i32, i64; floats: f32, f64);

#[cold]
fn token(is_nan: bool, is_positive: bool) -> &'static [u8] {
    match (is_nan, is_positive) {
        (true, _) => b"NaN",
        (false, true) => b"Infinity",
        (false, false) => b"-Infinity",
    }
}

/// Writes a quoted and escaped string.
pub(crate) fn string(text: &mut Vec<u8>, value: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    text.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(plain) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        text.extend_from_slice(&rest[..plain]);
        match rest[plain] {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            b'\t' => text.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => text.extend_from_slice(&[b'\\', byte]),
            byte => {
                text.extend_from_slice(b"\\u00");
                text.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        rest = &rest[plain + 1..];
    }
    text.extend_from_slice(rest);
    text.push(b'"');
}

fn base64(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(b"{\"b64\":\"");
    // Doubling, as the encoder itself asks for exactly what it needs.
    text.reserve(bytes.len() / 3 * 4 + 8);
    base64_simd::STANDARD.encode_append(bytes, text);
    text.extend_from_slice(b"\"}");
}
