//! Bodies that are not read because the answer does not depend on them: over HTTP/1 what the client still sends is taken
//! and thrown away, so that the connection can go on.
//!
//! hyper would close the connection over the unread bytes, and the system then resets it: a client that reads only after
//! it has sent everything would lose the answer. Where the client waits to be told to send (`Expect: 100-continue`), or
//! there is more than is worth it, it is left at that. HTTP/2 needs none of this: there the stream is reset.

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
use tokio::time::{Sleep, sleep};

use super::timed::Activity;

/// Bytes. Shorter bodies came with their heads, and hyper lets go of what is there already.
const LEAST: u64 = 8 << 10;
/// Bytes that are taken for the sake of the connection. To open a new one costs both ends less than to send more.
const MOST: u64 = 4 << 20;
/// How long that may take.
const TIME: Duration = Duration::from_secs(5);

/// The body of a request. When it is dropped unread, the rest goes to the connection's [`Unread`].
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Option<Incoming>,
    /// Until its first byte is asked for.
    rest: Option<Arc<Unread>>,
}

impl RequestBody {
    pub(super) fn new(parts: &Parts, body: Incoming, unread: &Arc<Unread>) -> Self {
        let is_taken = body.size_hint().exact().is_some_and(|length| (LEAST..=MOST).contains(&length))
            && parts.version < Version::HTTP_2
            && !parts.headers.contains_key(EXPECT);
        Self { body: Some(body), rest: is_taken.then(|| Arc::clone(unread)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.rest = None;
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
            rest.put(body);
        }
    }
}

/// What the client of one connection still sends of a request that was answered without it. The lock is never waited for:
/// only the connection's task takes it.
#[derive(Debug)]
pub(super) struct Unread {
    rest: Mutex<Option<Rest>>,
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
        Arc::new(Self { rest: Mutex::default(), is_there: AtomicBool::new(false), activity: Arc::clone(activity) })
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
