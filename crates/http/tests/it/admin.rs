//! Orders on the admin port.

use std::time::Duration;

use http::Method;
use millrace_core::{
    EngineChoice, EngineOutcome, EngineRange, EngineTrial, OutputDifference, Reason, Refusal, RunTime,
};
use serde_json::json;

use millrace_core::CallerId;
use millrace_http::{ConnectionContext, Roles};

use crate::harness::{Answer, Models, TestServer, models, request};

const OPERATOR: ConnectionContext = ConnectionContext { caller: CallerId(1), roles: Roles::ADMIN };

async fn order(server: &TestServer, method: Method, path: &str, body: &'static str) -> Answer {
    server.order(method, path, body).await
}

#[tokio::test]
async fn models_are_shown_in_full() {
    let server = TestServer::new(models());
    let answer = order(&server, Method::GET, "/admin/models", "").await;
    assert_eq!(answer.status, 200);
    let all = answer.json();
    let list = all["models"].as_array().unwrap();
    let find = |name: &str| list.iter().find(|model| model["name"] == name).unwrap();
    let half = find("half_plus_two");
    assert_eq!(half["default_version"], 2);
    assert_eq!(half["aliases"], json!({"stable": 1}));
    assert_eq!(half["versions"][0]["state"], "AVAILABLE");
    assert_eq!(half["versions"][0]["backend"], "fake");
    assert_eq!(half["versions"][0]["memory_bytes"], 17);
    assert_eq!(half["versions"][0]["signatures"]["serving_default"]["inputs"], json!(["x FP32[N]"]));
    assert_eq!(half["versions"][0]["error"], json!(null));
    let failed = find("failed");
    assert_eq!(failed["ready"], false);
    assert_eq!(failed["versions"][0]["error"]["code"], "FAILED_PRECONDITION");
    let one = order(&server, Method::GET, "/admin/models/half_plus_two", "").await;
    assert_eq!(one.json(), *half);
    order(&server, Method::GET, "/admin/models/nope", "").await.refuses(404, "nope");
}

