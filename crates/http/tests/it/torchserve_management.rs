//! TorchServe's management API, row by row.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, models};

const NONE: &[(&str, &str)] = &[];

async fn ask(server: &TestServer, method: Method, path: &str) -> Answer {
    server.manage(method, path, NONE, "").await
}

#[track_caller]
fn status(answer: &Answer, code: u16) -> String {
    assert_eq!(answer.status, code, "{:?}", answer.body);
    answer.json()["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn models_are_listed_by_pages() {
    let server = TestServer::new(models());
    let all = ask(&server, Method::GET, "/models").await.json();
    let names: Vec<_> = all["models"].as_array().unwrap().iter().map(|model| model["modelName"].clone()).collect();
    assert!(names.contains(&json!("half_plus_two")) && names.contains(&json!("failed")));
    assert!(names.is_sorted_by_key(|name| name.as_str().map(str::to_owned)));
    assert_eq!(all["models"][0]["modelUrl"], all["models"][0]["modelName"]);
    assert_eq!(all.get("nextPageToken"), None);

    let page = ask(&server, Method::GET, "/models?limit=2").await.json();
    assert_eq!((page["models"].as_array().unwrap().len(), &page["nextPageToken"]), (2, &json!("2")));
    let next = ask(&server, Method::GET, "/models?limit=2&next_page_token=2").await.json();
    assert_eq!((&next["models"][0], &next["nextPageToken"]), (&all["models"][2], &json!("4")));
    assert_eq!(ask(&server, Method::GET, "/models?limit=0").await.json(), json!({"models": []}));
    let answer = ask(&server, Method::GET, "/models?limit=many").await;
    answer.is_torchserve_error(400, "BadRequestException", "limit");
}

#[tokio::test]
async fn a_description_has_the_keys_that_clients_read() {
    let server = TestServer::new(models());
    let answer = ask(&server, Method::GET, "/models/half_plus_two").await;
    assert!(answer.headers.contains_key("x-request-id"));
    let described = answer.json();
    assert_eq!(described.as_array().unwrap().len(), 1);
    let version = &described[0];
    assert_eq!((&version["modelName"], &version["modelVersion"]), (&json!("half_plus_two"), &json!("2.0")));
    assert!(
        version["modelUrl"].is_string() && version["runtime"].is_string() && version["loadedAtStartup"].is_boolean()
    );
    for key in ["minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"] {
        assert!(version[key].is_u64(), "{key}");
    }
    let worker = &version["workers"][0];
    assert!(worker["id"].is_string() && worker["startTime"].is_string() && worker["gpu"].is_boolean());
    assert_eq!(worker["status"], "READY");
    assert!(version["jobQueueStatus"]["remainingCapacity"].is_u64());
    assert!(version["jobQueueStatus"]["pendingRequests"].is_u64());

    let one = ask(&server, Method::GET, "/models/half_plus_two/1.0?customized=true").await.json();
    assert_eq!(one[0]["modelVersion"], "1.0");
    let all = ask(&server, Method::GET, "/models/half_plus_two/all").await.json();
    let versions: Vec<&Value> = all.as_array().unwrap().iter().map(|version| &version["modelVersion"]).collect();
    assert_eq!(versions, ["1.0", "2.0"]);
    ask(&server, Method::GET, "/models/nope").await.is_torchserve_error(
        404,
        "ModelNotFoundException",
        "Model not found: nope",
    );
    let answer = ask(&server, Method::GET, "/models/half_plus_two/9.0").await;
    answer.is_torchserve_error(
        404,
        "ModelVersionNotFoundException",
        "Model version: 9.0 does not exist for model: half_plus_two",
    );
}

#[tokio::test]
async fn a_model_is_registered_scaled_asked_and_unregistered() {
    let server = TestServer::new(models());
    let registered = ask(&server, Method::POST, "/models?url=shelf/noop&model_name=noop&initial_workers=2").await;
    assert_eq!(status(&registered, 200), "Model \"noop\" Version: 1.0 registered with 2 initial workers");
    let again = ask(&server, Method::POST, "/models?url=shelf/noop&model_name=noop").await;
    again.is_torchserve_error(409, "ConflictStatusException", "already registered");

    let scaled = ask(&server, Method::PUT, "/models/noop?min_worker=3&synchronous=true").await;
    assert_eq!(status(&scaled, 200), "Workers scaled to 3 for model: noop");
    let described = ask(&server, Method::GET, "/models/noop").await.json();
    assert_eq!((&described[0]["minWorkers"], described[0]["workers"].as_array().unwrap().len()), (&json!(3), 3));
    let scaled = ask(&server, Method::PUT, "/models/noop/1.0?min_worker=1&synchronous=true").await;
    assert_eq!(status(&scaled, 200), "Workers scaled to 1 for model: noop, version: 1.0");

    assert_eq!(status(&ask(&server, Method::DELETE, "/models/noop").await, 200), "Model \"noop\" unregistered");
    let again = ask(&server, Method::DELETE, "/models/noop").await;
    again.is_torchserve_error(404, "ModelNotFoundException", "Model not found: noop");
    let expected = [
        "register shelf/noop as Some(\"noop\")",
        "register shelf/noop as Some(\"noop\")",
        "scale noop Some(1) 3",
        "scale noop Some(1) 1",
        "unregister noop None",
    ];
    assert_eq!(server.orders(), expected);
}

#[tokio::test]
async fn without_workers_a_model_is_there_and_refuses() {
    let server = TestServer::new(models());
    let registered = ask(&server, Method::POST, "/models?url=noop").await;
    let expected = "Model \"noop\" Version: 1.0 registered with 0 initial workers. \
                    Use scale workers API to add workers for the model.";
    assert_eq!(status(&registered, 200), expected);
    let answer = server.ask(Method::POST, "/predictions/noop", NONE, "[1]").await;
    answer.is_torchserve_error(
        503,
        "ServiceUnavailableException",
        "Model \"noop\" has no worker to serve inference request.",
    );
    let scaled = ask(&server, Method::PUT, "/models/half_plus_two?min_worker=0&max_worker=0&synchronous=true").await;
    assert_eq!(status(&scaled, 200), "Workers scaled to 0 for model: half_plus_two");
    let answer = server.ask(Method::POST, "/predictions/half_plus_two", NONE, "[1]").await;
    answer.is_torchserve_error(503, "ServiceUnavailableException", "has no worker");
    server.ask(Method::POST, "/predictions/half_plus_two/1.0", NONE, "[1]").await.gives(&json!([2.5]));
}

#[tokio::test]
async fn orders_that_nobody_waits_for_are_accepted() {
    let server = TestServer::new(models());
    let answer = ask(&server, Method::POST, "/models?url=noop&initial_workers=1&synchronous=false").await;
    assert_eq!(status(&answer, 202), "Processing worker updates...");
    let answer = ask(&server, Method::PUT, "/models/noop?min_worker=2").await;
    assert_eq!(status(&answer, 202), "Processing worker updates...");
    let answer = ask(&server, Method::PUT, "/models/nope?min_worker=2").await;
    answer.is_torchserve_error(404, "ModelNotFoundException", "nope");
}

#[tokio::test]
async fn a_registration_may_stand_in_a_json_body_or_a_form() {
    let server = TestServer::new(models());
    let json_body =
        r#"{"url": "a/noop", "model_name": "first", "initial_workers": 1, "synchronous": true, "handler": null}"#;
    let answer = server.manage(Method::POST, "/models", &[("content-type", "application/json")], json_body).await;
    assert_eq!(status(&answer, 200), "Model \"first\" Version: 1.0 registered with 1 initial workers");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer =
        server.manage(Method::POST, "/models", &form, "url=b%2Fnoop&model_name=second&initial_workers=1").await;
    assert_eq!(status(&answer, 200), "Model \"second\" Version: 1.0 registered with 1 initial workers");
    for body in ["{", "[]", r#"{"url": ["a"]}"#] {
        let answer = server.manage(Method::POST, "/models", &[("content-type", "application/json")], body).await;
        answer.is_torchserve_error(400, "BadRequestException", "");
    }
}

#[tokio::test]
async fn wrong_parameters_are_400_and_no_order() {
    let server = TestServer::new(models());
    for (method, path, words) in [
        (Method::POST, "/models", "Parameter url is required."),
        (Method::POST, "/models?model_name=m", "Parameter url is required."),
        (Method::POST, "/models?url=m&model_name=..%2fm", "name"),
        (Method::POST, "/models?url=m&initial_workers=-1", "initial_workers"),
        (Method::POST, "/models?url=m&batch_size=none", "batch_size"),
        (Method::POST, "/models?url=m&synchronous=perhaps", "synchronous"),
        (Method::PUT, "/models/pairs?min_worker=2&max_worker=1", "max_worker cannot be less than min_worker."),
        (Method::PUT, "/models/pairs?min_worker=few", "min_worker"),
    ] {
        ask(&server, method, path).await.is_torchserve_error(400, "BadRequestException", words);
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn row_55_models_come_from_stores_and_nowhere_else() {
    let server = TestServer::new(models());
    for url in
        ["http://127.0.0.1:1/m.mar", "https://a/m", "file:///etc/passwd", "gopher://a/m", "/etc", "../x", "a/../../x"]
    {
        let answer = ask(&server, Method::POST, &format!("/models?url={}", url.replace('/', "%2F"))).await;
        answer.is_torchserve_error(400, "BadRequestException", "store");
    }
    let answer = ask(&server, Method::POST, "/models?url=absent.mar").await;
    answer.is_torchserve_error(404, "ModelNotFoundException", "Model not found at: absent.mar");
}

#[tokio::test]
async fn the_default_version_is_set_and_is_the_last_to_go() {
    let server = TestServer::new(models());
    let answer = ask(&server, Method::PUT, "/models/half_plus_two/1.0/set-default").await;
    assert_eq!(status(&answer, 200), "Default version successfully updated for model \"half_plus_two\" to \"1.0\"");
    server.ask(Method::POST, "/predictions/half_plus_two", NONE, "[1]").await.gives(&json!([2.5]));
    for path in ["/models/half_plus_two", "/models/half_plus_two/1.0"] {
        let answer = ask(&server, Method::DELETE, path).await;
        answer.is_torchserve_error(
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model half_plus_two",
        );
    }
    assert_eq!(
        status(&ask(&server, Method::DELETE, "/models/half_plus_two/2.0").await, 200),
        "Model \"half_plus_two\" unregistered"
    );
    let answer = ask(&server, Method::PUT, "/models/half_plus_two/9.0/set-default").await;
    answer.is_torchserve_error(
        404,
        "ModelVersionNotFoundException",
        "Model version 9.0 does not exist for model half_plus_two",
    );
    let answer = ask(&server, Method::PUT, "/models/nope/1.0/set-default").await;
    answer.is_torchserve_error(404, "ModelNotFoundException", "nope");
    assert_eq!(server.orders(), ["alias half_plus_two default 1", "unregister half_plus_two Some(2)"]);
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let server = TestServer::new(models());
    for (method, path) in [
        (Method::DELETE, "/models"),
        (Method::PUT, "/models"),
        (Method::POST, "/models/pairs"),
        (Method::GET, "/models/pairs/1.0/set-default"),
        (Method::POST, "/v1/models/pairs"),
        (Method::POST, "/"),
    ] {
        let answer = ask(&server, method, path).await;
        answer.is_torchserve_error(405, "MethodNotAllowedException", "Requested method is not allowed");
    }
    for path in ["/nonsense", "/models/pairs/1.0/other", "/predictions/pairs"] {
        let answer = ask(&server, Method::GET, path).await;
        answer.is_torchserve_error(404, "ResourceNotFoundException", "Requested resource is not found");
    }
}

#[tokio::test]
async fn readiness_and_the_description_are_there_too() {
    let server = TestServer::new(models());
    ask(&server, Method::GET, "/v1/models/pairs").await.gives(&json!({"name": "pairs", "ready": true}));
    ask(&server, Method::GET, "/v1/models/failed").await.gives(&json!({"name": "failed", "ready": false}));
    for (method, path) in [(Method::OPTIONS, "/"), (Method::GET, "/api-description")] {
        let document = ask(&server, method, path).await.json();
        for path in [
            "/models",
            "/models/{model_name}",
            "/models/{model_name}/{model_version}",
            "/models/{model_name}/{model_version}/set-default",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
}

#[tokio::test]
async fn what_a_web_page_orders_is_refused() {
    let server = TestServer::new(models());
    let origin = [("origin", "http://evil.example")];
    for (method, path) in [
        (Method::POST, "/models?url=noop"),
        (Method::PUT, "/models/pairs?min_worker=0"),
        (Method::DELETE, "/models/pairs"),
        (Method::PUT, "/models/half_plus_two/1.0/set-default"),
    ] {
        let answer = server.manage(method, path, &origin, "").await;
        answer.is_torchserve_error(403, "ForbiddenException", "web pages");
        assert_eq!(answer.headers["connection"], "close");
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn clients_have_no_management() {
    let server = TestServer::new(models());
    for (method, path) in [
        (Method::POST, "/models?url=noop"),
        (Method::DELETE, "/models/pairs"),
        (Method::PUT, "/models/pairs?min_worker=0"),
        (Method::PUT, "/models/half_plus_two/1.0/set-default"),
    ] {
        let answer = server.ask(method, path, NONE, "").await;
        assert!(matches!(answer.status.as_u16(), 404 | 405), "{path}: {}", answer.status);
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn rows_51_and_53_names_that_mean_harm_give_no_order() {
    let server = TestServer::new(models());
    let long = "x".repeat(8000);
    for name in ["..", "%2e%2e", "..%2f..%2fetc", "%00", "%c0%ae", "a%0d%0aset-cookie:x", "%1b[31m", &long] {
        for (method, path) in [
            (Method::GET, format!("/models/{name}")),
            (Method::GET, format!("/models/pairs/{name}")),
            (Method::PUT, format!("/models/{name}?min_worker=1")),
            (Method::PUT, format!("/models/{name}/1.0/set-default")),
            (Method::PUT, format!("/models/pairs/{name}/set-default")),
            (Method::DELETE, format!("/models/{name}")),
            (Method::DELETE, format!("/models/pairs/{name}")),
        ] {
            let answer = ask(&server, method, &path).await;
            let kind = answer.json()["type"].as_str().unwrap().to_owned();
            answer.is_torchserve_error(404, &kind, "");
            assert!(answer.json()["message"].as_str().unwrap().chars().count() < 300, "{path}");
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
    assert!(server.orders().is_empty());
}
