//! Requests that no model's owner would send, by the rows of what must hold: a refusal with the right code and the right
//! words, and the next request is answered as if nothing had been.

use bytes::Bytes;
use millrace_core::{DType, MAX_RANK};
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use millrace_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use prost::Message;
use prost::encoding::encode_varint;
use tonic::Code;

use crate::harness::{Models, TestServer, framed, spec};
use crate::oip::{INFER, floats, input, models, parameter, request};

/// Asks for each change of a good request and wants each refused with words, and then a good one answered.
async fn refused(server: &TestServer, cases: Vec<(&str, ModelInferRequest)>) {
    for (words, request) in cases {
        server.ask(INFER, &request).await.refuses(Code::InvalidArgument, words);
    }
    let answer: ModelInferResponse = server.ask(INFER, &request(&[1.0, 2.0, 5.0])).await.gives();
    assert_eq!(floats(&answer.raw_output_contents[0]), [3.5, 4.0, 5.5]);
}

fn changed(change: impl FnOnce(&mut ModelInferRequest)) -> ModelInferRequest {
    let mut request = request(&[1.0, 2.0, 5.0]);
    change(&mut request);
    request
}

fn shaped(shape: &[i64]) -> ModelInferRequest {
    changed(|request| request.inputs[0].shape = shape.to_vec())
}

fn typed(contents: InferTensorContents) -> ModelInferRequest {
    changed(|request| {
        request.raw_input_contents.clear();
        request.inputs[0].contents = Some(contents);
    })
}

#[tokio::test]
async fn row_09_elements_in_the_wrong_list_or_in_two() {
    let server = TestServer::new(models());
    let (fp32_contents, int_contents) = (vec![1.0, 2.0, 5.0], vec![1, 2, 5]);
    let wrong = InferTensorContents { int_contents: int_contents.clone(), ..Default::default() };
    let two = InferTensorContents { fp32_contents, int_contents, ..Default::default() };
    refused(&server, vec![("int_contents", typed(wrong)), ("int_contents", typed(two))]).await;
}

#[tokio::test]
async fn row_11_too_few_or_too_many_elements() {
    let server = TestServer::new(models());
    let list = |n: usize| typed(InferTensorContents { fp32_contents: vec![1.0; n], ..Default::default() });
    let raw = |n: usize| changed(|request| request.raw_input_contents[0] = vec![0; n].into());
    refused(
        &server,
        vec![
            ("expected 3 elements, got 2", list(2)),
            ("expected 3 elements, got 4", list(4)),
            ("Expected 12, got 11", raw(11)),
            ("Expected 12, got 16", raw(16)),
        ],
    )
    .await;
}

#[tokio::test]
async fn rows_12_to_16_shapes_that_are_none() {
    let server = TestServer::new(models());
    refused(
        &server,
        vec![
            ("'x'", shaped(&[1 << 62, 4])),
            ("overflow", shaped(&[1 << 32, 1 << 32])),
            ("overflow", shaped(&[16, (1 << 60) + 2])),
            ("Expected 4398046511104, got 12", shaped(&[1 << 40])),
            ("-1", shaped(&[-1])),
            ("-2", shaped(&[-2, -2])),
            ("'x'", shaped(&[i64::MIN])),
            ("'x'", shaped(&[i64::MAX])),
            ("overflow", shaped(&[0, 1 << 62, 4])),
            ("'x'", shaped(&[])),
            ("'x'", shaped(&[3, 1])),
        ],
    )
    .await;
    let mut empty = shaped(&[0]);
    empty.raw_input_contents[0] = Bytes::new();
    server.ask(INFER, &empty).await.refuses(Code::InvalidArgument, "0 rows");
}

#[tokio::test]
async fn row_17_a_rank_of_a_million() {
    let server = TestServer::new(models());
    let most = i64::try_from(MAX_RANK).unwrap();
    refused(
        &server,
        vec![
            ("rank 1000000 is above the limit", shaped(&vec![1; 1_000_000])),
            ("rank 33 is above the limit", shaped(&vec![1; usize::try_from(most).unwrap() + 1])),
        ],
    )
    .await;
}

#[tokio::test]
async fn row_18_datatypes_that_are_unknown_or_not_the_models() {
    let server = TestServer::new(models());
    let datatype = |text: &str| changed(|request| request.inputs[0].datatype = text.to_owned());
    refused(
        &server,
        vec![
            ("expects 'FP32'", datatype("FP128")),
            ("expects 'FP32'", datatype("fp32")),
            ("expects 'FP32'", datatype("")),
            ("'INT32'", datatype("INT32")),
            ("expects 'FP32'", datatype(&"F".repeat(1 << 20))),
        ],
    )
    .await;
}

