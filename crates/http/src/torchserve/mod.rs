//! TorchServe's REST APIs: inference on listeners for clients, management on those for operators.
//!
//! Version strings, words and management orders are in `millrace-protocol`, shared with gRPC. Every answer carries a
//! request id, as TorchServe's do.

use std::error::Error;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use http_body::Body;
use millrace_core::{Reason, Refusal, RequestContext, Resolver};
use millrace_protocol::torchserve::{self, health_text, not_served, resolve};
use serde_json::json;

mod codec;
mod form;
mod input;
mod management;
mod metrics;
mod multipart;

pub(crate) use codec::{TorchServeCodec, changed, failure};
pub(crate) use form::query;
pub(crate) use input::media_type;
pub(crate) use management::manage;
pub(crate) use metrics::only_named;

use crate::exchange::{Asked, exchange};
use crate::head::REQUEST_ID;
use crate::openapi;
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;

/// What a path of the inference API asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Predict { model: &'a str, version: Option<&'a str> },
    Explain { model: &'a str },
    Ping,
    Description,
    Unknown,
}

/// The route of `path`, which begins with a slash.
fn route(path: &str) -> Route<'_> {
    let mut parts = path.split('/').skip(1);
    let verb = parts.next().unwrap_or_default();
    let [model, version] = [parts.next(), parts.next()].map(|part| part.filter(|part| !part.is_empty()));
    match (verb, model) {
        // What follows a version is a handler's own affair there; here it means nothing.
        ("predictions", Some(model)) => Route::Predict { model, version },
        ("explanations", Some(model)) => Route::Explain { model },
        ("ping", None) => Route::Ping,
        ("api-description", None) => Route::Description,
        _ => Route::Unknown,
    }
}

/// Answers a request for the inference API.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let method = &asked.parts.method;
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let answered = match route(asked.parts.uri.path()) {
        Route::Predict { model, .. } if *method == Method::OPTIONS => openapi::of_model(shared, model),
        Route::Predict { model, version } => predict(shared, asked, model, version, body).await,
        Route::Explain { model } => Err(failure(not_explained(model))),
        // SageMaker's contract has this route too.
        Route::Ping if is_read || shared.parts.config.sagemaker.is_some() => Ok(health(shared)),
        Route::Description if is_read || *method == Method::OPTIONS => Ok(openapi::torchserve_inference()),
        Route::Ping | Route::Description => Err(failure(torchserve::Failure::method_not_allowed())),
        Route::Unknown => Err(failure(torchserve::Failure::no_such_resource())),
    };
    let answer = answered.unwrap_or_else(|failure| shared.refuse(&failure, &asked));
    identified(shared, answer)
}

/// A prediction, whatever the method: uploading tools send `PUT`.
async fn predict<B>(
    shared: &Shared,
    asked: Asked<'_>,
    model: &str,
    version: Option<&str>,
    body: B,
) -> Result<Answer, crate::error::Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let codec = TorchServeCodec::new(&asked.parts.headers, asked.head, &shared.parts.config);
    let codec = codec.map_err(|refusal| failure(refusal).closing())?;
    let codec = codec.of_version(version.is_some());
    let [model, version] = [segment(model), version.and_then(segment)];
    let (model, version) = (model.as_deref().unwrap_or_default(), version.as_deref());
    let found =
        |resolver: &dyn Resolver, context: &RequestContext| resolve(resolver, model, version, context).map_err(failure);
    let mut is_found = false;
    let found =
        |resolver: &dyn Resolver, context: &RequestContext| found(resolver, context).inspect(|_| is_found = true);
    let answered = exchange(shared, asked, &codec, found, body).await;
    // A version that is there may have no worker all the same.
    answered.map_err(|refused| match refused.refusal().reason() {
        Reason::NotReady if is_found => {
            failure(not_served(refused.refusal().clone(), model, version)).in_place_of(refused)
        }
        _ => refused,
    })
}

fn not_explained(model: &str) -> Refusal {
    let model = segment(model).unwrap_or_default();
    let text = format!("model {} has no explainer; ask for predictions", millrace_core::Quoted(&model));
    Refusal::new(Reason::Unsupported, text)
}

/// `GET /ping`: whether this server answers requests.
pub(crate) fn health(shared: &Shared) -> Answer {
    let parts = &shared.parts;
    let is_healthy = parts.readiness.is_live() && !parts.readiness.is_draining() && parts.catalog.is_ready();
    let status = if is_healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    response::json(status, health_text(is_healthy))
}

/// The answer to a path that nobody has. TorchServe's clients look for its keys, ours for `error`.
pub(crate) fn not_found(shared: &Shared, asked: &Asked<'_>) -> Answer {
    let failure = failure(torchserve::Failure::no_such_resource()).in_form(|failure| {
        let (status, text) = (failure.status().as_u16(), failure.refusal().message());
        let kind = torchserve::kind_of(status, failure.refusal().reason());
        Bytes::from(json!({"code": status, "type": kind, "message": text, "error": text}).to_string())
    });
    identified(shared, shared.refuse(&failure, asked))
}

/// The answer with a request id of its own, where it has none yet; a client's own id goes before it.
pub(crate) fn identified(shared: &Shared, mut answer: Answer) -> Answer {
    if !answer.headers().contains_key(&REQUEST_ID) {
        let id = new_uuid(shared);
        answer.headers_mut().extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID, id)));
    }
    answer
}

/// A random UUID.
pub(crate) fn new_uuid(shared: &Shared) -> String {
    uuid(&[shared.front.log.new_id(), shared.front.log.new_id()].concat())
}

/// A random UUID out of 32 random hexadecimal digits.
fn uuid(digits: &str) -> String {
    let part = |range| digits.get(range).unwrap_or_default();
    // The first digit of the third part is the version, that of the fourth has the two highest bits 10.
    let variant = match digits.as_bytes().get(16).map_or(0, |digit| digit % 4) {
        0 => '8',
        1 => '9',
        2 => 'a',
        _ => 'b',
    };
    format!("{}-{}-4{}-{variant}{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::{Route, route, uuid};

    #[test]
    fn paths_name_a_model_and_perhaps_a_version() {
        let predict = |model, version| Route::Predict { model, version };
        assert_eq!(route("/predictions/m"), predict("m", None));
        assert_eq!(route("/predictions/m/"), predict("m", None));
        assert_eq!(route("/predictions/m/1.0"), predict("m", Some("1.0")));
        assert_eq!(route("/predictions/m/1.0/extra/path"), predict("m", Some("1.0")));
        assert_eq!(route("/explanations/m/1.0"), Route::Explain { model: "m" });
        assert_eq!(route("/ping"), Route::Ping);
        assert_eq!(route("/api-description"), Route::Description);
        for path in ["/predictions", "/predictions/", "/explanations", "/ping/x", "/Predictions/m", "/nonsense", "/"] {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn ids_are_random_uuids() {
        assert_eq!(uuid("0123456789abcdef0123456789abcdef"), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(uuid("ffffffffffffffffffffffffffffffff"), "ffffffff-ffff-4fff-afff-ffffffffffff");
    }
}
