//! The routes of text models, row by row.

mod choice;
mod embed;
mod refusals;
mod scores;
mod tokens;
pub(crate) mod words;

use http::Method;
use serde_json::Value;

use crate::harness::{Answer, Models, TestServer};
use words::{Parts, classification, embedding, ranking};

/// A model of `parts` is added.
pub(crate) fn with(models: Models, name: &str, version: u64, (text, answer): Parts) -> Models {
    models.text(name, version, text, answer)
}

/// One model of each kind.
pub(crate) fn world() -> Models {
    let models = with(Models::new(), "vectors", 1, embedding(|_| {}));
    let models = with(models, "labels", 1, classification(|_| {}));
    with(models, "ranks", 1, ranking()).affine("numbers", 1, 1.0, 0.0)
}

/// `POST` of a JSON document.
pub(crate) async fn post(server: &TestServer, path: &str, body: &Value) -> Answer {
    server.ask(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
}

/// The same, where it must succeed.
async fn ok(server: &TestServer, path: &str, body: &Value) -> Value {
    let answer = post(server, path, body).await;
    assert_eq!(answer.status, 200, "{path} {body}: {:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

/// Panics unless this is a text-embeddings-inference error of `status` and `kind` whose text contains `words`.
#[track_caller]
fn refuses(answer: &Answer, status: u16, kind: &str, words: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json");
    let body = answer.json();
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(2), "{body}");
    assert_eq!(body["error_type"], kind, "{body}");
    let text = body["error"].as_str().expect("an error text");
    assert!(text.contains(words), "`{text}` does not say `{words}`");
    assert_eq!(answer.headers.contains_key("retry-after"), matches!(status, 429 | 503));
}

/// Panics unless this is an OpenAI error of `status`, `kind` and `code` whose text contains `words`.
#[track_caller]
fn refuses_openai(answer: &Answer, status: u16, kind: &str, code: Option<&str>, words: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    let body = answer.json();
    let error = &body["error"];
    assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some(kind), code), "{body}");
    assert!(error.as_object().unwrap().contains_key("param"), "{body}");
    let text = error["message"].as_str().expect("a message");
    assert!(text.contains(words), "`{text}` does not say `{words}`");
}

/// Whether two lists of numbers are the same but for rounding.
#[track_caller]
fn close(given: &Value, expected: &[f64]) {
    let given: Vec<f64> = given.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    assert_eq!(given.len(), expected.len(), "{given:?}");
    for (given, expected) in given.iter().zip(expected) {
        assert!((given - expected).abs() < 1e-6, "{given} is not {expected}");
    }
}
