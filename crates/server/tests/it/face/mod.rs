//! The face pipelines on real networks, asked as clients ask: the documented shapes, the golden numbers by every protocol, bad
//! pictures, and many callers at once. How protocols say it is in `ask`.

mod ask;
#[cfg(target_os = "linux")]
mod bombs;

use std::fs;
use std::sync::LazyLock;
use std::thread;

use base64_simd::STANDARD;
use millrace_testkit::{assert_close, fixture};
use serde_json::{Value, json};

use self::ask::{BY_TENSORS, Faces, Refused};
use crate::support::{Client, TestServer};

/// One server for all that it can be shared by: loading networks takes longer than asking them.
static SERVER: LazyLock<TestServer> = LazyLock::new(|| TestServer::folder(&fixture("face-models"), |_| {}));

static ASTRONAUT: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(fixture("face/astronaut.png")).expect("it is there"));

fn image(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("images/{name}"))).expect("it is there")
}

/// A picture as JSON has it.
fn b64(picture: &[u8]) -> Value {
    json!({"b64": STANDARD.encode_to_string(picture)})
}

fn predict(client: &mut Client, model: &str, body: &Value) -> crate::support::Reply {
    client.post(&format!("/v1/models/{model}:predict"), body.to_string())
}

#[track_caller]
fn predicted(client: &mut Client, model: &str, body: &Value) -> Value {
    let reply = predict(client, model, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn golden() -> Value {
    let text = fs::read(fixture("face/golden_astronaut.json")).expect("it is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// A list of numbers, however nested.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

#[track_caller]
fn are_close(got: &Value, want: &Value, tolerance: f64, what: &str) {
    let (got, want) = (numbers(got), numbers(want));
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= tolerance, "{what}: {got} is not {want}");
    }
}

fn cosine(left: &Value, right: &Value) -> f64 {
    let (left, right) = (numbers(left), numbers(right));
    assert_eq!((left.len(), right.len()), (128, 128));
    let dot = |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(left, right)| left * right).sum::<f64>();
    dot(&left, &right) / (dot(&left, &left) * dot(&right, &right)).sqrt()
}

/// A hundredth of a pixel of the astronaut, as a fraction.
const A_HUNDREDTH: f64 = 0.01 / 512.0;

/// `face` is the one in the golden answer: a record of the pipeline, perhaps without its embedding.
#[track_caller]
fn is_golden(face: &Value) {
    let golden = &golden()["faces"][0];
    are_close(&face["bbox"], &golden["bbox"], A_HUNDREDTH, "bbox");
    are_close(&face["confidence"], &golden["confidence"], 1e-4, "confidence");
    are_close(&face["landmarks"], &golden["landmarks"], A_HUNDREDTH, "landmarks");
    if let Some(embedding) = face.get("embedding") {
        let (same, length) = (cosine(embedding, &golden["embedding"]), numbers(embedding));
        assert!(same >= 0.9999, "the embeddings' cosine is {same}");
        let length = length.iter().map(|number| number * number).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-4, "the embedding is {length} long");
    }
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_pipeline_answers_with_a_list_of_faces_for_each_picture() {
    let mut client = SERVER.client();
    let photograph = || b64(&ASTRONAUT);
    for instance in [photograph(), json!({"image": photograph()})] {
        let body = json!({"signature_name": "serving_default", "instances": [instance]});
        let answer = predicted(&mut client, "face_pipeline", &body);
        assert_eq!((keys(&answer), keys(&answer["predictions"][0])), (vec!["predictions"], vec!["faces"]));
        let faces = answer["predictions"][0]["faces"].as_array().unwrap();
        assert_eq!(faces.len(), 1);
        assert_eq!(keys(&faces[0]), ["bbox", "confidence", "embedding", "landmarks"]);
        assert_eq!((faces[0]["bbox"].as_array().unwrap().len(), faces[0]["confidence"].is_f64()), (4, true));
        assert!(faces[0]["landmarks"].as_array().unwrap().iter().all(|point| point.as_array().unwrap().len() == 2));
        is_golden(&faces[0]);
    }
    let none = image("one_pixel.png");
    let body = json!({"instances": [b64(&none), photograph()]});
    let answer = predicted(&mut client, "face_pipeline/versions/1", &body);
    assert_eq!(answer["predictions"][0], json!({"faces": []}));
    is_golden(&answer["predictions"][1]["faces"][0]);
    let columns = predicted(&mut client, "face_pipeline", &json!({"inputs": {"image": [photograph(), b64(&none)]}}));
    assert_eq!((keys(&columns), keys(&columns["outputs"])), (vec!["outputs"], vec!["faces"]));
    is_golden(&columns["outputs"]["faces"][0][0]);
    assert_eq!(columns["outputs"]["faces"][1], json!([]));
}

#[test]
fn detection_answers_with_lists_for_each_picture() {
    let mut client = SERVER.client();
    let fields = ["detection_boxes", "detection_scores", "landmark_positions"];
    let face = |prediction: &Value| {
        let [bbox, confidence, landmarks] = fields.map(|field| prediction[field][0].clone());
        json!({"bbox": bbox, "confidence": confidence, "landmarks": landmarks})
    };
    for instance in [b64(&ASTRONAUT), json!({"image": b64(&ASTRONAUT)})] {
        let answer = predicted(&mut client, "face_detection", &json!({ "instances": [instance] }));
        assert_eq!(keys(&answer["predictions"][0]), fields);
        assert_eq!(answer["predictions"][0]["detection_scores"].as_array().unwrap().len(), 1);
        is_golden(&face(&answer["predictions"][0]));
    }
    let none = json!({"detection_boxes": [], "detection_scores": [], "landmark_positions": []});
    for name in ["one_pixel.png", "alpha.png", "grey.png", "baseline.jpg"] {
        let answer = predicted(&mut client, "face_detection", &json!({"instances": [b64(&image(name))]}));
        assert_eq!(answer, json!({"predictions": [none]}), "{name}");
    }
    let columns = predicted(&mut client, "face_detection", &json!({"inputs": [b64(&image("alpha.png"))]}));
    assert_eq!(
        columns,
        json!({"outputs": {"detection_boxes": [[]], "detection_scores": [[]], "landmark_positions": [[]]}})
    );
}

#[test]
fn recognition_answers_with_a_vector_for_each_chip() {
    let mut client = SERVER.client();
    let chip = fs::read(fixture("face/astronaut_aligned.png")).expect("it is there");
    let golden = golden();
    for instance in [json!({"aligned_face": b64(&chip)}), b64(&chip)] {
        let answer = predicted(&mut client, "face_recognition", &json!({"instances": [instance]}));
        let prediction = &answer["predictions"][0];
        assert_eq!(keys(prediction), ["embedding", "embedding_norm"]);
        are_close(&prediction["embedding_norm"], &json!(1.0), 1e-5, "embedding_norm");
        let same = cosine(&prediction["embedding"], &golden["aligned_png_embedding"]);
        assert!(same >= 0.9999, "the embeddings' cosine is {same}");
    }
}

#[test]
fn every_protocol_of_tensors_finds_the_golden_face_and_counts_it() {
    let none = image("one_pixel.png");
    let mut first: Option<(&str, Faces)> = None;
    for (name, ask) in BY_TENSORS {
        let faces = ask(&SERVER, &[&none, &ASTRONAUT, &none]).unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
        assert_eq!(faces.counts, [0, 1, 0], "{name}");
        is_golden(&faces.record(0));
        let (by, same) = first.get_or_insert_with(|| (name, faces.clone()));
        for (got, want) in [(&faces.boxes, &same.boxes), (&faces.embeddings, &same.embeddings)] {
            assert_close(got, want, 1e-5, &format!("{name} beside {by}"));
        }
        let faces = ask(&SERVER, &[&none]).unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
        assert_eq!(faces.counts, [0], "{name}");
        assert_eq!((&**faces.boxes.shape(), &**faces.embeddings.shape()), (&[0, 4][..], &[0, 128][..]), "{name}");
    }
}

#[test]
fn torchserve_takes_the_photograph_as_it_is() {
    let mut client = SERVER.client();
    let multipart = [
        &b"--B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
            [..],
        &ASTRONAUT,
        b"\r\n--B--\r\n",
    ]
    .concat();
    for (method, headers, body) in [
        ("PUT", "", &ASTRONAUT[..]),
        ("POST", "content-type: image/png\r\n", &ASTRONAUT),
        ("POST", "content-type: multipart/form-data; boundary=B\r\n", &multipart),
        ("POST", "content-type: application/json\r\n", b64(&ASTRONAUT).to_string().as_bytes()),
    ] {
        client.send(Client::request(method, "/predictions/face_pipeline", headers, body));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{method} {headers}: {}", reply.text());
        is_golden(&reply.json()["faces"][0][0]);
    }
    let answer = ask::torchserve_grpc(&SERVER, &[("data", &ASTRONAUT)]).expect("it is answered");
    is_golden(&answer["faces"][0][0]);
    let refused = ask::torchserve_grpc(&SERVER, &[("data", b"no picture")]).expect_err("it is no picture");
    refused.names_instance(400, 0);
    client.send(Client::request("PUT", "/predictions/face_pipeline", "", &ASTRONAUT[..2000]));
    let reply = client.reply();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.json()["message"].as_str().unwrap().contains("instance 0"), "{}", reply.text());
}

