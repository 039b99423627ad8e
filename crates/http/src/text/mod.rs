//! The routes of text models, as text-embeddings-inference has them, and OpenAI's for embeddings: vectors, similarities,
//! labels and ranks for text, tokens, and what is known of a model.
//!
//! What turns text into tokens is behind `millrace_core::TextProcessor`; this knows the bodies, the choice of a model and
//! what is made of the network's numbers.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use http_body::Body;
use millrace_core::{Place, Protocol, Quoted, Reason, Refusal, RequestContext, contained, on_compute};
use millrace_protocol::front::metrics::Answered;
use millrace_protocol::front::{Record, now};

mod answer;
mod choice;
mod codec;
mod failure;
mod info;
mod prepare;
mod request;
mod score;
mod tokens;

pub(crate) use choice::{Chosen, Need, known};

use choice::choose;
use codec::TextCodec;
use failure::{Dialect, OpenAi, Tei};
use request::{Ask, Decode, Limits, Members, Problem, Tokenize};

use crate::coding::Coding;
use crate::error::Failure;
use crate::exchange::{self, Arrived, Asked, Done, conclude, hold, infer, receive, unpack};
use crate::response::{self, Answer};
use crate::route::segment;
use crate::service::Shared;
use crate::torchserve::query;

/// What a path asks for, and the model that it names, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// What is known of a model.
    Info(Option<&'a str>),
    /// What a body asks.
    Post(Verb, Option<&'a str>),
}

/// What a body can ask of a text model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    OpenAi,
    Embed,
    EmbedAll,
    Similarity,
    Rerank,
    /// Its path is the general endpoints'.
    Predict,
    Tokenize,
    Decode,
}

/// `/v1/embeddings`, which stands among TensorFlow Serving's routes.
pub(crate) const OPENAI: Route<'_> = Route::Post(Verb::OpenAi, None);

/// The route of `path`, if it is one of these.
pub(crate) fn route(path: &str) -> Option<Route<'_>> {
    let rest = path.strip_prefix('/')?;
    let (first, model) = rest.split_once('/').map_or((rest, None), |(first, model)| (first, Some(model)));
    let is_one = model.is_none_or(|model| !model.is_empty() && !model.contains('/'));
    let verb = match first {
        "embeddings" if model.is_none() => Verb::OpenAi,
        "embed" => Verb::Embed,
        "embed_all" => Verb::EmbedAll,
        "similarity" => Verb::Similarity,
        "rerank" => Verb::Rerank,
        "tokenize" => Verb::Tokenize,
        "decode" => Verb::Decode,
        "info" if is_one => return Some(Route::Info(model)),
        _ => return None,
    };
    is_one.then_some(Route::Post(verb, model))
}

/// What a body asks for.
enum Order {
    Ask(Ask),
    Tokenize(Tokenize),
    Decode(Decode),
}

impl Verb {
    /// Reads a body: the model that it names, and what it asks.
    fn read(self, members: &Members<'_>) -> Result<(Option<String>, Order), Problem> {
        let order = match self {
            Self::OpenAi => Order::Ask(members.openai()?),
            Self::Embed => Order::Ask(members.embed()?),
            Self::EmbedAll => Order::Ask(members.embed_all()?),
            Self::Similarity => Order::Ask(members.similarity()?),
            Self::Rerank => Order::Ask(members.rerank()?),
            Self::Predict => Order::Ask(members.predict()?),
            Self::Tokenize => Order::Tokenize(members.tokenize()?),
            Self::Decode => Order::Decode(members.decode()?),
        };
        Ok((members.text("model")?, order))
    }
}

/// Announces a request whose path names its model, where its body is long. Tokens need no room in a queue.
///
/// # Errors
/// A [`Failure`]: the model's refusal, or that of its name.
fn announce<D: Dialect>(
    shared: &Shared,
    asked: &Asked<'_>,
    (verb, in_path): Asking<'_>,
    record: &mut Record<'_>,
) -> Result<Place, Failure> {
    let (Some(in_path), false) = (in_path, matches!(verb, Verb::Tokenize | Verb::Decode)) else {
        return Ok(Place::default());
    };
    exchange::announce::<TextCodec<D>>(shared, asked, record, |_, context| {
        let chosen = choose(shared, segment(in_path).as_deref(), Need::Any, context);
        chosen.map(|chosen| chosen.servable).map_err(unclear::<D>)
    })
}

