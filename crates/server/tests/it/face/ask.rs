//! `face_pipeline` in the words of each protocol that sends tensors, and of TorchServe's gRPC.

use bytes::Bytes;
use http::StatusCode;
use millrace_core::{DType, Shape, Tensor};
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use millrace_proto::org::pytorch::serve::grpc::inference::{PredictionResponse, PredictionsRequest};
use millrace_proto::tensorflow::serving::{ModelSpec, PredictRequest, PredictResponse};
use millrace_proto::tensorflow::tensor_shape_proto::Dim;
use millrace_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use serde_json::{Value, json};

use crate::support::grpc::{Ended, code};
use crate::support::{Client, Grpc, TestServer};

const MODEL: &str = "face_pipeline";
const LENGTH: &str = "inference-header-content-length";

/// What came back.
#[derive(Debug, Clone)]
pub(super) struct Faces {
    pub(super) counts: Vec<i32>,
    pub(super) boxes: Tensor,
    pub(super) confidences: Tensor,
    pub(super) landmarks: Tensor,
    pub(super) embeddings: Tensor,
}

/// Why nothing did.
#[derive(Debug)]
pub(super) struct Refused {
    /// For gRPC, the status that means the same.
    pub(super) http_status: u16,
    pub(super) text: String,
}

type Ask = fn(&TestServer, &[&[u8]]) -> Result<Faces, Refused>;

/// The protocols of tensors.
pub(super) const BY_TENSORS: [(&str, Ask); 5] = [
    ("OIP REST, binary", |server, pictures| rest(server, pictures, true)),
    ("OIP REST, JSON", |server, pictures| rest(server, pictures, false)),
    ("OIP gRPC, raw", |server, pictures| grpc(server, pictures, true)),
    ("OIP gRPC, typed", |server, pictures| grpc(server, pictures, false)),
    ("TFS gRPC", tfs),
];

impl Faces {
    /// From outputs by name.
    #[track_caller]
    fn new(outputs: &[(String, Tensor)]) -> Self {
        assert_eq!(outputs.len(), 5);
        let find = |wanted: &str| outputs.iter().find(|(name, _)| name == wanted).expect(wanted).1.clone();
        Self {
            counts: find("face_count").elements::<i32>().expect("it is INT32").into_owned(),
            boxes: find("bbox"),
            confidences: find("confidence"),
            landmarks: find("landmarks"),
            embeddings: find("embedding"),
        }
    }

    /// Face `index` as a record.
    pub(super) fn record(&self, index: usize) -> Value {
        let row = |tensor: &Tensor| json!(tensor.rows(index..index + 1).elements::<f32>().expect("it is FP32"));
        json!({
            "bbox": row(&self.boxes), "confidence": row(&self.confidences)[0],
            "landmarks": row(&self.landmarks), "embedding": row(&self.embeddings),
        })
    }
}

/// Pictures as the raw tensors of the Open Inference Protocol: a length and the bytes, each.
fn prefixed(pictures: &[&[u8]]) -> Vec<u8> {
    let one = |picture: &&[u8]| [&u32::try_from(picture.len()).expect("it is small").to_le_bytes(), *picture].concat();
    pictures.iter().flat_map(one).collect()
}

fn count<T: TryFrom<usize>>(pictures: &[&[u8]]) -> T {
    T::try_from(pictures.len()).ok().expect("they are few")
}

fn unraw(datatype: &str, sizes: &[usize], bytes: Bytes) -> Tensor {
    let dtype = datatype.parse().expect("a dtype of ours");
    Tensor::new(dtype, Shape::new(sizes).expect("a shape"), bytes).expect("as many bytes as the shape says")
}

/// Pictures are binary either way, for JSON holds text only; answers are as asked.
fn rest(server: &TestServer, pictures: &[&[u8]], binary: bool) -> Result<Faces, Refused> {
    let blob = prefixed(pictures);
    let document = json!({
        "inputs": [{
            "name": "image", "datatype": "BYTES", "shape": [pictures.len()],
            "parameters": {"binary_data_size": blob.len()},
        }],
        "parameters": {"binary_data_output": binary},
    })
    .to_string();
    let headers = format!("{LENGTH}: {}\r\n", document.len());
    let mut client = server.client();
    let body = [document.as_bytes(), &blob].concat();
    client.send(Client::request("POST", &format!("/v2/models/{MODEL}/infer"), &headers, &body));
    let reply = client.reply();
    if reply.status != 200 {
        let text = reply.json()["error"].as_str().expect("an error").to_owned();
        return Err(Refused { http_status: reply.status, text });
    }
    assert_eq!(reply.header(LENGTH).is_some(), binary);
    let length = reply.header(LENGTH).map_or(reply.body.len(), |value| value.parse().expect("a length"));
    let (text, blobs) = reply.body.split_at(length);
    let mut blobs = Bytes::copy_from_slice(blobs);
    let answer: Value = serde_json::from_slice(text).expect("JSON");
    let outputs = answer["outputs"].as_array().expect("a list").iter().map(|output| {
        let sizes: Vec<usize> = serde_json::from_value(output["shape"].clone()).expect("sizes");
        let datatype = output["datatype"].as_str().expect("a datatype");
        let tensor = match output["parameters"]["binary_data_size"].as_u64() {
            Some(size) => unraw(datatype, &sizes, blobs.split_to(usize::try_from(size).expect("it is small"))),
            None if datatype == "INT32" => {
                let counts: Vec<i32> = serde_json::from_value(output["data"].clone()).expect("integers");
                Tensor::from_vec(&sizes, counts).expect("as many as the shape says")
            }
            None => {
                let numbers: Vec<f32> = serde_json::from_value(output["data"].clone()).expect("numbers");
                Tensor::from_vec(&sizes, numbers).expect("as many as the shape says")
            }
        };
        (output["name"].as_str().expect("a name").to_owned(), tensor)
    });
    let outputs: Vec<_> = outputs.collect();
    assert!(blobs.is_empty(), "nothing follows the last tensor");
    Ok(Faces::new(&outputs))
}

