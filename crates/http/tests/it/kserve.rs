//! What KServe's v1 adds: its greeting, the refusal to explain, and CloudEvents.

use http::Method;
use serde_json::json;

use crate::harness::{Answer, TestServer, models};

const BINARY: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "36f9"), ("ce-type", "test.type"), ("ce-source", "test")];
const STRUCTURED: &[(&str, &str)] = &[("content-type", "application/cloudevents+json")];

async fn predict(server: &TestServer, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    server.ask(Method::POST, "/v1/models/pairs:predict", headers, body).await
}

#[tokio::test]
async fn somebody_is_there() {
    let server = TestServer::new(models());
    server.get("/").await.gives(&json!({"status": "alive"}));
    assert_eq!(server.ask(Method::POST, "/", &[], "").await.status, 405);
}

#[tokio::test]
async fn models_without_an_explainer_say_so() {
    let server = TestServer::new(models());
    let explain = async |path: &str| server.ask(Method::POST, &format!("/v1/models/{path}:explain"), &[], "{}").await;
    explain("pairs").await.refuses(501, "no explainer");
    explain("pairs/versions/1").await.refuses(501, "no explainer");
    explain("nope").await.refuses(404, "nope");
    server.get("/v1/models/pairs:explain").await.refuses(400, "Malformed request");
}

#[tokio::test]
async fn an_event_in_binary_mode_is_answered_with_one() {
    let server = TestServer::new(models());
    let answer = predict(&server, &BINARY, r#"{"instances": [[1, 2]]}"#).await;
    answer.gives(&json!({"predictions": [[1.0, 2.0]]}));
    assert_eq!(answer.headers["ce-specversion"], "1.0");
    assert_eq!(answer.headers["ce-type"], "io.kserve.inference.response");
    assert_eq!(answer.headers["ce-source"], "io.kserve.inference.pairs");
    assert!(answer.headers["ce-time"].to_str().unwrap().ends_with('Z'));
    let id = answer.headers["ce-id"].to_str().unwrap().to_owned();
    assert!(id.len() == 36 && id != "36f9");
    let again = predict(&server, &BINARY, r#"{"instances": [[1, 2]]}"#).await;
    assert_ne!(again.headers["ce-id"], id);
}

#[tokio::test]
async fn an_event_in_structured_mode_is_answered_with_one() {
    let server = TestServer::new(models());
    let event = json!({
        "specversion": "1.0", "id": "36f9", "source": "test", "type": "test.type",
        "time": "2026-01-01T12:00:00Z", "data": {"instances": [[1, 2]]},
    });
    let answer = predict(&server, STRUCTURED, event.to_string()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/cloudevents+json".parse().unwrap())
    );
    let event = answer.json();
    assert_eq!(event["data"], json!({"predictions": [[1.0, 2.0]]}));
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("io.kserve.inference.response")));
    assert_eq!(event["source"], "io.kserve.inference.pairs");
    assert!(event["id"].is_string() && event["time"].is_string());
    assert!(!answer.headers.contains_key("ce-id"));
}

#[tokio::test]
async fn what_is_no_event_is_answered_without_one() {
    let server = TestServer::new(models());
    let answer = predict(&server, &BINARY[..3], r#"{"instances": [[1, 2]]}"#).await;
    answer.gives(&json!({"predictions": [[1.0, 2.0]]}));
    assert!(!answer.headers.contains_key("ce-id"));
    let charset = [("content-type", "application/json; charset=utf-8")];
    predict(&server, &charset, r#"{"instances": [[1, 2]]}"#).await.gives(&json!({"predictions": [[1.0, 2.0]]}));
}

#[tokio::test]
async fn broken_events_are_400() {
    let server = TestServer::new(models());
    for (body, words) in [
        ("", "empty"),
        ("{", "JSON"),
        (r#"{"instances": [[1, 2]]}"#, "specversion is missing"),
        (r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}"#, "no data"),
        (r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"instances": [[1]]}}"#, "shape"),
        (r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {}}"#, "instances"),
    ] {
        predict(&server, STRUCTURED, body).await.refuses(400, words);
    }
    predict(&server, &BINARY, "{").await.refuses(400, "JSON");
}

#[tokio::test]
async fn a_large_event_is_whole_though_plain_answers_are_packed() {
    let server = TestServer::with(models(), |config| config.gzip_min_bytes = Some(10));
    let headers = [&BINARY[..], &[("accept-encoding", "gzip")]].concat();
    let answer = predict(&server, &headers, r#"{"instances": [[1, 2]]}"#).await;
    answer.gives(&json!({"predictions": [[1.0, 2.0]]}));
    assert!(!answer.headers.contains_key("content-encoding"));
}
