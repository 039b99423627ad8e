//! Data of tensors in files beside the model.

use crate::error::{OnnxError, shown};
use crate::wire::{bodies, text};

/// Where a tensor's data lies in another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External<'a> {
    /// The file's name relative to the model's folder, with `/` between folders.
    pub location: &'a str,
    /// The first byte.
    pub offset: u64,
    /// How many bytes; to the file's end where nothing is said.
    pub length: Option<u64>,
}

impl<'a> External<'a> {
    /// Reads the entries of the tensor `body`, called `place` in messages.
    pub(crate) fn read(body: &'a [u8], place: &str) -> Result<Self, OnnxError> {
        let (mut location, mut offset, mut length) = ("", 0, None);
        let parse = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                OnnxError::invalid(place, format!("external data: expected a count of bytes, got `{}`", shown(text)))
            })
        };
        for entry in bodies(body, 13) {
            match (text(entry, 1), text(entry, 2)) {
                ("location", value) => location = value,
                ("offset", value) => offset = parse(value)?,
                ("length", value) => length = Some(parse(value)?),
                _ => {} // a checksum, or what a later version adds
            }
        }
        let location = location.strip_prefix("./").unwrap_or(location);
        if location.is_empty() {
            return Err(OnnxError::invalid(place, "external data without the name of a file"));
        }
        let is_inside = |part: &str| !part.is_empty() && part != "." && part != "..";
        let stays = location.split('/').all(is_inside) && !location.contains(['\\', '\0', ':']);
        if !stays {
            return Err(OnnxError::Outside { place: place.to_owned(), name: shown(location) });
        }
        Ok(Self { location, offset, length })
    }

    /// The tensor's bytes out of the whole `file`; `expected` is their number as shape and type have it.
    pub(crate) fn cut<'f>(&self, file: &'f [u8], expected: u64, place: &str) -> Result<&'f [u8], OnnxError> {
        let length = self.length.unwrap_or(expected);
        if length != expected {
            let text = format!("external data of {length} bytes; its shape and type ask for {expected}");
            return Err(OnnxError::invalid(place, text));
        }
        let range = usize::try_from(self.offset).ok().zip(usize::try_from(length).ok());
        let bytes = range.and_then(|(start, length)| file.get(start..start.checked_add(length)?));
        bytes.ok_or_else(|| {
            let (name, offset, size) = (shown(self.location), self.offset, file.len());
            OnnxError::invalid(
                place,
                format!("{length} bytes from {offset} on reach past the {size} bytes of `{name}`"),
            )
        })
    }
}
