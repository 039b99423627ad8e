//! What platforms send to their one route for predictions: TensorFlow Serving's forms, answered in them, or a bare value,
//! answered with one.

use bytes::Bytes;
use millrace_core::{InferResponse, Protocol, Refusal, Servable, Tensor};
use millrace_protocol::tfs::Verb;

use crate::coding::Coding;
use crate::error::Failure;
use crate::exchange::{Asked, Codec, Question};
use crate::response::Answer;
use crate::service::Shared;
use crate::tfs::TfsCodec;
use crate::torchserve::TorchServeCodec;

/// Reads and writes one request.
#[derive(Debug, Clone)]
pub(super) struct PlatformCodec {
    forms: TfsCodec,
    plain: TorchServeCodec,
}

/// Which of the two a request was.
pub(super) enum Reply {
    Form(<TfsCodec as Codec>::Reply),
    Plain(<TorchServeCodec as Codec>::Reply),
}

impl PlatformCodec {
    /// The codec for a request.
    ///
    /// # Errors
    /// A [`Failure`] for headers that make no sense.
    pub(super) fn new(shared: &Shared, asked: &Asked<'_>) -> Result<Self, Failure> {
        let config = &shared.parts.config;
        let plain = TorchServeCodec::new(&asked.parts.headers, asked.head, config);
        let plain = plain.map_err(|refusal| Failure::plain(refusal).closing())?;
        Ok(Self { forms: TfsCodec::new(Verb::Predict, asked.head, config), plain })
    }
}

impl Codec for PlatformCodec {
    type Reply = Reply;

    const PROTOCOL: Protocol = Protocol::Platform;

    fn coding(&self) -> Coding {
        self.plain.coding()
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<Reply>, Refusal> {
        if self.plain.is_json() && body.trim_ascii_start().first() == Some(&b'{') {
            return self.forms.decode(servable, body).map(|question| question.map(Reply::Form));
        }
        self.plain.decode(servable, body).map(|question| question.map(Reply::Plain))
    }

    fn weight(&self, reply: &Reply, outputs: &[Tensor]) -> usize {
        match reply {
            Reply::Form(reply) => self.forms.weight(reply, outputs),
            Reply::Plain(reply) => self.plain.weight(reply, outputs),
        }
    }

    fn encode(&self, servable: &dyn Servable, reply: &Reply, response: &InferResponse) -> Result<Answer, Refusal> {
        match reply {
            Reply::Form(reply) => self.forms.encode(servable, reply, response),
            Reply::Plain(reply) => self.plain.encode(servable, reply, response),
        }
    }

    fn failure(refusal: Refusal) -> Failure {
        Failure::plain(refusal)
    }
}
