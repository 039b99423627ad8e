//! The routes that take a small document and are no inference: the repository's index and its orders, trace and log
//! settings.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use millrace_core::{ModelName, Reason, Refusal};
use millrace_json::{Key, Kind, Reader, Scalar};
use millrace_protocol::oip::{
    LogSettings, Parameter, TRACE_SETTINGS, check_load_parameter, check_trace_setting, load_failure, no_control,
    order_model, repository_index,
};

use super::codec::OipCodec;
use super::document::{Wrong, invalid, once, want};
use super::{failed, view};
use crate::error::Failure;
use crate::exchange::{Asked, Codec, receive_order};
use crate::response::{self, Answer};
use crate::service::Shared;

/// Loading or unloading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Load,
    Unload,
}

/// `POST /v2/repository/index`.
///
/// # Errors
/// A [`Failure`] where the body is no order.
pub(super) async fn index<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = receive_order(shared, &asked, OipCodec::failure, body).await?;
    let mut ready_only = None;
    members(&body, |reader, key| {
        if !key.is("ready") {
            return Ok(reader.skip()?);
        }
        let here = *reader;
        match reader.scalar()? {
            Some(Scalar::Bool(ready)) => once(&mut ready_only, "ready", ready),
            _ => Err(invalid(format!("'ready' must be a boolean, got {}", here.shown()))),
        }
    })?;
    Ok(view::index(&repository_index(&*shared.parts.catalog, ready_only.unwrap_or(false))))
}

/// `POST /v2/repository/models/{name}/load` and `…/unload`. Ends when it is done.
///
/// # Errors
/// A [`Failure`]: not allowed here, no order, no such model to load, or what went wrong.
pub(super) async fn repository<B>(
    shared: &Shared,
    asked: Asked<'_>,
    (order, name): (Order, &str),
    body: B,
) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let control = shared.parts.control.as_ref().filter(|_| asked.connection.roles.repository);
    let control = control.ok_or_else(|| OipCodec::failure(no_control()).closing())?;
    let body = receive_order(shared, &asked, OipCodec::failure, body).await?;
    let model: ModelName = order_model(name).map_err(OipCodec::failure)?;
    let mut has_parameters = None;
    members(&body, |reader, key| {
        if !key.is("parameters") {
            return Ok(reader.skip()?);
        }
        once(&mut has_parameters, "parameters", ())?;
        want(reader, Kind::Object, "'parameters' must be an object")?;
        reader.object(|reader, key| parameter(order, reader, &key.text()))
    })?;
    let result = match order {
        Order::Load => control.load(&model, None).await.map_err(|refusal| failed(&load_failure(&model, refusal))),
        Order::Unload => match control.unload(&model, None).await {
            // What is not there is unloaded already.
            Err(refusal) if refusal.reason() == Reason::ModelUnknown => Ok(()),
            result => result.map_err(OipCodec::failure),
        },
    };
    result.map(|()| response::empty(StatusCode::OK))
}

fn parameter(order: Order, reader: &mut Reader<'_>, name: &str) -> Result<(), Wrong> {
    match order {
        Order::Load => Ok(check_load_parameter(name)?),
        // Nothing here depends on another model, so there is nothing more to unload.
        Order::Unload if name == "unload_dependents" => {
            want(reader, Kind::Bool, "'unload_dependents' must be a boolean")?;
            Ok(reader.skip()?)
        }
        Order::Unload => Ok(reader.skip()?),
    }
}

/// `POST /v2/trace/setting`, for a model or for all: nothing can be changed, and changing nothing succeeds.
///
/// # Errors
/// A [`Failure`] for anything that would have to change.
pub(super) async fn set_trace<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = receive_order(shared, &asked, OipCodec::failure, body).await?;
    members(&body, |reader, key| {
        let name = key.text();
        let mut values: Vec<Cow<'_, str>> = Vec::new();
        if reader.kind()? == Kind::List {
            reader.list(|reader, _| {
                values.extend(trace_value(reader, &name)?);
                Ok::<_, Wrong>(())
            })?;
        } else {
            values.extend(trace_value(reader, &name)?);
        }
        let values: Vec<&str> = values.iter().map(|value| &**value).collect();
        Ok(check_trace_setting(&name, &values)?)
    })?;
    Ok(trace())
}

/// The text of a trace setting's value; none for `null`, which resets it.
fn trace_value<'a>(reader: &mut Reader<'a>, name: &str) -> Result<Option<Cow<'a, str>>, Wrong> {
    let here = *reader;
    match reader.scalar()? {
        Some(Scalar::Null) => Ok(None),
        Some(Scalar::String(value)) => Ok(Some(value)),
        Some(Scalar::Int(value)) => Ok(Some(value.to_string().into())),
        _ => {
            Err(invalid(format!("trace setting '{name}' must be a string or a list of strings, got {}", here.shown())))
        }
    }
}

/// The trace settings as they are.
pub(super) fn trace() -> Answer {
    let value = |(name, value): (&'static str, &str)| {
        let value = if name == "trace_level" { serde_json::json!([value]) } else { value.into() };
        (name.to_owned(), value)
    };
    let settings: serde_json::Map<_, _> = TRACE_SETTINGS.into_iter().map(value).collect();
    response::json(StatusCode::OK, serde_json::Value::from(settings).to_string())
}

/// `POST /v2/logging`: nothing can be changed, and changing nothing succeeds.
///
/// # Errors
/// A [`Failure`] for anything that would have to change.
pub(super) async fn set_logging<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = receive_order(shared, &asked, OipCodec::failure, body).await?;
    let settings = LogSettings::current();
    members(&body, |reader, key| {
        let here = *reader;
        let value = match reader.scalar()? {
            Some(Scalar::Bool(value)) => Parameter::Bool(value),
            Some(Scalar::Int(value)) => Parameter::Int(value),
            Some(Scalar::Uint(value)) => Parameter::Uint(value),
            Some(Scalar::Double(value)) => Parameter::Double(value),
            Some(Scalar::String(value)) => Parameter::String(value),
            Some(Scalar::Null) | None => return Err(invalid(format!("a log setting cannot be {}", here.shown()))),
        };
        Ok(settings.check(&key.text(), &value)?)
    })?;
    Ok(logging())
}

/// The log settings as they are.
pub(super) fn logging() -> Answer {
    let value = |(name, value): (&'static str, Parameter<'static>)| {
        let value = match value {
            Parameter::Bool(value) => value.into(),
            Parameter::Int(value) => value.into(),
            Parameter::Uint(value) => value.into(),
            Parameter::Double(value) => value.into(),
            Parameter::String(value) => value.into_owned().into(),
        };
        (name.to_owned(), value)
    };
    let settings: serde_json::Map<_, serde_json::Value> =
        LogSettings::current().values().into_iter().map(value).collect();
    response::json(StatusCode::OK, serde_json::Value::from(settings).to_string())
}

/// Orders are shallow; this is more than any needs.
const MAX_DEPTH: usize = 16;

/// Calls `member` with every key of the object that `body` is; an empty body has none.
fn members<'a>(
    body: &'a [u8],
    member: impl FnMut(&mut Reader<'a>, Key<'a>) -> Result<(), Wrong>,
) -> Result<(), Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(body, MAX_DEPTH);
    let read = reader.object(member).and_then(|()| Ok(reader.finish()?));
    read.map_err(|wrong| match wrong {
        Wrong::Json(error) => OipCodec::failure(Refusal::new(Reason::InvalidInput, error.to_string())),
        Wrong::Refused(refusal) => OipCodec::failure(refusal),
    })
}
