//! This protocol as a codec of the common exchange: where the document ends and the binary inputs begin, and what the
//! answer is packed in. The document is read in `request` and written in `reply`.

use bytes::Bytes;
use http::HeaderMap;
use millrace_core::{InferResponse, Protocol, Quoted, Reason, Refusal, Servable, Signature, Tensor};
use millrace_protocol::oip::{self, OutputPlan};

use super::{encoding, reply, request};
use crate::coding::Coding;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::{Codec, Question, text_weight};
use crate::head::{HEADER_LENGTH, Head};
use crate::response::Answer;

/// So many bytes of a binary input are as much work as one of text: at most they are moved and looked at once.
const BYTES_AS_TEXT: usize = 8;

/// Reads and writes one request.
#[derive(Debug, Clone)]
pub(super) struct OipCodec {
    /// `None` for a coding that is none of ours.
    coding: Option<Coding>,
    header_length: HeaderLength,
    accepts: Coding,
    max_depth: usize,
    max_answer: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HeaderLength {
    /// The body is its document.
    Absent,
    /// So many bytes of it are; with 0, the body is an input's bytes and nothing else.
    Bytes(usize),
    /// It does not say. Holds why.
    Wrong(Box<str>),
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) id: Option<Box<str>>,
    pub(super) plan: OutputPlan,
}

impl OipCodec {
    /// `head` is what stands in `headers`: it says which of them need no looking up.
    pub(super) fn new(head: &Head<'_>, headers: &HeaderMap, config: &HttpConfig) -> Self {
        let (packed, packs) = (head.content_encoding.is_some(), head.accept_encoding.is_some());
        Self {
            coding: if packed { encoding::of_body(headers) } else { Some(Coding::Identity) },
            header_length: header_length(head),
            accepts: if packs { encoding::of_answer(headers) } else { Coding::Identity },
            max_depth: config.max_json_depth,
            max_answer: config.max_answer_bytes,
        }
    }

    /// Refuses a body in a coding that is none of ours.
    pub(super) fn check_coding(&self) -> Result<(), Failure> {
        if self.coding.is_some() {
            return Ok(());
        }
        let text = "the content encoding of the request is not supported; expected gzip, deflate or identity";
        let failure = Self::failure(Refusal::new(Reason::Unsupported, text));
        Err(failure.with_header(http::header::ACCEPT_ENCODING, encoding::ACCEPTED))
    }
}

impl Codec for OipCodec {
    type Reply = Reply;

    const PROTOCOL: Protocol = Protocol::OipRest;

    fn coding(&self) -> Coding {
        self.coding.unwrap_or(Coding::Identity)
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<Reply>, Refusal> {
        let wrong = |text: String| Err(Refusal::new(Reason::InvalidInput, text));
        let request = match &self.header_length {
            HeaderLength::Absent => request::read(servable, body, body.len(), self.max_depth)?,
            HeaderLength::Bytes(0) => request::read_raw(servable, body)?,
            HeaderLength::Bytes(length) if *length > body.len() => {
                let got = body.len();
                return wrong(format!("{HEADER_LENGTH} is {length}, but the body has {got} bytes"));
            }
            HeaderLength::Bytes(length) => request::read(servable, body, *length, self.max_depth)?,
            HeaderLength::Wrong(text) => return wrong(text.to_string()),
        };
        let is_batched = servable.signatures().get(0).is_some_and(Signature::is_batched);
        let rows = request.inputs.first().filter(|_| is_batched).and_then(|input| input.shape().rows());
        Ok(Question {
            signature: 0,
            inputs: request.inputs,
            wanted: request.plan.wanted(),
            priority: Some(request.parameters.priority),
            timeout: request.parameters.queue_timeout,
            examples: rows.unwrap_or(1),
            reply: Reply { id: request.id, plan: request.plan },
        })
    }

    fn reading(&self, length: usize) -> usize {
        match self.header_length {
            HeaderLength::Bytes(document) => {
                let document = document.min(length);
                document + (length - document) / BYTES_AS_TEXT
            }
            HeaderLength::Absent | HeaderLength::Wrong(_) => length,
        }
    }

    fn weight(&self, reply: &Reply, outputs: &[Tensor]) -> usize {
        let is_packed = self.accepts != Coding::Identity;
        let planned = reply.plan.outputs.iter().zip(outputs);
        let weights = planned.map(|(planned, tensor)| match tensor.strings() {
            // Packing reads everything, and costs about as much for each byte as writing text does for each four.
            None if planned.binary && planned.classification.is_none() && !is_packed => 0,
            _ => text_weight(tensor).saturating_mul(4),
        });
        weights.fold(0, usize::saturating_add)
    }

    fn encode(&self, servable: &dyn Servable, reply: &Reply, response: &InferResponse) -> Result<Answer, Refusal> {
        reply::write(servable, reply, response, reply::Limits { packed: self.accepts, max_bytes: self.max_answer })
    }

    fn failure(refusal: Refusal) -> Failure {
        super::failed(&oip::Failure::from(refusal))
    }

    fn timed_out(refusal: Refusal) -> Failure {
        super::failed(&oip::Failure::of_timeout(refusal))
    }
}

fn header_length(head: &Head<'_>) -> HeaderLength {
    let Some(value) = head.header_length else { return HeaderLength::Absent };
    if head.has_two_lengths {
        return HeaderLength::Wrong(format!("{HEADER_LENGTH} stands twice").into());
    }
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) => HeaderLength::Bytes(length),
        None => {
            let text = String::from_utf8_lossy(value.as_bytes());
            let why = format!("{HEADER_LENGTH}: expected a whole number of bytes, got {}", Quoted(&text));
            HeaderLength::Wrong(why.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{HeaderLength, OipCodec, header_length};
    use crate::coding::Coding;
    use crate::exchange::Codec as _;
    use crate::head::{HEADER_LENGTH, Head};

    #[test]
    fn binary_inputs_are_little_work_for_their_length() {
        let reading = |header_length| {
            let codec = OipCodec {
                coding: Some(Coding::Identity),
                header_length,
                accepts: Coding::Identity,
                max_depth: 8,
                max_answer: 1 << 20,
            };
            codec.reading(600_000)
        };
        assert_eq!(reading(HeaderLength::Absent), 600_000);
        assert_eq!(reading(HeaderLength::Bytes(400)), 400 + 599_600 / 8);
        assert_eq!(reading(HeaderLength::Bytes(0)), 75_000);
        assert_eq!(reading(HeaderLength::Bytes(usize::MAX)), 600_000);
    }

    #[test]
    fn a_header_length_is_a_plain_number_that_stands_once() {
        let of = |headers: &HeaderMap| header_length(&Head::read(headers));
        let length = |text: &str| of(&HeaderMap::from_iter([(HEADER_LENGTH, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(of(&HeaderMap::new()), HeaderLength::Absent);
        assert_eq!(length("0"), HeaderLength::Bytes(0));
        assert_eq!(length("152"), HeaderLength::Bytes(152));
        for bad in ["-1", "abc", "+10", "1.0", "", "1 2", &"9".repeat(40)] {
            assert!(
                matches!(length(bad), HeaderLength::Wrong(text) if text.contains("header-content-length")),
                "{bad}"
            );
        }
        let mut twice = HeaderMap::new();
        twice.append(HEADER_LENGTH, HeaderValue::from_static("10"));
        twice.append(HEADER_LENGTH, HeaderValue::from_static("10"));
        assert!(matches!(of(&twice), HeaderLength::Wrong(_)));
    }
}
