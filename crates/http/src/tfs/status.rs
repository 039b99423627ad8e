//! Which versions a model has and how they are: TensorFlow Serving's status, with KServe's two keys beside it.

use http::StatusCode;
use millrace_core::{Catalog, Code, ModelStatus, Reason, Refusal, VersionChoice, VersionStatus};
use millrace_protocol::tfs::{Bare, code_label};
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
    let name = Bare(wanted.name);
    let Some(model) = catalog.model(wanted.name) else {
        return Err(Refusal::new(Reason::ModelUnknown, format!("Could not find any versions of model {name}")).into());
    };
    let known = |number: u64| model.versions.iter().find(|status| status.version == number);
    let versions = match wanted.version {
        VersionChoice::Default | VersionChoice::Label(_) => model.versions.iter().map(version).collect(),
        VersionChoice::Number(number) => match known(number) {
            Some(status) => vec![version(status)],
            // Version 0 means that none was given, unless there is one.
            None if number == 0 => model.versions.iter().map(version).collect(),
            None => {
                let text = format!("Could not find version {number} of model {name}");
                return Err(Refusal::new(Reason::VersionUnknown, text).into());
            }
        },
    };
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
