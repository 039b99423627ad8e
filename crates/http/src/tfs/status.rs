//! Which versions a model has and how they are: TensorFlow Serving's status, with KServe's two keys beside it.

use http::StatusCode;
use millrace_core::{Catalog, Code, ModelStatus, VersionStatus};
use millrace_protocol::tfs::{code_label, model_status};
use serde::Serialize;

use super::{Target, version_too_large};
use crate::error::Failure;
use crate::response::{Answer, json};

#[derive(Serialize)]
struct StatusBody<'a> {
    model_version_status: Vec<VersionBody<'a>>,
    name: &'a str,
    ready: bool,
}

#[derive(Serialize)]
struct VersionBody<'a> {
    /// A 64-bit integer, so a string.
    version: String,
    state: &'static str,
    status: ErrorStatus<'a>,
}

#[derive(Serialize)]
struct ErrorStatus<'a> {
    error_code: &'static str,
    error_message: &'a str,
}

#[derive(Serialize)]
struct ListBody<'a> {
    models: Vec<&'a str>,
}

/// `GET /v1/models/{name}`, with or without a version. A label is accepted and filters nothing, as there.
///
/// # Errors
/// 404 for a model or version that is not known, 400 for a version that is no 64-bit number.
pub(super) fn status(catalog: &dyn Catalog, target: &Target<'_>) -> Result<Answer, Failure> {
    let wanted = target.model().map_err(|error| version_too_large(&error))?;
    let model = model_status(catalog, &wanted)?;
    let versions = model.versions.iter().map(version).collect();
    Ok(document(&StatusBody { model_version_status: versions, name: wanted.name, ready: model.is_ready() }))
}

/// `GET /v1/models`.
pub(super) fn list(catalog: &dyn Catalog) -> Answer {
    let models = catalog.models();
    document(&ListBody { models: models.iter().map(|model: &ModelStatus| model.name.as_str()).collect() })
}

fn version(status: &VersionStatus) -> VersionBody<'_> {
    let failure = status.failure.as_ref();
    VersionBody {
        version: status.version.to_string(),
        state: status.state.name(),
        status: ErrorStatus {
            error_code: code_label(failure.map(|failure| -> Code { failure.code })),
            error_message: failure.map_or("", |failure| &failure.message),
        },
    }
}

/// A 200 with `body` as JSON.
pub(super) fn document(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, serde_json::to_vec(body).expect("strings and numbers always become JSON"))
}
