//! Writes a `PredictResponse` by hand: numbers that look in protobuf as they do in memory stay where they are and become
//! pieces of the answer.

use std::mem::take;

use bytes::{BufMut, Bytes};
use millrace_core::{DType, Refusal, Tensor};
use millrace_protocol::tfs::data_type_number;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::body::Pieces;
use crate::reply::{Reply, begin};

/// Bytes. Smaller tensors are copied: a piece of its own costs more than so many bytes.
const COPY_BELOW: usize = 8 << 10;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberForm {
    /// In the list of their dtype, where hand-written clients look for them.
    Lists,
    /// All in one, as they are in memory.
    Content,
}

/// An answer to be written.
pub(super) struct Answer<'a> {
    pub(super) model: &'a str,
    pub(super) version: u64,
    pub(super) signature: &'a str,
    pub(super) outputs: Vec<Output<'a>>,
}

/// One output of an answer.
pub(super) struct Output<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    values: Values<'a>,
    shape_len: usize,
    /// Of the `TensorProto`.
    len: usize,
}

/// How a tensor's elements are written.
enum Values<'a> {
    /// There are none.
    Nothing,
    /// As they are in memory, in this field.
    Raw(u8, &'a Bytes),
    /// As numbers of seven bits a byte, of this length, in the field with this key.
    Varints(u16, usize),
    /// Each in a field of its own.
    Strings,
}

impl<'a> Output<'a> {
    /// The output `name`, which is `tensor`.
    pub(super) fn new(name: &'a str, tensor: &'a Tensor, form: NumberForm) -> Self {
        let values = values(tensor, form);
        let shape_len = tensor.shape().iter().map(|size| field_len(size_len(*size))).sum();
        // The dtype's number is below 128.
        let len = 2 + field_len(shape_len) + values.len(tensor);
        Self { name, tensor, values, shape_len, len }
    }

    /// Of the entry in the map of outputs, without key and length.
    fn entry_len(&self) -> usize {
        field_len(self.name.len()) + field_len(self.len)
    }

    /// Bytes that stay where they are.
    fn kept(&self) -> usize {
        match &self.values {
            Values::Raw(_, bytes) if bytes.len() >= COPY_BELOW => bytes.len(),
            Values::Nothing | Values::Raw(..) | Values::Varints(..) | Values::Strings => 0,
        }
    }

    fn put(&self, buffer: &mut Vec<u8>, pieces: &mut Pieces) {
        key(buffer, 1, self.entry_len());
        key(buffer, 1, self.name.len());
        buffer.put_slice(self.name.as_bytes());
        key(buffer, 2, self.len);
        buffer.put_u8(1 << 3);
        encode_varint(number_of(self.tensor.dtype()), buffer);
        key(buffer, 2, self.shape_len);
        for &size in &**self.tensor.shape() {
            key(buffer, 2, size_len(size));
            if size > 0 {
                buffer.put_u8(1 << 3);
                encode_varint(size as u64, buffer);
            }
        }
        match &self.values {
            Values::Nothing => {}
            Values::Raw(number, bytes) => {
                key(buffer, *number, bytes.len());
                if bytes.len() < COPY_BELOW {
                    buffer.put_slice(bytes);
                } else {
                    pieces.push(Bytes::from(take(buffer)));
                    pieces.push(Bytes::clone(bytes));
                }
            }
            Values::Varints(key, len) => {
                encode_varint(u64::from(*key), buffer);
                encode_varint(*len as u64, buffer);
                for_each_number(self.tensor, |number| encode_varint(number, buffer));
            }
            Values::Strings => {
                for string in self.tensor.strings().into_iter().flat_map(millrace_core::Strings::iter) {
                    key(buffer, 8, string.len());
                    buffer.put_slice(string);
                }
            }
        }
    }
}

impl Answer<'_> {
    /// The answer as a message.
    ///
    /// # Errors
    /// `TooLarge` when it does not fit the four bytes of its length.
    pub(super) fn write(&self) -> Result<Reply, Refusal> {
        let version_len = if self.version == 0 { 0 } else { 1 + encoded_len_varint(self.version) };
        let spec_len = field_len(self.model.len()) + field_len(version_len) + field_len(self.signature.len());
        let outputs: usize = self.outputs.iter().map(|output| field_len(output.entry_len())).sum();
        let length = outputs + field_len(spec_len);
        let kept: usize = self.outputs.iter().map(Output::kept).sum();

        let mut pieces = Pieces::new();
        let mut buffer = begin(length, length - kept)?;
        for output in &self.outputs {
            output.put(&mut buffer, &mut pieces);
        }
        key(&mut buffer, 2, spec_len);
        key(&mut buffer, 1, self.model.len());
        buffer.put_slice(self.model.as_bytes());
        key(&mut buffer, 2, version_len);
        if self.version > 0 {
            buffer.put_u8(1 << 3);
            encode_varint(self.version, &mut buffer);
        }
        key(&mut buffer, 3, self.signature.len());
        buffer.put_slice(self.signature.as_bytes());
        pieces.push(Bytes::from(buffer));
        Ok(Reply::from_pieces(pieces))
    }
}

