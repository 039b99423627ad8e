//! `/tokenize`, `/decode` and `/info`.

use http::Method;
use millrace_core::{TextFacts, Truncation};
use millrace_http::HttpConfig;
use serde_json::{Value, json};

use super::words::{classification, embedding, ranking};
use super::{ok, post, refuses, with};
use crate::harness::{Models, TestServer};

fn one(change: impl FnOnce(&mut TextFacts)) -> TestServer {
    TestServer::new(with(Models::new(), "m", 3, embedding(change)))
}

#[tokio::test]
async fn tokens_have_ids_texts_and_places_in_bytes() {
    let server = one(|_| {});
    let special = |id: u32, text: &str| json!({"id": id, "text": text, "special": true, "start": null, "stop": null});
    let token = |id: u32, text: &str, start: u32, stop: u32| json!({"id": id, "text": text, "special": false, "start": start, "stop": stop});
    let words = json!([token(11, "größe", 0, 7), token(3, "\"", 8, 9), token(5, "cat", 10, 13)]);
    let body = json!({"inputs": "größe \" cat", "add_special_tokens": false});
    assert_eq!(ok(&server, "/tokenize", &body).await, json!([words]));
    let both = ok(&server, "/tokenize", &json!({"inputs": ["cat", "the dog"]})).await;
    assert_eq!(both[0], json!([special(1, "[CLS]"), token(5, "cat", 0, 3), special(2, "[SEP]")]));
    assert_eq!(both[1].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_text_is_never_cut_to_be_shown() {
    let server = one(|facts| facts.truncation = Truncation::Right);
    let tokens = ok(&server, "/tokenize", &json!({"inputs": "cat ".repeat(50)})).await;
    assert_eq!(tokens[0].as_array().unwrap().len(), 52);
}

#[tokio::test]
async fn a_prompt_is_shown_with_the_text() {
    let server = one(|facts| facts.prompts = [("query".to_owned(), "query: ".to_owned())].into());
    let tokens = ok(&server, "/tokenize", &json!({"inputs": "cat", "prompt_name": "query"})).await;
    let texts: Vec<&str> = tokens[0].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["[CLS]", "query:", "cat", "[SEP]"]);
    let unknown = post(&server, "/tokenize", &json!({"inputs": "cat", "prompt_name": "no"})).await;
    refuses(&unknown, 422, "Validation", "has no prompt");
}

#[tokio::test]
async fn ids_become_text_again() {
    let server = one(|_| {});
    for (body, expected) in [
        (json!({"ids": [1, 5, 6, 2]}), json!(["cat dog"])),
        (json!({"ids": [[1, 5, 2], [6]]}), json!(["cat", "dog"])),
        (json!({"ids": [1, 5, 2], "skip_special_tokens": false}), json!(["[CLS] cat [SEP]"])),
    ] {
        assert_eq!(ok(&server, "/decode", &body).await, expected, "{body}");
    }
    for (ids, status, kind, words) in [
        (json!([5, 99]), 422, "Validation", "instance 0: an id that is not in the vocabulary"),
        (json!([[5], [99]]), 422, "Validation", "instance 1:"),
        (json!([-1]), 422, "Validation", "whole numbers from 0"),
        (json!([1.5]), 422, "Validation", "token ids"),
        (json!([5_000_000_000_u64]), 422, "Validation", "token ids"),
        (json!([5, "cat"]), 422, "Validation", "token ids"),
        (json!("cat"), 422, "Validation", "a list of token ids"),
        (json!([["cat"]]), 422, "Validation", "token ids"),
        (json!([]), 400, "Empty", "ids"),
        (json!([[5], []]), 400, "Empty", "ids"),
        (json!(null), 422, "Validation", "ids: field required"),
    ] {
        refuses(&post(&server, "/decode", &json!({"ids": ids})).await, status, kind, words);
    }
}

#[tokio::test]
async fn many_lists_are_several_jobs_and_keep_their_order() {
    let server = one(|_| {});
    let ids: Vec<[u32; 1]> = (0..200).map(|index| [if index % 3 == 0 { 5 } else { 6 }]).collect();
    let texts = ok(&server, "/decode", &json!({"ids": ids})).await;
    // Four parts, and one to put them together.
    assert_eq!(server.compute.jobs(), 5);
    for (index, text) in texts.as_array().unwrap().iter().enumerate() {
        assert_eq!(text, if index % 3 == 0 { "cat" } else { "dog" });
    }
}

#[tokio::test]
async fn an_answer_that_grows_too_long_is_given_up_while_it_is_made() {
    let models = with(Models::new(), "m", 3, embedding(|_| {}));
    let server = TestServer::with(models, |config| config.max_answer_bytes = 1000);
    let texts = |count: usize| json!({"inputs": vec!["cat"; count], "add_special_tokens": false});
    // Each of these has a token of 58 bytes.
    let fits = post(&server, "/tokenize", &texts(16)).await;
    assert_eq!((fits.status.as_u16(), fits.body.len() <= 1000), (200, true), "{} bytes", fits.body.len());
    for body in [texts(17), json!({"inputs": "cat ".repeat(40)}), texts(400)] {
        refuses(&post(&server, "/tokenize", &body).await, 413, "Validation", "1000");
    }
    let lists = |count: usize| json!({"ids": vec![[5]; count]});
    let fits = ok(&server, "/decode", &lists(166)).await;
    assert_eq!(fits.to_string().len(), 997);
    refuses(&post(&server, "/decode", &lists(167)).await, 413, "Validation", "1000");
}

#[tokio::test]
async fn what_is_known_of_a_model_stands_under_the_usual_keys() {
    let server = one(|facts| facts.truncation = Truncation::Right);
    let info = server.get("/info").await.json();
    let expected = json!({
        "model_id": "m", "model_sha": "3", "model_dtype": "float32", "served_model_name": "m",
        "model_type": {"embedding": {"pooling": "mean"}}, "max_input_length": 8,
        "max_client_batch_size": HttpConfig::default().max_client_batch_size, "auto_truncate": true,
        "version": env!("CARGO_PKG_VERSION"), "sha": null, "docker_label": null,
        "max_batch_tokens": 512, "tokenization_workers": 2,
    });
    assert_eq!(info, expected);
    let kind = async |models: Models| TestServer::new(models).get("/info").await.json()["model_type"].clone();
    let labels =
        kind(with(Models::new(), "m", 1, classification(|facts| "BF16".clone_into(&mut facts.precision)))).await;
    let names = json!({"0": "cats", "1": "dogs", "2": "words"});
    let ids = json!({"cats": 0, "dogs": 1, "words": 2});
    assert_eq!(labels, json!({"classifier": {"id2label": names, "label2id": ids}}));
    let unknown = kind(with(Models::new(), "m", 1, embedding(|facts| facts.pooling.clear()))).await;
    assert_eq!(unknown, json!({"embedding": {}}), "a network that pools by itself");
    let ranks = kind(with(Models::new(), "m", 1, ranking())).await;
    assert_eq!(ranks, json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}));
}

