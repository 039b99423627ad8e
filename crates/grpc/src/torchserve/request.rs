//! What a `PredictionsRequest` says, taken apart without copying.

use bytes::Bytes;
use millrace_json::{Content, Field};

use crate::outline::{Outline, check_room};
use crate::wire::WireError;

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
        Outline::new().each(message, |outline, number, value| {
            match number {
                1 => request.model = value.text(number)?,
                2 => request.version = value.text(number)?,
                3 => {
                    check_room(request.parts.len(), number)?;
                    request.parts.push(outline.entry(value.bytes(number)?)?);
                }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
    use prost::Message as _;

    use super::Prediction;
    use crate::outline::MOST_PARTS;
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
        let error = Prediction::read(&[0x1a, 0].repeat(MOST_PARTS + 1)).unwrap_err();
        assert_eq!(error, WireError::Count { field: 3, limit: MOST_PARTS });
    }
}