/// About how many bytes writing `tensor` reads and writes.
pub(super) fn weight(tensor: &Tensor, form: NumberForm) -> usize {
    match (tensor.dtype(), form) {
        (DType::Fp32 | DType::Fp64 | DType::Bool, _) => 0,
        (DType::Bytes, _) | (_, NumberForm::Lists) => tensor.n_bytes(),
        (_, NumberForm::Content) => 0,
    }
}

fn values(tensor: &Tensor, form: NumberForm) -> Values<'_> {
    const VARINTS: u16 = 2;
    let Some(bytes) = tensor.bytes() else { return Values::Strings };
    if bytes.is_empty() {
        return Values::Nothing;
    }
    let list = |number: u16| Values::Varints(number << 3 | VARINTS, varints_len(tensor));
    match (form, tensor.dtype()) {
        (NumberForm::Content, _) => Values::Raw(4, bytes),
        (NumberForm::Lists, DType::Fp32) => Values::Raw(5, bytes),
        (NumberForm::Lists, DType::Fp64) => Values::Raw(6, bytes),
        (NumberForm::Lists, DType::Bool) => Values::Raw(11, bytes),
        (NumberForm::Lists, DType::Int32 | DType::Int16 | DType::Int8 | DType::Uint8 | DType::Uint16) => list(7),
        (NumberForm::Lists, DType::Int64) => list(10),
        (NumberForm::Lists, DType::Fp16 | DType::Bf16) => list(13),
        (NumberForm::Lists, DType::Uint32) => list(16),
        (NumberForm::Lists, DType::Uint64) => list(17),
        (NumberForm::Lists, DType::Bytes) => Values::Strings,
    }
}

impl Values<'_> {
    /// With key and length.
    fn len(&self, tensor: &Tensor) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Raw(_, bytes) => field_len(bytes.len()),
            Self::Varints(key, len) => encoded_len_varint(u64::from(*key)) + encoded_len_varint(*len as u64) + len,
            Self::Strings => {
                let strings = tensor.strings().into_iter().flat_map(millrace_core::Strings::iter);
                strings.map(|string| field_len(string.len())).sum()
            }
        }
    }
}

fn varints_len(tensor: &Tensor) -> usize {
    let mut len = 0;
    for_each_number(tensor, |number| len += encoded_len_varint(number));
    len
}

/// Visits whole numbers, and the bits of 16-bit floats, as protobuf sees them: signed ones in 64 bits.
fn for_each_number(tensor: &Tensor, mut visit: impl FnMut(u64)) {
    let bytes = tensor.bytes().map_or(&[][..], |bytes| bytes);
    macro_rules! each {
        ($type:ty) => {
            bytes.as_chunks().0.iter().for_each(|chunk| visit(<$type>::from_le_bytes(*chunk).into()))
        };
        ($type:ty, signed) => {
            bytes
                .as_chunks()
                .0
                .iter()
                .for_each(|chunk| visit(i64::from(<$type>::from_le_bytes(*chunk)).cast_unsigned()))
        };
    }
    match tensor.dtype() {
        DType::Bool | DType::Uint8 => each!(u8),
        DType::Uint16 | DType::Fp16 | DType::Bf16 => each!(u16),
        DType::Uint32 => each!(u32),
        DType::Uint64 => each!(u64),
        DType::Int8 => each!(i8, signed),
        DType::Int16 => each!(i16, signed),
        DType::Int32 => each!(i32, signed),
        DType::Int64 => each!(i64, signed),
        DType::Fp32 | DType::Fp64 | DType::Bytes => {}
    }
}

fn number_of(dtype: DType) -> u64 {
    u64::from(data_type_number(dtype).unsigned_abs())
}

/// The key and the length of field `number`, which holds `length` bytes. All numbers of such fields are below 16.
fn key(buffer: &mut Vec<u8>, number: u8, length: usize) {
    buffer.put_u8(number << 3 | 2);
    encode_varint(length as u64, buffer);
}

/// A field of `length` bytes with its key and its length.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Of one axis: its size, which is left out where it is 0.
fn size_len(size: usize) -> usize {
    if size == 0 { 0 } else { 1 + encoded_len_varint(size as u64) }
}
