//! Real text models behind the text endpoints: the golden cases, from text and token ids to vectors, labels and ranks.

use std::fs;

use base64_simd::STANDARD;
use millrace_testkit::fixture;
use serde_json::{Value, json};

use crate::support::{Client, TestServer};

/// The cases of one model, as they are written.
fn cases(model: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixture("cases/text").join(format!("{model}.json"))).expect("the cases are there");
    let cases: Value = serde_json::from_str(&text).expect("the cases are JSON");
    cases["cases"].as_array().expect("a list").clone()
}

fn server() -> TestServer {
    TestServer::folder(&fixture("text-models"), |_| {})
}

#[track_caller]
fn ok(client: &mut Client, path: &str, body: &Value) -> Value {
    let reply = client.post(path, body.to_string());
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text());
    reply.json()
}

/// The rows of an output of a case.
fn rows(case: &Value, output: &str) -> Vec<Vec<f64>> {
    let tensor = &case["outputs"][output];
    let width = usize::try_from(tensor["shape"][1].as_u64().unwrap()).unwrap();
    numbers(&tensor["data"]).chunks_exact(width).map(<[f64]>::to_vec).collect()
}

/// The real ids of each row of a case.
fn ids(case: &Value) -> Vec<Vec<u64>> {
    let of = |name: &str| -> Vec<u64> {
        case["inputs"][name]["data"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    let width = usize::try_from(case["inputs"]["input_ids"]["shape"][1].as_u64().unwrap()).unwrap();
    let (ids, mask) = (of("input_ids"), of("attention_mask"));
    let real = |(ids, mask): (&[u64], &[u64])| {
        ids.iter().zip(mask).filter(|(_, mask)| **mask == 1).map(|(id, _)| *id).collect()
    };
    ids.chunks_exact(width).zip(mask.chunks_exact(width)).map(real).collect()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(given: &[f64], expected: &[f64], what: &str) {
    assert_eq!(given.len(), expected.len(), "{what}");
    for (given, expected) in given.iter().zip(expected) {
        assert!((given - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{what}: {given} is not {expected}");
    }
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|number| number * number).sum::<f64>().sqrt();
    vector.iter().map(|number| number / length).collect()
}

/// Whether a case is of rows that a tokenizer gives for single texts. With padding on the left, BERT counts positions otherwise.
fn is_of_texts(case: &Value) -> bool {
    let is_left = case["note"].as_str().is_some_and(|note| note.contains("on the left"));
    !is_left && case["texts"].as_array().is_some_and(|texts| texts.iter().all(Value::is_string))
}

#[test]
fn texts_and_token_ids_give_the_golden_vectors() {
    let server = server();
    let mut client = server.client();
    let mut compared = 0;
    for model in [
        "bert_mean",
        "bert_dense",
        "bert_masked_lm",
        "bert_fp16",
        "bert_bf16",
        "bert_sharded",
        "bert_two_forms",
        "distilbert_mean",
        "roberta_mean",
        "xlm_roberta_mean",
    ] {
        let info = client.get(&format!("/info/{model}")).json();
        assert_eq!(info["max_batch_tokens"], 16_384);
        assert!(info["tokenization_workers"].as_u64().is_some_and(|workers| workers > 0), "{info}");
        let most = info["max_input_length"].as_u64().unwrap();
        for case in cases(model).iter().filter(|case| is_of_texts(case)) {
            let of_length_1 = rows(case, "sentence_embedding").iter().map(|row| unit(row)).collect::<Vec<_>>();
            let raw = rows(case, if case["outputs"].get("pooled").is_some() { "pooled" } else { "sentence_embedding" });
            let (mut texts, mut lists, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for (row, ids) in ids(case).into_iter().enumerate().filter(|(_, ids)| ids.len() as u64 <= most) {
                texts.push(case["texts"][row].clone());
                lists.push(ids);
                expected.push(row);
            }
            for inputs in [json!(texts), json!(lists)] {
                let vectors =
                    ok(&mut client, &format!("/embed/{model}"), &json!({"inputs": inputs, "normalize": false}));
                let of_1 = ok(&mut client, "/v1/embeddings", &json!({"input": inputs, "model": model}));
                for (index, row) in expected.iter().enumerate() {
                    close(&numbers(&vectors[index]), &raw[*row], model);
                    close(&numbers(&of_1["data"][index]["embedding"]), &of_length_1[*row], model);
                    compared += 1;
                }
                let n_tokens: usize = lists.iter().map(Vec::len).sum();
                assert_eq!(of_1["usage"]["total_tokens"], n_tokens, "{model}");
            }
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn labels_and_ranks_have_the_golden_scores() {
    let server = server();
    let mut client = server.client();
    let mut compared = 0;
    for model in [
        "bert_labels",
        "bert_labels_two_forms",
        "bert_multi_label",
        "distilbert_labels",
        "roberta_labels",
        "xlm_roberta_ranker",
    ] {
        let info = client.get(&format!("/info/{model}")).json();
        let kind = if model == "xlm_roberta_ranker" { "reranker" } else { "classifier" };
        let ids = info["model_type"][kind]["label2id"].clone();
        for case in cases(model).iter().filter(|case| case["texts"].is_array()) {
            let logits = rows(case, "logits");
            // An empty text is nothing to ask about.
            let asked = case["texts"].as_array().unwrap().iter().zip(&logits).filter(|(text, _)| **text != "");
            let (texts, expected): (Vec<&Value>, Vec<&Vec<f64>>) = asked.unzip();
            let pair = |text: &&Value| if text.is_string() { json!([text]) } else { (*text).clone() };
            let inputs: Vec<Value> = texts.iter().map(pair).collect();
            let answer = ok(&mut client, &format!("/predict/{model}"), &json!({"inputs": inputs, "raw_scores": true}));
            for (index, expected) in expected.into_iter().enumerate() {
                let scores = answer[index].as_array().unwrap();
                let in_order: Vec<f64> = scores.iter().map(|score| score["score"].as_f64().unwrap()).collect();
                assert!(in_order.is_sorted_by(|a, b| a >= b), "{in_order:?}");
                let mut by_label = vec![f64::NAN; expected.len()];
                for score in scores {
                    let id = ids[score["label"].as_str().unwrap()].as_u64().unwrap();
                    by_label[usize::try_from(id).unwrap()] = score["score"].as_f64().unwrap();
                }
                close(&by_label, expected, model);
                compared += 1;
                if let (Some(pair), "reranker") = (texts[index].as_array(), kind) {
                    let body = json!({"query": pair[0], "texts": [pair[1]], "raw_scores": true});
                    let ranks = ok(&mut client, &format!("/rerank/{model}"), &body);
                    close(&[ranks[0]["score"].as_f64().unwrap()], expected, model);
                }
            }
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn a_ranking_model_that_is_the_only_one_need_not_be_named() {
    let server = server();
    let mut client = server.client();
    let texts = ["The river freezes in winter.", "Rye flour is dark.", "The wheel turns."];
    let body = json!({"query": "What is rye flour?", "texts": texts, "return_text": true});
    let ranks = ok(&mut client, "/rerank", &body);
    let scores: Vec<f64> = ranks.as_array().unwrap().iter().map(|rank| rank["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    for rank in ranks.as_array().unwrap() {
        assert_eq!(rank["text"], texts[usize::try_from(rank["index"].as_u64().unwrap()).unwrap()]);
    }
    let several = client.post("/embed", json!({"inputs": "Rye flour is dark."}).to_string());
    assert_eq!(several.status, 400, "{}", several.text());
    assert!(several.text().contains("`bert_mean`") && several.text().contains("say which"), "{}", several.text());
}

#[test]
fn tokens_go_there_and_back_and_base64_holds_the_same_numbers() {
    let server = server();
    let mut client = server.client();
    let text = "Größe und Café: 水車 😀";
    for model in ["bert_mean", "roberta_mean", "xlm_roberta_mean"] {
        let tokens = ok(&mut client, &format!("/tokenize/{model}"), &json!({"inputs": text}));
        let tokens = tokens[0].as_array().unwrap();
        assert!(tokens.first().unwrap()["special"] == true && tokens.last().unwrap()["special"] == true);
        for token in tokens.iter().filter(|token| token["special"] == false) {
            let place = |key: &str| usize::try_from(token[key].as_u64().unwrap()).unwrap();
            let shown = String::from_utf8_lossy(&text.as_bytes()[place("start")..place("stop")]).into_owned();
            assert_eq!(token["text"], shown, "{model}");
        }
        let ids: Vec<&Value> = tokens.iter().map(|token| &token["id"]).collect();
        let by_ids = ok(&mut client, &format!("/embed/{model}"), &json!({"inputs": [ids]}));
        let by_text = ok(&mut client, &format!("/embed/{model}"), &json!({"inputs": text}));
        assert_eq!(by_ids, by_text, "{model}");
        let decoded = ok(&mut client, &format!("/decode/{model}"), &json!({"ids": ids}));
        assert!(decoded[0].as_str().is_some_and(|text| !text.is_empty() && !text.contains("</s>")), "{decoded}");
        let base64 = json!({"input": text, "model": model, "encoding_format": "base64"});
        let base64 = ok(&mut client, "/v1/embeddings", &base64);
        let bytes = STANDARD.decode_to_vec(base64["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let floats: Vec<f64> =
            bytes.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect();
        close(&floats, &numbers(&by_text[0]), model);
    }
}

#[test]
fn every_token_has_the_golden_vector() {
    let server = server();
    let mut client = server.client();
    for case in cases("distilbert_mean").iter().filter(|case| is_of_texts(case)) {
        let sizes = case["outputs"]["last_hidden_state"]["shape"].as_array().unwrap();
        let [sequence, width] = [1, 2].map(|axis| usize::try_from(sizes[axis].as_u64().unwrap()).unwrap());
        let expected = numbers(&case["outputs"]["last_hidden_state"]["data"]);
        let answer = ok(&mut client, "/embed_all/distilbert_mean", &json!({"inputs": case["texts"]}));
        let mask: Vec<u64> = case["inputs"]["attention_mask"]["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_u64().unwrap())
            .collect();
        for (row, tokens) in answer.as_array().unwrap().iter().enumerate() {
            let real = (0..sequence).filter(|at| mask[row * sequence + at] == 1);
            let expected: Vec<&[f64]> = real.map(|at| &expected[(row * sequence + at) * width..][..width]).collect();
            let tokens = tokens.as_array().unwrap();
            assert_eq!(tokens.len(), expected.len());
            tokens
                .iter()
                .zip(expected)
                .for_each(|(token, expected)| close(&numbers(token), expected, "distilbert_mean"));
        }
    }
}
