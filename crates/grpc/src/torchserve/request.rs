//! What a `PredictionsRequest` says, taken apart without copying.

use bytes::Bytes;
use millrace_json::{Content, Field};

use crate::wire::{Fields, Value, WireError};

/// Parts of the input of one request: more than any model has inputs.
const MOST: usize = 4096;
/// Fields of a request, unknown ones included.
const MOST_FIELDS: usize = 4 * MOST;

/// A request for a prediction.
#[derive(Debug, Default)]
pub(super) struct Prediction<'a> {
    pub(super) model: &'a str,
    /// Empty means the default one.
    pub(super) version: &'a str,
    /// The parts of the input by name.
    parts: Vec<(&'a str, &'a [u8])>,
    /// To be sent back.
    pub(super) sequence: Option<&'a str>,
}

impl<'a> Prediction<'a> {
    /// Finds the parts of `message`.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, WireError> {
        let mut request = Self::default();
        each(message, |number, value| {
            match number {
                1 => request.model = value.text(number)?,
                2 => request.version = value.text(number)?,
                3 if request.parts.len() == MOST => return Err(WireError::Count { field: number, limit: MOST }),
                3 => request.parts.push(read_part(value.bytes(number)?)?),
                4 => request.sequence = Some(value.text(number)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// The parts as a body has them, slices of `message`. Nothing says what they hold.
    pub(super) fn fields(&self, message: &Bytes) -> Vec<Field<'a>> {
        let field = |(name, bytes): &(&'a str, &[u8])| Field {
            name,
            content: Content::Unknown,
            bytes: message.slice_ref(bytes),
        };
        self.parts.iter().map(field).collect()
    }
}

/// An entry of the map of parts.
fn read_part(entry: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let (mut name, mut bytes) = ("", &[][..]);
    each(entry, |number, value| {
        match number {
            1 => name = value.text(number)?,
            2 => bytes = value.bytes(number)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, bytes))
}

fn each<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u32, Value<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let (mut fields, mut n_fields) = (Fields::new(message), 0);
    while let Some((number, value)) = fields.next()? {
        n_fields += 1;
        if n_fields > MOST_FIELDS {
            return Err(WireError::Count { field: number, limit: MOST_FIELDS });
        }
        visit(number, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
    use prost::Message as _;

    use super::{MOST, Prediction};
    use crate::wire::WireError;

    #[test]
    fn a_request_is_taken_apart_and_its_input_left_alone() {
        let request = PredictionsRequest {
            model_name: "m".to_owned(),
            model_version: "1.0".to_owned(),
            input: [("data".to_owned(), Bytes::from_static(b"[1]"))].into(),
            sequence_id: Some("s".to_owned()),
        };
        let message = Bytes::from(request.encode_to_vec());
        let read = Prediction::read(&message).unwrap();
        assert_eq!((read.model, read.version, read.sequence), ("m", "1.0", Some("s")));
        let fields = read.fields(&message);
        assert_eq!((fields.len(), fields[0].name, &fields[0].bytes[..]), (1, "data", &b"[1]"[..]));
        assert!(message.as_ptr_range().contains(&fields[0].bytes.as_ptr()));
        let error = Prediction::read(&[0x1a, 0].repeat(MOST + 1)).unwrap_err();
        assert_eq!(error, WireError::Count { field: 3, limit: MOST });
    }
}
