//! Bytes that are not a proper request: refused or closed, and the server stays well.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use millrace_server::ServerConfig;

use crate::support::{Client, DOUBLE, TestServer, prediction};

const GOOD: &str = r#"{"instances": [1.0]}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn small(config: &mut ServerConfig) {
    config.http.max_body_bytes = 1 << 20;
    config.http.max_decompressed_bytes = 2 << 20;
}

#[test]
fn row_29_a_gzip_bomb_is_refused_and_so_are_other_bad_encodings() {
    let server = TestServer::double(small);
    let post = |encoding: &str, body: &[u8]| {
        let mut client = server.client();
        client.send(Client::request("POST", DOUBLE, &format!("content-encoding: {encoding}\r\n"), body));
        client.reply()
    };
    let bomb = gzip(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < 1 << 20, "the bomb must fit the door: {}", bomb.len());
    post("gzip", &bomb).refuses(413, "");
    post("gzip", &gzip(&gzip(GOOD.as_bytes()))).refuses(400, "");
    let whole = gzip(GOOD.as_bytes());
    post("gzip", &whole[..whole.len() - 9]).refuses(400, "");
    assert!((400..=415).contains(&post("br", b"not json").status));
    assert_eq!(post("gzip", &whole).status, 200);
    server.is_well();
}

#[test]
fn row_30_a_huge_declared_length_is_refused_at_once() {
    let server = TestServer::double(small);
    let mut client = server.client();
    client.send(format!("POST {DOUBLE} HTTP/1.1\r\nhost: t\r\ncontent-length: 10000000000000\r\n\r\n"));
    let reply = client.reply();
    reply.refuses(413, "");
    assert!(reply.closes());
    client.rest_until_close();
    server.is_well();
}

#[test]
fn row_31_a_body_one_byte_over_the_limit_is_refused_however_it_is_framed() {
    let server = TestServer::double(small);
    let fits = [GOOD.as_bytes(), &vec![b' '; (1 << 20) - GOOD.len()]].concat();
    assert_eq!(server.client().post(DOUBLE, &fits).status, 200);
    let over = [&fits[..], b" "].concat();

    let mut client = server.client();
    client.send_anyway(Client::request("POST", DOUBLE, "", &over));
    let reply = client.reply();
    reply.refuses(413, "");
    assert!(reply.closes());

    let mut client = server.client();
    let mut chunked = format!("POST {DOUBLE} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in over.chunks(64 << 10) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    client.send_anyway(&chunked);
    client.reply().refuses(413, "");
    server.is_well();
}

#[test]
fn row_32_nobody_is_told_to_continue_with_a_body_that_is_too_large() {
    let server = TestServer::double(small);
    let mut client = server.client();
    let head = "host: t\r\nexpect: 100-continue\r\n";
    client.send(format!("POST {DOUBLE} HTTP/1.1\r\n{head}content-length: 99999999\r\n\r\n"));
    client.reply().refuses(413, "");

    let mut client = server.client();
    client.send(format!("POST {DOUBLE} HTTP/1.1\r\n{head}content-length: {}\r\n\r\n", GOOD.len()));
    assert_eq!(client.reply().status, 100);
    client.send(GOOD);
    client.reply().gives(&prediction(2.0));
}

#[test]
fn row_34_broken_chunks_end_the_connection() {
    let server = TestServer::double(|_| {});
    for chunk in
        ["11111111111111111\r\n", "-1\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhelloXX0\r\n\r\n"]
    {
        let mut client = server.client();
        client.send_anyway(format!(
            "POST {DOUBLE} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunk}GET /health HTTP/1.1\r\nhost: t\r\n\r\n"
        ));
        client.half_close();
        assert_no_second_answer(&client.rest_until_close(), chunk);
    }
    server.is_well();
}

#[test]
fn row_35_a_message_with_two_lengths_is_never_read_in_two_ways() {
    let server = TestServer::double(|_| {});
    let length = GOOD.len();
    for headers in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("content-length: {length}\r\ncontent-length: 0\r\n"),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        format!("transfer-encoding : chunked\r\ncontent-length: {length}\r\n"),
        "transfer-encoding:\r\n chunked\r\n".to_owned(),
    ] {
        let mut client = server.client();
        client.send_anyway(format!(
            "POST {DOUBLE} HTTP/1.1\r\nhost: t\r\n{headers}\r\n{GOOD}GET /health HTTP/1.1\r\nhost: t\r\n\r\n"
        ));
        client.half_close();
        assert_no_second_answer(&client.rest_until_close(), &headers);
    }
    server.is_well();
}

