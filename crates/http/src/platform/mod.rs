//! The routes that hosting platforms prescribe: SageMaker's and Vertex AI's. They answer only where they are configured,
//! and then go before all others.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http_body::Body;
use millrace_core::{Catalog, ModelName, ModelRef, Quoted, Reason, Refusal, RequestContext, Resolver, Servable};
use millrace_protocol::torchserve::{Page, list};

mod codec;
mod config;
mod sagemaker;

use codec::PlatformCodec;
pub use config::{SageMakerConfig, VertexConfig};

use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::{Asked, exchange};
use crate::health;
use crate::response::{self, Answer};
use crate::service::Shared;

/// A route of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    SageMaker(sagemaker::Route<'a>),
    VertexHealth,
    VertexPredict,
}

/// The route that `path` is by what is configured, if it is one.
pub(crate) fn route<'a>(path: &'a str, config: &HttpConfig) -> Option<Route<'a>> {
    match &config.vertex {
        Some(vertex) if path == vertex.health_route => return Some(Route::VertexHealth),
        Some(vertex) if path == vertex.predict_route => return Some(Route::VertexPredict),
        Some(_) | None => {}
    }
    config.sagemaker.as_ref().and_then(|_| sagemaker::route(path)).map(Route::SageMaker)
}

/// Answers a request for a platform's route.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, route: Route<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match route {
        Route::SageMaker(route) => Box::pin(sagemaker::answer(shared, asked, route, body)).await,
        Route::VertexHealth if matches!(asked.parts.method, Method::GET | Method::HEAD) => {
            Ok(health::ready(&shared.parts.readiness, &*shared.parts.catalog))
        }
        Route::VertexHealth => Ok(response::method_not_allowed("GET, HEAD")),
        Route::VertexPredict if asked.parts.method == Method::POST => {
            // Vertex AI's `parameters` are a key that the form does not look at.
            let codec = PlatformCodec::new(shared, &asked)?;
            let vertex = shared.parts.config.vertex.as_ref();
            let model = vertex.and_then(|vertex| vertex.model.as_ref());
            let found = |resolver: &dyn Resolver, context: &RequestContext| {
                only_model(&*shared.parts.catalog, resolver, model, context)
            };
            exchange(shared, asked, &codec, found, body).await
        }
        Route::VertexPredict => Ok(response::method_not_allowed("POST")),
    }
}

/// The model that a route without a name means: the one configured, or else the only one.
fn only_model(
    catalog: &dyn Catalog,
    resolver: &dyn Resolver,
    model: Option<&ModelName>,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    let only;
    let name = match model {
        Some(name) => name.as_str(),
        None => {
            // What was unloaded is not among them; what failed is, so that its requests do not go elsewhere.
            let mut models = list(catalog, Page { limit: 2, offset: 0 }).models;
            only = models.pop().ok_or_else(|| Failure::plain(Refusal::new(Reason::NotReady, "no model is served")))?;
            if !models.is_empty() {
                let text =
                    "several models are served, and this route names none; the server's configuration must name one";
                return Err(Failure::plain(Refusal::new(Reason::InvalidInput, text)));
            }
            &only.model_name
        }
    };
    resolver.resolve(&ModelRef::new(name), context).map_err(Failure::plain)
}

/// The failure of a model that is not there.
fn unknown(name: &str) -> Failure {
    Failure::plain(Refusal::new(Reason::ModelUnknown, format!("no model is called {}", Quoted(name))))
}
