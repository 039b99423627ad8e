//! What is wrong below the messages: prefixes, compression, sizes, budgets, methods that do not exist.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use millrace_core::{InferFuture, Reason, Refusal};
use millrace_grpc::{is_grpc, refusal_response, refusal_trailers};
use millrace_proto::inference::{ModelInferRequest, ModelInferResponse};
use millrace_protocol::front::{ConnectionContext, FrontConfig};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::harness::{TestServer, framed, prefixed};
use crate::oip::{INFER, models, request};

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn row_29_bombs_damaged_streams_and_unknown_codings() {
    let server = TestServer::with(models(), |config| config.max_message_bytes = 1 << 20);
    let good = request(&[1.0]).encode_to_vec();
    let gzip = [("grpc-encoding", "gzip")];
    let bomb = gzipped(&vec![0; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    server.send(INFER, &gzip, [prefixed(1, &bomb)]).await.refuses(Code::ResourceExhausted, "1048576");
    let twice = gzipped(&gzipped(&good));
    server.send(INFER, &gzip, [prefixed(1, &twice)]).await.refuses(Code::InvalidArgument, "cannot be decoded");
    let whole = gzipped(&good);
    let cut = prefixed(1, &whole[..whole.len() - 9]);
    server.send(INFER, &gzip, [cut]).await.refuses(Code::InvalidArgument, "damaged or cut");
    let unknown = server.send(INFER, &[("grpc-encoding", "br")], [prefixed(1, &whole)]).await;
    unknown.refuses(Code::Unimplemented, "`br`");
    assert_eq!(unknown.trailers["grpc-accept-encoding"], "identity,deflate,gzip");
    server.send(INFER, &[], [prefixed(1, &whole)]).await.refuses(Code::InvalidArgument, "no grpc-encoding");
    let _answer: ModelInferResponse = server.send(INFER, &gzip, [prefixed(1, &whole)]).await.gives();
    let _answer: ModelInferResponse = server.send(INFER, &gzip, [framed(&good)]).await.gives();
}

#[tokio::test]
async fn row_31_a_message_one_byte_over_the_limit() {
    let message = request(&[1.0]).encode_to_vec();
    let exact = TestServer::with(models(), |config| config.max_message_bytes = message.len());
    let _answer: ModelInferResponse = exact.send(INFER, &[], [framed(&message)]).await.gives();
    let small = TestServer::with(models(), |config| config.max_message_bytes = message.len() - 1);
    let words =
        format!("the message of {} bytes is larger than the limit of {} bytes", message.len(), message.len() - 1);
    small.send(INFER, &[], [framed(&message)]).await.refuses(Code::ResourceExhausted, &words);
}

#[tokio::test]
async fn row_49_lengths_flags_and_bodies_that_hold_no_message() {
    let server = TestServer::new(models());
    let raw = |bytes: &'static [u8]| server.send(INFER, &[], [Bytes::from_static(bytes)]);
    raw(&[0, 0xff, 0xff, 0xff, 0xff]).await.refuses(Code::ResourceExhausted, "4294967295");
    raw(&[2, 0, 0, 0, 0]).await.refuses(Code::InvalidArgument, "begins with 2");
    raw(&[0, 0, 0]).await.refuses(Code::InvalidArgument, "within a message");
    raw(&[0, 0, 0, 0, 9, 1]).await.refuses(Code::InvalidArgument, "within a message");
    server.send(INFER, &[], []).await.refuses(Code::InvalidArgument, "no message");
    let two = [framed(&request(&[1.0]).encode_to_vec()), framed(&[])].concat();
    server.send(INFER, &[], [two.into()]).await.refuses(Code::InvalidArgument, "more than one message");
}

#[tokio::test]
async fn row_50_methods_and_services_that_do_not_exist() {
    let server = TestServer::new(models());
    for path in [
        "/inference.GRPCInferenceService/Nothing",
        "/inference.Nothing/ModelInfer",
        "/grpc.health.v1.Health/Nothing",
        "/grpc.reflection.v1.ServerReflection/Nothing",
        "/nothing",
        "/",
    ] {
        server.send(path, &[], [framed(&[])]).await.refuses(Code::Unimplemented, "unknown service or method");
    }
}

#[tokio::test]
async fn what_is_no_call_gets_an_http_status() {
    let server = TestServer::new(models());
    let ask = |method, content_type: &'static str| {
        let request = Request::builder().method(method).uri(INFER).header("content-type", content_type);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert_eq!(is_grpc(request.headers()), content_type == "application/grpc");
        server.service.answer(request, ConnectionContext::default())
    };
    let get = ask(Method::GET, "application/grpc").await;
    assert_eq!((get.status().as_u16(), &get.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(ask(Method::POST, "application/grpc-web").await.status(), 415);
    assert_eq!(ask(Method::POST, "application/json").await.status(), 415);
}

#[tokio::test]
async fn a_message_that_comes_byte_by_byte_is_put_together_and_endless_crumbs_are_refused() {
    let server = TestServer::new(models());
    let message = framed(&request(&[1.0, 2.0]).encode_to_vec());
    let crumbs = (0..message.len()).map(|at| message.slice(at..=at));
    let _answer: ModelInferResponse = server.send(INFER, &[], crumbs).await.gives();
    let endless = [Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff])].into_iter();
    let endless = endless.chain(std::iter::repeat_n(Bytes::from_static(b"x"), 1 << 20));
    server.send(INFER, &[], endless).await.refuses(Code::InvalidArgument, "frame limit");
    let empty = std::iter::repeat_n(Bytes::new(), 50_000);
    server.send(INFER, &[], empty).await.refuses(Code::InvalidArgument, "frame limit");
}

#[tokio::test]
async fn messages_that_are_arriving_share_a_budget_and_give_it_back() {
    let front = FrontConfig { max_receiving_bytes: 100_000, ..FrontConfig::default() };
    let server = TestServer::with_front(models(), &front, |_| {});
    let message = framed(&request(&vec![0.5; 20_000]).encode_to_vec());
    let halves = || [message.slice(..40_000), message.slice(40_000..)];
    for _ in 0..5 {
        let _answer: ModelInferResponse = server.send(INFER, &[], halves()).await.gives();
    }
    let large = framed(&request(&vec![0.5; 30_000]).encode_to_vec());
    let answer = server.send(INFER, &[], [large.slice(..60_000), large.slice(60_000..)]).await;
    answer.refuses(Code::Unavailable, "common limit of 100000 bytes");
    let _answer: ModelInferResponse = server.send(INFER, &[], halves()).await.gives();
}

#[tokio::test]
async fn answers_that_nobody_takes_share_a_budget() {
    let front = FrontConfig { max_unsent_bytes: 100_000, ..FrontConfig::default() };
    let server = TestServer::with_front(models(), &front, |_| {});
    let message = framed(&request(&vec![0.5; 20_000]).encode_to_vec());
    let ask = || async {
        let request = Request::post(INFER).header("content-type", "application/grpc");
        let request = request.body(Full::new(message.clone())).unwrap();
        server.service.answer(request, ConnectionContext::default()).await
    };
    let first = ask().await;
    let second = ask().await;
    assert_eq!(second.headers()["grpc-status"], "14", "there is no room for a second one");
    let body = first.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    drop(body);
    assert!(!ask().await.headers().contains_key("grpc-status"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_keep_coming_is_given_up() {
    let server = TestServer::with(models(), |config| config.message_timeout = Duration::from_secs(5));
    let message = framed(&request(&[1.0]).encode_to_vec());
    let stalled = tokio_stream::iter([Ok::<_, std::convert::Infallible>(http_body::Frame::data(message.slice(..9)))])
        .chain(tokio_stream::pending());
    let request = Request::post(INFER).header("content-type", "application/grpc");
    let request = request.body(http_body_util::StreamBody::new(stalled)).unwrap();
    let began = tokio::time::Instant::now();
    let answer = server.service.answer(request, ConnectionContext::default()).await;
    assert_eq!(answer.headers()["grpc-status"], "4");
    assert!((5..7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_panic_is_the_fault_of_one_request_and_its_text_stays_inside() {
    let models = models()
        .scalar("panics", |_| panic!("secret path"))
        .scalar("panics_later", |_| InferFuture::boxed(async { panic!("secret path") }));
    let server = TestServer::new(models);
    for name in ["panics", "panics_later"] {
        let asked = ModelInferRequest { model_name: name.to_owned(), ..request(&[1.0]) };
        let answer = server.ask(INFER, &asked).await;
        answer.refuses(Code::Internal, "the server failed on this request");
        assert!(!answer.text().contains("secret"));
        assert_eq!(answer.trailers["x-request-id"].len(), 16, "a fault can be found in the log");
        let streamed = server.ask("/inference.GRPCInferenceService/ModelStreamInfer", &asked).await;
        assert_eq!((streamed.code(), streamed.messages.len()), (0, 1));
    }
    let _answer: ModelInferResponse = server.ask(INFER, &request(&[1.0])).await.gives();
}

#[tokio::test]
async fn the_clients_own_request_id_comes_back_in_answers_and_refusals() {
    let server = TestServer::new(models());
    let id = ("x-request-id", "abc");
    let answer = server.send(INFER, &[id], [framed(&request(&[1.0]).encode_to_vec())]).await;
    assert_eq!(answer.headers["x-request-id"], "abc");
    assert_eq!(server.send(INFER, &[id], []).await.trailers["x-request-id"], "abc");
}

#[test]
fn whoever_ends_calls_from_outside_has_the_words() {
    let refusal = Refusal::new(Reason::Draining, "cut");
    assert_eq!(refusal_trailers(&refusal)["grpc-status"], "14");
    let response = refusal_response(&refusal);
    assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
}
