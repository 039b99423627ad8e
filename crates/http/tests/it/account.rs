//! What a request is told about itself: `Server-Timing` and the whole account, on every route that infers.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use millrace_core::{ClosedBy, DType, InferFuture, InferRequest, InferResponse, Progress, Reason, Refusal, Stages};
use millrace_http::{SageMakerConfig, VertexConfig};
use serde_json::Value;

use crate::harness::{Answer, Models, TestServer, signature, spec};
use crate::text::with;
use crate::text::words::embedding;

const TIMING: &str = "x-millrace-timing";
const EXPLAIN: &str = "x-millrace-explain";
const STAGES: [&str; 8] = ["receive", "decode", "admit", "queue", "form", "compute", "wake", "encode"];
const PREDICT: &str = "/v1/models/slow/versions/7:predict";
const ROWS: &str = r#"{"instances": [[1, 2], [3, 4]]}"#;

/// An answer that waited 2 ms in the queue and 3 ms in the engine, in a batch of eight rows.
fn batched(request: InferRequest) -> InferFuture {
    InferFuture::boxed(async move {
        let queued = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let formed = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let stages = Stages {
            queued: queued.into_std(),
            formed: formed.into_std(),
            started: formed.into_std(),
            finished: tokio::time::Instant::now().into_std(),
            batch_rows: 8,
            padding: 0,
            requests: 4,
            ahead: 3,
            closed_by: Some(ClosedBy::Timeout),
        };
        Ok(InferResponse { outputs: request.inputs, stages })
    })
}

fn world() -> Models {
    let form = signature(vec![spec("x", DType::Fp32, &[-1, 2])], vec![spec("y", DType::Fp32, &[-1, 2])]);
    with(Models::new().version("slow", 7, form, batched), "vectors", 1, embedding(|_| {}))
}

async fn predict(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.ask(Method::POST, path, headers, ROWS).await
}

/// Name, milliseconds and description of each metric.
#[track_caller]
fn server_timing(headers: &HeaderMap) -> Vec<(String, Option<f64>, Option<String>)> {
    let text = headers["server-timing"].to_str().unwrap();
    let metric = |metric: &str| {
        let mut parts = metric.split(';');
        let name = parts.next().unwrap().to_owned();
        let (mut time, mut words) = (None, None);
        for part in parts {
            match part.split_once('=').unwrap() {
                ("dur", value) => time = Some(value.parse().unwrap()),
                ("desc", value) => words = Some(value.trim_matches('"').to_owned()),
                other => panic!("{other:?}"),
            }
        }
        (name, time, words)
    };
    text.split(", ").map(metric).collect()
}

