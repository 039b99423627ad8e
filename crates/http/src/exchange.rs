//! The way of every inference request over HTTP, whatever its protocol: limits, body, version, inputs, model, answer.
//!
//! A protocol brings a [`Codec`], which reads bodies and writes answers, and its own way to name a model. Most routes
//! need no more than [`exchange`]; those whose body names the model are put together from its parts: [`receive`],
//! [`unpack`], [`infer`].

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body;
use millrace_core::{
    InferRequest, InferResponse, Place, Priority, Protocol, Reason, Refusal, RequestContext, Resolver, Servable,
    Tensor, TensorList, Wanted, contained, on_compute,
};
use millrace_protocol::front::metrics::{Answered, Status};
use millrace_protocol::front::{Answering, ConnectionContext, Record, now};
use tokio::time::timeout_at;

use crate::body::{self, Bounds, Received};
use crate::coding::Coding;
use crate::error::Failure;
use crate::head::Head;
use crate::response::Answer;
use crate::service::Shared;

/// Bytes. Smaller answers are no burden even if every connection holds one.
const SMALL_ANSWER: usize = 64 << 10;

/// Bytes. Longer bodies are not read when the request would be refused whatever they hold; shorter ones mostly came with
/// the head.
const LONG_BODY: u64 = 32 << 10;

/// Of the time that a client waits, so much at most is kept for what is not seen here: until its request is read, and until
/// the answer is back. One part in 16, where that is less.
const ON_THE_WAY: Duration = Duration::from_millis(25);

/// Bytes. Orders are a few words.
const MAX_ORDER: u64 = 64 << 10;

/// A request as its head puts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) parts: &'a http::request::Parts,
    pub(crate) head: &'a Head<'a>,
    pub(crate) connection: ConnectionContext,
}

/// How a protocol reads the bodies of inference requests and writes answers. A small value with what the head said; it
/// goes along to a compute thread where the work is long.
pub(crate) trait Codec: Clone + Send + Sync + 'static {
    /// What writing the answer needs to know of the request.
    type Reply: Send + Sync + 'static;

    /// The protocol, for metrics and contexts.
    const PROTOCOL: Protocol;

    /// How the body is compressed.
    fn coding(&self) -> Coding;

    /// Whether the request named the version and not the model alone, for the metrics that tell.
    fn names_version(&self) -> bool {
        false
    }

    /// Reads a body, no longer compressed.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong with it.
    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<Self::Reply>, Refusal>;

    /// About how many bytes of text reading a body of `length` bytes is worth: long work goes to a compute thread, where it
    /// waits for the run that is under way. By default all of them.
    fn reading(&self, length: usize) -> usize {
        length
    }

    /// About how many bytes writing these outputs will read and write: long work goes to a compute thread. By default
    /// that of text.
    fn weight(&self, _reply: &Self::Reply, outputs: &[Tensor]) -> usize {
        // Text is about four times the size of its tensors.
        outputs.iter().map(text_weight).fold(0, usize::saturating_add).saturating_mul(4)
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// A [`Refusal`] where the outputs have no form in this protocol or are larger than allowed.
    fn encode(&self, servable: &dyn Servable, reply: &Self::Reply, response: &InferResponse)
    -> Result<Answer, Refusal>;

    /// A refusal in the protocol's statuses and form.
    fn failure(refusal: Refusal) -> Failure;

    /// What is answered once the time that the request's own body allowed ([`Question::timeout`]) is over.
    fn timed_out(refusal: Refusal) -> Failure {
        Self::failure(refusal)
    }
}

/// What a body asks.
pub(crate) struct Question<R> {
    /// The position of the signature.
    pub(crate) signature: usize,
    /// In the order of the signature.
    pub(crate) inputs: TensorList,
    pub(crate) wanted: Wanted,
    /// The class that the body asks for.
    pub(crate) priority: Option<Priority>,
    /// How long the body says that its sender waits, from the request's first byte.
    pub(crate) timeout: Option<Duration>,
    /// Rows, for the metrics.
    pub(crate) examples: usize,
    pub(crate) reply: R,
}

