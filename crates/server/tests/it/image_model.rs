//! An ordinary image model that takes picture files, with nothing but a declaration in its `model.toml`.

use std::fs;

use base64_simd::STANDARD;
use millrace_core::Tensor;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{ModelInferRequest, ModelInferResponse};
use millrace_testkit::{Case, fixture};
use serde_json::{Value, json};

use crate::support::grpc::code;
use crate::support::json::{self, Text};
use crate::support::{Client, Grpc, TestServer};

/// A grey picture of 8 bits as a PNG file.
fn grey_png(side: u32, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    file
}

/// A digit of the golden case as a file. Its pixels are 0 to 16.
fn digit(case: &Case, row: usize) -> Vec<u8> {
    let pixels = case.inputs[0].1.rows(row..row + 1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 16 becomes 0 to 255")]
    let grey: Vec<u8> =
        pixels.elements::<f32>().unwrap().iter().map(|pixel| (pixel * 255.0 / 16.0).round() as u8).collect();
    grey_png(8, &grey)
}

/// The golden answer to a digit, up to what rounding to 256 shades of grey makes of it.
#[track_caller]
fn is_digit(probabilities: &[f32], case: &Case, row: usize) {
    let want = case.outputs[0].1.rows(row..row + 1);
    let want = want.elements::<f32>().unwrap();
    assert_eq!(probabilities.len(), 10);
    for (got, want) in probabilities.iter().zip(want.iter()) {
        assert!((got - want).abs() < 0.01, "{probabilities:?} is not {want:?}");
    }
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

/// The digits, eight in one case and one in another.
fn cases() -> Vec<Case> {
    Case::of("digits")
}

#[test]
fn the_digits_answer_to_posted_pictures_by_every_protocol() {
    let server = TestServer::folder(&fixture("image-models"), |_| {});
    let (mut client, grpc) = (server.client(), Grpc::connect(server.address()));
    let cases = cases();
    assert_eq!(cases.len(), 2);
    for case in &cases {
        let rows = case.inputs[0].1.shape()[0];
        let files: Vec<_> = (0..rows).map(|row| digit(case, row)).collect();
        let b64 = |file: &Vec<u8>| json!({"b64": STANDARD.encode_to_string(file)});
        let named = |file: &Vec<u8>| json!({"image": b64(file)});
        for instances in [files.iter().map(b64).collect::<Value>(), files.iter().map(named).collect()] {
            let body = json!({ "instances": instances }).to_string();
            let reply = client.post("/v1/models/digits:predict", body);
            assert_eq!(reply.status, 200, "{}", reply.text());
            let predictions = reply.json()["predictions"].as_array().unwrap().clone();
            assert_eq!(predictions.len(), rows);
            (0..rows).for_each(|row| is_digit(&floats(&predictions[row]), case, row));
        }
        client.send(Client::request("PUT", "/predictions/digits", "", &files[0]));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{}", reply.text());
        is_digit(&floats(&reply.json()[0]), case, 0);

        let prefixed =
            files.iter().flat_map(|file| [&u32::try_from(file.len()).unwrap().to_le_bytes(), &**file].concat());
        let request = ModelInferRequest {
            model_name: "digits".to_owned(),
            inputs: vec![InferInputTensor {
                name: "image".to_owned(),
                datatype: "BYTES".to_owned(),
                shape: vec![i64::try_from(rows).unwrap()],
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![prefixed.collect::<Vec<u8>>().into()],
            ..ModelInferRequest::default()
        };
        let answer: ModelInferResponse = grpc.ask("/inference.GRPCInferenceService/ModelInfer", &request).ok();
        let probabilities = Tensor::new(
            millrace_core::DType::Fp32,
            millrace_core::Shape::new(&[rows, 10]).unwrap(),
            answer.raw_output_contents[0].clone(),
        );
        let probabilities = probabilities.unwrap();
        for row in 0..rows {
            is_digit(&probabilities.rows(row..row + 1).elements::<f32>().unwrap(), case, row);
        }
        let mut wrong = request;
        wrong.raw_input_contents = vec![b"\x02\0\0\0no"[..].into()];
        wrong.inputs[0].shape = vec![1];
        let ended = grpc.ask("/inference.GRPCInferenceService/ModelInfer", &wrong);
        ended.refuses(code::INVALID_ARGUMENT, "input `image`, instance 0: ");
    }
}

#[test]
fn what_is_no_picture_is_refused_and_numbers_go_by_the_signature_of_tensors() {
    let server = TestServer::folder(&fixture("image-models"), |_| {});
    let mut client = server.client();
    let cases = cases();
    let file = digit(&cases[0], 0);
    let path = "/v1/models/digits:predict";
    let b64 = |bytes: &[u8]| json!({"b64": STANDARD.encode_to_string(bytes)});
    let bomb = fs::read(fixture("images/bombs/claims_65535.png")).unwrap();
    for (second, words) in [
        (b64(b"no picture"), "input `image`, instance 1: "),
        (b64(&file[..60]), "input `image`, instance 1: "),
        (b64(&bomb), "input `image`, instance 1: 65535x65535 pixels"),
        (json!("text"), "input `image`, instance 1: "),
    ] {
        let body = json!({"instances": [b64(&file), second]}).to_string();
        client.post(path, body).refuses(400, words);
    }
    client.post(path, json!({"instances": [{"img": b64(&file)}]}).to_string()).refuses(400, "`img`");
    let pixels = json::nested(&cases[0].inputs[0].1, Text::Plain);
    client.post(path, format!("{{\"instances\": {pixels}}}")).refuses(400, "image");
    let body = format!("{{\"signature_name\": \"tensors\", \"instances\": {pixels}}}");
    let reply = client.post(path, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    is_digit(&floats(&reply.json()["predictions"][0]), &cases[0], 0);
}
