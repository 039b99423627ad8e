//! `ModelStreamInfer`: requests as they come, answers as they are ready, matched by id.
//!
//! A request that fails is answered on the stream, which stays open; a client may ask for the first failure to end it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use millrace_core::{InferResponse, InferStream, Protocol, Refusal, contained};
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use millrace_protocol::front::{ConnectionContext, Record, now};

use super::answer::{Answer, Outputs, Told};
use super::failure;
use super::infer::{Begun, Ready, begin, check_open, convert, done, inquire, tell, tell_refused, write};
use super::request::Outline;
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, within};
use crate::exchange::{Done, conclude};
use crate::failure::Failure;
use crate::head::Head;
use crate::receive::Message;
use crate::reply::Reply;
use crate::service::Shared;
use crate::stream::{Answers, Plan, serve};

/// The parameter that tells the last answer to a request from those before it.
const FINAL_RESPONSE: &str = "triton_final_response";

/// Answers a call.
pub(super) fn stream<B: RequestBody>(shared: &Arc<Shared>, call: Call<'_>, body: B) -> Response<GrpcBody> {
    let config = &shared.parts.config;
    let asker = Arc::new(Asker { shared: Arc::clone(shared), head: call.head.clone(), connection: call.connection });
    let work = move |message: Message, answers: Answers| Arc::clone(&asker).answer(message, answers);
    let (max_message_bytes, at_once) = (config.max_message_bytes, config.max_stream_requests.max(1));
    serve(shared, call, body, Plan { max_message_bytes, at_once, failure, work })
}

/// What the requests of one stream share.
struct Asker {
    shared: Arc<Shared>,
    head: Head,
    connection: ConnectionContext,
}

/// What a request is called, once that is known.
#[derive(Default)]
struct Names {
    model: String,
    version: String,
    id: String,
}

impl Asker {
    /// Answers one request.
    async fn answer(self: Arc<Self>, message: Message, answers: Answers) -> Result<(), Failure> {
        let shared = &*self.shared;
        let received = now();
        // The call's own deadline is the stream's, and kept there.
        let call = Call { head: &Head { timeout: None, ..self.head.clone() }, connection: self.connection, received };
        let mut record = Record::new(&shared.parts.front, Protocol::OipGrpc, received);
        record.inquire(call.head.inquiry(shared.parts.config.server_timing));
        record.carried(message.len());
        let mut names = Names::default();
        let result = attempt(shared, call, &mut record, &mut names, message, &answers).await;
        // The head of the stream is long sent: what each request is told stands in its own answer.
        let told = match &result {
            Err(failure) if !self.head.ends_on_error => {
                record.take_account().map(|account| tell_refused(shared, &account, failure.refusal()))
            }
            Ok(_) | Err(_) => None,
        };
        let reply = match conclude(shared, record, result) {
            Ok(reply) => reply,
            Err(failure) if self.head.ends_on_error => return Err(failure),
            Err(failure) => {
                shared.log(&failure, &self.head);
                failed(names, &failure, told.unwrap_or_default())?
            }
        };
        // Nobody listens any more where this fails.
        let _gone = answers.send(reply).await;
        Ok(())
    }
}

/// From a message to the last answer to it; those before it are sent on the way.
async fn attempt(
    shared: &Shared,
    call: Call<'_>,
    record: &mut Record<'_>,
    names: &mut Names,
    message: Message,
    answers: &Answers,
) -> Result<Done, Failure> {
    check_open(shared)?;
    let parts = &shared.parts;
    let unpacked = message.unpack(parts.config.max_message_bytes, &parts.front, &*parts.compute).await;
    let message: Bytes = unpacked.map_err(failure)?;
    let arrived = now();
    if let Some(account) = record.account() {
        account.arrived(arrived);
    }
    let outline = Outline::read(&message).map_err(|error| failure(error.refusal()))?;
    *names = Names {
        model: outline.model_name.to_owned(),
        version: outline.model_version.to_owned(),
        id: outline.id.to_owned(),
    };
    let id = names.id.as_str();
    inquire(call, record, &outline)?;
    let begun = begin(shared, call, record, &outline, (&message, arrived))?;
    drop(outline);
    let ready = match begun {
        Begun::Ready(ready) => ready,
        Begun::Long(asked) => Box::pin(asked.read(shared, &message)).await?,
    };
    drop(message);
    let deadline = Some(ready.deadline);
    let answering = pin!(async {
        let Ready { servable, request, plan, patience, decoded, mut times, .. } = ready;
        if let Some(account) = record.account() {
            account.asked(&*servable, &request, times.examples, decoded);
        }
        let mut stream = contained(|| servable.infer_stream(request)).map_err(failure)?;
        let mut next = patience.wait(poll_fn(|context| poll(&mut stream, context))).await?;
        while let Some(response) = next {
            // Which answer is the last one shows only when the stream is asked for another.
            let ahead = poll_fn(|context| Poll::Ready(poll(&mut stream, context))).await;
            let is_final = matches!(ahead, Poll::Ready(Ok(None)));
            let began = now();
            if let Some(account) = record.account() {
                account.ran(response.stages, began);
            }
            let outputs = convert(shared, plan.clone(), response, &mut times).outputs(shared).await?;
            let told = if is_final { tell(shared, record) } else { Told::new() };
            let reply = write(&*servable, (id, Some(is_final)), (&outputs, &told))?;
            let reply = shared.finish(call.head, reply).await.map_err(failure)?;
            if is_final {
                return Ok(done(reply, began, times));
            }
            let _gone = answers.send(reply).await;
            next = match ahead {
                Poll::Ready(result) => patience.wait(std::future::ready(result)).await?,
                Poll::Pending => patience.wait(poll_fn(|context| poll(&mut stream, context))).await?,
            };
        }
        // The model ended without a last word. Most clients want to hear none.
        let (model, version) = (servable.model().as_str(), servable.version());
        let told = tell(shared, record);
        let empty = Answer { model, version, id, is_final: Some(true), outputs: &Outputs::default(), told: &told };
        let reply = if patience.wants_empty_end() { empty.write().map_err(failure)? } else { Reply::nothing() };
        Ok(done(reply, now(), times))
    });
    within(deadline, call.received, answering).await
}

/// The stream's next answer, or `None` after the last.
fn poll(stream: &mut InferStream, context: &mut Context<'_>) -> Poll<Result<Option<InferResponse>, Refusal>> {
    contained(|| stream.poll_next(context))
        .map_or_else(|refusal| Poll::Ready(Err(refusal)), |next| next.map(Option::transpose))
}

/// The answer that says why a request failed.
fn failed(names: Names, failure: &Failure, told: Told) -> Result<Reply, Failure> {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let is_final = [(FINAL_RESPONSE.to_owned(), parameter(ParameterChoice::BoolParam(true)))];
    let told = told.into_iter().map(|(name, text)| (name.to_owned(), parameter(ParameterChoice::StringParam(text))));
    let response = ModelInferResponse {
        model_name: names.model,
        model_version: names.version,
        id: names.id,
        parameters: is_final.into_iter().chain(told).collect(),
        ..ModelInferResponse::default()
    };
    let error_message = failure.refusal().message().to_owned();
    let message = ModelStreamInferResponse { error_message, infer_response: Some(response) };
    Reply::new(&message).map_err(super::failure)
}
