//! Models whose answers differ in their number of rows from instance to instance, and whose inputs are pictures: over every
//! protocol's JSON as lists or objects for each instance, over the Open Inference Protocol as tensors with their counts.

use base64_simd::STANDARD;
use http::Method;
use millrace_core::{DType, InferFuture, ModelName};
use millrace_http::{SageMakerConfig, VertexConfig};
use millrace_testkit::FakeFaces;
use serde_json::{Value, json};

use crate::harness::{Answer, Models, TestServer, answered, signature, spec};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const JPEG: &[(&str, &str)] = &[("content-type", "image/jpeg")];

/// `lists` and `records`: what they find is in each picture's text.
pub(crate) fn face_models() -> Models {
    let add = |models: Models, name: &str, faces: FakeFaces| {
        let model: ModelName = name.parse().unwrap();
        models.version(name, 1, faces.signature(), move |request| match faces.find(&model, &request) {
            Ok(outputs) => answered(outputs),
            Err(refusal) => InferFuture::refused(refusal),
        })
    };
    add(add(Models::new(), "lists", FakeFaces::Lists), "records", FakeFaces::Records)
}

/// A picture as JSON has it.
pub(crate) fn b64(picture: &str) -> Value {
    json!({"b64": STANDARD.encode_to_string(picture)})
}

fn face(index: u8) -> Value {
    let corner = f64::from(index);
    json!({"bbox": [corner, corner, corner + 0.5, corner + 0.5], "confidence": 0.5_f64.powi(index.into())})
}

/// The faces of a picture as a list of records.
fn faces(count: u8) -> Value {
    (0..count).map(face).collect()
}

/// The same as one list for each field.
fn lists(count: u8) -> Value {
    let field = |name: &str| (0..count).map(|index| face(index)[name].clone()).collect::<Value>();
    json!({"bbox": field("bbox"), "confidence": field("confidence")})
}

async fn post(server: &TestServer, path: &str, body: &Value) -> Answer {
    server.ask(Method::POST, path, JSON, body.to_string()).await
}

