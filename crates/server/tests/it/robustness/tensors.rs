//! Rows 9 to 21: what a request says of its tensors.

use millrace_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use millrace_proto::inference::{InferTensorContents, ModelInferRequest};
use serde_json::json;

use super::{Doors, INFER, MIB, MODEL_INFER, good, input, request, request_without_raw};
use crate::support::Client;

fn typed(contents: InferTensorContents, sizes: &[i64]) -> ModelInferRequest {
    request_without_raw(InferInputTensor { contents: Some(contents), shape: sizes.to_vec(), ..good().0 })
}

#[test]
fn row_9_data_of_another_type_is_refused_by_the_inputs_name() {
    let mut doors = Doors::open();
    for data in ["null", "{}", "\"1\"", "5", "true", "[true]", "[null]", "[\"1\"]", "[1, \"2\"]", "[{}]", "[[true]]"] {
        doors.rest_refuses(input("[1]", data), "x");
    }
    // Another type's field, and two fields at once.
    doors.grpc_refuses(&typed(InferTensorContents { int64_contents: vec![1], ..Default::default() }, &[1]), "x");
    let two = InferTensorContents { int64_contents: vec![1], fp32_contents: vec![1.0], ..Default::default() };
    doors.grpc_refuses(&typed(two, &[1]), "x");
    doors.is_well();
}

#[test]
fn rows_10_and_11_too_few_or_too_many_elements_are_refused_however_they_are_nested() {
    let mut doors = Doors::open();
    for (shape, data) in [
        ("[2]", "[1]"),
        ("[2]", "[1, 2, 3]"),
        ("[2]", "[[1], []]"),
        ("[2]", "[[1, 2], [3]]"),
        ("[2]", "[]"),
        ("[0]", "[1]"),
        ("[1000000]", "[[[[1]]]]"),
    ] {
        doors.rest_refuses(input(shape, data), "x");
    }
    for (count, sizes) in [(1, [2]), (3, [2]), (0, [2]), (1, [0])] {
        let fp32_contents = vec![1.0; count];
        doors.grpc_refuses(&typed(InferTensorContents { fp32_contents, ..Default::default() }, &sizes), "x");
    }
    for (bytes, sizes) in [(4, [2]), (12, [2]), (7, [2]), (4, [0])] {
        let mut bad = request((InferInputTensor { shape: sizes.to_vec(), ..good().0 }, vec![0; bytes]));
        bad.id = "a".into();
        doors.grpc_refuses(&bad, "x");
    }
    // Nesting itself is free, as long as the elements are as many as the shape says.
    for data in ["[1, 2]", "[[1, 2]]", "[[1], [2]]"] {
        assert_eq!(doors.http.post(INFER, input("[2]", data)).status, 200, "{data}");
    }
    doors.is_well();
}

#[test]
fn rows_12_13_and_16_sizes_that_multiply_too_far_allocate_nothing() {
    let mut doors = Doors::open();
    let growth = {
        let Doors { process, http, grpc, .. } = &mut doors;
        process.peak_growth(|| {
            for sizes in [
                &[1 << 62, 4][..],
                &[1 << 32, 1 << 32],
                &[16, (1 << 60) + 2],
                &[1 << 40],
                &[1, 1 << 40],
                &[0, 1 << 62],
                &[i64::MAX],
                &[i64::MAX, i64::MAX],
                &[0, i64::MAX, i64::MAX],
            ] {
                let reply = http.post(INFER, input(&format!("{sizes:?}"), "[1, 2, 3, 4]"));
                assert_eq!(reply.status, 400, "{sizes:?}: {}", reply.text());
                assert!(reply.json()["error"].as_str().unwrap().contains('x'));
                for contents in [vec![1.0; 4], Vec::new()] {
                    let contents = InferTensorContents { fp32_contents: contents, ..Default::default() };
                    grpc.ask(MODEL_INFER, &typed(contents, sizes)).refuses(3, "x");
                }
                let raw = request((InferInputTensor { shape: sizes.to_vec(), ..good().0 }, vec![0; 16]));
                grpc.ask(MODEL_INFER, &raw).refuses(3, "x");
            }
        })
    };
    assert!(growth < 8 * MIB, "{growth} bytes");
    doors.is_well();
}

#[test]
fn row_14_sizes_that_are_none_are_refused() {
    let mut doors = Doors::open();
    for sizes in [&[-1][..], &[-2, -2], &[i64::MIN], &[-4]] {
        doors.both_refuse_shape(&format!("{sizes:?}"), sizes, "x");
    }
    for shape in [
        "[1.5]",
        "[4.0]",
        "[\"4\"]",
        "[9223372036854775808]",
        "[18446744073709551616]",
        "[1e1]",
        "[null]",
        "[[4]]",
        "[true]",
        "4",
        "\"4\"",
        "null",
        "{}",
    ] {
        doors.rest_refuses(input(shape, "[1, 2, 3, 4]"), "");
    }
    doors.is_well();
}

#[test]
fn row_15_no_rows_are_answered_at_once_and_leave_the_queue_free() {
    let mut doors = Doors::open();
    let reply = doors.http.post(INFER, input("[0]", "[]"));
    let empty = request((InferInputTensor { shape: vec![0], ..good().0 }, Vec::new()));
    let ended = doors.grpc.ask(MODEL_INFER, &empty);
    // One of the two, and the same by both doors.
    match reply.status {
        200 => {
            assert_eq!(reply.json()["outputs"][0]["shape"], json!([0]));
            assert_eq!(ended.code, Some(0), "{}", ended.message);
        }
        status => {
            assert_eq!(status, 400, "{}", reply.text());
            ended.refuses(3, "");
        }
    }
    doors.rest_refuses(input("[0, 4]", "[]"), "x");
    doors.is_well();
}

