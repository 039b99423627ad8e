//! TensorFlow Serving's REST verbs: predict, classify, regress. Status and metadata are in the files below.
//!
//! Paths are read before and JSON is read below; here is the order of things: limits, body, version, inputs, answer.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, StatusCode};
use http_body::Body;
use millrace_core::{
    CallerId, Code, InferRequest, InferResponse, Priority, Protocol, Reason, Refusal, RequestContext, Servable,
    Signature, Tensor, Wanted,
};
use millrace_protocol::tfs::{Bare, Verb, code, resolve, rest_status};
use tokio::time::timeout_at;

mod metadata;
mod status;

pub(crate) use metadata::metadata;
pub(crate) use status::{list, status};

use crate::body::{self, Bounds, Received};
use crate::clock::now;
use crate::error::Failure;
use crate::gzip::{Unpacked, gunzip, gzip};
use crate::head::Head;
use crate::metrics::{Answered, Series};
use crate::offload::{contained, contained_future, on_compute};
use crate::response::{self, Answer};
use crate::route::{Target, VersionTooLarge};
use crate::service::Shared;
use millrace_json::{self as json, JsonError, PredictBody};

/// Bytes. Smaller answers are no burden even if every connection holds one.
const SMALL_ANSWER: usize = 64 << 10;

/// An inference request as its head puts it.
pub(crate) struct Asked<'a> {
    pub(crate) target: &'a Target<'a>,
    pub(crate) verb: Verb,
    pub(crate) head: &'a Head<'a>,
    pub(crate) caller: CallerId,
}

/// Answers `…:predict`, `…:classify` or `…:regress` and records how that went.
///
/// # Errors
/// A [`Failure`] for the caller, recorded, not yet logged.
pub(crate) async fn infer<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut record = Record { shared, series: None, received: now(), request_bytes: 0, ended: false };
    let result = attempt(&mut record, &asked, body).await;
    record.ended = true;
    match result {
        Ok(done) => {
            let answered = Answered {
                total: done.encoded.saturating_duration_since(record.received),
                decode: done.decode,
                encode: done.encode,
                compute: done.compute,
                examples: done.examples,
                request_bytes: record.request_bytes,
                response_bytes: done.answer.body().len(),
            };
            record.series().answered(asked.verb, &answered);
            Ok(done.answer)
        }
        Err(failure) => {
            record.failed(failure.status().as_u16(), failure.code(), failure.refusal().reason());
            Err(failure)
        }
    }
}

/// What is known of a request for the metrics, whenever it ends.
struct Record<'a> {
    shared: &'a Shared,
    series: Option<Arc<Series>>,
    received: Instant,
    request_bytes: usize,
    ended: bool,
}

impl Record<'_> {
    fn series(&self) -> Arc<Series> {
        self.series.clone().unwrap_or_else(|| self.shared.table.other())
    }

    fn failed(&self, status: u16, code: Code, reason: Reason) {
        self.shared.refusals.count(reason);
        let total = now().saturating_duration_since(self.received);
        self.series().refused(status, code, total, self.request_bytes);
    }
}

impl Drop for Record<'_> {
    /// Dropped before it ended: the client has left.
    fn drop(&mut self) {
        if !self.ended {
            self.failed(rest_status(Reason::Cancelled), code(Reason::Cancelled), Reason::Cancelled);
        }
    }
}

/// A request that was answered.
struct Done {
    answer: Answer,
    encoded: Instant,
    decode: Duration,
    encode: Duration,
    compute: Duration,
    examples: usize,
}

async fn attempt<B>(record: &mut Record<'_>, asked: &Asked<'_>, body: B) -> Result<Done, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let parts = &record.shared.parts;
    let config = &parts.config;
    if parts.readiness.is_refusing() {
        return Err(Failure::from(Refusal::new(Reason::Draining, "the server is shutting down")).closing());
    }
    body::check_length(asked.head.content_length, &body, config.max_body_bytes)?;
    // Its body is still unread, and a client that cannot write a number is not waited for.
    let patience = asked.head.timeout().map_err(|refusal| Failure::from(refusal).closing())?;
    // The client's own limit counts from its first byte; ours from its last, for a large body may rightly take long.
    let until = patience.and_then(|patience| record.received.checked_add(patience));
    let (bytes, time, rate) = (config.max_body_bytes, config.body_timeout, config.min_body_rate);
    let budget = Some(&record.shared.receiving);
    let body = body::read(body, Bounds { bytes, time, rate, started: record.received, until, budget }).await?;
    record.request_bytes = body.len();

    let arrived = now();
    let ours = arrived + config.request_timeout;
    let deadline = until.map_or(ours, |until| until.min(ours));
    let context = RequestContext {
        received: record.received,
        deadline: Some(deadline),
        priority: Priority::default(),
        caller: asked.caller,
        protocol: Protocol::TfsRest,
        depth: 0,
        lends_thread: true,
    };
    let model = asked.target.model().map_err(|error| version_too_large(&error))?;
    let servable = resolve(&*parts.resolver, &model, &context)?;
    record.series = Some(record.shared.table.of(&*servable));
    match timeout_at(deadline.into(), run(record.shared, asked, servable, body, context, arrived)).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => Err(late(deadline.saturating_duration_since(record.received)).into()),
    }
}

