//! Reads a `TensorProto`: all of TensorFlow's ways to write a tensor, into what the model takes.
//!
//! Elements that stand in the message as they stand in memory are slices of it: `tensor_content`, packed floats, bytes
//! below 128. Anything else is counted first, then converted once into a buffer of its size. A list that is too short is
//! filled up with its last value, so a few bytes can ask for a large tensor; room for it is asked for before it is made.

use bytes::Bytes;
use millrace_core::{DType, InputError, MAX_RANK, Reason, Refusal, Shape, Strings, Tensor, TensorSpec};
use millrace_protocol::tfs::{Bare, data_type, data_type_number};
use smallvec::SmallVec;

use super::failure;
use crate::exchange::{NoRoom, Room, Unread, counted};
use crate::wire::{Fields, Value, WireError, count_varints, varint};

/// What finding and reading one field costs, in bytes of copying.
const FIELD: usize = 8;

/// The tensor for `spec` in `proto`, which is a part of `message`.
///
/// # Errors
/// [`Unread`]: it is too long for this thread, it is no tensor, it has another dtype, or there is no room for it.
pub(super) fn tensor(message: &Bytes, proto: &[u8], spec: &TensorSpec, room: &mut Room<'_>) -> Result<Tensor, Unread> {
    let parts = Parts::read(proto, room).map_err(|stop| stop.unread(spec))?;
    match i32::try_from(parts.dtype).ok().and_then(data_type) {
        Some(dtype) if dtype == spec.dtype => {}
        Some(got) => {
            let error = InputError::DType { input: spec.name.clone(), expected: spec.dtype, got };
            return Err(refused(error.to_string()));
        }
        None => {
            let expected = data_type_number(spec.dtype);
            let detail = format!("data type {} is not supported; expected {expected}, {}", parts.dtype, spec.dtype);
            return Err(Stop::Wrong(detail).unread(spec));
        }
    }
    let reading = Reading { message, proto, spec, shape: &parts.shape, n: parts.shape.n_elements() };
    reading.tensor(parts.content, room).map_err(|stop| stop.unread(spec))
}

/// Why reading stops.
enum Stop {
    Long,
    Wire(WireError),
    Wrong(String),
    NoRoom(NoRoom),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<NoRoom> for Stop {
    fn from(error: NoRoom) -> Self {
        Self::NoRoom(error)
    }
}

impl Stop {
    fn unread(self, spec: &TensorSpec) -> Unread {
        let wrong = |detail: &str| refused(format!("tensor parsing error: {}: {detail}", Bare(&spec.name)));
        match self {
            Self::Long => Unread::Long,
            Self::Wire(error) => wrong(&error.to_string()),
            Self::Wrong(detail) => wrong(&detail),
            Self::NoRoom(NoRoom::Request) => {
                wrong("the tensor is too large: it takes more bytes than a message may have")
            }
            Self::NoRoom(NoRoom::Everyone) => {
                let text = "the requests that are arriving have reached their common limit of bytes";
                failure(Refusal::new(Reason::QueueFull, text)).into()
            }
        }
    }
}

fn refused(message: String) -> Unread {
    failure(Refusal::new(Reason::InvalidInput, message)).into()
}

fn spend(room: &mut Room<'_>, work: usize) -> Result<(), Stop> {
    if room.spend(work) { Ok(()) } else { Err(Stop::Long) }
}

/// What a tensor says of itself.
struct Parts<'a> {
    dtype: i64,
    shape: Shape,
    content: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(proto: &'a [u8], room: &mut Room<'_>) -> Result<Self, Stop> {
        let (mut dtype, mut sizes, mut content) = (0, SmallVec::<[usize; 4]>::new(), &[][..]);
        let mut fields = Fields::new(proto);
        while let Some((number, value)) = fields.next()? {
            spend(room, FIELD)?;
            match number {
                1 => dtype = value.int64(number)?,
                2 => read_shape(value.bytes(number)?, &mut sizes, room)?,
                4 => content = value.bytes(number)?,
                _ => {}
            }
        }
        let shape = Shape::new(&sizes).map_err(|error| Stop::Wrong(error.to_string()))?;
        Ok(Self { dtype, shape, content })
    }
}

