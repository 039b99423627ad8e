//! The general endpoints, row by row.

use http::Method;
use millrace_core::{DType, InferFuture, Reason, Refusal, Tensor, Total, Wanted};
use serde_json::{Value, json};

use crate::harness::{Answer, Models, TestServer, answered, models, signature, spec};

async fn post(server: &TestServer, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    server.ask(Method::POST, path, &[("content-type", "application/json")], body).await
}

/// The models of other tests, and two that take rows of other ranks.
fn world() -> Models {
    let image = || vec![spec("image", DType::Fp32, &[-1, 1, 2, 2])];
    models()
        .version("images", 1, signature(image(), vec![spec("y", DType::Fp32, &[-1, 1, 2, 2])]), |request| {
            answered(request.inputs)
        })
        .identity("doubles", spec("x", DType::Fp64, &[-1, 3]), "y")
}

/// Panics unless this is an error with `detail` as a text that contains `words`.
#[track_caller]
fn details(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    let body = answer.json();
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    let text = body["detail"].as_str().unwrap_or_else(|| panic!("{body}"));
    assert!(text.contains(words), "`{text}` does not say `{words}`");
}

/// Panics unless this is a 422 whose detail has `location` and a message that contains `words`.
#[track_caller]
fn is_unprocessable(answer: &Answer, location: &Value, words: &str) {
    assert_eq!(answer.status, 422, "{:?}", answer.body);
    let detail = &answer.json()["detail"][0];
    assert_eq!(&detail["loc"], location, "{detail}");
    assert!(detail["msg"].as_str().unwrap().contains(words), "{detail} does not say `{words}`");
    assert!(detail["type"].is_string());
}

