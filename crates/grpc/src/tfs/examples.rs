//! `Classify`, `Regress` and `MultiInference`: asked as they should be, they are refused, for no model takes examples.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Place, Protocol, RequestContext, Servable};
use millrace_protocol::front::{Record, now};
use millrace_protocol::tfs::{self, ModelSpec, Verb};

use super::failure;
use super::request::{read_spec_only, read_tasks};
use crate::call::{Call, RequestBody};
use crate::exchange::refused;
use crate::failure::Failure;
use crate::service::Shared;

/// What is asked of examples.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// One thing.
    One(Verb),
    /// Several.
    Several,
}

/// Says why the call is refused, and records that it was.
pub(super) async fn refuse<B: RequestBody>(shared: &Shared, call: Call<'_>, asked: Asked, body: B) -> Failure {
    let mut record = Record::new(&shared.parts.front, Protocol::TfsGrpc, call.received);
    record.inquire(call.head.inquiry(shared.parts.config.server_timing));
    let failure = match read(shared, call, asked, body, &mut record).await {
        Ok(failure) | Err(failure) => failure,
    };
    refused(shared, record, failure)
}

/// The reason why no model answers; an error where it does not come to that.
async fn read<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    asked: Asked,
    body: B,
    record: &mut Record<'_>,
) -> Result<Failure, Failure> {
    shared.check_serving().map_err(failure)?;
    let limit = shared.parts.config.max_message_bytes;
    // They are refused for what they are; no queue is asked.
    let arrived = shared.message(call, body, limit, |_| Ok(Some(Place::default()))).await.map_err(failure)?;
    record.carried(arrived.sent);
    let at = now();
    if let Some(account) = record.account() {
        account.arrived(at);
    }
    let (context, _) = call.context(Protocol::TfsGrpc, at, shared.parts.config.request_timeout);
    match asked {
        Asked::One(verb) => one(shared, verb, &arrived.bytes, &context, record),
        Asked::Several => several(shared, &arrived.bytes, &context, record),
    }
}

fn one(
    shared: &Shared,
    verb: Verb,
    message: &Bytes,
    context: &RequestContext,
    record: &mut Record<'_>,
) -> Result<Failure, Failure> {
    let spec = read_spec_only(message).map_err(|error| failure(error.refusal()))?;
    let servable = found(shared, ModelSpec::model(spec.as_ref())?, context, record)?;
    Ok(tfs::refuse_examples(&*servable, verb, spec.map_or("", |spec| spec.signature)).into())
}

fn several(
    shared: &Shared,
    message: &Bytes,
    context: &RequestContext,
    record: &mut Record<'_>,
) -> Result<Failure, Failure> {
    let tasks = read_tasks(message).map_err(|error| failure(error.refusal()))?;
    let servable = found(shared, tfs::model_of_tasks(tasks.first())?, context, record)?;
    Ok(tfs::refuse_tasks(&*servable, tasks).into())
}

fn found(
    shared: &Shared,
    model: millrace_core::ModelRef<'_>,
    context: &RequestContext,
    record: &mut Record<'_>,
) -> Result<Arc<dyn Servable>, Failure> {
    let servable = tfs::resolve(&*shared.parts.resolver, &model, context)?;
    record.found(&*servable);
    Ok(servable)
}
