//! `ModelInfer`, and the steps of any inference by this protocol: read the question, ask the model, write the answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Response};
use millrace_core::{
    InferRequest, InferResponse, Place, Protocol, Reason, Refusal, RequestContext, Servable, Signature, contained,
    on_compute,
};
use millrace_protocol::front::account::{Account, Inquiry, SERVER_TIMING};
use millrace_protocol::front::metrics::Answered;
use millrace_protocol::front::{Answering, Record, now};
use millrace_protocol::oip::{self, EXPLAIN_PARAMETER, OutputPlan, Parameters, TIMING_PARAMETER, raw_len};
use tokio::time::timeout_at;

use super::answer::{Answer, Outputs, Told};
use super::failure;
use super::request::{Outline, Question};
use crate::body::GrpcBody;
use crate::call::{Arrived, Call, RequestBody, late, within};
use crate::exchange::{Done, conclude};
use crate::failure::Failure;
use crate::knock::naming;
use crate::reply::Reply;
use crate::service::Shared;

/// The last of the fields that stand before the inputs: model, version, id and parameters.
const NAMING: u32 = 4;

/// Answers a call.
///
/// # Errors
/// A [`Failure`] for the caller, recorded, not yet logged.
pub(super) async fn infer<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    let mut record = Record::new(&shared.parts.front, Protocol::OipGrpc, call.received);
    record.inquire(call.head.inquiry(shared.parts.config.server_timing));
    // What is awaited where it lies is not copied there with all the room that it will ever need.
    let result = pin!(attempt(shared, call, &mut record, body)).await;
    conclude(shared, record, result).map(|reply| reply.into_response(call.head))
}

async fn attempt<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    record: &mut Record<'_>,
    body: B,
) -> Result<Done, Failure> {
    check_open(shared)?;
    let knock = |start: &[u8]| knock(shared, call, record, start);
    let limit = shared.parts.config.max_message_bytes;
    let arrived = pin!(shared.message(call, body, limit, knock)).await.map_err(failure)?;
    record.carried(arrived.sent);
    let Arrived { bytes: message, at, .. } = arrived;
    if let Some(account) = record.account() {
        account.arrived(at);
    }
    let (id, is_inside, begun) = {
        let outline = Outline::read(&message).map_err(|error| failure(error.refusal()))?;
        let is_inside = inquire(call, record, &outline)?;
        (outline.id.to_owned(), is_inside, begin(shared, call, record, &outline, (&message, at))?)
    };
    let ready = match begun {
        Begun::Ready(ready) => ready,
        // A future of its own, so that short requests do not carry the room that it needs.
        Begun::Long(asked) => Box::pin(asked.read(shared, &message)).await?,
    };
    // What was copied out of it is copied; what was not keeps it.
    drop(message);
    let Ready { servable, request, plan, patience, deadline, decoded, mut times } = ready;
    if let Some(account) = record.account() {
        account.asked(&*servable, &request, times.examples, decoded);
    }
    let response = {
        let future = contained(|| servable.infer(request)).map_err(failure)?;
        let until = patience.own.unwrap_or(deadline);
        let response = Answering::new(future, until).await;
        response.unwrap_or_else(|| Err(late(until, call.received))).map_err(|refusal| patience.failure(refusal))?
    };
    let began = now();
    if let Some(account) = record.account() {
        account.ran(response.stages, began);
    }
    let outputs = match convert(shared, plan, response, &mut times) {
        Converted::Here(outputs) => outputs.map_err(failure)?,
        Converted::Long(work) => {
            let work = on_compute(&*shared.parts.compute, work);
            let outputs = Box::pin(within(Some(deadline), call.received, work)).await;
            outputs.and_then(|outputs| outputs).map_err(failure)?
        }
    };
    let told = if is_inside { tell(shared, record) } else { Told::new() };
    let reply = write(&*servable, (&id, None), (&outputs, &told))?;
    drop(outputs);
    let reply = shared.finish(call.head, reply).await.map_err(failure)?;
    Ok(done(reply, began, times))
}

/// Announces a request of which the first bytes are there.
#[cold]
fn knock(shared: &Shared, call: Call<'_>, record: &mut Record<'_>, start: &[u8]) -> Result<Option<Place>, Refusal> {
    let Some(naming) = naming(start, NAMING) else { return Ok(None) };
    let outline = Outline::read(naming).ok();
    if let Some(outline) = &outline {
        // What it asks wrongly is told once it is read, and all of it is asked again then.
        let _later = inquire(call, record, outline);
    }
    let find = |context: &RequestContext| {
        let outline = outline?;
        oip::resolve_name(&*shared.parts.resolver, outline.model_name, outline.model_version, context).ok()
    };
    shared.knock(call, Protocol::OipGrpc, record, find).map(Some)
}

