//! A call that is refused: which code, which words, and how they go over the wire.
//!
//! The tables from reason to code are in `millrace-protocol`, one per protocol.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use millrace_core::{Code, Refusal};
use millrace_protocol::oip;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::body::GrpcBody;
use crate::reply::{CONTENT_TYPE, GRPC};

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How many milliseconds a client that retries by itself should wait.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What gRPC wants escaped in a status message besides everything outside of ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
/// Bytes of a status message; TensorFlow Serving's limit, and a good one for a header.
const LONGEST: usize = 1024;
/// What follows a message that was cut, as TensorFlow Serving has it.
const CUT: &str = "...TRUNCATED";

/// Why a call is not answered, in the terms of its protocol.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    refusal: Refusal,
    /// What the call asked about itself.
    told: Option<Box<HeaderMap>>,
}

impl Failure {
    /// A failure whose code the canonical table does not give.
    pub(crate) fn new(code: Code, refusal: Refusal) -> Self {
        Self { code, refusal, told: None }
    }

    /// The same with what the call asked about itself.
    pub(crate) fn telling(mut self, told: HeaderMap) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// The code on the wire.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Reason, public text, retry time and cause.
    pub(crate) fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The trailers that say so.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(4);
        trailers.insert(STATUS, HeaderValue::from(u16::from(self.code.number())));
        let message = cut(self.refusal.message());
        let message: Cow<'_, str> = utf8_percent_encode(&message, ESCAPED).into();
        if let Ok(message) = HeaderValue::from_str(&message) {
            trailers.insert(MESSAGE, message);
        }
        if let Some(wait) = self.refusal.retry_after() {
            trailers.insert(PUSHBACK, HeaderValue::from(milliseconds(wait)));
        }
        if let Some(told) = &self.told {
            trailers.extend(told.as_ref().clone());
        }
        trailers
    }
}

/// By the canonical table.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal)
    }
}

impl From<oip::Failure> for Failure {
    fn from(failure: oip::Failure) -> Self {
        Self::new(failure.code(), failure.refusal().clone())
    }
}

/// The trailers that end a call with `refusal`, under its canonical code: for whoever ends calls from outside.
pub fn refusal_trailers(refusal: &Refusal) -> HeaderMap {
    Failure::from(refusal.clone()).trailers()
}

/// The whole answer to a call that is refused with `refusal`, under its canonical code: for whoever has to answer in
/// place of the service.
pub fn refusal_response(refusal: &Refusal) -> Response<GrpcBody> {
    response(refusal_trailers(refusal))
}

/// An answer of trailers alone.
pub(crate) fn response(trailers: HeaderMap) -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody::empty());
    *response.headers_mut() = trailers;
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// At least 1: 0 would mean at once.
fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn cut(message: &str) -> Cow<'_, str> {
    if message.len() <= LONGEST {
        return Cow::Borrowed(message);
    }
    let end = (0..=LONGEST).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{}{CUT}", &message[..end]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::{Reason, Refusal};

    use super::refusal_trailers;

    #[test]
    fn a_message_is_escaped_and_cut() {
        let text = |message: String| {
            let trailers = refusal_trailers(&Refusal::new(Reason::InvalidInput, message));
            assert_eq!(trailers["grpc-status"], "3");
            trailers["grpc-message"].to_str().unwrap().to_owned()
        };
        assert_eq!(text("50 % of \u{e4}\n".to_owned()), "50 %25 of %C3%A4%0A");
        assert_eq!(text("x".repeat(1024)), "x".repeat(1024));
        assert_eq!(text("x".repeat(2000)), format!("{}...TRUNCATED", "x".repeat(1024)));
        assert_eq!(text(format!("x{}", "\u{e4}".repeat(1000))).matches("%C3%A4").count(), 511);
    }

    #[test]
    fn overload_says_when_to_try_again() {
        let refusal = Refusal::new(Reason::QueueFull, "full");
        assert!(!refusal_trailers(&refusal).contains_key("grpc-retry-pushback-ms"));
        let trailers = refusal_trailers(&refusal.with_retry_after(Duration::from_micros(1)));
        assert_eq!(trailers["grpc-retry-pushback-ms"], "1");
    }
}
