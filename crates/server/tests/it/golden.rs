//! What TensorFlow Serving's JSON gives for the fixtures, written out. Every golden case is asked in `protocols`.

use serde_json::json;

use crate::support::TestServer;

#[test]
fn dtypes_that_the_json_has_no_form_for_are_not_implemented() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    for model in ["identity_fp16", "identity_uint16"] {
        client.post(&format!("/v1/models/{model}:predict"), r#"{"instances": [[0, 0, 0, 0]]}"#).refuses(501, "x");
    }
}

#[test]
fn rows_and_columns_give_the_same() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    let path = "/v1/models/half_plus_two/versions/1:predict";
    client.post(path, r#"{"instances": [1.0, 2.0, 5.0]}"#).gives(&json!({"predictions": [2.5, 3.0, 4.5]}));
    client.post(path, r#"{"inputs": {"x": [1.0, 2.0, 5.0]}}"#).gives(&json!({"outputs": [2.5, 3.0, 4.5]}));
    let rows = r#"{"instances": [{"a": 1, "b": [2, 3]}, {"a": 4, "b": [5, 6]}]}"#;
    client
        .post("/v1/models/sum_diff:predict", rows)
        .gives(&json!({"predictions": [{"s": 6, "d": -4}, {"s": 15, "d": -7}]}));
    client.post("/v1/models/scale_scalar:predict", r#"{"inputs": 5}"#).gives(&json!({"outputs": 15.0}));
}

#[test]
fn versions_and_labels_choose_between_two_versions() {
    let server = TestServer::fixtures();
    let mut client = server.client();
    for (target, answer) in [("", 5.0), ("/versions/2", 5.0), ("/versions/1", 4.0), ("/labels/stable", 4.0)] {
        let path = format!("/v1/models/half_plus_two{target}:predict");
        client.post(&path, r#"{"instances": [4.0]}"#).gives(&json!({"predictions": [answer]}));
    }
}
