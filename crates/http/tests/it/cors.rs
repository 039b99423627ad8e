//! Browsers of other origins.

use http::Method;

use crate::harness::{TestServer, models};

fn with_cors() -> TestServer {
    TestServer::with(models(), |config| config.cors = true)
}

#[tokio::test]
async fn cors_is_off_unless_asked_for() {
    let server = TestServer::new(models());
    let answer = server.get("/v1/models/half_plus_two").await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let preflight = server.ask(Method::OPTIONS, "/v1/models/m:predict", &[("origin", "http://a")], "").await;
    preflight.refuses(400, "Malformed request");
}

#[tokio::test]
async fn every_answer_carries_the_headers_errors_included() {
    let server = with_cors();
    for path in ["/v1/models/half_plus_two", "/v1/models/nope", "/v1/nothing"] {
        let answer = server.get(path).await;
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{path}");
        assert_eq!(answer.headers["access-control-allow-methods"], "POST, GET");
        assert_eq!(answer.headers["access-control-allow-headers"], "Content-Type");
    }
}

#[tokio::test]
async fn a_preflight_is_empty_and_wants_a_web_origin() {
    let server = with_cors();
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let answer = server.ask(Method::OPTIONS, path, headers, "").await;
        assert!(answer.body.is_empty());
        answer.status.as_u16()
    };
    assert_eq!(ask("/v1/models/m:predict", &[("origin", "https://example.com")]).await, 200);
    assert_eq!(ask("/v1/anything", &[("origin", "http://example.com")]).await, 200);
    assert_eq!(ask("/v1/models/m:predict", &[("origin", "file://x")]).await, 400);
    assert_eq!(ask("/v1/models/m:predict", &[]).await, 400);
}
