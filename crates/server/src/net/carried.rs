//! The body of an answer on its way out: it keeps the connection's account of what is still being sent, and ends with
//! last words when the server's time is up.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::connection::{Answer, Begun};
use super::phase::{Phase, Phases};
use super::timed::Activity;

/// Pieces from this size on are watched until HTTP/2 has sent them; smaller ones do not hold much.
const LARGE: usize = 32 << 10;

/// The body of an answer. The request counts as being answered until it has ended.
pub(super) struct Carried<A: Answer> {
    body: A::Body,
    /// Gone once the body has ended.
    begun: Option<Begun<A>>,
    tongue: A::Tongue,
    /// Whether the connection counts it as offered: the next piece is there as soon as the client has room for it. Else
    /// the body waits for something to be done. On HTTP/1 the socket says what the client takes.
    is_offered: bool,
    /// Wakes a body that waits when the server's next phase comes; made when it first waits.
    wake: Option<(Phase, Wake)>,
}

impl<A: Answer> Carried<A> {
    pub(super) fn new(body: A::Body, begun: Begun<A>, tongue: A::Tongue) -> Self {
        let mut this = Self { body, begun: Some(begun), tongue, is_offered: false, wake: None };
        this.offer(!this.body.is_end_stream());
        this
    }

    /// Tells the connection whether there is something to be taken.
    fn offer(&mut self, is_offered: bool) {
        let Some(connection) = self.begun.as_ref().map(Begun::connection) else { return };
        if connection.is_http2 && self.is_offered != is_offered {
            self.is_offered = is_offered;
            if is_offered { connection.activity.offer() } else { connection.activity.take() }
        }
    }

    /// The body has ended.
    fn end(&mut self) {
        self.offer(false);
        self.begun = None;
    }

    /// Waits for the phase after the present one.
    fn poll_phase(&mut self, phases: &Phases, context: &mut Context<'_>) -> Poll<Phase> {
        let next = if phases.has_reached(Phase::Finishing) { Phase::Cut } else { Phase::Finishing };
        if self.wake.as_ref().is_none_or(|(phase, _)| *phase != next) {
            let phases = phases.clone();
            self.wake = Some((next, Box::pin(async move { phases.reached(next).await })));
        }
        match &mut self.wake {
            Some((_, wake)) => wake.as_mut().poll(context).map(|()| next),
            None => Poll::Pending,
        }
    }

    /// The end of a body that still waits when time is up.
    fn cut(&mut self, phases: &Phases) -> Result<Frame<Bytes>, BoxError> {
        phases.count_cut();
        self.end();
        A::last_words(self.tongue).map(Frame::trailers).ok_or_else(|| CutOff.into())
    }
}

/// Ends when a phase has come.
type Wake = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Also where the client has reset the stream.
impl<A: Answer> Drop for Carried<A> {
    fn drop(&mut self) {
        self.offer(false);
    }
}

impl<A: Answer> Body for Carried<A> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            let Some(begun) = &this.begun else { return Poll::Ready(None) };
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => {
                    let phases = begun.connection().phases.clone();
                    this.offer(false);
                    match ready!(this.poll_phase(&phases, context)) {
                        // A stream on which nothing is under way ends by itself, once it is asked.
                        Phase::Finishing => {}
                        Phase::Cut | Phase::Gone => return Poll::Ready(Some(this.cut(&phases))),
                    }
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let connection = begun.connection();
                    let is_large = frame.data_ref().is_some_and(|data| data.len() >= LARGE);
                    let frame = if is_large && connection.is_http2 {
                        frame.map_data(|data| Sending::watch(data, &connection.activity))
                    } else {
                        frame
                    };
                    this.offer(true);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(end) => {
                    this.end();
                    return Poll::Ready(end.map(|frame| frame.map_err(Into::into)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece that the connection counts until it is dropped, which is when it has been written.
struct Sending {
    data: Bytes,
    activity: Arc<Activity>,
}

impl Sending {
    fn watch(data: Bytes, activity: &Arc<Activity>) -> Bytes {
        activity.offer();
        Bytes::from_owner(Self { data, activity: Arc::clone(activity) })
    }
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.activity.take();
    }
}

/// Why a body broke off.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is shutting down")
    }
}

impl Error for CutOff {}