/// The same for a request that came to the general endpoints, for a model that takes text.
///
/// # Errors
/// A [`Failure`] for the caller, not yet recorded.
pub(crate) fn announce_predict(
    shared: &Shared,
    asked: &Asked<'_>,
    model: &str,
    record: &mut Record<'_>,
) -> Result<Place, Failure> {
    let place = announce::<Tei>(shared, asked, (Verb::Predict, Some(model)), record);
    // What it is shows once it is read.
    place.inspect_err(|_| record.is_of(Protocol::Text))
}

/// Answers a request for these routes.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B>(shared: &Shared, asked: Asked<'_>, route: Route<'_>, body: B) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match (route, asked.parts.method.as_str()) {
        (Route::Info(model), "GET" | "HEAD") => info(shared, &asked, model),
        (Route::Info(_), _) => Err(not_allowed::<Tei>("GET, HEAD")),
        (Route::Post(Verb::OpenAi, _), "POST") => post::<OpenAi, B>(shared, asked, (Verb::OpenAi, None), body).await,
        (Route::Post(Verb::OpenAi, _), _) => Err(not_allowed::<OpenAi>("POST")),
        (Route::Post(verb, model), "POST") => post::<Tei, B>(shared, asked, (verb, model), body).await,
        (Route::Post(..), _) => Err(not_allowed::<Tei>("POST")),
    }
}

/// `GET /info`.
fn info(shared: &Shared, asked: &Asked<'_>, model: Option<&str>) -> Result<Answer, Failure> {
    let context =
        RequestContext { protocol: Protocol::Text, caller: asked.connection.caller, ..RequestContext::new(now()) };
    let chosen = named(asked, model, None).and_then(|named| choose(shared, named.as_deref(), Need::Any, &context));
    let chosen = chosen.map_err(unclear::<Tei>)?;
    let parts = &shared.parts;
    let document = info::document(&chosen, parts.config.max_client_batch_size, parts.compute.workers());
    Ok(response::json(StatusCode::OK, document.to_string()))
}

/// What a request calls its model: in its body, or else in its path, or else in its query.
///
/// # Errors
/// `InvalidInput` where the first two differ.
fn named(asked: &Asked<'_>, in_path: Option<&str>, in_body: Option<String>) -> Result<Option<String>, Refusal> {
    let invalid = |text: String| Refusal::new(Reason::InvalidInput, text);
    let in_path = in_path.and_then(segment).map(Cow::into_owned);
    if let (Some(path), Some(body)) = (&in_path, &in_body)
        && path != body
    {
        return Err(invalid(format!("model: the path names {}, the body {}", Quoted(path), Quoted(body))));
    }
    match in_body.or(in_path) {
        Some(named) => Ok(Some(named)),
        None => {
            let pairs = query(asked.parts.uri.query()).map_err(|error| invalid(error.to_string()))?;
            Ok(pairs.into_iter().find(|(key, _)| key == "model").map(|(_, model)| model))
        }
    }
}

/// A refusal about the model that a request is for.
fn unclear<D: Dialect>(refusal: Refusal) -> Failure {
    match refusal.reason() {
        Reason::InvalidInput => D::problem(Problem::request(refusal.message().to_owned())),
        _ => D::failure(refusal),
    }
}

fn not_allowed<D: Dialect>(allow: &'static str) -> Failure {
    let refusal = Refusal::new(Reason::InvalidInput, format!("Method Not Allowed; use {allow}"));
    D::failure(refusal)
        .with_own_status(StatusCode::METHOD_NOT_ALLOWED)
        .with_header(ALLOW, HeaderValue::from_static(allow))
}

/// Answers a request to classify text that came to the general endpoints, whose path it shares. Its body is there already.
///
/// # Errors
/// A [`Failure`] for the caller, not yet recorded.
pub(crate) async fn predict(
    shared: &Shared,
    asked: &Asked<'_>,
    model: Option<&str>,
    record: &mut Record<'_>,
    (mut arrived, body): (Arrived, Bytes),
) -> Result<Done, Failure> {
    record.is_of(Protocol::Text);
    arrived.context.protocol = Protocol::Text;
    obey::<Tei>(shared, asked, (Verb::Predict, model), record, (arrived, body)).await
}

