//! The few request headers that this front-end reads, in one pass over the header map.

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use millrace_core::{Quoted, Reason, Refusal};
use millrace_protocol::front::account::{EXPLAIN, Inquiry, TIMING, switch};

/// How long the client will wait, in milliseconds.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// How many bytes of a body are its document; the others are tensors in binary form.
pub(crate) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// The client's own name for the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are not sent back.
const LONGEST_ID: usize = 128;

/// Bytes of `application/json`, which nearly every request says and no event does.
const JSON_LENGTH: usize = 16;

/// What the headers say.
#[derive(Debug, Default)]
pub(crate) struct Head<'a> {
    /// The declared length of the body in bytes.
    pub(crate) content_length: Option<u64>,
    /// How the body is packed, as it was sent.
    pub(crate) content_encoding: Option<&'a HeaderValue>,
    /// Whether the body's coding mentions gzip: TensorFlow Serving's test.
    pub(crate) gzip: bool,
    /// How the answer may be packed, as it was sent.
    pub(crate) accept_encoding: Option<&'a HeaderValue>,
    /// Whether the answer may be gzipped.
    pub(crate) accepts_gzip: bool,
    /// How long the client will wait, as it was sent.
    pub(crate) timeout: Option<&'a HeaderValue>,
    /// To be sent back as it came.
    pub(crate) request_id: Option<&'a HeaderValue>,
    /// Which site's page asks.
    pub(crate) origin: Option<&'a HeaderValue>,
    /// What the body is, as it was sent.
    pub(crate) content_type: Option<&'a HeaderValue>,
    /// How many bytes of the body are its document, as it was sent.
    pub(crate) header_length: Option<&'a HeaderValue>,
    /// Whether that was sent more than once.
    pub(crate) has_two_lengths: bool,
    /// Whether the answer is to tell its stages, as it was sent.
    pub(crate) timing: Option<&'a HeaderValue>,
    /// Whether it is to tell everything, as it was sent.
    pub(crate) explain: Option<&'a HeaderValue>,
    /// Whether the request may be a CloudEvent, so that it is worth a closer look.
    pub(crate) may_be_event: bool,
}

impl<'a> Head<'a> {
    /// Reads the headers.
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            if *name == CONTENT_LENGTH {
                head.content_length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            } else if *name == CONTENT_ENCODING {
                // TensorFlow Serving looks for the word anywhere and knows no other coding.
                head.gzip |= contains_gzip(value);
                head.content_encoding = Some(value);
            } else if *name == ACCEPT_ENCODING {
                head.accepts_gzip |= accepts_gzip(value);
                head.accept_encoding = Some(value);
            } else if *name == ORIGIN {
                head.origin = Some(value);
            } else if *name == CONTENT_TYPE {
                head.content_type = Some(value);
                head.may_be_event |= value.as_bytes().len() > JSON_LENGTH;
            } else if name.as_str().starts_with("ce-") {
                head.may_be_event = true;
            } else if *name == HEADER_LENGTH {
                head.has_two_lengths = head.header_length.replace(value).is_some();
            } else if *name == REQUEST_TIMEOUT {
                head.timeout = Some(value);
            } else if *name == REQUEST_ID && value.len() <= LONGEST_ID {
                head.request_id = Some(value);
            } else if name.as_str().starts_with("x-millrace-") {
                match name.as_str() {
                    TIMING => head.timing = Some(value),
                    EXPLAIN => head.explain = Some(value),
                    _ => {}
                }
            }
        }
        head
    }

    /// What the request wants to know about itself, by its headers and by `explain` in its query, which goes first. The
    /// stages it is told without asking where `always` says so.
    ///
    /// # Errors
    /// A refusal of anything but on and off.
    pub(crate) fn inquiry(&self, query: Option<&str>, always: bool) -> Result<Option<Box<Inquiry>>, Refusal> {
        if self.timing.is_none() && self.explain.is_none() && query.is_none() {
            let id = || self.request_id.map(HeaderValue::as_bytes);
            return Ok(if always { Inquiry::new(true, false, id()) } else { None });
        }
        let read = |name, value: Option<&HeaderValue>| value.map(|value| switch(name, value.as_bytes())).transpose();
        let timing = read(TIMING, self.timing)?.unwrap_or(always);
        let asked = query.unwrap_or_default().split('&').find_map(|pair| match pair.split_once('=') {
            Some(("explain", value)) => Some(switch("explain", value.as_bytes())),
            // A switch that only stands there is on.
            None if pair == "explain" => Some(Ok(true)),
            Some(_) | None => None,
        });
        let explain = asked.or_else(|| read(EXPLAIN, self.explain).transpose()).transpose()?.unwrap_or(false);
        Ok(Inquiry::new(timing, explain, self.request_id.map(HeaderValue::as_bytes)))
    }

    /// How long the client will wait.
    ///
    /// # Errors
    /// A refusal when the header is not a whole number: guessing would make the client wait for ever.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Refusal> {
        let Some(value) = self.timeout else { return Ok(None) };
        let text = String::from_utf8_lossy(value.as_bytes());
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().map(Duration::from_millis) {
            Ok(timeout) if digits => Ok(Some(timeout)),
            Ok(_) | Err(_) => Err(Refusal::new(
                Reason::InvalidInput,
                format!("{REQUEST_TIMEOUT}: expected a whole number of milliseconds, got {}", Quoted(&text)),
            )),
        }
    }
}

fn contains_gzip(value: &HeaderValue) -> bool {
    value.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"gzip"))
}

/// Whether `gzip` is listed and not with weight 0, or `*` where `gzip` is not.
fn accepts_gzip(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let weight = |wanted: &str| {
        text.split(',').find_map(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.unwrap_or(0.0))
        })
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::Head;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn gzip_is_accepted_by_name_or_star_unless_its_weight_is_zero() {
        let cases = [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("*, gzip;q=0", false),
            ("*;q=0, gzip", true),
            ("gzip; q=0.0", false),
            ("gzip;q=junk", false),
            ("br", false),
            ("", false),
        ];
        for (value, expected) in cases {
            let headers = headers(&[("accept-encoding", value)]);
            assert_eq!(Head::read(&headers).accepts_gzip, expected, "{value}");
        }
    }

    #[test]
    fn any_mention_of_gzip_means_that_the_body_is() {
        for (value, expected) in [("gzip", true), ("x-gzip", true), ("gzip, gzip", true), ("br", false)] {
            let headers = headers(&[("content-encoding", value)]);
            assert_eq!(Head::read(&headers).gzip, expected, "{value}");
        }
    }

    #[test]
    fn a_timeout_is_whole_milliseconds_or_an_error() {
        let timeout = |value: &str| Head::read(&headers(&[("x-request-timeout-ms", value)])).timeout();
        assert_eq!(timeout("250").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(Head::read(&headers(&[])).timeout().unwrap(), None);
        for bad in ["", "-1", "+1", "1.5", "1s", "99999999999999999999999"] {
            assert!(timeout(bad).unwrap_err().message().contains("x-request-timeout-ms"), "{bad}");
        }
    }

    #[test]
    fn long_request_ids_are_dropped() {
        let long = "x".repeat(129);
        assert!(Head::read(&headers(&[("x-request-id", &long)])).request_id.is_none());
        assert_eq!(Head::read(&headers(&[("x-request-id", "abc")])).request_id.unwrap(), "abc");
    }
}
