//! One connection from its first byte to its last: HTTP/1.1 or h2c by its first bytes, then requests until it closes.
//!
//! The protocol is found out here and not by hyper-util's auto builder: that keeps its rewinding layer out of the path
//! of every read, and lets the header limits of HTTP/1 be set.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use millrace_core::CallerId;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ConnectionLimits;
use super::phase::{Phase, Phases};
use super::timed::{Activity, Patience, Timed};
use crate::log::error_chain;

/// What a client says first when it means HTTP/2 without TLS.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The least read buffer that hyper accepts.
const LEAST_BUFFER: usize = 8192;
/// HTTP/2: bytes in flight per request body before the peer waits for us.
const STREAM_WINDOW: u32 = 256 << 10;
/// HTTP/2: bytes of all headers of one request.
const HEADER_LIST: u32 = 16 << 10;
/// HTTP/2: how often a silent peer is asked whether it is there, and how long it may think.
const PING: Duration = Duration::from_secs(20);
/// HTTP/2: resets waiting for us before the peer counts as hostile.
const MAX_RESETS: usize = 50;
/// How long a connection without a request in flight may stay once it should close.
const LINGER: Duration = Duration::from_millis(500);

/// Whoever answers the requests of a listener.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The answers' bodies.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers one request. Dropping the future gives the request up.
    fn answer(&self, request: Request<Incoming>, caller: CallerId)
    -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer to a request that was cut off because the server's time was up.
    fn cut(&self) -> Response<Self::Body>;
}

/// Serves `stream` until it closes.
pub(crate) async fn serve<A: Answer>(
    mut stream: TcpStream,
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
    let io = TokioIo::new(Timed::new(stream, prefix, is_http2, patience, Arc::clone(&activity)));
    let connection = Arc::new(Connection { answer, phases: phases.clone(), activity: Arc::clone(&activity) });
    let service = service_fn(|request| {
        let begun = Begun::new(&connection);
        async move {
            let connection = &*begun.0;
            let answer = connection.answer.answer(request, caller);
            let response = until_cut(answer, &connection.phases, is_http2).await;
            Ok::<_, Infallible>(response.unwrap_or_else(|| {
                connection.phases.count_cut();
                connection.answer.cut()
            }))
        }
    });
    let result = if is_http2 {
        drive(http2_builder(&limits).serve_connection(io, service), &phases, &activity).await
    } else {
        drive(http1_builder(&limits).serve_connection(io, service), &phases, &activity).await
    };
    if let Err(error) = result {
        // The peer's doing, all of it: gone, too slow, or not speaking HTTP.
        tracing::debug!(connection = caller.0, error = %error_chain(&error), "connection closed early");
    }
}

/// What the requests of one connection share: one count of references, touched by this connection's tasks alone.
struct Connection<A> {
    answer: A,
    phases: Phases,
    activity: Arc<Activity>,
}

/// A request between its headers and its answer.
struct Begun<A>(Arc<Connection<A>>);

impl<A> Begun<A> {
    fn new(connection: &Arc<Connection<A>>) -> Self {
        connection.activity.begin();
        Self(Arc::clone(connection))
    }
}

impl<A> Drop for Begun<A> {
    fn drop(&mut self) {
        self.0.activity.end();
    }
}

/// Reads until it is clear whether the client speaks HTTP/2. Gives what it has read; nothing where the client closed.
async fn sniff(stream: &mut TcpStream, header_timeout: Duration) -> io::Result<(Vec<u8>, bool)> {
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
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(LEAST_BUFFER) * 4);
    // Any limit but hyper's own makes it allocate its header table for every request.
    if limits.max_headers != 100 {
        builder.max_headers(limits.max_headers);
    }
    builder
}

fn http2_builder(limits: &ConnectionLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 4)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// The answer, or `None` when the server's time is up before it.
async fn until_cut<T>(answer: impl Future<Output = T>, phases: &Phases, is_http2: bool) -> Option<T> {
    let mut answer = pin!(answer);
    let mut cut = pin!(phases.reached(Phase::Cut));
    poll_fn(|context| {
        if let Poll::Ready(response) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(response));
        }
        if phases.has_reached(Phase::Cut) {
            return Poll::Ready(None);
        }
        // HTTP/1 answers are polled by the connection's own task, which `drive` wakes; HTTP/2 ones have their own.
        if is_http2 { cut.as_mut().poll(context).map(|()| None) } else { Poll::Pending }
    })
    .await
}

/// A hyper connection of either protocol.
trait Graceful: Future<Output = Result<(), hyper::Error>> {
    /// No more requests after those in flight.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: Read + Write + Unpin + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Graceful for http2::Connection<I, S, TokioExecutor>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: Read + Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive<C: Graceful>(connection: C, phases: &Phases, activity: &Activity) -> Result<(), hyper::Error> {
    let mut connection = pin!(connection);
    let mut finishing = pin!(phases.reached(Phase::Finishing));
    let mut is_registered = false;
    let closed = poll_fn(|context| {
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        if activity.is_idle_for_too_long() {
            return Poll::Ready(None);
        }
        // Polled once: that registers this task, and polling takes a lock that all connections share.
        if is_registered {
            return if phases.has_reached(Phase::Finishing) { Poll::Ready(None) } else { Poll::Pending };
        }
        is_registered = true;
        finishing.as_mut().poll(context).map(|()| None)
    })
    .await;
    if let Some(result) = closed {
        return result;
    }
    connection.as_mut().finish();
    let mut cut = pin!(phases.reached(Phase::Cut));
    let mut is_cut = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            () = phases.reached(Phase::Gone) => {
                if !activity.is_quiet() {
                    phases.count_cut();
                }
                return Ok(());
            }
            // Polls the connection again, and with it the requests in flight, which then see that they are cut.
            () = cut.as_mut(), if !is_cut => is_cut = true,
            () = tokio::time::sleep(LINGER) => if activity.is_quiet() { return Ok(()) },
        }
    }
}