#[tokio::test]
async fn row_19_inputs_that_are_missing_unknown_or_doubled() {
    let server = TestServer::new(models());
    let named = |name: &str| changed(|request| request.inputs[0].name = name.to_owned());
    let twice = changed(|request| {
        request.inputs.push(request.inputs[0].clone());
        request.raw_input_contents.push(request.raw_input_contents[0].clone());
    });
    let none = changed(|request| {
        request.inputs.clear();
        request.raw_input_contents.clear();
    });
    refused(
        &server,
        vec![
            ("missing required input(s) ['x']", none),
            ("unexpected inference input 'z'", named("z")),
            ("'x' already exists", twice),
            ("unexpected inference input ''", named("")),
            ("unexpected inference input 'x\\u{0}'", named("x\0")),
        ],
    )
    .await;
}

#[tokio::test]
async fn row_20_outputs_that_are_unknown_or_doubled() {
    let server = TestServer::new(models());
    let asks = |names: &[&str]| {
        let one = |name: &&str| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() };
        changed(|request| request.outputs = names.iter().map(one).collect())
    };
    refused(
        &server,
        vec![
            ("unexpected inference output 'z'", asks(&["z"])),
            ("output 'y' already requested", asks(&["y", "y"])),
            ("unexpected inference output ''", asks(&[""])),
        ],
    )
    .await;
}

#[tokio::test]
async fn row_21_two_hundred_thousand_inputs_outputs_or_parameters() {
    let server = TestServer::new(models());
    let inputs = changed(|request| request.inputs = vec![InferInputTensor::default(); 200_000]);
    let outputs = changed(|request| request.outputs = vec![InferRequestedOutputTensor::default(); 200_000]);
    let raw = changed(|request| request.raw_input_contents = vec![Bytes::new(); 200_000]);
    let numbered = |n: u32| (n.to_string(), parameter(ParameterChoice::BoolParam(true)));
    let parameters = changed(|request| request.parameters = (0..5000).map(numbered).collect());
    let on_input = changed(|request| request.inputs[0].parameters = (0..5000).map(numbered).collect());
    let id = changed(|request| request.id = "i".repeat(1 << 20));
    server.ask(INFER, &id).await.refuses(Code::InvalidArgument, "longer than 65536 bytes");
    let more = "more than 4096 times";
    refused(&server, vec![(more, inputs), (more, outputs), (more, raw), (more, parameters), (more, on_input)]).await;
}

#[tokio::test]
async fn row_24_raw_data_and_contents_both() {
    let server = TestServer::new(models());
    let contents = InferTensorContents { fp32_contents: vec![1.0, 2.0, 5.0], ..Default::default() };
    let both = changed(|request| request.inputs[0].contents = Some(contents));
    refused(&server, vec![("raw_input_contents", both)]).await;
    // Contents without anything in them are as good as none; some clients always send them.
    let empty = changed(|request| request.inputs[0].contents = Some(InferTensorContents::default()));
    let _answer: ModelInferResponse = server.ask(INFER, &empty).await.gives();
}

#[tokio::test]
async fn row_25_too_few_or_too_many_raw_entries() {
    let server = TestServer::new(models());
    let with = |n: usize| {
        changed(|request| {
            let one = request.raw_input_contents[0].clone();
            request.raw_input_contents = vec![one; n];
        })
    };
    refused(
        &server,
        vec![
            ("unable to find data for input tensor 'x'", with(0)),
            ("expected 1 entries of raw_input_contents for model 'half_plus_two', got 2", with(2)),
            ("got 1001", with(1001)),
        ],
    )
    .await;
}

#[tokio::test]
async fn row_27_strings_that_reach_past_the_end() {
    let server = TestServer::new(models().identity("text", vec![spec("t", DType::Bytes, &[-1])]));
    let text = |raw: &'static [u8]| ModelInferRequest {
        model_name: "text".to_owned(),
        inputs: vec![input("t", "BYTES", &[2])],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    };
    refused(
        &server,
        vec![
            ("element 1 of 9 bytes reaches past the end", text(b"\x01\0\0\0a\x09\0\0\0b")),
            ("element 0 of 4294967295 bytes", text(b"\xff\xff\xff\xffabcd")),
            ("expected 2 of them", text(b"\x01\0\0\0")),
            ("bytes follow the last", text(b"\0\0\0\0\0\0\0\0x")),
        ],
    )
    .await;
    let many = ModelInferRequest { inputs: vec![input("t", "BYTES", &[1 << 40])], ..text(b"") };
    server.ask(INFER, &many).await.refuses(Code::InvalidArgument, "expected 1099511627776 of them");
}