/// From a whole body to a whole answer.
async fn run(
    shared: &Shared,
    asked: &Asked<'_>,
    servable: Arc<dyn Servable>,
    body: Received,
    context: RequestContext,
    arrived: Instant,
) -> Result<Done, Refusal> {
    let (compute, config) = (&*shared.parts.compute, &shared.parts.config);
    let decoding = Decoding {
        verb: asked.verb,
        gzip: asked.head.gzip,
        max_bytes: config.max_decompressed_bytes,
        max_depth: config.max_json_depth,
    };
    // A gzipped body is small whatever it holds, so its size says nothing about the work.
    let body = if asked.head.gzip || body.len() > config.offload_bytes {
        let lease = Arc::clone(&servable);
        on_compute(compute, move || decoding.decode(&*lease, &body)).await??
    } else {
        let decoded = contained(|| decoding.decode(&*servable, &body));
        // The text has done its service; it must not wait for the model.
        drop(body);
        decoded??
    };
    let decoded = now();
    let (index, form) = (body.signature, body.form);
    let examples = examples(&*servable, &body);
    let request = InferRequest { signature: index, inputs: body.inputs, wanted: Wanted::All, context };
    let InferResponse { outputs, stages } = contained_future(contained(|| servable.infer(request))?).await?;
    let answered = now();

    let gzip_from = config.gzip_min_bytes.filter(|_| asked.head.accepts_gzip);
    let encoding = Encoding { signature: index, form, max_bytes: config.max_answer_bytes, gzip_from };
    let (body, packed) = if encoding.is_long(&outputs, config.offload_bytes) {
        on_compute(compute, move || encoding.encode(&*servable, &outputs)).await??
    } else {
        contained(|| encoding.encode(&*servable, &outputs))??
    };
    let body =
        if body.len() < SMALL_ANSWER { body } else { shared.unsent.hold(body).ok_or_else(|| no_room(shared))? };
    let mut answer = response::json(StatusCode::OK, body);
    if packed {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Whoever caches must know also of the plain answer that others get another one.
    if packed || config.gzip_min_bytes.is_some_and(|least| answer.body().len() >= least) {
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let encoded = now();
    Ok(Done {
        answer,
        encoded,
        decode: decoded.saturating_duration_since(arrived),
        encode: encoded.saturating_duration_since(answered),
        compute: stages.compute(),
        examples,
    })
}

/// How many examples a request holds, in the words of TensorFlow Serving's metrics: its rows, or 1 where it has none.
fn examples(servable: &dyn Servable, body: &PredictBody) -> usize {
    let is_batched = servable.signatures().get(body.signature).is_some_and(Signature::is_batched);
    let sizes = body.inputs.first().map(Tensor::shape).filter(|_| is_batched || body.form == json::Form::Rows);
    sizes.and_then(|sizes| sizes.first().copied()).unwrap_or(1)
}

/// How to read a body.
#[derive(Debug, Clone, Copy)]
struct Decoding {
    verb: Verb,
    gzip: bool,
    max_bytes: u64,
    max_depth: usize,
}

impl Decoding {
    fn decode(&self, servable: &dyn Servable, body: &[u8]) -> Result<PredictBody, Refusal> {
        if !self.gzip {
            return self.read(servable, body);
        }
        match gunzip(body, self.max_bytes) {
            Unpacked::Bytes(body) => self.read(servable, &body),
            Unpacked::TooLarge => {
                let text =
                    format!("the decompressed request body is larger than the limit of {} bytes", self.max_bytes);
                Err(Refusal::new(Reason::TooLarge, text))
            }
            // TensorFlow Serving goes on with an empty body; so its words, and the truth after them.
            Unpacked::Broken => {
                let text = format!("{}: the gzip body is damaged or cut", JsonError::Empty);
                Err(Refusal::new(Reason::InvalidInput, text))
            }
        }
    }

    fn read(&self, servable: &dyn Servable, body: &[u8]) -> Result<PredictBody, Refusal> {
        match self.verb {
            Verb::Predict => json::decode_predict(body, servable.signatures(), self.max_depth)
                .map_err(|error| error.refusal(servable.model())),
            Verb::Classify | Verb::Regress => match json::check_examples(body, servable.signatures(), self.max_depth) {
                Ok(signature) => Err(no_examples(servable, signature, self.verb)),
                Err(JsonError::SignatureUnknown { name }) => Err(no_signature(servable, &name)),
                Err(error) => Err(error.refusal(servable.model())),
            },
        }
    }
}

/// Why classify and regress are refused on a model without the signature `name`: TensorFlow Serving has other words for it
/// than for predict.
fn no_signature(servable: &dyn Servable, name: &str) -> Refusal {
    let text = format!("model `{}`: No signature was found with the name: {name}", servable.model());
    Refusal::new(Reason::SignatureUnknown, text)
}

/// Why `verb` is refused on a model whose signatures take tensors.
fn no_examples(servable: &dyn Servable, signature: usize, verb: Verb) -> Refusal {
    let kind = match verb {
        Verb::Predict | Verb::Classify => "classification",
        Verb::Regress => "regression",
    };
    let inputs = servable.signatures().get(signature).map_or(&[][..], Signature::inputs);
    let text = match inputs {
        [input] if &*input.name == "inputs" => "its signature takes tensors and not examples".to_owned(),
        [_] => format!("No {kind} inputs found in SignatureDef"),
        _ => "Expected one input Tensor.".to_owned(),
    };
    Refusal::new(Reason::InvalidInput, format!("model `{}`: {text}; ask it with :predict", servable.model()))
}

/// How to write an answer.
#[derive(Debug, Clone, Copy)]
struct Encoding {
    signature: usize,
    form: json::Form,
    max_bytes: usize,
    gzip_from: Option<usize>,
}

impl Encoding {
    /// Whether writing `outputs` would keep an I/O thread too long. Text is about four times the size of its tensors.
    fn is_long(&self, outputs: &[Tensor], offload_bytes: usize) -> bool {
        let limit = self.gzip_from.map_or(offload_bytes, |gzip_from| gzip_from.min(offload_bytes));
        outputs.iter().map(weight).fold(0, usize::saturating_add) > limit / 4
    }

    /// The body, and whether it is gzipped.
    fn encode(&self, servable: &dyn Servable, outputs: &[Tensor]) -> Result<(Bytes, bool), Refusal> {
        let signature = servable.signatures().get(self.signature).ok_or_else(|| {
            Refusal::new(Reason::BackendBroken, format!("model `{}` changed its signatures", servable.model()))
        })?;
        let body = json::encode_predict_within(self.form, signature, outputs, self.max_bytes);
        let body = body.map_err(|error| error.refusal(servable.model()))?;
        if self.gzip_from.is_none_or(|least| body.len() < least) {
            return Ok((Bytes::from(body), false));
        }
        let failed = |error: std::io::Error| {
            let cause: Box<dyn Error + Send + Sync> = error.into();
            Refusal::new(Reason::BackendBroken, "the answer could not be compressed").with_cause(cause)
        };
        Ok((gzip(&body).map_err(failed)?, true))
    }
}

/// The bytes of a tensor, or its lists where they hold nothing: `[1000000,0]` is no work to compute but some to write.
fn weight(tensor: &Tensor) -> usize {
    match tensor.n_bytes() {
        0 => tensor.shape().iter().take_while(|size| **size > 0).product(),
        bytes => bytes,
    }
}

fn no_room(shared: &Shared) -> Refusal {
    let limit = shared.unsent.total();
    let text = format!("answers that clients have not taken yet have reached their common limit of {limit} bytes");
    Refusal::new(Reason::QueueFull, text)
}

fn late(waited: Duration) -> Refusal {
    Refusal::new(Reason::Late, format!("deadline exceeded: no answer within {} ms", waited.as_millis()))
}

fn version_too_large(error: &VersionTooLarge<'_>) -> Failure {
    let text = format!("Failed to convert version: {} to numeric.", Bare(error.0));
    Refusal::new(Reason::InvalidInput, text).into()
}
