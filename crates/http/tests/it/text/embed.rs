//! Vectors: `/embed`, `/embed_all`, `/similarity` and `/v1/embeddings`.

use http::Method;
use millrace_core::Truncation;
use serde_json::{Value, json};

use super::words::{embedding, plain_embedding};
use super::{close, ok, post, refuses, with, world};
use crate::harness::{Models, TestServer};

/// What the model gives for words of these ids, of length 1.
fn unit(ids: &[f64]) -> Vec<f64> {
    let vector = [ids.len() as f64, ids.iter().sum(), 1.0];
    let length = vector.iter().map(|number| number * number).sum::<f64>().sqrt();
    vector.iter().map(|number| number / length).collect()
}

#[tokio::test]
async fn a_text_gives_a_list_of_one_vector_and_texts_give_theirs_in_order() {
    let server = TestServer::new(world());
    let one = ok(&server, "/embed", &json!({"inputs": "the cat"})).await;
    assert_eq!(one.as_array().unwrap().len(), 1);
    close(&one[0], &unit(&[4.0, 5.0]));
    let texts = json!({"inputs": ["dog", "the cat sat on the mat", "cat"]});
    let several = ok(&server, "/embed", &texts).await;
    for (row, ids) in [vec![6.0], vec![4.0, 5.0, 7.0, 8.0, 4.0, 9.0], vec![5.0]].iter().enumerate() {
        close(&several[row], &unit(ids));
    }
}

#[tokio::test]
async fn token_ids_are_taken_as_they_are_beside_texts() {
    let server = TestServer::new(world());
    let mixed = ok(&server, "/embed", &json!({"inputs": [[1, 4, 5, 2], "dog", [6]]})).await;
    for (row, ids) in [vec![4.0, 5.0], vec![6.0], vec![6.0]].iter().enumerate() {
        close(&mixed[row], &unit(ids));
    }
    let one = ok(&server, "/embed", &json!({"inputs": [4, 5]})).await;
    assert_eq!(one.as_array().unwrap().len(), 1, "numbers are the ids of one text");
    close(&one[0], &unit(&[4.0, 5.0]));
    // No special tokens are put around: they would be tokens.
    let all = ok(&server, "/embed_all", &json!({"inputs": [[4, 5]]})).await;
    assert_eq!(all, json!([[[4.0, 0.0, 1.0], [5.0, 1.0, 1.0]]]));
}

#[tokio::test]
async fn vectors_are_of_length_1_unless_that_is_not_wanted() {
    for parts in [embedding(|_| {}), plain_embedding()] {
        let server = TestServer::new(with(Models::new(), "m", 1, parts));
        let vector = ok(&server, "/embed", &json!({"inputs": "the cat"})).await;
        close(&vector[0], &unit(&[4.0, 5.0]));
        let raw = ok(&server, "/embed", &json!({"inputs": "the cat", "normalize": false})).await;
        assert_eq!(raw, json!([[2.0, 9.0, 1.0]]));
        let null = ok(&server, "/embed", &json!({"inputs": "the cat", "normalize": null, "dimensions": null})).await;
        assert_eq!(null, vector);
    }
}

#[tokio::test]
async fn dimensions_cut_the_vector_and_make_it_of_length_1_again() {
    let server = TestServer::new(world());
    let ask = |normalize: bool| json!({"inputs": "the cat", "normalize": normalize, "dimensions": 2});
    let length = (4.0_f64 + 81.0).sqrt();
    close(&ok(&server, "/embed", &ask(true)).await[0], &[2.0 / length, 9.0 / length]);
    assert_eq!(ok(&server, "/embed", &ask(false)).await, json!([[2.0, 9.0]]));
    let whole = ok(&server, "/embed", &json!({"inputs": "the cat", "dimensions": 3})).await;
    close(&whole[0], &unit(&[4.0, 5.0]));
    for (dimensions, words) in [(json!(4), "expected 1 to 3, got 4"), (json!(0), "positive"), (json!("2"), "positive")]
    {
        let answer = post(&server, "/embed", &json!({"inputs": "cat", "dimensions": dimensions})).await;
        refuses(&answer, 422, "Validation", words);
    }
}