#[tokio::test]
async fn half_floats_have_no_typed_list_and_numbers_must_fit() {
    let inputs = vec![spec("h", DType::Fp16, &[-1]), spec("i", DType::Int8, &[-1])];
    let server = TestServer::new(Models::new().identity("m", inputs));
    let int8 = |value: i32| InferInputTensor {
        contents: Some(InferTensorContents { int_contents: vec![value], ..Default::default() }),
        ..input("i", "INT8", &[1])
    };
    let half = InferInputTensor {
        contents: Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() }),
        ..input("h", "FP16", &[1])
    };
    let ask = |inputs| ModelInferRequest { model_name: "m".to_owned(), inputs, ..Default::default() };
    server.ask(INFER, &ask(vec![half])).await.refuses(Code::InvalidArgument, "raw_input_contents");
    server.ask(INFER, &ask(vec![int8(300)])).await.refuses(Code::InvalidArgument, "300 does not fit in INT8");
    server.ask(INFER, &ask(vec![int8(-129)])).await.refuses(Code::InvalidArgument, "-129 does not fit in INT8");
}

#[tokio::test]
async fn rows_51_and_52_names_and_versions_that_are_none() {
    let server = TestServer::new(models());
    for name in ["..", "../etc", "%2e%2e", "\u{ff0e}\u{ff0e}", "a\r\nb", "a\0", &"n".repeat(8000)] {
        let answer = server.ask(INFER, &changed(|request| request.model_name = name.to_owned())).await;
        answer.refuses(Code::NotFound, "not found");
        assert!(answer.text().len() < 1000, "a long name is cut");
        assert!(!answer.text().contains(['\r', '\n']));
    }
    for (version, code) in [
        ("0", Code::NotFound),
        ("-1", Code::InvalidArgument),
        ("01", Code::InvalidArgument),
        ("1.0", Code::InvalidArgument),
        ("18446744073709551616", Code::InvalidArgument),
        ("\u{661}", Code::InvalidArgument),
    ] {
        server.ask(INFER, &changed(|request| request.model_version = version.to_owned())).await.refuses(code, "");
    }
}

/// `depth` groups inside of each other, or messages inside of field 5.
fn nested(depth: usize, is_group: bool) -> Vec<u8> {
    if is_group {
        return [vec![0x0b; depth], vec![0x0c; depth]].concat();
    }
    let mut message = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![0x2a];
        encode_varint(message.len() as u64, &mut outer);
        outer.extend_from_slice(&message);
        message = outer;
    }
    message
}

#[tokio::test]
async fn row_48_protobuf_that_is_none_cut_or_nested_without_end() {
    let server = TestServer::new(models());
    let good = request(&[1.0]).encode_to_vec();
    let mut messages: Vec<Vec<u8>> = (1..good.len()).map(|length| good[..length].to_vec()).collect();
    messages.extend([
        nested(100_000, true),
        nested(9000, false),
        vec![0xff; 1000],
        vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x07],
        vec![0x08, 0x01],
        b"\x0a\x02\xff\xfe".to_vec(),
    ]);
    let methods = [INFER, "/inference.GRPCInferenceService/RepositoryModelLoad", "/grpc.health.v1.Health/Check"];
    for message in messages {
        for method in methods {
            let answer = server.send(method, &[], [framed(&message)]).await;
            // Some cut requests are requests, for nothing is required by protobuf itself.
            assert!(matches!(answer.code(), 0 | 3 | 5 | 7), "{method} {}: {}", answer.code(), answer.text());
        }
    }
    let ready = "/inference.GRPCInferenceService/ModelReady";
    let groups = server.send(ready, &[], [framed(&nested(100_000, true))]).await;
    groups.refuses(Code::InvalidArgument, "cannot be decoded");
    // No message of this protocol holds itself: what lies deep in an unknown field is skipped with it.
    let unknown = server.send(ready, &[], [framed(&nested(9000, false))]).await;
    unknown.refuses(Code::NotFound, "''");
}
