//! TorchServe's inference API, row by row.

use http::Method;
use millrace_core::{DType, InferFuture, Reason, Refusal};
use serde_json::json;

use crate::harness::{Answer, Models, TestServer, models, request, signature, spec};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn predict(server: &TestServer, path: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    server.ask(Method::POST, &format!("/predictions/{path}"), headers, body).await
}

/// A version-4 UUID.
#[track_caller]
fn assert_uuid(answer: &Answer) {
    let id = answer.headers["x-request-id"].to_str().unwrap();
    let parts: Vec<_> = id.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && parts[2].starts_with('4'), "{id}");
}

#[tokio::test]
async fn the_example_of_the_page() {
    let server = TestServer::new(models());
    let answer = predict(&server, "pairs", JSON, "[[1.0,2.0],[3.0,4.5]]").await;
    answer.gives(&json!([[1.0, 2.0], [3.0, 4.5]]));
    assert_eq!(answer.body, "[[1.0,2.0],[3.0,4.5]]");
    assert_uuid(&answer);
    let again = predict(&server, "pairs", JSON, "[[1.0,2.0]]").await;
    assert_ne!(answer.headers["x-request-id"], again.headers["x-request-id"]);
    let named = predict(&server, "pairs", &[("x-request-id", "mine")], "[[1.0,2.0]]").await;
    assert_eq!(named.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn every_way_to_send_json_is_the_same_request() {
    let server = TestServer::new(models());
    let expected = json!([[1.0, 2.0]]);
    let part = "--B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"x.json\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n[[1,2]]\r\n--B--\r\n";
    let multipart: &[_] = &[("content-type", "multipart/form-data; boundary=B")];
    let form: &[_] = &[("content-type", "application/x-www-form-urlencoded")];
    for (headers, body) in [
        (JSON, "[[1,2]]"),
        (JSON, r#"{"instances": [[1,2]]}"#),
        (JSON, r#"{"inputs": [[1,2]]}"#),
        (JSON, r#"{"x": [[1,2]]}"#),
        (&[], "[[1,2]]"),
        (&[("content-type", "application/octet-stream")], "[[1,2]]"),
        (&[("content-type", "text/plain")], "[[1,2]]"),
        (form, "[[1,2]]"),
        (form, r#"{"x": [[1,2]]}"#),
        (form, "data=%5B%5B1%2C2%5D%5D"),
        (form, "other=1&body=[[1,2]]"),
        (multipart, part),
        (multipart, &part.replace("name=\"data\"", "name=body")),
    ] {
        let answer = predict(&server, "pairs", headers, body.to_owned()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected.clone()), "{headers:?} {body}");
    }
    for method in [Method::PUT, Method::GET, Method::PATCH] {
        server.ask(method, "/predictions/pairs", &[], "[[1,2]]").await.gives(&expected);
    }
}

#[tokio::test]
async fn several_inputs_and_outputs_go_by_name() {
    let server = TestServer::new(models());
    let expected = json!({"s": [6], "d": [-4]});
    let bodies = [
        r#"{"a": [1], "b": [[2, 3]]}"#,
        r#"{"instances": [{"a": 1, "b": [2, 3]}]}"#,
        r#"{"inputs": {"a": [1], "b": [[2, 3]]}}"#,
    ];
    for body in bodies {
        predict(&server, "sum_diff", JSON, body).await.gives(&expected);
    }
    let multipart = "--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n[[2,3]]\r\n\
        --B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n[1]\r\n--B--";
    let headers = [("content-type", "multipart/form-data; boundary=\"B\"")];
    predict(&server, "sum_diff", &headers, multipart).await.gives(&expected);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    predict(&server, "sum_diff", &form, "a=[1]&b=[[2,3]]").await.gives(&expected);
    let missing = predict(&server, "sum_diff", JSON, r#"{"a": [1]}"#).await;
    missing.is_torchserve_error(400, "BadRequestException", "input `b` is missing");
}

#[tokio::test]
async fn raw_bytes_feed_an_input_that_takes_bytes() {
    let server = TestServer::new(models());
    let image: &[u8] = b"\xff\xd8\xff\xe0[not json";
    let encoded = json!([{"b64": "/9j/4Ftub3QganNvbg=="}]);
    let multipart = [
        &b"--B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"[..],
        image,
        b"\r\n--B--\r\n",
    ]
    .concat();
    for (headers, body) in [
        (&[("content-type", "image/jpeg")][..], image.to_vec()),
        (&[("content-type", "application/octet-stream")], image.to_vec()),
        (&[], image.to_vec()),
        (&[("content-type", "multipart/form-data; boundary=B")], multipart),
    ] {
        predict(&server, "files", headers, body).await.gives(&encoded);
    }
    predict(&server, "strings", JSON, r#"["a", "b"]"#).await.gives(&json!(["a", "b"]));
    predict(&server, "strings", &[("content-type", "text/plain")], "some text").await.gives(&json!(["some text"]));
}

#[tokio::test]
async fn versions_are_strings_and_aliases_are_versions() {
    let server = TestServer::new(models());
    for (version, expected) in [("1", 2.5), ("1.0", 2.5), ("2.0", 3.5), ("stable", 2.5), ("2.0/extra/path", 3.5)] {
        predict(&server, &format!("half_plus_two/{version}"), JSON, "[1]").await.gives(&json!([expected]));
    }
    predict(&server, "half_plus_two", JSON, "[1]").await.gives(&json!([3.5]));
    predict(&server, "half_plus_two/", JSON, "[1]").await.gives(&json!([3.5]));
    for version in ["3", "3.0", "1.1", "canary", "01", "-1", "18446744073709551616", "%D9%A1"] {
        let answer = predict(&server, &format!("half_plus_two/{version}"), JSON, "[1]").await;
        answer.is_torchserve_error(404, "ModelVersionNotFoundException", "does not exist for model: half_plus_two");
        assert_uuid(&answer);
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_says_which() {
    let server = TestServer::new(models());
    let answer = predict(&server, "nope", JSON, "[1]").await;
    answer.is_torchserve_error(404, "ModelNotFoundException", "Model not found: nope");
    for path in ["/predictions", "/predictions/", "/explanations", "/nonsense", "/ping/x"] {
        let answer = server.ask(Method::POST, path, JSON, "[1]").await;
        answer.is_torchserve_error(404, "ResourceNotFoundException", "Requested resource is not found");
        assert_uuid(&answer);
    }
}

#[tokio::test]
async fn row_51_names_that_mean_harm_find_nothing() {
    let server = TestServer::new(models());
    let long = "x".repeat(8000);
    for name in
        ["..", "%2e%2e", "..%2f..%2fetc", "%00", "%c0%ae%c0%ae", "%EF%BC%8E", "a%0d%0aset-cookie:x", "%1b[31m", &long]
    {
        for path in [
            format!("/predictions/{name}"),
            format!("/predictions/half_plus_two/{name}"),
            format!("/explanations/{name}"),
        ] {
            if path.parse::<http::Uri>().is_err() {
                continue;
            }
            let answer = server.ask(Method::POST, &path, JSON, "[1]").await;
            assert!(matches!(answer.status.as_u16(), 404 | 501), "{path}: {}", answer.status);
            assert!(!answer.headers.contains_key("set-cookie"));
            let text = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(text.chars().all(|character| matches!(character, ' '..='~' | '…')), "{text:?}");
            assert!(text.chars().count() < 300);
        }
    }
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_400() {
    let server = TestServer::new(models());
    let multipart: &[_] = &[("content-type", "multipart/form-data; boundary=B")];
    let form: &[_] = &[("content-type", "application/x-www-form-urlencoded")];
    for (headers, body, words) in [
        (JSON, "", "empty"),
        (JSON, "hello", "JSON"),
        (JSON, "[[1,2]", "JSON"),
        (JSON, "[[1,2]] x", "trailing"),
        (JSON, r#"{"x": [[1,2]], "x": [[1,2]]}"#, "duplicate key `x`"),
        (JSON, r#"{"y": [[1,2]]}"#, "unknown input `y`"),
        (JSON, "[[1,2],[3]]", "ragged"),
        (JSON, "[[1,2,3]]", "expected shape [N,2], got [1,3]"),
        (JSON, "[[1,true]]", "float"),
        (JSON, "[[1,1e999]]", "out of range"),
        (JSON, "null", "input `x`"),
        (JSON, "[]", "shape"),
        (form, "a=1", "unknown input `a`"),
        (form, "", "input `x` is missing"),
        (multipart, "[[1,2]]", "boundary"),
        (
            multipart,
            "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n[[1,2]]\r\n--B--",
            "unknown input `file`",
        ),
        (&[("content-type", "multipart/form-data")], "[[1,2]]", "boundary"),
        (&[("content-encoding", "br")], "[[1,2]]", "content-encoding"),
    ] {
        let answer = predict(&server, "pairs", headers, body).await;
        answer.is_torchserve_error(400, "BadRequestException", words);
    }
    let deep = "[".repeat(100_000);
    predict(&server, "pairs", JSON, deep).await.is_torchserve_error(400, "BadRequestException", "nesting");
}

#[tokio::test]
async fn a_packed_body_is_unpacked() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"[[1,2]]").unwrap();
    let packed = encoder.finish().unwrap();
    let server = TestServer::new(models());
    predict(&server, "pairs", &[("content-encoding", "gzip")], packed.clone()).await.gives(&json!([[1.0, 2.0]]));
    let cut = packed[..packed.len() - 3].to_vec();
    predict(&server, "pairs", &[("content-encoding", "gzip")], cut).await.is_torchserve_error(
        400,
        "BadRequestException",
        "damaged or cut",
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = TestServer::with(models(), |config| config.max_body_bytes = 10);
    let answer = predict(&server, "pairs", JSON, "[[1.0000000,2]]").await;
    answer.is_torchserve_error(413, "RequestTooLargeException", "10 bytes");
    assert_eq!(answer.headers["connection"], "close");
}

#[tokio::test]
async fn refusals_have_torchserves_types() {
    for (reason, status, kind) in [
        (Reason::QueueFull, 503, "ServiceUnavailableException"),
        (Reason::Draining, 503, "ServiceUnavailableException"),
        (Reason::Late, 504, "RequestTimeoutException"),
        (Reason::BackendFailed, 500, "InternalServerException"),
        (Reason::BackendBroken, 500, "InternalServerException"),
        (Reason::InvalidInput, 400, "BadRequestException"),
    ] {
        let server = TestServer::new(Models::new().refusing("m", Refusal::new(reason, "because")));
        let answer = predict(&server, "m", JSON, "[1]").await;
        answer.is_torchserve_error(status, kind, "because");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
        assert!(answer.headers.contains_key("x-request-id"));
    }
    // Refused by the resolver, and by the version itself.
    let idle = Refusal::new(Reason::NotReady, "because");
    let server = TestServer::new(models().refusing("idle", idle));
    for model in ["loading", "failed", "idle"] {
        let answer = predict(&server, model, JSON, "[1]").await;
        let words = format!("Model \"{model}\" has no worker to serve inference request.");
        answer.is_torchserve_error(503, "ServiceUnavailableException", &words);
    }
}

#[tokio::test]
async fn a_backend_that_panics_is_500_for_its_request_alone() {
    let x = || vec![spec("x", DType::Fp32, &[-1])];
    let panicking = Models::new().version("m", 1, signature(x(), x()), |_| -> InferFuture { panic!("secret") });
    let server = TestServer::new(panicking);
    let answer = predict(&server, "m", JSON, "[1]").await;
    answer.is_torchserve_error(500, "InternalServerException", "failed on this request");
}

#[tokio::test]
async fn ping_says_whether_the_server_is_well() {
    let server = TestServer::new(models());
    let answer = server.get("/ping").await;
    answer.gives(&json!({"status": "Healthy"}));
    assert_uuid(&answer);
    server.readiness.begin_drain();
    let answer = server.get("/ping").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (500, json!({"status": "Unhealthy"})));
    let answer = TestServer::new(models().unsettled()).get("/ping").await;
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn explanations_are_not_implemented_and_say_so() {
    let server = TestServer::new(models());
    for path in ["/explanations/pairs", "/explanations/pairs/1.0"] {
        let answer = server.ask(Method::POST, path, JSON, "[[1,2]]").await;
        answer.is_torchserve_error(501, "UnsupportedOperationException", "no explainer");
    }
}

#[tokio::test]
async fn the_description_is_an_openapi_document() {
    let server = TestServer::new(models());
    for (method, path) in
        [(Method::GET, "/api-description"), (Method::OPTIONS, "/"), (Method::OPTIONS, "/api-description")]
    {
        let answer = server.ask(method, path, &[], "").await;
        let document = answer.json();
        assert_eq!((answer.status.as_u16(), &document["openapi"]), (200, &json!("3.0.1")));
        assert_eq!(document["info"]["title"], "TorchServe APIs");
        for path in [
            "/",
            "/ping",
            "/predictions/{model_name}",
            "/predictions/{model_name}/{model_version}",
            "/v1/models/{model_name}:predict",
            "/v2/models/{model_name}/infer",
            "/api-description",
            "/metrics",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
    let answer = server.ask(Method::OPTIONS, "/predictions/pairs", &[], "").await;
    assert!(answer.json()["paths"]["/predictions/pairs"].is_object());
    let answer = server.ask(Method::OPTIONS, "/predictions/nope", &[], "").await;
    answer.is_torchserve_error(404, "ModelNotFoundException", "nope");
    for path in ["/api-description", "/ping"] {
        let answer = server.ask(Method::POST, path, &[], "").await;
        answer.is_torchserve_error(405, "MethodNotAllowedException", "Requested method is not allowed");
    }
}

#[tokio::test]
async fn the_metrics_page_shows_what_is_named() {
    let server = TestServer::new(models());
    assert_eq!(server.get("/metrics").await.body, "# the page\n");
    assert_eq!(server.get("/metrics?name[]=ts_inference_requests_total").await.body, "");
}

#[tokio::test]
async fn a_page_of_another_site_may_ask_a_model() {
    // Inference is for everybody who reaches the port; orders are not.
    let server = TestServer::new(models());
    let answer =
        server.send(request(Method::POST, "/predictions/pairs", &[("origin", "http://a.example")], "[[1,2]]")).await;
    answer.gives(&json!([[1.0, 2.0]]));
}
