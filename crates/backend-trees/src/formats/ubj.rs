//! Universal Binary JSON, read through serde, so that one description of a file serves both its JSON and its UBJ form.
//!
//! All of the draft-12 grammar but high-precision numbers. Nothing is allocated ahead of what the bytes hold: an array
//! whose elements take no bytes is refused, and nesting is bounded.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The deepest nesting of arrays and objects.
const DEEPEST: usize = 64;

/// Reads a value that fills `bytes`.
///
/// # Errors
/// [`UbjError`] saying what is wrong and where.
pub(super) fn from_slice<'de, T: de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, UbjError> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = T::deserialize(Value { reader: &mut reader, mark: None }).map_err(|error| error.at(reader.at))?;
    while reader.peek() == Some(b'N') {
        reader.at += 1;
    }
    if reader.at < bytes.len() {
        return Err(UbjError::new("more bytes after the end").at(reader.at));
    }
    Ok(value)
}

/// Why bytes are not UBJ, or not what was expected.
#[derive(Debug)]
pub(super) struct UbjError {
    text: String,
    at: Option<usize>,
}

impl UbjError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), at: None }
    }

    fn at(mut self, at: usize) -> Self {
        self.at.get_or_insert(at);
        self
    }
}

impl fmt::Display for UbjError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at byte {at}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for UbjError {}

impl de::Error for UbjError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }
}

struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
}

impl<'de> Reader<'de> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, count: usize) -> Result<&'de [u8], UbjError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| UbjError::new("the file ends early").at(self.bytes.len()))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UbjError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next mark of a type, or of an end. No-ops are passed over.
    fn mark(&mut self) -> Result<u8, UbjError> {
        loop {
            let [mark] = self.array()?;
            if mark != b'N' {
                return Ok(mark);
            }
        }
    }

    /// A length, behind the mark of its type.
    fn length(&mut self) -> Result<usize, UbjError> {
        let at = self.at;
        let mark = self.mark()?;
        let length = self.integer(mark)?.and_then(|length| usize::try_from(length).ok());
        length.ok_or_else(|| UbjError::new("expected a length").at(at))
    }

    /// An integer of type `mark`, or `None` where that is no type of integers.
    fn integer(&mut self, mark: u8) -> Result<Option<i64>, UbjError> {
        Ok(Some(match mark {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(u8::from_be_bytes(self.array()?)),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Ok(None),
        }))
    }

    fn string(&mut self) -> Result<&'de str, UbjError> {
        let length = self.length()?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| UbjError::new("a string is not UTF-8").at(at))
    }

    /// The type and the number of a container's elements, where it says them.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>), UbjError> {
        let at = self.at;
        let mut element = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            element = Some(self.array::<1>()?[0]);
        }
        if self.peek() != Some(b'#') {
            return match element {
                Some(_) => Err(UbjError::new("a container has a type but no count").at(at)),
                None => Ok((None, None)),
            };
        }
        self.at += 1;
        if matches!(element, Some(b'Z' | b'T' | b'F' | b'N')) {
            return Err(UbjError::new("elements that take no bytes are not read").at(at));
        }
        Ok((element, Some(self.length()?)))
    }

    /// Reads the inside of a container, one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, UbjError>) -> Result<T, UbjError> {
        if self.depth == DEEPEST {
            return Err(UbjError::new(format!("nested deeper than {DEEPEST}")).at(self.at));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

/// A value to be read: `mark` is its type, where its container has said it for all.
struct Value<'r, 'de> {
    reader: &'r mut Reader<'de>,
    mark: Option<u8>,
}

impl<'de> Value<'_, 'de> {
    fn read<V: Visitor<'de>>(self, mark: u8, visitor: V) -> Result<V::Value, UbjError> {
        let reader = self.reader;
        let at = reader.at;
        if let Some(integer) = reader.integer(mark)? {
            return match u64::try_from(integer) {
                Ok(integer) => visitor.visit_u64(integer),
                Err(_) => visitor.visit_i64(integer),
            };
        }
        match mark {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(reader.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(reader.array()?)),
            b'C' => visitor.visit_char(char::from(reader.array::<1>()?[0])),
            b'S' => visitor.visit_borrowed_str(reader.string()?),
            b'[' => reader.nested(|reader| {
                let (element, left) = reader.header()?;
                let mut elements = Elements { reader, element, left, end: b']' };
                let value = visitor.visit_seq(&mut elements)?;
                elements.finish()?;
                Ok(value)
            }),
            b'{' => reader.nested(|reader| {
                let (element, left) = reader.header()?;
                let mut elements = Elements { reader, element, left, end: b'}' };
                let value = visitor.visit_map(&mut elements)?;
                elements.finish()?;
                Ok(value)
            }),
            mark => Err(UbjError::new(format!("no type has the mark 0x{mark:02x}")).at(at)),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = UbjError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        let mark = match self.mark {
            Some(mark) => mark,
            None => self.reader.mark()?,
        };
        self.read(mark, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        if self.mark.is_none() && self.reader.peek() == Some(b'Z') {
            self.reader.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, UbjError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// What is left of a container.
struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    element: Option<u8>,
    left: Option<usize>,
    end: u8,
}

impl Elements<'_, '_> {
    /// Whether another element follows. At the end of a container without a count, its mark is passed.
    fn more(&mut self) -> Result<bool, UbjError> {
        if let Some(left) = &mut self.left {
            let more = *left > 0;
            *left = left.saturating_sub(1);
            return Ok(more);
        }
        while self.reader.peek() == Some(b'N') {
            self.reader.at += 1;
        }
        if self.reader.peek() != Some(self.end) {
            return Ok(true);
        }
        self.reader.at += 1;
        self.left = Some(0);
        Ok(false)
    }

    /// Whoever read the elements must have read all of them.
    fn finish(&mut self) -> Result<(), UbjError> {
        if self.more()? { Err(UbjError::new("more elements than expected").at(self.reader.at)) } else { Ok(()) }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = UbjError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, UbjError> {
        if !self.more()? {
            return Ok(None);
        }
        seed.deserialize(Value { reader: self.reader, mark: self.element }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // No more than the bytes can hold, whatever the count says.
        self.left.map(|left| left.min(self.reader.bytes.len() - self.reader.at))
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = UbjError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, UbjError> {
        if !self.more()? {
            return Ok(None);
        }
        let key = self.reader.string()?;
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, UbjError> {
        seed.deserialize(Value { reader: self.reader, mark: self.element })
    }
}
