//! `ModelInfer`, and the steps of any inference by this protocol: read the question, ask the model, write the answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use millrace_core::{
    InferRequest, InferResponse, Protocol, Reason, Refusal, RequestContext, Servable, Signature, Tensor,
};
use millrace_protocol::front::metrics::{Answered, Status};
use millrace_protocol::front::{Record, contained, contained_future, now, on_compute};
use millrace_protocol::oip::{self, OutputPlan, Parameters, raw_bytes, raw_len};
use tokio::time::timeout_at;

use super::answer::{Answer, Output};
use super::failure;
use super::request::{Outline, Question};
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, late, within};
use crate::failure::Failure;
use crate::head::Head;
use crate::reply::Reply;
use crate::service::Shared;

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
    let result = attempt(shared, call, &mut record, body).await;
    conclude(record, result).map(|reply| reply.into_response(call.head))
}

async fn attempt<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    record: &mut Record<'_>,
    body: B,
) -> Result<Done, Failure> {
    check_open(shared)?;
    let arrived = shared.message(call, body, shared.parts.config.max_message_bytes).await.map_err(failure)?;
    record.carried(arrived.sent);
    let message = arrived.bytes;
    let outline = Outline::read(&message).map_err(|error| failure(error.refusal()))?;
    let asked = ask(shared, call, record, &outline)?;
    let (deadline, id) = (Some(asked.deadline), outline.id.to_owned());
    let ready = {
        let decoding = pin!(decode(shared, asked, outline, &message));
        within(deadline, call.received, decoding).await?
    };
    // What was copied out of it is copied; what was not keeps it.
    drop(message);
    let answering = pin!(async {
        let Ready { servable, request, plan, patience, mut times } = ready;
        let future = contained(|| servable.infer(request)).map_err(failure)?;
        let response = patience.wait(contained_future(future)).await?;
        let reply = encode(shared, call.head, &*servable, &plan, response, (&id, None), &mut times).await?;
        Ok(Done { reply, ended: now(), times })
    });
    within(deadline, call.received, answering).await
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
    pub(super) deadline: Instant,
    arrived: Instant,
}

/// A request that can go to its model.
pub(super) struct Ready {
    pub(super) servable: Arc<dyn Servable>,
    pub(super) request: InferRequest,
    pub(super) plan: OutputPlan,
    pub(super) patience: Patience,
    pub(super) times: Answered,
}

/// An inference that was answered.
pub(super) struct Done {
    pub(super) reply: Reply,
    pub(super) ended: Instant,
    pub(super) times: Answered,
}

/// Records how a request ended.
pub(super) fn conclude(record: Record<'_>, result: Result<Done, Failure>) -> Result<Reply, Failure> {
    match result {
        Ok(Done { reply, ended, times }) => {
            record.answered(ended, Answered { response_bytes: reply.len(), ..times });
            Ok(reply)
        }
        Err(failure) => {
            record.refused(Status::Grpc(Some(failure.code())), failure.code(), failure.refusal().reason());
            Err(failure)
        }
    }
}

/// Finds the model of a request that has just arrived.
///
/// # Errors
/// A [`Failure`]: unknown, not ready, or a version that is none.
pub(super) fn ask(
    shared: &Shared,
    call: Call<'_>,
    record: &mut Record<'_>,
    outline: &Outline<'_>,
) -> Result<Asked, Failure> {
    let parts = &shared.parts;
    let arrived = now();
    let (context, deadline) = call.context(Protocol::OipGrpc, arrived, parts.config.request_timeout);
    let servable = oip::resolve_name(&*parts.resolver, outline.model_name, outline.model_version, &context)?;
    record.found(&*servable);
    Ok(Asked { servable, context, deadline, arrived })
}

/// Reads the question; on a compute thread where much has to be converted.
///
/// # Errors
/// A [`Failure`] that says what does not fit the model.
pub(super) async fn decode(
    shared: &Shared,
    asked: Asked,
    outline: Outline<'_>,
    message: &Bytes,
) -> Result<Ready, Failure> {
    let parts = &shared.parts;
    let Asked { servable, mut context, deadline, arrived } = asked;
    let question = if outline.weight(&*servable) > parts.config.offload_bytes {
        let (message, lease) = (message.clone(), Arc::clone(&servable));
        let read = move || Outline::read(&message)?.question(&message, &*lease);
        on_compute(&*parts.compute, read).await
    } else {
        contained(|| outline.question(message, &*servable))
    };
    let Question { inputs, plan, parameters } = question.and_then(|question| question).map_err(failure)?;
    context.priority = parameters.priority;
    let own = parameters.queue_deadline(context.received, deadline);
    context.deadline = Some(own);
    let is_batched = servable.signatures().get(0).is_some_and(Signature::is_batched);
    let rows = inputs.first().filter(|_| is_batched).and_then(|input| input.shape().rows());
    let times = Answered {
        decode: now().saturating_duration_since(arrived),
        examples: rows.unwrap_or(1),
        ..Answered::default()
    };
    let patience = Patience { parameters, own: Some(own).filter(|own| *own < deadline), received: context.received };
    let request = InferRequest { signature: 0, inputs, wanted: plan.wanted(), context };
    Ok(Ready { servable, request, plan, patience, times })
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
        result.map_err(|refusal| self.parameters.failure(refusal).into())
    }

    /// Whether a request of a stream wants an empty last answer from a model that ends without one.
    pub(super) fn wants_empty_end(&self) -> bool {
        self.parameters.empty_final_response
    }
}

/// Writes the answer that `response` is to the request called `id`; on a compute thread where much has to be converted.
///
/// # Errors
/// A [`Failure`]: too large, too much that was not taken, or outputs that are not what was wanted.
pub(super) async fn encode(
    shared: &Shared,
    head: &Head,
    servable: &dyn Servable,
    plan: &OutputPlan,
    response: InferResponse,
    (id, is_final): (&str, Option<bool>),
    times: &mut Answered,
) -> Result<Reply, Failure> {
    let began = now();
    times.queue = response.stages.queue();
    times.compute = response.stages.compute();
    let parts = &shared.parts;
    let (plan, tensors) = (plan.clone(), response.outputs);
    let work: usize = tensors
        .iter()
        .zip(&plan.outputs)
        .filter(|(tensor, planned)| tensor.strings().is_some() || planned.classification.is_some())
        .map(|(tensor, _)| raw_len(tensor))
        .sum();
    let convert = move || {
        let tensors = plan.apply(tensors)?;
        let one = |(planned, tensor): (_, Tensor)| Ok(Output { planned, raw: raw_bytes(&tensor)?, tensor });
        plan.outputs.into_iter().zip(tensors).map(one).collect::<Result<Vec<Output>, Refusal>>()
    };
    let outputs =
        if work > parts.config.offload_bytes { on_compute(&*parts.compute, convert).await } else { contained(convert) };
    let outputs = outputs.and_then(|outputs| outputs).map_err(failure)?;
    let (model, version) = (servable.model().as_str(), servable.version());
    let answer = Answer { model, version, id, is_final, outputs: &outputs };
    let reply = shared.finish(head, answer.write().map_err(failure)?).await.map_err(failure)?;
    times.encode += now().saturating_duration_since(began);
    Ok(reply)
}
