//! How long a connection lives: until the peer closes, it idles for too long, it is too old, or the server stops.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use tokio::time::{Sleep, sleep};

use super::phase::{Phase, Phases};
use super::streams::{StreamExecutor, Streams};
use super::timed::Activity;
use super::unread::Unread;

/// How long a connection without a request in flight may stay once it should close.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// When a connection ends although its peer would go on.
pub(super) struct Ends<'a> {
    pub(super) phases: &'a Phases,
    pub(super) activity: &'a Activity,
    /// How long it takes requests, and how long those in flight may then take.
    pub(super) age: Option<(Duration, Duration)>,
}

/// A hyper connection of either protocol.
pub(super) trait Graceful: Future<Output = Result<(), hyper::Error>> {
    /// No more requests after those in flight.
    fn finish(self: Pin<&mut Self>);

    /// Has the requests in flight polled that are not when the connection is.
    fn wake(&self) {}
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

impl<I, S, B> Graceful for http2::Connection<I, S, StreamExecutor>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: Read + Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    StreamExecutor: Http2ServerConnExec<S::Future, B>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// An HTTP/1 connection, polled again for as long as it throws away what is still sent of refused requests.
pub(super) struct Discarding<'d, C> {
    pub(super) unread: &'d Unread,
    pub(super) connection: C,
}

impl<C: Graceful + Unpin> Future for Discarding<'_, C> {
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        let Self { unread, connection } = &mut *self;
        loop {
            if let Poll::Ready(end) = Pin::new(&mut *connection).poll(context) {
                return Poll::Ready(end);
            }
            if !unread.poll(context) {
                return Poll::Pending;
            }
        }
    }
}

impl<C: Graceful + Unpin> Graceful for Discarding<'_, C> {
    fn finish(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.connection).finish();
    }
}

/// An HTTP/2 connection whose requests are polled in tasks beside it.
pub(super) struct Spread<'s, C> {
    pub(super) streams: &'s Streams,
    pub(super) connection: C,
}

impl<C: Graceful + Unpin> Future for Spread<'_, C> {
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Pin::new(&mut self.connection).poll(context)
    }
}

impl<C: Graceful + Unpin> Graceful for Spread<'_, C> {
    fn finish(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.connection).finish();
    }

    fn wake(&self) {
        self.streams.wake();
    }
}

/// Drives `connection` to its end.
pub(super) async fn drive<C: Graceful>(connection: C, ends: Ends<'_>) -> Result<(), hyper::Error> {
    let Ends { phases, activity, age } = ends;
    let mut connection = pin!(connection);
    let mut finishing = pin!(phases.reached(Phase::Finishing));
    let mut is_registered = false;
    let mut old: Option<Pin<Box<Sleep>>> = age.map(|(age, _)| Box::pin(sleep(age)));
    let mut is_old = false;
    let closed = poll_fn(|context| {
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        is_old = old.as_mut().is_some_and(|old| old.as_mut().poll(context).is_ready());
        if is_old || activity.is_idle_for_too_long() {
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
    let grace = age.filter(|_| is_old).map(|(_, grace)| grace);
    let mut out_of_grace = pin!(async {
        match grace {
            Some(grace) => sleep(grace).await,
            None => std::future::pending().await,
        }
    });
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
            () = out_of_grace.as_mut() => {
                tracing::debug!("a connection was too old, and its requests in flight took too long");
                return Ok(());
            }
            // The requests in flight are polled once more, and see that they are cut.
            () = cut.as_mut(), if !is_cut => {
                is_cut = true;
                connection.wake();
            }
            () = sleep(LINGER) => if activity.is_quiet() { return Ok(()) },
        }
    }
}
