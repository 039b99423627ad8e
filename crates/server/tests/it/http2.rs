//! HTTP/2 without TLS, on the same port.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millrace_server::Drained;
use millrace_testkit::{FakeBackend, Gate};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::frames::{ACK, END_HEADERS, END_STREAM, frame, goaway, headers, hello, kind, parse, parse_in_full};
use crate::support::{DOUBLE, PATIENCE, Repository, TestServer, now, prediction};

/// A connection, and the task that drives it: it ends when the connection does.
async fn connect(address: SocketAddr) -> (SendRequest<Full<Bytes>>, JoinHandle<()>) {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    // How it ends is seen by those who wait for answers.
    (sender, tokio::spawn(async { drop(connection.await) }))
}

fn request(address: SocketAddr) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from_static(br#"{"instances": [1.0]}"#));
    Request::post(format!("http://{address}{DOUBLE}")).body(body).unwrap()
}

async fn json(response: Response<hyper::body::Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[test]
fn many_requests_share_a_connection() {
    let server = TestServer::double(|_| {});
    let address = server.address();
    server.runtime().block_on(async {
        let (sender, _connection) = connect(address).await;
        let asked: Vec<_> = (0..50)
            .map(|_| {
                let mut sender = sender.clone();
                tokio::spawn(async move { sender.send_request(request(address)).await.unwrap() })
            })
            .collect();
        for response in asked {
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let date = response.headers()["date"].to_str().unwrap();
            assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
            assert_eq!(json(response).await, prediction(2.0));
        }
    });
}

/// A server whose runs wait at the gate, and one request that has arrived there.
fn busy(drain_timeout: Duration) -> (TestServer, Gate, JoinHandle<Response<hyper::body::Incoming>>) {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.drain_timeout = drain_timeout;
    });
    gate.close();
    let before = gate.arrived();
    let address = server.address();
    let response = server.runtime().spawn(async move {
        let (mut sender, _connection) = connect(address).await;
        sender.send_request(request(address)).await.unwrap()
    });
    gate.wait_for(before + 1);
    (server, gate, response)
}

#[test]
fn row_74_a_stream_in_flight_finishes_while_draining() {
    let (server, gate, response) = busy(PATIENCE);
    let drain = server.begin_drain();
    gate.open();
    let response = server.runtime().block_on(response).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.runtime().block_on(json(response)), prediction(2.0));
    assert_eq!(server.wait(drain), Drained::Complete);
}

#[test]
fn row_75_a_stream_that_is_over_time_gets_503() {
    let (server, gate, response) = busy(Duration::from_millis(100));
    let drain = server.begin_drain();
    let response = server.runtime().block_on(response).unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(server.wait(drain), Drained::Cut);
    gate.open();
}

#[test]
fn row_36_a_header_list_over_its_limit_is_refused_and_others_are_served() {
    let server = TestServer::double(|_| {});
    let address = server.address();
    server.runtime().block_on(async {
        for (count, length) in [(1, 20_000), (10_000, 10), (64, 16_000)] {
            let (mut sender, _connection) = connect(address).await;
            let mut large = request(address);
            for index in 0..count {
                let name = http::HeaderName::try_from(format!("x-{index}")).unwrap();
                large.headers_mut().insert(name, "y".repeat(length).parse().unwrap());
            }
            // 431 where the list can still be read to its end; a reset of the stream or the connection where not.
            let answer = tokio::time::timeout(PATIENCE, sender.send_request(large)).await.expect("it answers");
            assert!(!answer.is_ok_and(|response| response.status() != 431), "{count} headers of {length} bytes");
        }
        let (mut sender, _connection) = connect(address).await;
        let mut fair = request(address);
        fair.headers_mut().insert("x", "y".repeat(8_000).parse().unwrap());
        assert_eq!(sender.send_request(fair).await.unwrap().status(), 200);
    });
    server.is_well();
}

#[test]
fn row_36_headers_without_an_end_close_the_connection() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    // A literal header with a new name, `x: yyy…`, of 100 bytes.
    let header = [&b"\x00\x01x\x64"[..], &[b'y'; 100]].concat();
    client.send_anyway(hello());
    // HEADERS, then one CONTINUATION after another, none of which says that it is the last.
    client.send_anyway(frame(kind::HEADERS, 0, 1, &header));
    let more = frame(kind::CONTINUATION, 0, 1, &header.repeat(100));
    for _ in 0..10_000 {
        client.send_anyway(&more);
    }
    // GOAWAY, unless the reset that follows unread bytes has swallowed it; no answer in any case.
    let frames = parse(&client.rest_until_close());
    assert!(frames.iter().all(|(kind, _)| *kind != kind::HEADERS), "{frames:?}");
    server.is_well();
}

