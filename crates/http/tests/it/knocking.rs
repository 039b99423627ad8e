//! Requests with long bodies to models that would refuse them whatever they hold.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use millrace_core::{Reason, Refusal};
use millrace_http::{SageMakerConfig, VertexConfig};

use crate::harness::{Answer, Models, TestServer};
use crate::text;

/// A body of which nothing ever comes.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn full() -> Refusal {
    Refusal::new(Reason::QueueFull, "the queue is full").with_retry_after(Duration::from_millis(2500))
}

fn models() -> Models {
    let models = Models::new().affine("m", 1, 0.5, 2.0).closed(full());
    let models = models.affine("two", 1, 0.5, 2.0).closed(full()).affine("two", 2, 0.5, 2.0).closed(full());
    let models = text::with(models, "vectors", 1, text::words::embedding(|_| {})).closed(full());
    let models = text::with(models, "labels", 1, text::words::classification(|_| {})).closed(full());
    text::with(models, "ranks", 1, text::words::ranking()).closed(full())
}

fn server() -> TestServer {
    TestServer::with(models(), |config| config.max_client_batch_size = 1000)
}

/// A request with a body of `length` bytes of which none comes.
async fn ask(server: &TestServer, path: &str, length: usize) -> Answer {
    let request = Request::builder().method(Method::POST).uri(path).header("content-length", length);
    server.send(request.body(Never).unwrap()).await
}

/// A right request of `length` bytes.
async fn whole(server: &TestServer, path: &str, text: &str, length: usize) -> Answer {
    let body = format!("{text}{}", " ".repeat(length.saturating_sub(text.len())));
    server.ask(Method::POST, path, &[("content-length", &body.len().to_string())], body).await
}

/// It is refused so, in whatever form.
#[track_caller]
fn says(answer: &Answer, either: [u16; 2], text: &str) {
    let body = String::from_utf8_lossy(&answer.body);
    assert!(either.contains(&answer.status.as_u16()) && body.contains(text), "{} {body}", answer.status);
}

#[tokio::test(start_paused = true)]
async fn every_route_whose_path_names_the_model_refuses_by_the_head() {
    let server = server();
    for path in [
        "/v1/models/m:predict",
        "/v1/models/m/versions/1:predict",
        "/v1/models/m:classify",
        "/v2/models/m/infer",
        "/v2/models/m/versions/1/infer",
        "/predictions/m",
        "/predictions/m/1.0",
        "/predict/m",
        "/predict/labels",
        "/embed/vectors",
        "/embed/vectors:1",
        "/embed_all/vectors",
        "/similarity/vectors",
        "/rerank/ranks",
    ] {
        let answer = ask(&server, path, 40_000).await;
        says(&answer, [429, 503], "the queue is full");
        assert_eq!(answer.headers["retry-after"], "3", "{path}");
    }
    let sagemaker = TestServer::with(models(), |config| config.sagemaker = Some(SageMakerConfig::default()));
    says(&ask(&sagemaker, "/models/m/invoke", 40_000).await, [429, 503], "the queue is full");
    let vertex = VertexConfig {
        health_route: "/health".to_owned(),
        predict_route: "/ask".to_owned(),
        model: Some("m".parse().unwrap()),
    };
    let vertex = TestServer::with(models(), |config| config.vertex = Some(vertex));
    says(&ask(&vertex, "/ask", 40_000).await, [429, 503], "the queue is full");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_has_the_form_that_the_route_gives_it_later() {
    let server = server();
    let general = ask(&server, "/predict/m", 40_000).await;
    assert_eq!(general.json(), serde_json::json!({"detail": "the queue is full"}));
    for path in ["/predict/labels", "/embed/vectors"] {
        let text = ask(&server, path, 40_000).await;
        assert_eq!(
            text.json(),
            serde_json::json!({"error": "the queue is full", "error_type": "Overloaded"}),
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_head_does_not_tell_is_read_first() {
    let server = server();
    let rows = r#"{"input_data": [[1.0]]}"#;
    // Short, or in a body that may name a version of several or the model itself.
    assert_eq!(whole(&server, "/predict/m", rows, 0).await.status, 200);
    assert_eq!(whole(&server, "/predict/two", rows, 40_000).await.status, 200);
    let named = r#"{"input_data": [[1.0]], "model_name": "m"}"#;
    assert_eq!(whole(&server, "/predict", named, 40_000).await.status, 200);
    // Tokens need no model that has room.
    assert_eq!(whole(&server, "/tokenize/vectors", r#"{"inputs": "cats"}"#, 40_000).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn texts_of_any_length_are_read_but_not_cut_into_tokens() {
    let server = server();
    // What is wrong with the texts themselves would show as soon as they are cut.
    for text in ["cats".to_owned(), "cats ".repeat(1000)] {
        let texts = format!(r#"{{"inputs": "{text}", "model": "vectors", "truncate": false}}"#);
        for length in [0, 40_000] {
            says(&whole(&server, "/embed", &texts, length).await, [429, 503], "the queue is full");
        }
    }
    let openai = r#"{"input": "cats", "model": "vectors"}"#;
    says(&whole(&server, "/v1/embeddings", openai, 0).await, [429, 503], "the queue is full");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_not_there_is_told_by_the_head_where_that_names_all_of_it() {
    let server = server();
    for path in ["/v1/models/nobody:predict", "/predictions/nobody", "/embed/nobody"] {
        says(&ask(&server, path, 40_000).await, [404; 2], "nobody");
    }
    // The text of this one shows the version that the body names.
    let rows = r#"{"input_data": [[1.0]], "model_version": "3"}"#;
    says(&whole(&server, "/predict/nobody", rows, 40_000).await, [404; 2], "Model nobody:3 not found");
}
