//! Which model a request is for.

use http::Method;
use millrace_core::{Reason, Refusal, VersionState};
use serde_json::{Value, json};

use super::words::{embedding, ranking};
use super::{ok, post, refuses, refuses_openai, with, world};
use crate::harness::{Models, TestServer};

/// Two embedding models, one in two versions, whose version each vector shows.
fn two() -> Models {
    let of_version = |truncation| embedding(move |facts| facts.truncation = truncation);
    let models = with(world(), "others", 1, of_version(millrace_core::Truncation::Left));
    with(models, "others", 2, of_version(millrace_core::Truncation::Refuse)).alias("others", "stable", 1)
}

#[tokio::test]
async fn the_only_model_that_fits_need_not_be_named() {
    let server = TestServer::new(world());
    for (path, body) in [
        ("/embed", json!({"inputs": "cat"})),
        ("/embed_all", json!({"inputs": "cat"})),
        ("/similarity", json!({"inputs": {"source_sentence": "cat", "sentences": ["dog"]}})),
        ("/v1/embeddings", json!({"input": "cat"})),
        ("/rerank", json!({"query": "cat", "texts": ["dog"]})),
        ("/predict", json!({"inputs": "cat"})),
    ] {
        ok(&server, path, &body).await;
    }
}

#[tokio::test]
async fn where_several_fit_the_request_must_say_which() {
    let server = TestServer::new(two());
    let several = "`others`, `vectors`; say which, as `model` in the body or in the query, or at the end of the path";
    let answer = post(&server, "/embed", &json!({"inputs": "cat"})).await;
    refuses(&answer, 400, "Validation", several);
    let answer = post(&server, "/v1/embeddings", &json!({"input": "cat"})).await;
    refuses_openai(&answer, 400, "invalid_request_error", None, several);
    assert_eq!(answer.json()["error"]["param"], "model");
    for (path, body) in [("/tokenize", json!({"inputs": "cat"})), ("/decode", json!({"ids": [5]}))] {
        refuses(&post(&server, path, &body).await, 400, "Validation", "`labels`, `others`, `ranks`, `vectors`");
    }
    refuses(&server.get("/info").await, 400, "Validation", "`labels`, `others`, `ranks`, `vectors`");
    for (path, body) in [
        ("/embed", json!({"inputs": "cat", "model": "vectors"})),
        ("/embed/vectors", json!({"inputs": "cat"})),
        ("/embed?model=vectors", json!({"inputs": "cat"})),
        ("/embed/vectors?model=nobody", json!({"inputs": "cat", "model": "vectors"})),
        ("/embed_all/vectors", json!({"inputs": "cat"})),
        ("/similarity/vectors", json!({"inputs": {"source_sentence": "cat", "sentences": ["dog"]}})),
        ("/v1/embeddings?model=vectors", json!({"input": "cat"})),
        ("/rerank/ranks", json!({"query": "cat", "texts": ["dog"]})),
        ("/predict/labels", json!({"inputs": "cat"})),
        ("/predict/ranks", json!({"inputs": "cat"})),
        ("/predict", json!({"inputs": "cat", "model": "ranks"})),
        ("/tokenize/ranks", json!({"inputs": "cat"})),
        ("/decode/labels", json!({"ids": [5]})),
    ] {
        ok(&server, path, &body).await;
    }
    assert_eq!(server.get("/info/ranks").await.json()["model_id"], "ranks");
    assert_eq!(server.get("/info?model=ranks").await.json()["model_id"], "ranks");
}

#[tokio::test]
async fn a_version_or_an_alias_may_be_named() {
    let server = TestServer::new(two());
    for (named, version) in [("others", "2"), ("others:1", "1"), ("others@stable", "1"), ("others:2", "2")] {
        let info = server.get(&format!("/info/{}", named.replace(':', "%3A"))).await.json();
        assert_eq!((&info["model_id"], &info["model_sha"]), (&json!("others"), &json!(version)), "{named}");
        let info = server.get(&format!("/info?model={named}")).await.json();
        assert_eq!(info["model_sha"], version, "{named}");
        let answer = ok(&server, "/v1/embeddings", &json!({"input": "cat", "model": named})).await;
        assert_eq!(answer["model"], "others");
    }
    let ask = async |model: &str| post(&server, "/embed", &json!({"inputs": "cat", "model": model})).await;
    refuses(&ask("others:9").await, 404, "Validation", "");
    refuses(&ask("others@canary").await, 404, "Validation", "");
    refuses(&ask("others:x").await, 400, "Validation", "`x` is no version");
}

