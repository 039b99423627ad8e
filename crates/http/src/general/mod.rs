//! The general endpoints: predictions from rows of numbers, several at once, and what is known of models.
//!
//! Errors have the form `{"detail": …}`: a text, or for a body that cannot be read a list that says where.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use http_body::Body;
use millrace_core::{
    Code, ModelRef, Place, Protocol, Reason, Refusal, RequestContext, Resolver, Servable, TENSORS, VersionChoice,
    VersionState, on_compute,
};
use millrace_protocol::front::{Record, now};
use millrace_protocol::tfs::Bare;
use serde_json::json;

mod codec;
mod join;
mod request;
mod view;

use codec::GeneralCodec;
pub(crate) use codec::predictions;
pub(crate) use join::join_all;
use request::{KEYS, Malformed, Prediction};

use crate::coding::Coding;
use crate::error::Failure;
use crate::exchange::{Arrived, Asked, Done, announce, conclude, has_long_body, infer, receive, unpack};
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;
use crate::text;
use crate::torchserve::query;

/// What a path asks for. Names are as they stand in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Predict(Option<&'a str>),
    BatchPredict,
    Models,
    Metrics(&'a str),
}

/// The route of `path`, if it is one of these.
pub(crate) fn route(path: &str) -> Option<Route<'_>> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let rest: [Option<&str>; 4] = std::array::from_fn(|_| parts.next());
    match rest {
        [Some("predict"), None, ..] => Some(Route::Predict(None)),
        [Some("predict"), Some(model), None, _] if !model.is_empty() => Some(Route::Predict(Some(model))),
        [Some("batch_predict"), None, ..] => Some(Route::BatchPredict),
        [Some("models"), None, ..] => Some(Route::Models),
        [Some("models"), Some(model), Some("metrics"), None] => Some(Route::Metrics(model)),
        _ => None,
    }
}

/// Answers a request for the general endpoints.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, route: Route<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (parts, catalog) = (asked.parts, &*shared.parts.catalog);
    match (route, parts.method.as_str()) {
        (Route::Predict(model), "POST") => predict(shared, asked, model, body).await,
        (Route::BatchPredict, "POST") => predict_batch(shared, asked, body).await,
        (Route::Models, "GET" | "HEAD") => Ok(view::models(catalog)),
        (Route::Metrics(model), "GET" | "HEAD") => {
            let parameters = query(parts.uri.query());
            let parameters =
                parameters.map_err(|error| unreadable(Refusal::new(Reason::InvalidInput, error.to_string())))?;
            let version = parameters.iter().find(|(key, _)| key == "version").map(|(_, version)| version.as_str());
            view::metrics(catalog, &segment(model).unwrap_or_default(), version)
        }
        (Route::Predict(_) | Route::BatchPredict, _) => Ok(method_not_allowed("POST")),
        (Route::Models | Route::Metrics(_), _) => Ok(method_not_allowed("GET, HEAD")),
    }
}

async fn predict<B>(shared: &Shared, asked: Asked<'_>, model: Option<&str>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut record = Record::new(&shared.front, Protocol::General, now());
    let max_depth = shared.parts.config.max_json_depth;
    let named = model.map(|model| segment(model).unwrap_or_default().into_owned());
    let result = async {
        let place = match model.zip(named.as_deref()) {
            Some((model, name)) if has_long_body(&asked) => announce_to(shared, &asked, (model, name), &mut record)?,
            _ => Place::default(),
        };
        let (arrived, body) = arrive(shared, &asked, &mut record, body).await?;
        drop(place);
        let read = move |body: &Bytes| Prediction::read(body, named.as_deref(), max_depth);
        match on_thread(shared, body.clone(), read).await? {
            Some(prediction) => one(shared, &mut record, &arrived, prediction).await,
            None => text::predict(shared, &asked, model, &mut record, (arrived, body)).await,
        }
    }
    .await;
    conclude(shared, record, result)
}

/// Announces a request to `model`, as its path has it, called `name`. Its body may name a version: only where there is but
/// one is it known before that is read.
///
/// # Errors
/// A [`Failure`]: the version's refusal.
fn announce_to(
    shared: &Shared,
    asked: &Asked<'_>,
    (model, name): (&str, &str),
    record: &mut Record<'_>,
) -> Result<Place, Failure> {
    let status = shared.parts.catalog.model(name);
    let Some([version]) = status.as_ref().map(|status| &status.versions[..]) else { return Ok(Place::default()) };
    let Some(signatures) = version.signatures.as_ref().filter(|_| version.state == VersionState::Available) else {
        return Ok(Place::default());
    };
    if signatures.find(TENSORS).is_some() {
        return text::announce_predict(shared, asked, model, record);
    }
    announce::<GeneralCodec>(shared, asked, record, |resolver, context| {
        resolver.resolve(&ModelRef::with_version(name, version.version), context).map_err(failure)
    })
}

