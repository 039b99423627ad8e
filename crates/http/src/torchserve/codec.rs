//! TorchServe's inference bodies as a codec of the common exchange: whatever a handler would take in, plain JSON out.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use millrace_core::{InferResponse, Protocol, Reason, Refusal, Servable, Signature, Tensor, Wanted};
use millrace_json::{Content, PlainBody, encode_plain_within};
use millrace_protocol::torchserve;

use super::input::Layout;
use crate::coding::Coding;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::{Codec, Question};
use crate::head::Head;
use crate::response::{self, Answer};

/// Reads and writes one request.
#[derive(Debug, Clone)]
pub(crate) struct TorchServeCodec {
    layout: Layout,
    coding: Coding,
    names_version: bool,
    max_depth: usize,
    max_answer: usize,
}

impl TorchServeCodec {
    /// The codec for a request of these headers.
    ///
    /// # Errors
    /// A [`Refusal`] for a coding that is not known and for a multipart body without a boundary.
    pub(crate) fn new(headers: &HeaderMap, head: &Head<'_>, config: &HttpConfig) -> Result<Self, Refusal> {
        Ok(Self {
            layout: Layout::of(headers.get(CONTENT_TYPE))?,
            coding: Coding::of_request(head.content_encoding)?,
            names_version: false,
            max_depth: config.max_json_depth,
            max_answer: config.max_answer_bytes,
        })
    }

    /// The same for a request that names a version.
    pub(super) fn of_version(self, names_version: bool) -> Self {
        Self { names_version, ..self }
    }

    /// Whether the body may be JSON as a whole.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.layout, Layout::Form | Layout::Single(Content::Json | Content::Unknown))
    }
}

impl Codec for TorchServeCodec {
    /// The position of the signature.
    type Reply = usize;

    const PROTOCOL: Protocol = Protocol::TorchServeRest;

    fn coding(&self) -> Coding {
        self.coding
    }

    fn names_version(&self) -> bool {
        self.names_version
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<usize>, Refusal> {
        let PlainBody { signature, inputs } = self.layout.read(servable, body, self.max_depth)?;
        let is_batched = servable.signatures().get(signature).is_some_and(Signature::is_batched);
        let sizes = inputs.first().map(Tensor::shape).filter(|_| is_batched);
        let examples = sizes.and_then(|sizes| sizes.first().copied()).unwrap_or(1);
        Ok(Question {
            signature,
            inputs,
            wanted: Wanted::All,
            priority: None,
            timeout: None,
            examples,
            reply: signature,
        })
    }

    fn encode(&self, servable: &dyn Servable, reply: &usize, response: &InferResponse) -> Result<Answer, Refusal> {
        let signature = servable.signatures().get(*reply).ok_or_else(|| changed(servable))?;
        let body = encode_plain_within(signature, &response.outputs, (b"", b""), self.max_answer);
        Ok(response::json(StatusCode::OK, body.map_err(|error| error.refusal(servable.model()))?))
    }

    fn failure(refusal: Refusal) -> Failure {
        failure(refusal)
    }
}

/// A failure in TorchServe's form.
pub(crate) fn failure(failure: impl Into<torchserve::Failure>) -> Failure {
    let failure = failure.into();
    let status = StatusCode::from_u16(failure.rest_status()).expect("the tables hold three-digit statuses");
    Failure::with_status(status, failure.code(), failure.refusal().clone()).in_form(|failure| {
        let (status, refusal) = (failure.status().as_u16(), failure.refusal());
        let kind = torchserve::kind_of(status, refusal.reason());
        Bytes::from(torchserve::error_text(status, kind, refusal.message()))
    })
}

/// The refusal where a version's signatures are no longer those that a request was read by.
pub(crate) fn changed(servable: &dyn Servable) -> Refusal {
    Refusal::new(Reason::BackendBroken, format!("model `{}` changed its signatures", servable.model()))
}
