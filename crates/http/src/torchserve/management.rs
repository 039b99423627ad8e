//! TorchServe's management API over REST. What orders mean and what is answered is in `millrace-protocol`.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use millrace_core::{Control, Quoted, Reason, Refusal};
use millrace_protocol::torchserve::{
    self, Done, PATIENCE, Page, Register, Scale, describe, describe_text, list, list_text, register, scale,
    set_default, status_text, unregister,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{failure, form, identified, media_type};
use crate::error::Failure;
use crate::exchange::{Asked, receive_order};
use crate::openapi;
use crate::response::{Answer, json};
use crate::route::segment;
use crate::service::Shared;

/// What a path asks for. Names and versions are as they stand in the path.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Models,
    Model { model: &'a str, version: Option<&'a str> },
    Default { model: &'a str, version: &'a str },
    Ready { model: &'a str },
    Description,
    Unknown,
}

/// The route of `path`, which begins with a slash.
fn route(path: &str) -> Route<'_> {
    let mut parts = path.split('/').skip(1);
    let rest: [Option<&str>; 5] = std::array::from_fn(|_| parts.next());
    match rest {
        [Some("models"), None | Some(""), None, ..] => Route::Models,
        [Some("models"), Some(model), None | Some(""), None, _] => Route::Model { model, version: None },
        [Some("models"), Some(model), Some(version), None | Some(""), None] => {
            Route::Model { model, version: Some(version) }
        }
        [Some("models"), Some(model), Some(version), Some("set-default"), None] => Route::Default { model, version },
        [Some("v1"), Some("models"), Some(model), None, _] if !model.contains(':') => Route::Ready { model },
        [Some("" | "api-description"), None, ..] => Route::Description,
        _ => Route::Unknown,
    }
}

/// Answers a request for the management API.
pub(crate) async fn manage<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let answered = order(shared, asked, body).await;
    let answer = answered.unwrap_or_else(|failure| shared.refuse(&failure, &asked));
    identified(shared, answer)
}

async fn order<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (catalog, method) = (&*shared.parts.catalog, asked.parts.method.as_str());
    let body = receive_order(shared, &asked, failure, body).await?;
    let parameters = || parameters(asked.parts.uri.query(), &asked.parts.headers, &body);
    match (route(asked.parts.uri.path()), method) {
        (Route::Models, "GET") => {
            let page = Page::read(pairs(&parameters()?)).map_err(failure)?;
            Ok(json(StatusCode::OK, list_text(&list(catalog, page))))
        }
        (Route::Models, "POST") => {
            let order = Register::read(pairs(&parameters()?)).map_err(failure)?;
            let control = control(shared)?;
            done(patiently(order.synchronous, register(control, &order)).await)
        }
        (Route::Model { model, version }, "GET") => {
            let (model, version) = decoded(model, version);
            let views = describe(catalog, &model, version.as_deref()).map_err(failure)?;
            Ok(json(StatusCode::OK, describe_text(&views)))
        }
        (Route::Model { model, version }, "PUT") => {
            let order = Scale::read(pairs(&parameters()?)).map_err(failure)?;
            let (model, version) = decoded(model, version);
            let scaling = scale(control(shared)?, catalog, &model, version.as_deref(), order);
            done(patiently(order.synchronous, scaling).await)
        }
        (Route::Model { model, version }, "DELETE") => {
            let (model, version) = decoded(model, version);
            done(unregister(control(shared)?, catalog, &model, version.as_deref()).await)
        }
        (Route::Default { model, version }, "PUT") => {
            let (model, version) = decoded(model, Some(version));
            done(set_default(control(shared)?, catalog, &model, version.as_deref().unwrap_or_default()).await)
        }
        (Route::Ready { model }, "GET") => {
            let (model, _) = decoded(model, None);
            let views = describe(catalog, &model, None).map_err(failure)?;
            let name = views.first().map_or(&*model, |view| &view.model_name);
            let ready = catalog.model(name).is_some_and(|status| status.is_ready());
            let body = serde_json::json!({"name": name, "ready": ready});
            Ok(json(StatusCode::OK, body.to_string()))
        }
        (Route::Description, "GET" | "HEAD" | "OPTIONS") => Ok(openapi::torchserve_management()),
        (Route::Unknown, _) => Err(failure(torchserve::Failure::no_such_resource())),
        (Route::Models | Route::Model { .. } | Route::Default { .. } | Route::Ready { .. } | Route::Description, _) => {
            Err(failure(torchserve::Failure::method_not_allowed()))
        }
    }
}

/// Waits for an order to its end, or where its sender does not want that, only so long that what is wrong with it shows.
async fn patiently(
    synchronous: bool,
    order: impl Future<Output = Result<Done, torchserve::Failure>>,
) -> Result<Done, torchserve::Failure> {
    if synchronous {
        return order.await;
    }
    timeout(PATIENCE, order).await.unwrap_or_else(|_| Ok(Done::in_progress()))
}

fn done(done: Result<Done, torchserve::Failure>) -> Result<Answer, Failure> {
    let done = done.map_err(failure)?;
    let status = StatusCode::from_u16(done.rest_status).unwrap_or(StatusCode::OK);
    Ok(json(status, status_text(&done.status)))
}

fn control(shared: &Shared) -> Result<&dyn Control, Failure> {
    let refused = || failure(Refusal::new(Reason::Unsupported, "this server takes no orders"));
    shared.parts.control.as_deref().ok_or_else(refused)
}

fn decoded(model: &str, version: Option<&str>) -> (String, Option<String>) {
    let text = |part| segment(part).unwrap_or_default().into_owned();
    (text(model), version.map(text))
}

fn pairs(parameters: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// The parameters of an order: those of its query string, then those of its body.
fn parameters(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let mut parameters = form::query(query).map_err(|error| invalid(&error.to_string()))?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match media_type(content_type).as_str() {
        _ if body.trim_ascii().is_empty() => {}
        "application/json" => parameters.extend(json_parameters(body)?),
        "application/x-www-form-urlencoded" => {
            let body = String::from_utf8_lossy(body);
            parameters.extend(form::query(Some(&body)).map_err(|error| invalid(&error.to_string()))?);
        }
        // TorchServe looks at no other body.
        _ => {}
    }
    Ok(parameters)
}

fn json_parameters(body: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| invalid(&format!("the body is not a JSON object: {error}")))?;
    let text = |(key, value): (String, Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(Ok((key, text))),
        Value::Bool(_) | Value::Number(_) => Some(Ok((key, value.to_string()))),
        Value::Array(_) | Value::Object(_) => {
            Some(Err(invalid(&format!("Parameter {}: expected a string, a number or a boolean.", Quoted(&key)))))
        }
    };
    object.into_iter().filter_map(text).collect()
}

fn invalid(text: &str) -> Failure {
    failure(Refusal::new(Reason::InvalidInput, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Route, route};

    #[test]
    fn paths_name_models_and_versions() {
        let model = |model, version| Route::Model { model, version };
        assert_eq!(route("/models"), Route::Models);
        assert_eq!(route("/models/"), Route::Models);
        assert_eq!(route("/models/m"), model("m", None));
        assert_eq!(route("/models/m/all"), model("m", Some("all")));
        assert_eq!(route("/models/m/1.0/set-default"), Route::Default { model: "m", version: "1.0" });
        assert_eq!(route("/v1/models/m"), Route::Ready { model: "m" });
        assert_eq!(route("/"), Route::Description);
        assert_eq!(route("/api-description"), Route::Description);
        for path in ["/models/m/1.0/other", "/models/m/1/set-default/x", "/v1/models", "/nonsense", "/model"] {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }
}