#[tokio::test]
async fn each_instance_has_an_object_with_its_own_rows() {
    let server = TestServer::new(face_models());
    let ask = async |model: &str, body: Value| server.predict(model, body.to_string()).await;
    for instance in [b64("2"), json!({"image": b64("2")})] {
        let body = json!({"signature_name": "serving_default", "instances": [instance]});
        ask("lists", body.clone()).await.gives(&json!({"predictions": [lists(2)]}));
        ask("records", body).await.gives(&json!({"predictions": [{"faces": faces(2)}]}));
    }
    let several = json!({"instances": [b64("1"), b64("0"), b64("3")]});
    ask("lists", several.clone()).await.gives(&json!({"predictions": [lists(1), lists(0), lists(3)]}));
    let expected = json!([{"faces": faces(1)}, {"faces": []}, {"faces": faces(3)}]);
    ask("records", several).await.gives(&json!({ "predictions": expected }));
    let none = ask("records", json!({"instances": [b64("0")]})).await;
    assert_eq!(none.body, r#"{"predictions":[{"faces":[]}]}"#);
}

#[tokio::test]
async fn columns_are_a_list_for_each_key() {
    let server = TestServer::new(face_models());
    for inputs in [json!([b64("1"), b64("0")]), json!({"image": [b64("1"), b64("0")]})] {
        let body = json!({ "inputs": inputs });
        let (one, none) = (lists(1), lists(0));
        let columns =
            json!({"bbox": [one["bbox"], none["bbox"]], "confidence": [one["confidence"], none["confidence"]]});
        post(&server, "/v1/models/lists:predict", &body).await.gives(&json!({ "outputs": columns }));
        let records = json!({"outputs": {"faces": [faces(1), []]}});
        post(&server, "/v1/models/records:predict", &body).await.gives(&records);
    }
}

#[tokio::test]
async fn what_is_no_picture_is_refused_with_its_index() {
    let server = TestServer::new(face_models());
    let ask = async |instances: Value| server.predict("records", json!({ "instances": instances }).to_string()).await;
    ask(json!([b64("1"), b64("zzz")])).await.refuses(400, "input `image`, instance 1: the bytes are no picture");
    ask(json!([{"image": b64("zzz")}, {"image": b64("1")}])).await.refuses(400, "instance 0");
    ask(json!([b64("1"), b64("1"), b64("large")])).await.refuses(413, "instance 2: more pixels than the limit");
    ask(json!(["some text"])).await.refuses(400, "instance 0: the bytes are no picture");
    ask(json!([{"picture": b64("1")}])).await.refuses(400, "unknown input `picture`; expected: image");
    ask(json!([{"image": b64("1"), "more": 1}])).await.refuses(400, "unknown input `more`");
    ask(json!([b64("1"), {"image": b64("1")}])).await.refuses(400, "image");
    ask(json!([])).await.refuses(400, "instances");
    ask(json!([1])).await.refuses(400, "input `image`");
    ask(json!([{"b64": "?"}])).await.refuses(400, "Unable to base64 decode");
}

#[tokio::test]
async fn counts_that_lie_are_the_models_fault() {
    let server = TestServer::new(face_models());
    for model in ["lists", "records"] {
        let words = "output `bbox`: `counts` counts 4 rows of it, it has 3";
        let body = json!({"instances": [b64("2"), b64("lie")]}).to_string();
        server.predict(model, body).await.refuses(500, words);
        let plain = post(&server, &format!("/predictions/{model}"), &json!([b64("2"), b64("lie")])).await;
        assert_eq!(plain.status, 500, "{:?}", plain.body);
        assert!(plain.json()["message"].as_str().unwrap().contains(words), "{:?}", plain.body);
    }
}

#[tokio::test]
async fn torchserve_takes_pictures_as_they_are() {
    let server = TestServer::new(face_models());
    let part = |name: &str| {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"a.jpg\"");
        format!("--B\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n2\r\n--B--\r\n")
    };
    let form: &[_] = &[("content-type", "multipart/form-data; boundary=B")];
    for (method, headers, body) in [
        // What `curl -T` sends.
        (Method::PUT, &[][..], "2".to_owned()),
        (Method::POST, JPEG, "2".to_owned()),
        (Method::POST, &[("content-type", "application/octet-stream")], "2".to_owned()),
        (Method::POST, form, part("data")),
        (Method::POST, form, part("image")),
        (Method::POST, JSON, b64("2").to_string()),
        (Method::POST, JSON, json!([b64("2")]).to_string()),
        (Method::POST, JSON, json!({"image": b64("2")}).to_string()),
        (Method::POST, JSON, json!({"image": [b64("2")]}).to_string()),
        (Method::POST, JSON, json!({"instances": [b64("2")]}).to_string()),
    ] {
        let answer = server.ask(method, "/predictions/records", headers, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"faces": [faces(2)]})), "{body}");
    }
    let answer = server.ask(Method::POST, "/predictions/records", JPEG, "zzz").await;
    answer.is_torchserve_error(400, "BadRequestException", "instance 0: the bytes are no picture");
    let answer = server.ask(Method::POST, "/predictions/records", JPEG, "large").await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn platforms_and_events_answer_like_the_forms_they_carry() {
    let sagemaker = |config: &mut millrace_http::HttpConfig| {
        config.sagemaker =
            Some(SageMakerConfig { model: Some("records".parse().unwrap()), ..SageMakerConfig::default() });
        config.vertex = Some(VertexConfig {
            health_route: "/isalive".to_owned(),
            predict_route: "/vertex".to_owned(),
            model: Some("lists".parse().unwrap()),
        });
    };
    let server = TestServer::with(face_models(), sagemaker);
    let picture = server.ask(Method::POST, "/invocations", JPEG, "1").await;
    picture.gives(&json!({"faces": [faces(1)]}));
    let instances = json!({"instances": [b64("1"), b64("0")]});
    let records = json!({"predictions": [{"faces": faces(1)}, {"faces": []}]});
    post(&server, "/invocations", &instances).await.gives(&records);
    post(&server, "/vertex", &instances).await.gives(&json!({"predictions": [lists(1), lists(0)]}));
    server.ask(Method::POST, "/invocations", JPEG, "zzz").await.refuses(400, "instance 0");

    let event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": instances});
    let structured = [("content-type", "application/cloudevents+json")];
    let answer = server.ask(Method::POST, "/v1/models/records:predict", &structured, event.to_string()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["data"]), (200, &records));
}

