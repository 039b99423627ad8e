//! The service below a real HTTP/1 connection, in memory: what this crate relies on hyper for.

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millrace_http::ConnectionContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::harness::{TestServer, models};

/// A client's end of a connection to a server whose bodies may have `max_body_bytes`.
fn connect(max_body_bytes: u64) -> DuplexStream {
    let server = TestServer::with(models(), |config| config.max_body_bytes = max_body_bytes);
    let (client, end) = tokio::io::duplex(1 << 20);
    let service = service_fn(move |request: Request<Incoming>| {
        let service = server.service.clone();
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, ConnectionContext::default()).await) }
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(end), service));
    client
}

/// Everything that the server sends until it closes the connection.
async fn until_closed(client: &mut DuplexStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

const HEAD: &str = "POST /v1/models/half_plus_two/versions/1:predict HTTP/1.1\r\nhost: a\r\n";

#[tokio::test]
async fn an_over_large_body_is_refused_without_100_continue_and_the_connection_closes() {
    let mut client = connect(10);
    let head = format!("{HEAD}content-length: 11\r\nexpect: 100-continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_fitting_body_is_asked_for_and_answered() {
    let mut client = connect(100);
    let head = format!("{HEAD}content-length: 18\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(br#"{"instances": [1]}"#).await.unwrap();
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains("predictions"), "{answer}");
}

#[tokio::test]
async fn answers_come_in_order_and_a_bad_request_does_not_end_the_connection() {
    let mut client = connect(100);
    let good = |tail: &str| format!("{HEAD}content-length: 18\r\n{tail}\r\n{}", r#"{"instances": [1]}"#);
    let bad = format!("{HEAD}content-length: 1\r\n\r\n{{");
    let all = format!("{}{bad}{}", good(""), good("connection: close\r\n"));
    client.write_all(all.as_bytes()).await.unwrap();
    let answer = until_closed(&mut client).await;
    let statuses: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "400", "200"], "{answer}");
}

#[tokio::test]
async fn chunks_over_the_limit_are_413_and_the_connection_closes() {
    let mut client = connect(10);
    let request = format!("{HEAD}transfer-encoding: chunked\r\n\r\n5\r\n     \r\n6\r\n      \r\n0\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
