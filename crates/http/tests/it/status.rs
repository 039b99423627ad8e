//! Status, metadata and the list of models.

use serde_json::json;

use crate::harness::{TestServer, models};

#[tokio::test]
async fn status_lists_every_version_with_kserves_keys_beside_it() {
    let server = TestServer::new(models());
    let version = |version: &str, state: &str| json!({"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}});
    server.get("/v1/models/half_plus_two").await.gives(&json!({
        "model_version_status": [version("1", "AVAILABLE"), version("2", "AVAILABLE")],
        "name": "half_plus_two", "ready": true,
    }));
    server.get("/v1/models/loading").await.gives(&json!({
        "model_version_status": [version("1", "LOADING")], "name": "loading", "ready": false,
    }));
    server.get("/v1/models/failed").await.gives(&json!({
        "model_version_status": [{"version": "1", "state": "END", "status":
            {"error_code": "FAILED_PRECONDITION", "error_message": "node `Conv_3` is not supported"}}],
        "name": "failed", "ready": false,
    }));
}

#[tokio::test]
async fn status_of_one_version_is_that_version_or_404() {
    let server = TestServer::new(models());
    let versions = async |path: &str| {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.json()["model_version_status"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["version"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(versions("/v1/models/half_plus_two/versions/1").await, ["1"]);
    assert_eq!(versions("/v1/models/half_plus_two/versions/0").await, ["1", "2"], "0 means none was given");
    assert_eq!(versions("/v1/models/half_plus_two/labels/nope").await, ["1", "2"], "labels do not filter");
    let answer = server.get("/v1/models/half_plus_two/versions/9").await;
    answer.refuses(404, "Could not find version 9 of model half_plus_two");
    server.get("/v1/models/nope").await.refuses(404, "Could not find any versions of model nope");
}

#[tokio::test]
async fn the_list_of_models_is_kserves() {
    let server = TestServer::new(models());
    let answer = server.get("/v1/models").await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert!(body["models"].as_array().unwrap().contains(&json!("half_plus_two")));
    assert!(body["models"].as_array().unwrap().contains(&json!("failed")));
}

#[tokio::test]
async fn metadata_has_tensorflows_shape() {
    let server = TestServer::new(models());
    let tensor = |name: &str, dtype: &str, sizes: &[&str]| {
        let dims: Vec<_> = sizes.iter().map(|size| json!({"size": size, "name": ""})).collect();
        json!({"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": false}, "name": name})
    };
    server.get("/v1/models/sum_diff/metadata").await.gives(&json!({
        "model_spec": {"name": "sum_diff", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": {
            "inputs": {"a": tensor("a", "DT_INT32", &["-1"]), "b": tensor("b", "DT_INT32", &["-1", "2"])},
            "outputs": {"s": tensor("s", "DT_INT32", &["-1"]), "d": tensor("d", "DT_INT32", &["-1"])},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }}}},
    }));
}

#[tokio::test]
async fn metadata_follows_version_and_label() {
    let server = TestServer::new(models());
    for (path, version) in [
        ("half_plus_two", "2"),
        ("half_plus_two/versions/1", "1"),
        ("half_plus_two/versions/0", "2"),
        ("half_plus_two/labels/stable", "1"),
    ] {
        let answer = server.get(&format!("/v1/models/{path}/metadata")).await;
        assert_eq!(answer.json()["model_spec"]["version"], version, "{path}");
    }
    server.get("/v1/models/nope/metadata").await.refuses(404, "Latest(nope)");
    server.get("/v1/models/half_plus_two/versions/9/metadata").await.refuses(404, "Specific(half_plus_two, 9)");
    server.get("/v1/models/half_plus_two/labels/nope/metadata").await.refuses(400, "nope");
}