/// Several predictions side by side. A body that is no list of requests is refused as a whole; a request that fails on its
/// own is left out.
async fn predict_batch<B>(shared: &Shared, asked: Asked<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // The requests inside are recorded one by one, each for its model; this one is of no model.
    let mut record = Record::new(&shared.front, Protocol::General, now());
    let max_depth = shared.parts.config.max_json_depth;
    let result = async {
        let (arrived, body) = arrive(shared, &asked, &mut record, body).await?;
        let predictions = on_thread(shared, body, move |body| Prediction::read_batch(body, max_depth)).await?;
        let (arrived, inquiry) = (&arrived, &record.account().map(|account| account.inquiry().clone()));
        let predictions = predictions.into_iter().map(|prediction| async move {
            let mut record = Record::new(&shared.front, Protocol::General, now());
            record.inquire(inquiry.clone().map(Box::new));
            let result = one(shared, &mut record, arrived, prediction).await;
            let account = record.take_account();
            (conclude(shared, record, result), account)
        });
        let parts = join_all(predictions).await;
        if let Some(account) = record.account() {
            // The head has room for one account.
            parts.iter().for_each(|(result, part)| account.joined(part.as_deref().filter(|_| result.is_ok())));
        }
        let answers: Vec<Bytes> = parts
            .into_iter()
            .map(|(result, _)| result)
            // Why a request failed is logged, though its sender is not told.
            .filter_map(|result| result.map_err(|failure| drop(shared.refuse(&failure, &asked))).ok())
            .map(|answer| answer.into_body().into_bytes())
            .collect();
        let limit = shared.parts.config.max_answer_bytes;
        let length = answers.iter().map(|answer| answer.len() + 1).sum::<usize>() + 2;
        if length > limit {
            let text =
                format!("the answers together are larger than the limit of {limit} bytes; ask for less at a time");
            return Err(failure(Refusal::new(Reason::TooLarge, text)));
        }
        let mut text = Vec::with_capacity(length);
        text.push(b'[');
        for (index, answer) in answers.iter().enumerate() {
            text.extend_from_slice(if index > 0 { b"," } else { b"" });
            text.extend_from_slice(answer);
        }
        text.push(b']');
        let mut answer = response::json(StatusCode::OK, text);
        if !answer.body_mut().hold(&shared.front.unsent) {
            let text = "answers that clients have not taken yet have reached their common limit";
            return Err(failure(Refusal::new(Reason::QueueFull, text)));
        }
        Ok(Done { answer, encoded: now(), times: Default::default() })
    }
    .await;
    conclude(shared, record, result)
}

/// Waits for the body and unpacks it.
async fn arrive<B>(
    shared: &Shared,
    asked: &Asked<'_>,
    record: &mut Record<'_>,
    body: B,
) -> Result<(Arrived, Bytes), Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let coding = Coding::of_request(asked.head.content_encoding).map_err(|refusal| failure(refusal).closing())?;
    let arrived = receive::<GeneralCodec, B>(shared, asked, record, body).await?;
    let (arrived, body) = arrived.take_body();
    let body = unpack(shared, coding, body).await.map_err(failure)?;
    Ok((arrived, body))
}

/// Reads a body here, or where it is long on a compute thread.
async fn on_thread<T: Send + 'static>(
    shared: &Shared,
    body: Bytes,
    read: impl FnOnce(&Bytes) -> Result<T, Malformed> + Send + 'static,
) -> Result<T, Failure> {
    let read = if body.len() > shared.parts.config.offload_bytes {
        on_compute(&*shared.parts.compute, move || read(&body)).await.map_err(failure)?
    } else {
        read(&body)
    };
    read.map_err(|malformed| unreadable(malformed.refusal()))
}

