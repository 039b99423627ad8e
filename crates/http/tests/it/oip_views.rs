//! Everything below `/v2` that is no inference: health, metadata, configuration, statistics, the repository, settings.

use http::Method;
use millrace_core::{Reason, Refusal};
use millrace_http::{ConnectionContext, Roles};
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, request};
use crate::oip::{infer, oip_models, x};

async fn post(server: &TestServer, path: &str, body: &str) -> Answer {
    server.ask(Method::POST, path, &[], body.to_owned()).await
}

#[tokio::test]
async fn the_server_says_what_it_is_and_lists_what_is_there() {
    let server = TestServer::new(oip_models());
    for path in ["/v2", "/v2/"] {
        let body = server.get(path).await.json();
        assert_eq!((&body["name"], body["version"].is_string()), (&json!("millrace"), true));
        let extensions: Vec<&str> = body["extensions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(extensions.contains(&"binary_tensor_data") && extensions.contains(&"classification"));
        assert!(!extensions.contains(&"system_shared_memory") && !extensions.contains(&"model_repository"));
    }
    let repository = Roles { repository: true, ..Roles::DATA };
    let context = ConnectionContext { roles: repository, ..ConnectionContext::default() };
    let answer = server.service.answer(request(Method::GET, "/v2", &[], ""), context).await;
    let body: Value = serde_json::from_slice(&answer.into_body().into_bytes()).unwrap();
    assert!(body["extensions"].as_array().unwrap().contains(&json!("model_repository")));
}

#[tokio::test]
async fn health_has_a_body_for_those_who_read_it() {
    let server = TestServer::new(oip_models());
    server.get("/v2/health/live").await.gives(&json!({"live": true}));
    server.get("/v2/health/ready").await.gives(&json!({"ready": true}));
    server.get("/v2/models/pairs/ready").await.gives(&json!({"name": "pairs", "ready": true}));
    server
        .get("/v2/models/half_plus_two/versions/1/ready")
        .await
        .gives(&json!({"name": "half_plus_two", "ready": true}));
    let loading = server.get("/v2/models/loading/ready").await;
    assert_eq!((loading.status.as_u16(), loading.json()), (503, json!({"name": "loading", "ready": false})));
    server.get("/v2/models/nothing/ready").await.refuses(404, "Request for unknown model: 'nothing' is not found");
    server.get("/v2/models/pairs/versions/9/ready").await.refuses(404, "version 9 is not found");
    let unsettled = TestServer::new(oip_models().unsettled()).get("/v2/health/ready").await;
    assert_eq!((unsettled.status.as_u16(), unsettled.json()), (503, json!({"ready": false})));
}

#[tokio::test]
async fn a_models_metadata_has_its_versions_and_tensors() {
    let server = TestServer::new(oip_models());
    server.get("/v2/models/pairs").await.gives(&json!({
        "name": "pairs", "versions": ["1"], "platform": "fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }));
    assert_eq!(server.get("/v2/models/half_plus_two").await.json()["versions"], json!(["1", "2"]));
    assert_eq!(server.get("/v2/models/half_plus_two/versions/1").await.json()["versions"], json!(["1"]));
    assert_eq!(server.get("/v2/models/half_scalar").await.json()["inputs"][0]["shape"], json!([]));
    server.get("/v2/models/nothing").await.refuses(404, "nothing");
    server.get("/v2/models/pairs/versions/9").await.refuses(404, "version 9");
    server.get("/v2/models/loading").await.refuses(503, "loading");
}

#[tokio::test]
async fn a_models_configuration_is_tritons() {
    let server = TestServer::new(oip_models());
    for path in ["/v2/models/pairs/config", "/v2/models/pairs/versions/1/config"] {
        let body = server.get(path).await.json();
        assert_eq!(
            (&body["name"], &body["backend"], &body["max_batch_size"]),
            (&json!("pairs"), &json!("fake"), &json!(0))
        );
        let input =
            json!({"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [-1, 2], "optional": false});
        assert_eq!(body["input"], json!([input]));
        assert_eq!(
            (&body["output"][0]["data_type"], &body["output"][0]["dims"]),
            (&json!("TYPE_FP32"), &json!([-1, 2]))
        );
    }
    assert_eq!(server.get("/v2/models/strings/config").await.json()["input"][0]["data_type"], "TYPE_STRING");
    server.get("/v2/models/nothing/config").await.refuses(404, "nothing");
}

#[tokio::test]
async fn statistics_are_there_for_each_version_that_serves() {
    let server = TestServer::new(oip_models());
    let body = server.get("/v2/models/half_plus_two/stats").await.json();
    let stats = body["model_stats"].as_array().unwrap();
    assert_eq!(stats.iter().map(|it| it["version"].as_str().unwrap()).collect::<Vec<_>>(), ["1", "2"]);
    let first = &stats[0];
    for key in
        ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"]
    {
        assert_eq!(first["inference_stats"][key], json!({"count": 0, "ns": 0}), "{key}");
    }
    assert_eq!((&first["batch_stats"], &first["response_stats"]), (&json!([]), &json!({})));
    assert_eq!(first["memory_usage"], json!([{"type": "CPU", "id": 0, "byte_size": 17}]));
    let one = server.get("/v2/models/half_plus_two/versions/1/stats").await.json();
    assert_eq!(one["model_stats"].as_array().unwrap().len(), 1);
    let all = server.get("/v2/models/stats").await.json();
    let names: Vec<&str> =
        all["model_stats"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"pairs") && !names.contains(&"loading"), "{names:?}");
    server.get("/v2/models/nothing/stats").await.refuses(404, "'nothing' is not available");
    server.get("/v2/models/pairs/versions/9/stats").await.refuses(404, "not available");
    server.get("/v2/models/loading/stats").await.refuses(503, "not available");
}

#[tokio::test]
async fn the_index_has_every_version_or_those_that_are_ready() {
    let server = TestServer::new(oip_models());
    let all = post(&server, "/v2/repository/index", "").await.json();
    let entry = |name: &str| all.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
    assert_eq!(entry("pairs"), json!({"name": "pairs", "version": "1", "state": "READY"}));
    assert_eq!(entry("loading")["state"], "LOADING");
    assert_eq!(
        (&entry("failed")["state"], &entry("failed")["reason"]),
        (&json!("UNAVAILABLE"), &json!("node `Conv_3` is not supported"))
    );
    let ready = post(&server, "/v2/repository/index", r#"{"ready": true, "new": [1]}"#).await.json();
    assert!(ready.as_array().unwrap().iter().all(|entry| entry["state"] == "READY"));
    assert_eq!(post(&server, "/v2/repository/index", r#"{"ready": false}"#).await.json(), all);
    for body in [
        r#"{"ready": 1}"#,
        r#"{"ready": null}"#,
        "[]",
        "{",
        r#"{"ready": true} x"#,
        r#"{"ready": true, "ready": true}"#,
    ] {
        post(&server, "/v2/repository/index", body).await.refuses(400, "");
    }
    post(&server, "/v2/repository/other/index", "").await.refuses(501, "repository");
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_where_orders_are_taken() {
    let server = TestServer::new(oip_models());
    for body in ["", "{}", r#"{"parameters": {}}"#] {
        let answer = server.order(Method::POST, "/v2/repository/models/pairs/load", body).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{body}");
    }
    let unload = r#"{"parameters": {"unload_dependents": false}}"#;
    assert_eq!(server.order(Method::POST, "/v2/repository/models/pairs/unload", unload).await.status, 200);
    assert_eq!(server.orders(), ["load pairs None", "load pairs None", "load pairs None", "unload pairs None"]);
}

#[tokio::test]
async fn a_listener_for_clients_takes_no_orders_and_says_where_they_go() {
    let server = TestServer::new(oip_models());
    for verb in ["load", "unload"] {
        post(&server, &format!("/v2/repository/models/pairs/{verb}"), "").await.refuses(403, "--admin-on-data-plane");
    }
    assert!(server.orders().is_empty());
    // And one for operators answers no inference.
    let body = x("FP32", &json!([1, 2]), &json!([1, 2])).to_string();
    server.order(Method::POST, "/v2/models/pairs/infer", body).await.refuses(404, "Not Found");
    assert_eq!(server.order(Method::GET, "/v2/health/live", "").await.status, 200);
}

/// Robustness row 53.
#[tokio::test]
async fn orders_for_names_that_are_none_change_nothing() {
    let unknown = Refusal::new(Reason::ModelUnknown, "Could not find any versions of model nothing");
    let server = TestServer::new(oip_models().refusing_orders(unknown));
    server.order(Method::POST, "/v2/repository/models/nothing/load", "").await.refuses(404, "nothing");
    // What is not there is unloaded already.
    let answer = server.order(Method::POST, "/v2/repository/models/nothing/unload", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    let server = TestServer::new(oip_models());
    for name in ["..", "%2e%2e", "..%2f..%2fetc", "a%00", "%0d%0a", ".hidden", &"n".repeat(129)] {
        for verb in ["load", "unload"] {
            let answer = server.order(Method::POST, &format!("/v2/repository/models/{name}/{verb}"), "").await;
            answer.refuses(400, "model name");
        }
    }
    assert!(server.orders().is_empty());
}

/// Robustness row 54.
#[tokio::test]
async fn nothing_is_loaded_from_the_request() {
    let server = TestServer::new(oip_models());
    for (body, status) in [
        (r#"{"parameters": {"config": "{\"backend\": \"python\"}"}}"#, 501),
        (r#"{"parameters": {"file:1/model.onnx": "AAAA"}}"#, 501),
        (r#"{"parameters": {"file:../../x": "AAAA"}}"#, 501),
        (r#"{"parameters": {"other": 1}}"#, 400),
        (r#"{"parameters": []}"#, 400),
        ("[]", 400),
        ("{", 400),
    ] {
        server.order(Method::POST, "/v2/repository/models/pairs/load", body).await.refuses(status, "");
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn what_a_load_comes_to_is_the_answer() {
    for (reason, status) in
        [(Reason::Conflict, 500), (Reason::NotReady, 500), (Reason::Draining, 503), (Reason::NotSaved, 500)]
    {
        let server = TestServer::new(oip_models().refusing_orders(Refusal::new(reason, "why")));
        server.order(Method::POST, "/v2/repository/models/pairs/load", "").await.refuses(status, "why");
    }
    let server = TestServer::new(oip_models().refusing_orders(Refusal::new(Reason::Conflict, "why")));
    server
        .order(Method::POST, "/v2/repository/models/pairs/load", "")
        .await
        .refuses(500, "failed to load 'pairs', why");
}

/// Robustness row 56.
#[tokio::test]
async fn settings_can_be_read_and_no_file_named() {
    let server = TestServer::new(oip_models());
    let trace = json!({
        "trace_file": "", "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
        "trace_mode": "triton",
    });
    for path in ["/v2/trace/setting", "/v2/models/pairs/trace/setting"] {
        server.get(path).await.gives(&trace);
        post(&server, path, "").await.gives(&trace);
        post(&server, path, r#"{"trace_level": ["OFF"], "trace_rate": null}"#).await.gives(&trace);
        post(&server, path, r#"{"trace_file": "/tmp/x"}"#).await.refuses(501, "trace_file");
        post(&server, path, r#"{"trace_level": ["TIMESTAMPS"]}"#).await.refuses(501, "trace_level");
        post(&server, path, r#"{"nonsense": "1"}"#).await.refuses(400, "nonsense");
        post(&server, path, r#"{"trace_level": {}}"#).await.refuses(400, "trace_level");
    }
    server.get("/v2/models/nothing/trace/setting").await.refuses(404, "nothing");
    let logging = server.get("/v2/logging").await;
    let settings = logging.json();
    assert_eq!((&settings["log_file"], settings["log_info"].is_boolean()), (&json!(""), true));
    post(&server, "/v2/logging", &settings.to_string()).await.gives(&settings);
    post(&server, "/v2/logging", r#"{"log_file": "/tmp/x"}"#).await.refuses(501, "log_file");
    post(&server, "/v2/logging", r#"{"log_verbose_level": 9}"#).await.refuses(501, "log_verbose_level");
    for body in
        [r#"{"log_info": 1}"#, r#"{"log_verbose_level": "1"}"#, r#"{"log_file": null}"#, r#"{"other": 1}"#, "[]"]
    {
        post(&server, "/v2/logging", body).await.refuses(400, "");
    }
}

/// Robustness row 56.
#[tokio::test]
async fn no_memory_is_shared() {
    let server = TestServer::new(oip_models());
    for kind in ["systemsharedmemory", "cudasharedmemory"] {
        server.get(&format!("/v2/{kind}/status")).await.gives(&json!([]));
        server.get(&format!("/v2/{kind}/region/r/status")).await.refuses(404, "'r'");
        let register = format!("/v2/{kind}/region/r/register");
        post(&server, &register, r#"{"key": "/etc/passwd", "byte_size": 8}"#).await.refuses(501, "shared memory");
        for path in [format!("/v2/{kind}/unregister"), format!("/v2/{kind}/region/r/unregister")] {
            assert_eq!(post(&server, &path, "").await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_say_so() {
    let server = TestServer::new(oip_models());
    for path in ["/v2/nonsense", "/v2/models/pairs/nonsense", "/v2/models/pairs/versions/abc", "/v2/health"] {
        server.get(path).await.refuses(404, "Not Found");
    }
    for (method, path) in [
        (Method::POST, "/v2/health/live"),
        (Method::POST, "/v2"),
        (Method::DELETE, "/v2/models/pairs"),
        (Method::GET, "/v2/models/pairs/infer"),
        (Method::PUT, "/v2/models/pairs/infer"),
        (Method::GET, "/v2/repository/index"),
        (Method::DELETE, "/v2/logging"),
    ] {
        let answer = server.ask(method.clone(), path, &[], "").await;
        answer.refuses(405, "Method Not Allowed");
        assert!(answer.headers.contains_key("allow"), "{method} {path}");
    }
    for path in ["/v2/models/pairs/generate", "/v2/models/pairs/versions/1/generate_stream"] {
        post(&server, path, r#"{"text_input": "a"}"#).await.refuses(501, "infer");
    }
    post(&server, "/v2/models/nothing/generate", "{}").await.refuses(404, "nothing");
    let models = server.get("/v2/models").await.json();
    assert!(models["models"].as_array().unwrap().contains(&json!("loading")));
}

#[tokio::test]
async fn a_server_that_is_shutting_down_says_so_in_this_protocols_words() {
    let server = TestServer::new(oip_models());
    server.readiness.begin_drain();
    let body = x("FP32", &json!([1, 2]), &json!([1, 2]));
    assert_eq!(infer(&server, "pairs", &body).await.status, 200);
    server.readiness.refuse_new();
    infer(&server, "pairs", &body).await.refuses(503, "shutting down");
}

#[tokio::test]
async fn a_full_queue_is_503_and_a_broken_backend_500() {
    let full = Refusal::new(Reason::QueueFull, "model `full`: Exceeds maximum queue size");
    let broken = Refusal::new(Reason::BackendFailed, "model `broken`: the backend failed");
    let server = TestServer::new(oip_models().refusing("full", full).refusing("broken", broken));
    let body = x("FP32", &json!([1]), &json!([1]));
    let answer = infer(&server, "full", &body).await;
    answer.refuses(503, "queue size");
    assert!(answer.headers.contains_key("retry-after"));
    infer(&server, "broken", &body).await.refuses(500, "backend failed");
}
