//! Rows 22 to 27, and 29 to 31 at this protocol's doors: bytes beside the words, and how many there are.

use std::cmp::Ordering;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{InferTensorContents, ModelInferRequest};
use millrace_proto::tensorflow::serving::{ModelSpec, PredictRequest};
use millrace_proto::tensorflow::tensor_shape_proto::Dim;
use millrace_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use prost::Message as _;

use super::{Doors, INFER, MIB, MODEL_INFER, good, request, request_without_raw};
use crate::support::Client;
use crate::support::grpc::{code, framed};

const STRINGS: &str = "/v2/models/identity_string/infer";

/// A request whose input has `size` as its binary size, and its header.
fn binary(size: &str) -> (String, String) {
    let head = r#""name": "x", "datatype": "FP32", "shape": [2]"#;
    let text = format!(r#"{{"inputs": [{{{head}, "parameters": {{"binary_data_size": {size}}}}}]}}"#);
    (format!("inference-header-content-length: {}\r\n", text.len()), text)
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn row_22_binary_sizes_that_are_none_or_wrong_are_refused() {
    let mut doors = Doors::open();
    let none = ["-1", "18446744073709551616", "\"8\"", "8.5", "8.0", "null", "true", "[8]"];
    for size in none.into_iter().chain(["0", "7", "9", "9223372036854775808"]) {
        let (headers, text) = binary(size);
        // Said of the input by its name, or of the parameter by its own.
        let wrong = if none.contains(&size) { "binary_data_size" } else { "x" };
        doors.rest_refuses_with(INFER, &headers, [text.as_bytes(), &[0; 8]].concat(), &[400], wrong);
    }
    let (headers, text) = binary("8");
    doors.http.send(Client::request("POST", INFER, &headers, &[text.as_bytes(), &[0; 8]].concat()));
    assert_eq!(doors.http.reply().status, 200);
    doors.is_well();
}

#[test]
fn row_23_header_lengths_that_are_none_are_refused_by_the_headers_name() {
    let mut doors = Doors::open();
    let (_, text) = binary("8");
    let body = [text.as_bytes(), &[0; 8]].concat();
    let beyond = (body.len() + 1).to_string();
    let long = "1".repeat(40);
    let right = text.len().to_string();
    let spelled = format!("+{right}");
    for value in ["-1", "abc", &spelled, "12345678901", &long, &beyond, "", "1 1", "0x10", "10.0"] {
        let headers = format!("inference-header-content-length: {value}\r\n");
        doors.rest_refuses_with(INFER, &headers, &body, &[400], "nference-");
    }
    let twice = format!("inference-header-content-length: {right}\r\n").repeat(2);
    doors.rest_refuses_with(INFER, &twice, &body, &[400], "nference-");
    // In the midst of the JSON.
    for length in [1, text.len() - 1] {
        let headers = format!("inference-header-content-length: {length}\r\n");
        doors.rest_refuses_with(INFER, &headers, &body, &[400], "");
    }
    doors.is_well();
}

#[test]
fn row_24_bytes_after_the_last_tensor_and_data_in_two_forms_are_refused() {
    let mut doors = Doors::open();
    let (headers, text) = binary("8");
    for extra in [1, 4, 1000] {
        doors.rest_refuses_with(INFER, &headers, [text.as_bytes(), &vec![0; 8 + extra]].concat(), &[400], "additional");
    }
    let head = r#""name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]"#;
    let both = format!(r#"{{"inputs": [{{{head}, "parameters": {{"binary_data_size": 8}}}}]}}"#);
    let headers = format!("inference-header-content-length: {}\r\n", both.len());
    doors.rest_refuses_with(INFER, &headers, [both.as_bytes(), &[0; 8]].concat(), &[400], "x");
    doors.rest_refuses(r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]}"#, "x");

    let contents = Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() });
    let (input, raw) = good();
    doors.grpc_refuses(&request((InferInputTensor { contents, ..input }, raw)), "x");
    doors.is_well();
}

#[test]
fn row_25_raw_contents_must_be_as_many_as_the_inputs() {
    let mut doors = Doors::open();
    doors.grpc_refuses(&request_without_raw(good().0), "x");
    for extra in [1, 1000] {
        let mut bad = request(good());
        bad.raw_input_contents.extend(vec![good().1.into(); extra]);
        doors.grpc_refuses(&bad, "");
    }
    let mut only_raw = request(good());
    only_raw.inputs.clear();
    doors.grpc_refuses(&only_raw, "");
    doors.is_well();
}

