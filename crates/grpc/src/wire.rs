//! Reads protobuf's wire format field by field, without copying and without recursion.
//!
//! For messages that carry tensors: what a field holds is a slice of the message, repeated fields are counted before
//! anything is made of them, and a message of empty parts costs no more memory than it has bytes.

use millrace_core::{Reason, Refusal};

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// A whole number or a bool.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Four bytes.
    Fixed32([u8; 4]),
    /// Text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// A field reaches past the end.
    #[error("a field is cut off")]
    Cut,
    /// A number of more than 64 bits.
    #[error("a number is longer than 64 bits")]
    Varint,
    /// No field has this number, or no value this form.
    #[error("a field's key is invalid")]
    Key,
    /// A group, the form of nesting that proto3 does not have, with no end or too deep.
    #[error("a group is unbalanced or nested too deep, or there are too many")]
    Group,
    /// A value of another form than its field has.
    #[error("field {0} has the wrong wire type")]
    Form(u32),
    /// Text that is not UTF-8.
    #[error("field {0} is not UTF-8")]
    Text(u32),
    /// More of something than any client needs.
    #[error("field {field} stands there more than {limit} times")]
    Count { field: u32, limit: usize },
    /// A text that is longer than any client needs.
    #[error("field {field} is longer than {limit} bytes")]
    Long { field: u32, limit: usize },
}

impl WireError {
    /// The refusal of a message that has this fault.
    pub(crate) fn refusal(self) -> Refusal {
        Refusal::new(Reason::InvalidInput, format!("the message cannot be decoded: {self}"))
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        error.refusal()
    }
}

/// How deep groups may nest; they are only ever skipped.
const DEEPEST_GROUP: usize = 64;
/// Keys of groups and in groups that one message may have: skipping them is work that nobody else counts.
const MOST_SKIPPED: usize = 256;

/// The fields of one message, in the order in which they stand.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    skipped: usize,
}

impl<'a> Fields<'a> {
    /// Those of `message`.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, skipped: 0 }
    }

    /// What was not looked at yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and value, or `None` at the end.
    ///
    /// # Errors
    /// A [`WireError`]. What comes after it means nothing.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        const START_GROUP: u64 = 3;
        const END_GROUP: u64 = 4;
        let mut depth = 0;
        while !self.rest.is_empty() {
            let key = varint(&mut self.rest)?;
            let number =
                u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number)).ok_or(WireError::Key)?;
            let value = match key & 7 {
                0 => Value::Varint(varint(&mut self.rest)?),
                1 => Value::Fixed64(fixed(&mut self.rest)?),
                2 => {
                    let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| WireError::Cut)?;
                    let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Cut)?;
                    self.rest = rest;
                    Value::Bytes(bytes)
                }
                START_GROUP if depth < DEEPEST_GROUP => {
                    depth += 1;
                    self.skip()?;
                    continue;
                }
                END_GROUP if depth > 0 => {
                    depth -= 1;
                    continue;
                }
                START_GROUP | END_GROUP => return Err(WireError::Group),
                5 => Value::Fixed32(fixed(&mut self.rest)?),
                _ => return Err(WireError::Key),
            };
            if depth == 0 {
                return Ok(Some((number, value)));
            }
            self.skip()?;
        }
        if depth == 0 { Ok(None) } else { Err(WireError::Group) }
    }

    fn skip(&mut self) -> Result<(), WireError> {
        self.skipped += 1;
        if self.skipped > MOST_SKIPPED { Err(WireError::Group) } else { Ok(()) }
    }
}

impl<'a> Value<'a> {
    /// The bytes of field `number`.
    pub(crate) fn bytes(self, number: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(WireError::Form(number)),
        }
    }

    /// The text of field `number`.
    pub(crate) fn text(self, number: u32) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(number)?).map_err(|_| WireError::Text(number))
    }

    /// The number in field `number`.
    pub(crate) fn varint(self, number: u32) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Bytes(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(WireError::Form(number)),
        }
    }

    /// The number in field `number`, signed in two's complement as `int64` is.
    pub(crate) fn int64(self, number: u32) -> Result<i64, WireError> {
        self.varint(number).map(u64::cast_signed)
    }
}

/// Takes a number of up to ten bytes of seven bits off the front.
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has one bit left.
        if index == 9 && bits > 1 {
            return Err(WireError::Varint);
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { WireError::Cut } else { WireError::Varint })
}

/// How many numbers a packed field of varints holds, were it well formed.
pub(crate) fn count_varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (bytes, after) = rest.split_first_chunk().ok_or(WireError::Cut)?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::encode_varint;

    use super::{Fields, Value, WireError, count_varints, varint};

    fn all(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, WireError> {
        let mut fields = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn every_form_is_read_and_groups_are_skipped() {
        let message = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 2, b'h', b'i'],
            &[0x1d, 1, 2, 3, 4],
            &[0x21, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x2b, 0x2b, 0x08, 1, 0x2c, 0x2c],
            &[0x30, 0],
        ]
        .concat();
        let wanted = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32([1, 2, 3, 4])),
            (4, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
            (6, Value::Varint(0)),
        ];
        assert_eq!(all(&message).unwrap(), wanted);
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_is_an_error() {
        for (message, error) in [
            (&[0x12, 3, b'h'][..], WireError::Cut),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], WireError::Cut),
            (&[0x08], WireError::Cut),
            (&[0x1d, 1], WireError::Cut),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], WireError::Varint),
            (&[0x00, 1], WireError::Key),
            (&[0x0e, 1], WireError::Key),
            (&[0x0b], WireError::Group),
            (&[0x0c], WireError::Group),
        ] {
            assert_eq!(all(message).unwrap_err(), error, "{message:x?}");
        }
        assert_eq!(all(&[0x0b; 100_000]).unwrap_err(), WireError::Group);
        assert_eq!(all(&[0x0b, 0x0c].repeat(256)).unwrap(), []);
        assert_eq!(all(&[0x0b, 0x0c].repeat(257)).unwrap_err(), WireError::Group);
        assert_eq!(all(&[&[0x0b][..], &[0x08, 1].repeat(256), &[0x0c]].concat()).unwrap_err(), WireError::Group);
        assert_eq!(Value::Bytes(&[0xff]).text(7), Err(WireError::Text(7)));
        assert_eq!(Value::Varint(1).bytes(7), Err(WireError::Form(7)));
    }

    proptest! {
        #[test]
        fn a_number_comes_back(numbers in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut packed = Vec::new();
            numbers.iter().for_each(|&number| encode_varint(number, &mut packed));
            prop_assert_eq!(count_varints(&packed), numbers.len());
            let mut rest = &packed[..];
            for number in numbers {
                prop_assert_eq!(varint(&mut rest), Ok(number));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(message in prop::collection::vec(any::<u8>(), 0..60)) {
            let _either = all(&message);
        }
    }
}
