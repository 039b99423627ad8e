//! What this server serves, as an OpenAPI document generated from what is loaded, and a page to browse it.
//!
//! The page is one file that asks nobody but this server. TorchServe's own descriptions of its two APIs are here too.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use millrace_core::{Reason, Refusal};
use millrace_protocol::tfs::Bare;
use serde_json::{Value, json};

mod paths;
mod schema;
mod text;

use paths::Paths;

use crate::error::Failure;
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;
use crate::torchserve::failure;

const PAGE: &str = include_str!("page.html");

/// `GET /openapi.json`: every route, and one of each protocol for each model that can serve.
pub(crate) fn document(shared: &Shared) -> Answer {
    let mut paths = Paths::new();
    paths::common(&mut paths);
    paths::plain(&mut paths);
    shared.parts.catalog.models().iter().for_each(|model| paths::model(&mut paths, model));
    let has_text = text::add_routes(&mut paths, shared);
    paths::platforms(&mut paths, &shared.parts.config);
    let title = "millrace";
    let mut document = described(title, "Models over every protocol that their clients speak.", paths);
    if has_text {
        text::add_schemas(&mut document["components"]);
    }
    answer(&document)
}

/// `GET /docs`: a page that shows the document and tries its routes.
pub(crate) fn page() -> Answer {
    let mut answer = response::json(StatusCode::OK, Bytes::from_static(PAGE.as_bytes()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Whatever a model may be called, the page runs no script but its own and asks nobody else.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}

/// `OPTIONS /predictions/{model}`: the routes of one model.
///
/// # Errors
/// 404 for a model that is not known.
pub(crate) fn of_model(shared: &Shared, name: &str) -> Result<Answer, Failure> {
    let name = segment(name).unwrap_or_default();
    let model = shared
        .parts
        .catalog
        .model(&name)
        .ok_or_else(|| failure(Refusal::new(Reason::ModelUnknown, format!("Model not found: {}", Bare(&name)))))?;
    let mut paths = Paths::new();
    paths::model(&mut paths, &model);
    Ok(answer(&described(name.as_ref(), "A model.", paths)))
}

/// TorchServe's description of its inference API.
pub(crate) fn torchserve_inference() -> Answer {
    torchserve(&[
        ("/", "options", "This description"),
        ("/api-description", "get", "This description"),
        ("/ping", "get", "Whether the server is well"),
        ("/predictions/{model_name}", "post", "A prediction of a model's default version"),
        ("/predictions/{model_name}/{model_version}", "post", "A prediction of one version"),
        ("/v1/models/{model_name}:predict", "post", "A prediction in the form of KServe v1"),
        ("/v2/models/{model_name}/infer", "post", "A prediction in the form of KServe v2"),
        ("/metrics", "get", "Metrics"),
    ])
}

/// TorchServe's description of its management API.
pub(crate) fn torchserve_management() -> Answer {
    torchserve(&[
        ("/", "options", "This description"),
        ("/api-description", "get", "This description"),
        ("/models", "get", "The models"),
        ("/models", "post", "Registers a model"),
        ("/models/{model_name}", "get", "Describes a model's default version"),
        ("/models/{model_name}", "put", "Scales a model's default version"),
        ("/models/{model_name}", "delete", "Unregisters a model's default version"),
        ("/models/{model_name}/{model_version}", "get", "Describes one version"),
        ("/models/{model_name}/{model_version}", "put", "Scales one version"),
        ("/models/{model_name}/{model_version}", "delete", "Unregisters one version"),
        ("/models/{model_name}/{model_version}/set-default", "put", "Makes a version the default"),
    ])
}

fn torchserve(list: &[(&'static str, &'static str, &'static str)]) -> Answer {
    let mut paths = Paths::new();
    paths::torchserve(&mut paths, list);
    answer(&described("TorchServe APIs", "TorchServe's API, as millrace answers it.", paths))
}

fn described(title: &str, description: &str, paths: Paths) -> Value {
    let mut document = json!({
        "openapi": "3.0.1",
        "info": {"title": title, "description": description, "version": env!("CARGO_PKG_VERSION")},
        "components": paths::components(),
    });
    document["paths"] = Value::Object(paths);
    document
}

fn answer(document: &Value) -> Answer {
    response::json(StatusCode::OK, document.to_string())
}
