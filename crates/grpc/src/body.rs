//! The answer's body type: a few pieces of data and trailers, or whatever a stream gives.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use smallvec::SmallVec;

use crate::failure::STATUS;

/// The pieces of one message with its prefix, in order. Large tensors are pieces of their own.
pub(crate) type Pieces = SmallVec<[Bytes; 2]>;

/// The body of an answer: messages and then trailers, or nothing where the headers say it all.
pub struct GrpcBody(Kind);

enum Kind {
    Empty,
    /// One message and an OK.
    Message(smallvec::IntoIter<[Bytes; 2]>),
    /// Messages as they come.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl GrpcBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// One message, and the call ends well.
    pub(crate) fn message(pieces: Pieces) -> Self {
        Self(Kind::Message(pieces.into_iter()))
    }

    /// Whatever `body` gives, trailers included.
    pub(crate) fn stream(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        Self(Kind::Stream(Box::pin(body)))
    }
}

/// The trailers of a call that ended well.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Message(pieces) => {
                if let Some(piece) = pieces.next() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            Kind::Stream(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Message(_) => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }
}

impl fmt::Debug for GrpcBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "GrpcBody::Empty",
            Kind::Message(_) => "GrpcBody::Message",
            Kind::Stream(_) => "GrpcBody::Stream",
        })
    }
}
