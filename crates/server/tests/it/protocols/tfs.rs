//! Cases in TensorFlow Serving's words: JSON by rows and by columns, `TensorProto` in both its forms, CloudEvents.

use bytes::Bytes;
use half::f16;
use millrace_core::{DType, Element, Shape, Strings, Tensor};
use millrace_proto::tensorflow::serving::model_spec::VersionChoice;
use millrace_proto::tensorflow::serving::{ModelSpec, PredictRequest, PredictResponse};
use millrace_proto::tensorflow::tensor_shape_proto::Dim;
use millrace_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use millrace_testkit::Case;
use serde_json::{Value, json};

use super::{Asker, Outputs, has};
use crate::support::Client;
use crate::support::json::{self, Text};

/// TensorFlow Serving's JSON has no form for half precision and `UINT16`.
pub(super) fn has_json(case: &Case) -> bool {
    !has(case, &[DType::Fp16, DType::Bf16, DType::Uint16])
}

/// Every tensor has as many rows as every other.
pub(super) fn has_rows(case: &Case) -> bool {
    let rows = |tensor: &Tensor| tensor.shape().first().copied();
    let first = rows(&case.inputs[0].1);
    has_json(case)
        && first.is_some()
        && case.inputs.iter().chain(&case.outputs).all(|(_, tensor)| rows(tensor) == first)
}

fn path(case: &Case) -> String {
    format!("/v1/models/{}/versions/{}:predict", case.model, case.version)
}

fn columns(case: &Case) -> String {
    let inputs =
        case.inputs.iter().map(|(name, tensor)| format!("{}: {}", json!(name), json::nested(tensor, Text::Base64)));
    format!("{{\"inputs\": {{{}}}}}", inputs.collect::<Vec<_>>().join(", "))
}

fn read_columns(case: &Case, answer: &Value) -> Outputs {
    let single = case.outputs.len() == 1;
    let value = |name: &str| if single { &answer["outputs"] } else { &answer["outputs"][name] };
    case.outputs.iter().map(|(name, want)| (name.clone(), json::tensor(value(name), want))).collect()
}

#[track_caller]
fn ask(http: &mut Client, case: &Case, headers: &str, body: &str) -> Value {
    http.send(Client::request("POST", &path(case), headers, body.as_bytes()));
    let reply = http.reply();
    assert_eq!(reply.status, 200, "{}: {}", case.model, reply.text());
    json::parse(&reply.text())
}

pub(super) fn rest_columns(asker: &mut Asker, case: &Case) -> Outputs {
    let answer = ask(&mut asker.http, case, "", &columns(case));
    read_columns(case, &answer)
}

pub(super) fn rest_rows(asker: &mut Asker, case: &Case) -> Outputs {
    let rows = case.inputs[0].1.shape()[0];
    let instance = |row: usize| {
        let values = case.inputs.iter().map(|(name, tensor)| (name, json::row(tensor, row, Text::Base64)));
        let mut values: Vec<_> = values.collect();
        match (values.len(), row % 2) {
            // A single input's value may also stand alone, in all rows alike.
            (1, _) if rows % 2 == 1 => values.remove(0).1,
            _ => {
                let values = values.iter().map(|(name, value)| format!("{}: {value}", json!(name)));
                format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
            }
        }
    };
    let instances: Vec<String> = (0..rows).map(instance).collect();
    let answer = ask(&mut asker.http, case, "", &format!("{{\"instances\": [{}]}}", instances.join(", ")));
    let predictions = answer["predictions"].as_array().expect("predictions");
    assert_eq!(predictions.len(), rows);
    let column = |name: &str| -> Value {
        let single = case.outputs.len() == 1;
        predictions.iter().map(|row| if single { row.clone() } else { row[name].clone() }).collect()
    };
    case.outputs.iter().map(|(name, want)| (name.clone(), json::tensor(&column(name), want))).collect()
}

/// The columnar body as the `data` of an event, in structured mode.
pub(super) fn cloud_event(asker: &mut Asker, case: &Case) -> Outputs {
    let head =
        r#""specversion": "1.0", "id": "1", "source": "tests", "type": "question", "time": "2026-01-01T00:00:00Z""#;
    let event = format!("{{{head}, \"data\": {}}}", columns(case));
    let answer = ask(&mut asker.http, case, "content-type: application/cloudevents+json\r\n", &event);
    assert_eq!(answer["type"], "io.kserve.inference.response");
    read_columns(case, &answer["data"])
}

pub(super) fn grpc_typed(asker: &mut Asker, case: &Case) -> Outputs {
    predict(asker, case, typed)
}

pub(super) fn grpc_content(asker: &mut Asker, case: &Case) -> Outputs {
    predict(asker, case, content)
}

