//! One connection from its first byte to its last: HTTP/1.1 or h2c by its first bytes, then requests until it closes.
//!
//! The protocol is found out here and not by hyper-util's auto builder: that keeps its rewinding layer out of the path
//! of every read, and lets the header limits of HTTP/1 be set.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use millrace_core::CallerId;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::ConnectionLimits;
use super::carried::{BoxError, Carried};
use super::drive::{Discarding, Ends, LINGER, Spread, drive};
use super::gathered::Gathered;
use super::phase::{Phase, Phases};
use super::rooms::Rooms;
use super::socket::Stream;
use super::streams::{StreamExecutor, Streams};
use super::timed::{Activity, Patience, Timed};
use super::unread::{RequestBody, Unread};
use crate::log::error_chain;

/// What a client says first when it means HTTP/2 without TLS.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The least read buffer that hyper accepts.
const LEAST_BUFFER: usize = 8192;
/// HTTP/2: bytes of all headers of one request.
const HEADER_LIST: u32 = 16 << 10;
/// HTTP/2: resets waiting for us before the peer counts as hostile.
const MAX_RESETS: usize = 50;

/// Whoever answers the requests of a listener.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The answers' bodies.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    /// In which protocol a client wants to be told that its request was cut off.
    type Tongue: Copy + Send + Unpin + 'static;

    /// The protocol of a request.
    fn tongue(parts: &Parts) -> Self::Tongue;

    /// Answers one request of HTTP/2. Dropping the future gives the request up.
    fn answer(
        &self,
        tongue: Self::Tongue,
        parts: &Parts,
        body: RequestBody,
        caller: CallerId,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The same of HTTP/1, whose futures have no room for what that cannot carry.
    fn answer_http1(
        &self,
        parts: &Parts,
        body: RequestBody,
        caller: CallerId,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer to a request that was cut off because the server's time was up.
    fn cut(tongue: Self::Tongue) -> Response<Self::Body>;

    /// The trailers of an answer that was cut off after it had begun, where its protocol has any.
    fn last_words(tongue: Self::Tongue) -> Option<HeaderMap>;
}

/// Serves `stream` until it closes.
pub(crate) async fn serve<A: Answer>(
    mut stream: Stream,
    caller: CallerId,
    answer: A,
    limits: Arc<ConnectionLimits>,
    phases: Phases,
) {
    let first = tokio::select! {
        biased;
        first = timeout(limits.idle_timeout, sniff(&mut stream, limits.header_timeout)) => first,
        // Nothing was said yet, so nothing is lost; but what is on its way should find somebody.
        () = lingered(&phases) => return,
    };
    let (prefix, is_http2) = match first {
        Ok(Ok((prefix, is_http2))) if !prefix.is_empty() => (prefix, is_http2),
        // Closed, reset or silent before the first request: nothing to answer, nothing to report.
        Ok(_) | Err(_) => return,
    };
    let activity = Arc::new(Activity::default());
    let patience = Patience { header: limits.header_timeout, idle: limits.idle_timeout, write: limits.write_timeout };
    let timed = Timed::new(stream, prefix, is_http2, patience, Arc::clone(&activity));
    let io = TokioIo::new(Gathered::new(timed, is_http2));
    let unread = Unread::new(&activity);
    let connection = Connection { answer, phases: phases.clone(), activity: Arc::clone(&activity), unread, is_http2 };
    let connection = Arc::new(connection);
    let age = is_http2.then(|| age(&limits, caller)).flatten();
    let ends = Ends { phases: &phases, activity: &activity, age };
    let result = if is_http2 {
        let (rooms, streams) = (Rooms::new(), Streams::default());
        let service = service_fn(|request| rooms.put(|| Begun::new(&connection).answer(request, caller)));
        let served = http2_builder(&limits, streams.executor()).serve_connection(io, service);
        drive(Spread { streams: &streams, connection: served }, ends).await
    } else {
        let service = service_fn(|request| Begun::new(&connection).answer_http1(request, caller));
        let served = http1_builder(&limits).serve_connection(io, service);
        drive(Discarding { unread: &connection.unread, connection: served }, ends).await
    };
    if let Err(error) = result {
        // The peer's doing, all of it: gone, too slow, or not speaking HTTP.
        tracing::debug!(connection = caller.0, error = %error_chain(&error), "connection closed early");
    }
}

/// How long an HTTP/2 connection takes requests, and how long those in flight may then take. HTTP/1 ones are not bounded:
/// closing one between two requests loses the second.
fn age(limits: &ConnectionLimits, caller: CallerId) -> Option<(Duration, Duration)> {
    // A tenth less to a tenth more, evenly spread over connections whose numbers follow one another, so that clients that
    // came at once do not come back at once.
    let spread = u32::try_from(caller.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).unwrap_or(0);
    let tenth = limits.max_age / 10;
    (!limits.max_age.is_zero()).then(|| (limits.max_age - tenth + tenth * 2 * spread / (1 << 16), limits.age_grace))
}

/// What the requests of one connection share: one count of references, touched by this connection's tasks alone.
pub(super) struct Connection<A> {
    answer: A,
    pub(super) phases: Phases,
    pub(super) activity: Arc<Activity>,
    unread: Arc<Unread>,
    pub(super) is_http2: bool,
}

/// A request between its headers and the end of its answer.
pub(super) struct Begun<A>(Arc<Connection<A>>);

impl<A> Begun<A> {
    fn new(connection: &Arc<Connection<A>>) -> Self {
        connection.activity.begin();
        Self(Arc::clone(connection))
    }

    pub(super) fn connection(&self) -> &Connection<A> {
        &self.0
    }
}

impl<A: Answer> Begun<A> {
    async fn answer(self, request: Request<Incoming>, caller: CallerId) -> Result<Response<Carried<A>>, Infallible> {
        let Connection { answer, phases, unread, .. } = &*self.0;
        let (parts, body) = request.into_parts();
        let tongue = A::tongue(&parts);
        let body = RequestBody::new(&parts, body, unread);
        let response = {
            // Handed on by value it would take its room twice; so would the head.
            let answering = pin!(answer.answer(tongue, &parts, body, caller));
            until_cut(answering, phases).await
        };
        Ok(self.carry(response, tongue))
    }

    async fn answer_http1(
        self,
        request: Request<Incoming>,
        caller: CallerId,
    ) -> Result<Response<Carried<A>>, Infallible> {
        let Connection { answer, phases, unread, .. } = &*self.0;
        let (parts, body) = request.into_parts();
        let tongue = A::tongue(&parts);
        let body = RequestBody::new(&parts, body, unread);
        let response = {
            let answering = pin!(answer.answer_http1(&parts, body, caller));
            until_cut(answering, phases).await
        };
        Ok(self.carry(response, tongue))
    }

    /// The answer, or that of a request that was cut off, on its way out.
    fn carry(self, response: Option<Response<A::Body>>, tongue: A::Tongue) -> Response<Carried<A>> {
        let response = response.unwrap_or_else(|| {
            self.0.phases.count_cut();
            A::cut(tongue)
        });
        self.0.unread.settle(response.headers());
        response.map(|body| Carried::new(body, self, tongue))
    }
}

impl<A> Drop for Begun<A> {
    fn drop(&mut self) {
        self.0.activity.end();
    }
}

/// Reads until it is clear whether the client speaks HTTP/2. Gives what it has read; nothing where the client closed.
async fn sniff(stream: &mut Stream, header_timeout: Duration) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = [0; PREFACE.len()];
    let mut length = stream.read(&mut bytes).await?;
    let rest = async {
        while length > 0 && length < PREFACE.len() && bytes[..length] == PREFACE[..length] {
            match stream.read(&mut bytes[length..]).await? {
                0 => break,
                n => length += n,
            }
        }
        Ok::<_, io::Error>(())
    };
    timeout(header_timeout, rest).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok((bytes[..length].to_vec(), bytes == *PREFACE))
}