/// At most one answer, and not the one to the request that was smuggled in behind the body.
#[track_caller]
fn assert_no_second_answer(bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.matches("HTTP/1.1 ").count() <= 1, "{what:?}: {text}");
    assert!(!text.contains("healthy"), "{what:?}: {text}");
}

#[test]
fn row_36_too_many_or_too_large_headers_are_refused() {
    let server = TestServer::double(|_| {});
    let mut many = String::new();
    for index in 0..10_000 {
        let _ = write!(many, "x-{index}: y\r\n");
    }
    for headers in [many, format!("x: {}\r\n", "y".repeat(1 << 20))] {
        let mut client = server.client();
        client.send_anyway(format!("GET /health HTTP/1.1\r\nhost: t\r\n{headers}\r\n"));
        assert_refused_and_closed(&mut client, &[400, 431]);
    }
    // A header that never ends: the server stops reading it.
    let mut client = server.client();
    client.send_anyway("GET /health HTTP/1.1\r\nx: ");
    for _ in 0..64 {
        client.send_anyway("y".repeat(64 << 10));
    }
    assert_refused_and_closed(&mut client, &[400, 431]);
    server.is_well();
}

/// The room that a head has is that of a connection's buffer, so it is what a smaller buffer would cost.
#[test]
fn headers_as_large_as_may_be_are_read_with_the_body_behind_them() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    for length in [65_000, 1, 65_000] {
        let body = [GOOD.as_bytes(), &vec![b' '; 200_000]].concat();
        client.send(Client::request("POST", DOUBLE, &format!("x: {}\r\n", "y".repeat(length)), &body));
        assert_eq!(client.reply().status, 200, "{length} bytes");
    }
}

/// The status is among `statuses`, unless the reset that follows unread bytes has swallowed it; then it closes.
#[track_caller]
fn assert_refused_and_closed(client: &mut Client, statuses: &[u16]) {
    if let Ok(Some(reply)) = client.try_reply() {
        assert!(statuses.contains(&reply.status), "{}", reply.status);
    }
    client.rest_until_close();
}

#[test]
fn row_37_a_huge_uri_is_refused() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    client.send_anyway(format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(1 << 20)));
    assert_refused_and_closed(&mut client, &[404, 414, 431]);
    server.is_well();
}

#[test]
fn row_38_what_is_not_http_is_refused_and_closed() {
    let server = TestServer::double(|_| {});
    for bytes in [
        &b"GET /health HTTP/1.1\r\nhost: a\0b\r\n\r\n"[..],
        b"GET /health HTTP/1.1\r\nhost: a\rb\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"G\x01T /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/3.0\r\nhost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello, padded to some length",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut client = server.client();
        client.send_anyway(bytes);
        client.half_close();
        if let Ok(Some(reply)) = client.try_reply() {
            assert!(matches!(reply.status, 400 | 405 | 505), "{bytes:?}: {}", reply.status);
        }
        client.rest_until_close();
    }
    server.is_well();
}

#[test]
fn row_39_pipelined_requests_are_answered_in_order_good_and_bad() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    let mut all = Vec::new();
    for index in 0..500 {
        let body = if index % 7 == 3 { "{".to_owned() } else { format!("{{\"instances\": [{index}]}}") };
        all.extend_from_slice(&Client::request("POST", DOUBLE, "", body.as_bytes()));
    }
    client.send(&all);
    for index in 0..500 {
        let reply = client.reply();
        if index % 7 == 3 {
            reply.refuses(400, "JSON");
        } else {
            reply.gives(&prediction(f64::from(2 * index)));
        }
    }
    client.get("/health");
}

#[test]
fn rows_51_and_52_names_and_versions_that_are_none_open_no_file() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    for name in ["..", "%2e%2e", "..%2fetc", "a%00b", "%c0%ae%c0%ae", "%ef%bc%8e%ef%bc%8e", "a%0d%0ax:y"] {
        let reply = client.post(&format!("/v1/models/{name}:predict"), GOOD);
        assert!(matches!(reply.status, 400 | 404), "{name}: {}", reply.status);
        assert!(reply.header("x").is_none() && reply.body.len() < 400, "{name}: {}", reply.text());
    }
    let long = client.post(&format!("/v1/models/{}:predict", "x".repeat(8 << 10)), GOOD);
    assert!(long.status == 404 && long.body.len() < 400, "{}", long.text());
    for version in ["-1", "1.0", "18446744073709551616", "%D9%A1", "7"] {
        let reply = client.post(&format!("/v1/models/double/versions/{version}:predict"), GOOD);
        assert!(matches!(reply.status, 400 | 404), "{version}: {}", reply.status);
    }
    client.post("/v1/models/double/versions/0:predict", GOOD).gives(&prediction(2.0));
    server.is_well();
}
