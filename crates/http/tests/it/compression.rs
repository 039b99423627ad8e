//! Gzip in both directions, and gzip that is not what it says.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Method;
use serde_json::json;

use crate::harness::{Answer, TestServer, models};

const PATH: &str = "/v1/models/half_plus_two/versions/1:predict";
const BODY: &[u8] = br#"{"instances": [1]}"#;

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

async fn send(coding: &str, body: impl Into<Bytes>) -> Answer {
    TestServer::new(models()).ask(Method::POST, PATH, &[("content-encoding", coding)], body).await
}

#[tokio::test]
async fn a_gzipped_body_is_read() {
    for coding in ["gzip", "GZIP", "x-gzip"] {
        send(coding, gzip(BODY)).await.gives(&json!({"predictions": [2.5]}));
    }
}

#[tokio::test]
async fn broken_gzip_reads_as_an_empty_body() {
    let packed = gzip(BODY);
    for broken in [Bytes::new(), packed.slice(..packed.len() - 1), packed.slice(..4), Bytes::from_static(BODY)] {
        send("gzip", broken).await.refuses(400, "JSON Parse error: The document is empty");
    }
}

#[tokio::test]
async fn double_gzip_is_unpacked_once_and_is_no_json_then() {
    send("gzip, gzip", gzip(&gzip(BODY))).await.refuses(400, "JSON Parse error");
}

#[tokio::test]
async fn other_codings_are_not_decoded() {
    send("br", gzip(BODY)).await.refuses(400, "JSON Parse error");
    send("deflate", BODY).await.gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn a_bomb_is_413_at_the_limit_and_unpacked_on_a_compute_thread() {
    let mut bomb = br#"{"instances": ["#.to_vec();
    bomb.resize(200_000_000, b' ');
    let server = TestServer::with(models(), |config| config.max_decompressed_bytes = 1 << 20);
    let answer = server.ask(Method::POST, PATH, &[("content-encoding", "gzip")], gzip(&bomb)).await;
    answer.refuses(413, "decompressed request body is larger than the limit of 1048576 bytes");
    assert_eq!(server.compute.jobs(), 1);
}

#[tokio::test]
async fn large_answers_are_gzipped_for_those_who_accept_it() {
    let numbers = vec!["1.5"; 20_000].join(",");
    let body = format!("{{\"instances\": [{numbers}]}}");
    let server = TestServer::new(models());
    let plain = server.ask(Method::POST, PATH, &[], body.clone()).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    assert_eq!(plain.headers["vary"], "accept-encoding");
    let refused = server.ask(Method::POST, PATH, &[("accept-encoding", "gzip;q=0")], body.clone()).await;
    assert!(!refused.headers.contains_key("content-encoding"));
    let packed = server.ask(Method::POST, PATH, &[("accept-encoding", "deflate, gzip")], body).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert_eq!(packed.headers["vary"], "accept-encoding");
    assert!(packed.body.len() < plain.body.len() / 10);
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
}

#[tokio::test]
async fn small_answers_are_never_gzipped() {
    let answer = TestServer::new(models()).ask(Method::POST, PATH, &[("accept-encoding", "gzip")], BODY).await;
    answer.gives(&json!({"predictions": [2.5]}));
    assert!(!answer.headers.contains_key("content-encoding") && !answer.headers.contains_key("vary"));
}
