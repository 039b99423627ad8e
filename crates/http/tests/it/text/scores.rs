//! Scores: `/predict` in the form of the text routes, and `/rerank`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::words::{classification, ranking};
use super::{ok, post, refuses, with, world};
use crate::harness::{Models, TestServer};

fn softmax(numbers: [f64; 3]) -> [f64; 3] {
    let sum: f64 = numbers.iter().map(|number| number.exp()).sum();
    numbers.map(|number| number.exp() / sum)
}

fn sigmoid(number: f64) -> f64 {
    1.0 / (1.0 + (-number).exp())
}

/// Panics unless `given` are these labels with these scores, in this order.
#[track_caller]
fn scored(given: &Value, expected: &[(&str, f64)]) {
    let given = given.as_array().unwrap_or_else(|| panic!("{given}"));
    assert_eq!(given.len(), expected.len(), "{given:?}");
    for (given, (label, score)) in given.iter().zip(expected) {
        assert_eq!(given["label"], *label, "{given}");
        assert!((given["score"].as_f64().unwrap() - score).abs() < 1e-6, "{given}: {score}");
        assert_eq!(given.as_object().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_single_text_or_pair_gives_its_labels_the_best_first() {
    let server = TestServer::new(world());
    let [cats, dogs, words] = softmax([2.0, 0.0, 3.0]);
    let expected = [("words", words), ("cats", cats), ("dogs", dogs)];
    for inputs in [json!("cat on cat"), json!(["cat on cat"]), json!(["cat", "on cat"])] {
        scored(&ok(&server, "/predict", &json!({"inputs": inputs})).await, &expected);
    }
    let raw = ok(&server, "/predict", &json!({"inputs": "cat on cat", "raw_scores": true})).await;
    assert_eq!(
        raw,
        json!([{"score": 3.0, "label": "words"}, {"score": 2.0, "label": "cats"}, {"score": 0.0, "label": "dogs"}])
    );
}

#[tokio::test]
async fn a_batch_gives_a_list_for_each_and_may_mix_texts_and_pairs() {
    let server = TestServer::new(world());
    let inputs = json!([["dog dog"], ["cat", "cat"], ["on"]]);
    let answer = ok(&server, "/predict", &json!({"inputs": inputs, "raw_scores": true})).await;
    assert_eq!(answer.as_array().unwrap().len(), 3);
    scored(&answer[0], &[("dogs", 2.0), ("words", 2.0), ("cats", 0.0)]);
    scored(&answer[1], &[("cats", 2.0), ("words", 2.0), ("dogs", 0.0)]);
    scored(&answer[2], &[("words", 1.0), ("cats", 0.0), ("dogs", 0.0)]);
    let one = ok(&server, "/predict", &json!({"inputs": [["dog dog"]], "raw_scores": true})).await;
    assert_eq!(one, json!([answer[0]]), "a list of one is a list");
}

#[tokio::test]
async fn labels_that_do_not_compete_are_judged_one_by_one() {
    let parts = classification(|facts| facts.is_multi_label = true);
    let server = TestServer::new(with(Models::new(), "m", 1, parts));
    let answer = ok(&server, "/predict", &json!({"inputs": "cat on cat"})).await;
    scored(&answer, &[("words", sigmoid(3.0)), ("cats", sigmoid(2.0)), ("dogs", 0.5)]);
}

#[tokio::test]
async fn a_ranking_model_has_one_label() {
    let server = TestServer::new(with(Models::new(), "m", 1, ranking()));
    let answer = ok(&server, "/predict", &json!({"inputs": ["the cat", "the cat sat"]})).await;
    scored(&answer, &[("LABEL_0", sigmoid(1.0))]);
    let raw = ok(&server, "/predict", &json!({"inputs": ["the cat", "the cat sat"], "raw_scores": true})).await;
    scored(&raw, &[("LABEL_0", 1.0)]);
}

#[tokio::test]
async fn labels_that_are_not_those_of_the_model_are_no_answer() {
    let parts = classification(|facts| facts.labels = vec![Arc::from("only")]);
    let server = TestServer::new(with(Models::new(), "m", 1, parts));
    refuses(&post(&server, "/predict", &json!({"inputs": "cat"})).await, 424, "Backend", "shape [1,3]");
}

#[tokio::test]
async fn texts_are_ranked_the_best_first() {
    let server = TestServer::new(world());
    let texts = ["on", "cat sat", "", "the dog"];
    let body = json!({"query": "the cat sat", "texts": texts});
    let answer = ok(&server, "/rerank", &body).await;
    let ranks = answer.as_array().unwrap();
    // Of equal ones the first.
    for (rank, (index, logit)) in ranks.iter().zip([(1, 1.0), (3, 0.0), (0, -1.0), (2, -1.0)]) {
        assert_eq!(rank["index"], index, "{rank}");
        assert!((rank["score"].as_f64().unwrap() - sigmoid(logit)).abs() < 1e-6, "{rank}");
        assert_eq!(rank.as_object().unwrap().len(), 2, "no text unless it is wanted");
    }
    let body = json!({"query": "the cat sat", "texts": texts, "raw_scores": true, "return_text": true});
    let expected = json!([
        {"index": 1, "text": "cat sat", "score": 1.0}, {"index": 3, "text": "the dog", "score": 0.0},
        {"index": 0, "text": "on", "score": -1.0}, {"index": 2, "text": "", "score": -1.0},
    ]);
    assert_eq!(ok(&server, "/rerank", &body).await, expected);
}

#[tokio::test]
async fn long_pairs_are_cut_where_that_is_wanted() {
    let server = TestServer::new(world());
    let body = json!({"query": "the cat sat on the mat", "texts": ["cat", "mat"]});
    refuses(&post(&server, "/rerank", &body).await, 422, "Validation", "instance 0: 10 tokens");
    let body = json!({"query": "the cat sat on the mat", "texts": ["cat", "mat"], "truncate": true});
    assert_eq!(ok(&server, "/rerank", &body).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_general_endpoints_keep_their_own_form() {
    let server = TestServer::new(world());
    let rows = ok(&server, "/predict", &json!({"model_name": "numbers", "input_data": [[1], [2]]})).await;
    assert_eq!(rows["predictions"], json!([[1.0], [2.0]]));
    // Whatever else it has, a body with rows of numbers is theirs.
    let both = json!({"model_name": "numbers", "input_data": [[1]], "inputs": "cat"});
    assert_eq!(ok(&server, "/predict", &both).await["predictions"], json!([[1.0]]));
    let neither = post(&server, "/predict", &json!({"model_name": "labels"})).await;
    assert_eq!(neither.status, 422);
    assert_eq!(neither.json()["detail"][0]["loc"], json!(["body", "input_data"]));
}
