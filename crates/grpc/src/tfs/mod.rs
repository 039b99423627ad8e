//! TensorFlow Serving's services. Its rules are in `millrace-protocol`; here is what protobuf makes of them.

mod examples;
mod metadata;
mod model;
mod predict;
mod read;
mod request;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use http::Response;
use millrace_core::{Reason, Refusal};
use millrace_proto::tensorflow::serving::ModelSpec;
use millrace_proto::tensorflow::serving::model_spec::VersionChoice;
use millrace_protocol::tfs::{self, Chosen, Verb};
use prost::Message;

use self::examples::Asked;
use self::predict::PredictCodec;
use self::write::NumberForm;
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, within};
use crate::exchange::exchange;
use crate::failure::Failure;
use crate::service::{Shared, unknown_method};

pub(crate) const PREDICTION: &str = "tensorflow.serving.PredictionService";
pub(crate) const MODEL: &str = "tensorflow.serving.ModelService";

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
    check_role(call, method)?;
    if (service, method) == (PREDICTION, "Predict") {
        let content = shared.parts.config.tfs_tensor_content;
        let codec = PredictCodec { form: if content { NumberForm::Content } else { NumberForm::Lists } };
        return exchange(shared, call, &codec, body).await;
    }
    // A future of its own, so that predict does not carry the room that these need.
    Box::pin(others(shared, call, (service, method), body)).await
}

/// The methods that run no model.
async fn others<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    (service, method): (&str, &str),
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    let examples = match (service, method) {
        (PREDICTION, "Classify") => Asked::One(Verb::Classify),
        (PREDICTION, "Regress") => Asked::One(Verb::Regress),
        (PREDICTION, "MultiInference") => Asked::Several,
        _ => return within(call.deadline(), call.received, questions(shared, call, (service, method), body)).await,
    };
    Err(examples::refuse(shared, call, examples, body).await)
}

/// The methods about models.
async fn questions<B: RequestBody>(
    shared: &Shared,
    call: Call<'_>,
    (service, method): (&str, &str),
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    match (service, method) {
        (PREDICTION, "GetModelMetadata") => {
            let request = request(shared, call, body).await?;
            reply(shared, call, &metadata::metadata(shared, call, &request)?).await
        }
        (MODEL, "GetModelStatus") => {
            let request = request(shared, call, body).await?;
            reply(shared, call, &model::status(shared, &request)?).await
        }
        (MODEL, "HandleReloadConfigRequest") => {
            let request = request(shared, call, body).await?;
            reply(shared, call, &model::reload(shared, call, &request).await?).await
        }
        _ => Err(unknown_method(&format!("/{service}/{method}"))),
    }
}

impl From<tfs::Failure> for Failure {
    fn from(failure: tfs::Failure) -> Self {
        Self::new(failure.code(), failure.refusal().clone())
    }
}

/// A refusal in TensorFlow Serving's codes.
fn failure(refusal: Refusal) -> Failure {
    tfs::Failure::from(refusal).into()
}

/// Refuses what the listener is not for. An order to reload says itself where it belongs.
fn check_role(call: Call<'_>, method: &str) -> Result<(), Failure> {
    if call.connection.roles.inference || method == "HandleReloadConfigRequest" {
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

/// A model specification as the rules see it.
fn spec_of(spec: &ModelSpec) -> tfs::ModelSpec<'_> {
    let version = match &spec.version_choice {
        None => Chosen::Nothing,
        Some(VersionChoice::Version(version)) => Chosen::Version(*version),
        Some(VersionChoice::VersionLabel(label)) => Chosen::Label(label),
    };
    tfs::ModelSpec { name: &spec.name, version, signature: &spec.signature_name }
}