#[track_caller]
fn account(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    serde_json::from_str(answer.headers[EXPLAIN].to_str().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn stages_are_told_to_those_who_ask_and_add_up() {
    let server = TestServer::new(world());
    let plain = predict(&server, PREDICT, &[]).await;
    for value in ["1", "true"] {
        let told = predict(&server, PREDICT, &[(TIMING, value)]).await;
        assert_eq!(told.body, plain.body);
        assert!(!told.headers.contains_key(EXPLAIN));
        let metrics = server_timing(&told.headers);
        let names: Vec<_> = metrics.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, [&STAGES[..], &["total", "batch"]].concat());
        let time = |name: &str| metrics.iter().find(|(known, ..)| known == name).unwrap().1.unwrap();
        assert_eq!((time("queue"), time("form"), time("compute")), (2.0, 0.0, 3.0));
        let parts: f64 = STAGES.iter().map(|name| time(name)).sum();
        assert!((parts - time("total")).abs() < 1e-9 && time("total") >= 5.0, "{metrics:?}");
        assert_eq!(metrics.last().unwrap().2.as_deref(), Some("rows=8 closed_by=timeout"));
    }
    for headers in [&[][..], &[(TIMING, "0")], &[("x-millrace-other", "1")]] {
        let silent = predict(&server, PREDICT, headers).await;
        assert_eq!(silent.status, 200);
        assert!(!silent.headers.contains_key("server-timing") && !silent.headers.contains_key(EXPLAIN), "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_may_tell_stages_without_being_asked() {
    let server = TestServer::with(world(), |config| config.server_timing = true);
    let told = predict(&server, PREDICT, &[]).await;
    assert_eq!(server_timing(&told.headers).len(), STAGES.len() + 2);
    assert!(!told.headers.contains_key(EXPLAIN));
    let told = predict(&server, &format!("{PREDICT}?other=1"), &[]).await;
    assert_eq!(server_timing(&told.headers).len(), STAGES.len() + 2);
    // Who wants none gets none.
    assert!(!predict(&server, PREDICT, &[(TIMING, "0")]).await.headers.contains_key("server-timing"));
    let refused = server.ask(Method::POST, PREDICT, &[], "{").await;
    assert_eq!((refused.status.as_u16(), refused.refused_in().as_str()), (400, "decode invalid_input"));
}

#[tokio::test(start_paused = true)]
async fn the_whole_account_stands_in_a_header_and_the_answer_is_the_same() {
    let server = TestServer::new(world());
    let plain = predict(&server, PREDICT, &[]).await;
    let headers = [("x-request-id", "mine"), ("x-request-timeout-ms", "250")];
    let told = predict(&server, &format!("{PREDICT}?explain=1"), &headers).await;
    assert_eq!((&told.body, told.headers.contains_key("server-timing")), (&plain.body, false));
    let account = account(&told);
    for (key, expected) in [
        ("request_id", Value::from("mine")),
        ("model", "slow".into()),
        ("version", 7.into()),
        ("signature", "serving_default".into()),
        ("engine", "fake".into()),
        ("protocol", "tfs_rest".into()),
        ("priority", 128.into()),
        // One part in 16 of the 250 is kept for the way of the answer.
        ("deadline_ms", 234.into()),
        ("rows", 2.into()),
        ("rows_ahead", 3.into()),
        ("batch", serde_json::json!({"rows": 8, "padding": 0, "requests": 4, "closed_by": "timeout"})),
    ] {
        assert_eq!(account[key], expected, "{key}");
    }
    let stages = account["stages_us"].as_object().unwrap();
    assert_eq!((&stages["queue"], &stages["compute"]), (&Value::from(2000.0), &Value::from(3000.0)));
    let parts: f64 = STAGES.iter().map(|name| stages[*name].as_f64().unwrap()).sum();
    assert!((parts - account["total_us"].as_f64().unwrap()).abs() < 1e-6, "{account}");
    assert_eq!(account["clock"]["readings"], 9);
    assert!(account["clock"]["each_us"].as_f64().is_some());
}

#[tokio::test(start_paused = true)]
async fn every_inference_route_explains() {
    let server = TestServer::with(world(), |config| {
        config.sagemaker = Some(SageMakerConfig { model: Some("slow".parse().unwrap()), ..SageMakerConfig::default() });
        config.vertex = Some(VertexConfig {
            health_route: "/isalive".to_owned(),
            predict_route: "/v1/endpoints/7:predict".to_owned(),
            model: Some("slow".parse().unwrap()),
        });
    });
    let infer = r#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    let binary = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"parameters":{"binary_data_output":true}}"#;
    let general = r#"{"model_name": "slow", "input_data": [[1, 2], [3, 4]]}"#;
    let event = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t"), ("ce-source", "s")];
    let json = [("content-type", "application/json")];
    for (path, headers, body, protocol) in [
        (PREDICT, &json[..], ROWS, "tfs_rest"),
        (PREDICT, &event[..], ROWS, "tfs_rest"),
        ("/v2/models/slow/infer", &json, infer, "oip_rest"),
        ("/v2/models/slow/infer", &json, binary, "oip_rest"),
        ("/predictions/slow", &json, "[[1, 2], [3, 4]]", "torchserve_rest"),
        ("/predict", &json, general, "general"),
        ("/predict/slow", &json, r#"{"input_data": [[1, 2]]}"#, "general"),
        ("/invocations", &json, ROWS, "platform"),
        ("/v1/endpoints/7:predict", &json, ROWS, "platform"),
        ("/embed/vectors", &json, r#"{"inputs": "a b"}"#, "text"),
        ("/v1/embeddings", &json, r#"{"input": "a b", "model": "vectors"}"#, "text"),
    ] {
        for asked in ["explain=1", "explain", "explain=true"] {
            let told = server.ask(Method::POST, &format!("{path}?{asked}"), headers, body).await;
            let account = account(&told);
            let model = if protocol == "text" { "vectors" } else { "slow" };
            assert_eq!((&account["protocol"], &account["model"]), (&protocol.into(), &model.into()), "{path}");
            // That model's answers come from no queue.
            assert_eq!(account["batch"].is_null(), protocol == "text", "{path}");
        }
        let by_header = [headers, &[(EXPLAIN, "1"), (TIMING, "1")]].concat();
        let told = server.ask(Method::POST, path, &by_header, body).await;
        assert_eq!(account(&told)["protocol"], protocol, "{path}");
        assert!(told.headers.contains_key("server-timing"), "{path}");
        for (query, headers) in [("?explain=0", &by_header[..]), ("?other=explain", headers)] {
            let silent = server.ask(Method::POST, &format!("{path}{query}"), headers, body).await;
            assert_eq!((silent.status.as_u16(), silent.headers.contains_key(EXPLAIN)), (200, false), "{path}{query}");
        }
    }
}

impl Answer {
    /// The stage that refused the request, and why, as both headers have it; the stages up to it add up.
    #[track_caller]
    fn refused_in(&self) -> String {
        let metrics = server_timing(&self.headers);
        let [stages @ .., (total, Some(sum), None), (refused, None, Some(words))] = &metrics[..] else {
            panic!("{metrics:?}")
        };
        assert_eq!((total.as_str(), refused.as_str()), ("total", "refused"));
        let parts: f64 = stages.iter().map(|(_, time, _)| time.unwrap()).sum();
        assert!((parts - sum).abs() < 1e-9, "{metrics:?}");
        let words = words.replace("stage=", "").replace("reason=", "");
        assert_eq!(words.split(' ').next(), stages.last().map(|(name, ..)| name.as_str()), "{metrics:?}");
        if let Some(account) = self.headers.get(EXPLAIN) {
            let account: Value = serde_json::from_str(account.to_str().unwrap()).unwrap();
            let refused = &account["refused"];
            assert_eq!(format!("{} {}", refused["stage"], refused["reason"]).replace('"', ""), words);
        }
        words
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_body_have_one_account() {
    let server = TestServer::new(world());
    let ask = async |body: &'static str| {
        let json = [("content-type", "application/json"), (TIMING, "1")];
        server.ask(Method::POST, "/batch_predict?explain=1", &json, body).await
    };
    let two =
        r#"[{"model_name": "slow", "input_data": [[1, 2]]}, {"model_name": "slow", "input_data": [[3, 4], [5, 6]]}]"#;
    let answer = ask(two).await;
    assert_eq!((answer.status.as_u16(), answer.json().as_array().unwrap().len()), (200, 2));
    let told = account(&answer);
    assert_eq!((&told["model"], &told["version"], &told["rows"]), (&"slow".into(), &7.into(), &3.into()));
    assert_eq!(told["parts"], serde_json::json!({"answered": 2, "refused": 0}));
    // They run side by side: together they wait and compute no longer than one.
    assert_eq!((&told["stages_us"]["queue"], &told["stages_us"]["compute"]), (&2000.0.into(), &3000.0.into()));
    let metrics = server_timing(&answer.headers);
    assert_eq!(metrics.last().unwrap().2.as_deref(), Some("rows=8 closed_by=timeout"));
    // Who is left out of the answer is counted in its account.
    let answer =
        ask(r#"[{"model_name": "slow", "input_data": [[1, 2]]}, {"model_name": "none", "input_data": [[3]]}]"#).await;
    assert_eq!((answer.status.as_u16(), answer.json().as_array().unwrap().len()), (200, 1));
    assert_eq!(account(&answer)["parts"], serde_json::json!({"answered": 1, "refused": 1}));
    let refused = ask(r#"[{"model_name": 3}]"#).await;
    assert_eq!((refused.status.as_u16(), refused.refused_in().as_str()), (422, "decode invalid_input"));
}

/// A model whose refusals say that they came in the stage that `progress` gives for the instant when it was asked.
fn refusing(progress: fn(Instant) -> Option<Progress>) -> impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static {
    move |_| {
        InferFuture::boxed(async move {
            let at = tokio::time::Instant::now().into_std();
            tokio::time::sleep(Duration::from_millis(4)).await;
            let refusal = Refusal::new(Reason::QueueFull, "no room");
            Err(progress(at).map_or_else(|| refusal.clone(), |progress| refusal.clone().with_progress(progress)))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_told_where_its_time_went_and_who_refused_it() {
    let form = || signature(vec![spec("x", DType::Fp32, &[-1, 2])], vec![spec("y", DType::Fp32, &[-1, 2])]);
    let models = world()
        .version("door", 1, form(), refusing(|_| Some(Progress::Door)))
        .version("queue", 1, form(), refusing(|queued| Some(Progress::Queue { queued })))
        .version("run", 1, form(), refusing(|at| Some(Progress::Run { queued: at, formed: at, started: at })))
        .version("silent", 1, form(), refusing(|_| None));
    let server = TestServer::with(models, |config| {
        config.max_body_bytes = 100;
        config.sagemaker = Some(SageMakerConfig { model: Some("door".parse().unwrap()), ..SageMakerConfig::default() });
    });
    let infer = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let general = r#"{"input_data": [[1, 2], [3, 4]]}"#;
    const LONG: &[u8] = &[b' '; 101];
    let long = std::str::from_utf8(LONG).unwrap();
    let asked = [("content-type", "application/json"), (TIMING, "1"), (EXPLAIN, "1"), ("x-request-id", "mine")];
    for (path, body, status, words) in [
        (PREDICT, long, 413, "receive too_large"),
        ("/v2/models/slow/infer", long, 413, "receive too_large"),
        (PREDICT, "{", 400, "decode invalid_input"),
        ("/v1/models/none:predict", ROWS, 404, "decode model_unknown"),
        ("/predictions/none", "[[1, 2]]", 404, "decode model_unknown"),
        ("/v1/models/door:predict", ROWS, 503, "admit queue_full"),
        ("/v2/models/queue/infer", infer, 503, "queue queue_full"),
        ("/predictions/run", "[[1, 2]]", 503, "compute queue_full"),
        ("/predict/silent", general, 429, "model queue_full"),
        ("/invocations", ROWS, 429, "admit queue_full"),
        ("/embed/vectors", r#"{"inputs": ""}"#, 400, "decode invalid_input"),
        ("/embed/none", r#"{"inputs": "a"}"#, 404, "decode model_unknown"),
    ] {
        let refused = server.ask(Method::POST, path, &asked, body).await;
        assert_eq!((refused.status.as_u16(), refused.refused_in().as_str()), (status, words), "{path}");
        let account: Value = serde_json::from_str(refused.headers[EXPLAIN].to_str().unwrap()).unwrap();
        assert_eq!((&account["request_id"], &account["batch"]), (&"mine".into(), &Value::Null), "{account}");
        // The model that was asked is named; it took all of the time there was.
        let waited = if words.contains("queue_full") { 4000.0 } else { 0.0 };
        let last =
            account["stages_us"].as_object().unwrap().values().map(|time| time.as_f64().unwrap()).fold(0.0, f64::max);
        assert!(last >= waited && (waited == 0.0 || account["version"] == 1), "{account}");
        let silent = server.ask(Method::POST, path, &[], body).await;
        assert!(!silent.headers.contains_key("server-timing") && !silent.headers.contains_key(EXPLAIN), "{path}");
        assert_eq!(silent.body, refused.body, "{path}");
    }
    server.readiness.refuse_new();
    let refused = server.ask(Method::POST, PREDICT, &asked, ROWS).await;
    assert_eq!((refused.status.as_u16(), refused.refused_in().as_str()), (503, "receive draining"));
}

#[tokio::test(start_paused = true)]
async fn one_that_has_had_its_time_is_told_what_for() {
    let server = TestServer::new(world());
    let late = predict(&server, PREDICT, &[("x-request-timeout-ms", "3"), (TIMING, "1")]).await;
    assert_eq!((late.status.as_u16(), late.refused_in().as_str()), (504, "model late"));
    let time =
        |name: &str| server_timing(&late.headers).into_iter().find(|(known, ..)| known == name).unwrap().1.unwrap();
    assert!(time("model") >= 3.0 && time("model") < 5.0, "{:?}", late.headers);
}

#[tokio::test]
async fn what_is_neither_on_nor_off_is_refused_in_the_protocols_form() {
    let server = TestServer::new(world());
    for asked in ["explain=maybe", "explain=", "explain=2"] {
        predict(&server, &format!("{PREDICT}?{asked}"), &[]).await.refuses(400, "explain: expected 1 or 0, got ");
    }
    predict(&server, PREDICT, &[(TIMING, "yes")]).await.refuses(400, "x-millrace-timing: expected 1 or 0, got `yes`");
    predict(&server, PREDICT, &[(EXPLAIN, "yes")]).await.refuses(400, "x-millrace-explain: expected 1 or 0, got `yes`");
    let answer = predict(&server, "/predictions/slow?explain=maybe", &[]).await;
    answer.is_torchserve_error(400, "BadRequestException", "explain: expected 1 or 0, got `maybe`");
    predict(&server, "/v2/models/slow/infer?explain=maybe", &[]).await.refuses(400, "explain: expected 1 or 0");
}
