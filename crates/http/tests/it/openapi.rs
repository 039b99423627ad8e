//! The document of what is served, and its page.

use http::Method;
use millrace_http::{SageMakerConfig, VertexConfig};
use serde_json::{Value, json};

use crate::harness::{Models, TestServer, models};
use crate::ragged::{b64, face_models};

/// Whether `value` fits `schema`: the part of JSON schema that the document uses.
fn fits(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(value, root.pointer(reference.trim_start_matches('#')).unwrap(), root);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().any(|choice| fits(value, choice, root));
    }
    if value.is_null() {
        return schema["nullable"] == true;
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    let within = |key: &str, length: usize, fits: fn(usize, usize) -> bool| {
        schema[key].as_u64().is_none_or(|limit| fits(length, usize::try_from(limit).unwrap()))
    };
    match schema["type"].as_str() {
        None => true,
        Some("object") => value.as_object().is_some_and(|object| {
            let required = schema["required"].as_array().into_iter().flatten();
            let has_all = required.map(|key| key.as_str().unwrap()).all(|key| object.contains_key(key));
            has_all
                && object
                    .iter()
                    .all(|(key, value)| schema["properties"].get(key).is_none_or(|schema| fits(value, schema, root)))
        }),
        Some("array") => value.as_array().is_some_and(|list| {
            within("minItems", list.len(), |length, limit| length >= limit)
                && within("maxItems", list.len(), |length, limit| length <= limit)
                && list.iter().all(|item| fits(item, &schema["items"], root))
        }),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("the type {other}"),
    }
}

fn schemas<'a>(document: &'a Value, path: &str) -> (&'a Value, &'a Value) {
    let operation = &document["paths"][path]["post"];
    assert!(operation.is_object(), "no {path}");
    let content = "application/json";
    (
        &operation["requestBody"]["content"][content]["schema"],
        &operation["responses"]["200"]["content"][content]["schema"],
    )
}

/// Whether a request of `path` may ask about itself.
fn explains(document: &Value, path: &str) -> bool {
    let operation = &document["paths"][path]["post"];
    assert!(operation.is_object(), "no {path}");
    operation["parameters"].as_array().is_some_and(|list| list.iter().any(|parameter| parameter["name"] == "explain"))
}

