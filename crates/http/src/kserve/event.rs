//! CloudEvents: which requests are events, what their envelope says, and the envelope of the answer.
//!
//! In binary mode the attributes are headers and the body is the ordinary one; in structured mode the body is an event
//! whose `data` is the ordinary body.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use millrace_core::{Quoted, Reason, Refusal};
use millrace_json::object;
use serde::Serialize;

/// The attributes that every event has, without the prefix of their headers.
const REQUIRED: [&str; 4] = ["specversion", "id", "type", "source"];
/// The attributes of an answer.
const SPEC_VERSION: &str = "1.0";
const TYPE: &str = "io.kserve.inference.response";

/// How a request is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Attributes in headers.
    Binary,
    /// Attributes in the body.
    Structured,
}

/// The mode of a request, if it is an event.
pub(crate) fn mode(headers: &HeaderMap, content_type: Option<&HeaderValue>) -> Option<Mode> {
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if crate::torchserve::media_type(content_type) == "application/cloudevents+json" {
        return Some(Mode::Structured);
    }
    let has = |name: &&str| headers.contains_key(format!("ce-{name}"));
    REQUIRED.iter().all(has).then_some(Mode::Binary)
}

/// The `data` of the event that `body` is.
///
/// # Errors
/// A [`Refusal`] for a body that is no event with data.
pub(super) fn data(body: &Bytes, max_depth: usize) -> Result<Bytes, Refusal> {
    let invalid = |text: String| Refusal::new(Reason::InvalidInput, text);
    let members = object(body, max_depth).map_err(|error| invalid(error.to_string()))?;
    let find = |wanted: &str| members.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
    for attribute in REQUIRED {
        let value =
            find(attribute).ok_or_else(|| invalid(format!("CloudEvent: the attribute {attribute} is missing")))?;
        match value.string() {
            Some(text) if attribute != "specversion" || matches!(&*text, "1.0" | "0.3") => {}
            Some(text) => {
                return Err(invalid(format!("CloudEvent: specversion: expected 1.0, got {}", Quoted(&text))));
            }
            None => {
                let text = format!("CloudEvent: {attribute}: expected a string, got {}", value.shown().0);
                return Err(invalid(text));
            }
        }
    }
    let data = find("data").ok_or_else(|| invalid("CloudEvent: it has no data as JSON".to_owned()))?;
    Ok(body.slice_ref(data.text()))
}

/// The envelope of an answer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Envelope {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
}

impl Envelope {
    /// The envelope of an answer of `model`, whose name is safe in a header.
    pub(super) fn new(id: &str, model: &str, time: String) -> Self {
        let source = format!("io.kserve.inference.{model}");
        Self { specversion: SPEC_VERSION, id: id.to_owned(), source, kind: TYPE, time }
    }

    /// As headers.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let attributes = [
            ("ce-specversion", self.specversion),
            ("ce-id", &self.id),
            ("ce-source", &self.source),
            ("ce-type", self.kind),
            ("ce-time", &self.time),
        ];
        for (name, value) in attributes {
            headers.extend(HeaderValue::from_str(value).ok().map(|value| (http::HeaderName::from_static(name), value)));
        }
    }

    /// As an event around `data`, which is JSON.
    pub(super) fn around(&self, data: &[u8]) -> Vec<u8> {
        let mut event = serde_json::to_vec(self).expect("strings always become JSON");
        // What follows goes inside.
        event.pop();
        event.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
        event.extend_from_slice(data);
        event.push(b'}');
        event
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::{Envelope, Mode, data, mode};

    #[test]
    fn an_event_is_known_by_its_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(mode(&headers, Some(&HeaderValue::from_static("application/json"))), None);
        let structured = HeaderValue::from_static("Application/CloudEvents+JSON; charset=utf-8");
        assert_eq!(mode(&headers, Some(&structured)), Some(Mode::Structured));
        for name in ["ce-specversion", "ce-id", "ce-type"] {
            headers.insert(name, HeaderValue::from_static("1.0"));
        }
        assert_eq!(mode(&headers, None), None, "without a source it is no event");
        headers.insert("ce-source", HeaderValue::from_static("x"));
        assert_eq!(mode(&headers, None), Some(Mode::Binary));
    }

    #[test]
    fn the_data_of_an_event_is_found_and_an_event_without_is_refused() {
        let read = |text: &'static str| data(&Bytes::from_static(text.as_bytes()), 8);
        let event = r#"{"data": {"instances": [1]}, "specversion": "1.0", "id": "i", "source": "s", "type": "t"}"#;
        assert_eq!(read(event).unwrap(), r#"{"instances": [1]}"#);
        for (text, words) in [
            (r#"{"specversion": "1.0", "id": "i", "source": "s", "type": "t"}"#, "no data"),
            (r#"{"specversion": "2.0", "id": "i", "source": "s", "type": "t", "data": 1}"#, "specversion"),
            (r#"{"specversion": "1.0", "id": 5, "source": "s", "type": "t", "data": 1}"#, "id: expected a string"),
            (r#"{"specversion": "1.0", "source": "s", "type": "t", "data": 1}"#, "id is missing"),
            (r#"{"specversion": "1.0", "specversion": "1.0"}"#, "duplicate"),
            ("[]", "object"),
            ("", "empty"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn answers_are_events_too() {
        let envelope = Envelope::new("i", "m", "2026-01-01T12:00:00.000Z".to_owned());
        let event: serde_json::Value = serde_json::from_slice(&envelope.around(br#"{"predictions": [1]}"#)).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "i", "source": "io.kserve.inference.m", "type": "io.kserve.inference.response",
            "time": "2026-01-01T12:00:00.000Z", "datacontenttype": "application/json", "data": {"predictions": [1]},
        });
        assert_eq!(event, expected);
        let mut headers = HeaderMap::new();
        envelope.write(&mut headers);
        assert_eq!(headers.len(), 5);
        assert_eq!(headers["ce-source"], "io.kserve.inference.m");
    }
}
