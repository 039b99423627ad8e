//! When the server itself fails: panics, broken back ends, a full compute pool; and what is logged of it.

use std::fmt;
use std::sync::Arc;

use millrace_core::{DType, InferFuture, Reason, Refusal};
use parking_lot::Mutex;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::harness::{Models, TestServer, models, signature, spec};

const BODY: &str = r#"{"instances": [1]}"#;

/// Keeps every event as one line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millrace_protocol")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_panic_kills_one_request_and_not_the_next() {
    let x = || signature(vec![spec("x", DType::Fp32, &[-1])], vec![spec("x", DType::Fp32, &[-1])]);
    let at_once = |_| -> InferFuture { panic!("a secret text at src/secret.rs") };
    let later = |_| InferFuture::boxed(async { panic!("a secret text at src/secret.rs") });
    let server = TestServer::new(models().version("at_once", 1, x(), at_once).version("later", 1, x(), later));
    for model in ["at_once", "later"] {
        let answer = server.predict(model, BODY).await;
        answer.refuses(500, "the server failed on this request");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
    server.predict("half_plus_two/versions/1", BODY).await.gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn a_broken_backend_is_500_and_its_cause_goes_to_the_log_only() {
    let cause: Box<dyn std::error::Error + Send + Sync> = "segment 7 of /var/lib/secret\nis gone".into();
    let refusal = Refusal::new(Reason::BackendFailed, "the backend failed").with_cause(cause);
    let server = TestServer::new(Models::new().refusing("m", refusal));
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    let answer = server.predict("m", BODY).await;
    drop(guard);
    answer.refuses(500, "the backend failed");
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    let lines = lines.0.lock();
    let [(Level::ERROR, line)] = lines.as_slice() else { panic!("one error line, got {lines:?}") };
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert!(line.contains(id), "{line} names {id}");
    assert!(line.contains("/var/lib/secret\\nis gone"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[tokio::test]
async fn a_name_with_control_characters_is_one_escaped_line_at_debug_level() {
    let server = TestServer::new(models());
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    server.predict("a%0ab%1b[31m", BODY).await.refuses(404, "Latest(a\\nb\\u{1b}[31m)");
    drop(guard);
    let lines = lines.0.lock();
    let [(Level::DEBUG, line)] = lines.as_slice() else { panic!("one debug line, got {lines:?}") };
    assert!(line.chars().all(|character| !character.is_control()), "{line:?}");
    assert!(line.len() < 2048);
}

#[tokio::test]
async fn a_full_compute_pool_refuses_large_requests_and_answers_small_ones() {
    let server = TestServer::new(models());
    server.compute.refuse();
    let large = format!("{{\"instances\": [1{}]}}", " ".repeat(200 * 1024));
    let answer = server.predict("half_plus_two", large).await;
    answer.refuses(503, "the compute queue is full");
    assert_eq!(answer.headers["retry-after"], "1");
    server.predict("half_plus_two/versions/1", BODY).await.gives(&json!({"predictions": [2.5]}));
}