#[test]
fn row_26_a_splat_value_does_not_fill_a_terabyte() {
    let mut doors = Doors::open();
    let ask = |doors: &Doors, sizes: &[i64], float_val: Vec<f32>| {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, ..Default::default() });
        let x = TensorProto { dtype: DataType::DtFloat.into(), tensor_shape, float_val, ..Default::default() };
        let request = PredictRequest {
            model_spec: Some(ModelSpec { name: "half_plus_two".into(), ..Default::default() }),
            inputs: [("x".to_owned(), x)].into(),
            ..Default::default()
        };
        doors.grpc.ask("/tensorflow.serving.PredictionService/Predict", &request)
    };
    let growth = doors.process.peak_growth(|| {
        for sizes in [&[1 << 40][..], &[1 << 61], &[1 << 62, 4], &[i64::MAX], &[-1], &[0, 1 << 62], &[1 << 33]] {
            for values in [vec![1.0], Vec::new()] {
                ask(&doors, sizes, values).refuses(code::INVALID_ARGUMENT, "x");
            }
        }
    });
    assert!(growth < 8 * MIB, "{growth} bytes");
    assert_eq!(ask(&doors, &[1000], vec![1.0]).code, Some(code::OK), "a small one is filled");
    doors.is_well();
}

#[test]
fn row_27_byte_strings_that_reach_past_the_end_are_refused() {
    let mut doors = Doors::open();
    let element = |length: u32, bytes: &[u8]| [&length.to_le_bytes(), bytes].concat();
    let good = element(1, b"a").repeat(4);
    let bad = [
        [&good[..15], &element(u32::MAX, b"a")].concat(),
        [&good[..15], &element(2, b"a")].concat(),
        good[..18].to_vec(),
        good[..15].to_vec(),
        [&good[..], &[0]].concat(),
        [&good[..], &element(1, b"b")].concat(),
        element(u32::MAX, b""),
        Vec::new(),
    ];
    for raw in &bad {
        let head = r#""name": "x", "datatype": "BYTES", "shape": [1, 4]"#;
        let text = format!(r#"{{"inputs": [{{{head}, "parameters": {{"binary_data_size": {}}}}}]}}"#, raw.len());
        let headers = format!("inference-header-content-length: {}\r\n", text.len());
        doors.rest_refuses_with(STRINGS, &headers, [text.as_bytes(), raw].concat(), &[400], "x");
        let input = InferInputTensor { datatype: "BYTES".into(), shape: vec![1, 4], ..super::good().0 };
        let mut request = request((input, raw.clone()));
        request.model_name = "identity_string".into();
        doors.grpc_refuses(&request, "x");
    }
    doors.is_well();
}

#[test]
fn bools_are_0_or_1_in_either_binary_form() {
    let mut doors = Doors::open();
    let input = InferInputTensor { datatype: "BOOL".into(), shape: vec![1, 4], ..good().0 };
    let mut bad = request((input, vec![0, 1, 2, 0]));
    bad.model_name = "identity_bool".into();
    doors.grpc_refuses(&bad, "BOOL");
    doors.is_well();
}

#[test]
fn row_29_compressed_bombs_and_broken_streams_are_refused_by_both_doors() {
    let limits =
        [("MILLRACE_LIMITS__MAX_DECOMPRESSED_BYTES", "4MiB"), ("MILLRACE_LIMITS__MAX_GRPC_MESSAGE_BYTES", "4MiB")];
    let mut doors = Doors::with(&limits, &[]);
    let bomb = compressed(&vec![b' '; 200 << 20]);
    let fair = super::input("[1]", "[1]");
    let growth = {
        let Doors { process, grpc, .. } = &mut doors;
        let address = process.address;
        process.peak_growth(|| {
            for (coding, body) in [
                ("gzip", bomb.clone()),
                ("gzip", compressed(&bomb)),
                ("gzip", compressed(fair.as_bytes())[..20].to_vec()),
            ] {
                let mut client = Client::connect(address);
                client.send_anyway(Client::request("POST", INFER, &format!("content-encoding: {coding}\r\n"), &body));
                let reply = client.reply();
                assert!(matches!(reply.status, 400 | 413), "{}", reply.text());
            }
            let message = [&[1], &u32::try_from(bomb.len()).unwrap().to_be_bytes()[..], &bomb].concat();
            let ended = grpc.send(MODEL_INFER, &[("grpc-encoding", "gzip")], message.into()).wait();
            ended.refuses(code::RESOURCE_EXHAUSTED, "");
        })
    };
    assert!(growth < 24 * MIB, "{growth} bytes");

    let mut client = Client::connect(doors.process.address);
    client.send(Client::request("POST", INFER, "content-encoding: zstd\r\n", fair.as_bytes()));
    assert!(matches!(client.reply().status, 415 | 501));
    for (name, coding) in [
        ("gzip", compressed(fair.as_bytes())),
        ("deflate", {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(fair.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }),
    ] {
        doors.http.send(Client::request("POST", INFER, &format!("content-encoding: {name}\r\n"), &coding));
        assert_eq!(doors.http.reply().status, 200, "{name}");
    }
    let body = framed(&request(good()).encode_to_vec());
    doors
        .grpc
        .send(MODEL_INFER, &[("grpc-encoding", "br")], [&[1], &body[1..]].concat().into())
        .wait()
        .refuses(code::UNIMPLEMENTED, "");
    for cut in [
        compressed(b"abc")[..9].to_vec(),
        b"not gzip at all".to_vec(),
        compressed(&compressed(&request(good()).encode_to_vec())),
    ] {
        let message = [&[1], &u32::try_from(cut.len()).unwrap().to_be_bytes()[..], &cut].concat();
        let ended = doors.grpc.send(MODEL_INFER, &[("grpc-encoding", "gzip")], message.into()).wait();
        assert!(matches!(ended.code, Some(code::INVALID_ARGUMENT | code::INTERNAL)), "{ended:?}");
    }
    doors.is_well();
}

#[test]
fn row_30_a_huge_declared_length_is_refused_before_a_byte_is_read() {
    let mut doors = Doors::open();
    let mut client = Client::connect(doors.process.address);
    client.send(format!("POST {INFER} HTTP/1.1\r\nhost: test\r\ncontent-length: 10995116277760\r\n\r\n"));
    let reply = client.reply();
    reply.refuses(413, "limit");
    assert!(reply.closes());
    client.rest_until_close();
    doors.is_well();
}

/// A sound request of so many bytes: as many rows of four numbers as fit, and an id that fills up the rest.
fn exactly(length: usize) -> ModelInferRequest {
    for id in 1..20 {
        let mut rows = length / 16;
        loop {
            let input = InferInputTensor { shape: vec![i64::try_from(rows).unwrap(), 4], ..good().0 };
            let mut message = request((input, vec![0; 16 * rows]));
            (message.model_name, message.id) = ("identity_fp32".into(), "a".repeat(id));
            match message.encoded_len().cmp(&length) {
                Ordering::Equal => return message,
                Ordering::Less => break,
                Ordering::Greater => rows -= 1,
            }
        }
    }
    unreachable!("ids of sixteen lengths fill every gap between two rows");
}

#[test]
fn row_31_a_message_one_byte_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
    let limits = [("MILLRACE_LIMITS__MAX_BODY_BYTES", "1MiB"), ("MILLRACE_LIMITS__MAX_GRPC_MESSAGE_BYTES", "1MiB")];
    let mut doors = Doors::with(&limits, &[]);
    let text = super::input("[1]", "[1]");
    for (length, statuses) in [(1 << 20, [200, 200]), ((1 << 20) + 1, [413, 413])] {
        let body = format!("{text}{}", " ".repeat(length - text.len()));
        let chunked = format!(
            "POST {INFER} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for bytes in [Client::request("POST", INFER, "", body.as_bytes()), chunked.into_bytes()] {
            let mut client = Client::connect(doors.process.address);
            client.send_anyway(bytes);
            let reply = client.reply();
            assert!(statuses.contains(&reply.status), "{length}: {}", reply.text());
        }
    }
    for (length, wanted) in [(1 << 20, code::OK), ((1 << 20) + 1, code::RESOURCE_EXHAUSTED)] {
        let message = exactly(length);
        let ended = doors.grpc.ask(MODEL_INFER, &message);
        assert_eq!(ended.code, Some(wanted), "{length}: {}", ended.message);
        if wanted != code::OK {
            ended.refuses(wanted, "limit");
        }
    }
    doors.is_well();
}
