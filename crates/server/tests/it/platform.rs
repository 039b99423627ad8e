//! What hosting platforms tell their containers, and what they then find.

use serde_json::json;

use crate::support::{Client, Process, Repository, millrace, output, prediction};

fn half_plus_two() -> Repository {
    Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1)
}

/// `serve` as a platform starts it: by variables, but on a port of the system's choice.
fn start(words: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = millrace();
    command.args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "off"]).args(words);
    let process = Process::start(command.envs(variables.iter().copied()));
    process.logged("ready");
    process
}

#[test]
fn vertex_ai_finds_its_routes_on_the_model_that_it_names() {
    let repository = half_plus_two();
    let folder = repository.path().to_str().unwrap();
    let process = start(
        &[],
        &[
            ("AIP_HTTP_PORT", "8080"),
            ("AIP_HEALTH_ROUTE", "/v1/endpoints/7/health"),
            ("AIP_PREDICT_ROUTE", "/v1/endpoints/7:predict"),
            ("AIP_STORAGE_URI", &format!("file://{folder}")),
        ],
    );
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/v1/endpoints/7/health").status, 200);
    let answer = client.post("/v1/endpoints/7:predict", r#"{"instances": [4.0]}"#);
    assert_eq!((answer.status, &answer.json()["predictions"]), (200, &json!([4.0])), "{}", answer.text());
    // All other routes are there too.
    client.post("/v1/models/half_plus_two:predict", r#"{"instances": [4.0]}"#).gives(&prediction(4.0));
}

#[test]
fn vertex_ais_models_in_a_bucket_are_refused_by_name() {
    let output = output(millrace().arg("serve").env("AIP_STORAGE_URI", "gs://bucket/models"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("AIP_STORAGE_URI") && said.contains("not a folder of this machine"), "{said}");
}

#[test]
fn sagemaker_finds_its_routes_on_the_model_that_it_has_unpacked() {
    let repository = half_plus_two();
    let process = start(&["--sagemaker"], &[("SM_MODEL_DIR", repository.path().to_str().unwrap())]);
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/ping").status, 200);
    let answer = client.post("/invocations", r#"{"instances": [4.0]}"#);
    assert_eq!((answer.status, &answer.json()["predictions"]), (200, &json!([4.0])), "{}", answer.text());
}

#[test]
fn sagemakers_endpoint_of_many_models_begins_with_none() {
    let process = start(&["--sagemaker"], &[("SAGEMAKER_MULTI_MODEL", "true")]);
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/ping").status, 200);
    let listed = client.get("/models");
    assert_eq!((listed.status, &listed.json()["models"]), (200, &json!([])), "{}", listed.text());
    // Nothing outside of the platform's folder can be loaded.
    let body = r#"{"model_name": "m", "url": "/etc"}"#;
    let refused = client.post("/models", body);
    assert!((400..500).contains(&refused.status), "{}", refused.text());
}

#[test]
fn without_a_platform_its_routes_are_not_there() {
    let repository = half_plus_two();
    let process = start(&[repository.path().to_str().unwrap()], &[]);
    let mut client = Client::connect(process.address);
    assert_eq!(client.post("/invocations", r#"{"instances": [4.0]}"#).status, 404);
}