/// The refusal that a call ended with, if it did.
fn refused(ended: &Ended) -> Result<(), Refused> {
    let http_status = match ended.code {
        Some(code::OK) => return Ok(()),
        Some(code::INVALID_ARGUMENT) => StatusCode::BAD_REQUEST.as_u16(),
        Some(code::RESOURCE_EXHAUSTED) => StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
        other => panic!("{other:?}: {}", ended.message),
    };
    Err(Refused { http_status, text: ended.message.clone() })
}

fn grpc(server: &TestServer, pictures: &[&[u8]], raw: bool) -> Result<Faces, Refused> {
    let mut input = InferInputTensor {
        name: "image".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![count(pictures)],
        ..InferInputTensor::default()
    };
    let mut raw_input_contents = Vec::new();
    if raw {
        raw_input_contents.push(prefixed(pictures).into());
    } else {
        let bytes_contents = pictures.iter().map(|picture| Bytes::copy_from_slice(picture)).collect();
        input.contents = Some(InferTensorContents { bytes_contents, ..InferTensorContents::default() });
    }
    let request = ModelInferRequest {
        model_name: MODEL.to_owned(),
        inputs: vec![input],
        raw_input_contents,
        ..ModelInferRequest::default()
    };
    let ended = Grpc::connect(server.address()).ask("/inference.GRPCInferenceService/ModelInfer", &request);
    refused(&ended)?;
    let answer: ModelInferResponse = ended.ok();
    let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents).map(|(output, bytes)| {
        let sizes: Vec<usize> = output.shape.iter().map(|&size| usize::try_from(size).expect("a size")).collect();
        (output.name, unraw(&output.datatype, &sizes, bytes))
    });
    Ok(Faces::new(&outputs.collect::<Vec<_>>()))
}

fn tfs(server: &TestServer, pictures: &[&[u8]]) -> Result<Faces, Refused> {
    let dim = vec![Dim { size: count(pictures), name: String::new() }];
    let image = TensorProto {
        dtype: DataType::DtString.into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        string_val: pictures.iter().map(|picture| Bytes::copy_from_slice(picture)).collect(),
        ..TensorProto::default()
    };
    let request = PredictRequest {
        model_spec: Some(ModelSpec { name: MODEL.to_owned(), ..ModelSpec::default() }),
        inputs: [("image".to_owned(), image)].into(),
        ..PredictRequest::default()
    };
    let ended = Grpc::connect(server.address()).ask("/tensorflow.serving.PredictionService/Predict", &request);
    refused(&ended)?;
    let answer: PredictResponse = ended.ok();
    let outputs = answer.outputs.into_iter().map(|(name, proto)| {
        let dims = proto.tensor_shape.expect("a shape").dim;
        let sizes: Vec<usize> = dims.iter().map(|dim| usize::try_from(dim.size).expect("a size")).collect();
        let tensor = match proto.dtype {
            dtype if dtype == DataType::DtInt32 as i32 => Tensor::from_vec(&sizes, proto.int_val),
            dtype if dtype == DataType::DtFloat as i32 => Tensor::from_vec(&sizes, proto.float_val),
            other => panic!("the dtype {other}"),
        };
        let tensor = tensor.expect("as many as the shape says");
        assert!(matches!(tensor.dtype(), DType::Int32 | DType::Fp32));
        (name, tensor)
    });
    Ok(Faces::new(&outputs.collect::<Vec<_>>()))
}

/// TorchServe's `Predictions`: parts by name in, JSON out.
pub(super) fn torchserve_grpc(server: &TestServer, parts: &[(&str, &[u8])]) -> Result<Value, Refused> {
    let part = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), Bytes::copy_from_slice(bytes));
    let request = PredictionsRequest {
        model_name: MODEL.to_owned(),
        input: parts.iter().map(part).collect(),
        ..PredictionsRequest::default()
    };
    let path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
    let ended = Grpc::connect(server.address()).ask(path, &request);
    refused(&ended)?;
    let answer: PredictionResponse = ended.ok();
    Ok(serde_json::from_slice(&answer.prediction).expect("JSON"))
}
