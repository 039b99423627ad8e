//! Announcing a call whose message is long by its first bytes, so that one which would be refused whatever it holds is not
//! read.
//!
//! The model's name stands in the message. All known writers put fields in the order of their numbers, which protobuf does
//! not promise: what the first bytes say is a hint. A model that they do not name, or that is not there, is looked for again
//! once the message is whole.

use std::sync::Arc;

use millrace_core::{Place, Protocol, Refusal, RequestContext, Servable, contained};
use millrace_protocol::front::{Record, now};

use crate::call::Call;
use crate::service::Shared;
use crate::wire::{Fields, varint};

/// The fields of a message that begins with `start` up to number `last`, a message themselves; `None` where none of a higher
/// number has begun, so that more of them may come.
pub(crate) fn naming(start: &[u8], last: u32) -> Option<&[u8]> {
    let mut fields = Fields::new(start);
    loop {
        let rest = fields.rest();
        let key = varint(&mut { rest }).ok()?;
        if key >> 3 > u64::from(last) {
            return Some(&start[..start.len() - rest.len()]);
        }
        fields.next().ok()??;
    }
}

impl Shared {
    /// Announces a call to the version that `find` gives.
    ///
    /// # Errors
    /// The version's refusal, which is then recorded as its own.
    pub(crate) fn knock(
        &self,
        call: Call<'_>,
        protocol: Protocol,
        record: &mut Record<'_>,
        find: impl FnOnce(&RequestContext) -> Option<Arc<dyn Servable>>,
    ) -> Result<Place, Refusal> {
        let (context, _) = call.context(protocol, now(), self.parts.config.request_timeout);
        let Some(servable) = find(&context) else { return Ok(Place::default()) };
        let place = contained(|| servable.knock(&context)).and_then(|place| place);
        place.inspect_err(|_| record.found(&*servable))
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::inference::ModelInferRequest;
    use millrace_proto::inference::model_infer_request::InferInputTensor;
    use prost::Message as _;

    use super::naming;

    #[test]
    fn the_fields_before_the_inputs_are_known_once_an_input_begins() {
        let head = ModelInferRequest {
            model_name: "m".repeat(200),
            model_version: "3".to_owned(),
            id: "id".to_owned(),
            ..ModelInferRequest::default()
        };
        let input = InferInputTensor { name: "x".repeat(300), ..InferInputTensor::default() };
        let message = ModelInferRequest { inputs: vec![input], ..head.clone() }.encode_to_vec();
        let head = head.encode_to_vec();
        for length in 0..=message.len() {
            let expected = (length > head.len()).then_some(&head[..]);
            assert_eq!(naming(&message[..length], 4), expected, "{length}");
        }
        assert_eq!(naming(&message, 1), Some(&head[..203]));
    }

    #[test]
    fn a_message_that_names_nothing_first_has_nothing_before_it() {
        // Field 7 and then the name.
        assert_eq!(naming(b"\x3a\x01x\x0a\x01m", 4), Some(&b""[..]));
        // No message: a key of number 0, a number without an end, a group without an end.
        for broken in [&b"\0\x01"[..], &[0xff; 20], b"\x0b\x08\x01"] {
            assert_eq!(naming(broken, 4), None, "{broken:?}");
        }
    }
}
