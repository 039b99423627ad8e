//! Tensors in binary form, both ways, and packed bodies.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::Method;
use millrace_core::{DType, Tensor};
use millrace_testkit::CountingAllocator;
use serde_json::{Value, json};
use std::io::{Read, Write};

use crate::harness::{Answer, Models, TestServer, answered, signature, spec};
use crate::oip::{infer, oip_models, x};

const LENGTH: &str = "inference-header-content-length";

/// A body of a document and what follows it, and the document's length.
fn body(document: &Value, blobs: &[&[u8]]) -> (String, Bytes) {
    let mut body = document.to_string().into_bytes();
    let length = body.len().to_string();
    blobs.iter().for_each(|blob| body.extend_from_slice(blob));
    (length, Bytes::from(body))
}

async fn send(server: &TestServer, model: &str, document: &Value, blobs: &[&[u8]]) -> Answer {
    let (length, body) = body(document, blobs);
    server.ask(Method::POST, &format!("/v2/models/{model}/infer"), &[(LENGTH, &length)], body).await
}

/// The document of an answer in binary form, and what follows it.
#[track_caller]
fn taken_apart(answer: &Answer) -> (Value, Bytes) {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length: usize = answer.headers[LENGTH].to_str().unwrap().parse().unwrap();
    (serde_json::from_slice(&answer.body[..length]).unwrap(), answer.body.slice(length..))
}

