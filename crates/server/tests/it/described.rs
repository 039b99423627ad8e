//! What a `model.toml` makes of a folder, seen from the command line: declared inputs, and pipelines over models.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use millrace_testkit::{Case, fixture};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Process, millrace, output, serve};

/// The first digit of the fixtures as a picture of 8 x 8 grey pixels, as a request, and its class.
fn digit() -> (String, usize) {
    let case = Case::of("digits").remove(0);
    let pixels = case.inputs[0].1.elements::<f32>().unwrap().into_owned();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shades are whole, from 0 to 16")]
    let bytes: Vec<u8> = pixels[..64].iter().map(|shade| (shade * 255.0 / 16.0).round() as u8).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 8, 8);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    let body = json!({"instances": [{"b64": base64_simd::STANDARD.encode_to_string(file)}]});
    let expected = case.outputs[0].1.elements::<f32>().unwrap().into_owned();
    (body.to_string(), likeliest(expected[..10].iter().map(|value| f64::from(*value))))
}

fn likeliest(row: impl Iterator<Item = f64>) -> usize {
    row.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
}

/// The class of the one instance in an answer of TensorFlow Serving's form.
fn class(answer: &Value) -> usize {
    let row = answer["predictions"][0].as_array().unwrap_or_else(|| panic!("{answer}"));
    likeliest(row.iter().map(|value| value.as_f64().unwrap()))
}

fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn predict(model: &str, body: &str) -> Output {
    let mut child = millrace()
        .arg("predict")
        .arg(fixture(model))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn serve_prints_a_request_with_a_picture_that_works() {
    let process = Process::start(&mut serve(fixture("image-models")));
    let printed = process.printed_until(|line| line.contains("/digits:predict"));
    let table = printed.join("\n");
    assert!(table.contains("image BYTES[N] → probabilities FP32[N,10]"), "{table}");
    let line = printed.last().unwrap();
    let body = line.split('\'').nth(1).unwrap_or_else(|| panic!("{line}"));
    let mut client = Client::connect(process.address);
    assert_eq!(client.post("/v1/models/digits:predict", body).status, 200, "{line}");
    let (body, expected) = digit();
    assert_eq!(class(&client.post("/v1/models/digits:predict", body).json()), expected);
}

#[test]
fn a_model_that_takes_pictures_is_inspected_and_asked_without_a_server() {
    let folder = fixture("image-models/digits");
    let shown = ok(&output(millrace().arg("inspect").arg(&folder)));
    for line in ["inputs    image BYTES[N]", "network   image FP32[N,1,8,8]", "backend   tract", "operators "] {
        assert!(shown.contains(line), "no `{line}` in\n{shown}");
    }
    // The version's own folder is the network alone.
    let plain = ok(&output(millrace().arg("inspect").arg(folder.join("1"))));
    assert!(plain.contains("inputs    image FP32[N,1,8,8]") && !plain.contains("BYTES"), "{plain}");

    let sample = ok(&output(millrace().arg("inspect").arg(&folder).arg("--sample")));
    ok(&predict("image-models/digits", &sample));
    let (body, expected) = digit();
    let answer = ok(&predict("image-models/digits", &body));
    assert_eq!(class(&serde_json::from_str(&answer).unwrap()), expected);
    let wrong = predict("image-models/digits", r#"{"instances": [{"b64": "AAAA"}]}"#);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("instance 0"), "{wrong:?}");

    let table = ok(&output(millrace().arg("check").arg(fixture("image-models"))));
    assert!(table.contains("image BYTES[N] →"), "{table}");
}

#[test]
fn a_pipeline_is_inspected_and_asked_with_the_models_beside_it() {
    let folder = fixture("face-models/face_detection");
    let shown = ok(&output(millrace().arg("inspect").arg(&folder)));
    for line in
        ["pipeline  face_detection", "onet = mtcnn_onet", "pnet = mtcnn_pnet", "image BYTES[N]", "face_count INT32[N]"]
    {
        assert!(shown.contains(line), "no `{line}` in\n{shown}");
    }
    let sample = ok(&output(millrace().arg("inspect").arg(&folder).arg("--sample")));
    let answer: Value = serde_json::from_str(&ok(&predict("face-models/face_detection", &sample))).unwrap();
    assert_eq!(answer["predictions"].as_array().map(Vec::len), Some(1), "{answer}");
}

#[test]
fn what_is_wrong_with_a_pipeline_is_said_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let pipeline = |name: &str, text: &str| {
        let folder = folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("model.toml"), format!("kind = \"pipeline\"\n{text}")).unwrap();
    };
    pipeline("lonely", "pipeline = \"face_recognition\"\n[models]\nembedding = \"nobody\"\n");
    pipeline("typo", "pipline = \"face_recognition\"\n");
    pipeline("unknown", "pipeline = \"faces\"\n");
    let check = output(millrace().arg("check").arg(folder.path()));
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    let problem = |name: &str| said.lines().find(|line| line.starts_with(&format!("problem: {name} "))).unwrap();
    assert!(problem("lonely").contains("nobody") && problem("lonely").contains(" → "), "{said}");
    assert!(problem("typo").contains("model.toml, line 2, column 1"), "{said}");
    assert!(problem("unknown").contains("expected one of face_detection, face_recognition, face_pipeline"), "{said}");

    for command in ["inspect", "predict"] {
        let alone = output(millrace().arg(command).arg(folder.path().join("lonely")).stdin(Stdio::null()));
        assert_eq!(alone.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&alone.stderr).contains("nobody"), "{alone:?}");
        let typo = output(millrace().arg(command).arg(folder.path().join("typo")).stdin(Stdio::null()));
        assert!(String::from_utf8_lossy(&typo.stderr).contains("line 2, column 1"), "{typo:?}");
    }
}