#[tokio::test]
async fn precisions_have_the_names_of_the_frameworks() {
    for (precision, name) in [("FP32", "float32"), ("FP16", "float16"), ("BF16", "bfloat16"), ("", "")] {
        let server = one(|facts| precision.clone_into(&mut facts.precision));
        assert_eq!(server.get("/info").await.json()["model_dtype"], name);
    }
}

#[tokio::test]
async fn methods_are_those_of_the_routes() {
    let server = one(|_| {});
    for path in ["/embed", "/embed_all", "/similarity", "/rerank", "/tokenize", "/decode", "/embed/m"] {
        let answer = server.get(path).await;
        refuses(&answer, 405, "Validation", "Method Not Allowed");
        assert_eq!(answer.headers["allow"], "POST");
    }
    let answer = server.ask(Method::POST, "/info", &[], "{}").await;
    refuses(&answer, 405, "Validation", "Method Not Allowed");
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    let answer = server.get("/v1/embeddings").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (405, &Value::Null));
    for path in ["/embed_sparse", "/embed/m/1", "/embeddings/m"] {
        assert_eq!(server.ask(Method::POST, path, &[], "{}").await.status, 404, "{path}");
    }
    for path in ["/embed", "/info", "/v1/embeddings"] {
        assert_eq!(server.manage(Method::POST, path, &[], "{}").await.status, 404, "{path}: it is for clients");
    }
}
