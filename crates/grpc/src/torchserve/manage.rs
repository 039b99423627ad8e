//! TorchServe's management API: orders, answered with the texts that REST has for them.

use std::time::Duration;

use http::Response;
use millrace_core::{Control, Reason, Refusal};
use millrace_proto::org::pytorch::serve::grpc::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest, ScaleWorkerRequest,
    SetDefaultRequest, UnregisterModelRequest,
};
use millrace_protocol::torchserve::{
    self, Done, PATIENCE, Page, Register, Scale, describe, describe_text, list, list_text, register, scale,
    set_default, status_text, unregister,
};
use tokio::time::timeout;

use super::{MANAGEMENT, failure, reply, request};
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody};
use crate::failure::Failure;
use crate::service::{Shared, unknown_method};

/// Answers `method`, on listeners for operators.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(super) async fn answer<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    method: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    let known = ["DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel"]
        .contains(&method);
    if !known {
        return Err(unknown_method(&format!("/{MANAGEMENT}/{method}")));
    }
    if !call.connection.roles.management {
        let text = "models are not managed on this port: ask the admin port";
        return Err(failure(Refusal::new(Reason::Forbidden, text)));
    }
    let catalog = &*shared.parts.catalog;
    let msg = match method {
        "DescribeModel" => {
            let request: DescribeModelRequest = request(shared, call, body).await?;
            describe_text(&describe(catalog, &request.model_name, Some(&request.model_version))?)
        }
        "ListModels" => {
            let request: ListModelsRequest = request(shared, call, body).await?;
            list_text(&list(catalog, page(request)))
        }
        "RegisterModel" => {
            let order = registration(&request(shared, call, body).await?)?;
            done(&patiently(order.synchronous, register(control(shared)?, &order)).await?)
        }
        "ScaleWorker" => {
            let request: ScaleWorkerRequest = request(shared, call, body).await?;
            let order = scaling(&request)?;
            let (model, version) = (&request.model_name, Some(&*request.model_version));
            done(&patiently(order.synchronous, scale(control(shared)?, catalog, model, version, order)).await?)
        }
        "SetDefault" => {
            let request: SetDefaultRequest = request(shared, call, body).await?;
            done(&set_default(control(shared)?, catalog, &request.model_name, &request.model_version).await?)
        }
        _ => {
            let request: UnregisterModelRequest = request(shared, call, body).await?;
            done(&unregister(control(shared)?, catalog, &request.model_name, Some(&request.model_version)).await?)
        }
    };
    reply(shared, call, &ManagementResponse { msg }).await
}

fn control(shared: &Shared) -> Result<&dyn Control, Failure> {
    let refused = || failure(Refusal::new(Reason::Unsupported, "this server takes no orders"));
    shared.parts.control.as_deref().ok_or_else(refused)
}

fn done(done: &Done) -> String {
    status_text(&done.status)
}

/// Waits for an order to its end, or where its sender does not want that, only so long that what is wrong with it shows.
async fn patiently(
    synchronous: bool,
    order: impl Future<Output = Result<Done, torchserve::Failure>>,
) -> Result<Done, torchserve::Failure> {
    let patience = if synchronous { Duration::MAX } else { PATIENCE };
    timeout(patience, order).await.unwrap_or_else(|_| Ok(Done::in_progress()))
}

/// A limit that is not set is 0 on the wire; nobody asks for a list of nothing.
fn page(request: ListModelsRequest) -> Page {
    let all = Page::default();
    match request.limit {
        0 => Page { limit: all.limit, ..Page::new(0, request.next_page_token.into()) },
        limit => Page::new(limit.into(), request.next_page_token.into()),
    }
}

/// Numbers that are not set are 0 on the wire.
fn registration(request: &RegisterModelRequest) -> Result<Register, Failure> {
    let numbers = [
        ("batch_size", request.batch_size),
        ("max_batch_delay", request.max_batch_delay),
        ("initial_workers", request.initial_workers),
    ];
    let numbers = numbers.map(|(key, number)| (key, number.to_string(), number != 0));
    let numbers = numbers.iter().filter(|(.., is_set)| *is_set).map(|(key, text, _)| (*key, text.as_str()));
    let synchronous = if request.synchronous { "true" } else { "false" };
    let texts = [("url", &*request.url), ("model_name", &*request.model_name), ("synchronous", synchronous)];
    Ok(Register::read(texts.into_iter().chain(numbers))?)
}

/// Numbers that are not set are 0 on the wire, so that nothing can be scaled to 0 this way; nor can it in TorchServe.
fn scaling(request: &ScaleWorkerRequest) -> Result<Scale, Failure> {
    let set = |number: i32| (number != 0).then_some(i64::from(number));
    Ok(Scale::new(set(request.min_worker), set(request.max_worker), request.synchronous)?)
}