/// Ends a moment after connections should close.
async fn lingered(phases: &Phases) {
    phases.reached(Phase::Finishing).await;
    tokio::time::sleep(LINGER).await;
}

fn http1_builder(limits: &ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // `Timed` keeps the header timeout, for less.
        .header_read_timeout(None)
        // `Timed` also sees that a client has gone, for less (see `gone`).
        .half_close(true)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(LEAST_BUFFER));
    // Any limit but hyper's own makes it allocate its header table for every request.
    if limits.max_headers != 100 {
        builder.max_headers(limits.max_headers);
    }
    builder
}

fn http2_builder(limits: &ConnectionLimits, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        // Whoever answers sets it where it is of use.
        .auto_date_header(false)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(HEADER_LIST)
        // From 64 KiB to what the way to the client holds, at most 16 MiB for a connection and all its streams. With a fixed
        // window a large tensor over a long way waits for acknowledgements most of the time, and one that is large enough
        // for every way is held for every connection.
        .adaptive_window(true)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS);
    builder
}

/// The answer, or `None` when the server's time is up before it. [`drive`] sees to it that it is polled then.
async fn until_cut<T>(answer: impl Future<Output = T>, phases: &Phases) -> Option<T> {
    let mut answer = pin!(answer);
    poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending if phases.has_reached(Phase::Cut) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