fn read_shape(shape: &[u8], sizes: &mut SmallVec<[usize; 4]>, room: &mut Room<'_>) -> Result<(), Stop> {
    let mut fields = Fields::new(shape);
    while let Some((number, value)) = fields.next()? {
        spend(room, FIELD)?;
        match number {
            2 if sizes.len() == MAX_RANK => {
                return Err(Stop::Wrong(format!("the rank is above the limit of {MAX_RANK}")));
            }
            2 => {
                let size = read_size(value.bytes(number)?, room)?;
                sizes.push(usize::try_from(size).map_err(|_| Stop::Wrong(format!("dimension {size} of the shape")))?);
            }
            3 if value.varint(number)? != 0 => {
                return Err(Stop::Wrong("a tensor needs a shape whose rank is known".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_size(dim: &[u8], room: &mut Room<'_>) -> Result<i64, Stop> {
    let (mut size, mut fields) = (0, Fields::new(dim));
    while let Some((number, value)) = fields.next()? {
        spend(room, FIELD)?;
        if number == 1 {
            size = value.int64(number)?;
        }
    }
    Ok(size)
}

/// The field in which elements of `dtype` stand one by one.
const fn field_of(dtype: DType) -> u32 {
    match dtype {
        DType::Fp32 => 5,
        DType::Fp64 => 6,
        DType::Int32 | DType::Int16 | DType::Int8 | DType::Uint8 | DType::Uint16 => 7,
        DType::Bytes => 8,
        DType::Int64 => 10,
        DType::Bool => 11,
        DType::Fp16 | DType::Bf16 => 13,
        DType::Uint32 => 16,
        DType::Uint64 => 17,
    }
}

/// A tensor whose dtype and shape are known.
struct Reading<'a> {
    message: &'a Bytes,
    proto: &'a [u8],
    spec: &'a TensorSpec,
    shape: &'a Shape,
    /// Elements.
    n: usize,
}

/// The values that stand one by one.
#[derive(Default)]
struct Values<'a> {
    /// How many; no more are counted than are needed.
    count: usize,
    /// The one packed field in which all of them stand, if so.
    only: Option<&'a [u8]>,
}

impl<'a> Reading<'a> {
    fn tensor(&self, content: &[u8], room: &mut Room<'_>) -> Result<Tensor, Stop> {
        let made = |bytes| Tensor::new(self.spec.dtype, self.shape.clone(), bytes);
        let wrong = |error: millrace_core::TensorError| Stop::Wrong(error.to_string());
        if self.n == 0 && content.is_empty() && self.spec.dtype != DType::Bytes {
            return made(Bytes::new()).map_err(wrong);
        }
        match self.spec.dtype {
            DType::Bytes if !content.is_empty() => {
                Err(Stop::Wrong("strings belong in string_val, not in tensor_content".to_owned()))
            }
            DType::Bytes => self.strings(room),
            dtype if !content.is_empty() => {
                // Every byte of a bool is looked at.
                spend(room, if dtype == DType::Bool { content.len() } else { 0 })?;
                made(self.message.slice_ref(content)).map_err(wrong)
            }
            DType::Fp32 => made(self.fixed::<4>(room)?).map_err(wrong),
            DType::Fp64 => made(self.fixed::<8>(room)?).map_err(wrong),
            DType::Bool | DType::Int8 | DType::Uint8 => made(self.varints::<1>(room)?).map_err(wrong),
            DType::Int16 | DType::Uint16 | DType::Fp16 | DType::Bf16 => made(self.varints::<2>(room)?).map_err(wrong),
            DType::Int32 | DType::Uint32 => made(self.varints::<4>(room)?).map_err(wrong),
            DType::Int64 | DType::Uint64 => made(self.varints::<8>(room)?).map_err(wrong),
        }
    }

    /// The values' fields, in order, until `visit` has enough.
    fn each(
        &self,
        room: &mut Room<'_>,
        mut visit: impl FnMut(Value<'a>, &mut Room<'_>) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let wanted = field_of(self.spec.dtype);
        let mut fields = Fields::new(self.proto);
        while let Some((number, value)) = fields.next()? {
            spend(room, FIELD)?;
            if number == wanted && !visit(value, room)? {
                break;
            }
        }
        Ok(())
    }

    /// Counts the values, by `count` in each field.
    fn count(
        &self,
        room: &mut Room<'_>,
        count: impl Fn(Value<'a>, &mut Room<'_>) -> Result<usize, Stop>,
    ) -> Result<Values<'a>, Stop> {
        let (mut values, mut n_fields) = (Values::default(), 0);
        self.each(room, |value, room| {
            values.count += count(value, room)?;
            n_fields += 1;
            values.only = if let Value::Bytes(packed) = value { Some(packed) } else { None };
            Ok(values.count < self.n)
        })?;
        values.only = values.only.filter(|_| n_fields == 1);
        Ok(values)
    }

    /// Elements that stand as they do in memory, `N` bytes each.
    fn fixed<const N: usize>(&self, room: &mut Room<'_>) -> Result<Bytes, Stop> {
        let field = field_of(self.spec.dtype);
        let values = self.count(room, |value, _| match value {
            Value::Fixed32(_) if N == 4 => Ok(1),
            Value::Fixed64(_) if N == 8 => Ok(1),
            Value::Bytes(packed) if packed.len() % N == 0 => Ok(packed.len() / N),
            Value::Bytes(_) => Err(Stop::Wire(WireError::Cut)),
            Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_) => Err(Stop::Wire(WireError::Form(field))),
        })?;
        if let Some(packed) = values.only
            && values.count >= self.n
        {
            return Ok(self.message.slice_ref(&packed[..self.n * N]));
        }
        self.fill::<N>(&values, room, |value, wanted, elements, _| {
            match value {
                Value::Fixed32(bytes) => elements.extend_from_slice(&bytes),
                Value::Fixed64(bytes) => elements.extend_from_slice(&bytes),
                Value::Bytes(packed) => elements.extend_from_slice(&packed[..packed.len().min(wanted)]),
                Value::Varint(_) => return Err(Stop::Wire(WireError::Form(field))),
            }
            Ok(())
        })
    }

    /// Elements that stand as numbers of seven bits a byte, of which the lowest `N` bytes count.
    fn varints<const N: usize>(&self, room: &mut Room<'_>) -> Result<Bytes, Stop> {
        let (field, is_bool) = (field_of(self.spec.dtype), self.spec.dtype == DType::Bool);
        let values = self.count(room, |value, room| match value {
            Value::Varint(_) => Ok(1),
            Value::Bytes(packed) => {
                // Counting is quicker than copying.
                spend(room, packed.len() / 8)?;
                Ok(count_varints(packed))
            }
            Value::Fixed32(_) | Value::Fixed64(_) => Err(Stop::Wire(WireError::Form(field))),
        })?;
        let most = if is_bool { 1 } else { 0x7f };
        if let Some(packed) = values.only
            && N == 1
            && values.count >= self.n
            && packed.iter().take(self.n).all(|byte| *byte <= most)
        {
            return Ok(self.message.slice_ref(&packed[..self.n]));
        }
        let low = |number: u64| -> [u8; N] {
            let number = if is_bool { u64::from(number != 0) } else { number };
            std::array::from_fn(|index| number.to_le_bytes()[index])
        };
        self.fill::<N>(&values, room, |value, wanted, elements, room| {
            match value {
                Value::Varint(number) => elements.extend_from_slice(&low(number)),
                Value::Bytes(mut packed) => {
                    spend(room, packed.len())?;
                    let end = elements.len() + wanted;
                    while !packed.is_empty() && elements.len() < end {
                        elements.extend_from_slice(&low(varint(&mut packed)?));
                    }
                }
                Value::Fixed32(_) | Value::Fixed64(_) => return Err(Stop::Wire(WireError::Form(field))),
            }
            Ok(())
        })
    }

    /// Makes the tensor's bytes: as many of the values as it wants, then the last of them until it is full, or zeros
    /// where there is none. `take` appends a field's values, no more bytes of them than it is told.
    fn fill<const N: usize>(
        &self,
        values: &Values<'a>,
        room: &mut Room<'_>,
        take: impl Fn(Value<'a>, usize, &mut Vec<u8>, &mut Room<'_>) -> Result<(), Stop>,
    ) -> Result<Bytes, Stop> {
        let total = self.n.checked_mul(N).ok_or(Stop::NoRoom(NoRoom::Request))?;
        let share = room.make(total)?;
        spend(room, total)?;
        if values.count == 0 {
            return Ok(counted(vec![0; total], share));
        }
        let mut elements = Vec::with_capacity(total);
        self.each(room, |value, room| {
            take(value, total - elements.len(), &mut elements, room)?;
            Ok(elements.len() < total)
        })?;
        // Twice as many in each round; all of them are the last one.
        let last = elements.len() - N;
        while elements.len() < total {
            let more = (total - elements.len()).min(elements.len() - last);
            elements.extend_from_within(last..last + more);
        }
        Ok(counted(elements, share))
    }

    fn strings(&self, room: &mut Room<'_>) -> Result<Tensor, Stop> {
        let (field, n) = (field_of(DType::Bytes), self.n);
        let (mut count, mut payload, mut last) = (0, 0_usize, &[][..]);
        self.each(room, |value, _| {
            last = value.bytes(field)?;
            payload += last.len();
            count += 1;
            Ok(count < n)
        })?;
        let wrong = || Stop::Wrong("the strings do not fit the shape".to_owned());
        let tensor = |buffer, offsets| {
            let strings = Strings::new(buffer, offsets).ok_or_else(wrong)?;
            Tensor::from_strings(self.shape, strings).map_err(|error| Stop::Wrong(error.to_string()))
        };
        if n == 0 {
            return tensor(Bytes::new(), vec![0]);
        }
        if n == 1 {
            return tensor(self.message.slice_ref(last), vec![0, last.len()]);
        }
        let missing = n - count;
        let payload = missing.checked_mul(last.len()).and_then(|more| more.checked_add(payload));
        let offsets = n.checked_mul(size_of::<usize>());
        let (payload, total) = payload
            .and_then(|payload| Some((payload, payload.checked_add(offsets?)?)))
            .ok_or(Stop::NoRoom(NoRoom::Request))?;
        let share = room.make(total)?;
        spend(room, total)?;
        let (mut buffer, mut offsets) = (Vec::with_capacity(payload), Vec::with_capacity(n + 1));
        offsets.push(0);
        self.each(room, |value, _| {
            buffer.extend_from_slice(value.bytes(field)?);
            offsets.push(buffer.len());
            Ok(offsets.len() <= n)
        })?;
        for _ in 0..missing {
            buffer.extend_from_slice(last);
            offsets.push(buffer.len());
        }
        tensor(counted(buffer, share), offsets)
    }
}