/// Reads what a request's parameters ask about it, beside what the call's head asks: whether the answer is to stand in the
/// message, where the clients that can set the one can read the other.
///
/// # Errors
/// A [`Failure`] for anything but on and off.
pub(super) fn inquire(call: Call<'_>, record: &mut Record<'_>, outline: &Outline<'_>) -> Result<bool, Failure> {
    let (timing, explain) = outline.asks().map_err(failure)?;
    if timing.is_none() && explain.is_none() {
        return Ok(false);
    }
    let known = record.account().map(|account| account.inquiry());
    let timing = timing.unwrap_or_else(|| known.is_some_and(|known| known.timing));
    let explain = explain.unwrap_or_else(|| known.is_some_and(|known| known.explain));
    let id = call.head.request_id.as_ref().map(HeaderValue::as_bytes);
    record.inquire(Inquiry::new(timing, explain, id));
    Ok(true)
}

/// What a request asked about itself, for its answer's parameters. It is not told again.
pub(super) fn tell(shared: &Shared, record: &mut Record<'_>) -> Told {
    let mut told = Told::new();
    if let Some(account) = record.take_account() {
        account.tell(now(), &*shared.parts.catalog, |name, text| told.push((parameter_of(name), text)));
    }
    told
}

/// The same for one that was refused with `refusal`.
pub(super) fn tell_refused(shared: &Shared, account: &Account, refusal: &Refusal) -> Told {
    let mut told = Told::new();
    account.tell_refused(refusal, now(), &*shared.parts.catalog, |name, text| told.push((parameter_of(name), text)));
    told
}

/// The parameter that says what elsewhere the header `name` does.
fn parameter_of(name: &str) -> &'static str {
    if name == SERVER_TIMING { TIMING_PARAMETER } else { EXPLAIN_PARAMETER }
}

/// Refuses what comes once the server has stopped taking requests.
pub(super) fn check_open(shared: &Shared) -> Result<(), Failure> {
    if shared.parts.readiness.is_refusing() {
        return Err(failure(Refusal::new(Reason::Draining, "the server is shutting down")));
    }
    Ok(())
}

/// A request whose model is found.
pub(super) struct Asked {
    servable: Arc<dyn Servable>,
    context: RequestContext,
    deadline: Instant,
    arrived: Instant,
}

/// A request that can go to its model.
pub(super) struct Ready {
    pub(super) servable: Arc<dyn Servable>,
    pub(super) request: InferRequest,
    pub(super) plan: OutputPlan,
    pub(super) patience: Patience,
    pub(super) deadline: Instant,
    /// When its message was read.
    pub(super) decoded: Instant,
    pub(super) times: Answered,
}

/// A request whose message has been looked at.
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it is made")]
pub(super) enum Begun {
    /// There was little to convert, and it is done.
    Ready(Ready),
    /// There is much to convert.
    Long(Asked),
}

/// Answered just now; writing the answer began at `began`.
pub(super) fn done(reply: Reply, began: Instant, times: Answered) -> Done {
    let encoded = now();
    Done { reply, encoded, times: Answered { encode: encoded.saturating_duration_since(began), ..times } }
}

/// Finds the model of a request whose message has `arrived`, and reads the question where that is little work.
///
/// # Errors
/// A [`Failure`]: a model that is unknown or not ready, a version that is none, or what does not fit the model.
pub(super) fn begin(
    shared: &Shared,
    call: Call<'_>,
    record: &mut Record<'_>,
    outline: &Outline<'_>,
    (message, arrived): (&Bytes, Instant),
) -> Result<Begun, Failure> {
    let parts = &shared.parts;
    if let Some(account) = record.account() {
        account.arrived(arrived);
    }
    let (context, deadline) = call.context(Protocol::OipGrpc, arrived, parts.config.request_timeout);
    let servable = oip::resolve_name(&*parts.resolver, outline.model_name, outline.model_version, &context)?;
    record.found(&*servable);
    let asked = Asked { servable, context, deadline, arrived };
    if outline.weight(&*asked.servable) > parts.config.offload_bytes {
        return Ok(Begun::Long(asked));
    }
    let question = contained(|| outline.question(message, &*asked.servable)).and_then(|question| question);
    Ok(Begun::Ready(asked.ready(question.map_err(failure)?)))
}