impl<R> Question<R> {
    /// The same question with another reply plan.
    pub(crate) fn map<S>(self, change: impl FnOnce(R) -> S) -> Question<S> {
        let Self { signature, inputs, wanted, priority, timeout, examples, reply } = self;
        Question { signature, inputs, wanted, priority, timeout, examples, reply: change(reply) }
    }
}

/// Answers an inference request whose head names the model, and records how that went.
///
/// # Errors
/// A [`Failure`] for the caller, recorded, not yet logged.
pub(crate) async fn exchange<C, B>(
    shared: &Shared,
    asked: Asked<'_>,
    codec: &C,
    mut resolve: impl FnMut(&dyn Resolver, &RequestContext) -> Result<Arc<dyn Servable>, Failure>,
    body: B,
) -> Result<Answer, Failure>
where
    C: Codec,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut record = Record::new(&shared.front, C::PROTOCOL, now());
    // What is awaited where it lies is not copied there with all the room that it will ever need.
    let result = pin!(async {
        let is_long = asked.head.content_length.is_some_and(|length| length >= LONG_BODY);
        let place = if is_long { knock::<C>(shared, &asked, &mut record, &mut resolve)? } else { Place::default() };
        let arrived = Arrived { place, ..pin!(receive::<C, B>(shared, &asked, &mut record, body)).await? };
        let servable = resolve(&*shared.parts.resolver, &arrived.context)?;
        record.found(&*servable);
        pin!(infer(shared, codec, servable, arrived, &mut record)).await
    })
    .await;
    conclude(shared, record, result)
}

/// Announces a request for a version that `resolve` finds by the head alone, where its body is long. For routes that read
/// their bodies themselves; the place is dropped once that is done.
///
/// # Errors
/// A [`Failure`]: the model's refusal, or that of `resolve`.
pub(crate) fn announce<C: Codec>(
    shared: &Shared,
    asked: &Asked<'_>,
    record: &mut Record<'_>,
    mut resolve: impl FnMut(&dyn Resolver, &RequestContext) -> Result<Arc<dyn Servable>, Failure>,
) -> Result<Place, Failure> {
    if has_long_body(asked) { knock::<C>(shared, asked, record, &mut resolve) } else { Ok(Place::default()) }
}

/// Whether the body is so long that it is not read for nothing.
pub(crate) fn has_long_body(asked: &Asked<'_>) -> bool {
    asked.head.content_length.is_some_and(|length| length >= LONG_BODY)
}

/// Announces a request whose body is long: where it would be refused whatever is in it, reading it would only take time from
/// the core that computes. What is wrong with the head is left to [`receive`].
///
/// # Errors
/// A [`Failure`]: the model's refusal, or that of its name.
#[cold]
fn knock<C: Codec>(
    shared: &Shared,
    asked: &Asked<'_>,
    record: &mut Record<'_>,
    resolve: &mut impl FnMut(&dyn Resolver, &RequestContext) -> Result<Arc<dyn Servable>, Failure>,
) -> Result<Place, Failure> {
    let config = &shared.parts.config;
    let is_too_long = asked.head.content_length.is_some_and(|length| length > config.max_body_bytes);
    let (false, false, Ok(patience)) = (shared.parts.readiness.is_refusing(), is_too_long, asked.head.timeout()) else {
        return Ok(Place::default());
    };
    inquire::<C>(shared, asked, record)?;
    let ours = now() + config.request_timeout;
    let until = patience.and_then(|patience| record.received().checked_add(patience));
    let due = until.map_or(ours, |until| sent_by(record.received(), until).min(ours));
    let context = context::<C>(asked, record.received(), due);
    let servable = resolve(&*shared.parts.resolver, &context)?;
    let place = contained(|| servable.knock(&context)).and_then(|place| place);
    place.map_err(|refusal| {
        record.found(&*servable);
        C::failure(refusal)
    })
}

