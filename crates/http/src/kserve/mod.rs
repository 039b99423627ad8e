//! What KServe's v1 protocol adds to TensorFlow Serving's: requests and answers as CloudEvents, and an answer to those who
//! ask for explanations. Status and list are TensorFlow Serving's, with KServe's keys beside.

use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use millrace_core::{InferResponse, Protocol, Refusal, Servable, Tensor};
use millrace_protocol::tfs::Verb;
use millrace_protocol::time::rfc3339;

mod event;

use event::Envelope;
pub(crate) use event::{Mode, mode};

use crate::coding::Coding;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::{Codec, Question};
use crate::head::Head;
use crate::response::{Answer, ResponseBody};
use crate::tfs::TfsCodec;

/// Reads and writes one prediction that comes as an event.
#[derive(Debug, Clone)]
pub(crate) struct EventCodec {
    mode: Mode,
    codec: TfsCodec,
    max_depth: usize,
    /// That of the answer.
    id: String,
}

impl EventCodec {
    /// The codec for an event of these headers, whose answer is to have `id`.
    pub(crate) fn new(mode: Mode, id: String, head: &Head<'_>, config: &HttpConfig) -> Self {
        // What stands inside of an event is not packed.
        let codec = TfsCodec::new(Verb::Predict, head, config).unpacked();
        Self { mode, codec, max_depth: config.max_json_depth, id }
    }
}

impl Codec for EventCodec {
    type Reply = <TfsCodec as Codec>::Reply;

    const PROTOCOL: Protocol = Protocol::TfsRest;

    fn coding(&self) -> Coding {
        self.codec.coding()
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<Self::Reply>, Refusal> {
        match self.mode {
            Mode::Binary => self.codec.decode(servable, body),
            Mode::Structured => self.codec.decode(servable, &event::data(body, self.max_depth)?),
        }
    }

    fn weight(&self, reply: &Self::Reply, outputs: &[Tensor]) -> usize {
        self.codec.weight(reply, outputs)
    }

    fn encode(
        &self,
        servable: &dyn Servable,
        reply: &Self::Reply,
        response: &InferResponse,
    ) -> Result<Answer, Refusal> {
        let mut answer = self.codec.encode(servable, reply, response)?;
        let envelope = Envelope::new(&self.id, servable.model().as_str(), rfc3339(SystemTime::now()));
        match self.mode {
            Mode::Binary => envelope.write(answer.headers_mut()),
            Mode::Structured => {
                let data = std::mem::take(answer.body_mut()).into_bytes();
                *answer.body_mut() = ResponseBody::new(envelope.around(&data));
                let kind = HeaderValue::from_static("application/cloudevents+json");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
            }
        }
        Ok(answer)
    }

    fn failure(refusal: Refusal) -> Failure {
        TfsCodec::failure(refusal)
    }
}