fn predict(asker: &Asker, case: &Case, write: fn(&Tensor) -> TensorProto) -> Outputs {
    let version = VersionChoice::Version(i64::try_from(case.version).expect("a small version"));
    let spec = ModelSpec { name: case.model.clone(), version_choice: Some(version), ..Default::default() };
    let inputs = case.inputs.iter().map(|(name, tensor)| (name.clone(), write(tensor))).collect();
    let request = PredictRequest { model_spec: Some(spec), inputs, ..Default::default() };
    let answer: PredictResponse = asker.grpc.ask("/tensorflow.serving.PredictionService/Predict", &request).ok();
    answer.outputs.into_iter().map(|(name, tensor)| (name, read(&tensor))).collect()
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::DtBool,
        DType::Uint8 => DataType::DtUint8,
        DType::Uint16 => DataType::DtUint16,
        DType::Uint32 => DataType::DtUint32,
        DType::Uint64 => DataType::DtUint64,
        DType::Int8 => DataType::DtInt8,
        DType::Int16 => DataType::DtInt16,
        DType::Int32 => DataType::DtInt32,
        DType::Int64 => DataType::DtInt64,
        DType::Fp16 => DataType::DtHalf,
        DType::Bf16 => DataType::DtBfloat16,
        DType::Fp32 => DataType::DtFloat,
        DType::Fp64 => DataType::DtDouble,
        DType::Bytes => DataType::DtString,
    }
}

fn empty(tensor: &Tensor) -> TensorProto {
    let dim = |&size: &usize| Dim { size: i64::try_from(size).expect("a small size"), ..Default::default() };
    let shape = TensorShapeProto { dim: tensor.shape().iter().map(dim).collect(), ..Default::default() };
    let dtype = data_type(tensor.dtype()).into();
    TensorProto { dtype, tensor_shape: Some(shape), ..Default::default() }
}

fn content(tensor: &Tensor) -> TensorProto {
    TensorProto { tensor_content: tensor.bytes().expect("it is not text").clone(), ..empty(tensor) }
}

fn typed(tensor: &Tensor) -> TensorProto {
    fn list<T: Element, U>(tensor: &Tensor, write: impl Fn(T) -> U) -> Vec<U> {
        tensor.elements::<T>().expect("the dtype was matched").iter().map(|value| write(*value)).collect()
    }
    let mut proto = empty(tensor);
    match tensor.dtype() {
        DType::Bool => proto.bool_val = list::<bool, _>(tensor, |value| value),
        DType::Uint8 => proto.int_val = list::<u8, _>(tensor, i32::from),
        DType::Uint16 => proto.int_val = list::<u16, _>(tensor, i32::from),
        DType::Uint32 => proto.uint32_val = list::<u32, _>(tensor, |value| value),
        DType::Uint64 => proto.uint64_val = list::<u64, _>(tensor, |value| value),
        DType::Int8 => proto.int_val = list::<i8, _>(tensor, i32::from),
        DType::Int16 => proto.int_val = list::<i16, _>(tensor, i32::from),
        DType::Int32 => proto.int_val = list::<i32, _>(tensor, |value| value),
        DType::Int64 => proto.int64_val = list::<i64, _>(tensor, |value| value),
        DType::Fp16 => proto.half_val = list::<f16, _>(tensor, |value| i32::from(value.to_bits())),
        DType::Bf16 => panic!("no case has BF16"),
        DType::Fp32 => proto.float_val = list::<f32, _>(tensor, |value| value),
        DType::Fp64 => proto.double_val = list::<f64, _>(tensor, |value| value),
        DType::Bytes => {
            let strings = tensor.strings().expect("it is BYTES");
            proto.string_val = strings.iter().map(Bytes::copy_from_slice).collect();
        }
    }
    proto
}

/// Either form.
fn read(proto: &TensorProto) -> Tensor {
    let dims = &proto.tensor_shape.as_ref().expect("a shape").dim;
    let sizes: Vec<usize> = dims.iter().map(|dim| usize::try_from(dim.size).expect("a size")).collect();
    let dtype = DType::ALL.into_iter().find(|dtype| data_type(*dtype) as i32 == proto.dtype).expect("a dtype of ours");
    if !proto.tensor_content.is_empty() {
        return Tensor::new(dtype, Shape::new(&sizes).expect("a shape"), proto.tensor_content.clone())
            .expect("a tensor");
    }
    macro_rules! narrow {
        ($field:ident as $type:ty) => {
            Tensor::from_vec(&sizes, proto.$field.iter().map(|&value| <$type>::try_from(value).unwrap()).collect())
        };
    }
    let tensor = match dtype {
        DType::Bool => Tensor::from_vec(&sizes, proto.bool_val.clone()),
        DType::Uint8 => narrow!(int_val as u8),
        DType::Uint16 => narrow!(int_val as u16),
        DType::Uint32 => Tensor::from_vec(&sizes, proto.uint32_val.clone()),
        DType::Uint64 => Tensor::from_vec(&sizes, proto.uint64_val.clone()),
        DType::Int8 => narrow!(int_val as i8),
        DType::Int16 => narrow!(int_val as i16),
        DType::Int32 => Tensor::from_vec(&sizes, proto.int_val.clone()),
        DType::Int64 => Tensor::from_vec(&sizes, proto.int64_val.clone()),
        DType::Fp16 => {
            let bits = proto.half_val.iter().map(|&bits| f16::from_bits(u16::try_from(bits).expect("16 bits")));
            Tensor::from_vec(&sizes, bits.collect())
        }
        DType::Bf16 => panic!("no case has BF16"),
        DType::Fp32 => Tensor::from_vec(&sizes, proto.float_val.clone()),
        DType::Fp64 => Tensor::from_vec(&sizes, proto.double_val.clone()),
        DType::Bytes => {
            let strings: Strings = proto.string_val.iter().map(|text| text.to_vec()).collect();
            Tensor::from_strings(&sizes, strings)
        }
    };
    tensor.expect("every element is written")
}
