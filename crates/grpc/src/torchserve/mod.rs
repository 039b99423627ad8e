//! TorchServe's services. Its rules and the texts of its answers are in `millrace-protocol`; here is what protobuf makes
//! of them.

mod manage;
mod predict;
mod request;

use std::sync::Arc;

use http::Response;
use millrace_core::{Reason, Refusal};
use millrace_proto::org::pytorch::serve::grpc::inference::TorchServeHealthResponse;
use millrace_protocol::torchserve::{self, health_text};
use prost::Message;

use self::predict::PredictCodec;
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, within};
use crate::exchange::exchange;
use crate::failure::Failure;
use crate::service::{Shared, unknown_method};

pub(crate) const INFERENCE: &str = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
pub(crate) const MANAGEMENT: &str = "org.pytorch.serve.grpc.management.ManagementAPIsService";

/// Answers `method` of `service`.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    (service, method): (&str, &str),
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    match (service, method) {
        // A stream of the one answer that there is to one request looks like that answer.
        (INFERENCE, "Predictions" | "StreamPredictions") => {
            check_serves(call)?;
            exchange(shared, call, &PredictCodec::new(&shared.parts.config), body).await
        }
        (INFERENCE, "StreamPredictions2") => {
            check_serves(call)?;
            Ok(predict::stream(shared, call, body))
        }
        // A future of its own, so that predictions do not carry the room that these need.
        _ => within(call.deadline(), call.received, Box::pin(others(shared, call, (service, method), body))).await,
    }
}

/// The methods that run no model.
async fn others<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    (service, method): (&str, &str),
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    match (service, method) {
        (INFERENCE, "Ping") => {
            let () = request(shared, call, body).await?;
            let parts = &shared.parts;
            let is_healthy = parts.readiness.is_live() && !parts.readiness.is_draining() && parts.catalog.is_ready();
            reply(shared, call, &TorchServeHealthResponse { health: health_text(is_healthy).to_owned() }).await
        }
        (MANAGEMENT, _) => manage::answer(shared, call, method, body).await,
        _ => Err(unknown_method(&format!("/{service}/{method}"))),
    }
}

impl From<torchserve::Failure> for Failure {
    fn from(failure: torchserve::Failure) -> Self {
        Self::new(failure.code(), failure.refusal().clone())
    }
}

/// A refusal in TorchServe's codes.
fn failure(refusal: Refusal) -> Failure {
    torchserve::Failure::from(refusal).into()
}

/// Refuses what only listeners for clients do.
fn check_serves(call: Call<'_>) -> Result<(), Failure> {
    if call.connection.roles.inference {
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