#[tokio::test]
async fn the_example_of_the_page() {
    let server = TestServer::new(world());
    let body = r#"{"model_name":"pairs","model_version":"1","input_data":[[1.0,2.0],[3,4.5]],"batch_id":"b-7"}"#;
    let answer = post(&server, "/predict", body).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut body = answer.json();
    assert!(body["inference_time_ms"].take().is_number());
    let expected = json!({
        "predictions": [[1.0, 2.0], [3.0, 4.5]], "model_name": "pairs", "model_version": "1",
        "inference_time_ms": null, "batch_id": "b-7",
    });
    assert_eq!((answer.status.as_u16(), body), (200, expected));
    let answer = post(&server, "/predict/pairs", r#"{"input_data": [[1, 2]]}"#).await.json();
    assert_eq!((&answer["predictions"], &answer["batch_id"]), (&json!([[1.0, 2.0]]), &Value::Null));
    assert!(answer.as_object().unwrap().contains_key("batch_id"), "always");
}

#[tokio::test]
async fn rows_are_flat_whatever_the_rank_of_the_model() {
    let server = TestServer::new(world());
    let ask = async |model: &str, data: &str| {
        let body = format!(r#"{{"model_name": "{model}", "input_data": {data}}}"#);
        let answer = post(&server, "/predict", body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["predictions"].clone()
    };
    assert_eq!(ask("half_plus_two", "[[1], [2]]").await, json!([[3.5], [4.0]]));
    assert_eq!(ask("images", "[[1, 2, 3, 4]]").await, json!([[1.0, 2.0, 3.0, 4.0]]));
    assert_eq!(ask("doubles", "[[0.1, 2, 3e300]]").await, json!([[0.1, 2.0, 3e300]]));
    assert_eq!(ask("ints", "[[7]]").await, json!([[7]]));
}

#[tokio::test]
async fn a_version_is_a_number_or_an_alias_and_the_answer_says_which_it_was() {
    let server = TestServer::new(world());
    for (version, expected, value) in
        [("\"1\"", "1", 2.5), ("\"stable\"", "1", 2.5), ("null", "2", 3.5), ("\"2\"", "2", 3.5)]
    {
        let body = format!(r#"{{"model_name": "half_plus_two", "model_version": {version}, "input_data": [[1]]}}"#);
        let answer = post(&server, "/predict", body).await.json();
        assert_eq!((&answer["model_version"], &answer["predictions"]), (&json!(expected), &json!([[value]])));
    }
}

#[tokio::test]
async fn an_unknown_model_or_version_is_404() {
    let server = TestServer::new(world());
    let unknown = post(&server, "/predict", r#"{"model_name": "nope", "input_data": [[1]]}"#).await;
    details(&unknown, 404, "Model nope not found");
    for version in ["9", "canary", "1.0.0"] {
        let body = format!(r#"{{"model_name": "half_plus_two", "model_version": "{version}", "input_data": [[1]]}}"#);
        details(&post(&server, "/predict", body).await, 404, &format!("Model half_plus_two:{version} not found"));
    }
    details(&post(&server, "/predict/nope", r#"{"input_data": [[1]]}"#).await, 404, "Model nope not found");
}

#[tokio::test]
async fn a_body_that_is_no_request_is_422_and_says_where() {
    let server = TestServer::new(world());
    for (body, location, words) in [
        ("", json!(["body"]), "empty"),
        ("{", json!(["body"]), "JSON"),
        ("null", json!(["body"]), "object"),
        ("[]", json!(["body"]), "object"),
        ("{} {}", json!(["body"]), "trailing"),
        (r#"{"input_data": [[1]]}"#, json!(["body", "model_name"]), "field required"),
        (r#"{"model_name": "pairs"}"#, json!(["body", "input_data"]), "field required"),
        (r#"{"model_name": 3, "input_data": [[1]]}"#, json!(["body", "model_name"]), "string"),
        (r#"{"model_name": "pairs", "input_data": "x"}"#, json!(["body", "input_data"]), "list"),
        (
            r#"{"model_name": "pairs", "input_data": [[1,2]], "model_version": 1}"#,
            json!(["body", "model_version"]),
            "string",
        ),
        (r#"{"model_name": "pairs", "input_data": [[1,2]], "batch_id": 1}"#, json!(["body", "batch_id"]), "string"),
        (r#"{"model_name": "pairs", "model_name": "pairs", "input_data": [[1,2]]}"#, json!(["body"]), "duplicate key"),
    ] {
        is_unprocessable(&post(&server, "/predict", body).await, &location, words);
    }
    let deep = r#"{"input_data":"#.to_owned() + &"[".repeat(100_000);
    is_unprocessable(&post(&server, "/predict", deep).await, &json!(["body"]), "nesting");
    let contradiction = post(&server, "/predict/pairs", r#"{"model_name": "ints", "input_data": [[1]]}"#).await;
    is_unprocessable(&contradiction, &json!(["body", "model_name"]), "the path names");
}

#[tokio::test]
async fn data_that_the_model_does_not_take_is_400() {
    let server = TestServer::new(world());
    for (model, data, words) in [
        ("pairs", "[[1,2],[3]]", "ragged"),
        ("pairs", "[[1,2,3]]", "expected shape [N,2], got [1,3]"),
        ("pairs", "[1,2]", "list of lists"),
        ("pairs", "[[[1,2]]]", "list of lists"),
        ("pairs", "[]", "list of lists"),
        ("pairs", "[[1,\"a\"]]", "float"),
        ("pairs", "[[1,null]]", "float"),
        ("pairs", "[[1,1e999]]", "out of range"),
        ("ints", "[[1.5]]", "int32"),
        ("strings", "[[1]]", "takes no numbers"),
        ("sum_diff", "[[1,2]]", "it has 2 inputs"),
    ] {
        let body = format!(r#"{{"model_name": "{model}", "input_data": {data}}}"#);
        details(&post(&server, "/predict", body).await, 400, words);
    }
}

#[tokio::test]
async fn refusals_have_plain_statuses() {
    for (reason, status) in [
        (Reason::QueueFull, 429),
        (Reason::NotReady, 503),
        (Reason::Late, 504),
        (Reason::BackendFailed, 500),
        (Reason::InvalidInput, 400),
    ] {
        let server = TestServer::new(Models::new().refusing("m", Refusal::new(reason, "because")));
        let answer = post(&server, "/predict", r#"{"model_name": "m", "input_data": [[1]]}"#).await;
        details(&answer, status, "because");
        assert_eq!(answer.headers.contains_key("retry-after"), matches!(status, 429 | 503));
    }
}

#[tokio::test]
async fn a_batch_goes_on_where_some_fail() {
    let server = TestServer::new(world().refusing("broken", Refusal::new(Reason::BackendFailed, "because")));
    let body = r#"[
        {"model_name": "pairs", "input_data": [[1, 2]], "batch_id": "a"},
        {"model_name": "nope", "input_data": [[1, 2]], "batch_id": "b"},
        {"model_name": "broken", "input_data": [[1]], "batch_id": "c"},
        {"model_name": "pairs", "input_data": [[1, 2, 3]], "batch_id": "d"},
        {"model_name": "pairs", "input_data": [[1], [2, 3]], "batch_id": "e"},
        {"model_name": "half_plus_two", "model_version": "1", "input_data": [[1]], "batch_id": "f"}
    ]"#;
    let answer = post(&server, "/batch_predict", body).await;
    assert_eq!(answer.status, 200);
    let list = answer.json();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|entry| entry["batch_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "f"]);
    assert_eq!((&list[0]["predictions"], &list[1]["predictions"]), (&json!([[1.0, 2.0]]), &json!([[2.5]])));
    assert_eq!(post(&server, "/batch_predict", "[]").await.json(), json!([]));
}

#[tokio::test]
async fn a_batch_that_is_none_is_422() {
    let server = TestServer::new(world());
    is_unprocessable(&post(&server, "/batch_predict", "{}").await, &json!(["body"]), "list");
    is_unprocessable(&post(&server, "/batch_predict", "[").await, &json!(["body"]), "JSON");
    is_unprocessable(&post(&server, "/batch_predict", "[5]").await, &json!(["body", 0]), "object");
    let missing =
        post(&server, "/batch_predict", r#"[{"model_name": "pairs", "input_data": [[1,2]]}, {"model_name": "pairs"}]"#)
            .await;
    is_unprocessable(&missing, &json!(["body", 1, "input_data"]), "field required");
    let many = format!("[{}]", vec!["{}"; 2000].join(","));
    is_unprocessable(&post(&server, "/batch_predict", many).await, &json!(["body"]), "1024");
}

#[tokio::test]
async fn a_large_batch_is_answered_in_order() {
    let server = TestServer::new(world());
    let one =
        |number: usize| format!(r#"{{"model_name": "pairs", "input_data": [[{number}, 0]], "batch_id": "{number}"}}"#);
    let body = format!("[{}]", (0..500).map(one).collect::<Vec<_>>().join(","));
    let list = post(&server, "/batch_predict", body).await.json();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|entry| entry["batch_id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_answers_of_a_batch_share_the_limit() {
    let server = TestServer::with(world(), |config| config.max_answer_bytes = 250);
    let one = r#"{"model_name": "pairs", "input_data": [[1, 2]]}"#;
    assert_eq!(post(&server, "/batch_predict", format!("[{one}]")).await.status, 200);
    details(&post(&server, "/batch_predict", format!("[{one},{one},{one}]")).await, 413, "250 bytes");
}

#[tokio::test]
async fn models_are_listed_with_the_versions_that_serve() {
    let server = TestServer::new(world());
    let list = server.get("/models").await.json();
    assert_eq!((&list["half_plus_two"], &list["pairs"]), (&json!(["1", "2"]), &json!(["1"])));
    assert_eq!((&list["failed"], &list["loading"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_metrics_of_a_model_are_what_it_has_done() {
    let answered = Total { count: 4, time: std::time::Duration::from_millis(10) };
    let server = TestServer::new(world().having_answered("half_plus_two", 1, answered));
    let first = server.get("/models/half_plus_two/metrics?version=1").await.json();
    let expected = json!({"metrics": {
        "model_name": "half_plus_two", "version": "1", "is_loaded": true, "load_time": null,
        "inference_count": 4, "average_latency_ms": 2.5, "total_inference_time": 0.01,
    }});
    assert_eq!(first, expected);
    let default = server.get("/models/half_plus_two/metrics").await.json();
    assert_eq!((&default["metrics"]["version"], &default["metrics"]["average_latency_ms"]), (&json!("2"), &json!(0.0)));
    assert_eq!(server.get("/models/half_plus_two/metrics?version=stable").await.json()["metrics"]["version"], "1");
    assert_eq!(server.get("/models/failed/metrics").await.json()["metrics"]["is_loaded"], false);
    details(&server.get("/models/nope/metrics").await, 404, "Model nope not found");
    details(&server.get("/models/half_plus_two/metrics?version=9").await, 404, "half_plus_two:9 not found");
}

#[tokio::test]
async fn other_methods_are_405_in_the_same_form() {
    let server = TestServer::new(world());
    for (method, path, allow) in [
        (Method::GET, "/predict", "POST"),
        (Method::GET, "/predict/pairs", "POST"),
        (Method::PUT, "/batch_predict", "POST"),
        (Method::DELETE, "/models/pairs/metrics", "GET, HEAD"),
        (Method::POST, "/models", "GET, HEAD"),
    ] {
        let answer = server.ask(method, path, &[], "").await;
        details(&answer, 405, "Method Not Allowed");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
}

#[tokio::test]
async fn row_51_names_that_mean_harm_find_nothing() {
    let server = TestServer::new(world());
    let long = "x".repeat(8000);
    for name in ["..", "%2e%2e", "..%2f..%2fetc", "%00", "%c0%ae", "a%0d%0aset-cookie:x", "%1b[31m", &long] {
        let asked = post(&server, &format!("/predict/{name}"), r#"{"input_data": [[1]]}"#).await;
        let shown = server.get(&format!("/models/{name}/metrics?version=%0d%0a")).await;
        for answer in [asked, shown] {
            assert_eq!(answer.status, 404, "{name}");
            let text = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(text.chars().all(|character| matches!(character, ' '..='~' | '…')), "{text:?}");
            assert!(text.chars().count() < 300 && !answer.headers.contains_key("set-cookie"));
        }
    }
}

#[tokio::test]
async fn a_large_body_is_read_on_a_compute_thread() {
    let server = TestServer::with(world(), |config| config.offload_bytes = 100);
    let rows = vec!["[1,2]"; 100].join(",");
    let answer = post(&server, "/predict/pairs", format!(r#"{{"input_data": [{rows}]}}"#)).await;
    assert_eq!(answer.json()["predictions"].as_array().unwrap().len(), 100);
    assert!(server.compute.jobs() >= 2, "taking the body apart, and reading the numbers");
}

#[tokio::test]
async fn a_request_that_is_slow_in_the_model_ends_at_its_deadline() {
    tokio::time::pause();
    let x = || vec![spec("x", DType::Fp32, &[-1])];
    let hanging = Models::new().version("m", 1, signature(x(), x()), |_| InferFuture::boxed(std::future::pending()));
    let server = TestServer::new(hanging);
    let headers = [("x-request-timeout-ms", "50")];
    let answer = server.ask(Method::POST, "/predict/m", &headers, r#"{"input_data": [[1]]}"#).await;
    details(&answer, 504, "50 ms");
}

#[tokio::test]
async fn several_outputs_are_refused_before_the_model_runs() {
    let x = vec![spec("x", DType::Fp32, &[-1, 2])];
    let outputs = vec![spec("a", DType::Fp32, &[-1]), spec("b", DType::Fp32, &[-1])];
    let never =
        Models::new().version("m", 1, signature(x, outputs), |_| -> InferFuture { unreachable!("it is not asked") });
    let answer = post(&TestServer::new(never), "/predict/m", r#"{"input_data": [[1, 2]]}"#).await;
    details(&answer, 400, "2 outputs and not one of floats");
}

#[tokio::test]
async fn of_several_outputs_the_only_one_of_floats_is_the_prediction() {
    let x = vec![spec("x", DType::Fp32, &[-1, 2])];
    let outputs = vec![spec("label", DType::Int64, &[-1]), spec("probabilities", DType::Fp32, &[-1, 2])];
    let classifier = Models::new().version("m", 1, signature(x, outputs), |request| {
        assert_eq!(request.wanted, Wanted::Only([1].into_iter().collect()), "labels are nobody's concern");
        answered(request.inputs)
    });
    let answer = post(&TestServer::new(classifier), "/predict/m", r#"{"input_data": [[0.25, 0.75]]}"#).await;
    assert_eq!(answer.json()["predictions"], json!([[0.25, 0.75]]));
}

#[tokio::test]
async fn scalars_come_as_a_row_of_one() {
    let y = vec![spec("y", DType::Fp32, &[])];
    let total = Models::new().version("m", 1, signature(vec![spec("x", DType::Fp32, &[-1, 2])], y), |request| {
        let sum: f32 = request.inputs[0].elements::<f32>().unwrap().iter().sum();
        answered([Tensor::from_vec(&[], vec![sum]).unwrap()])
    });
    let answer = post(&TestServer::new(total), "/predict/m", r#"{"input_data": [[1, 2], [3, 4]]}"#).await;
    assert_eq!(answer.json()["predictions"], json!([[10.0]]));
}
