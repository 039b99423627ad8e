//! The admin port's service: what is loaded, in full, and orders to load, unload and alias.
//!
//! JSON in and out, statuses by the plain table. Who may reach the port is the listener's affair; but a browser on the
//! same machine reaches it for any web page, so what a page sends is refused here.

use std::error::Error;

use bytes::Bytes;
use http::{Method, StatusCode, request};
use http_body::Body;
use millrace_core::{Alias, Control, ModelName, Quoted, Reason, Refusal};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::error::Failure;
use crate::exchange::{Asked, receive_order};
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;

mod view;

/// What an order may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    version: Option<u64>,
}

/// An admin route.
enum Verb<'a> {
    Models,
    Model(&'a str),
    Load(&'a str),
    Unload(&'a str),
    Alias { model: &'a str, alias: &'a str },
    Rescan,
}

/// Answers a request below `/admin/`; `rest` is the path after that.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, rest: &str, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Some(verb) = verb(rest) else { return Ok(not_found()) };
    let Some(control) = &shared.parts.control else {
        return Err(Failure::plain(Refusal::new(Reason::Unsupported, "this server takes no orders")));
    };
    order(shared, &**control, &verb, asked, body).await
}

async fn order<B>(
    shared: &Shared,
    control: &dyn Control,
    verb: &Verb<'_>,
    asked: Asked<'_>,
    body: B,
) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (parts, catalog) = (asked.parts, &*shared.parts.catalog);
    let after = |name: &ModelName| {
        // An order that was carried out is answered with the model as it is now.
        let status = catalog.model(name.as_str()).ok_or_else(|| unknown(name))?;
        Ok(view::model(&status))
    };
    let body = receive_order(shared, &asked, Failure::plain, body).await?;
    let method = &parts.method;
    match verb {
        Verb::Models if method == Method::GET => Ok(view::models(catalog)),
        Verb::Models => Ok(response::method_not_allowed("GET")),
        Verb::Model(model) if method == Method::GET => {
            let name = known_name(model)?;
            let status = catalog.model(name.as_str()).ok_or_else(|| unknown(&name))?;
            Ok(view::model(&status))
        }
        Verb::Model(_) => Ok(response::method_not_allowed("GET")),
        Verb::Load(model) if method == Method::POST => {
            let (name, version) = (known_name(model)?, version(parts, &body)?);
            control.load(&name, version).await.map_err(Failure::plain)?;
            after(&name)
        }
        Verb::Unload(model) if method == Method::POST => {
            let (name, version) = (known_name(model)?, version(parts, &body)?);
            control.unload(&name, version).await.map_err(Failure::plain)?;
            after(&name)
        }
        Verb::Load(_) | Verb::Unload(_) => Ok(response::method_not_allowed("POST")),
        Verb::Alias { model, alias } if method == Method::PUT => {
            let (name, alias) = (known_name(model)?, known_alias(alias)?);
            let version = version(parts, &body)?.ok_or_else(|| invalid("expected {\"version\": n}".to_owned()))?;
            control.set_alias(&name, &alias, version).await.map_err(Failure::plain)?;
            after(&name)
        }
        Verb::Alias { model, alias } if method == Method::DELETE => {
            let (name, alias) = (known_name(model)?, known_alias(alias)?);
            control.remove_alias(&name, &alias).await.map_err(Failure::plain)?;
            after(&name)
        }
        Verb::Alias { .. } => Ok(response::method_not_allowed("PUT, DELETE")),
        Verb::Rescan if method == Method::POST => {
            control.rescan().await.map_err(Failure::plain)?;
            Ok(view::models(catalog))
        }
        Verb::Rescan => Ok(response::method_not_allowed("POST")),
    }
}

/// The order that the path after `/admin/` means.
fn verb(path: &str) -> Option<Verb<'_>> {
    let mut parts = path.split('/');
    let (first, rest) = (parts.next()?, [parts.next(), parts.next(), parts.next(), parts.next()]);
    if parts.next().is_some() {
        return None;
    }
    match (first, rest) {
        ("models", [None, ..]) => Some(Verb::Models),
        ("rescan", [None, ..]) => Some(Verb::Rescan),
        ("models", [Some(model), None, ..]) => Some(Verb::Model(model)),
        ("models", [Some(model), Some("load"), None, _]) => Some(Verb::Load(model)),
        ("models", [Some(model), Some("unload"), None, _]) => Some(Verb::Unload(model)),
        ("models", [Some(model), Some("aliases"), Some(alias), None]) => Some(Verb::Alias { model, alias }),
        _ => None,
    }
}

fn known_name(text: &str) -> Result<ModelName, Failure> {
    segment(text).unwrap_or_default().parse().map_err(|error| invalid(format!("{error}")))
}

fn known_alias(text: &str) -> Result<Alias, Failure> {
    segment(text).unwrap_or_default().parse().map_err(|error| invalid(format!("{error}")))
}

/// The version of an order: from its body, else from its query, else none.
fn version(parts: &request::Parts, body: &[u8]) -> Result<Option<u64>, Failure> {
    if !body.trim_ascii().is_empty() {
        let order: Order = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("the body is not an order like {{\"version\": 1}}: {error}")))?;
        return Ok(order.version);
    }
    let mut version = None;
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "version" {
            let key = percent_decode_str(key).decode_utf8_lossy();
            return Err(invalid(format!("unknown parameter {}; expected version", Quoted(&key))));
        }
        let number =
            value.parse().map_err(|_| invalid(format!("version: expected a whole number, got {}", Quoted(value))))?;
        if version.replace(number).is_some() {
            return Err(invalid("version was given twice".to_owned()));
        }
    }
    Ok(version)
}

fn invalid(text: String) -> Failure {
    Failure::plain(Refusal::new(Reason::InvalidInput, text))
}

fn unknown(name: &ModelName) -> Failure {
    Failure::plain(Refusal::new(Reason::ModelUnknown, format!("no model is called `{name}`")))
}

pub(crate) fn not_found() -> Answer {
    response::json(StatusCode::NOT_FOUND, crate::error::error_body("not found"))
}