#[tokio::test]
async fn every_model_has_a_route_in_each_protocol_and_what_it_says_is_true() {
    let server = TestServer::new(models());
    let document = server.get("/openapi.json").await.json();
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.0.1"), &json!("millrace")));
    let tensor = |name: &str, datatype: &str, shape: Value, data: Value| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    let infer = |inputs: Value| json!({"inputs": inputs});
    for (path, good, bad) in [
        ("/v1/models/pairs:predict", json!({"instances": [[1.5, 2]]}), json!({"instances": [[1, 2, 3]]})),
        ("/v1/models/pairs:predict", json!({"inputs": {"x": [[1, 2]]}}), json!({"inputs": {"y": [[1, 2]]}})),
        ("/v1/models/sum_diff:predict", json!({"instances": [{"a": 1, "b": [2, 3]}]}), json!({"instances": [[1]]})),
        ("/v1/models/strings:predict", json!({"instances": ["a"]}), json!({"instances": [1]})),
        ("/v1/models/ints:predict", json!({"instances": [1]}), json!({"instances": [1.5]})),
        ("/predictions/pairs", json!([[1, 2]]), json!([[1, true]])),
        ("/predictions/sum_diff", json!({"a": [1], "b": [[2, 3]]}), json!({"a": [1]})),
        ("/predict/pairs", json!({"input_data": [[1, 2]]}), json!({"input_data": [[1, 2, 3]]})),
        ("/predict/half_plus_two", json!({"input_data": [[1], [2]]}), json!({"input_data": [[1, 2]]})),
        ("/v1/models/half_scalar:predict", json!({"inputs": 5}), json!({"instances": [5]})),
        (
            "/v2/models/pairs/infer",
            infer(json!([tensor("x", "FP32", json!([1, 2]), json!([1, 2]))])),
            infer(json!([tensor("x", "INT32", json!([1, 2]), json!([1, 2]))])),
        ),
    ] {
        let (request, answer) = schemas(&document, path);
        assert!(fits(&good, request, &document), "{path} {good}");
        assert!(!fits(&bad, request, &document), "{path} {bad}");
        let answered = server.ask(Method::POST, path, &[("content-type", "application/json")], good.to_string()).await;
        assert_eq!(answered.status, 200, "{path} {good}: {:?}", answered.body);
        assert!(fits(&answered.json(), answer, &document), "{path}: {:?}", answered.body);
        let refused = server.ask(Method::POST, path, &[("content-type", "application/json")], bad.to_string()).await;
        assert!(refused.status.is_client_error(), "{path} {bad}: {}", refused.status);
        let errors = &document["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]["schema"];
        assert!(fits(&refused.json(), errors, &document), "{path}: {:?}", refused.body);
        assert!(explains(&document, path), "{path}");
    }
    assert!(explains(&document, "/v2/models/{model_name}/versions/{version}/infer"));
    assert!(!explains(&document, "/batch_predict") && !explains(&document, "/v2/repository/index"));
    for (path, why) in [
        ("/predict/strings", "it takes no numbers"),
        ("/predict/half_scalar", "it takes no rows"),
        ("/v1/models/halves:predict", "JSON has no numbers of two bytes"),
        ("/v2/models/halves/infer", "JSON has no numbers of two bytes"),
    ] {
        assert!(document["paths"].get(path).is_none(), "{path}: {why}");
    }
    assert!(document["paths"].get("/v1/models/failed:predict").is_none(), "it cannot serve");
}

#[tokio::test]
async fn answers_by_instance_and_pictures_are_described() {
    let server = TestServer::new(face_models());
    let document = server.get("/openapi.json").await.json();
    let picture = || b64("2");
    for (path, good, bad) in [
        ("/v1/models/{}:predict", json!({"instances": [picture(), b64("0")]}), json!({"instances": [1]})),
        ("/v1/models/{}:predict", json!({"instances": [{"image": picture()}]}), json!({"instances": [{"x": 1}]})),
        ("/v1/models/{}:predict", json!({"inputs": {"image": [picture()]}}), json!({"inputs": {"x": [picture()]}})),
        ("/predictions/{}", picture(), json!(1)),
        ("/predictions/{}", json!({"image": [picture(), picture()]}), json!({"x": picture()})),
        (
            "/v2/models/{}/infer",
            json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["1", "3"]}]}),
            json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [2], "data": [1, 3]}]}),
        ),
    ] {
        for (model, other) in [("lists", "records"), ("records", "lists")] {
            let path = path.replace("{}", model);
            let (request, answer) = schemas(&document, &path);
            assert!(fits(&good, request, &document), "{path} {good}");
            assert!(!fits(&bad, request, &document), "{path} {bad}");
            let answered =
                server.ask(Method::POST, &path, &[("content-type", "application/json")], good.to_string()).await;
            assert_eq!(answered.status, 200, "{path} {good}: {:?}", answered.body);
            assert!(fits(&answered.json(), answer, &document), "{path}: {:?}", answered.body);
            if !path.starts_with("/v2") {
                let (_, of_other) = schemas(&document, &path.replace(model, other));
                assert!(!fits(&answered.json(), of_other, &document), "{path}: {:?}", answered.body);
            }
        }
    }
    let content = &document["paths"]["/predictions/records"]["post"]["requestBody"]["content"];
    for kind in ["image/*", "application/octet-stream"] {
        assert_eq!(content[kind]["schema"]["format"], "binary");
    }
    let plain = TestServer::new(models()).get("/openapi.json").await.json();
    assert!(plain["paths"]["/predictions/pairs"]["post"]["requestBody"]["content"].get("image/*").is_none());
}