#[test]
fn an_idle_connection_is_closed() {
    let server = TestServer::double(|config| config.connections.idle_timeout = Duration::from_millis(300));
    let address = server.address();
    server.runtime().block_on(async {
        let (mut sender, connection) = connect(address).await;
        assert_eq!(sender.send_request(request(address)).await.unwrap().status(), 200);
        // The sender stays: it is the server that closes.
        tokio::time::timeout(PATIENCE, connection).await.expect("the server closes").unwrap();
        assert!(sender.is_closed());
    });
}

#[test]
fn a_connection_that_is_too_old_takes_no_more_requests() {
    let server = TestServer::double(|config| config.connections.max_age = Duration::from_millis(300));
    let address = server.address();
    server.runtime().block_on(async {
        let (mut sender, connection) = connect(address).await;
        // Never idle: requests follow one another until the server says GOAWAY.
        let begin = now();
        let mut asked = 0;
        loop {
            match sender.send_request(request(address)).await {
                Ok(response) => assert_eq!(json(response).await, prediction(2.0)),
                // Not processed, by the protocol's promise: to be sent again elsewhere.
                Err(_) => break,
            }
            asked += 1;
            assert!(begin.elapsed() < PATIENCE, "it takes requests for ever");
        }
        assert!(asked > 0);
        assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
        tokio::time::timeout(PATIENCE, connection).await.expect("the server closes").unwrap();
    });
    server.is_well();
}

#[test]
fn requests_in_flight_on_a_connection_that_is_too_old_have_their_grace() {
    for (grace, expected) in [(PATIENCE, true), (Duration::from_millis(100), false)] {
        let gate = Gate::opened();
        let backend = FakeBackend::default().run_gate(gate.clone());
        let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
            config.connections.max_age = Duration::from_millis(100);
            config.connections.age_grace = grace;
        });
        gate.close();
        let before = gate.arrived();
        let mut client = server.client();
        client.send(hello());
        client.send(frame(kind::HEADERS, END_HEADERS, 1, &headers("POST", DOUBLE)));
        client.send(frame(kind::DATA, END_STREAM, 1, br#"{"instances": [1.0]}"#));
        gate.wait_for(before + 1);
        let seen = if expected {
            // GOAWAY has come before the answer could.
            let mut seen = client.until_frame(kind::GOAWAY);
            gate.open();
            seen.extend(client.until_frame(kind::DATA));
            seen
        } else {
            let seen = client.rest_until_close();
            gate.open();
            seen
        };
        let frames = parse(&seen);
        assert_eq!(goaway(&frames), Some(0), "{frames:?}");
        assert_eq!(frames.iter().any(|(kind, _)| *kind == kind::DATA), expected, "{frames:?}");
    }
}

#[test]
fn windows_grow_with_what_a_client_sends() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    client.send(hello());
    client.send(frame(kind::HEADERS, END_HEADERS, 1, &headers("POST", DOUBLE)));
    // Room on the connection, and on the stream; a change of the settings counts for the stream.
    let (mut connection, mut stream, mut initial) = (65_535_i64, 65_535_i64, 65_535_i64);
    let (mut largest, mut sent) = (0, 0);
    // The server asks how long the way is; on a long one, much is sent before it hears back.
    let mut asked: Option<Vec<u8>> = None;
    let begin = now();
    while largest < 4 << 20 {
        assert!(begin.elapsed() < PATIENCE, "the window stays at {largest} bytes");
        // All that may be sent before anything is said in answer: whitespace before the JSON.
        while connection.min(stream) > 0 {
            let length = connection.min(stream).min(16 << 10);
            client.send_anyway(frame(kind::DATA, 0, 1, &vec![b' '; usize::try_from(length).unwrap()]));
            (connection, stream, sent) = (connection - length, stream - length, sent + length);
        }
        if sent > 4 << 20
            && let Some(payload) = asked.take()
        {
            client.send(frame(kind::PING, ACK, 0, &payload));
        }
        for seen in parse_in_full(&client.some_frames()) {
            let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
            match seen.kind {
                kind::WINDOW_UPDATE if seen.stream == 0 => connection += number(&seen.payload),
                kind::WINDOW_UPDATE => stream += number(&seen.payload),
                kind::PING if seen.flags & ACK == 0 => asked = Some(seen.payload),
                kind::SETTINGS if seen.flags & ACK == 0 => {
                    client.send(frame(kind::SETTINGS, ACK, 0, b""));
                    for setting in seen.payload.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                        stream += number(&setting[2..]) - initial;
                        initial = number(&setting[2..]);
                    }
                }
                kind::SETTINGS | kind::PING => {}
                other => panic!("a frame of kind {other}: {:?}", seen.payload),
            }
            largest = largest.max(connection.min(stream));
        }
    }
    // The default limit of a body is far above what was sent.
    client.send(frame(kind::DATA, END_STREAM, 1, br#"{"instances": [1.0]}"#));
    let answer = client.until_frame(kind::DATA);
    assert!(answer.windows(11).any(|window| window == b"predictions"));
}
