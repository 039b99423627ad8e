//! Inference by the Open Inference Protocol over REST: documents, answers, parameters, classification.

use http::Method;
use millrace_core::{DType, InferFuture, InferRequest, Priority, Tensor, TensorList, Wanted};
use serde_json::{Value, json};

use crate::harness::{Answer, Models, TestServer, answered, models, request, signature, spec};

/// Every dtype has a model `id_<dtype>` over `x` `[N,2]` that gives its input back as `y`; `two` takes `a` and `b` and gives
/// them back as `c` and `d`; `scores` classifies.
pub(crate) fn oip_models() -> Models {
    let mut models = models();
    for dtype in DType::ALL {
        models = models.identity(&format!("id_{dtype}"), spec("x", dtype, &[-1, 2]), "y");
    }
    let (a, b) = (spec("a", DType::Fp32, &[-1, 2]), spec("b", DType::Bytes, &[-1]));
    let (c, d) = (spec("c", DType::Fp32, &[-1, 2]), spec("d", DType::Bytes, &[-1]));
    let fixed = spec("x", DType::Fp32, &[3]);
    models
        .version("two", 1, signature(vec![a, b], vec![c, d]), |request| selected(&request, request.inputs.clone()))
        .identity("scores", spec("x", DType::Fp32, &[-1, 3]), "y")
        .identity("fixed", fixed, "y")
}

/// The wanted ones of all outputs, in the order wanted.
pub(crate) fn selected(request: &InferRequest, outputs: TensorList) -> InferFuture {
    match &request.wanted {
        Wanted::All => answered(outputs),
        Wanted::Only(indices) => answered(indices.iter().map(|&index| outputs[index].clone())),
    }
}

/// `POST /v2/models/{model}/infer` with a document.
pub(crate) async fn infer(server: &TestServer, model: &str, body: &Value) -> Answer {
    infer_text(server, model, &body.to_string()).await
}

/// The same with any text.
pub(crate) async fn infer_text(server: &TestServer, model: &str, body: &str) -> Answer {
    server.ask(Method::POST, &format!("/v2/models/{model}/infer"), &[], body.to_owned()).await
}

/// The one input of the models that have one called `x`.
pub(crate) fn x(datatype: &str, shape: &Value, data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]})
}

#[tokio::test]
async fn an_answer_names_model_version_and_outputs_and_is_flat() {
    let server = TestServer::new(oip_models());
    for data in [json!([1, 2, 3, 4]), json!([[1, 2], [3, 4]]), json!([[[1], [2, [3]]], 4])] {
        let answer = infer(&server, "pairs", &x("FP32", &json!([2, 2]), &data)).await;
        assert!(!answer.headers.contains_key("inference-header-content-length"));
        answer.gives(&json!({
            "model_name": "pairs", "model_version": "1",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}],
        }));
    }
}

#[tokio::test]
async fn a_version_in_the_path_answers() {
    let server = TestServer::new(oip_models());
    let body = x("FP32", &json!([1]), &json!([1.0]));
    for (model, version, y) in [("half_plus_two/versions/1", "1", 2.5), ("half_plus_two", "2", 3.5)] {
        let answer = infer(&server, model, &body).await.json();
        assert_eq!((&answer["model_version"], &answer["outputs"][0]["data"]), (&json!(version), &json!([y])));
    }
}

#[tokio::test]
async fn every_dtype_that_json_holds_comes_back_as_it_went() {
    let server = TestServer::new(oip_models());
    let cases = [
        ("BOOL", json!([true, false])),
        ("UINT8", json!([0, 255])),
        ("UINT16", json!([0, 65535])),
        ("UINT32", json!([0, u32::MAX])),
        ("UINT64", json!([0, u64::MAX])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([i16::MIN, i16::MAX])),
        ("INT32", json!([i32::MIN, i32::MAX])),
        ("INT64", json!([i64::MIN, i64::MAX])),
        ("FP64", json!([0.1, 1.797_693_134_862_315_7e308])),
        ("BYTES", json!(["", "h\u{e9}\n\"\u{1f600}"])),
    ];
    for (dtype, data) in cases {
        let answer = infer(&server, &format!("id_{dtype}"), &x(dtype, &json!([1, 2]), &data)).await.json();
        let output = &answer["outputs"][0];
        assert_eq!((&output["data"], &output["datatype"]), (&data, &json!(dtype)));
    }
    // FP32 is written so that it reads back as the same FP32.
    let text = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0.1,16777216.5]}]}"#;
    let answer = infer_text(&server, "id_FP32", text).await.json();
    let back: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(back, [0.1_f32, 16_777_216.0]);
}