#[test]
fn a_picture_that_cannot_be_decoded_fails_its_request_and_is_named() {
    let mut client = SERVER.client();
    let bad = b64(b"no picture at all");
    for model in ["face_detection", "face_recognition", "face_pipeline"] {
        let good = || b64(&image("one_pixel.png"));
        let instances = json!({"instances": [good(), bad]});
        predict(&mut client, model, &instances).refuses(400, "instance 1");
        predict(&mut client, model, &json!({"instances": ["some text", good()]})).refuses(400, "instance 0");
        predict(&mut client, model, &json!({"instances": [{"wrong": good()}]})).refuses(400, "`wrong`");
        predict(&mut client, model, &json!({"instances": []})).refuses(400, "instances");
        predict(&mut client, model, &json!({"inputs": [good(), good(), bad]})).refuses(400, "instance 2");
        predict(&mut client, model, &json!({"instances": [1]})).refuses(400, "is not of expected type");
    }
    for (name, ask) in BY_TENSORS {
        let pixel = image("one_pixel.png");
        let refused = ask(&SERVER, &[&pixel, b"no picture at all"]).expect_err(name);
        refused.names_instance(400, 1);
        let bomb = image("bombs/claims_65535.png");
        ask(&SERVER, &[&bomb, &pixel]).expect_err(name).names_instance(413, 0);
    }
}

