//! What is refused, and in which words.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use millrace_core::{InferFuture, Reason, Refusal, Tensor};
use serde_json::{Value, json};

use super::words::embedding;
use super::{ok, post, refuses, refuses_openai, with, world};
use crate::harness::{Models, TestServer, answered};

/// A model whose network is refused so.
fn refusing(reason: Reason) -> TestServer {
    let (text, _) = embedding(|_| {});
    TestServer::new(Models::new().text("m", 1, text, move |_| InferFuture::refused(Refusal::new(reason, "why it is"))))
}

#[tokio::test]
async fn every_reason_has_its_status_in_both_forms() {
    for reason in Reason::ALL {
        let server = refusing(reason);
        let (status, kind) = match reason {
            Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown | Reason::SignatureUnknown => {
                (404, "Validation")
            }
            Reason::NotReady | Reason::Loading | Reason::Draining => (503, "Unhealthy"),
            Reason::InvalidInput => (422, "Validation"),
            Reason::TooLarge => (413, "Validation"),
            Reason::QueueFull | Reason::RateLimited => (429, "Overloaded"),
            Reason::Late => (504, "Overloaded"),
            Reason::Cancelled => (499, "Backend"),
            Reason::Exists | Reason::Conflict => (409, "Validation"),
            Reason::Forbidden => (403, "Validation"),
            Reason::Unauthenticated => (401, "Validation"),
            Reason::Unsupported | Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved => (424, "Backend"),
        };
        let answer = post(&server, "/embed", &json!({"inputs": "cat"})).await;
        refuses(&answer, status, kind, "why it is");
        let ours = matches!(reason, Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved);
        let is_named = ours || matches!(status, 503 | 504);
        assert_eq!(answer.headers.contains_key("x-request-id"), is_named, "{}", reason.name());
        let openai = match status {
            422 => 400,
            424 if ours => 500,
            424 => 400,
            other => other,
        };
        let answer = post(&server, "/v1/embeddings", &json!({"input": "cat"})).await;
        assert_eq!(answer.status, openai, "{}", reason.name());
        assert_eq!(answer.json()["error"]["message"], "why it is");
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_400() {
    let server = TestServer::new(world());
    for (body, words) in [
        ("", "empty"),
        ("{", "too early"),
        ("[]", "object"),
        ("\"cat\"", "object"),
        ("{} {}", "trailing"),
        ("{\"inputs\": \"a\", \"inputs\": \"b\"}", "duplicate key"),
        ("{\"inputs\": \"\\ud800\"}", "escape"),
        ("{\"inputs\": \"\u{1}\"}", "control"),
        ("{\"inputs\": nope}", "JSON"),
    ] {
        for path in ["/embed", "/embed_all", "/similarity", "/rerank", "/tokenize", "/decode"] {
            refuses(&server.ask(Method::POST, path, &[], body).await, 400, "Validation", words);
        }
        let answer = server.ask(Method::POST, "/v1/embeddings", &[], body).await;
        refuses_openai(&answer, 400, "invalid_request_error", None, words);
    }
    let deep = format!("{{\"inputs\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refuses(&server.ask(Method::POST, "/embed", &[], deep).await, 400, "Validation", "nesting");
    let not_utf8 = Bytes::from_static(b"{\"inputs\": \"\xff\"}");
    refuses(&server.ask(Method::POST, "/embed", &[], not_utf8).await, 400, "Validation", "not text");
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_422_and_says_which() {
    let server = TestServer::new(world());
    for (path, body, words) in [
        ("/embed", json!({}), "inputs: field required"),
        ("/embed", json!({"inputs": null}), "inputs: field required"),
        ("/embed", json!({"inputs": 5}), "inputs: expected a string, token ids, or a list of those, got `5`"),
        ("/embed", json!({"inputs": {}}), "inputs: expected a string"),
        ("/embed", json!({"inputs": [true]}), "inputs: expected token ids"),
        ("/embed", json!({"inputs": ["cat", 5]}), "inputs: expected a string"),
        ("/embed", json!({"inputs": [["cat"]]}), "inputs: expected token ids"),
        ("/embed", json!({"inputs": [[[5]]]}), "inputs: expected token ids"),
        ("/embed", json!({"inputs": [5, -1]}), "got `-1`"),
        ("/embed", json!({"inputs": [[12]]}), "instance 0: expected ids below 12"),
        ("/embed", json!({"inputs": ["cat", [12]]}), "instance 1: expected ids below 12"),
        ("/embed", json!({"inputs": "cat", "normalize": "yes"}), "normalize: expected true or false, got `\"yes\"`"),
        ("/embed", json!({"inputs": "cat", "truncate": 1}), "truncate: expected true or false"),
        (
            "/embed",
            json!({"inputs": "cat", "truncation_direction": "up"}),
            "truncation_direction: expected `left` or `right`",
        ),
        ("/embed", json!({"inputs": "cat", "prompt_name": 5}), "prompt_name: expected a string"),
        ("/embed", json!({"inputs": "cat", "prompt_name": "query"}), "has no prompt `query`; it has none"),
        ("/embed", json!({"inputs": "cat", "model": 5}), "model: expected a string"),
        ("/similarity", json!({"inputs": "cat"}), "inputs: expected an object"),
        ("/similarity", json!({"inputs": {"sentences": ["cat"]}}), "inputs.source_sentence: field required"),
        ("/similarity", json!({"inputs": {"source_sentence": "cat"}}), "inputs.sentences: field required"),
        ("/similarity", json!({"inputs": {"source_sentence": "cat", "sentences": "dog"}}), "a list of strings"),
        ("/rerank", json!({"texts": ["cat"]}), "query: field required"),
        ("/rerank", json!({"query": "cat"}), "texts: field required"),
        ("/rerank", json!({"query": "cat", "texts": "dog"}), "texts: expected a list of strings"),
        ("/rerank", json!({"query": "cat", "texts": [5]}), "texts: expected a string, got `5`"),
        ("/rerank", json!({"query": "cat", "texts": ["a"], "return_text": 1}), "return_text: expected true or false"),
        ("/predict", json!({"inputs": 5}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": ["a", "b", "c"]}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": [["a", "b", "c"]]}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": [["a"], "b"]}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": ["a", ["b"]]}), "inputs: expected a string, got"),
        ("/predict", json!({"inputs": [5]}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": [[]]}), "inputs: expected a string, a pair"),
        ("/predict", json!({"inputs": "cat", "raw_scores": "no"}), "raw_scores: expected true or false"),
        ("/tokenize", json!({"inputs": 5}), "inputs: expected a string or a list of strings"),
        ("/tokenize", json!({"inputs": [5]}), "inputs: expected a string, got `5`"),
    ] {
        refuses(&post(&server, path, &body).await, 422, "Validation", words);
    }
    for (body, param, words) in [
        (json!({}), "input", "field required"),
        (json!({"input": {}}), "input", "expected a string"),
        (json!({"input": "cat", "encoding_format": "int8"}), "encoding_format", "`float` or `base64`, got `int8`"),
        (json!({"input": "cat", "encoding_format": 5}), "encoding_format", "expected a string"),
        (json!({"input": "cat", "dimensions": 4}), "dimensions", "expected 1 to 3, got 4"),
        (json!({"input": "cat", "dimensions": -1}), "dimensions", "positive"),
        (json!({"input": "cat", "model": []}), "model", "expected a string"),
    ] {
        let answer = post(&server, "/v1/embeddings", &body).await;
        refuses_openai(&answer, 400, "invalid_request_error", None, words);
        assert_eq!(answer.json()["error"]["param"], param);
    }
}

#[tokio::test]
async fn nothing_to_do_is_400_and_empty() {
    let server = TestServer::new(world());
    for (path, body) in [
        ("/embed", json!({"inputs": ""})),
        ("/embed", json!({"inputs": []})),
        ("/embed", json!({"inputs": ["cat", ""]})),
        ("/embed", json!({"inputs": [[]]})),
        ("/embed_all", json!({"inputs": ""})),
        ("/similarity", json!({"inputs": {"source_sentence": "cat", "sentences": []}})),
        ("/similarity", json!({"inputs": {"source_sentence": "", "sentences": ["cat"]}})),
        ("/rerank", json!({"query": "cat", "texts": []})),
        ("/rerank", json!({"query": "", "texts": [""]})),
        ("/predict", json!({"inputs": ""})),
        ("/predict", json!({"inputs": []})),
        ("/predict", json!({"inputs": [["", ""]]})),
        ("/tokenize", json!({"inputs": ""})),
        ("/tokenize", json!({"inputs": []})),
    ] {
        refuses(&post(&server, path, &body).await, 400, "Empty", "expected at least one text");
    }
    let answer = post(&server, "/v1/embeddings", &json!({"input": [""]})).await;
    refuses_openai(&answer, 400, "invalid_request_error", None, "input: expected at least one text");
}

#[tokio::test]
async fn too_many_texts_are_413_whatever_the_route() {
    let server = TestServer::with(world(), |config| config.max_client_batch_size = 3);
    let texts = |n: usize| vec!["cat"; n];
    for (path, fits, too_many) in [
        ("/embed", json!({"inputs": texts(3)}), json!({"inputs": texts(4)})),
        ("/embed_all", json!({"inputs": [[5], [5], [5]]}), json!({"inputs": [[5], [5], [5], [5]]})),
        ("/rerank", json!({"query": "cat", "texts": texts(3)}), json!({"query": "cat", "texts": texts(4)})),
        ("/predict", json!({"inputs": [["a"], ["b"], ["c"]]}), json!({"inputs": [["a"], ["b"], ["c"], ["d"]]})),
        ("/tokenize/labels", json!({"inputs": texts(3)}), json!({"inputs": texts(4)})),
        ("/decode/labels", json!({"ids": [[5], [5], [5]]}), json!({"ids": [[5], [5], [5], [5]]})),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "cat", "sentences": texts(2)}}),
            json!({"inputs": {"source_sentence": "cat", "sentences": texts(3)}}),
        ),
    ] {
        ok(&server, path, &fits).await;
        refuses(&post(&server, path, &too_many).await, 413, "Validation", "limit of 3");
    }
    // The ids of one text are no texts.
    ok(&server, "/embed", &json!({"inputs": [4, 5, 6, 7, 8]})).await;
    let answer = post(&server, "/v1/embeddings", &json!({"input": texts(4)})).await;
    refuses_openai(&answer, 413, "invalid_request_error", None, "limit of 3");
}

