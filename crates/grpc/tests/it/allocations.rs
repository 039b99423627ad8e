//! What a request copies and how often it allocates. The bounds are what the path needs.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use millrace_core::{DType, Signature, Tensor};
use millrace_proto::inference::ModelInferRequest;
use millrace_protocol::front::ConnectionContext;
use millrace_testkit::CountingAllocator;
use parking_lot::Mutex;
use prost::Message;

use crate::harness::{Models, TestServer, answered, framed, spec};
use crate::oip::{INFER, request};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn call(body: &Bytes) -> Request<Full<Bytes>> {
    Request::post(INFER).header("content-type", "application/grpc").body(Full::new(body.clone())).unwrap()
}

/// A model `keep` that gives its input back, and remembers it.
fn keeping() -> (Models, Arc<Mutex<Vec<Tensor>>>) {
    let seen: Arc<Mutex<Vec<Tensor>>> = Arc::default();
    let log = Arc::clone(&seen);
    let signature = Signature::new(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Fp32, &[-1])]).unwrap();
    let models = Models::new().version("keep", 1, signature, move |request| {
        log.lock().extend(request.inputs.iter().cloned());
        answered(request.inputs)
    });
    (models, seen)
}

fn to_keep(x: &[f32], is_raw: bool) -> Bytes {
    let mut asked = ModelInferRequest { model_name: "keep".to_owned(), ..request(x) };
    if !is_raw {
        asked.raw_input_contents.clear();
        let contents =
            millrace_proto::inference::InferTensorContents { fp32_contents: x.to_vec(), ..Default::default() };
        asked.inputs[0].contents = Some(contents);
    }
    framed(&asked.encode_to_vec())
}

#[tokio::test]
async fn a_raw_tensor_and_a_list_of_floats_are_slices_of_the_message_and_leave_as_they_are() {
    let (models, seen) = keeping();
    let server = TestServer::new(models);
    for is_raw in [true, false] {
        let body = to_keep(&vec![0.5; 3 * 224 * 224], is_raw);
        let mut answer = server.service.answer(call(&body), ConnectionContext::default()).await;
        let input = seen.lock().pop().unwrap();
        let bytes = input.bytes().unwrap();
        assert!(body.as_ptr_range().contains(&bytes.as_ptr()), "the input was copied");
        let mut pieces = Vec::new();
        while let Some(frame) = answer.body_mut().frame().await {
            pieces.extend(frame.unwrap().into_data());
        }
        assert!(pieces.iter().any(|piece| piece.as_ptr() == bytes.as_ptr()), "the output was copied");
    }
}

#[tokio::test]
async fn a_small_request_allocates_a_handful_of_times() {
    let (models, _seen) = keeping();
    let server = TestServer::new(models);
    let body = to_keep(&[1.0, 2.0], true);
    assert!(
        !server.service.answer(call(&body), ConnectionContext::default()).await.headers().contains_key("grpc-status")
    );
    let asked = call(&body);
    let before = CountingAllocator::count();
    let answer = server.service.answer(asked, ConnectionContext::default()).await;
    let allocations = CountingAllocator::count() - before;
    assert!(!answer.headers().contains_key("grpc-status"));
    assert!(allocations <= 9, "{allocations} allocations");
}

#[tokio::test]
async fn a_waiting_call_is_small() {
    let server = TestServer::new(Models::new());
    let answer = server.service.answer(call(&Bytes::new()), ConnectionContext::default());
    // Every stream holds one.
    assert!(size_of_val(&answer) <= 3712, "{} bytes", size_of_val(&answer));
    assert_eq!(answer.await.headers()["grpc-status"], "3");
}

/// A prediction by TensorFlow Serving's protocol, for `keep`.
fn to_predict(x: &[f32]) -> Bytes {
    framed(&crate::tfs::request("keep", [("x", crate::tfs::floats(x))]).encode_to_vec())
}

fn prediction(body: &Bytes) -> Request<Full<Bytes>> {
    let request = Request::post(crate::tfs::PREDICT).header("content-type", "application/grpc");
    request.body(Full::new(body.clone())).unwrap()
}

#[tokio::test]
async fn floats_of_tensorflow_serving_are_slices_of_the_message_and_leave_as_they_are() {
    let (models, seen) = keeping();
    let server = TestServer::new(models);
    let body = to_predict(&vec![0.5; 3 * 224 * 224]);
    let mut answer = server.service.answer(prediction(&body), ConnectionContext::default()).await;
    let input = seen.lock().pop().unwrap();
    let bytes = input.bytes().unwrap();
    assert!(body.as_ptr_range().contains(&bytes.as_ptr()), "the input was copied");
    let mut pieces = Vec::new();
    while let Some(frame) = answer.body_mut().frame().await {
        pieces.extend(frame.unwrap().into_data());
    }
    assert!(pieces.iter().any(|piece| piece.as_ptr() == bytes.as_ptr()), "the output was copied");
    assert_eq!(server.compute.jobs(), 0);
}

#[tokio::test]
async fn a_small_prediction_allocates_a_handful_of_times() {
    let (models, _seen) = keeping();
    let server = TestServer::new(models);
    let body = to_predict(&[1.0, 2.0]);
    let warm = server.service.answer(prediction(&body), ConnectionContext::default()).await;
    assert!(!warm.headers().contains_key("grpc-status"));
    let asked = prediction(&body);
    let before = CountingAllocator::count();
    let answer = server.service.answer(asked, ConnectionContext::default()).await;
    let allocations = CountingAllocator::count() - before;
    assert!(!answer.headers().contains_key("grpc-status"));
    assert!(allocations <= 5, "{allocations} allocations");
}