#[test]
fn row_17_a_rank_of_a_million_is_refused_and_costs_little() {
    let mut doors = Doors::open();
    let sizes = vec![1_i64; 1_000_000];
    let body = input(&format!("{sizes:?}"), "[1]");
    let raw = request((InferInputTensor { shape: sizes, ..good().0 }, vec![0; 4]));
    let growth = {
        let Doors { process, http, grpc, .. } = &mut doors;
        process.peak_growth(|| {
            let reply = http.post(INFER, &body);
            assert!(matches!(reply.status, 400 | 413), "{}", reply.text());
            assert!(reply.json()["error"].as_str().unwrap().contains("rank"), "{}", reply.text());
            grpc.ask(MODEL_INFER, &raw).refuses(3, "rank");
        })
    };
    assert!(growth < 64 * MIB, "{growth} bytes");
    doors.rest_refuses(input(&format!("{:?}", [1; 33]), "[1]"), "rank");
    doors.is_well();
}

#[test]
fn row_18_datatypes_that_are_none_or_not_the_models_are_refused() {
    let mut doors = Doors::open();
    let long = "F".repeat(1 << 20);
    for datatype in ["FP33", "fp32", "", "FP64", "INT32", "BYTES", "FP16", "BF16", "FP32\0", "\u{1b}[31m", &long] {
        let body = json!({"inputs": [{"name": "x", "datatype": datatype, "shape": [1], "data": [1]}]});
        doors.rest_refuses(body.to_string(), "FP32");
        let (input, raw) = good();
        doors.grpc_refuses(&request((InferInputTensor { datatype: datatype.into(), ..input }, raw)), "FP32");
    }
    doors.rest_refuses(r#"{"inputs": [{"name": "x", "shape": [1], "data": [1]}]}"#, "datatype");
    doors.rest_refuses(r#"{"inputs": [{"name": "x", "datatype": 5, "shape": [1], "data": [1]}]}"#, "datatype");
    doors.is_well();
}

#[test]
fn row_19_inputs_that_are_missing_unknown_or_named_twice_are_refused_by_an_escaped_name() {
    let mut doors = Doors::open();
    doors.rest_refuses(r#"{"inputs": []}"#, "x");
    doors.rest_refuses("{}", "inputs");
    doors.rest_refuses(r#"{"inputs": {}}"#, "inputs");
    doors.grpc_refuses(&ModelInferRequest { model_name: "half_plus_two".into(), ..Default::default() }, "x");
    let long = "n".repeat(8 << 10);
    for (name, shown) in [("z", "z"), ("", ""), ("x\0", "x"), ("a\r\nb", "a"), ("\u{1b}[2J", ""), (&long, "nnnn")] {
        let body = json!({"inputs": [{"name": name, "datatype": "FP32", "shape": [1], "data": [1]}]});
        doors.rest_refuses(body.to_string(), shown);
        let reply = doors.http.post(INFER, body.to_string());
        let text = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(text.len() < 1 << 10 && !text.contains(['\0', '\r', '\n', '\u{1b}']), "{text:?}");
        let (input, raw) = good();
        let ended = doors.grpc.ask(MODEL_INFER, &request((InferInputTensor { name: name.into(), ..input }, raw)));
        ended.refuses(3, shown);
        assert!(!ended.message.contains(['\0', '\r', '\n', '\u{1b}']), "{:?}", ended.message);
    }
    let one = r#"{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}"#;
    doors.rest_refuses(format!(r#"{{"inputs": [{one}, {one}]}}"#), "x");
    let mut twice = request(good());
    twice.inputs.push(good().0);
    twice.raw_input_contents.push(good().1.into());
    doors.grpc_refuses(&twice, "x");
    doors.is_well();
}

#[test]
fn row_20_outputs_that_are_unknown_or_asked_twice_are_refused() {
    let mut doors = Doors::open();
    for names in [&["z"][..], &[""], &["y", "y"], &["y", "z"]] {
        let outputs: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let one = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]});
        doors.rest_refuses(json!({"inputs": [one], "outputs": outputs}).to_string(), names.last().unwrap());
        let mut bad = request(good());
        bad.outputs = names
            .iter()
            .map(|name| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() })
            .collect();
        doors.grpc_refuses(&bad, names.last().unwrap());
    }
    doors.is_well();
}

#[test]
fn row_21_two_hundred_thousand_inputs_or_outputs_are_refused_quickly_and_shortly() {
    let mut doors = Doors::open();
    let many = |one: &str| vec![one; 200_000].join(",");
    let one = r#"{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}"#;
    let before = doors.process.computed();
    for body in [
        format!(r#"{{"inputs": [{}]}}"#, many(one)),
        format!(r#"{{"inputs": [{}]}}"#, many("{}")),
        format!(r#"{{"inputs": [{one}], "outputs": [{}]}}"#, many(r#"{"name": "y"}"#)),
        format!(r#"{{"inputs": [{one}], "outputs": [{}]}}"#, many("{}")),
    ] {
        doors.http.send(Client::request("POST", INFER, "", body.as_bytes()));
        let reply = doors.http.reply();
        assert!(matches!(reply.status, 400 | 413), "{}", reply.text());
        assert!(reply.body.len() < 8 << 10);
    }
    let mut inputs = request(good());
    inputs.inputs = vec![good().0; 200_000];
    doors.grpc_refuses(&inputs, "");
    let mut outputs = request(good());
    outputs.outputs = vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }; 200_000];
    doors.grpc_refuses(&outputs, "");
    // Six requests; a debug build computes for longer than a released one.
    let computed = doors.process.computed() - before;
    assert!(computed.as_secs() < 6, "{computed:?}");
    doors.is_well();
}