impl Asked {
    /// Reads the question on a compute thread.
    ///
    /// # Errors
    /// A [`Failure`] that says what does not fit the model.
    pub(super) async fn read(self, shared: &Shared, message: &Bytes) -> Result<Ready, Failure> {
        let (message, lease) = (message.clone(), Arc::clone(&self.servable));
        let read = move || Outline::read(&message)?.question(&message, &*lease);
        let reading = async { on_compute(&*shared.parts.compute, read).await.and_then(|question| question) };
        let question = within(Some(self.deadline), self.context.received, reading).await.map_err(failure)?;
        Ok(self.ready(question))
    }

    fn ready(self, question: Question) -> Ready {
        let Self { servable, mut context, deadline, arrived } = self;
        let Question { inputs, plan, parameters } = question;
        context.priority = parameters.priority;
        let own = parameters.queue_deadline(context.received, deadline);
        context.deadline = Some(own);
        let is_batched = servable.signatures().get(0).is_some_and(Signature::is_batched);
        let rows = inputs.first().filter(|_| is_batched).and_then(|input| input.shape().rows());
        let decoded = now();
        let times = Answered {
            decode: decoded.saturating_duration_since(arrived),
            examples: rows.unwrap_or(1),
            ..Answered::default()
        };
        let own = Some(own).filter(|own| *own < deadline);
        let patience = Patience { parameters, own, received: context.received };
        let request = InferRequest { signature: 0, inputs, wanted: plan.wanted(), context };
        Ready { servable, request, plan, patience, deadline, decoded, times }
    }
}

/// How long a request itself is willing to wait, and in which words that ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    parameters: Parameters,
    /// When its own `timeout` is over, where that is before any other deadline.
    own: Option<Instant>,
    received: Instant,
}

impl Patience {
    /// Waits for an answer.
    ///
    /// # Errors
    /// Its refusal as the protocol puts it.
    pub(super) async fn wait<T>(&self, future: impl Future<Output = Result<T, Refusal>>) -> Result<T, Failure> {
        let result = match self.own {
            None => future.await,
            Some(own) => timeout_at(own.into(), future).await.unwrap_or_else(|_| Err(late(own, self.received))),
        };
        result.map_err(|refusal| self.failure(refusal))
    }

    /// A model's refusal as the protocol puts it.
    fn failure(&self, refusal: Refusal) -> Failure {
        self.parameters.failure(refusal).into()
    }

    /// Whether a request of a stream wants an empty last answer from a model that ends without one.
    pub(super) fn wants_empty_end(&self) -> bool {
        self.parameters.empty_final_response
    }
}

/// Outputs on their way to the wire.
pub(super) enum Converted {
    /// There was little to convert, and it is done.
    Here(Result<Outputs, Refusal>),
    /// There is much to convert.
    Long(Box<dyn FnOnce() -> Result<Outputs, Refusal> + Send>),
}

/// Makes of `response` what the request wanted, where that is little work.
pub(super) fn convert(shared: &Shared, plan: OutputPlan, response: InferResponse, times: &mut Answered) -> Converted {
    times.queue = response.stages.queue();
    times.compute = response.stages.compute();
    let tensors = response.outputs;
    let work: usize = tensors
        .iter()
        .zip(&plan.outputs)
        .filter(|(tensor, planned)| tensor.strings().is_some() || planned.classification.is_some())
        .map(|(tensor, _)| raw_len(tensor))
        .sum();
    let convert = move || Outputs::new(plan, tensors);
    if work > shared.parts.config.offload_bytes {
        return Converted::Long(Box::new(convert));
    }
    Converted::Here(contained(convert).and_then(|outputs| outputs))
}

impl Converted {
    /// The outputs; those that are much work are made on a compute thread.
    ///
    /// # Errors
    /// A [`Failure`] where they are not what was wanted, or the compute pool's.
    pub(super) async fn outputs(self, shared: &Shared) -> Result<Outputs, Failure> {
        let outputs = match self {
            Self::Here(outputs) => outputs,
            Self::Long(convert) => {
                Box::pin(on_compute(&*shared.parts.compute, convert)).await.and_then(|outputs| outputs)
            }
        };
        outputs.map_err(failure)
    }
}

/// The answer to the request called `id`.
///
/// # Errors
/// A [`Failure`] where it is too large.
pub(super) fn write(
    servable: &dyn Servable,
    (id, is_final): (&str, Option<bool>),
    (outputs, told): (&Outputs, &Told),
) -> Result<Reply, Failure> {
    let (model, version) = (servable.model().as_str(), servable.version());
    Answer { model, version, id, is_final, outputs, told }.write().map_err(failure)
}
