//! Live, ready, healthy, and the metrics page.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::json;

use crate::harness::{Answer, TestServer, models};

fn is(answer: &Answer, status: u16, key: &str, value: bool) {
    assert_eq!(answer.status, status);
    assert_eq!(answer.json(), json!({key: value}));
}

#[tokio::test]
async fn ready_waits_for_the_first_scan() {
    let server = TestServer::new(models().unsettled());
    is(&server.get("/v2/health/ready").await, 503, "ready", false);
    is(&server.get("/v2/health/live").await, 200, "live", true);
    is(&TestServer::new(models()).get("/v2/health/ready").await, 200, "ready", true);
}

#[tokio::test]
async fn draining_is_not_ready_but_alive_and_still_serving() {
    let server = TestServer::new(models());
    server.readiness.begin_drain();
    is(&server.get("/v2/health/ready").await, 503, "ready", false);
    is(&server.get("/v2/health/live").await, 200, "live", true);
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.predict("half_plus_two", r#"{"instances": [1]}"#).await.status, 200);
}

#[tokio::test]
async fn after_the_drain_new_requests_get_503_and_their_connection_closes() {
    let server = TestServer::new(models());
    server.readiness.refuse_new();
    let answer = server.predict("half_plus_two", r#"{"instances": [1]}"#).await;
    answer.refuses(503, "shutting down");
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(answer.headers["retry-after"], "1");
    is(&server.get("/v2/health/live").await, 200, "live", true);
    is(&server.get("/v2/health/ready").await, 503, "ready", false);
}

#[tokio::test]
async fn a_dead_process_is_neither_alive_nor_ready_nor_healthy() {
    let server = TestServer::new(models());
    server.live.store(false, Ordering::SeqCst);
    is(&server.get("/v2/health/live").await, 503, "live", false);
    is(&server.get("/v2/health/ready").await, 503, "ready", false);
    let answer = server.get("/health").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (503, &json!("unhealthy")));
}

#[tokio::test]
async fn health_says_so_and_when() {
    let answer = TestServer::new(models()).get("/health").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("healthy")));
    assert!(answer.json()["timestamp"].as_f64().unwrap() > 1.7e9);
}

#[tokio::test]
async fn the_metrics_page_has_two_names_on_both_ports() {
    let server = TestServer::new(models());
    for path in ["/metrics", "/monitoring/prometheus/metrics", "/Monitoring/Prometheus/METRICS"] {
        for answer in [server.get(path).await, server.order(Method::GET, path, "").await] {
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"# the page\n"[..]));
            assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        }
    }
}

#[tokio::test]
async fn our_own_routes_are_read_only() {
    let server = TestServer::new(models());
    for path in ["/metrics", "/health", "/v2/health/live", "/v2/health/ready"] {
        let answer = server.ask(Method::POST, path, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].as_bytes()), (405, &b"GET, HEAD"[..]));
        assert_eq!(server.ask(Method::HEAD, path, &[], "").await.status, 200);
        assert_eq!(server.order(Method::GET, path, "").await.status, 200);
        assert_eq!(server.order(Method::DELETE, path, "").await.status, 405);
    }
}

#[tokio::test]
async fn a_request_id_is_sent_back() {
    let server = TestServer::new(models());
    let headers = [("x-request-id", "abc-123")];
    for path in ["/v2/health/live", "/v1/models/nope", "/nonsense"] {
        assert_eq!(server.ask(Method::GET, path, &headers, "").await.headers["x-request-id"], "abc-123");
    }
    assert!(!server.get("/v2/health/live").await.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn the_service_is_a_tower_service_that_reads_its_role_from_the_request() {
    use tower_service::Service;
    let server = TestServer::new(models());
    use millrace_http::{ConnectionContext, Roles};
    let request = |path| crate::harness::request(Method::GET, path, &[], "");
    let mut service = server.service.clone();
    assert_eq!(service.call(request("/v2/health/live")).await.unwrap().status(), 200);
    assert_eq!(service.call(request("/admin/models")).await.unwrap().status(), 404, "a client's, unless it is said");
    let mut order = request("/admin/models");
    order.extensions_mut().insert(ConnectionContext { roles: Roles::ADMIN, ..ConnectionContext::default() });
    assert_eq!(service.call(order).await.unwrap().status(), 200);
}
