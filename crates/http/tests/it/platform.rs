//! SageMaker's and Vertex AI's routes, only where they are configured.

use http::Method;
use millrace_core::{DType, Reason, Refusal, VersionState};
use millrace_http::{SageMakerConfig, VertexConfig};
use serde_json::json;

use crate::harness::{Answer, Models, TestServer, models, spec};

const NONE: &[(&str, &str)] = &[];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn one_model() -> Models {
    Models::new().identity("pairs", spec("x", DType::Fp32, &[-1, 2]), "y")
}

fn sagemaker(models: Models) -> TestServer {
    TestServer::with(models, |config| config.sagemaker = Some(SageMakerConfig::default()))
}

fn vertex(models: Models) -> TestServer {
    let vertex = VertexConfig {
        health_route: "/isalive".to_owned(),
        predict_route: "/v1/endpoints/7:predict".to_owned(),
        model: None,
    };
    TestServer::with(models, |config| config.vertex = Some(vertex))
}

async fn post(server: &TestServer, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    server.ask(Method::POST, path, JSON, body).await
}

#[tokio::test]
async fn an_invocation_is_answered_in_the_form_it_has() {
    let server = sagemaker(one_model());
    for (body, expected) in [
        (r#"{"instances": [[1, 2]]}"#, json!({"predictions": [[1.0, 2.0]]})),
        (r#"{"inputs": [[1, 2]]}"#, json!({"outputs": [[1.0, 2.0]]})),
        (r#"{"inputs": {"x": [[1, 2]]}}"#, json!({"outputs": [[1.0, 2.0]]})),
        ("[[1, 2]]", json!([[1.0, 2.0]])),
    ] {
        post(&server, "/invocations", body).await.gives(&expected);
        server.ask(Method::POST, "/invocations", NONE, body).await.gives(&expected);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = server.ask(Method::POST, "/invocations", &form, r#"{"instances": [[1, 2]]}"#).await;
    answer.gives(&json!({"predictions": [[1.0, 2.0]]}));
    post(&server, "/invocations", r#"{"instances": [[1]]}"#).await.refuses(400, "shape");
    post(&server, "/invocations", "{").await.refuses(400, "JSON");
    server.get("/ping").await.gives(&json!({"status": "Healthy"}));
}

#[tokio::test]
async fn an_invocation_means_the_only_model_or_the_one_that_is_named() {
    post(&sagemaker(Models::new()), "/invocations", "[1]").await.refuses(503, "no model");
    let several = sagemaker(models());
    post(&several, "/invocations", "[1]").await.refuses(400, "names none");
    post(&several, "/invocations?model_name=half_plus_two", "[1]").await.gives(&json!([3.5]));
    post(&several, "/invocations?model_name=nope", "[1]").await.refuses(404, "nope");
    let gone = Refusal::new(Reason::ModelUnknown, "gone");
    let one = sagemaker(one_model().unavailable("gone", VersionState::End, None, gone.clone()));
    post(&one, "/invocations", "[[1, 2]]").await.gives(&json!([[1.0, 2.0]]));
    let two = sagemaker(one_model().unavailable("failed", VersionState::End, Some("broken"), gone));
    post(&two, "/invocations", "[[1, 2]]").await.refuses(400, "names none");
    let configured = TestServer::with(models(), |config| {
        config.sagemaker =
            Some(SageMakerConfig { model: Some("pairs".parse().unwrap()), ..SageMakerConfig::default() });
    });
    post(&configured, "/invocations", "[[1, 2]]").await.gives(&json!([[1.0, 2.0]]));
}

#[tokio::test]
async fn models_come_and_go_by_sagemakers_verbs() {
    let server = sagemaker(one_model());
    let load = r#"{"model_name": "noop", "url": "/opt/ml/models/abc/model"}"#;
    assert_eq!(post(&server, "/models", load).await.status, 200);
    post(&server, "/models", load).await.refuses(409, "already registered");
    let other = r#"{"modelName": "other", "modelUrl": "/opt/ml/models/def/model/"}"#;
    assert_eq!(post(&server, "/models", other).await.status, 200);
    assert_eq!(server.orders()[0], "register abc/model as Some(\"noop\")");
    assert_eq!(server.orders()[2], "register def/model as Some(\"other\")");

    let list = server.get("/models").await.json();
    let expected = json!({"models": [
        {"modelName": "noop", "modelUrl": "/opt/ml/models/abc/model"},
        {"modelName": "other", "modelUrl": "/opt/ml/models/def/model"},
        {"modelName": "pairs", "modelUrl": "/opt/ml/models/pairs"},
    ]});
    assert_eq!(list, expected);
    assert_eq!(server.get("/models?limit=1").await.json()["nextPageToken"], "1");
    server.get("/models/noop").await.gives(&expected["models"][0]);
    server.get("/models/nope").await.refuses(404, "nope");

    post(&server, "/models/pairs/invoke", "[[1, 2]]").await.gives(&json!([[1.0, 2.0]]));
    post(&server, "/models/nope/invoke", "[[1, 2]]").await.refuses(404, "nope");

    assert_eq!(server.ask(Method::DELETE, "/models/noop", NONE, "").await.status, 200);
    server.ask(Method::DELETE, "/models/noop", NONE, "").await.refuses(404, "noop");
}

#[tokio::test]
async fn a_load_that_cannot_be_says_why() {
    let server = sagemaker(one_model());
    for (body, status, words) in [
        (r#"{"model_name": "m", "url": "/opt/ml/models/absent/model"}"#, 404, "nothing there"),
        (r#"{"model_name": "m", "url": "/opt/ml/models/huge/model"}"#, 507, "memory"),
        (r#"{"model_name": "m", "url": "/etc/passwd"}"#, 400, "below /opt/ml/models"),
        (r#"{"model_name": "m", "url": "/opt/ml/modelsx/y"}"#, 400, "below /opt/ml/models"),
        (r#"{"model_name": "m", "url": "http://127.0.0.1:1/x"}"#, 400, "store"),
        (r#"{"model_name": "m", "url": "/opt/ml/models/../../etc"}"#, 400, "store"),
        (r#"{"model_name": "../m", "url": "/opt/ml/models/m"}"#, 400, "name"),
        (r#"{"model_name": "m"}"#, 400, "url"),
        ("", 400, "model_name"),
    ] {
        post(&server, "/models", body).await.refuses(status, words);
    }
    let origin = [("origin", "http://evil.example")];
    let load = r#"{"model_name": "m", "url": "/opt/ml/models/m"}"#;
    server.ask(Method::POST, "/models", &origin, load).await.refuses(403, "web pages");
    server.ask(Method::DELETE, "/models/pairs", &origin, "").await.refuses(403, "web pages");
}

#[tokio::test]
async fn other_methods_are_405() {
    let server = sagemaker(one_model());
    for (method, path, allow) in [
        (Method::GET, "/invocations", "POST"),
        (Method::PUT, "/models", "GET, POST"),
        (Method::POST, "/models/pairs", "GET, DELETE"),
        (Method::GET, "/models/pairs/invoke", "POST"),
    ] {
        let answer = server.ask(method, path, NONE, "").await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, allow), "{path}");
        answer.refuses(405, "Method Not Allowed");
    }
    assert_eq!(server.ask(Method::POST, "/ping", NONE, "").await.status, 200);
}

#[tokio::test]
async fn without_the_switch_there_are_no_such_routes() {
    let server = TestServer::new(one_model());
    for (method, path) in [
        (Method::POST, "/invocations"),
        (Method::POST, "/models/pairs/invoke"),
        (Method::DELETE, "/models/pairs"),
        (Method::GET, "/isalive"),
    ] {
        assert_eq!(server.ask(method, path, NONE, "[[1,2]]").await.status, 404, "{path}");
    }
    assert_eq!(server.get("/models").await.json(), json!({"pairs": ["1"]}), "the general endpoint");
    assert!(server.orders().is_empty());
}

#[tokio::test]
async fn vertex_asks_by_the_routes_that_it_was_given() {
    let server = vertex(one_model());
    let body = r#"{"instances": [[1, 2]], "parameters": {"threshold": 0.5}}"#;
    post(&server, "/v1/endpoints/7:predict", body).await.gives(&json!({"predictions": [[1.0, 2.0]]}));
    server.get("/isalive").await.gives(&json!({"ready": true}));
    for (method, path) in [(Method::GET, "/v1/endpoints/7:predict"), (Method::POST, "/isalive")] {
        server.ask(method, path, NONE, "").await.refuses(405, "Method Not Allowed");
    }
    post(&server, "/v1/endpoints/7:predict", "{}").await.refuses(400, "instances");
    server.predict("pairs", r#"{"instances": [[1, 2]]}"#).await.gives(&json!({"predictions": [[1.0, 2.0]]}));
    server.readiness.begin_drain();
    assert_eq!(server.get("/isalive").await.status, 503);
    assert_eq!(vertex(one_model().unsettled()).get("/isalive").await.status, 503);
}

#[tokio::test]
async fn refusals_have_plain_statuses() {
    for (reason, status) in [(Reason::QueueFull, 429), (Reason::NotReady, 503), (Reason::BackendFailed, 500)] {
        let server = sagemaker(Models::new().refusing("m", Refusal::new(reason, "because")));
        post(&server, "/invocations", "[1]").await.refuses(status, "because");
        post(&server, "/models/m/invoke", "[1]").await.refuses(status, "because");
    }
}

#[tokio::test]
async fn row_51_names_that_mean_harm_find_nothing() {
    let server = sagemaker(one_model());
    let long = "x".repeat(8000);
    for name in ["..", "%2e%2e", "..%2fetc", "%00", "a%0d%0aset-cookie:x", "%1b[31m", &long] {
        for (method, path) in [
            (Method::POST, format!("/models/{name}/invoke")),
            (Method::GET, format!("/models/{name}")),
            (Method::DELETE, format!("/models/{name}")),
            (Method::POST, format!("/invocations?model_name={name}")),
        ] {
            let answer = server.ask(method, &path, NONE, "[[1,2]]").await;
            assert_eq!(answer.status, 404, "{path}");
            let text = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(text.chars().all(|character| matches!(character, ' '..='~' | '…')), "{text:?}");
            assert!(text.chars().count() < 300 && !answer.headers.contains_key("set-cookie"));
        }
    }
    assert!(server.orders().is_empty());
}
