//! The answer's body type and the few ways an answer is built. What goes into it is decided elsewhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use millrace_protocol::front::Budget;
use smallvec::SmallVec;

use crate::error::error_body;

/// A complete body of known length: a document, or a document and the tensors that follow it, each sent as it lies.
#[derive(Debug, Default)]
pub struct ResponseBody {
    /// What is not yet sent, in order. None is empty. Small answers are one piece.
    segments: SmallVec<[Bytes; 1]>,
    /// How many of them were taken from the front.
    taken: usize,
    length: usize,
}

impl ResponseBody {
    /// A body of `bytes`; none where they are empty.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::of_segments([bytes.into()])
    }

    /// A body of several pieces, back to back.
    pub fn of_segments(segments: impl IntoIterator<Item = Bytes>) -> Self {
        let segments: SmallVec<[Bytes; 1]> = segments.into_iter().filter(|bytes| !bytes.is_empty()).collect();
        let length = segments.iter().map(Bytes::len).sum();
        Self { segments, taken: 0, length }
    }

    /// The bytes not yet sent. Several pieces are copied together.
    pub fn into_bytes(self) -> Bytes {
        match &self.segments[self.taken..] {
            [] => Bytes::new(),
            [only] => only.clone(),
            several => Bytes::from(several.concat()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Counts the body against `budget` until its last byte was sent; false where there is no room.
    pub(crate) fn hold(&mut self, budget: &Arc<Budget>) -> bool {
        self.segments.iter_mut().all(|segment| match budget.hold(std::mem::take(segment)) {
            Some(held) => {
                *segment = held;
                true
            }
            None => false,
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let taken = self.taken;
        let Some(segment) = self.segments.get_mut(taken).map(std::mem::take) else { return Poll::Ready(None) };
        self.taken += 1;
        self.length -= segment.len();
        Poll::Ready(Some(Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.taken == self.segments.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// An answer of this front-end.
pub(crate) type Answer = Response<ResponseBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(ResponseBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A body of any kind; its headers are the caller's.
pub(crate) fn with_body(status: StatusCode, body: ResponseBody) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A JSON document.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, JSON, body)
}

/// A page of metrics.
pub(crate) fn prometheus(page: String) -> Answer {
    answer(StatusCode::OK, PROMETHEUS, page)
}

/// No body at all.
pub(crate) fn empty(status: StatusCode) -> Answer {
    with_body(status, ResponseBody::default())
}

/// 405 as JSON, naming the methods there are.
pub(crate) fn method_not_allowed(allow: &'static str) -> Answer {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, error_body("Method Not Allowed"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