#[tokio::test]
async fn path_and_body_must_not_name_different_models() {
    let server = TestServer::new(two());
    let body = json!({"inputs": "cat", "model": "others"});
    refuses(
        &post(&server, "/embed/vectors", &body).await,
        400,
        "Validation",
        "the path names `vectors`, the body `others`",
    );
}

#[tokio::test]
async fn an_unknown_model_is_404_with_those_that_there_are() {
    let server = TestServer::new(two());
    let body = |model: &str| json!({"input": "cat", "model": model});
    for model in ["text-embedding-3-small", "sentence-transformers/all-MiniLM-L6-v2", ""] {
        let answer = post(&server, "/v1/embeddings", &body(model)).await;
        let words = "is not known; embedding models: `others`, `vectors`";
        refuses_openai(&answer, 404, "invalid_request_error", Some("model_not_found"), words);
    }
    let answer = post(&server, "/rerank/nobody", &json!({"query": "cat", "texts": ["dog"]})).await;
    refuses(&answer, 404, "Validation", "`nobody` is not known; ranking models: `ranks`");
}

#[tokio::test]
async fn a_model_of_another_kind_is_told_apart() {
    let server = TestServer::new(world());
    for (path, body, words) in [
        ("/embed/labels", json!({"inputs": "cat"}), "`labels` does classification; this route is for embedding models"),
        ("/rerank/vectors", json!({"query": "cat", "texts": ["dog"]}), "for ranking models"),
        ("/rerank/labels", json!({"query": "cat", "texts": ["dog"]}), "for ranking models"),
        ("/predict/vectors", json!({"inputs": "cat"}), "for classification models"),
        ("/embed/numbers", json!({"inputs": "cat"}), "`numbers` takes no text"),
        ("/tokenize/numbers", json!({"inputs": "cat"}), "`numbers` takes no text"),
    ] {
        refuses(&post(&server, path, &body).await, 424, "Backend", words);
    }
    let answer = post(&server, "/v1/embeddings", &json!({"input": "cat", "model": "ranks"})).await;
    refuses_openai(&answer, 400, "invalid_request_error", None, "does ranking");
}

#[tokio::test]
async fn where_nothing_fits_that_is_said_and_whether_it_may_come() {
    let server = TestServer::new(Models::new().affine("numbers", 1, 1.0, 0.0));
    refuses(
        &post(&server, "/embed", &json!({"inputs": "cat"})).await,
        404,
        "Validation",
        "there are no embedding models",
    );
    refuses(&server.get("/info").await, 404, "Validation", "there are no models that take text");
    let server = TestServer::new(Models::new().unsettled());
    refuses(&post(&server, "/embed", &json!({"inputs": "cat"})).await, 503, "Unhealthy", "still being loaded");
    let loading = Refusal::new(Reason::Loading, "model `late` is loading");
    let server = TestServer::new(world().unavailable("late", VersionState::Loading, None, loading));
    refuses(&post(&server, "/embed/late", &json!({"inputs": "cat"})).await, 503, "Unhealthy", "is loading");
}

#[tokio::test]
async fn a_ranking_model_is_asked_for_labels_where_no_model_has_more() {
    let server = TestServer::new(with(Models::new(), "ranks", 1, ranking()));
    let answer: Value = ok(&server, "/predict", &json!({"inputs": ["cat", "cat"]})).await;
    assert_eq!(answer[0]["label"], "LABEL_0");
    let two = with(with(Models::new(), "ranks", 1, ranking()), "more", 1, ranking());
    let answer = post(&TestServer::new(two), "/predict", &json!({"inputs": "cat"})).await;
    refuses(&answer, 400, "Validation", "`more`, `ranks`");
}

#[tokio::test]
async fn requests_count_for_their_model_and_protocol() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = TestServer::new(world());
    ok(&server, "/embed", &json!({"inputs": ["cat", "dog"]})).await;
    ok(&server, "/predict", &json!({"inputs": "cat"})).await;
    ok(&server, "/tokenize/ranks", &json!({"inputs": "cat"})).await;
    let refused = server.ask(Method::POST, "/embed", &[], "{").await;
    assert_eq!(refused.status, 400);
    let page = page.render();
    for model in ["vectors", "labels", "ranks"] {
        let has = |line: &str| line.contains(&format!("model=\"{model}\"")) && line.contains("protocol=\"text\"");
        assert!(page.lines().any(has), "{model}: {page}");
    }
    assert!(!page.contains("protocol=\"general\""), "{page}");
}