/// Reads what a request wants to know about itself.
fn inquire<C: Codec>(shared: &Shared, asked: &Asked<'_>, record: &mut Record<'_>) -> Result<(), Failure> {
    let inquiry = asked.head.inquiry(asked.parts.uri.query(), shared.parts.config.server_timing);
    record.inquire(inquiry.map_err(|refusal| C::failure(refusal).closing())?);
    Ok(())
}

/// When the answer to a client that waits until `until` has to be sent.
fn sent_by(received: Instant, until: Instant) -> Instant {
    let on_the_way = (until.saturating_duration_since(received) / 16).min(ON_THE_WAY);
    until.checked_sub(on_the_way).unwrap_or(until)
}

/// What a request says of itself before its body is read.
fn context<C: Codec>(asked: &Asked<'_>, received: Instant, deadline: Instant) -> RequestContext {
    RequestContext {
        received,
        deadline: Some(deadline),
        priority: Priority::default(),
        caller: asked.connection.caller,
        protocol: C::PROTOCOL,
        depth: 0,
        lends_thread: true,
    }
}

/// Records how a request ended, and tells it what it asked about itself.
pub(crate) fn conclude(
    shared: &Shared,
    mut record: Record<'_>,
    result: Result<Done, Failure>,
) -> Result<Answer, Failure> {
    let account = record.take_account();
    match result {
        Ok(mut done) => {
            if let Some(account) = account {
                let headers = done.answer.headers_mut();
                account.tell(done.encoded, &*shared.parts.catalog, |name, text| put(headers, name, text));
            }
            let answered = Answered { response_bytes: done.answer.body().len(), ..done.times };
            record.answered(done.encoded, answered);
            Ok(done.answer)
        }
        Err(mut failure) => {
            if let Some(account) = account {
                let mut headers = HeaderMap::new();
                let put = |name, text| put(&mut headers, name, text);
                account.tell_refused(failure.refusal(), now(), &*shared.parts.catalog, put);
                failure = failure.telling(headers);
            }
            record.refused(Status::Http(failure.status().as_u16()), failure.code(), failure.refusal().reason());
            Err(failure)
        }
    }
}

/// A request whose whole body is there.
pub(crate) struct Arrived {
    /// As it was sent; it counts as arriving until it is dropped.
    pub(crate) body: Received,
    /// When the last of it came.
    pub(crate) at: Instant,
    /// With the deadline that the head and the configuration give.
    pub(crate) context: RequestContext,
    deadline: Instant,
    /// Kept until the model is asked.
    place: Place,
}

impl Arrived {
    /// The body, and the rest without it.
    pub(crate) fn take_body(mut self) -> (Self, Received) {
        let body = std::mem::replace(&mut self.body, Received::from(Bytes::new()));
        (self, body)
    }

    /// Waits for `work`, no longer than whoever asks.
    ///
    /// # Errors
    /// `Late`, or that of `work`.
    pub(crate) async fn before_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        before(self.deadline, self.context.received, work).await
    }

    /// The same request with another body: a part of its own, for a route whose body says more than a codec reads.
    pub(crate) fn with_body(&self, body: Bytes) -> Self {
        Self {
            body: Received::from(body),
            at: self.at,
            context: self.context,
            deadline: self.deadline,
            place: Place::default(),
        }
    }
}

/// A request that was answered.
pub(crate) struct Done {
    pub(crate) answer: Answer,
    pub(crate) encoded: Instant,
    pub(crate) times: Answered,
}

