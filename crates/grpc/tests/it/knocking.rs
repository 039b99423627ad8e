//! Calls whose long message names, first of all, a model that would refuse whatever else it holds.

use std::time::Duration;

use bytes::Bytes;
use millrace_core::{Reason, Refusal};
use millrace_proto::inference::{ModelInferRequest, ModelInferResponse};
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
use prost::Message;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::harness::{Answer, Models, TestServer, framed, prefixed};
use crate::metrics::{has, page};
use crate::oip::{INFER, request};
use crate::tfs::{self, PREDICT};
use crate::torchserve::PREDICT as PREDICTIONS;

/// Values whose tensor is longer than what is read without asking.
const MANY: usize = 20_000;
/// What clients put into one frame.
const FRAME: usize = 16 << 10;

/// What a full queue says.
pub(crate) fn closed() -> Refusal {
    Refusal::new(Reason::QueueFull, "model `closed` is full").with_retry_after(Duration::from_millis(2500))
}

/// `closed` refuses what is announced and answers everything else; `open` is announced to and answers.
fn server() -> TestServer {
    TestServer::new(Models::new().affine("open", 1, 0.5, 2.0).affine("closed", 1, 0.5, 2.0).closed(closed()))
}

fn infer(model: &str, values: usize) -> ModelInferRequest {
    ModelInferRequest { model_name: model.to_owned(), ..request(&vec![1.0; values]) }
}

/// The pieces of a message as a client sends them.
fn pieces(message: &[u8]) -> Vec<Bytes> {
    framed(message).chunks(FRAME).map(Bytes::copy_from_slice).collect()
}

/// A call of which nothing comes but its first frame.
async fn begin(server: &TestServer, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Answer {
    let first = pieces(message).swap_remove(0);
    server.stream(path, headers, tokio_stream::once(first).chain(tokio_stream::pending())).await
}

/// The same model in each protocol's words.
fn calls(model: &str) -> [(&'static str, Vec<u8>); 3] {
    let values = vec![1.0; MANY];
    let prediction = PredictionsRequest {
        model_name: model.to_owned(),
        input: [("data".to_owned(), Bytes::from(vec![b' '; MANY * 4]))].into(),
        ..PredictionsRequest::default()
    };
    [
        (INFER, infer(model, MANY).encode_to_vec()),
        (PREDICT, tfs::request(model, [("x", tfs::floats(&values))]).encode_to_vec()),
        (PREDICTIONS, prediction.encode_to_vec()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_long_message_to_a_full_model_is_refused_with_its_first_frame() {
    let server = server();
    for (path, message) in calls("closed") {
        let refused = begin(&server, path, &[("x-request-id", "mine")], &message).await;
        assert!(refused.code() != 0 && refused.messages.is_empty(), "{path}");
        assert_eq!(refused.text(), "model `closed` is full", "{path}");
        assert_eq!(refused.trailers["grpc-retry-pushback-ms"], "2500", "{path}");
        assert_eq!(refused.trailers["x-request-id"], "mine", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_refusal_reads_like_a_later_one() {
    let late = TestServer::new(Models::new().refusing("closed", closed()));
    for (path, message) in calls("closed").into_iter().take(2) {
        let early = begin(&server(), path, &[], &message).await;
        let late = late.send(path, &[], pieces(&message)).await;
        assert_eq!(early.trailers, late.trailers, "{path}");
    }
}

#[tokio::test]
async fn a_long_message_to_a_model_with_room_is_read_and_answered() {
    let server = server();
    for (path, message) in calls("open").into_iter().take(2) {
        assert_eq!(server.send(path, &[], pieces(&message)).await.code(), 0, "{path}");
    }
}

#[tokio::test]
async fn what_does_not_name_its_model_first_is_read_as_ever() {
    let server = server();
    let ask = async |pieces: Vec<Bytes>| {
        let answer = server.send(INFER, &[], pieces).await;
        let _answer: ModelInferResponse = answer.gives();
    };
    let whole = infer("closed", MANY).encode_to_vec();
    // The model comes last.
    let nameless = ModelInferRequest { model_name: String::new(), ..infer("", MANY) }.encode_to_vec();
    let name = ModelInferRequest { model_name: "closed".to_owned(), ..ModelInferRequest::default() }.encode_to_vec();
    ask(pieces(&[&nameless[..], &name].concat())).await;
    // What names it is still to come after some frames.
    let mut crumbs: Vec<_> = (0..8).map(|at| framed(&whole).slice(at..=at)).collect();
    crumbs.push(framed(&whole).slice(8..));
    ask(crumbs).await;
    // It comes at once, or is short.
    ask(vec![framed(&whole)]).await;
    let short = framed(&infer("closed", 100).encode_to_vec());
    ask([&short[..200], &short[200..]].map(Bytes::copy_from_slice).into()).await;
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_so_once_the_message_is_whole() {
    let server = server();
    for (path, message) in calls("nobody") {
        server.send(path, &[], pieces(&message)).await.refuses(Code::NotFound, "nobody");
    }
    // Nor is a name that the message takes back.
    let renamed = ModelInferRequest { model_name: "open".to_owned(), ..ModelInferRequest::default() };
    let message = [infer("nobody", MANY).encode_to_vec(), renamed.encode_to_vec()].concat();
    let _answer: ModelInferResponse = server.send(INFER, &[], pieces(&message)).await.gives();
}

#[tokio::test]
async fn packed_messages_and_streams_are_read_as_ever() {
    let server = server();
    let message = infer("closed", MANY).encode_to_vec();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut packed, &message).unwrap();
    let packed = prefixed(1, &packed.finish().unwrap());
    let answer =
        server.send(INFER, &[("grpc-encoding", "gzip")], packed.chunks(FRAME).map(Bytes::copy_from_slice)).await;
    let _answer: ModelInferResponse = answer.gives();
    let stream = "/inference.GRPCInferenceService/ModelStreamInfer";
    let answer = server.send(stream, &[], pieces(&message)).await;
    assert_eq!((answer.code(), answer.messages.len()), (0, 1));
}

#[test]
fn an_early_refusal_counts_for_its_model_and_carried_nothing() {
    let page = page(async |server: TestServer| {
        begin(&server, INFER, &[], &infer("closed", MANY).encode_to_vec()).await.refuses(Code::Unavailable, "full");
    });
    let labels = r#"model="closed",version="1",protocol="oip_grpc""#;
    has(&page, &format!("millrace_requests_total{{{labels},code=\"UNAVAILABLE\"}}"), 1.0);
    has(&page, &format!("millrace_request_bytes_total{{{labels}}}"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_early_refusal_tells_its_account() {
    let server = server();
    for (path, message) in calls("closed") {
        let refused = begin(&server, path, &[("x-millrace-explain", "1")], &message).await;
        let account = refused.trailers["x-millrace-explain"].to_str().unwrap();
        assert!(account.contains("\"model\":\"closed\",\"version\":1,"), "{path}: {account}");
        assert!(account.contains("\"reason\":\"queue_full\""), "{path}: {account}");
    }
}

#[tokio::test]
async fn a_first_frame_may_end_anywhere() {
    let server = server();
    let all = framed(&infer("closed", MANY).encode_to_vec());
    for cut in 1..200 {
        let pieces = [all.slice(..cut), all.slice(cut..cut + FRAME), all.slice(cut + FRAME..)];
        server.send(INFER, &[], pieces).await.refuses(Code::Unavailable, "full");
    }
}