#[tokio::test]
async fn every_token_has_a_vector_and_padding_has_none() {
    let server = TestServer::new(world());
    let all = ok(&server, "/embed_all", &json!({"inputs": ["cat", "the dog"]})).await;
    let token = |id: f64, at: f64| json!([id, at, 1.0]);
    let expected = json!([
        [token(1.0, 0.0), token(5.0, 1.0), token(2.0, 2.0)],
        [token(1.0, 0.0), token(4.0, 1.0), token(6.0, 2.0), token(2.0, 3.0)],
    ]);
    assert_eq!(all, expected);
    assert_eq!(ok(&server, "/embed_all", &json!({"inputs": "cat"})).await, json!([expected[0]]));
}

#[tokio::test]
async fn similarities_are_cosines_to_the_first_sentence() {
    let server = TestServer::new(world());
    let body = json!({"inputs": {"source_sentence": "cat", "sentences": ["cat", "dog", "the mat"]}});
    let (source, dog, mat) = (unit(&[5.0]), unit(&[6.0]), unit(&[4.0, 9.0]));
    let product = |other: &[f64]| source.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
    close(&ok(&server, "/similarity", &body).await, &[1.0, product(&dog), product(&mat)]);
    let long = json!({
        "inputs": {"source_sentence": "cat", "sentences": ["cat the the the the the the the"]},
        "parameters": {"truncate": true, "truncation_direction": "Left"},
    });
    assert_eq!(ok(&server, "/similarity", &long).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn long_texts_are_refused_or_cut_as_the_request_and_then_the_model_say() {
    let long = "cat the the the the the the dog";
    let ask = async |facts: Truncation, options: Value| {
        let parts = embedding(|known| known.truncation = facts);
        let server = TestServer::new(with(Models::new(), "m", 1, parts));
        let mut body = json!({"inputs": long});
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let answer = post(&server, "/embed_all", &body).await;
        if answer.status == 200 {
            let tokens = answer.json();
            let id = |token: &Value| token[0].as_f64().unwrap();
            let tokens = tokens[0].as_array().unwrap();
            assert_eq!(tokens.len(), super::words::MAX_TOKENS);
            // A cat stands first in the text, a dog last.
            match (tokens.iter().any(|token| id(token) == 5.0), tokens.iter().any(|token| id(token) == 6.0)) {
                (true, false) => "right",
                (false, true) => "left",
                other => panic!("{other:?}"),
            }
        } else {
            refuses(&answer, 422, "Validation", "instance 0: 10 tokens, at most 8 fit");
            "refused"
        }
    };
    use Truncation::{Left, Refuse, Right};
    for (facts, options, expected) in [
        (Refuse, json!({}), "refused"),
        (Right, json!({}), "right"),
        (Left, json!({}), "left"),
        (Left, json!({"truncate": null}), "left"),
        (Right, json!({"truncate": false}), "refused"),
        (Refuse, json!({"truncate": true}), "right"),
        (Left, json!({"truncate": true}), "left"),
        (Refuse, json!({"truncate": true, "truncation_direction": "left"}), "left"),
        (Refuse, json!({"truncate": true, "truncation_direction": "Right"}), "right"),
        (Right, json!({"truncation_direction": "Left"}), "left"),
        (Refuse, json!({"truncation_direction": "left"}), "refused"),
    ] {
        assert_eq!(ask(facts, options.clone()).await, expected, "{facts:?} {options}");
    }
}

#[tokio::test]
async fn a_prompt_is_put_before_texts_and_token_ids() {
    let prompts = |default: Option<&str>| {
        let default = default.map(str::to_owned);
        embedding(move |facts| {
            facts.prompts = [("query".to_owned(), "query: ".to_owned()), ("none".to_owned(), String::new())].into();
            facts.default_prompt = default;
        })
    };
    let server = TestServer::new(with(Models::new(), "m", 1, prompts(None)));
    let plain = ok(&server, "/embed", &json!({"inputs": "cat"})).await;
    close(&plain[0], &unit(&[5.0]));
    for inputs in [json!("cat"), json!([[1, 5, 2]])] {
        let prompted = ok(&server, "/embed", &json!({"inputs": inputs, "prompt_name": "query"})).await;
        close(&prompted[0], &unit(&[10.0, 5.0]));
    }
    let unknown = post(&server, "/embed", &json!({"inputs": "cat", "prompt_name": "passage"})).await;
    refuses(&unknown, 422, "Validation", "has no prompt `passage`; it has `none`, `query`");
    let server = TestServer::new(with(Models::new(), "m", 1, prompts(Some("query"))));
    for (body, ids) in
        [(json!({"inputs": "cat"}), vec![10.0, 5.0]), (json!({"inputs": "cat", "prompt_name": "none"}), vec![5.0])]
    {
        close(&ok(&server, "/embed", &body).await[0], &unit(&ids));
    }
    let openai = ok(&server, "/v1/embeddings", &json!({"input": "cat"})).await;
    close(&openai["data"][0]["embedding"], &unit(&[10.0, 5.0]));
}

#[tokio::test]
async fn openai_clients_get_objects_and_how_many_tokens_there_were() {
    let server = TestServer::new(world());
    let body = json!({"input": ["the cat", "dog"], "model": "vectors", "user": "u-1", "encoding_format": "float"});
    for path in ["/v1/embeddings", "/embeddings", "/V1/embeddings"] {
        let answer = ok(&server, path, &body).await;
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("vectors")));
        assert_eq!(answer["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
        for (index, ids) in [vec![4.0, 5.0], vec![6.0]].iter().enumerate() {
            let entry = &answer["data"][index];
            assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
            close(&entry["embedding"], &unit(ids));
        }
    }
    for (input, n_tokens) in [(json!("cat"), 3), (json!([4, 5]), 2), (json!([[4, 5], [6]]), 3)] {
        let answer = ok(&server, "/v1/embeddings", &json!({"input": input})).await;
        assert_eq!(answer["usage"]["total_tokens"], n_tokens, "{input}");
    }
}

#[tokio::test]
async fn base64_is_of_little_endian_floats() {
    let server = TestServer::new(world());
    let ask = |format: &str| json!({"input": ["the cat", "dog"], "encoding_format": format, "dimensions": 2});
    let floats = ok(&server, "/v1/embeddings", &ask("float")).await;
    let base64 = ok(&server, "/v1/embeddings", &ask("base64")).await;
    for index in 0..2 {
        let bytes = base64_simd::STANDARD.decode_to_vec(base64["data"][index]["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f64> =
            bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect();
        assert_eq!((bytes.len(), decoded.len()), (8, 2));
        close(&floats["data"][index]["embedding"], &decoded);
    }
}

#[tokio::test]
async fn answers_say_what_they_cost() {
    let server = TestServer::new(world());
    let answer = post(&server, "/embed", &json!({"inputs": ["größe cat", "dog"]})).await;
    for (name, expected) in [("x-compute-tokens", "7"), ("x-compute-characters", "12")] {
        assert_eq!(answer.headers[name], expected, "{name}");
    }
    for name in ["x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"] {
        let text = answer.headers[name].to_str().unwrap();
        assert!(text.parse::<u64>().is_ok(), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_few_words_are_cut_where_they_arrive_and_long_requests_are_several_jobs() {
    let server = TestServer::new(world());
    ok(&server, "/embed", &json!({"inputs": "cat"})).await;
    assert_eq!(server.compute.jobs(), 0, "no hop for some words");
    let cats = ["cat"; 60].as_slice();
    ok(&server, "/embed", &json!({"inputs": cats})).await;
    assert_eq!(server.compute.jobs(), 1, "one hop for a request of one part");
    let texts: Vec<&str> = ["cat", "dog"].into_iter().cycle().take(200).collect();
    let vectors = ok(&server, "/embed", &json!({"inputs": texts})).await;
    // Four parts of at most 64 texts, and what joins them.
    assert_eq!(server.compute.jobs(), 1 + 4 + 1);
    for (index, vector) in vectors.as_array().unwrap().iter().enumerate() {
        close(vector, &unit(if index % 2 == 0 { &[5.0] } else { &[6.0] }));
    }
    let mut texts: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    texts[150] = json!("the the the the the the the");
    refuses(&post(&server, "/embed", &json!({"inputs": texts})).await, 422, "Validation", "instance 150:");
}

#[tokio::test]
async fn a_compressed_body_is_read() {
    use std::io::Write as _;
    let server = TestServer::new(world());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(br#"{"inputs": "cat"}"#).unwrap();
    let packed = packed.finish().unwrap();
    let answer = server.ask(Method::POST, "/embed", &[("content-encoding", "gzip")], packed).await;
    close(&answer.json()[0], &unit(&[5.0]));
    let odd = server.ask(Method::POST, "/embed", &[("content-encoding", "br")], "x").await;
    refuses(&odd, 422, "Validation", "content-encoding");
}
