//! Tensors whose elements stand in typed lists: counted first, then converted once into a buffer of their size. Lists
//! that look in protobuf as they do in memory are slices of the message.

use std::fmt::Display;

use bytes::Bytes;
use millrace_core::{DType, Element, Reason, Refusal, Shape, Strings, Tensor, TensorSpec};
use millrace_protocol::tfs::Bare;

use super::request::for_each_varint;
use crate::wire::{Fields, Value, WireError, count_varints};

/// The lists by field number, from 1.
const LISTS: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

/// The list that holds elements of `dtype`, if any does.
fn list_of(dtype: DType) -> Option<u32> {
    match dtype {
        DType::Bool => Some(1),
        DType::Int8 | DType::Int16 | DType::Int32 => Some(2),
        DType::Int64 => Some(3),
        DType::Uint8 | DType::Uint16 | DType::Uint32 => Some(4),
        DType::Uint64 => Some(5),
        DType::Fp32 => Some(6),
        DType::Fp64 => Some(7),
        DType::Bytes => Some(8),
        DType::Fp16 | DType::Bf16 => None,
    }
}

/// The tensor of `spec` and `shape` whose elements are in `contents`, a part of `message`.
///
/// # Errors
/// `InvalidInput` when they stand in another list or in two, or there are more or fewer than the shape wants.
pub(super) fn tensor(message: &Bytes, contents: &[u8], spec: &TensorSpec, shape: &Shape) -> Result<Tensor, Refusal> {
    let refuse = |why: String| Refusal::new(Reason::InvalidInput, format!("input '{}': {why}", Bare(&spec.name)));
    let dtype = spec.dtype;
    let list = list_of(dtype)
        .ok_or_else(|| refuse(format!("elements of {dtype} have no typed list; send them in raw_input_contents")))?;
    let found = List::find(contents, list).map_err(|fault| match fault {
        Fault::Wire(error) => error.refusal(),
        Fault::Other(number) => {
            let name = |number: u32| LISTS[number as usize - 1];
            refuse(format!("elements of {dtype} belong in {}, got some in {}", name(list), name(number)))
        }
    })?;
    let expected = shape.n_elements();
    if found.count != expected {
        return Err(refuse(format!("expected {expected} elements, got {}", found.count)));
    }
    let integers = found.integers(shape, &refuse);
    match dtype {
        DType::Fp32 | DType::Fp64 | DType::Bool if found.is_as_in_memory(dtype) => {
            let bytes = found.only.map(|bytes| message.slice_ref(bytes)).unwrap_or_default();
            Tensor::new(dtype, shape.clone(), bytes).map_err(|error| refuse(error.to_string()))
        }
        DType::Bool => {
            let mut elements = Vec::with_capacity(expected);
            found.each(|number, value| for_each_varint(number, value, |value| elements.push(value != 0)))?;
            Tensor::from_vec(shape, elements).map_err(|error| refuse(error.to_string()))
        }
        DType::Fp32 => {
            let mut elements = Vec::with_capacity(expected);
            found.each(|number, value| match value {
                Value::Fixed32(bytes) => {
                    elements.push(f32::from_le_bytes(bytes));
                    Ok(())
                }
                Value::Bytes(packed) => {
                    let (chunks, _) = packed.as_chunks();
                    elements.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
                    Ok(())
                }
                Value::Varint(_) | Value::Fixed64(_) => Err(WireError::Form(number)),
            })?;
            Tensor::from_vec(shape, elements).map_err(|error| refuse(error.to_string()))
        }
        DType::Fp64 => {
            let mut elements = Vec::with_capacity(expected);
            found.each(|number, value| match value {
                Value::Fixed64(bytes) => {
                    elements.push(f64::from_le_bytes(bytes));
                    Ok(())
                }
                Value::Bytes(packed) => {
                    let (chunks, _) = packed.as_chunks();
                    elements.extend(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)));
                    Ok(())
                }
                Value::Varint(_) | Value::Fixed32(_) => Err(WireError::Form(number)),
            })?;
            Tensor::from_vec(shape, elements).map_err(|error| refuse(error.to_string()))
        }
        DType::Bytes => {
            let mut payload = Vec::with_capacity(found.bytes);
            let mut offsets = Vec::with_capacity(expected + 1);
            offsets.push(0);
            found.each(|number, value| {
                payload.extend_from_slice(value.bytes(number)?);
                offsets.push(payload.len());
                Ok(())
            })?;
            let strings = Strings::new(Bytes::from(payload), offsets);
            let strings = strings.ok_or_else(|| refuse("the strings do not fit".to_owned()))?;
            Tensor::from_strings(shape, strings).map_err(|error| refuse(error.to_string()))
        }
        DType::Int8 => integers.signed::<i8>(),
        DType::Int16 => integers.signed::<i16>(),
        DType::Int32 => integers.signed::<i32>(),
        DType::Int64 => integers.signed::<i64>(),
        DType::Uint8 => integers.unsigned::<u8>(),
        DType::Uint16 => integers.unsigned::<u16>(),
        DType::Uint32 => integers.unsigned::<u32>(),
        DType::Uint64 => integers.unsigned::<u64>(),
        DType::Fp16 | DType::Bf16 => Err(refuse(format!("elements of {dtype} have no typed list"))),
    }
}

