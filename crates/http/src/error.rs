//! A request that is refused: which status, which words, and whether the connection survives it.
//!
//! The tables from reason to status are in `millrace-protocol`; the form of an error body belongs to each route family.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use millrace_core::{Code, Refusal};
use millrace_protocol::{plain, tfs};
use serde::Serialize;

use crate::response::{Answer, json};

/// Why a request is not answered, in the terms of its protocol.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: Code,
    refusal: Refusal,
    close: bool,
    form: Form,
    header: Option<(HeaderName, HeaderValue)>,
    /// What the request asked about itself.
    told: Option<Box<HeaderMap>>,
}

/// Writes the body of an error, a JSON document.
pub(crate) type Form = fn(&Failure) -> Bytes;

impl Failure {
    /// A failure whose status no table gives.
    pub(crate) fn with_status(status: StatusCode, code: Code, refusal: Refusal) -> Self {
        let form: Form = |failure| error_body(failure.refusal.message());
        Self { status, code, refusal, close: false, form, header: None, told: None }
    }

    /// A failure on a route of our own, by the plain table.
    pub(crate) fn plain(refusal: Refusal) -> Self {
        Self::with_status(status(plain::http_status(refusal.reason())), refusal.code(), refusal)
    }

    /// The same, and nothing more is read from this connection.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The same with another body than `{"error": "…"}`.
    pub(crate) fn in_form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// The same with a status that no table has.
    pub(crate) fn with_own_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with a header that says what would work.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The same with what the request asked about itself.
    pub(crate) fn telling(mut self, told: HeaderMap) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// The same in place of `other`: its request is told what it would have been told.
    pub(crate) fn in_place_of(mut self, other: Self) -> Self {
        self.told = other.told;
        self
    }

    /// The same by another protocol's table, where it was made before the protocol was known.
    pub(crate) fn by(self, table: fn(Refusal) -> Self) -> Self {
        let other = table(self.refusal);
        let status = if self.status == StatusCode::REQUEST_TIMEOUT { self.status } else { other.status };
        Self { status, close: self.close || other.close, ..other }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The answer in its protocol's form, with when to retry where that is known.
    pub(crate) fn answer(&self, version: Version) -> Answer {
        let mut answer = json(self.status, (self.form)(self));
        if let Some(wait) = self.retry_after() {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some((name, value)) = &self.header {
            answer.headers_mut().insert(name, value.clone());
        }
        if let Some(told) = &self.told {
            answer.headers_mut().extend(told.as_ref().clone());
        }
        // HTTP/2 has no such header; there the refused body is cut off by resetting its stream.
        if self.close && version < Version::HTTP_2 {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Being overloaded or not ready passes: such answers always say when to ask again.
    fn retry_after(&self) -> Option<Duration> {
        let passing = matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        self.refusal.retry_after().or_else(|| passing.then_some(Duration::from_secs(1)))
    }
}

impl From<tfs::Failure> for Failure {
    fn from(failure: tfs::Failure) -> Self {
        Self::with_status(status(failure.rest_status()), failure.code(), failure.refusal().clone())
    }
}

/// By TensorFlow Serving's table, the one of the main routes.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        tfs::Failure::from(refusal).into()
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).expect("the tables hold three-digit statuses, as a test shows")
}

/// Rounded up, and at least 1: `Retry-After: 0` would mean at once.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// `{"error": "…"}`.
pub(crate) fn error_body(message: &str) -> Bytes {
    serde_json::to_vec(&ErrorBody { error: message }).map(Bytes::from).expect("a string always becomes JSON")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Version;
    use millrace_core::{Reason, Refusal};

    use super::{Failure, error_body, whole_seconds};

    #[test]
    fn every_reason_becomes_an_answer_by_both_tables() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(reason, "why");
            for failure in [Failure::from(refusal.clone()), Failure::plain(refusal)] {
                let answer = failure.answer(Version::HTTP_11);
                assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{}", reason.name());
                let passing = matches!(answer.status().as_u16(), 429 | 503);
                assert_eq!(answer.headers().contains_key("retry-after"), passing, "{}", reason.name());
            }
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_0() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (90_000, 90)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        let refusal = Refusal::new(Reason::QueueFull, "full").with_retry_after(Duration::from_millis(2500));
        assert_eq!(Failure::from(refusal).answer(Version::HTTP_11).headers()["retry-after"], "3");
    }

    #[test]
    fn the_connection_closes_where_it_must_and_http_2_has_no_such_header() {
        let failure = Failure::from(Refusal::new(Reason::TooLarge, "large")).closing();
        assert_eq!(failure.answer(Version::HTTP_11).headers()["connection"], "close");
        assert!(!failure.answer(Version::HTTP_2).headers().contains_key("connection"));
        let kept = Failure::from(Refusal::new(Reason::InvalidInput, "bad"));
        assert!(!kept.answer(Version::HTTP_11).headers().contains_key("connection"));
    }

    #[test]
    fn error_bodies_are_json_whatever_the_text() {
        assert_eq!(error_body("a \"b\"\n\u{1b}"), "{\"error\":\"a \\\"b\\\"\\n\\u001b\"}");
    }
}
