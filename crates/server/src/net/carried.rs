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

use super::connection::{Answer, Begun, Connection};
use super::phase::Phase;
use super::timed::Activity;

/// Pieces from this size on are watched until HTTP/2 has sent them; smaller ones fit any window.
const LARGE: usize = 32 << 10;

/// The body of an answer. The request counts as being answered until it has ended.
pub(super) struct Carried<A: Answer> {
    body: A::Body,
    /// Gone once the body has ended.
    begun: Option<Begun<A>>,
    tongue: A::Tongue,
    /// Wakes a body that waits; made when it first does.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<A: Answer> Carried<A> {
    pub(super) fn new(body: A::Body, begun: Begun<A>, tongue: A::Tongue) -> Self {
        Self { body, begun: Some(begun), tongue, cut: None }
    }

    /// The end that a body gets which waits when time is up.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(connection) = self.begun.as_ref().map(Begun::connection) else { return Poll::Pending };
        if !connection.phases.has_reached(Phase::Cut) {
            let cut = self.cut.get_or_insert_with(|| {
                let phases = connection.phases.clone();
                Box::pin(async move { phases.reached(Phase::Cut).await })
            });
            ready!(cut.as_mut().poll(context));
        }
        connection.phases.count_cut();
        let last_words = A::last_words(self.tongue);
        self.begun = None;
        Poll::Ready(Some(last_words.map(Frame::trailers).ok_or_else(|| CutOff.into())))
    }
}

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

impl<A: Answer> Body for Carried<A> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(begun) = &this.begun else { return Poll::Ready(None) };
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Pending => this.poll_cut(context),
            Poll::Ready(Some(Ok(frame))) => {
                let Connection { activity, is_http2, .. } = begun.connection();
                let is_watched = *is_http2 && frame.data_ref().is_some_and(|data| data.len() >= LARGE);
                let frame = if is_watched { frame.map_data(|data| Sending::watch(data, activity)) } else { frame };
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.begun = None;
                Poll::Ready(end.map(|frame| frame.map_err(Into::into)))
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
        activity.begin_sending();
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
        self.activity.end_sending();
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