#[tokio::test]
async fn large_bodies_and_answers_are_413() {
    let server = TestServer::with(world(), |config| config.max_body_bytes = 64);
    let long = json!({"inputs": "cat ".repeat(20)});
    refuses(&post(&server, "/embed", &long).await, 413, "Validation", "limit of 64 bytes");
    let answer = post(&server, "/v1/embeddings", &json!({"input": "cat ".repeat(20)})).await;
    refuses_openai(&answer, 413, "invalid_request_error", None, "limit of 64 bytes");
    let server = TestServer::with(world(), |config| config.max_answer_bytes = 60);
    for (path, body) in [
        ("/embed", json!({"inputs": ["cat", "dog"]})),
        ("/embed_all", json!({"inputs": "the cat sat"})),
        ("/v1/embeddings", json!({"input": "cat"})),
        ("/rerank", json!({"query": "cat", "texts": ["on", "on", "on"]})),
        ("/predict", json!({"inputs": "cat"})),
        ("/tokenize/labels", json!({"inputs": "the cat"})),
        ("/decode/labels", json!({"ids": vec![5; 20]})),
    ] {
        let answer = post(&server, path, &body).await;
        assert_eq!(answer.status, 413, "{path}: {:?}", answer.body);
        assert!(String::from_utf8_lossy(&answer.body).contains("60 bytes"), "{path}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_busy_or_draining_server_says_so() {
    let server = TestServer::new(world());
    server.compute.refuse();
    // So many that they are work for compute threads.
    let cats = ["cat"; 60].as_slice();
    refuses(&post(&server, "/embed", &json!({"inputs": cats})).await, 429, "Overloaded", "full");
    refuses(&post(&server, "/tokenize/labels", &json!({"inputs": "cat"})).await, 429, "Overloaded", "full");
    let answer = post(&server, "/v1/embeddings", &json!({"input": cats})).await;
    refuses_openai(&answer, 429, "requests", Some("rate_limit_exceeded"), "full");
    assert_eq!(answer.headers["retry-after"], "1");
    let server = TestServer::new(world());
    server.readiness.refuse_new();
    refuses(&post(&server, "/embed", &json!({"inputs": "cat"})).await, 503, "Unhealthy", "shutting down");
}

#[tokio::test]
async fn a_client_that_does_not_wait_gets_504() {
    let (text, _) = embedding(|_| {});
    let never = |_| InferFuture::boxed(std::future::pending());
    let server = TestServer::new(Models::new().text("m", 1, text, never));
    let headers = [("x-request-timeout-ms", "20")];
    let answer = server.ask(Method::POST, "/embed", &headers, r#"{"inputs": "cat"}"#).await;
    refuses(&answer, 504, "Overloaded", "deadline exceeded");
    let wrong = server.ask(Method::POST, "/embed", &[("x-request-timeout-ms", "soon")], r#"{"inputs": "cat"}"#).await;
    refuses(&wrong, 422, "Validation", "whole number");
}

#[tokio::test]
async fn a_tokenizer_that_panics_fails_one_request() {
    let server = TestServer::new(world());
    refuses(&post(&server, "/embed", &json!({"inputs": "panic"})).await, 424, "Backend", "failed on this request");
    ok(&server, "/embed", &json!({"inputs": "cat"})).await;
}

#[tokio::test]
async fn a_network_that_breaks_its_word_is_no_answer() {
    let gives = |output: Tensor| {
        let (text, _) = embedding(|_| {});
        TestServer::new(Models::new().text("m", 1, text, move |_| answered([output.clone()])))
    };
    let floats = |sizes: &[usize], numbers: Vec<f32>| Tensor::from_vec(sizes, numbers).unwrap();
    for (output, words) in [
        (floats(&[2, 3], vec![1.0; 6]), "for 1 texts"),
        (floats(&[1, 3], vec![1.0, f32::NAN, 1.0]), "not finite"),
        (floats(&[1, 3], vec![1.0, f32::INFINITY, 1.0]), "not finite"),
        (Tensor::from_vec(&[1, 3], vec![1_i64; 3]).unwrap(), "FP32"),
    ] {
        refuses(&post(&gives(output), "/embed", &json!({"inputs": "cat"})).await, 424, "Backend", words);
    }
    let flat = gives(floats(&[1, 3], vec![1.0; 3]));
    refuses(&post(&flat, "/embed_all", &json!({"inputs": "cat"})).await, 424, "Backend", "none of this kind");
    let short = gives(floats(&[1, 2, 3], vec![1.0; 6]));
    refuses(&post(&short, "/embed_all", &json!({"inputs": "cat"})).await, 424, "Backend", "none of this kind");
    let none = {
        let (text, _) = embedding(|_| {});
        TestServer::new(Models::new().text("m", 1, text, |_| answered([])))
    };
    refuses(&post(&none, "/embed", &json!({"inputs": "cat"})).await, 424, "Backend", "0 outputs");
    let (text, answer) = super::words::plain_embedding();
    let plain = TestServer::new(with(Models::new(), "m", 1, (text, answer)));
    refuses(
        &post(&plain, "/embed_all", &json!({"inputs": "cat"})).await,
        424,
        "Backend",
        "no output `last_hidden_state`",
    );
}

#[tokio::test]
async fn foreign_text_in_a_refusal_is_escaped() {
    let server = TestServer::new(world());
    let answer = post(&server, "/embed", &json!({"inputs": "cat", "model": "<b>\n\u{1b}[31m"})).await;
    let body: Value = answer.json();
    assert!(!body["error"].as_str().unwrap().contains(['\n', '\u{1b}']), "{body}");
}

#[tokio::test]
async fn hostile_bodies_cost_no_more_than_their_size() {
    let server = Arc::new(TestServer::new(world()));
    let many_ids = format!("{{\"inputs\": [{}5]}}", "5,".repeat(500_000));
    refuses(&server.ask(Method::POST, "/embed", &[], many_ids).await, 422, "Validation", "tokens, at most 8 fit");
    let many_texts = format!("{{\"inputs\": [{}\"a\"]}}", "\"a\",".repeat(500_000));
    refuses(&server.ask(Method::POST, "/embed", &[], many_texts).await, 413, "Validation", "limit of 1024");
    let many_keys = format!("{{{}\"inputs\": 1}}", (0..2000).map(|n| format!("\"k{n}\": 1,")).collect::<String>());
    refuses(&server.ask(Method::POST, "/embed", &[], many_keys).await, 400, "Validation", "limit of 1024");
}