#[tokio::test]
async fn what_is_listed_without_a_body_answers() {
    let server = TestServer::new(models());
    let document = server.get("/openapi.json").await.json();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(operation) = methods.get("get") else { continue };
        let model = if path.contains("{label}") { "half_plus_two" } else { "pairs" };
        let asked_path = path.replace("{model_name}", model).replace("{version}", "1").replace("{label}", "stable");
        let answer = server.get(&asked_path).await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        asked += 1;
        let content = &operation["responses"]["200"]["content"];
        let Some(schema) = content["application/json"].get("schema") else {
            assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"), "{path}");
            continue;
        };
        assert!(answer.body.is_empty() || fits(&answer.json(), schema, &document), "{path}: {:?}", answer.body);
    }
    assert!(asked > 10, "{asked}");
}

#[tokio::test]
async fn routes_that_need_no_schema_are_listed_and_those_of_platforms_where_they_are() {
    let listed = |document: &Value, routes: &[(&str, &str)]| {
        for (path, method) in routes {
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
    };
    let document = TestServer::new(models()).get("/openapi.json").await.json();
    let [version, label] =
        ["versions/{version}", "labels/{label}"].map(|part| format!("/v1/models/{{model_name}}/{part}:predict"));
    listed(&document, &[(&*version, "post"), (&*label, "post")]);
    let oip = "/v2/models/{model_name}";
    for rest in ["/config", "/stats", "/versions/{version}", "/versions/{version}/ready"] {
        listed(&document, &[(&*format!("{oip}{rest}"), "get")]);
    }
    let infer = format!("{oip}/versions/{{version}}/infer");
    listed(
        &document,
        &[
            (&*infer, "post"),
            ("/v2/models", "get"),
            ("/v2/models/stats", "get"),
            ("/v2/repository/index", "post"),
            ("/v2/logging", "get"),
            ("/v2/logging", "post"),
            ("/v2/trace/setting", "get"),
            ("/v2/trace/setting", "post"),
            ("/predictions/{model_name}/{model_version}", "post"),
            ("/api-description", "get"),
            ("/metrics", "get"),
            ("/monitoring/prometheus/metrics", "get"),
            ("/", "get"),
        ],
    );
    let parameters = &document["paths"][&infer]["post"]["parameters"];
    assert_eq!((&parameters[1]["name"], &parameters[1]["schema"]["type"]), (&json!("version"), &json!("integer")));
    assert_eq!(document["paths"]["/v2/logging"]["post"]["requestBody"]["required"], false);
    assert!(document["paths"].get("/invocations").is_none(), "SageMaker is not configured");

    let server = TestServer::with(models(), |config| {
        config.sagemaker = Some(SageMakerConfig::default());
        config.vertex = Some(VertexConfig {
            health_route: "/isalive".to_owned(),
            predict_route: "/v1/models/pairs:predict".to_owned(),
            model: None,
        });
    });
    let document = server.get("/openapi.json").await.json();
    listed(
        &document,
        &[
            ("/invocations", "post"),
            ("/models", "get"),
            ("/models", "post"),
            ("/models/{model_name}", "get"),
            ("/models/{model_name}", "delete"),
            ("/models/{model_name}/invoke", "post"),
            ("/isalive", "get"),
        ],
    );
    for (path, tag) in [("/models", "sagemaker"), ("/v1/models/pairs:predict", "vertex ai")] {
        let methods = document["paths"][path].as_object().unwrap();
        assert!(methods.values().all(|operation| operation["tags"] == json!([tag])), "{path}");
    }
}

#[tokio::test]
async fn text_models_have_their_routes_and_what_is_said_of_them_is_true() {
    let server = TestServer::new(crate::text::world());
    let document = server.get("/openapi.json").await.json();
    let sentences = json!({"source_sentence": "cat", "sentences": ["dog"]});
    for (path, good, bad) in [
        ("/v1/embeddings", json!({"input": "cat"}), json!({"input": 5})),
        ("/embeddings", json!({"input": ["cat", [5]], "encoding_format": "base64"}), json!({"input": [true]})),
        ("/embed", json!({"inputs": [5, 6], "normalize": false}), json!({"inputs": "cat", "normalize": "no"})),
        ("/embed/vectors", json!({"inputs": ["cat"], "truncation_direction": "left"}), json!({"text": "cat"})),
        ("/embed_all/vectors", json!({"inputs": "cat", "truncate": null}), json!({"inputs": {}})),
        ("/similarity", json!({"inputs": sentences, "parameters": {"truncate": true}}), json!({"inputs": "cat"})),
        ("/rerank/ranks", json!({"query": "cat", "texts": ["cat"], "return_text": true}), json!({"query": "cat"})),
        ("/rerank", json!({"query": "cat", "texts": ["cat"]}), json!({"query": "cat", "texts": "cat"})),
        ("/predict/labels", json!({"inputs": [["cat", "dog"]]}), json!({"inputs": [["cat", "dog", "mat"]]})),
        ("/predict/ranks", json!({"inputs": ["cat", "dog"]}), json!({"inputs": 5})),
        ("/predict", json!({"inputs": "cat"}), json!({"inputs": 5})),
        ("/predict", json!({"model_name": "numbers", "input_data": [[1]]}), json!({"model_name": "numbers"})),
        ("/tokenize/labels", json!({"inputs": "cat"}), json!({"inputs": 5})),
        ("/decode/labels", json!({"ids": [[5]]}), json!({"ids": "cat"})),
    ] {
        let (request, answer) = schemas(&document, path);
        assert!(fits(&good, request, &document), "{path} {good}");
        assert!(!fits(&bad, request, &document), "{path} {bad}");
        let answered = server.ask(Method::POST, path, &[], good.to_string()).await;
        assert_eq!(answered.status, 200, "{path} {good}: {:?}", answered.body);
        assert!(fits(&answered.json(), answer, &document), "{path}: {:?}", answered.body);
        let refused = server.ask(Method::POST, path, &[], bad.to_string()).await;
        assert!(refused.status.is_client_error(), "{path} {bad}: {}", refused.status);
        if path != "/predict" {
            let errors =
                &document["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]["schema"];
            assert!(fits(&refused.json(), errors, &document), "{path}: {:?}", refused.body);
        }
    }
    let info = &document["paths"]["/info/{model_name}"]["get"]["responses"]["200"]["content"]["application/json"];
    assert!(fits(&server.get("/info/ranks").await.json(), &info["schema"], &document));
    for path in ["/rerank/labels", "/embed/ranks", "/predict/vectors", "/tokenize/numbers"] {
        assert!(document["paths"].get(path).is_none(), "{path} would be refused");
    }
    let plain = TestServer::new(models()).get("/openapi.json").await.json();
    for path in ["/embed", "/info", "/v1/embeddings"] {
        assert!(plain["paths"].get(path).is_none(), "{path}: no model takes text");
    }
}

#[tokio::test]
async fn without_models_there_is_a_document_all_the_same() {
    let document = TestServer::new(Models::new()).get("/openapi.json").await.json();
    assert!(document["paths"]["/predict"]["post"].is_object());
    assert!(document["components"]["schemas"]["Error"].is_object());
}

#[tokio::test]
async fn the_page_asks_nobody_but_this_server() {
    let server = TestServer::new(models());
    let answer = server.get("/docs").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let page = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(page.contains("/openapi.json") && !page.contains("http://") && !page.contains("https://"), "{page}");
    assert!(!page.contains("innerHTML"), "names of models are text and never markup");
    for path in ["/docs", "/openapi.json"] {
        server.ask(Method::POST, path, &[], "").await.refuses(405, "Method Not Allowed");
        assert_eq!(server.manage(Method::GET, path, &[], "").await.status, 404, "it is for clients");
    }
}
