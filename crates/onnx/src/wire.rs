//! Protobuf's wire format: fields with numbers, and lists of numbers that may be packed or not.

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// The fields of a message that was found sound before; a fault ends the walk.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    is_damaged: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, is_damaged: false }
    }

    /// Whether the walk ended at a fault instead of the message's end.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn step(&mut self) -> Option<Field<'a>> {
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(array(&mut self.rest)?),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).ok()?;
                let (body, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Value::Bytes(body)
            }
            5 => Value::Fixed32(array(&mut self.rest)?),
            _ => return None,
        };
        let number = key >> 3;
        (number != 0).then_some(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() || self.is_damaged {
            return None;
        }
        let field = self.step();
        self.is_damaged = field.is_none();
        field
    }
}

/// Reads a number of up to ten bytes, seven bits in each.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// The bodies of all length-delimited fields `number`.
pub(crate) fn bodies(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> + Clone {
    Fields::new(message).filter_map(move |field| match field.value {
        Value::Bytes(body) if field.number == number => Some(body),
        _ => None,
    })
}

/// The last length-delimited field `number`: where a field stands twice, the format lets the last one win.
pub(crate) fn body(message: &[u8], number: u64) -> Option<&[u8]> {
    bodies(message, number).last()
}

/// The text of field `number`, empty where it is not there.
pub(crate) fn text(message: &[u8], number: u64) -> &str {
    body(message, number).map(utf8).unwrap_or_default()
}

/// Text that was checked before.
pub(crate) fn utf8(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// The last number in field `number`.
pub(crate) fn number(message: &[u8], number: u64) -> Option<u64> {
    let varints = |field: Field<'_>| match field.value {
        Value::Varint(value) if field.number == number => Some(value),
        _ => None,
    };
    Fields::new(message).filter_map(varints).last()
}

/// A number as the format's signed types have it.
pub(crate) fn signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

/// The varints of the repeated field `number`, packed or not.
pub(crate) fn varints(message: &[u8], number: u64) -> impl Iterator<Item = u64> + Clone + '_ {
    Fields::new(message).filter(move |field| field.number == number).flat_map(|field| match field.value {
        Value::Varint(value) => Varints { one: Some(value), packed: &[] },
        Value::Bytes(packed) => Varints { one: None, packed },
        Value::Fixed32(_) | Value::Fixed64(_) => Varints { one: None, packed: &[] },
    })
}

#[derive(Debug, Clone)]
struct Varints<'a> {
    one: Option<u64>,
    packed: &'a [u8],
}

impl Iterator for Varints<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.one.take().or_else(|| varint(&mut self.packed))
    }
}

/// The 32-bit elements of the repeated field `number`, packed or not, little-endian.
pub(crate) fn fixed32s(message: &[u8], number: u64) -> impl Iterator<Item = [u8; 4]> + Clone + '_ {
    Fields::new(message).filter(move |field| field.number == number).flat_map(|field| match field.value {
        Value::Fixed32(value) => Fixed { one: Some(value), packed: &[] },
        Value::Bytes(packed) => Fixed { one: None, packed },
        Value::Varint(_) | Value::Fixed64(_) => Fixed { one: None, packed: &[] },
    })
}

/// The 64-bit elements of the repeated field `number`, packed or not, little-endian.
pub(crate) fn fixed64s(message: &[u8], number: u64) -> impl Iterator<Item = [u8; 8]> + Clone + '_ {
    Fields::new(message).filter(move |field| field.number == number).flat_map(|field| match field.value {
        Value::Fixed64(value) => Fixed { one: Some(value), packed: &[] },
        Value::Bytes(packed) => Fixed { one: None, packed },
        Value::Varint(_) | Value::Fixed32(_) => Fixed { one: None, packed: &[] },
    })
}

#[derive(Debug, Clone)]
struct Fixed<'a, const N: usize> {
    one: Option<[u8; N]>,
    packed: &'a [u8],
}

impl<const N: usize> Iterator for Fixed<'_, N> {
    type Item = [u8; N];

    fn next(&mut self) -> Option<[u8; N]> {
        self.one.take().or_else(|| array(&mut self.packed))
    }
}