#[tokio::test]
async fn general_endpoints_have_rows_of_numbers_only() {
    let n = spec("x", DType::Fp32, &[-1, 2]);
    let outputs = FakeFaces::Records.signature().outputs().to_vec();
    let never = Models::new()
        .version("m", 1, signature(vec![n], outputs), |_| -> InferFuture { unreachable!("it is not asked") });
    let answer = post(&TestServer::new(never), "/predict/m", &json!({"input_data": [[1, 2]]})).await;
    assert_eq!(answer.status, 400);
    let text = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(text.contains("3 outputs and not one of floats in rows"), "{text}");
}

/// A body for the Open Inference Protocol whose pictures follow the document.
fn binary(pictures: &[&str], outputs: &Value) -> (String, Vec<u8>) {
    let prefixed = |picture: &&str| [&u32::try_from(picture.len()).unwrap().to_le_bytes(), picture.as_bytes()].concat();
    let blob: Vec<u8> = pictures.iter().flat_map(prefixed).collect();
    let document = json!({
        "inputs": [{
            "name": "image", "datatype": "BYTES", "shape": [pictures.len()],
            "parameters": {"binary_data_size": blob.len()},
        }],
        "outputs": outputs,
    });
    let document = document.to_string();
    (document.len().to_string(), [document.as_bytes(), &blob].concat())
}

async fn infer(server: &TestServer, pictures: &[&str], outputs: &Value) -> Answer {
    let (length, body) = binary(pictures, outputs);
    let headers = [("inference-header-content-length", &*length)];
    server.ask(Method::POST, "/v2/models/records/infer", &headers, body).await
}

#[tokio::test]
async fn the_open_inference_protocol_has_tensors_and_their_counts() {
    let server = TestServer::new(face_models());
    let all = json!([{"name": "bbox"}, {"name": "confidence"}, {"name": "counts"}]);
    let answer = infer(&server, &["1", "0", "2"], &all).await.json();
    let boxes = [0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.5, 1.5];
    let expected = json!([
        {"name": "bbox", "datatype": "FP32", "shape": [3, 4], "data": boxes},
        {"name": "confidence", "datatype": "FP32", "shape": [3], "data": [1.0, 1.0, 0.5]},
        {"name": "counts", "datatype": "INT32", "shape": [3], "data": [1, 0, 2]},
    ]);
    assert_eq!(answer["outputs"], expected);
    let none = infer(&server, &["0"], &json!([{"name": "bbox"}])).await.json();
    assert_eq!(none["outputs"], json!([{"name": "bbox", "datatype": "FP32", "shape": [0, 4], "data": []}]));

    let picked = json!([{"name": "counts", "parameters": {"binary_data": true}}, {"name": "confidence"}]);
    let answer = infer(&server, &["0", "1"], &picked).await;
    let length: usize = answer.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let document: Value = serde_json::from_slice(&answer.body[..length]).unwrap();
    assert_eq!(answer.body.slice(length..), [0_u8, 0, 0, 0, 1, 0, 0, 0][..]);
    assert_eq!(document["outputs"][1]["data"], json!([1.0]));

    let text = json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["1"]}]});
    assert_eq!(post(&server, "/v2/models/records/infer", &text).await.json()["outputs"][2]["data"], json!([1]));
    let raw = [("inference-header-content-length", "0")];
    assert_eq!(server.ask(Method::POST, "/v2/models/records/infer", &raw, "1").await.status, 200);

    infer(&server, &["1", "zzz"], &all).await.refuses(400, "instance 1");
    infer(&server, &["large"], &all).await.refuses(413, "instance 0");
    let classified = json!([{"name": "confidence", "parameters": {"classification": 1}}]);
    infer(&server, &["1"], &classified).await.refuses(400, "output 'confidence' cannot be classified");
}

#[tokio::test]
async fn metadata_shows_axes_that_nobody_knows_beforehand() {
    let server = TestServer::new(face_models());
    let oip = server.get("/v2/models/records").await.json();
    let shapes: Vec<_> = oip["outputs"].as_array().unwrap().iter().map(|output| output["shape"].clone()).collect();
    assert_eq!(shapes, [json!([-1, 4]), json!([-1]), json!([-1])]);
    let tfs = server.get("/v1/models/records/metadata").await.json();
    let dims = &tfs["metadata"]["signature_def"]["signature_def"]["serving_default"]["outputs"]["bbox"]["tensor_shape"];
    assert_eq!(dims["dim"], json!([{"size": "-1", "name": ""}, {"size": "4", "name": ""}]));
}