/// What is asked, and the model that the path names.
type Asking<'a> = (Verb, Option<&'a str>);

async fn post<D, B>(shared: &Shared, asked: Asked<'_>, asking: Asking<'_>, body: B) -> Result<Answer, Failure>
where
    D: Dialect,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut record = Record::new(&shared.front, Protocol::Text, now());
    let result = async {
        let coding = Coding::of_request(asked.head.content_encoding);
        let coding = coding.map_err(|refusal| D::failure(refusal).closing())?;
        let place = announce::<D>(shared, &asked, asking, &mut record)?;
        let arrived = receive::<TextCodec<D>, B>(shared, &asked, &mut record, body).await?;
        drop(place);
        let (arrived, body) = arrived.take_body();
        let body = unpack(shared, coding, body).await.map_err(D::failure)?;
        obey::<D>(shared, &asked, asking, &mut record, (arrived, body)).await
    }
    .await;
    conclude(shared, record, result)
}

/// From a body to its answer.
async fn obey<D: Dialect>(
    shared: &Shared,
    asked: &Asked<'_>,
    (verb, in_path): Asking<'_>,
    record: &mut Record<'_>,
    (arrived, body): (Arrived, Bytes),
) -> Result<Done, Failure> {
    let config = &shared.parts.config;
    let limits = Limits { depth: config.max_json_depth, texts: config.max_client_batch_size };
    let is_long = body.len() > config.offload_bytes;
    let read = move || Members::of(&body, limits).and_then(|members| verb.read(&members));
    let read = if is_long {
        arrived.before_deadline(on_compute(&*shared.parts.compute, read)).await.map_err(D::failure)?
    } else {
        contained(read).map_err(D::failure)?
    };
    let (in_body, order) = read.map_err(D::problem)?;
    let named = named(asked, in_path, in_body).map_err(unclear::<D>)?;
    let need = match &order {
        Order::Ask(ask) => ask.need(),
        Order::Tokenize(_) | Order::Decode(_) => Need::Any,
    };
    let chosen = choose(shared, named.as_deref(), need, &arrived.context).map_err(unclear::<D>)?;
    record.found(&*chosen.servable);
    let (examples, text) = match order {
        Order::Ask(ask) => {
            let ask = Arc::new(ask);
            // What would be refused whatever its tokens are is not cut into any.
            let place = contained(|| chosen.servable.knock(&arrived.context)).and_then(|place| place);
            let place = place.map_err(D::failure)?;
            let prepared =
                arrived.before_deadline(prepare::prepare(shared, &chosen, &ask)).await.map_err(D::failure)?;
            drop(place);
            let codec = TextCodec::<D>::new(ask, prepared, chosen.text, config.max_answer_bytes);
            return infer(shared, &codec, chosen.servable, arrived, record).await;
        }
        Order::Tokenize(order) => {
            (order.texts.len(), arrived.before_deadline(tokens::tokenize(shared, &chosen, order)).await)
        }
        Order::Decode(order) => {
            (order.lists.len(), arrived.before_deadline(tokens::decode(shared, &chosen, order)).await)
        }
    };
    let mut answer = response::json(StatusCode::OK, text.map_err(D::failure)?);
    hold(shared, &mut answer).map_err(D::failure)?;
    let encoded = now();
    let times = Answered { decode: encoded.saturating_duration_since(arrived.at), examples, ..Answered::default() };
    Ok(Done { answer, encoded, times })
}

#[cfg(test)]
mod tests {
    use super::{Route, Verb, route};

    #[test]
    fn a_path_may_end_with_the_name_of_a_model() {
        assert_eq!(route("/embed"), Some(Route::Post(Verb::Embed, None)));
        assert_eq!(route("/embed/m:3"), Some(Route::Post(Verb::Embed, Some("m:3"))));
        assert_eq!(route("/info"), Some(Route::Info(None)));
        assert_eq!(route("/info/m"), Some(Route::Info(Some("m"))));
        assert_eq!(route("/embeddings"), Some(Route::Post(Verb::OpenAi, None)));
        for path in ["", "/", "/embed/", "/embed/m/1", "/embeddings/m", "/info/", "/embed_sparse", "/predict", "embed"]
        {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