/// Waits for the body within the limits.
///
/// # Errors
/// A [`Failure`]: draining, too large, too slow, broken, or a wrong header.
pub(crate) async fn receive<C, B>(
    shared: &Shared,
    asked: &Asked<'_>,
    record: &mut Record<'_>,
    body: B,
) -> Result<Arrived, Failure>
where
    C: Codec,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let config = &shared.parts.config;
    inquire::<C>(shared, asked, record)?;
    if shared.parts.readiness.is_refusing() {
        return Err(C::failure(Refusal::new(Reason::Draining, "the server is shutting down")).closing());
    }
    let read = async {
        body::check_length(asked.head.content_length, &body, config.max_body_bytes)?;
        // Its body is still unread, and a client that cannot write a number is not waited for.
        let patience = asked.head.timeout().map_err(|refusal| Failure::from(refusal).closing())?;
        // The client's own limit counts from its first byte; ours from its last, for a large body may rightly take long.
        let until = patience.and_then(|patience| record.received().checked_add(patience));
        let (bytes, time, rate) = (config.max_body_bytes, config.body_timeout, config.min_body_rate);
        let budget = Some(&shared.front.receiving);
        let bounds = Bounds { bytes, time, rate, started: record.received(), until, budget };
        Ok::<_, Failure>((pin!(body::read(body, bounds)).await?, until))
    };
    let (body, until) = pin!(read).await.map_err(|failure| failure.by(C::failure))?;
    record.carried(body.len());
    let at = now();
    if let Some(account) = record.account() {
        account.arrived(at);
    }
    let ours = at + config.request_timeout;
    let deadline = until.map_or(ours, |until| until.min(ours));
    let due = until.map_or(ours, |until| sent_by(record.received(), until).min(ours));
    let context = context::<C>(asked, record.received(), due);
    Ok(Arrived { body, at, context, deadline, place: Place::default() })
}

/// Waits for the body of an order: few words, from no web page.
///
/// # Errors
/// A [`Failure`] by `table`.
pub(crate) async fn receive_order<B>(
    shared: &Shared,
    asked: &Asked<'_>,
    table: fn(Refusal) -> Failure,
    body: B,
) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Browsers name the page in every request that changes something, and no other client does. They reach a port of the
    // same machine for any web page.
    if asked.head.origin.is_some() && asked.parts.method != Method::GET {
        let text = "orders from web pages are refused; send them without an origin header";
        return Err(table(Refusal::new(Reason::Forbidden, text)).closing());
    }
    let config = &shared.parts.config;
    let read = async {
        body::check_length(asked.head.content_length, &body, MAX_ORDER)?;
        let bounds = Bounds {
            bytes: MAX_ORDER,
            time: config.body_timeout,
            rate: config.min_body_rate,
            started: now(),
            until: None,
            // Few and small: they need no room of a common budget, and must get through when there is none left.
            budget: None,
        };
        Ok::<_, Failure>(body::read(body, bounds).await?.into_bytes())
    };
    read.await.map_err(|failure| failure.by(table))
}

/// The body without its compression, for a route that must look into it before it knows the model.
///
/// # Errors
/// A [`Refusal`]: damaged, or too large.
pub(crate) async fn unpack(shared: &Shared, coding: Coding, body: Received) -> Result<Bytes, Refusal> {
    if coding == Coding::Identity {
        return Ok(body.into_bytes());
    }
    let limit = shared.parts.config.max_decompressed_bytes;
    on_compute(&*shared.parts.compute, move || coding.unpack(&body, limit)).await?
}

