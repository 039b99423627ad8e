//! Goes over the fields of a request before anybody knows what it is for: on an I/O thread, so with a bound on how many
//! there are in all of its parts together.

use crate::wire::{Fields, Value, WireError};

/// Parts of one kind, such as inputs, that a request may have: more than any model takes.
pub(crate) const MOST_PARTS: usize = 4096;
/// Fields of a request with all its parts, unknown ones included.
const MOST_FIELDS: usize = 16 * MOST_PARTS;

/// How many fields may still be looked at.
#[derive(Debug)]
pub(crate) struct Outline {
    left: usize,
}

impl Outline {
    /// For one request.
    pub(crate) fn new() -> Self {
        Self { left: MOST_FIELDS }
    }

    /// Visits the fields of `message`, in order.
    ///
    /// # Errors
    /// A [`WireError`]: the visitor's own, `message` is none, or there are too many fields.
    pub(crate) fn each<'a>(
        &mut self,
        message: &'a [u8],
        mut visit: impl FnMut(&mut Self, u32, Value<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            let too_many = WireError::Count { field: number, limit: MOST_FIELDS };
            self.left = self.left.checked_sub(1).ok_or(too_many)?;
            visit(self, number, value)?;
        }
        Ok(())
    }

    /// The key and the value of an entry of a map of bytes or messages.
    ///
    /// # Errors
    /// A [`WireError`].
    pub(crate) fn entry<'a>(&mut self, entry: &'a [u8]) -> Result<(&'a str, &'a [u8]), WireError> {
        let (mut key, mut content) = ("", &[][..]);
        self.each(entry, |_, number, value| {
            match number {
                1 => key = value.text(number)?,
                2 => content = value.bytes(number)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok((key, content))
    }
}

/// Refuses another part of field `number` where there are `len` already.
///
/// # Errors
/// [`WireError::Count`] when that is too many.
pub(crate) fn check_room(len: usize, number: u32) -> Result<(), WireError> {
    if len < MOST_PARTS { Ok(()) } else { Err(WireError::Count { field: number, limit: MOST_PARTS }) }
}

#[cfg(test)]
mod tests {
    use super::{MOST_FIELDS, Outline};
    use crate::wire::WireError;

    #[test]
    fn fields_are_counted_in_all_parts_together() {
        // An unknown field in each of two entries.
        let entry = [0x98, 0x06, 0].repeat(MOST_FIELDS / 2 + 1);
        let mut outline = Outline::new();
        assert_eq!(outline.entry(&entry), Ok(("", &[][..])));
        assert_eq!(outline.entry(&entry), Err(WireError::Count { field: 99, limit: MOST_FIELDS }));
        assert_eq!(Outline::new().entry(&[0x0a, 1, b'k', 0x12, 2, 1, 2]), Ok(("k", &[1, 2][..])));
        assert_eq!(Outline::new().entry(&[0x0a, 1, 0xff]), Err(WireError::Text(1)));
    }
}