#[tokio::test]
async fn keys_may_come_in_any_order_and_unknown_ones_are_skipped() {
    let server = TestServer::new(oip_models());
    let bodies = [
        r#"{"inputs":[{"data":[1,2],"datatype":"FP32","name":"x","shape":[1,2]}]}"#,
        r#"{"inputs":[{"name":"x","data":[[1,2]],"shape":[1,2],"datatype":"FP32"}]}"#,
        r#"{"new":{"deep":[{}]},"inputs":[{"more":null,"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"z":1}"#,
        " {\n\t\"outputs\": [{\"name\": \"y\", \"else\": []}], \"inputs\":[{\"n\\u0061me\":\"\\u0078\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}\r\n",
    ];
    for body in bodies {
        let answer = infer_text(&server, "pairs", body).await;
        assert_eq!(answer.status, 200, "{body}: {:?}", answer.body);
        assert_eq!(answer.json()["outputs"][0]["data"], json!([1.0, 2.0]), "{body}");
    }
}

#[tokio::test]
async fn the_id_comes_back_unless_it_is_empty() {
    let server = TestServer::new(oip_models());
    let mut body = x("FP32", &json!([1, 2]), &json!([1, 2]));
    body["id"] = json!("a \"b\"\n");
    assert_eq!(infer(&server, "pairs", &body).await.json()["id"], "a \"b\"\n");
    body["id"] = json!("");
    assert!(infer(&server, "pairs", &body).await.json().get("id").is_none());
}

#[tokio::test]
async fn outputs_come_in_the_order_requested() {
    let server = TestServer::new(oip_models());
    let inputs = json!([
        {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["t"]},
        {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
    ]);
    let names = |answer: &Answer| -> Vec<Value> {
        answer.json()["outputs"].as_array().unwrap().iter().map(|output| output["name"].clone()).collect()
    };
    for (outputs, expected) in [
        (json!([{"name": "d"}, {"name": "c"}]), vec!["d", "c"]),
        (json!([{"name": "d"}]), vec!["d"]),
        (json!([]), vec!["c", "d"]),
    ] {
        let answer = infer(&server, "two", &json!({"inputs": inputs, "outputs": outputs})).await;
        assert_eq!(names(&answer), expected, "{outputs}");
    }
}

#[tokio::test]
async fn not_a_number_and_infinities_are_bare_tokens_both_ways() {
    let server = TestServer::new(oip_models());
    let text = r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[NaN,Infinity,-Infinity,1]}]}"#;
    let answer = infer_text(&server, "pairs", text).await;
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(body.contains("\"data\":[NaN,Infinity,-Infinity,1.0]"), "{body}");
}

#[tokio::test]
async fn what_json_cannot_hold_asks_for_the_binary_form() {
    let server = TestServer::new(
        oip_models()
            .version(
                "noise",
                1,
                signature(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Bytes, &[-1])]),
                |_| answered([Tensor::from_strings(&[1], [&[0xff_u8, 0xfe][..]].into_iter().collect()).unwrap()]),
            )
            .version(
                "narrow",
                1,
                signature(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Fp16, &[-1])]),
                |_| {
                    answered([Tensor::new(
                        DType::Fp16,
                        millrace_core::Shape::new(&[1]).unwrap(),
                        bytes::Bytes::from_static(&[0, 60]),
                    )
                    .unwrap()])
                },
            ),
    );
    let body = x("FP32", &json!([1]), &json!([1]));
    infer(&server, "noise", &body).await.refuses(500, "binary_data");
    infer(&server, "narrow", &body).await.refuses(400, "binary_data");
    infer(&server, "id_FP16", &x("FP16", &json!([1, 2]), &json!([1, 2])))
        .await
        .refuses(400, "receiving FP16 data via JSON is not supported");
    infer(&server, "id_BF16", &x("BF16", &json!([1, 2]), &json!([1, 2]))).await.refuses(400, "BF16");
}