#[tokio::test]
async fn load_and_unload_take_a_version_from_the_body_or_the_query_or_none() {
    let server = TestServer::new(models());
    let base = "/admin/models/half_plus_two";
    for (path, body) in [
        ("load", ""),
        ("load", r#"{"version": 1}"#),
        ("load", "{}"),
        ("load?version=2", ""),
        ("unload", r#"{"version": null}"#),
        ("unload?version=1", " \n"),
    ] {
        let answer = order(&server, Method::POST, &format!("{base}/{path}"), body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.json()["name"], "half_plus_two");
    }
    let expected = [
        "load half_plus_two None",
        "load half_plus_two Some(1)",
        "load half_plus_two None",
        "load half_plus_two Some(2)",
        "unload half_plus_two None",
        "unload half_plus_two Some(1)",
    ];
    assert_eq!(server.orders(), expected);
}

#[tokio::test]
async fn aliases_are_set_and_removed() {
    let server = TestServer::new(models());
    let path = "/admin/models/half_plus_two/aliases/stable";
    assert_eq!(order(&server, Method::PUT, path, r#"{"version": 2}"#).await.status, 200);
    assert_eq!(order(&server, Method::DELETE, path, "").await.status, 200);
    assert_eq!(order(&server, Method::POST, "/admin/rescan", "").await.status, 200);
    assert_eq!(server.orders(), ["alias half_plus_two stable 2", "no alias half_plus_two stable", "rescan"]);
    order(&server, Method::PUT, path, "").await.refuses(400, "version");
}

#[tokio::test]
async fn orders_that_make_no_sense_are_400_and_never_given() {
    let server = TestServer::new(models());
    let base = "/admin/models/half_plus_two";
    for (path, body, words) in [
        ("load", "{", "order"),
        ("load", r#"{"version": -1}"#, "order"),
        ("load", r#"{"version": "1"}"#, "order"),
        ("load", r#"{"config": "x"}"#, "order"),
        ("load", r#"{"file:1/model.onnx": "x"}"#, "order"),
        ("load?version=x", "", "version"),
        ("load?file=x", "", "file"),
        ("load?version=1&version=2", "", "twice"),
    ] {
        order(&server, Method::POST, &format!("{base}/{path}"), body).await.refuses(400, words);
    }
    for name in ["..", "%2e%2e", "a%2fb", "%00", ".hidden"] {
        order(&server, Method::POST, &format!("/admin/models/{name}/load"), "").await.refuses(400, "name");
        order(&server, Method::PUT, &format!("{base}/aliases/{name}"), r#"{"version": 1}"#).await.refuses(400, "name");
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn refused_orders_have_plain_statuses() {
    for (reason, status) in [
        (Reason::ModelUnknown, 404),
        (Reason::Conflict, 409),
        (Reason::NotSaved, 500),
        (Reason::BackendFailed, 500),
        (Reason::Draining, 503),
        (Reason::InvalidInput, 400),
    ] {
        let server = TestServer::new(models().refusing_orders(Refusal::new(reason, "because")));
        let path = "/admin/models/half_plus_two/load";
        order(&server, Method::POST, path, "").await.refuses(status, "because");
    }
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let server = TestServer::new(models());
    for (method, path, allow) in [
        (Method::POST, "/admin/models", "GET"),
        (Method::DELETE, "/admin/models/m", "GET"),
        (Method::GET, "/admin/models/m/load", "POST"),
        (Method::GET, "/admin/models/m/aliases/a", "PUT, DELETE"),
        (Method::GET, "/admin/rescan", "POST"),
    ] {
        let answer = order(&server, method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, allow), "{path}");
    }
    for path in ["/admin/", "/admin/models/m/load/x"] {
        order(&server, Method::GET, path, "").await.refuses(404, "not found");
    }
    for path in ["/admin", "/v1/models/half_plus_two:predict", "/predictions/half_plus_two", "/nonsense"] {
        assert_eq!(order(&server, Method::POST, path, "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_order_is_a_few_words() {
    let server = TestServer::new(models());
    let long = " ".repeat(100_000);
    let answer = server.order(Method::POST, "/admin/models/half_plus_two/load", long).await;
    answer.refuses(413, "limit");
}

#[tokio::test]
async fn the_data_port_has_no_admin_routes() {
    let server = TestServer::new(models());
    for path in ["/admin/models", "/admin/models/half_plus_two/unload"] {
        assert_eq!(server.ask(Method::POST, path, &[], "").await.status, 404);
    }
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn what_a_web_page_orders_is_refused() {
    let server = TestServer::new(models());
    let send = async |method: Method, path: &str| {
        let request = request(method, path, &[("origin", "http://evil.example")], "");
        server.service.answer(request, OPERATOR).await
    };
    for (method, path) in [
        (Method::POST, "/admin/models/half_plus_two/unload"),
        (Method::PUT, "/admin/models/half_plus_two/aliases/stable"),
        (Method::DELETE, "/admin/models/half_plus_two/aliases/stable"),
        (Method::POST, "/admin/rescan"),
    ] {
        let answer = send(method, path).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["connection"]),
            (403, &"close".parse().unwrap()),
            "{path}"
        );
    }
    assert!(server.orders().is_empty());
    assert_eq!(send(Method::GET, "/admin/models").await.status(), 200, "without CORS headers no page can read it");
}

#[tokio::test]
async fn a_version_shows_how_its_engines_were_chosen() {
    let trial = |engine: &str, outcome, micros| EngineTrial {
        engine: engine.into(),
        outcome,
        load_time: Duration::from_millis(2),
        memory_bytes: 9,
        times: vec![RunTime { rows: 4, time: Duration::from_micros(micros) }],
        difference: Some(OutputDifference { output: "y".into(), largest: 0.25, scale: 2.0 }),
    };
    let choice = EngineChoice {
        ranges: vec![EngineRange { rows_from: 1, engine: "trees".into() }],
        engines: vec![
            trial("trees", EngineOutcome::Chosen, 10),
            trial("tract", EngineOutcome::Dropped("it failed".to_owned()), 20),
        ],
        reason: "because".to_owned(),
        took: Duration::from_millis(500),
        is_remembered: true,
    };
    let models = Models::new().affine("half", 1, 0.5, 0.0).chosen("half", choice);
    let body = order(&TestServer::new(models), Method::GET, "/admin/models/half", "").await.json();
    assert_eq!(
        body["versions"][0]["engines"],
        json!({
            "reason": "because",
            "ranges": [{"rows_from": 1, "engine": "trees"}],
            "remembered": true,
            "trial_seconds": 0.5,
            "tried": [
                {
                    "engine": "trees", "outcome": "chosen", "dropped": null, "load_seconds": 0.002, "memory_bytes": 9,
                    "run_seconds": {"4": 1e-5}, "difference": {"output": "y", "largest": 0.25, "scale": 2.0},
                },
                {
                    "engine": "tract", "outcome": "dropped", "dropped": "it failed", "load_seconds": 0.002,
                    "memory_bytes": 9, "run_seconds": {"4": 2e-5},
                    "difference": {"output": "y", "largest": 0.25, "scale": 2.0},
                },
            ],
        })
    );
}