/// One prediction from its parsed request to its answer.
async fn one(
    shared: &Shared,
    record: &mut Record<'_>,
    arrived: &Arrived,
    prediction: Prediction,
) -> Result<Done, Failure> {
    let config = &shared.parts.config;
    let servable = resolve(&*shared.parts.resolver, &prediction, &arrived.context)?;
    record.found(&*servable);
    let codec = GeneralCodec {
        batch_id: prediction.batch_id,
        max_depth: config.max_json_depth,
        max_answer: config.max_answer_bytes,
    };
    infer(shared, &codec, servable, arrived.with_body(prediction.input), record).await
}

fn resolve(
    resolver: &dyn Resolver,
    prediction: &Prediction,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    let name = &*prediction.model;
    let label = |label| resolver.resolve(&ModelRef { name, version: VersionChoice::Label(label) }, context);
    let found = match prediction.version.as_deref() {
        None => resolver.resolve(&ModelRef::new(name), context),
        Some(text) => match text.parse() {
            Ok(number) => resolver.resolve(&ModelRef::with_version(name, number), context),
            Err(_) => label(text),
        },
    };
    found.map_err(|refusal| match refusal.reason() {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown => {
            let version = prediction.version.as_deref().map(|version| format!(":{}", Bare(version)));
            let text = format!("Model {}{} not found", Bare(name), version.unwrap_or_default());
            failure(Refusal::new(refusal.reason(), text))
        }
        _ => failure(refusal),
    })
}

/// A failure by the plain table in these endpoints' form.
fn failure(refusal: Refusal) -> Failure {
    Failure::plain(refusal).in_form(|failure| {
        let body = json!({"detail": failure.refusal().message()});
        Bytes::from(body.to_string())
    })
}

/// A failure for a body that is not a request: 422, with the place.
fn unreadable(refusal: Refusal) -> Failure {
    Failure::with_status(StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidArgument, refusal).in_form(|failure| {
        let text = failure.refusal().message();
        let (location, why) = place(text).unwrap_or_default();
        let (location, why) = if location.is_empty() { (Vec::new(), text) } else { (location, why) };
        let location: Vec<_> = [json!("body")].into_iter().chain(location).collect();
        let kind = if why == "field required" { "missing" } else { "value_error" };
        Bytes::from(json!({"detail": [{"loc": location, "msg": why, "type": kind}]}).to_string())
    })
}

/// The place that a text such as `[3].input_data: why` begins with, as a list of keys and positions, and the rest.
fn place(text: &str) -> Option<(Vec<serde_json::Value>, &str)> {
    let (head, why) = text.split_once(": ")?;
    let (index, key) = match head.strip_prefix('[') {
        None => (None, Some(head)),
        Some(rest) => {
            let (index, rest) = rest.split_once(']')?;
            (Some(index.parse::<usize>().ok()?), rest.strip_prefix('.'))
        }
    };
    let is_known = key.is_none_or(|key| KEYS.contains(&key));
    let place = index.map(|index| json!(index)).into_iter().chain(key.map(|key| json!(key))).collect();
    is_known.then_some((place, why))
}

fn method_not_allowed(allow: &'static str) -> Answer {
    let body = json!({"detail": "Method Not Allowed"}).to_string();
    let mut answer = response::json(StatusCode::METHOD_NOT_ALLOWED, body);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

#[cfg(test)]
mod tests {
    use super::{Route, place, route};

    #[test]
    fn paths_are_these_and_no_others() {
        assert_eq!(route("/predict"), Some(Route::Predict(None)));
        assert_eq!(route("/predict/m"), Some(Route::Predict(Some("m"))));
        assert_eq!(route("/batch_predict"), Some(Route::BatchPredict));
        assert_eq!(route("/models"), Some(Route::Models));
        assert_eq!(route("/models/m/metrics"), Some(Route::Metrics("m")));
        for path in ["", "predict", "/predict/", "/predict/m/1", "/batch_predict/", "/models/m", "/models/m/metrics/x"]
        {
            assert_eq!(route(path), None, "{path}");
        }
    }

    #[test]
    fn a_text_says_where_only_where_it_begins_with_a_place() {
        let shown = |text| place(text).map(|(place, why)| (serde_json::Value::from(place).to_string(), why));
        assert_eq!(shown("input_data: why"), Some((r#"["input_data"]"#.to_owned(), "why")));
        assert_eq!(shown("[3].model_name: a: b"), Some((r#"[3,"model_name"]"#.to_owned(), "a: b")));
        assert_eq!(shown("[3]: why"), Some(("[3]".to_owned(), "why")));
        assert_eq!(shown("JSON Parse error: why"), None);
        assert_eq!(shown("why"), None);
    }
}
