//! The few request headers that this front-end reads, in one pass over the header map.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use millrace_core::{Quoted, Reason, Refusal};
use millrace_protocol::front::account::{EXPLAIN, Inquiry, TIMING, switch};

use crate::coding::Coding;

/// The client's own name for the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are not sent back.
const LONGEST_ID: usize = 128;

/// What the headers say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// How long the client will wait.
    pub(crate) timeout: Option<Duration>,
    /// How packed messages are packed.
    pub(crate) coding: Option<Coding>,
    /// How answers are to be packed, if at all.
    pub(crate) reply_coding: Option<Coding>,
    /// To be sent back as it came.
    pub(crate) request_id: Option<HeaderValue>,
    /// Whether the answer is to tell its stages, if the request says.
    pub(crate) timing: Option<bool>,
    /// Whether it is to tell everything.
    pub(crate) explain: bool,
    /// Whether the first error on a stream ends it with its status.
    pub(crate) ends_on_error: bool,
}

impl Head {
    /// Reads the headers.
    ///
    /// # Errors
    /// `Unsupported` for a coding that is not known, `InvalidInput` for a timeout or a switch that is none.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut head = Self::default();
        let mut accepted: Option<&HeaderValue> = None;
        for (name, value) in headers {
            match name.as_str() {
                "grpc-timeout" => head.timeout = Some(parse_timeout(value)?),
                "grpc-encoding" => head.coding = parse_coding(value)?,
                "grpc-accept-encoding" => accepted = Some(value),
                "x-request-id" if value.len() <= LONGEST_ID => head.request_id = Some(value.clone()),
                TIMING => head.timing = Some(switch(TIMING, value.as_bytes())?),
                EXPLAIN => head.explain = switch(EXPLAIN, value.as_bytes())?,
                "triton_grpc_error" => head.ends_on_error = is_true(value),
                _ => {}
            }
        }
        // Every client of the C core says that it accepts every coding, wanted or not; one that packs its requests means it.
        head.reply_coding = head.coding.filter(|coding| accepted.is_some_and(|list| lists(list, coding.name())));
        Ok(head)
    }

    /// What the call wants to know about itself. The stages it is told without asking where `always` says so.
    pub(crate) fn inquiry(&self, always: bool) -> Option<Box<Inquiry>> {
        let id = self.request_id.as_ref().map(HeaderValue::as_bytes);
        Inquiry::new(self.timing.unwrap_or(always), self.explain, id)
    }
}

/// Whether these are the headers of a gRPC request; web and other dialects are none.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return false };
    let Some(rest) = content_type.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest, [] | [b';', ..] | b"+proto") || rest.starts_with(b"+proto;")
}

fn is_true(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"true") || value.as_bytes() == b"1"
}

fn lists(list: &HeaderValue, name: &str) -> bool {
    list.as_bytes().split(|byte| *byte == b',').any(|entry| entry.trim_ascii() == name.as_bytes())
}

fn parse_coding(value: &HeaderValue) -> Result<Option<Coding>, Refusal> {
    match value.as_bytes() {
        b"identity" => Ok(None),
        name => Coding::parse(name).map(Some).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Refusal::new(
                Reason::Unsupported,
                format!("grpc-encoding {} is not supported; expected identity, gzip or deflate", Quoted(&name)),
            )
        }),
    }
}

/// One to eight digits and a unit.
fn parse_timeout(value: &HeaderValue) -> Result<Duration, Refusal> {
    let parse = |bytes: &[u8]| {
        let (unit, digits) = bytes.split_last()?;
        if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(match unit {
            b'H' => Duration::from_secs(number * 3600),
            b'M' => Duration::from_secs(number * 60),
            b'S' => Duration::from_secs(number),
            b'm' => Duration::from_millis(number),
            b'u' => Duration::from_micros(number),
            b'n' => Duration::from_nanos(number),
            _ => return None,
        })
    };
    parse(value.as_bytes()).ok_or_else(|| {
        let text = String::from_utf8_lossy(value.as_bytes());
        Refusal::new(
            Reason::InvalidInput,
            format!("grpc-timeout: expected 1 to 8 digits and one of H M S m u n, got {}", Quoted(&text)),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use millrace_core::Reason;

    use super::{Head, is_grpc};
    use crate::coding::Coding;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn timeouts_have_eight_digits_at_most_and_a_unit() {
        let parse = |text: &str| Head::read(&headers(&[("grpc-timeout", text)])).map(|head| head.timeout);
        for (text, wanted) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text).unwrap(), Some(wanted), "{text}");
        }
        for bad in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", "1 S", "1SS"] {
            assert_eq!(parse(bad).unwrap_err().reason(), Reason::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn an_answer_is_packed_as_the_request_was_and_only_if_it_may() {
        let read = |pairs: &[(&str, &str)]| Head::read(&headers(pairs)).unwrap();
        let all = ("grpc-accept-encoding", "identity, deflate, gzip");
        assert_eq!(read(&[all]).reply_coding, None);
        assert_eq!(read(&[all, ("grpc-encoding", "identity")]).reply_coding, None);
        assert_eq!(read(&[all, ("grpc-encoding", "gzip")]).reply_coding, Some(Coding::Gzip));
        assert_eq!(read(&[all, ("grpc-encoding", "deflate")]).reply_coding, Some(Coding::Deflate));
        assert_eq!(read(&[("grpc-encoding", "gzip")]).reply_coding, None);
        let unknown = Head::read(&headers(&[("grpc-encoding", "br")])).unwrap_err();
        assert_eq!(unknown.reason(), Reason::Unsupported);
    }

    #[test]
    fn only_protobuf_over_plain_grpc_is_ours() {
        for (content_type, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=1", true),
            ("application/grpc+proto;x=1", true),
            ("application/grpc-web", false),
            ("application/grpc+json", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", content_type)])), wanted, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
