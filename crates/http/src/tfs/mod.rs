//! TensorFlow Serving's REST API, with KServe's v1 beside it: everything below `/v1/`.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, request};
use http_body::Body;
use millrace_core::{Reason, Refusal, RequestContext, Resolver, Servable};
use millrace_protocol::front::now;
use millrace_protocol::tfs::{Bare, Verb, resolve};

mod codec;
mod metadata;
mod route;
mod status;

pub(crate) use codec::TfsCodec;
use route::{Route, Target, VersionTooLarge};

use crate::error::Failure;
use crate::exchange::{Asked, exchange};
use crate::head::Head;
use crate::kserve::{self, EventCodec};
use crate::response::{self, Answer};
use crate::service::Shared;
use crate::torchserve::new_uuid;

/// Answers a request below `/v1/`; `rest` is the path after that.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, rest: &str, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (parts, get) = (&shared.parts, asked.parts.method == Method::GET);
    match route::route(rest) {
        Route::Infer(target, verb) if asked.parts.method == Method::POST => {
            let found = |resolver: &dyn Resolver, context: &RequestContext| find(&target, resolver, context);
            if verb == Verb::Predict
                && asked.head.may_be_event
                && let Some(mode) = kserve::mode(&asked.parts.headers, asked.head.content_type)
            {
                let codec = EventCodec::new(mode, new_uuid(shared), asked.head, &parts.config);
                return Box::pin(exchange(shared, asked, &codec, found, body)).await;
            }
            let codec = TfsCodec::new(verb, asked.head, &parts.config);
            pin!(exchange(shared, asked, &codec, found, body)).await
        }
        Route::Explain(target) if asked.parts.method == Method::POST => {
            let servable = find(&target, &*parts.resolver, &RequestContext::new(now()))?;
            let text = format!("model `{}` has no explainer; ask it with :predict", servable.model());
            // Its body is not read.
            Err(Failure::from(Refusal::new(Reason::Unsupported, text)).closing())
        }
        _ if asked.parts.method == Method::OPTIONS && parts.config.cors => Ok(preflight(asked.head)),
        Route::Status(target) if get => status::status(&*parts.catalog, &target),
        Route::Metadata(target) if get => metadata::metadata(&*parts.resolver, &target),
        Route::List if get => Ok(status::list(&*parts.catalog)),
        Route::Infer(..)
        | Route::Explain(_)
        | Route::Status(_)
        | Route::Metadata(_)
        | Route::List
        | Route::Malformed => Err(malformed(asked.parts)),
    }
}

/// The version that a path means now.
fn find(target: &Target<'_>, resolver: &dyn Resolver, context: &RequestContext) -> Result<Arc<dyn Servable>, Failure> {
    let model = target.model().map_err(|error| version_too_large(&error))?;
    Ok(resolve(resolver, &model, context)?)
}

/// A path or method below `/v1/` that is none of TensorFlow Serving's.
fn malformed(parts: &request::Parts) -> Failure {
    let (method, path) = (Bare(parts.method.as_str()), Bare(parts.uri.path()));
    Refusal::new(Reason::InvalidInput, format!("Malformed request: {method} {path}")).into()
}

/// The answer to a browser that asks whether it may ask.
fn preflight(head: &Head<'_>) -> Answer {
    let origin = head.origin.map(HeaderValue::as_bytes).map(String::from_utf8_lossy).unwrap_or_default();
    let known = origin.contains("http://") || origin.contains("https://");
    response::empty(if known { StatusCode::OK } else { StatusCode::BAD_REQUEST })
}

fn version_too_large(error: &VersionTooLarge<'_>) -> Failure {
    let text = format!("Failed to convert version: {} to numeric.", Bare(error.0));
    Refusal::new(Reason::InvalidInput, text).into()
}
