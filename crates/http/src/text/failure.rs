//! Refusals of the text routes: text-embeddings-inference's `{"error", "error_type"}` and OpenAI's `{"error": {…}}`.

use bytes::Bytes;
use http::StatusCode;
use millrace_core::{Code, Reason, Refusal};
use serde_json::json;

use super::request::{Fault, Problem};
use crate::error::Failure;

/// The keys that OpenAI's `param` may name: those that texts about a body begin with.
const PARAMS: [&str; 4] = ["input", "model", "encoding_format", "dimensions"];

/// How a route's refusals look. A type and no value, as a codec's failures are made without one.
pub(super) trait Dialect: Copy + Send + Sync + 'static {
    /// Any refusal.
    fn failure(refusal: Refusal) -> Failure;

    /// What is wrong with a body.
    fn problem(problem: Problem) -> Failure;
}

/// text-embeddings-inference's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tei;

/// OpenAI's.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenAi;

impl Dialect for Tei {
    fn failure(refusal: Refusal) -> Failure {
        let (number, _) = tei(refusal.reason());
        Failure::with_status(status(number), refusal.code(), refusal).in_form(|failure| {
            let (_, kind) = tei(failure.refusal().reason());
            tei_body(failure, kind)
        })
    }

    fn problem(problem: Problem) -> Failure {
        let bad = |refusal| Failure::with_status(StatusCode::BAD_REQUEST, Code::InvalidArgument, refusal);
        let fault = problem.fault;
        let refusal = problem.refusal();
        match fault {
            Fault::Request => bad(refusal).in_form(|failure| tei_body(failure, "Validation")),
            Fault::Empty => bad(refusal).in_form(|failure| tei_body(failure, "Empty")),
            Fault::Value | Fault::TooMany => Self::failure(refusal),
        }
    }
}

impl Dialect for OpenAi {
    fn failure(refusal: Refusal) -> Failure {
        let (number, ..) = openai(refusal.reason());
        Failure::with_status(status(number), refusal.code(), refusal).in_form(|failure| {
            let (_, kind, code) = openai(failure.refusal().reason());
            let text = failure.refusal().message();
            let param = text.split_once(':').map(|(key, _)| key).filter(|key| PARAMS.contains(key));
            let error = json!({"message": text, "type": kind, "param": param, "code": code});
            Bytes::from(json!({"error": error}).to_string())
        })
    }

    fn problem(problem: Problem) -> Failure {
        Self::failure(problem.refusal())
    }
}

fn tei_body(failure: &Failure, kind: &str) -> Bytes {
    Bytes::from(json!({"error": failure.refusal().message(), "error_type": kind}).to_string())
}

/// The status and the `error_type` of text-embeddings-inference.
///
/// It sends 422 for every input that is not valid; its own description says 413 for what is too large, and so do we.
const fn tei(reason: Reason) -> (u16, &'static str) {
    match reason {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => {
            (404, "Validation")
        }
        Reason::NotReady | Reason::Loading | Reason::Draining => (503, "Unhealthy"),
        Reason::InvalidInput => (422, "Validation"),
        // A model of another kind than the route is for.
        Reason::Unsupported => (424, "Backend"),
        Reason::TooLarge => (413, "Validation"),
        Reason::QueueFull | Reason::RateLimited => (429, "Overloaded"),
        Reason::Late => (504, "Overloaded"),
        Reason::Cancelled => (499, "Backend"),
        Reason::Exists | Reason::Conflict => (409, "Validation"),
        Reason::Forbidden => (403, "Validation"),
        Reason::Unauthenticated => (401, "Validation"),
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => (424, "Backend"),
    }
}

/// OpenAI's status, `type` and `code`.
const fn openai(reason: Reason) -> (u16, &'static str, Option<&'static str>) {
    const INVALID: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    match reason {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => {
            (404, INVALID, Some("model_not_found"))
        }
        Reason::NotReady | Reason::Loading | Reason::Draining => (503, SERVER, None),
        Reason::InvalidInput | Reason::Unsupported => (400, INVALID, None),
        Reason::TooLarge => (413, INVALID, None),
        Reason::QueueFull | Reason::RateLimited => (429, "requests", Some("rate_limit_exceeded")),
        Reason::Late => (504, SERVER, None),
        Reason::Cancelled => (499, INVALID, None),
        Reason::Exists | Reason::Conflict => (409, INVALID, None),
        Reason::Forbidden => (403, INVALID, None),
        Reason::Unauthenticated => (401, INVALID, Some("invalid_api_key")),
        Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => (500, SERVER, None),
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).expect("the tables hold three-digit statuses, as a test shows")
}

#[cfg(test)]
mod tests {
    use http::Version;
    use millrace_core::{Reason, Refusal};
    use serde_json::Value;

    use super::{Dialect, OpenAi, Tei, openai, tei};

    /// The values of text-embeddings-inference's `ErrorType`.
    const KINDS: [&str; 6] = ["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"];

    #[test]
    fn every_reason_is_an_error_in_both_forms() {
        for reason in Reason::ALL {
            for number in [tei(reason).0, openai(reason).0] {
                assert!((400..=599).contains(&number), "{}", reason.name());
            }
            assert!(KINDS.contains(&tei(reason).1), "{}", reason.name());
            for failure in [Tei::failure(Refusal::new(reason, "why")), OpenAi::failure(Refusal::new(reason, "why"))] {
                let answer = failure.answer(Version::HTTP_11);
                let passing = matches!(answer.status().as_u16(), 429 | 503);
                assert_eq!(answer.headers().contains_key("retry-after"), passing, "{}", reason.name());
            }
        }
    }

    #[test]
    fn param_is_the_key_that_a_text_begins_with() {
        for (text, param) in
            [("dimensions: too many", Some("dimensions")), ("model `m`: no", None), ("other: x", None), ("x", None)]
        {
            let answer = OpenAi::failure(Refusal::new(Reason::InvalidInput, text)).answer(Version::HTTP_11);
            let body: Value = serde_json::from_slice(&answer.into_body().into_bytes()).unwrap();
            assert_eq!(body["error"]["param"].as_str(), param, "{text}");
            assert_eq!(body["error"]["message"], text);
        }
    }
}
