//! Models whose answers differ in their number of rows from instance to instance, and whose inputs are pictures: tensors with
//! their counts over the Open Inference Protocol and TensorFlow Serving, JSON over TorchServe.

use bytes::Bytes;
use millrace_core::{InferFuture, ModelName};
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::model_infer_request::InferRequestedOutputTensor;
use millrace_proto::inference::{
    InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
};
use millrace_proto::org::pytorch::serve::grpc::inference::{PredictionResponse, PredictionsRequest};
use millrace_proto::tensorflow::TensorProto;
use millrace_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, PredictResponse, SignatureDefMap,
};
use millrace_testkit::FakeFaces;
use prost::Message as _;
use tonic::Code;

use crate::harness::{Models, TestServer, answered};
use crate::oip::{INFER, client, floats, input, parameter};
use crate::tfs::{PREDICT, proto, request, spec_of};

const PREDICTIONS: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";

fn models() -> Models {
    let model: ModelName = "faces".parse().unwrap();
    Models::new().version("faces", 1, FakeFaces::Records.signature(), move |request| {
        match FakeFaces::Records.find(&model, &request) {
            Ok(outputs) => answered(outputs),
            Err(refusal) => InferFuture::refused(refusal),
        }
    })
}

/// A request whose pictures are raw.
fn infer(pictures: &[&str]) -> ModelInferRequest {
    let prefixed = |picture: &&str| [&u32::try_from(picture.len()).unwrap().to_le_bytes(), picture.as_bytes()].concat();
    ModelInferRequest {
        model_name: "faces".to_owned(),
        inputs: vec![input("image", "BYTES", &[i64::try_from(pictures.len()).unwrap()])],
        raw_input_contents: vec![pictures.iter().flat_map(prefixed).collect::<Vec<u8>>().into()],
        ..ModelInferRequest::default()
    }
}

fn output(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.to_owned(), ..InferRequestedOutputTensor::default() }
}

/// Names, datatypes and shapes of the outputs.
fn described(answer: &ModelInferResponse) -> Vec<(&str, &str, &[i64])> {
    answer.outputs.iter().map(|it| (it.name.as_str(), it.datatype.as_str(), it.shape.as_slice())).collect()
}

fn integers(raw: &[u8]) -> Vec<i32> {
    raw.chunks_exact(4).map(|chunk| i32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

#[tokio::test]
async fn the_open_inference_protocol_has_tensors_and_their_counts() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let answer = client.model_infer(infer(&["1", "0", "2"])).await.unwrap().into_inner();
    let shapes = [("bbox", "FP32", &[3, 4][..]), ("confidence", "FP32", &[3]), ("counts", "INT32", &[3])];
    assert_eq!(described(&answer), shapes);
    assert_eq!(floats(&answer.raw_output_contents[0])[8..], [1.0, 1.0, 1.5, 1.5]);
    assert_eq!(floats(&answer.raw_output_contents[1]), [1.0, 1.0, 0.5]);
    assert_eq!(integers(&answer.raw_output_contents[2]), [1, 0, 2]);

    let picked = ModelInferRequest { outputs: vec![output("counts"), output("bbox")], ..infer(&["0"]) };
    let answer = client.model_infer(picked).await.unwrap().into_inner();
    assert_eq!(described(&answer), [("counts", "INT32", &[1][..]), ("bbox", "FP32", &[0, 4])]);
    assert_eq!((integers(&answer.raw_output_contents[0]), answer.raw_output_contents[1].len()), (vec![0], 0));

    let mut typed = infer(&["2"]);
    typed.raw_input_contents.clear();
    let contents = InferTensorContents { bytes_contents: vec![b"2"[..].into()], ..InferTensorContents::default() };
    typed.inputs[0].contents = Some(contents);
    let answer = client.model_infer(typed).await.unwrap().into_inner();
    assert_eq!(integers(&answer.raw_output_contents[2]), [2]);
}

#[tokio::test]
async fn axes_that_nobody_knows_beforehand_are_minus_one() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let name = || "faces".to_owned();
    let metadata = ModelMetadataRequest { name: name(), ..ModelMetadataRequest::default() };
    let outputs = client.model_metadata(metadata).await.unwrap().into_inner().outputs;
    let shapes: Vec<_> = outputs.iter().map(|output| output.shape.as_slice()).collect();
    assert_eq!(shapes, [&[-1, 4][..], &[-1], &[-1]]);
    let config = ModelConfigRequest { name: name(), ..ModelConfigRequest::default() };
    let config = client.model_config(config).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (8, &[][..]));
    let dims: Vec<_> = config.output.iter().map(|output| output.dims.as_slice()).collect();
    assert_eq!(dims, [&[4][..], &[], &[]], "clients put an axis in front");

    let metadata_field = vec!["signature_def".to_owned()];
    let request = GetModelMetadataRequest { model_spec: Some(spec_of("faces")), metadata_field };
    let answer: GetModelMetadataResponse = server.ask(METADATA, &request).await.gives();
    let map = SignatureDefMap::decode(&*answer.metadata["signature_def"].value).unwrap();
    let bbox = map.signature_def["serving_default"].outputs["bbox"].tensor_shape.clone().unwrap();
    assert_eq!(bbox.dim.iter().map(|dim| dim.size).collect::<Vec<_>>(), [-1, 4]);
}

