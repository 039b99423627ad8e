//! The Open Inference Protocol's service. Its rules are in `millrace-protocol`; here is what protobuf makes of them.

mod answer;
mod contents;
mod infer;
mod model;
mod repository;
mod request;
mod settings;
mod stream;

use std::pin::pin;
use std::sync::Arc;

use http::Response;
use millrace_core::{Protocol, Reason, Refusal, RequestContext};
use millrace_proto::inference::{
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use millrace_protocol::oip;
use prost::Message;

use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, within};
use crate::failure::Failure;
use crate::service::{Shared, unknown_method};

/// The service's full name.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";

/// Answers `method`.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    method: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    check_role(call, method)?;
    match method {
        "ModelInfer" => pin!(infer::infer(shared, call, body)).await,
        "ModelStreamInfer" => Ok(stream::stream(shared, call, body)),
        // A future of its own, so that inference does not carry the room that these need.
        _ => within(call.deadline(), call.received, Box::pin(others(shared, call, method, body))).await,
    }
}

/// The methods that carry no tensors.
async fn others<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    method: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    /// Reads the request, hands it to a function, answers with what that gives.
    macro_rules! ask {
        ($handle:expr) => {
            reply(shared, call, &$handle(shared, call, &request(shared, call, body).await?)?).await
        };
    }
    match method {
        "ServerLive" => ask!(server_live),
        "ServerReady" => ask!(server_ready),
        "ModelReady" => ask!(model_ready),
        "ServerMetadata" => ask!(server_metadata),
        "ModelMetadata" => ask!(model::metadata),
        "ModelConfig" => ask!(model::config),
        "ModelStatistics" => ask!(model::statistics),
        "RepositoryIndex" => ask!(repository::index),
        "RepositoryModelLoad" => {
            reply(shared, call, &repository::load(shared, call, &request(shared, call, body).await?).await?).await
        }
        "RepositoryModelUnload" => {
            reply(shared, call, &repository::unload(shared, call, &request(shared, call, body).await?).await?).await
        }
        "SystemSharedMemoryStatus" => ask!(settings::system_memory_status),
        "SystemSharedMemoryRegister" => ask!(settings::register_system_memory),
        "SystemSharedMemoryUnregister" => ask!(settings::unregister_system_memory),
        "CudaSharedMemoryStatus" => ask!(settings::cuda_memory_status),
        "CudaSharedMemoryRegister" => ask!(settings::register_cuda_memory),
        "CudaSharedMemoryUnregister" => ask!(settings::unregister_cuda_memory),
        "TraceSetting" => ask!(settings::trace),
        "LogSettings" => ask!(settings::log),
        _ => Err(unknown_method(&format!("/{SERVICE}/{method}"))),
    }
}

/// A refusal in this protocol's codes.
fn failure(refusal: Refusal) -> Failure {
    oip::Failure::from(refusal).into()
}

/// Refuses what the listener is not for.
fn check_role(call: Call<'_>, method: &str) -> Result<(), Failure> {
    let roles = call.connection.roles;
    let is_health = matches!(method, "ServerLive" | "ServerReady");
    if roles.inference || is_health || (roles.repository && method.starts_with("Repository")) {
        return Ok(());
    }
    Err(failure(Refusal::new(Reason::Unsupported, "models are not served on this port")))
}

async fn request<M: Message + Default, B: RequestBody>(shared: &Shared, call: Call<'_>, body: B) -> Result<M, Failure> {
    shared.request(call, body).await.map_err(failure)
}

async fn reply(shared: &Shared, call: Call<'_>, message: &impl Message) -> Result<Response<GrpcBody>, Failure> {
    shared.reply(call, message).await.map_err(failure)
}

/// The context of a question that no model runs for.
fn context(call: Call<'_>) -> RequestContext {
    RequestContext { caller: call.connection.caller, protocol: Protocol::OipGrpc, ..RequestContext::new(call.received) }
}

type Answered<T> = Result<T, Failure>;

#[expect(clippy::unnecessary_wraps, reason = "every method has the same form")]
fn server_live(shared: &Shared, _call: Call<'_>, _request: &ServerLiveRequest) -> Answered<ServerLiveResponse> {
    Ok(ServerLiveResponse { live: shared.parts.readiness.is_live() })
}

#[expect(clippy::unnecessary_wraps, reason = "every method has the same form")]
fn server_ready(shared: &Shared, _call: Call<'_>, _request: &ServerReadyRequest) -> Answered<ServerReadyResponse> {
    let parts = &shared.parts;
    let ready = parts.readiness.is_live() && !parts.readiness.is_draining() && parts.catalog.is_ready();
    Ok(ServerReadyResponse { ready })
}

fn model_ready(shared: &Shared, _call: Call<'_>, request: &ModelReadyRequest) -> Answered<ModelReadyResponse> {
    let version = oip::parse_version(&request.version).map_err(failure)?;
    let model = millrace_core::ModelRef { name: &request.name, version };
    let ready = oip::is_model_ready(&*shared.parts.catalog, &model)?;
    Ok(ModelReadyResponse { ready: ready && !shared.parts.readiness.is_refusing() })
}

#[expect(clippy::unnecessary_wraps, reason = "every method has the same form")]
fn server_metadata(
    shared: &Shared,
    call: Call<'_>,
    _request: &ServerMetadataRequest,
) -> Answered<ServerMetadataResponse> {
    let metadata = oip::ServerMetadata::new(repository::control(shared, call).is_ok());
    Ok(ServerMetadataResponse {
        name: metadata.name.to_owned(),
        version: metadata.version.to_owned(),
        extensions: metadata.extensions.into_iter().map(str::to_owned).collect(),
    })
}
