//! How often a small request allocates, counted. The bound is what the path needs, each of them accounted for.

use http::Method;
use millrace_http::ConnectionContext;
use millrace_testkit::CountingAllocator;

use crate::harness::{TestServer, models, request};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations while `future` runs, on this thread.
async fn counted<T>(future: impl Future<Output = T>) -> (usize, T) {
    let before = CountingAllocator::count();
    let result = future.await;
    (CountingAllocator::count() - before, result)
}

#[tokio::test]
async fn a_small_request_allocates_a_handful_of_times() {
    let server = TestServer::new(models());
    let ask = || request(Method::POST, "/v1/models/pairs:predict", &[("host", "a")], r#"{"instances": [[1.5, 2]]}"#);
    let (_, first) = counted(server.service.answer(ask(), ConnectionContext::default())).await;
    assert_eq!(first.status(), 200);
    let ask = ask();
    let (allocations, answer) = counted(server.service.answer(ask, ConnectionContext::default())).await;
    assert_eq!(answer.status(), 200);
    // Decoding: the elements and what shares them. The model: its boxed answer. Encoding: the text and what shares it.
    // The answer: its header map, which takes two.
    assert!(allocations <= 7, "{allocations} allocations");
}

#[tokio::test]
async fn finding_nothing_costs_no_more_than_its_words() {
    let server = TestServer::new(models());
    let ask = || request(Method::GET, "/v2/health/live", &[("host", "a")], "");
    let (allocations, answer) = counted(server.service.answer(ask(), ConnectionContext::default())).await;
    assert_eq!(answer.status(), 200);
    // The header map.
    assert!(allocations <= 2, "{allocations} allocations");
}

#[tokio::test]
async fn a_waiting_request_is_small() {
    let server = TestServer::new(models());
    let ask = request(Method::POST, "/v1/models/pairs:predict", &[], "");
    let answer = server.service.answer(ask, ConnectionContext::default());
    // Every connection holds one, and moves it when the request arrives.
    assert!(size_of_val(&answer) <= 3584, "{} bytes", size_of_val(&answer));
    assert_eq!(answer.await.status(), 400);
}
