//! SageMaker's container contract: predictions from the one model, and for endpoints of many models the verbs that load,
//! list, unload and ask them. Its `/ping` is TorchServe's.

use std::error::Error;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use millrace_core::{ModelName, ModelRef, Quoted, Reason, Refusal, Registration, RequestContext, Resolver};
use millrace_protocol::torchserve::{self, Page, list, list_text, status_text};
use serde::Deserialize;
use serde_json::json;

use super::codec::PlatformCodec;
use super::{only_model, unknown};
use crate::error::Failure;
use crate::exchange::{Asked, exchange, receive_order};
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;
use crate::torchserve::query;

/// What a path asks for. Names are as they stand in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Invocations,
    Models,
    Model(&'a str),
    Invoke(&'a str),
}

/// The route of `path`, if it is one of these.
pub(super) fn route(path: &str) -> Option<Route<'_>> {
    if path == "/invocations" {
        return Some(Route::Invocations);
    }
    let mut parts = path.strip_prefix("/models")?.split('/');
    let rest: [Option<&str>; 4] = std::array::from_fn(|_| parts.next());
    match rest {
        [Some(""), None, ..] => Some(Route::Models),
        [Some(""), Some(model), None, _] if !model.is_empty() => Some(Route::Model(model)),
        [Some(""), Some(model), Some("invoke"), None] => Some(Route::Invoke(model)),
        _ => None,
    }
}

/// An order to load a model. Both spellings are in use.
#[derive(Debug, Deserialize)]
struct Load {
    #[serde(alias = "modelName")]
    model_name: String,
    #[serde(alias = "modelUrl")]
    url: String,
}

/// Answers a request.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(super) async fn answer<B>(shared: &Shared, asked: Asked<'_>, route: Route<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match (route, asked.parts.method.as_str()) {
        (Route::Invocations, "POST") => {
            let parameters = query(asked.parts.uri.query()).map_err(|error| invalid(error.to_string()))?;
            let named = parameters.iter().find(|(key, _)| key == "model_name").map(|(_, model)| model.as_str());
            invoke(shared, asked, named, body).await
        }
        (Route::Invoke(model), "POST") => {
            let model = segment(model).unwrap_or_default();
            invoke(shared, asked, Some(&model), body).await
        }
        (Route::Invocations | Route::Invoke(_), _) => Ok(response::method_not_allowed("POST")),
        (Route::Models | Route::Model(_), _) => order(shared, asked, route, body).await,
    }
}

async fn invoke<B>(shared: &Shared, asked: Asked<'_>, named: Option<&str>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let codec = PlatformCodec::new(shared, &asked)?;
    let configured = shared.parts.config.sagemaker.as_ref().and_then(|config| config.model.as_ref());
    let found = |resolver: &dyn Resolver, context: &RequestContext| match named {
        Some(name) => resolver.resolve(&ModelRef::new(name), context).map_err(|refusal| match refusal.reason() {
            Reason::ModelUnknown => unknown(name),
            _ => Failure::plain(refusal),
        }),
        None => only_model(&*shared.parts.catalog, resolver, configured, context),
    };
    exchange(shared, asked, &codec, found, body).await
}

/// Loads, lists, shows or unloads models.
async fn order<B>(shared: &Shared, asked: Asked<'_>, route: Route<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = receive_order(shared, &asked, Failure::plain, body).await?;
    let catalog = &*shared.parts.catalog;
    let root = shared.parts.config.sagemaker.as_ref().map_or("", |config| config.models_root.trim_end_matches('/'));
    match (route, asked.parts.method.as_str()) {
        (Route::Models, "GET") => {
            let parameters = query(asked.parts.uri.query()).map_err(|error| invalid(error.to_string()))?;
            let pairs = parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let mut page =
                list(catalog, Page::read(pairs).map_err(|failure| Failure::plain(failure.refusal().clone()))?);
            page.models.iter_mut().for_each(|model| model.model_url = format!("{root}/{}", model.model_url));
            Ok(response::json(StatusCode::OK, list_text(&page)))
        }
        (Route::Models, "POST") => load(shared, root, &body).await,
        (Route::Model(model), "GET") => {
            let name = segment(model).unwrap_or_default();
            let views = torchserve::describe(catalog, &name, None).map_err(|_| unknown(&name))?;
            let view = views.first().ok_or_else(|| unknown(&name))?;
            let body = json!({"modelName": view.model_name, "modelUrl": format!("{root}/{}", view.model_url)});
            Ok(response::json(StatusCode::OK, body.to_string()))
        }
        (Route::Model(model), "DELETE") => {
            let name = segment(model).unwrap_or_default();
            torchserve::describe(catalog, &name, None).map_err(|_| unknown(&name))?;
            let name: ModelName = name.parse().map_err(|_| unknown(&name))?;
            control(shared)?.unregister(&name, None).await.map_err(Failure::plain)?;
            Ok(response::json(StatusCode::OK, status_text(&format!("Model \"{name}\" unregistered"))))
        }
        (Route::Models, _) => Ok(response::method_not_allowed("GET, POST")),
        (Route::Model(_), _) => Ok(response::method_not_allowed("GET, DELETE")),
        (Route::Invocations | Route::Invoke(_), _) => Ok(response::method_not_allowed("POST")),
    }
}

async fn load(shared: &Shared, root: &str, body: &[u8]) -> Result<Answer, Failure> {
    let load: Load = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("expected {{\"model_name\": …, \"url\": …}}: {error}")))?;
    let name: ModelName = load.model_name.parse().map_err(|error| invalid(format!("{error}")))?;
    // Stores are searched for what follows the folder where SageMaker puts models.
    let path = match load.url.strip_prefix(root) {
        Some(rest) if rest.starts_with('/') => rest.trim_matches('/'),
        _ if load.url.starts_with('/') => {
            return Err(invalid(format!("url: expected a path below {root}, got {}", Quoted(&load.url))));
        }
        _ => &load.url,
    };
    let registration = Registration { name: Some(name), ..Registration::new(path) };
    let registered = control(shared)?.register(registration).await.map_err(|refusal| match refusal.reason() {
        // Its word for a model that finds no memory: it then unloads another and tries again.
        Reason::TooLarge => Failure::with_status(StatusCode::INSUFFICIENT_STORAGE, refusal.code(), refusal),
        _ => Failure::plain(refusal),
    })?;
    let status = format!("Model \"{}\" registered", registered.model);
    Ok(response::json(StatusCode::OK, status_text(&status)))
}

fn control(shared: &Shared) -> Result<&dyn millrace_core::Control, Failure> {
    let refused = || Failure::plain(Refusal::new(Reason::Unsupported, "this server takes no orders"));
    shared.parts.control.as_deref().ok_or_else(refused)
}

fn invalid(text: String) -> Failure {
    Failure::plain(Refusal::new(Reason::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use super::{Route, route};

    #[test]
    fn paths_are_these_and_no_others() {
        assert_eq!(route("/invocations"), Some(Route::Invocations));
        assert_eq!(route("/models"), Some(Route::Models));
        assert_eq!(route("/models/m"), Some(Route::Model("m")));
        assert_eq!(route("/models/m/invoke"), Some(Route::Invoke("m")));
        for path in ["/", "/models/", "/models/m/metrics", "/models/m/invoke/x", "/modelsx", "/invocations/x"] {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
