//! Cases in the words of the Open Inference Protocol: JSON and binary tensors over REST, raw and typed contents over gRPC.

use bytes::Bytes;
use millrace_core::{DType, Element, Shape, Strings, Tensor};
use millrace_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use millrace_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use millrace_testkit::Case;
use serde_json::{Value, json};

use super::{Asker, Outputs};
use crate::support::json::{self, Text};
use crate::support::{Client, Reply};

const LENGTH: &str = "inference-header-content-length";

fn path(case: &Case) -> String {
    format!("/v2/models/{}/versions/{}/infer", case.model, case.version)
}

/// The tensor as the binary extension lays it out.
fn raw(tensor: &Tensor) -> Bytes {
    let Some(strings) = tensor.strings() else {
        return tensor.bytes().expect("it is not BYTES").clone();
    };
    let length = |text: &[u8]| u32::try_from(text.len()).expect("a short text").to_le_bytes();
    strings.iter().flat_map(|text| [&length(text), text].concat()).collect()
}

/// The tensor that is laid out so.
fn unraw(datatype: &str, sizes: &[usize], mut bytes: Bytes) -> Tensor {
    let dtype: DType = datatype.parse().expect("a dtype of ours");
    if dtype != DType::Bytes {
        return Tensor::new(dtype, Shape::new(sizes).expect("a shape"), bytes).expect("a tensor");
    }
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.split_to(4);
        let length = u32::from_le_bytes(length[..].try_into().expect("four bytes"));
        texts.push(bytes.split_to(length as usize).to_vec());
    }
    Tensor::from_strings(sizes, texts.into_iter().collect::<Strings>()).expect("a tensor")
}

fn head(name: &str, tensor: &Tensor, rest: &str) -> String {
    let (name, datatype, shape) = (json!(name), tensor.dtype(), &tensor.shape()[..]);
    format!("{{\"name\": {name}, \"datatype\": \"{datatype}\", \"shape\": {shape:?}, {rest}}}")
}

#[track_caller]
fn ask(http: &mut Client, case: &Case, headers: &str, body: &[u8]) -> Reply {
    http.send(Client::request("POST", &path(case), headers, body));
    let reply = http.reply();
    assert_eq!(reply.status, 200, "{}: {}", case.model, reply.text());
    reply
}

fn sizes(output: &Value) -> Vec<usize> {
    let sizes = output["shape"].as_array().expect("a shape").iter();
    sizes.map(|size| usize::try_from(size.as_u64().expect("a size")).expect("a small size")).collect()
}

/// The answer's outputs, in either form.
fn read(case: &Case, reply: &Reply) -> Outputs {
    let length = reply.header(LENGTH).map_or(reply.body.len(), |value| value.parse().expect("a length"));
    let (text, blobs) = reply.body.split_at(length);
    let mut blobs = Bytes::copy_from_slice(blobs);
    let answer = json::parse(std::str::from_utf8(text).expect("JSON is UTF-8"));
    assert_eq!(answer["model_name"], case.model);
    assert_eq!(answer["model_version"], case.version.to_string());
    let outputs = answer["outputs"].as_array().expect("a list of outputs").iter().map(|output| {
        let name = output["name"].as_str().expect("a name");
        let (_, want) = case.outputs.iter().find(|(known, _)| known == name).expect("an output of the model");
        assert_eq!(output["datatype"], want.dtype().to_string());
        let tensor = match output["parameters"]["binary_data_size"].as_u64() {
            Some(size) => {
                let blob = blobs.split_to(usize::try_from(size).expect("a small size"));
                unraw(&want.dtype().to_string(), &sizes(output), blob)
            }
            None => json::tensor_of(&sizes(output), &output["data"], want),
        };
        (name.to_owned(), tensor)
    });
    let outputs = outputs.collect();
    assert!(blobs.is_empty(), "nothing follows the last tensor");
    outputs
}

fn rest_text(asker: &mut Asker, case: &Case, write: fn(&Tensor, Text) -> String) -> Outputs {
    let inputs = case
        .inputs
        .iter()
        .map(|(name, tensor)| head(name, tensor, &format!("\"data\": {}", write(tensor, Text::Plain))));
    let body = format!("{{\"inputs\": [{}]}}", inputs.collect::<Vec<_>>().join(", "));
    let reply = ask(&mut asker.http, case, "", body.as_bytes());
    assert_eq!(reply.header(LENGTH), None);
    read(case, &reply)
}

pub(super) fn rest_json(asker: &mut Asker, case: &Case) -> Outputs {
    rest_text(asker, case, json::flat)
}

pub(super) fn rest_nested(asker: &mut Asker, case: &Case) -> Outputs {
    // A scalar has no nesting; its data is a list of one all the same.
    rest_text(asker, case, |tensor, text| {
        if tensor.shape().is_empty() { json::flat(tensor, text) } else { json::nested(tensor, text) }
    })
}

pub(super) fn rest_binary(asker: &mut Asker, case: &Case) -> Outputs {
    let mut blobs = Vec::new();
    let inputs = case.inputs.iter().map(|(name, tensor)| {
        let blob = raw(tensor);
        blobs.extend_from_slice(&blob);
        head(name, tensor, &format!("\"parameters\": {{\"binary_data_size\": {}}}", blob.len()))
    });
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    let outputs = case.outputs.iter().map(|(name, _)| json!({"name": name, "parameters": {"binary_data": true}}));
    let text = format!("{{\"inputs\": [{inputs}], \"outputs\": {}}}", outputs.collect::<Value>());
    let headers = format!("{LENGTH}: {}\r\n", text.len());
    let reply = ask(&mut asker.http, case, &headers, &[text.as_bytes(), &blobs].concat());
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    read(case, &reply)
}

