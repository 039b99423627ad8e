//! Predict, classify and regress: the forms, the values, and every input that must be refused, as on TensorFlow
//! Serving's page.

use http::Method;
use millrace_core::{DType, Dim, InferFuture, InferRequest, Reason, Refusal, Tensor, TensorSpec};
use millrace_http::FrontConfig;
use serde_json::{Value, json};

use crate::harness::{Answer, Models, TestServer, answered, models, signature, spec};

async fn predict(model: &str, body: impl Into<bytes::Bytes>) -> Answer {
    TestServer::new(models()).predict(model, body).await
}

#[tokio::test]
async fn rows_give_predictions_and_columns_give_outputs() {
    predict("half_plus_two/versions/1", r#"{"instances": [1.0, 2.0, 5.0]}"#)
        .await
        .gives(&json!({"predictions": [2.5, 3.0, 4.5]}));
    predict("half_plus_two/versions/1", r#"{"inputs": {"x": [1.0, 2.0, 5.0]}}"#)
        .await
        .gives(&json!({"outputs": [2.5, 3.0, 4.5]}));
    predict("half_plus_two/versions/1", r#"{"inputs": [1.0]}"#).await.gives(&json!({"outputs": [2.5]}));
}

#[tokio::test]
async fn several_inputs_and_outputs_go_by_name() {
    predict("sum_diff", r#"{"instances":[{"a":1,"b":[2,3]},{"a":4,"b":[5,6]}]}"#)
        .await
        .gives(&json!({"predictions": [{"s": 6, "d": -4}, {"s": 15, "d": -7}]}));
    predict("sum_diff", r#"{"inputs":{"a":[1,4],"b":[[2,3],[5,6]]}}"#)
        .await
        .gives(&json!({"outputs": {"s": [6, 15], "d": [-4, -7]}}));
}

#[tokio::test]
async fn keys_come_in_any_order_and_the_signature_may_be_named_last() {
    let body = r#"{"inputs": [1.0], "more": {"of": [null]}, "signature_name": "serving_default"}"#;
    predict("half_plus_two/versions/1", body).await.gives(&json!({"outputs": [2.5]}));
    predict("half_plus_two/versions/1", r#"{"signature_name": "", "instances": [1]}"#)
        .await
        .gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn the_version_asked_for_answers() {
    let server = TestServer::new(models());
    for (model, expected) in [
        ("half_plus_two", 3.5),
        ("half_plus_two/versions/1", 2.5),
        ("half_plus_two/versions/2", 3.5),
        ("half_plus_two/versions/0", 3.5),
        ("half_plus_two/versions/001", 2.5),
        ("half_plus_two/labels/stable", 2.5),
    ] {
        server.predict(model, r#"{"instances": [1]}"#).await.gives(&json!({"predictions": [expected]}));
    }
}

#[tokio::test]
async fn paths_are_matched_in_any_case_and_the_query_is_ignored() {
    let server = TestServer::new(models());
    let path = "/V1/MODELS/half_plus_two/Versions/1:PREDICT?timeout=1&x=%ff";
    server.ask(Method::POST, path, &[], r#"{"instances": [1]}"#).await.gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn row_28_content_types_do_not_matter() {
    let server = TestServer::new(models());
    let path = "/v1/models/half_plus_two/versions/1:predict";
    for content_type in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "application/xml"] {
        server
            .ask(Method::POST, path, &[("content-type", content_type)], r#"{"instances": [1]}"#)
            .await
            .gives(&json!({"predictions": [2.5]}));
    }
}

#[tokio::test]
async fn an_empty_list_of_instances_is_refused() {
    predict("half_plus_two", r#"{"instances": []}"#).await.refuses(400, "instances");
}

#[tokio::test]
async fn instances_must_be_a_list() {
    predict("half_plus_two", r#"{"instances": {"x": [1]}}"#).await.refuses(400, "instances");
}

#[tokio::test]
async fn instances_and_inputs_together_are_refused() {
    predict("half_plus_two", r#"{"instances": [1], "inputs": [1]}"#).await.refuses(400, "both");
}

#[tokio::test]
async fn neither_instances_nor_inputs_is_refused() {
    predict("half_plus_two", r#"{"data": [1]}"#).await.refuses(400, "Missing 'inputs' or 'instances' key");
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    for body in ["[1,2]", "[]", "null", "1", "\"x\""] {
        predict("half_plus_two", body).await.refuses(400, "object");
    }
}

#[tokio::test]
async fn an_empty_body_is_refused() {
    predict("half_plus_two", "").await.refuses(400, "JSON Parse error: The document is empty");
    predict("half_plus_two", "{").await.refuses(400, "JSON Parse error");
}

#[tokio::test]
async fn broken_json_to_an_unknown_model_is_not_found() {
    // TensorFlow Serving says 400 as it parses first; its page tolerates 404.
    predict("nope", "{broken").await.refuses(404, "Servable not found for request: Latest(nope)");
}

#[tokio::test]
async fn ragged_lists_are_refused() {
    predict("pairs", r#"{"instances": [[1,2],[3]]}"#).await.refuses(400, "x");
    predict("pairs", r#"{"inputs": [[1,2],[3,4,5]]}"#).await.refuses(400, "x");
}

#[tokio::test]
async fn elements_of_different_rank_are_refused() {
    predict("half_plus_two", r#"{"instances": [1, [1]]}"#).await.refuses(400, "x");
    predict("half_plus_two", r#"{"instances": [[1], 1]}"#).await.refuses(400, "x");
}

#[tokio::test]
async fn named_and_plain_rows_do_not_mix() {
    predict("half_plus_two", r#"{"instances": [{"x":1}, 1]}"#).await.refuses(400, "");
    predict("half_plus_two", r#"{"instances": [1, {"x":1}]}"#).await.refuses(400, "");
}

#[tokio::test]
async fn a_plain_list_for_a_model_of_two_inputs_is_refused() {
    predict("sum_diff", r#"{"instances": [1, 2]}"#).await.refuses(400, "a");
    predict("sum_diff", r#"{"inputs": [1, 2]}"#).await.refuses(400, "a");
}

#[tokio::test]
async fn a_row_with_a_missing_or_an_extra_key_is_refused() {
    predict("sum_diff", r#"{"instances":[{"a":1}]}"#).await.refuses(400, "b");
    predict("sum_diff", r#"{"instances":[{"a":1,"b":[2,3],"c":1}]}"#).await.refuses(400, "c");
    predict("sum_diff", r#"{"instances":[{"a":1,"b":[2,3]},{"a":1}]}"#).await.refuses(400, "b");
}

#[tokio::test]
async fn a_missing_column_is_refused_by_name_and_an_extra_one_ignored() {
    predict("sum_diff", r#"{"inputs":{"a":[1]}}"#).await.refuses(400, "b");
    predict("sum_diff", r#"{"inputs":{"a":[1],"b":[[2,3]],"c":[null]}}"#)
        .await
        .gives(&json!({"outputs": {"s": [6], "d": [-4]}}));
}

#[tokio::test]
async fn nan_and_infinities_go_in_and_come_out_bare() {
    let answer = predict("half_plus_two", r#"{"instances":[NaN, Infinity, -Infinity, Inf, -Inf]}"#).await;
    assert_eq!(answer.status, 200);
    let text: String = String::from_utf8_lossy(&answer.body).split_whitespace().collect();
    assert_eq!(text, r#"{"predictions":[NaN,Infinity,-Infinity,Infinity,-Infinity]}"#);
    predict("half_plus_two", r#"{"instances":[nan]}"#).await.refuses(400, "JSON Parse error");
}

#[tokio::test]
async fn a_scalar_goes_in_and_out_as_one() {
    predict("half_scalar", r#"{"inputs": 5}"#).await.gives(&json!({"outputs": 2.5}));
}

#[tokio::test]
async fn rows_cannot_be_made_of_an_output_without_rows() {
    predict("total", r#"{"inputs": [1, 2, 3]}"#).await.gives(&json!({"outputs": 6.0}));
    predict("total", r#"{"instances": [1, 2, 3]}"#).await.refuses(400, "y");
}

#[tokio::test]
async fn integers_and_floats_are_told_apart_by_their_text() {
    predict("ints", r#"{"instances": [1.0]}"#).await.refuses(400, "is not of expected type");
    predict("ints", r#"{"instances": [1e0]}"#).await.refuses(400, "is not of expected type");
    predict("ints", r#"{"instances": [7, -8]}"#).await.gives(&json!({"predictions": [7, -8]}));
    predict("half_plus_two/versions/1", r#"{"instances": [1]}"#).await.gives(&json!({"predictions": [2.5]}));
    let answer = predict("half_plus_two/versions/1", r#"{"instances": [2]}"#).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("3.0"), "a float keeps its point");
}

#[tokio::test]
async fn values_of_another_type_are_refused() {
    for value in ["true", "\"1\"", "null", "{\"b64\":\"YQ==\"}"] {
        let body = format!(r#"{{"instances": [{value}]}}"#);
        predict("half_plus_two", body).await.refuses(400, "is not of expected type");
    }
    predict("strings", r#"{"instances": [1]}"#).await.refuses(400, "is not of expected type");
    predict("halves", r#"{"instances": [1]}"#).await.refuses(501, "Conversion of JSON Value");
}

#[tokio::test]
async fn strings_come_back_as_text_or_as_base64_by_the_outputs_name() {
    predict("strings", r#"{"instances": ["a", "ä\n\u0001", ""]}"#)
        .await
        .gives(&json!({"predictions": ["a", "ä\n\u{1}", ""]}));
    predict("strings", r#"{"instances": [{"b64":"YQ"}]}"#).await.gives(&json!({"predictions": ["a"]}));
    predict("files", r#"{"instances": [{"b64": "/9j/4A=="}]}"#)
        .await
        .gives(&json!({"predictions": [{"b64": "/9j/4A=="}]}));
    predict("strings", r#"{"instances": [{"b64":"?"}]}"#).await.refuses(400, "Unable to base64 decode");
}

#[tokio::test]
async fn signature_names_must_be_strings_that_exist() {
    predict("half_plus_two", r#"{"signature_name": 3, "instances": [1]}"#).await.refuses(400, "signature_name");
    predict("half_plus_two", r#"{"instances": [1], "signature_name": "other"}"#)
        .await
        .refuses(400, "Serving signature name: \"other\" not found in signature def");
}

#[tokio::test]
async fn shapes_that_do_not_fit_are_refused_by_input() {
    predict("half_plus_two", r#"{"instances": [[1, 2]]}"#).await.refuses(400, "input `x`: expected shape [N]");
    predict("pairs", r#"{"instances": [[1, 2, 3]]}"#).await.refuses(400, "got [1,3]");
    predict("sum_diff", r#"{"inputs":{"a":[1],"b":[[2,3],[4,5]]}}"#).await.refuses(400, "b");
}

#[tokio::test]
async fn deep_nesting_is_refused_with_the_limit() {
    for open in ["[", "{\"a\":"] {
        for head in ["{\"instances\":", "{\"unknown\":", ""] {
            let body = format!("{head}{}", open.repeat(100_000));
            let answer = predict("half_plus_two", body).await;
            assert_eq!(answer.status, 400);
        }
    }
    let body = format!("{{\"unknown\":{}", "[".repeat(1_000_000));
    predict("half_plus_two", body).await.refuses(400, "64");
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused() {
    let utf16: Vec<u8> = "{\"instances\":[1]}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    predict("half_plus_two", utf16).await.refuses(400, "UTF-8");
    predict("strings", &b"{\"instances\":[\"\xff\"]}"[..]).await.refuses(400, "UTF-8");
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_by_input() {
    for number in ["1e999", "1e39"] {
        predict("half_plus_two", format!(r#"{{"instances": [{number}]}}"#)).await.refuses(400, "range");
    }
    let digits = "9".repeat(100_000);
    predict("half_plus_two", format!(r#"{{"instances": [{digits}]}}"#)).await.refuses(400, "range");
    predict("ints", r#"{"instances": [2147483648]}"#).await.refuses(400, "x");
}

#[tokio::test]
async fn what_follows_the_document_and_second_keys_are_ignored() {
    predict("half_plus_two/versions/1", "{\"instances\": [1]} trailing").await.gives(&json!({"predictions": [2.5]}));
    predict("half_plus_two/versions/1", r#"{"instances": [1], "instances": [100]}"#)
        .await
        .gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn three_megabytes_of_numbers_are_fine_and_decoded_on_a_compute_thread() {
    let server = TestServer::new(models());
    let row = "[1.25,-2.5],".repeat(270_000);
    let body = format!("{{\"instances\":[{}]}}", row.trim_end_matches(','));
    assert!(body.len() > 3_000_000);
    let answer = server.predict("pairs", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["predictions"].as_array().map(Vec::len), Some(270_000));
    assert_eq!(server.compute.jobs(), 2, "one to decode, one to encode");
    server.predict("half_plus_two", r#"{"instances": [1]}"#).await;
    assert_eq!(server.compute.jobs(), 2, "small requests stay where they are");
}

#[tokio::test]
async fn classify_and_regress_are_refused_where_no_signature_takes_examples() {
    let server = TestServer::new(models());
    let ask = async |model: &str, verb: &str, body: &'static str| {
        server.ask(Method::POST, &format!("/v1/models/{model}:{verb}"), &[], body).await
    };
    let examples = r#"{"examples": [{"x": 1.0}]}"#;
    ask("half_plus_two", "classify", examples).await.refuses(400, "No classification inputs found in SignatureDef");
    ask("half_plus_two", "regress", examples).await.refuses(400, "No regression inputs found in SignatureDef");
    ask("sum_diff", "classify", examples).await.refuses(400, "Expected one input Tensor.");
    let named = r#"{"signature_name": "other\n", "examples": [{"x": 1.0}]}"#;
    for verb in ["classify", "regress"] {
        ask("half_plus_two", verb, named).await.refuses(400, r"No signature was found with the name: other\n");
    }
    ask("half_plus_two", "classify", "{broken").await.refuses(400, "JSON Parse error");
    ask("half_plus_two", "regress", "{}").await.refuses(400, "examples");
    ask("nope", "classify", examples).await.refuses(404, "Latest(nope)");
}

#[tokio::test]
async fn a_request_knows_its_deadline_caller_and_protocol() {
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(None));
    let note = std::sync::Arc::clone(&seen);
    let x = || vec![spec("x", DType::Fp32, &[-1])];
    let models = Models::new().version("m", 1, signature(x(), x()), move |request: InferRequest| {
        *note.lock() = Some(request.context);
        answered(request.inputs)
    });
    let server = TestServer::new(models);
    let body = r#"{"instances": [1]}"#;
    let request =
        crate::harness::request(Method::POST, "/v1/models/m:predict", &[("x-request-timeout-ms", "50")], body);
    let connection = millrace_http::ConnectionContext { caller: millrace_core::CallerId(7), ..Default::default() };
    assert_eq!(server.service.answer(request, connection).await.status(), 200);
    let context = seen.lock().take().unwrap();
    assert_eq!((context.caller.0, context.protocol.name()), (7, "tfs_rest"));
    let patience = context.deadline.unwrap() - context.received;
    // One part in 16 is kept for the way of the answer.
    assert_eq!(patience, std::time::Duration::from_micros(50_000 * 15 / 16));
}

#[tokio::test]
async fn an_output_that_breaks_the_contract_is_our_fault() {
    let x = || vec![spec("x", DType::Fp32, &[-1])];
    let nothing = |_: InferRequest| -> InferFuture { answered(Vec::<Tensor>::new()) };
    let models = Models::new().version("m", 1, signature(x(), x()), nothing);
    let answer = TestServer::new(models).predict("m", r#"{"instances": [1]}"#).await;
    answer.refuses(500, "output");
}

#[tokio::test]
async fn refusals_of_the_model_keep_their_text() {
    let refusal = Refusal::new(Reason::InvalidInput, "Task size 9 is larger than maximum input batch size 8");
    let models = Models::new().refusing("m", refusal);
    let answer = TestServer::new(models).predict("m", r#"{"instances": [1]}"#).await;
    answer.refuses(400, "Task size 9 is larger than maximum input batch size 8");
    let _: Value = answer.json();
}

#[tokio::test]
async fn an_answer_above_the_limit_is_refused_and_written_on_a_compute_thread() {
    let x = spec("x", DType::Fp32, &[-1]);
    let y = TensorSpec::new("y", DType::Int64, vec![Dim::Unknown, Dim::Fixed(0)]);
    let wide = |_| answered([Tensor::from_vec::<i64>(&[100_000, 0], Vec::new()).unwrap()]);
    let models = || Models::new().version("wide", 1, signature(vec![x.clone()], vec![y.clone()]), wide);
    let server = TestServer::new(models());
    let body = r#"{"inputs": [1]}"#;
    let answer = server.predict("wide", body).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, r#"{"outputs":[]}"#.len() + 100_000 * 3 - 1));
    assert_eq!(server.compute.jobs(), 1, "although its tensor has no bytes");
    let server = TestServer::with(models(), |config| config.max_answer_bytes = 250_000);
    server.predict("wide", body).await.refuses(413, "limit of 250000 bytes");
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_together() {
    let front = FrontConfig { max_unsent_bytes: 150_000, ..FrontConfig::default() };
    let server = TestServer::with_front(models(), &front, |config| config.max_answer_bytes = 150_000);
    let numbers = vec!["1.5"; 20_000].join(",");
    let body = format!("{{\"inputs\": [{numbers}]}}");
    let first = server.predict("half_plus_two", body.clone()).await;
    assert_eq!(first.status, 200);
    assert!((75_001..150_000).contains(&first.body.len()), "{}", first.body.len());
    let second = server.predict("half_plus_two", body.clone()).await;
    second.refuses(503, "limit of 150000 bytes");
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(server.predict("half_plus_two", r#"{"inputs": [1]}"#).await.status, 200, "small ones are not counted");
    drop(first);
    assert_eq!(server.predict("half_plus_two", body).await.status, 200);
}
