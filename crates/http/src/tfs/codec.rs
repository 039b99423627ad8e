//! TensorFlow Serving's JSON as a codec of the common exchange: predict, classify, regress.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, StatusCode};
use millrace_core::{InferResponse, Protocol, Reason, Refusal, Servable, Signature, Tensor, Wanted};
use millrace_json::{self as json, JsonError, PredictBody};
use millrace_protocol::tfs::{Verb, takes_tensors};

use crate::coding::Coding;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::{Codec, Question, text_weight};
use crate::head::Head;
use crate::response::{self, Answer};

/// Reads and writes one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TfsCodec {
    verb: Verb,
    is_gzip: bool,
    max_depth: usize,
    max_answer: usize,
    offload_bytes: usize,
    /// From this size on the answer is gzipped, where the client takes that.
    gzip_from: Option<usize>,
    /// From this size on it would be for others.
    gzip_others_from: Option<usize>,
}

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    signature: usize,
    form: json::Form,
}

impl TfsCodec {
    pub(crate) fn new(verb: Verb, head: &Head<'_>, config: &HttpConfig) -> Self {
        Self {
            verb,
            is_gzip: head.gzip,
            max_depth: config.max_json_depth,
            max_answer: config.max_answer_bytes,
            offload_bytes: config.offload_bytes,
            gzip_from: config.gzip_min_bytes.filter(|_| head.accepts_gzip),
            gzip_others_from: config.gzip_min_bytes,
        }
    }

    /// The same, whose answer is never gzipped.
    pub(crate) fn unpacked(self) -> Self {
        Self { gzip_from: None, gzip_others_from: None, ..self }
    }

    fn read(&self, servable: &dyn Servable, body: &[u8]) -> Result<PredictBody, Refusal> {
        match self.verb {
            Verb::Predict => json::decode_predict(body, servable.signatures(), self.max_depth)
                .map_err(|error| error.refusal(servable.model())),
            Verb::Classify | Verb::Regress => match json::check_examples(body, servable.signatures(), self.max_depth) {
                Ok(index) => Err(match servable.signatures().get(index) {
                    Some(signature) => takes_tensors(servable, signature, self.verb),
                    None => changed(servable),
                }),
                Err(JsonError::SignatureUnknown { name }) => Err(no_signature(servable, &name)),
                Err(error) => Err(error.refusal(servable.model())),
            },
        }
    }
}

impl Codec for TfsCodec {
    type Reply = Reply;

    const PROTOCOL: Protocol = Protocol::TfsRest;

    fn coding(&self) -> Coding {
        // TensorFlow Serving knows no other.
        if self.is_gzip { Coding::Gzip } else { Coding::Identity }
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<Reply>, Refusal> {
        let body = self.read(servable, body)?;
        let examples = examples(servable, &body);
        Ok(Question {
            signature: body.signature,
            inputs: body.inputs,
            wanted: Wanted::All,
            priority: None,
            timeout: None,
            examples,
            reply: Reply { signature: body.signature, form: body.form },
        })
    }

    fn weight(&self, _reply: &Reply, outputs: &[Tensor]) -> usize {
        let text = outputs.iter().map(text_weight).fold(0, usize::saturating_add).saturating_mul(4);
        // Compressing is long work too.
        if self.gzip_from.is_some_and(|least| text > least) {
            text.max(self.offload_bytes.saturating_add(1))
        } else {
            text
        }
    }

    fn encode(&self, servable: &dyn Servable, reply: &Reply, response: &InferResponse) -> Result<Answer, Refusal> {
        let signature = servable.signatures().get(reply.signature).ok_or_else(|| changed(servable))?;
        let body = json::encode_predict_within(reply.form, signature, &response.outputs, self.max_answer);
        let body = body.map_err(|error| error.refusal(servable.model()))?;
        let packed = self.gzip_from.is_some_and(|least| body.len() >= least);
        let body = if packed { Coding::Gzip.pack(&body)? } else { Bytes::from(body) };
        let mut answer = response::json(StatusCode::OK, body);
        if packed {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // Whoever caches must know also of the plain answer that others get another one.
        if packed || self.gzip_others_from.is_some_and(|least| answer.body().len() >= least) {
            answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        Ok(answer)
    }

    fn failure(refusal: Refusal) -> Failure {
        refusal.into()
    }
}

/// How many examples a request holds, in the words of TensorFlow Serving's metrics: its rows, or 1 where it has none.
fn examples(servable: &dyn Servable, body: &PredictBody) -> usize {
    let is_batched = servable.signatures().get(body.signature).is_some_and(Signature::is_batched);
    let sizes = body.inputs.first().map(Tensor::shape).filter(|_| is_batched || body.form == json::Form::Rows);
    sizes.and_then(|sizes| sizes.first().copied()).unwrap_or(1)
}

/// Why classify and regress are refused on a model without the signature `name`: TensorFlow Serving has other words for it
/// than for predict.
fn no_signature(servable: &dyn Servable, name: &str) -> Refusal {
    let text = format!("model `{}`: No signature was found with the name: {name}", servable.model());
    Refusal::new(Reason::SignatureUnknown, text)
}

fn changed(servable: &dyn Servable) -> Refusal {
    Refusal::new(Reason::BackendBroken, format!("model `{}` changed its signatures", servable.model()))
}
