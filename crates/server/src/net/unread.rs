//! Bodies that are not read because the answer does not depend on them: what the client still sends is taken and thrown
//! away, so that the connection can go on.
//!
//! Over HTTP/1 hyper would close the connection over the unread bytes, and the system then resets it: a client that reads
//! only after it has sent everything would lose the answer. Where the client waits to be told to send
//! (`Expect: 100-continue`), or there is more than is worth it, it is left at that.
//!
//! Over HTTP/2 the stream is reset with `NO_ERROR` once it is answered (RFC 9113, 8.1), which keeps the client from sending
//! the rest. h2 remembers 50 such streams for a second. What still comes for others it takes for the client's mistake, and
//! closes the connection over many of those: beyond [`RESETS`] a second the rest of the body is taken here as well.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::timed::Activity;

/// Bytes. Shorter bodies came with their heads, and hyper lets go of what is there already.
const LEAST: u64 = 8 << 10;
/// Bytes that are taken for the sake of the connection. To open a new one costs both ends less than to send more.
const MOST: u64 = 4 << 20;
/// How long that may take.
const TIME: Duration = Duration::from_secs(5);

/// How long h2 remembers a stream that was reset.
const SECOND: Duration = Duration::from_secs(1);
/// Streams that are reset in one second of a connection: half of what h2 remembers, for a second may begin anywhere.
const RESETS: u32 = 25;

/// The body of a request. When it is dropped before its end, over HTTP/1 before its first byte was asked for, the rest goes
/// to the connection's [`Unread`].
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Option<Incoming>,
    is_http2: bool,
    /// Over HTTP/1 until its first byte is asked for.
    rest: Option<Arc<Unread>>,
}

impl RequestBody {
    pub(super) fn new(parts: &Parts, body: Incoming, unread: &Arc<Unread>) -> Self {
        let is_http2 = parts.version == Version::HTTP_2;
        let is_taken = if is_http2 {
            !body.is_end_stream()
        } else {
            body.size_hint().exact().is_some_and(|length| (LEAST..=MOST).contains(&length))
                && !parts.headers.contains_key(EXPECT)
        };
        Self { body: Some(body), is_http2, rest: is_taken.then(|| Arc::clone(unread)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.is_http2 {
            self.rest = None;
        }
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(rest)) = (self.body.take(), self.rest.take()) {
            match (self.is_http2, Handle::try_current()) {
                (false, _) => rest.put(body),
                (true, Ok(runtime)) if !body.is_end_stream() && !rest.may_reset() => drop(runtime.spawn(discard(body))),
                (true, _) => {}
            }
        }
    }
}

/// Takes what still comes on a stream that is not reset. Most clients send nothing more once they are answered.
async fn discard(mut body: Incoming) {
    let all = async { while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {} };
    // A client that takes longer has no more on its way than a reset can stop.
    let _in_time = timeout(TIME, all).await.is_ok();
}

/// What the client of one connection still sends of a request that was answered without it. Its lock is never waited for:
/// only the connection's task takes it.
#[derive(Debug)]
pub(super) struct Unread {
    rest: Mutex<Option<Rest>>,
    /// Streams that were reset since then.
    resets: Mutex<Option<(Instant, u32)>>,
    /// Spares the lock.
    is_there: AtomicBool,
    /// Such a request counts as under way.
    activity: Arc<Activity>,
}

#[derive(Debug)]
struct Rest {
    body: Incoming,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Unread {
    pub(super) fn new(activity: &Arc<Activity>) -> Arc<Self> {
        let (rest, resets, is_there) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { rest, resets, is_there, activity: Arc::clone(activity) })
    }

    /// Whether another stream may be reset now; it then counts as one.
    fn may_reset(&self) -> bool {
        let mut resets = self.resets.lock();
        let now = Instant::now();
        let (since, count) = resets.get_or_insert((now, 0));
        if now.duration_since(*since) >= SECOND {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= RESETS
    }

    fn put(&self, body: Incoming) {
        self.activity.begin();
        self.activity.set_unread(body.size_hint().exact().unwrap_or_default());
        self.is_there.store(true, Ordering::Relaxed);
        *self.rest.lock() = Some(Rest { body, timer: None });
    }

    /// Lets go of the rest where the connection closes with this answer anyway.
    pub(super) fn settle(&self, answer: &HeaderMap) {
        if self.is_there.load(Ordering::Relaxed) && answer.contains_key(CONNECTION) {
            self.end(&mut self.rest.lock());
        }
    }

    /// Takes what has come. Returns whether that was anything: there may be more.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> bool {
        if !self.is_there.load(Ordering::Relaxed) {
            return false;
        }
        let mut place = self.rest.lock();
        let Some(rest) = place.as_mut() else { return false };
        match Pin::new(&mut rest.body).poll_frame(context) {
            Poll::Ready(Some(Ok(_))) if !rest.body.is_end_stream() => return true,
            Poll::Ready(_) => {}
            Poll::Pending => {
                let timer = rest.timer.get_or_insert_with(|| Box::pin(sleep(TIME)));
                if timer.as_mut().poll(context).is_pending() {
                    return false;
                }
            }
        }
        self.end(&mut place);
        true
    }

    fn end(&self, place: &mut Option<Rest>) {
        if place.take().is_some() {
            self.activity.set_unread(0);
            self.is_there.store(false, Ordering::Relaxed);
            self.activity.end();
        }
    }
}

#[cfg(test)]
mod tests;