/// From a whole body to a whole answer, before the deadline.
///
/// What is rare or long waits in a box of its own, so that the future of a short request stays small.
///
/// # Errors
/// A [`Failure`] in the codec's form.
pub(crate) async fn infer<C: Codec>(
    shared: &Shared,
    codec: &C,
    servable: Arc<dyn Servable>,
    arrived: Arrived,
    record: &mut Record<'_>,
) -> Result<Done, Failure> {
    let Arrived { body, at: arrived, mut context, deadline, place } = arrived;
    let config = &shared.parts.config;
    let (answering, own, decoded, examples, reply) = {
        // A compressed body is small whatever it holds, so its size says nothing about the work.
        let question = if codec.coding() == Coding::Identity && codec.reading(body.len()) <= config.offload_bytes {
            // The body has done its service once this returns, but for tensors that are parts of it.
            let body = body.into_bytes();
            contained(|| codec.decode(&*servable, &body)).and_then(|question| question)
        } else {
            Box::pin(before(deadline, context.received, decode_elsewhere(shared, codec, &servable, body))).await
        };
        let Question { signature, inputs, wanted, priority, timeout, examples, reply } =
            question.map_err(C::failure)?;
        let decoded = now();
        context.priority = priority.unwrap_or(context.priority);
        let own = timeout.and_then(|timeout| context.received.checked_add(timeout));
        let own = own.filter(|own| *own < deadline);
        context.deadline = own.or(context.deadline);
        let request = InferRequest { signature, inputs, wanted, context };
        if let Some(account) = record.account() {
            account.asked(&*servable, &request, examples, decoded);
        }
        drop(place);
        (contained(|| servable.infer(request)).map_err(C::failure)?, own, decoded, examples, reply)
    };
    let until = own.unwrap_or(deadline);
    let failed = |refusal: Refusal| match own {
        Some(_) if refusal.reason() == Reason::Late => C::timed_out(refusal),
        _ => C::failure(refusal),
    };
    let response = Answering::new(answering, until).await;
    let response = response.unwrap_or_else(|| Err(late(until, context.received))).map_err(failed)?;
    let answered = now();
    let (queue, compute) = (response.stages.queue(), response.stages.compute());
    if let Some(account) = record.account() {
        account.ran(response.stages, answered);
    }
    let answer = if codec.weight(&reply, &response.outputs) <= config.offload_bytes {
        contained(|| codec.encode(&*servable, &reply, &response)).and_then(|answer| answer)
    } else {
        let codec = codec.clone();
        let encode = move || codec.encode(&*servable, &reply, &response);
        let encoding = async { on_compute(&*shared.parts.compute, encode).await? };
        Box::pin(before(deadline, context.received, encoding)).await
    };
    let mut answer = answer.map_err(C::failure)?;
    hold(shared, &mut answer).map_err(C::failure)?;
    let encoded = now();
    let times = Answered {
        decode: decoded.saturating_duration_since(arrived),
        encode: encoded.saturating_duration_since(answered),
        queue,
        compute,
        examples,
        names_version: codec.names_version(),
        ..Answered::default()
    };
    Ok(Done { answer, encoded, times })
}

/// Puts a part of an account where the caller reads it.
#[cold]
fn put(headers: &mut HeaderMap, name: &'static str, text: String) {
    let value = HeaderValue::try_from(text).expect("an account is printable ASCII");
    headers.insert(HeaderName::from_static(name), value);
}

/// Reads the body on a compute thread.
async fn decode_elsewhere<C: Codec>(
    shared: &Shared,
    codec: &C,
    servable: &Arc<dyn Servable>,
    body: Received,
) -> Result<Question<C::Reply>, Refusal> {
    let (codec, lease, limit) = (codec.clone(), Arc::clone(servable), shared.parts.config.max_decompressed_bytes);
    on_compute(&*shared.parts.compute, move || {
        let coding = codec.coding();
        let bytes = if coding == Coding::Identity { body.into_bytes() } else { coding.unpack(&body, limit)? };
        codec.decode(&*lease, &bytes)
    })
    .await?
}

/// Waits for `work` until `deadline`.
async fn before<T>(
    deadline: Instant,
    received: Instant,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(late(deadline, received)))
}

/// The bytes of a tensor, or its lists where they hold nothing: `[1000000,0]` is no work to compute but some to write.
pub(crate) fn text_weight(tensor: &Tensor) -> usize {
    match tensor.n_bytes() {
        0 => tensor.shape().iter().take_while(|size| **size > 0).product(),
        bytes => bytes,
    }
}

/// Counts a large answer against the room that all have together.
///
/// # Errors
/// `QueueFull` where there is none left.
pub(crate) fn hold(shared: &Shared, answer: &mut Answer) -> Result<(), Refusal> {
    if answer.body().len() < SMALL_ANSWER || answer.body_mut().hold(&shared.front.unsent) {
        return Ok(());
    }
    let limit = shared.front.unsent.total();
    let text = format!("answers that clients have not taken yet have reached their common limit of {limit} bytes");
    Err(Refusal::new(Reason::QueueFull, text))
}

fn late(deadline: Instant, received: Instant) -> Refusal {
    let waited = deadline.saturating_duration_since(received).as_millis();
    Refusal::new(Reason::Late, format!("deadline exceeded: no answer within {waited} ms"))
}