/// One list among the contents.
struct List<'m> {
    contents: &'m [u8],
    number: u32,
    count: usize,
    /// Of all its fields, keys and lengths left out.
    bytes: usize,
    /// Its bytes, where it is packed and in one piece.
    only: Option<&'m [u8]>,
}

enum Fault {
    Wire(WireError),
    /// There is something in the list of this number too.
    Other(u32),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl<'m> List<'m> {
    /// Counts the elements of list `wanted`, and sees that no other has any.
    fn find(contents: &'m [u8], wanted: u32) -> Result<Self, Fault> {
        let mut list = Self { contents, number: wanted, count: 0, bytes: 0, only: None };
        let mut pieces = 0;
        let mut fields = Fields::new(contents);
        while let Some((number, value)) = fields.next()? {
            let count = match (number, value) {
                (8, Value::Bytes(_)) => 1,
                (1..=5, Value::Varint(_)) | (6, Value::Fixed32(_)) | (7, Value::Fixed64(_)) => 1,
                (1..=5, Value::Bytes(packed)) => count_varints(packed),
                (6, Value::Bytes(packed)) if packed.len() % 4 == 0 => packed.len() / 4,
                (7, Value::Bytes(packed)) if packed.len() % 8 == 0 => packed.len() / 8,
                (1..=8, _) => return Err(Fault::Wire(WireError::Form(number))),
                (_, _) => continue,
            };
            if count > 0 && number != wanted {
                return Err(Fault::Other(number));
            }
            list.count += count;
            pieces += usize::from(count > 0);
            if let Value::Bytes(bytes) = value {
                list.bytes += bytes.len();
                list.only = Some(bytes).filter(|_| count > 0 && number != 8).or(list.only);
            }
        }
        list.only = list.only.filter(|_| pieces == 1);
        Ok(list)
    }

    /// Whether its bytes are those that a tensor of `dtype` has.
    fn is_as_in_memory(&self, dtype: DType) -> bool {
        // A list that is empty is as it may be.
        let Some(bytes) = self.only else { return self.count == 0 };
        dtype != DType::Bool || bytes.iter().all(|&byte| byte <= 1)
    }

    fn each(&self, mut visit: impl FnMut(u32, Value<'m>) -> Result<(), WireError>) -> Result<(), WireError> {
        let mut fields = Fields::new(self.contents);
        while let Some((number, value)) = fields.next()? {
            if number == self.number {
                visit(number, value)?;
            }
        }
        Ok(())
    }

    fn integers<'a, R: Fn(String) -> Refusal>(&'a self, shape: &'a Shape, refuse: &'a R) -> Integers<'a, R> {
        Integers { list: self, shape, refuse }
    }
}

/// A list of whole numbers on its way to a tensor.
struct Integers<'a, R> {
    list: &'a List<'a>,
    shape: &'a Shape,
    refuse: &'a R,
}

impl<R: Fn(String) -> Refusal> Integers<'_, R> {
    fn signed<T: Element + TryFrom<i64>>(&self) -> Result<Tensor, Refusal> {
        self.tensor::<i64, T>(u64::cast_signed)
    }

    fn unsigned<T: Element + TryFrom<u64>>(&self) -> Result<Tensor, Refusal> {
        self.tensor::<u64, T>(|value| value)
    }

    fn tensor<N: Display, T: Element + TryFrom<N>>(&self, read: fn(u64) -> N) -> Result<Tensor, Refusal> {
        let mut elements: Vec<T> = Vec::with_capacity(self.list.count);
        let mut misfit = None;
        self.list.each(|number, value| {
            for_each_varint(number, value, |value| match T::try_from(read(value)) {
                Ok(element) => elements.push(element),
                Err(_) => misfit = Some(read(value)),
            })
        })?;
        if let Some(value) = misfit {
            return Err((self.refuse)(format!("{value} does not fit in {}", T::DTYPE)));
        }
        Tensor::from_vec(self.shape, elements).map_err(|error| (self.refuse)(error.to_string()))
    }
}