fn binary_x(dtype: &str, shape: &Value, size: usize) -> Value {
    json!({
        "inputs": [{"name": "x", "shape": shape, "datatype": dtype, "parameters": {"binary_data_size": size}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": true}}],
    })
}

#[tokio::test]
async fn the_documented_bytes_are_a_request() {
    let server = TestServer::new(Models::new().identity("affine", spec("x", DType::Fp32, &[-1, 2]), "y"));
    let document = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    assert_eq!(document.len(), 152);
    let mut body = document.to_vec();
    body.extend_from_slice(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
    let answer = server.ask(Method::POST, "/v2/models/affine/infer", &[(LENGTH, "152")], body).await;
    let (document, blobs) = taken_apart(&answer);
    let expected = json!({"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}});
    assert_eq!(document["outputs"], json!([expected]));
    assert_eq!(blobs, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40][..]);
}

#[tokio::test]
async fn every_dtype_goes_and_comes_as_its_bytes() {
    let server = TestServer::new(oip_models());
    for dtype in DType::ALL {
        let bytes: Vec<u8> = match dtype.size() {
            Some(size) if dtype == DType::Bool => vec![1; 2 * size],
            Some(size) => (1..=2 * u8::try_from(size).unwrap()).collect(),
            None => b"\x02\0\0\0ab\x00\0\0\0".to_vec(),
        };
        let document = binary_x(dtype.name(), &json!([1, 2]), bytes.len());
        let answer = send(&server, &format!("id_{dtype}"), &document, &[&bytes]).await;
        assert_eq!(taken_apart(&answer).1, bytes, "{dtype}");
    }
}

#[tokio::test]
async fn a_document_that_comes_again_means_what_it_meant() {
    let server = TestServer::new(oip_models());
    let document = binary_x("FP32", &json!([1, 2]), 8);
    let ask = |model: &'static str, blobs: &'static [&'static [u8]]| send(&server, model, &document, blobs);
    // What is wrong with these is the same before the document is known and after.
    let wrong: [(&str, &[&[u8]]); 4] = [
        ("id_FP32", &[b"short"]),
        ("id_FP32", &[b"overlong!"]),
        ("id_FP64", &[b"12345678"]),
        ("nobody", &[b"12345678"]),
    ];
    let mut before = Vec::new();
    for (model, blobs) in wrong {
        before.push(ask(model, blobs).await);
    }
    for bytes in [b"12345678", b"abcdefgh", b"ABCDEFGH"] {
        let (answer, blobs) = taken_apart(&send(&server, "id_FP32", &document, &[bytes]).await);
        assert_eq!((&answer["model_name"], &blobs[..]), (&json!("id_FP32"), &bytes[..]));
    }
    for ((model, blobs), before) in wrong.into_iter().zip(before) {
        let after = ask(model, blobs).await;
        assert_ne!(after.status, 200, "{model}");
        assert_eq!((after.status, after.body), (before.status, before.body), "{model}");
    }
    // Many others push it out of memory and back in.
    for rows in (1..40).chain(1..40) {
        let bytes = vec![7; rows * 8];
        let document = binary_x("FP32", &json!([rows, 2]), bytes.len());
        assert_eq!(taken_apart(&send(&server, "id_FP32", &document, &[&bytes]).await).1, bytes);
    }
    let mut named = document.clone();
    for id in ["a", "b"] {
        named["id"] = json!(id);
        assert_eq!(taken_apart(&send(&server, "id_FP32", &named, &[b"12345678"]).await).0["id"], id);
    }
}

#[tokio::test]
async fn binary_inputs_follow_in_the_order_of_the_document_and_others_take_none() {
    let server = TestServer::new(oip_models());
    let a = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];
    let b = b"\x01\0\0\0t";
    let document = json!({
        "inputs": [
            {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
            {"name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        ],
        "parameters": {"binary_data_output": true},
    });
    let (answer, blobs) = taken_apart(&send(&server, "two", &document, &[b, &a]).await);
    assert_eq!(answer["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(blobs, [&a[..], b].concat());
    let mixed = json!({
        "inputs": [
            {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["t"]},
            {"name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        ],
        "outputs": [{"name": "d", "parameters": {"binary_data": false}}, {"name": "c", "parameters": {"binary_data": true}}],
    });
    let (answer, blobs) = taken_apart(&send(&server, "two", &mixed, &[&a]).await);
    assert_eq!(answer["outputs"][0], json!({"name": "d", "datatype": "BYTES", "shape": [1], "data": ["t"]}));
    assert_eq!(blobs, &a[..]);
}

#[tokio::test]
async fn a_listed_output_is_binary_only_by_its_own_word() {
    let server = TestServer::new(oip_models());
    let mut document = x("FP32", &json!([1, 2]), &json!([1, 2]));
    document["parameters"] = json!({"binary_data_output": true});
    taken_apart(&infer(&server, "pairs", &document).await);
    document["outputs"] = json!([{"name": "y"}]);
    let answer = infer(&server, "pairs", &document).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key(LENGTH)), (200, false));
    assert_eq!(answer.json()["outputs"][0]["data"], json!([1.0, 2.0]));
}

#[tokio::test]
async fn a_binary_output_without_bytes_needs_no_header() {
    let empty = spec("y", DType::Fp32, &[0]);
    let server = TestServer::new(Models::new().version(
        "none",
        1,
        signature(vec![spec("x", DType::Fp32, &[1])], vec![empty]),
        |_| answered([Tensor::from_vec::<f32>(&[0], vec![]).unwrap()]),
    ));
    let mut document = x("FP32", &json!([1]), &json!([1]));
    document["parameters"] = json!({"binary_data_output": true});
    let answer = infer(&server, "none", &document).await;
    assert!(!answer.headers.contains_key(LENGTH));
    let expected = json!({"name": "y", "datatype": "FP32", "shape": [0], "parameters": {"binary_data_size": 0}});
    assert_eq!(
        (&answer.headers["content-type"], &answer.json()["outputs"][0]),
        (&"application/json".parse().unwrap(), &expected)
    );
}

#[tokio::test]
async fn a_classified_output_can_be_binary_too() {
    let server = TestServer::new(oip_models());
    let mut document = x("FP32", &json!([1, 3]), &json!([0.1, 0.7, 0.2]));
    document["outputs"] = json!([{"name": "y", "parameters": {"classification": 1, "binary_data": true}}]);
    let (_, blobs) = taken_apart(&infer(&server, "scores", &document).await);
    assert_eq!(blobs, &b"\x0a\0\0\x000.700000:1"[..]);
}

#[tokio::test]
async fn a_body_that_is_nothing_but_bytes_is_the_only_input() {
    let server = TestServer::new(oip_models());
    let raw = |model: &'static str, body: &'static [u8]| {
        let server = &server;
        async move { server.ask(Method::POST, &format!("/v2/models/{model}/infer"), &[(LENGTH, "0")], body).await }
    };
    let (document, blobs) = taken_apart(&raw("pairs", &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]).await);
    assert_eq!(
        (&document["outputs"][0]["shape"], &blobs[..]),
        (&json!([1, 2]), &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40][..])
    );
    let (_, blobs) = taken_apart(&raw("strings", b"text").await);
    assert_eq!(blobs, &b"\x04\0\0\0text"[..]);
    raw("pairs", &[0; 7]).await.refuses(400, "pairs");
    raw("pairs", &[]).await.refuses(400, "pairs");
    raw("two", &[0; 8]).await.refuses(400, "one input");
    raw("nothing", &[0; 8]).await.refuses(404, "nothing");
}

/// Robustness row 22.
#[tokio::test]
async fn a_binary_data_size_that_is_not_the_inputs_names_it() {
    let server = TestServer::new(oip_models());
    let bytes = [0_u8; 12];
    for size in [json!(-1), json!("8"), json!(8.5), json!(true), json!(null), json!(u64::MAX), json!(1_u64 << 63)] {
        let mut document = binary_x("FP32", &json!([1, 2]), 0);
        document["inputs"][0]["parameters"]["binary_data_size"] = size.clone();
        send(&server, "pairs", &document, &[&bytes[..8]]).await.refuses(400, "");
    }
    // Declared and sent, but not what the shape wants.
    for size in [7, 12] {
        let document = binary_x("FP32", &json!([1, 2]), size);
        let answer = send(&server, "pairs", &document, &[&bytes[..size]]).await;
        answer.refuses(400, "input byte size mismatch for input 'x' for model 'pairs'");
    }
    let short = send(&server, "pairs", &binary_x("FP32", &json!([1, 2]), 8), &[&bytes[..7]]).await;
    short.refuses(400, "unexpected size for input 'x', expecting 1 additional bytes for model 'pairs'");
    let long = send(&server, "pairs", &binary_x("FP32", &json!([1, 2]), 8), &[&bytes]).await;
    long.refuses(400, "unexpected additional input data for model 'pairs'");
    let none = infer(&server, "pairs", &binary_x("FP32", &json!([1, 2]), 8)).await;
    none.refuses(400, "expecting 8 additional bytes");
}

/// Robustness row 23.
#[tokio::test]
async fn a_wrong_header_length_names_the_header() {
    let server = TestServer::new(oip_models());
    let document = x("FP32", &json!([1, 2]), &json!([1, 2])).to_string();
    let path = "/v2/models/pairs/infer";
    let past = (document.len() + 1).to_string();
    for length in ["-1", "abc", "+10", "99999999999", &"9".repeat(40), &past, "1.0", ""] {
        let answer = server.ask(Method::POST, path, &[(LENGTH, length)], document.clone()).await;
        answer.refuses(400, LENGTH);
    }
    let length = document.len().to_string();
    let twice = [(LENGTH, length.as_str()), (LENGTH, length.as_str())];
    server.ask(Method::POST, path, &twice, document.clone()).await.refuses(400, LENGTH);
    let whole = server.ask(Method::POST, path, &[(LENGTH, &length)], document.clone()).await;
    assert_eq!(whole.status, 200);
    let cut = (document.len() - 1).to_string();
    server.ask(Method::POST, path, &[(LENGTH, &cut)], document).await.refuses(400, "JSON");
}

/// Robustness row 24.
#[tokio::test]
async fn data_in_two_places_or_in_none_is_refused() {
    let server = TestServer::new(oip_models());
    let input = |extra: Value| {
        let mut input = json!({"name": "x", "shape": [1, 2], "datatype": "FP32"});
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"inputs": [input]})
    };
    let both = input(json!({"data": [1, 2], "parameters": {"binary_data_size": 8}}));
    send(&server, "pairs", &both, &[&[0; 8]]).await.refuses(400, "more than one");
    let first = input(json!({"parameters": {"binary_data_size": 8}, "data": [1, 2]}));
    send(&server, "pairs", &first, &[&[0; 8]]).await.refuses(400, "more than one");
    let region = input(json!({"data": [1, 2], "parameters": {"shared_memory_region": "r"}}));
    infer(&server, "pairs", &region).await.refuses(400, "more than one");
    infer(&server, "pairs", &input(json!({}))).await.refuses(400, "no data");
    let only_region = input(json!({"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}));
    infer(&server, "pairs", &only_region).await.refuses(501, "shared memory");
}

/// Robustness row 27.
#[tokio::test]
async fn strings_that_reach_past_the_end_are_refused() {
    let server = TestServer::new(oip_models());
    let cases: [&[u8]; 6] =
        [b"\x03\0\0\0ab", b"\xff\xff\xff\xffab", b"\x02\0\0\0ab\x01\0\0\0c", b"\x02\0\0\0abcd", b"\x02\0\0", b""];
    for bytes in cases {
        let document = json!({"inputs": [
            {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": bytes.len()}},
        ]});
        send(&server, "strings", &document, &[bytes]).await.refuses(400, "BYTES element");
    }
    let bools = binary_x("BOOL", &json!([1, 2]), 2);
    send(&server, "id_BOOL", &bools, &[&[0, 2]]).await.refuses(400, "BOOL");
}

#[tokio::test]
async fn a_binary_tensor_is_not_copied_on_its_way_through() {
    let server = TestServer::new(Models::new().identity("big", spec("x", DType::Fp32, &[-1, 1024]), "y"));
    let blob = vec![1_u8; 64 * 4096];
    let document = binary_x("FP32", &json!([64, 1024]), blob.len());
    let (length, body) = body(&document, &[&blob]);
    let sent = body.clone();
    let request = crate::harness::request(Method::POST, "/v2/models/big/infer", &[(LENGTH, &length)], body);
    let response = server.service.answer(request, millrace_http::ConnectionContext::default()).await;
    let mut answer = response.into_body();
    let mut last = Bytes::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut answer).await {
        last = frame.unwrap().into_data().unwrap();
    }
    let offset = length.parse::<usize>().unwrap();
    assert_eq!(last.as_ptr(), sent[offset..].as_ptr(), "the very bytes that came in go out");
}

#[tokio::test]
async fn a_small_request_allocates_a_handful_of_times() {
    let server = TestServer::new(oip_models());
    let (length, body) = body(&binary_x("FP32", &json!([1, 2]), 8), &[&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]]);
    let ask = || {
        let headers = [("host", "a"), (LENGTH, length.as_str())];
        crate::harness::request(Method::POST, "/v2/models/pairs/infer", &headers, body.clone())
    };
    let first = server.service.answer(ask(), millrace_http::ConnectionContext::default()).await;
    assert_eq!(first.status(), 200);
    let ask = ask();
    let before = CountingAllocator::count();
    let answer = server.service.answer(ask, millrace_http::ConnectionContext::default()).await;
    let allocations = CountingAllocator::count() - before;
    assert_eq!(answer.status(), 200);
    // The input shares the body, so the body gets a counter. The model: its boxed answer. Encoding: the text and what
    // shares it. The answer: its header map, which takes two, and the length in it.
    assert!(allocations <= 7, "{allocations} allocations");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    match answer.headers["content-encoding"].to_str().unwrap() {
        "gzip" => GzDecoder::new(&answer.body[..]).read_to_end(&mut bytes).unwrap(),
        "deflate" => ZlibDecoder::new(&answer.body[..]).read_to_end(&mut bytes).unwrap(),
        other => panic!("{other}"),
    };
    bytes
}

#[tokio::test]
async fn packed_bodies_are_read_and_the_header_length_counts_unpacked_bytes() {
    let server = TestServer::new(oip_models());
    let (length, plain) = body(&binary_x("FP32", &json!([1, 2]), 8), &[&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]]);
    for (coding, packed) in [("gzip", gzip(&plain)), ("deflate", deflate(&plain)), ("identity", plain.to_vec())] {
        let headers = [("content-encoding", coding), (LENGTH, &length)];
        let answer = server.ask(Method::POST, "/v2/models/pairs/infer", &headers, packed).await;
        assert_eq!(taken_apart(&answer).1, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40][..], "{coding}");
    }
}

/// Robustness row 29.
#[tokio::test]
async fn bombs_and_broken_or_unknown_codings_are_refused() {
    let server = TestServer::with(oip_models(), |config| config.max_decompressed_bytes = 1 << 20);
    let path = "/v2/models/pairs/infer";
    let good = x("FP32", &json!([1, 2]), &json!([1, 2])).to_string();
    let send = |coding: &'static str, body: Vec<u8>| {
        let server = &server;
        async move { server.ask(Method::POST, path, &[("content-encoding", coding)], body).await }
    };
    send("gzip", gzip(&vec![b' '; 200 << 20])).await.refuses(413, "limit");
    send("deflate", deflate(&vec![b' '; 2 << 20])).await.refuses(413, "limit");
    let packed = gzip(good.as_bytes());
    send("gzip", packed[..packed.len() - 3].to_vec()).await.refuses(400, "gzip");
    send("gzip", gzip(&packed)).await.refuses(400, "");
    send("deflate", packed.clone()).await.refuses(400, "deflate");
    for coding in ["br", "gzip, gzip", "GZIP", ""] {
        let answer = send(coding, packed.clone()).await;
        answer.refuses(501, "encoding");
        assert_eq!(answer.headers["accept-encoding"], "gzip, deflate");
    }
    let unknown = server.ask(Method::POST, "/v2/models/nothing/infer", &[("content-encoding", "br")], "x").await;
    unknown.refuses(404, "nothing");
    send("identity", good.into_bytes()).await.gives(&json!({
        "model_name": "pairs", "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }));
}

#[tokio::test]
async fn answers_are_packed_as_the_client_likes_best_and_refusals_never() {
    let server = TestServer::new(oip_models());
    let mut document = x("FP32", &json!([1, 2]), &json!([1, 2]));
    document["parameters"] = json!({"binary_data_output": true});
    let ask = |accept: &'static str, body: String| {
        let server = &server;
        async move { server.ask(Method::POST, "/v2/models/pairs/infer", &[("accept-encoding", accept)], body).await }
    };
    for (accept, coding) in
        [("gzip;q=0.2, deflate;q=0.9", "deflate"), ("gzip, deflate", "gzip"), ("deflate;q=0.5, gzip;q=0.5", "deflate")]
    {
        let answer = ask(accept, document.to_string()).await;
        assert_eq!(answer.headers["content-encoding"], coding, "{accept}");
        let (bytes, length) = (unpacked(&answer), answer.headers[LENGTH].to_str().unwrap().parse::<usize>().unwrap());
        assert_eq!(bytes[length..], [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
    }
    for accept in ["identity", "br", "gzip;q=0", "identity, gzip;q=0.5"] {
        let answer = ask(accept, document.to_string()).await;
        assert!(!answer.headers.contains_key("content-encoding"), "{accept}");
        taken_apart(&answer);
    }
    let refused = ask("gzip", "{}".to_owned()).await;
    assert!(!refused.headers.contains_key("content-encoding"));
    refused.refuses(400, "inputs");
    let ready = server.ask(Method::GET, "/v2/models/pairs", &[("accept-encoding", "gzip")], "").await;
    assert!(!ready.headers.contains_key("content-encoding"));
}