fn pictures(pictures: &[&str]) -> TensorProto {
    let string_val = pictures.iter().map(|picture| Bytes::copy_from_slice(picture.as_bytes())).collect();
    TensorProto { string_val, ..proto(7, &[i64::try_from(pictures.len()).unwrap()]) }
}

fn sizes(tensor: &TensorProto) -> Vec<i64> {
    tensor.tensor_shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect()
}

#[tokio::test]
async fn tensorflow_serving_has_tensors_and_their_counts() {
    let server = TestServer::new(models());
    let mut asked = request("faces", [("image", pictures(&["1", "0", "2"]))]);
    let answer: PredictResponse = server.ask(PREDICT, &asked).await.gives();
    assert_eq!(answer.outputs.len(), 3);
    assert_eq!((sizes(&answer.outputs["bbox"]), answer.outputs["bbox"].float_val.len()), (vec![3, 4], 12));
    assert_eq!(answer.outputs["confidence"].float_val, [1.0, 1.0, 0.5]);
    assert_eq!(
        (sizes(&answer.outputs["counts"]), answer.outputs["counts"].int_val.as_slice()),
        (vec![3], &[1, 0, 2][..])
    );
    asked.output_filter = vec!["bbox".to_owned()];
    let answer: PredictResponse = server.ask(PREDICT, &asked).await.gives();
    assert_eq!(answer.outputs.keys().collect::<Vec<_>>(), ["bbox"]);
    asked.inputs.insert("image".to_owned(), pictures(&["0"]));
    let answer: PredictResponse = server.ask(PREDICT, &asked).await.gives();
    assert_eq!(sizes(&answer.outputs["bbox"]), [0, 4]);
}

fn predictions(parts: &[(&str, &str)]) -> PredictionsRequest {
    let part = |(name, bytes): &(&str, &str)| ((*name).to_owned(), Bytes::copy_from_slice(bytes.as_bytes()));
    PredictionsRequest {
        model_name: "faces".to_owned(),
        input: parts.iter().map(part).collect(),
        ..PredictionsRequest::default()
    }
}

#[tokio::test]
async fn torchserve_takes_pictures_as_they_are_and_answers_in_objects() {
    let server = TestServer::new(models());
    let expected = r#"{"faces":[[{"bbox":[0.0,0.0,0.5,0.5],"confidence":1.0}]]}"#;
    for parts in [("data", "1"), ("image", "1"), ("data", r#"{"b64": "MQ=="}"#), ("data", r#"["1"]"#)] {
        let answer: PredictionResponse = server.ask(PREDICTIONS, &predictions(&[parts])).await.gives();
        assert_eq!(answer.prediction, expected, "{parts:?}");
    }
    let none: PredictionResponse = server.ask(PREDICTIONS, &predictions(&[("data", "0")])).await.gives();
    assert_eq!(none.prediction, r#"{"faces":[[]]}"#);
    let lie = server.ask(PREDICTIONS, &predictions(&[("data", "lie")])).await;
    lie.refuses(Code::Internal, "output `bbox`: `counts` counts 2 rows of it, it has 1");
}

#[tokio::test]
async fn what_is_no_picture_is_refused_with_its_index() {
    let server = TestServer::new(models());
    let mut classified = infer(&["1"]);
    let choice = parameter(ParameterChoice::Int64Param(1));
    classified.outputs = vec![InferRequestedOutputTensor {
        parameters: [("classification".to_owned(), choice)].into(),
        ..output("bbox")
    }];
    server.ask(INFER, &classified).await.refuses(Code::InvalidArgument, "output 'bbox' cannot be classified");
    for (second, code, words) in [
        ("zzz", Code::InvalidArgument, "input `image`, instance 1: the bytes are no picture"),
        ("large", Code::ResourceExhausted, "instance 1: more pixels than the limit"),
    ] {
        server.ask(INFER, &infer(&["1", second])).await.refuses(code, words);
        let asked = request("faces", [("image", pictures(&["1", second]))]);
        server.ask(PREDICT, &asked).await.refuses(code, words);
        let list = format!(r#"["1", "{second}"]"#);
        server.ask(PREDICTIONS, &predictions(&[("data", &list)])).await.refuses(code, words);
    }
}
