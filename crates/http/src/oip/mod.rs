//! The Open Inference Protocol v2 over REST, with Triton's extensions: everything below `/v2`.
//!
//! The rules are shared with gRPC and are in `millrace-protocol`; here are paths, documents and headers. Not there on
//! purpose: `generate` and `generate_stream`, which are for models of text, and shared memory.

use std::error::Error;
use std::pin::pin;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Body;
use millrace_core::{Code, ModelRef, Reason, Refusal, RequestContext, Resolver};
use millrace_protocol::front::now;
use millrace_protocol::oip::{
    self, ServerMetadata, check_repository, is_model_ready, model_config, model_metadata, model_statistics,
    no_shared_memory, parse_version, ready_statistics, resolve,
};
use millrace_protocol::tfs::Bare;

mod again;
mod codec;
mod document;
mod encoding;
mod order;
mod reply;
mod request;
mod route;
mod view;

use codec::OipCodec;
use order::Order;
use route::{Methods, Regions, Route, Target};

use crate::error::{Failure, error_body};
use crate::exchange::{Asked, Codec, exchange};
use crate::health;
use crate::response::{self, Answer};
use crate::service::Shared;

/// Answers a request below `/v2`; `rest` is the path after that.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, rest: &str, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let route = route::route(rest);
    let is_here = asked.connection.roles.inference
        || matches!(route, Route::Live | Route::Ready)
        || (route.is_repository() && asked.connection.roles.repository);
    if route == Route::Unknown || !is_here {
        return Ok(response::json(StatusCode::NOT_FOUND, error_body("Not Found")));
    }
    let is_post = asked.parts.method == Method::POST;
    let is_read = matches!(asked.parts.method, Method::GET | Method::HEAD);
    let allowed = match route.methods() {
        Methods::Read => is_read,
        Methods::Post => is_post,
        Methods::Both => is_read || is_post,
    };
    if !allowed {
        return Ok(method_not_allowed(route.methods()));
    }
    match route {
        Route::Infer(target) => {
            let codec = OipCodec::new(asked.head, &asked.parts.headers, &shared.parts.config);
            let found = |resolver: &dyn Resolver, context: &RequestContext| {
                let servable = resolve(resolver, &model(&target)?, context).map_err(|failure| failed(&failure))?;
                codec.check_coding()?;
                Ok(servable)
            };
            pin!(exchange(shared, asked, &codec, found, body)).await
        }
        Route::Index => Box::pin(order::index(shared, asked, body)).await,
        Route::Load(name) => Box::pin(order::repository(shared, asked, (Order::Load, &name), body)).await,
        Route::Unload(name) => Box::pin(order::repository(shared, asked, (Order::Unload, &name), body)).await,
        Route::Trace(name) => {
            known(shared, name.as_deref())?;
            if is_post { Box::pin(order::set_trace(shared, asked, body)).await } else { Ok(order::trace()) }
        }
        Route::Logging if is_post => Box::pin(order::set_logging(shared, asked, body)).await,
        Route::Logging => Ok(order::logging()),
        other => read(shared, &asked, &other),
    }
}

/// The routes that read nothing but the head.
fn read(shared: &Shared, asked: &Asked<'_>, route: &Route<'_>) -> Result<Answer, Failure> {
    let parts = &shared.parts;
    let (resolver, catalog) = (&*parts.resolver, &*parts.catalog);
    let context = RequestContext::new(now());
    let failed = |failure: oip::Failure| failed(&failure);
    Ok(match route {
        Route::Server => {
            view::server(&ServerMetadata::new(parts.control.is_some() && asked.connection.roles.repository))
        }
        Route::Live => health::live(&parts.readiness),
        Route::Ready => health::ready(&parts.readiness, catalog),
        Route::Models => view::models(catalog),
        Route::Model(target) => {
            let model = model(target)?;
            view::metadata(&model_metadata(resolver, catalog, &model, &context).map_err(failed)?)
        }
        Route::ModelReady(target) => {
            let ready = is_model_ready(catalog, &model(target)?).map_err(failed)?;
            view::model_ready(&target.name, ready)
        }
        Route::Config(target) => {
            let model = model(target)?;
            view::config(&model_config(resolver, catalog, &model, &context).map_err(failed)?)
        }
        Route::Statistics(None) => view::statistics(&ready_statistics(catalog)),
        Route::Statistics(Some(target)) => {
            view::statistics(&model_statistics(catalog, &model(target)?).map_err(failed)?)
        }
        Route::SharedMemory(Regions::Status, None) => response::json(StatusCode::OK, "[]"),
        Route::SharedMemory(Regions::Status, Some(region)) => {
            let text = format!("Unable to find shared memory region: '{}'", Bare(region));
            let refusal = Refusal::new(Reason::InvalidInput, text);
            return Err(Failure::with_status(StatusCode::NOT_FOUND, Code::NotFound, refusal));
        }
        Route::SharedMemory(Regions::Register, _) => return Err(OipCodec::failure(no_shared_memory())),
        // There is none, so none is left.
        Route::SharedMemory(Regions::Unregister, _) => response::empty(StatusCode::OK),
        Route::Repository(name) => {
            check_repository(name).map_err(OipCodec::failure)?;
            response::empty(StatusCode::OK)
        }
        Route::Generate(target) => {
            is_model_ready(catalog, &model(target)?).map_err(failed)?;
            let text = format!("model '{}' does not generate text; ask it with infer", Bare(&target.name));
            return Err(OipCodec::failure(Refusal::new(Reason::Unsupported, text)));
        }
        Route::Infer(_)
        | Route::Index
        | Route::Load(_)
        | Route::Unload(_)
        | Route::Trace(_)
        | Route::Logging
        | Route::Unknown => response::json(StatusCode::NOT_FOUND, error_body("Not Found")),
    })
}

/// The model and version that a path names.
fn model<'a>(target: &'a Target<'_>) -> Result<ModelRef<'a>, Failure> {
    let version = parse_version(target.version).map_err(OipCodec::failure)?;
    Ok(ModelRef { name: &target.name, version })
}

/// Refuses a model's name that is not known.
fn known(shared: &Shared, name: Option<&str>) -> Result<(), Failure> {
    let Some(name) = name else { return Ok(()) };
    let found = is_model_ready(&*shared.parts.catalog, &ModelRef::new(name));
    found.map(drop).map_err(|failure| failed(&failure))
}

/// A failure of this protocol as this front-end has it.
fn failed(failure: &oip::Failure) -> Failure {
    let status = StatusCode::from_u16(failure.http_status()).expect("the table holds three-digit statuses");
    Failure::with_status(status, failure.code(), failure.refusal().clone())
}

fn method_not_allowed(methods: Methods) -> Answer {
    let allow = match methods {
        Methods::Read => "GET, HEAD",
        Methods::Post => "POST",
        Methods::Both => "GET, HEAD, POST",
    };
    response::method_not_allowed(allow)
}