/// One input whose shape follows from its size: at most its first axis is free.
pub(super) fn is_bare(case: &Case) -> bool {
    case.inputs.len() == 1 && case.model != "row_mean" && case.inputs[0].1.dtype() != DType::Bytes
}

/// A header length of 0: the body is the only input's bytes.
pub(super) fn rest_bare(asker: &mut Asker, case: &Case) -> Outputs {
    let reply = ask(&mut asker.http, case, &format!("{LENGTH}: 0\r\n"), &raw(&case.inputs[0].1));
    read(case, &reply)
}

fn request(case: &Case, contents: impl Fn(&Tensor) -> Option<InferTensorContents>) -> ModelInferRequest {
    let shape =
        |tensor: &Tensor| tensor.shape().iter().map(|&size| i64::try_from(size).expect("a small size")).collect();
    let input = |(name, tensor): &(String, Tensor)| InferInputTensor {
        name: name.clone(),
        datatype: tensor.dtype().to_string(),
        shape: shape(tensor),
        contents: contents(tensor),
        ..Default::default()
    };
    let output = |(name, _): &(String, Tensor)| InferRequestedOutputTensor { name: name.clone(), ..Default::default() };
    ModelInferRequest {
        model_name: case.model.clone(),
        model_version: case.version.to_string(),
        id: "7".to_owned(),
        inputs: case.inputs.iter().map(input).collect(),
        outputs: case.outputs.iter().map(output).collect(),
        ..Default::default()
    }
}

fn raw_request(case: &Case) -> ModelInferRequest {
    let raw_input_contents = case.inputs.iter().map(|(_, tensor)| raw(tensor)).collect();
    ModelInferRequest { raw_input_contents, ..request(case, |_| None) }
}

fn outputs(case: &Case, answer: ModelInferResponse) -> Outputs {
    assert_eq!((&answer.model_name, answer.model_version), (&case.model, case.version.to_string()));
    assert_eq!((answer.id.as_str(), answer.raw_output_contents.len()), ("7", answer.outputs.len()));
    let pairs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    let read = pairs.map(|(output, bytes)| {
        assert_eq!(output.contents, None);
        let sizes: Vec<usize> = output.shape.iter().map(|&size| usize::try_from(size).expect("a size")).collect();
        (output.name, unraw(&output.datatype, &sizes, bytes))
    });
    read.collect()
}

pub(super) fn grpc_raw(asker: &mut Asker, case: &Case) -> Outputs {
    outputs(case, asker.grpc.ask("/inference.GRPCInferenceService/ModelInfer", &raw_request(case)).ok())
}

pub(super) fn grpc_typed(asker: &mut Asker, case: &Case) -> Outputs {
    let request = request(case, |tensor| Some(contents(tensor)));
    outputs(case, asker.grpc.ask("/inference.GRPCInferenceService/ModelInfer", &request).ok())
}

pub(super) fn grpc_stream(asker: &mut Asker, case: &Case) -> Outputs {
    let mut stream = asker.grpc.open("/inference.GRPCInferenceService/ModelStreamInfer", &[]);
    stream.send(&raw_request(case));
    stream.close();
    let answer: ModelStreamInferResponse = stream.next().expect("an answer");
    assert_eq!(answer.error_message, "");
    let ended = stream.next::<ModelStreamInferResponse>().expect_err("one question, one answer");
    assert_eq!(ended.code, Some(0));
    outputs(case, answer.infer_response.expect("an answer"))
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    fn list<T: Element, U>(tensor: &Tensor, write: impl Fn(T) -> U) -> Vec<U> {
        tensor.elements::<T>().expect("the dtype was matched").iter().map(|value| write(*value)).collect()
    }
    let mut contents = InferTensorContents::default();
    match tensor.dtype() {
        DType::Bool => contents.bool_contents = list::<bool, _>(tensor, |value| value),
        DType::Uint8 => contents.uint_contents = list::<u8, _>(tensor, u32::from),
        DType::Uint16 => contents.uint_contents = list::<u16, _>(tensor, u32::from),
        DType::Uint32 => contents.uint_contents = list::<u32, _>(tensor, |value| value),
        DType::Uint64 => contents.uint64_contents = list::<u64, _>(tensor, |value| value),
        DType::Int8 => contents.int_contents = list::<i8, _>(tensor, i32::from),
        DType::Int16 => contents.int_contents = list::<i16, _>(tensor, i32::from),
        DType::Int32 => contents.int_contents = list::<i32, _>(tensor, |value| value),
        DType::Int64 => contents.int64_contents = list::<i64, _>(tensor, |value| value),
        DType::Fp16 | DType::Bf16 => panic!("half precision has no typed contents"),
        DType::Fp32 => contents.fp32_contents = list::<f32, _>(tensor, |value| value),
        DType::Fp64 => contents.fp64_contents = list::<f64, _>(tensor, |value| value),
        DType::Bytes => {
            let strings = tensor.strings().expect("it is BYTES");
            contents.bytes_contents = strings.iter().map(Bytes::copy_from_slice).collect();
        }
    }
    contents
}
