//! The answer's body type and the few ways an answer is built. What goes into it is decided elsewhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

/// A complete body of known length, sent as one frame.
#[derive(Debug, Default)]
pub struct ResponseBody(Option<Bytes>);

impl ResponseBody {
    /// A body of `bytes`; none where they are empty.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// The bytes not yet sent.
    pub fn into_bytes(self) -> Bytes {
        self.0.unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// An answer of this front-end.
pub(crate) type Answer = Response<ResponseBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(ResponseBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
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

/// Plain text.
pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    answer(status, TEXT, Bytes::from_static(body.as_bytes()))
}

/// No body at all.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = status;
    response
}

/// 405, naming the methods there are.
pub(crate) fn method_not_allowed(allow: &'static str) -> Answer {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
