//! Bodies that are too large, too slow, too finely cut or broken.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use serde_json::json;

use crate::harness::{TestServer, models};

const PATH: &str = "/v1/models/half_plus_two/versions/1:predict";

/// A body of frames without a declared length, counting how often it was asked. After the frames it ends, or never.
struct Frames {
    frames: VecDeque<&'static [u8]>,
    polls: usize,
    ends: bool,
}

impl Body for &mut Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polls += 1;
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(frame))))),
            None if self.ends => Poll::Ready(None),
            // Nobody wakes this up: only a timer can end it.
            None => Poll::Pending,
        }
    }
}

fn frames(frames: impl IntoIterator<Item = &'static [u8]>) -> Frames {
    Frames { frames: frames.into_iter().collect(), polls: 0, ends: true }
}

fn post<B>(body: B, headers: &[(&str, &str)]) -> Request<B> {
    let mut request = Request::builder().method(Method::POST).uri(PATH);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

#[tokio::test]
async fn a_content_length_of_ten_terabytes_is_413_at_once_and_nothing_is_read() {
    let server = TestServer::new(models());
    let mut body = frames([&b"{"[..]]);
    let answer = server.send(post(&mut body, &[("content-length", "10000000000000")])).await;
    answer.refuses(413, "limit of 134217728 bytes");
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(body.polls, 0);
}

#[tokio::test]
async fn expect_100_continue_for_an_over_large_body_is_413_without_asking_for_it() {
    // hyper sends the interim answer when the body is first polled, so not polling is not inviting.
    let server = TestServer::with(models(), |config| config.max_body_bytes = 10);
    let mut body = frames([]);
    let answer = server.send(post(&mut body, &[("content-length", "11"), ("expect", "100-continue")])).await;
    answer.refuses(413, "limit of 10 bytes");
    assert_eq!(body.polls, 0);
}

#[tokio::test]
async fn one_byte_over_the_limit_is_413_declared_or_chunked() {
    static BODY: &[u8] = br#"{"instances": [1]}"#;
    let limit = BODY.len() as u64;
    let server = TestServer::with(models(), |config| config.max_body_bytes = limit);
    server.ask(Method::POST, PATH, &[], BODY).await.gives(&json!({"predictions": [2.5]}));
    let declared = server.ask(Method::POST, PATH, &[], [BODY, b" "].concat()).await;
    let mut chunks = frames([BODY, b" "]);
    let chunked = server.send(post(&mut chunks, &[])).await;
    for answer in [declared, chunked] {
        answer.refuses(413, &format!("limit of {limit} bytes"));
        assert_eq!(answer.headers["connection"], "close");
    }
}

#[tokio::test]
async fn a_million_chunks_of_one_byte_are_refused_after_a_few_thousand() {
    let server = TestServer::new(models());
    let mut body = frames((0..1_000_000).map(|_| &b" "[..]));
    let answer = server.send(post(&mut body, &[])).await;
    answer.refuses(400, "chunk limit");
    assert_eq!(answer.headers["connection"], "close");
    assert!(body.polls < 10_000, "{}", body.polls);
}

#[tokio::test]
async fn a_body_in_fair_chunks_is_read() {
    let server = TestServer::new(models());
    let mut body = frames([&b"{\"inst"[..], b"ances\": [1", b"]}"]);
    server.send(post(&mut body, &[])).await.gives(&json!({"predictions": [2.5]}));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_408() {
    let server = TestServer::with(models(), |config| config.body_timeout = Duration::from_secs(7));
    let mut body = Frames { ends: false, ..frames([&b"{"[..]]) };
    let started = tokio::time::Instant::now();
    let answer = server.send(post(&mut body, &[])).await;
    answer.refuses(408, "did not arrive within");
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(started.elapsed().as_secs(), 7);
}

#[tokio::test]
async fn sixty_four_mebibytes_are_accepted() {
    let server = TestServer::new(models());
    let mut body = br#"{"instances": [1]"#.to_vec();
    body.resize((64 << 20) - 1, b' ');
    body.push(b'}');
    server.ask(Method::POST, PATH, &[], body).await.gives(&json!({"predictions": [2.5]}));
}

#[tokio::test]
async fn http_2_gets_no_connection_header() {
    let server = TestServer::with(models(), |config| config.max_body_bytes = 1);
    let mut body = frames([]);
    let mut request = post(&mut body, &[("content-length", "2")]);
    *request.version_mut() = http::Version::HTTP_2;
    let answer = server.send(request).await;
    answer.refuses(413, "limit");
    assert!(!answer.headers.contains_key("connection"));
}