#[test]
fn eight_clients_at_once_get_the_answer_that_one_gets() {
    let none = image("one_pixel.png");
    thread::scope(|scope| {
        for index in 0..8 {
            let none = &none;
            scope.spawn(move || {
                let instances = if index % 2 == 0 {
                    json!([b64(&ASTRONAUT), b64(none)])
                } else {
                    json!([b64(none), b64(&ASTRONAUT)])
                };
                let answer = predicted(&mut SERVER.client(), "face_pipeline", &json!({ "instances": instances }));
                let faces = |at: usize| answer["predictions"][at]["faces"].as_array().unwrap();
                let (with, without) = (faces(index % 2), faces(1 - index % 2));
                assert_eq!((with.len(), without.len()), (1, 0));
                is_golden(&with[0]);
            });
        }
    });
}

#[test]
fn metadata_tells_what_pictures_go_in_and_ragged_rows_come_out() {
    let mut client = SERVER.client();
    let oip = client.get("/v2/models/face_pipeline").json();
    assert_eq!(oip["inputs"], json!([{"name": "image", "datatype": "BYTES", "shape": [-1]}]));
    let shapes: Vec<_> = oip["outputs"].as_array().unwrap().iter().map(|output| output["shape"].clone()).collect();
    assert_eq!(shapes, [json!([-1]), json!([-1, 4]), json!([-1]), json!([-1, 5, 2]), json!([-1, 128])]);
    let document = client.get("/openapi.json").json();
    let answer = &document["paths"]["/v1/models/face_pipeline:predict"]["post"]["responses"]["200"];
    let rows = &answer["content"]["application/json"]["schema"]["oneOf"][0]["properties"]["predictions"]["items"];
    assert_eq!(keys(&rows["properties"]), ["faces"]);
    assert_eq!(
        rows["properties"]["faces"]["items"]["required"],
        json!(["bbox", "confidence", "landmarks", "embedding"])
    );
}

/// The refusal names this instance, whatever the protocol.
impl Refused {
    #[track_caller]
    fn names_instance(&self, http_status: u16, index: usize) {
        assert_eq!(self.http_status, http_status, "{}", self.text);
        assert!(self.text.contains(&format!("instance {index}")), "{}", self.text);
    }
}