#[tokio::test]
async fn priority_and_timeout_travel_with_the_request() {
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(None));
    let slot = std::sync::Arc::clone(&seen);
    let y = || vec![spec("y", DType::Fp32, &[-1])];
    let server = TestServer::new(oip_models().version(
        "watch",
        1,
        signature(vec![spec("x", DType::Fp32, &[-1])], y()),
        move |request| {
            *slot.lock() = Some(request.context);
            answered(request.inputs)
        },
    ));
    let mut body = x("FP32", &json!([1]), &json!([1]));
    body["parameters"] =
        json!({"priority": 1, "timeout": 2_000_000, "sequence_id": 0, "sequence_start": true, "own": 1.5});
    assert_eq!(infer(&server, "watch", &body).await.status, 200);
    let context = seen.lock().take().unwrap();
    assert_eq!((context.priority, context.protocol.name()), (Priority(1), "oip_rest"));
    let left = context.deadline.unwrap().duration_since(context.received);
    assert_eq!(left, std::time::Duration::from_secs(2));
    body["parameters"] = json!({"priority": 0, "timeout": 0});
    assert_eq!(infer(&server, "watch", &body).await.status, 200);
    let context = seen.lock().take().unwrap();
    assert_eq!(context.priority, Priority::default());
    assert!(context.deadline.unwrap().duration_since(context.received) > std::time::Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_longer_than_its_timeout_finds_the_server_unavailable() {
    let signature = || signature(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Fp32, &[-1])]);
    let server =
        TestServer::new(oip_models().version("stuck", 1, signature(), |_| InferFuture::boxed(std::future::pending())));
    let mut body = x("FP32", &json!([1]), &json!([1]));
    body["parameters"] = json!({"timeout": 50_000});
    infer(&server, "stuck", &body).await.refuses(503, "within 50 ms");
    let request = request(
        Method::POST,
        "/v2/models/stuck/infer",
        &[("x-request-timeout-ms", "50")],
        x("FP32", &json!([1]), &json!([1])).to_string(),
    );
    server.send(request).await.refuses(504, "within 50 ms");
}

#[tokio::test]
async fn parameters_of_another_type_are_refused() {
    let server = TestServer::new(oip_models());
    let cases = [
        (json!(1), "parameters"),
        (json!([]), "parameters"),
        (json!({"priority": "1"}), "priority"),
        (json!({"priority": -1}), "priority"),
        (json!({"timeout": 1.5}), "timeout"),
        (json!({"binary_data_output": 1}), "binary_data_output"),
        (json!({"sequence_id": 1.5}), "sequence_id"),
        (json!({"sequence_start": "yes"}), "sequence_start"),
        (json!({"triton_enable_empty_final_response": true}), "triton_"),
        (json!({"own": {"a": 1}}), "own"),
        (json!({"own": [1]}), "own"),
        (json!({"own": null}), "own"),
    ];
    for (parameters, words) in cases {
        let mut body = x("FP32", &json!([1, 2]), &json!([1, 2]));
        body["parameters"] = parameters;
        infer(&server, "pairs", &body).await.refuses(400, words);
    }
}

#[tokio::test]
async fn the_largest_elements_come_as_text_where_classification_is_asked() {
    let server = TestServer::new(oip_models());
    let mut body = x("FP32", &json!([2, 3]), &json!([0.1, 0.7, 0.2, 3, 2, 1]));
    body["outputs"] = json!([{"name": "y", "parameters": {"classification": 2}}]);
    let answer = infer(&server, "scores", &body).await.json();
    let expected = json!({
        "name": "y", "datatype": "BYTES", "shape": [2, 2],
        "data": ["0.700000:1", "0.200000:2", "3.000000:0", "2.000000:1"],
    });
    assert_eq!(answer["outputs"][0], expected);
    let not_batched = json!({
        "inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}],
        "outputs": [{"name": "y", "parameters": {"classification": 9}}],
    });
    let answer = infer(&server, "fixed", &not_batched).await.json();
    assert_eq!(answer["outputs"][0]["shape"], json!([3]));
    for (dtype, parameters, words) in [
        ("FP32", json!({"classification": 0}), "'classification' must be an unsigned integer"),
        ("FP32", json!({"classification": "2"}), "'classification' must be an unsigned integer"),
        ("BOOL", json!({"classification": 2}), "output 'y' of type BOOL cannot be classified"),
        ("BYTES", json!({"classification": 2}), "output 'y' of type BYTES cannot be classified"),
        ("FP32", json!({"classification": 2, "shared_memory_region": "r"}), "shared_memory_region"),
    ] {
        let data = if dtype == "BOOL" {
            json!([true, true])
        } else if dtype == "BYTES" {
            json!(["a", "b"])
        } else {
            json!([1, 2])
        };
        let mut body = x(dtype, &json!([1, 2]), &data);
        body["outputs"] = json!([{"name": "y", "parameters": parameters}]);
        infer(&server, &format!("id_{dtype}"), &body).await.refuses(400, words);
    }
}
