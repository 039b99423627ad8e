//! Time limits and clients that leave, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use millrace_core::{DType, InferFuture, Slot};
use millrace_http::ConnectionContext;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::harness::{Models, TestServer, request, signature, spec};

const BODY: &str = r#"{"instances": [1]}"#;
const PATH: &str = "/v1/models/slow:predict";

/// A model that answers when a test says so, and the slots it would answer through.
fn slow() -> (Models, Arc<Mutex<Vec<Slot>>>) {
    let slots = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&slots);
    let x = || vec![spec("x", DType::Fp32, &[-1])];
    let models = Models::new().version("slow", 1, signature(x(), x()), move |_| {
        let (slot, future) = InferFuture::slot();
        kept.lock().push(slot);
        future
    });
    (models, slots)
}

async fn waited(server: &TestServer, headers: &[(&str, &str)]) -> Duration {
    let started = Instant::now();
    server.ask(Method::POST, PATH, headers, BODY).await.refuses(504, "deadline");
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_504_after_thirty_seconds_and_its_work_cancelled() {
    let (models, slots) = slow();
    let server = TestServer::new(models);
    assert_eq!(waited(&server, &[]).await.as_secs(), 30);
    assert!(slots.lock()[0].is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_servers_and_the_clients_limit_counts() {
    let (models, _) = slow();
    let server = TestServer::with(models, |config| config.request_timeout = Duration::from_millis(800));
    assert_eq!(waited(&server, &[]).await.as_millis(), 800);
    assert_eq!(waited(&server, &[("x-request-timeout-ms", "250")]).await.as_millis(), 250);
    assert_eq!(waited(&server, &[("x-request-timeout-ms", "99999")]).await.as_millis(), 800);
    assert!(waited(&server, &[("x-request-timeout-ms", "0")]).await.as_millis() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_no_number_is_400() {
    let (models, slots) = slow();
    let server = TestServer::new(models);
    for bad in ["soon", "-1", "1.5", ""] {
        let answer = server.ask(Method::POST, PATH, &[("x-request-timeout-ms", bad)], BODY).await;
        answer.refuses(400, "x-request-timeout-ms");
    }
    assert!(slots.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_its_work() {
    let (models, slots) = slow();
    let server = TestServer::new(models);
    let request = request(Method::POST, PATH, &[], BODY);
    {
        let mut answer = std::pin::pin!(server.service.answer(request, ConnectionContext::default()));
        tokio::select! {
            biased;
            _ = &mut answer => panic!("nobody answers"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        assert!(!slots.lock()[0].is_cancelled());
    }
    assert!(slots.lock()[0].is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_another_thread_arrives() {
    let (models, slots) = slow();
    let server = TestServer::new(models);
    let answer = async {
        // The slot is there as soon as the request was polled once.
        while slots.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let slot = slots.lock().pop().unwrap();
        let refusal = millrace_core::Refusal::new(millrace_core::Reason::NotReady, "quarantined");
        std::thread::spawn(move || slot.answer(Err(refusal))).join().unwrap();
    };
    let (response, ()) = tokio::join!(server.ask(Method::POST, PATH, &[], BODY), answer);
    response.refuses(503, "quarantined");
    assert_eq!(response.headers["retry-after"], "1");
}
