//! `ModelStreamInfer`: many requests on one call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use millrace_core::{DType, InferFuture, Reason, Refusal, Slot};
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_stream::Stream;
use tonic::{Code, Request, Streaming};

use crate::harness::{TestServer, answered, spec};
use crate::oip::{client, floats, models, request};

/// The requests that a test sends one after the other.
struct Requests(UnboundedReceiver<ModelInferRequest>);

impl Stream for Requests {
    type Item = ModelInferRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ModelInferRequest>> {
        self.0.poll_recv(context)
    }
}

fn requests() -> (UnboundedSender<ModelInferRequest>, Requests) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Requests(receiver))
}

fn named(id: &str, x: f32) -> ModelInferRequest {
    ModelInferRequest { id: id.to_owned(), ..request(&[x]) }
}

fn is_final(response: &ModelStreamInferResponse) -> bool {
    let parameters = &response.infer_response.as_ref().unwrap().parameters;
    parameters["triton_final_response"].parameter_choice == Some(ParameterChoice::BoolParam(true))
}

async fn next(stream: &mut Streaming<ModelStreamInferResponse>) -> ModelStreamInferResponse {
    stream.message().await.unwrap().expect("an answer")
}

#[tokio::test]
async fn a_bad_request_is_answered_and_the_stream_goes_on() {
    let server = TestServer::new(models());
    let (sender, stream) = requests();
    let mut answers = client(&server).await.model_stream_infer(stream).await.unwrap().into_inner();
    sender.send(ModelInferRequest { model_name: "nobody".to_owned(), ..named("bad", 1.0) }).unwrap();
    let bad = next(&mut answers).await;
    assert!(bad.error_message.contains("'nobody'"), "{}", bad.error_message);
    assert!(is_final(&bad));
    let response = bad.infer_response.unwrap();
    assert_eq!((response.id.as_str(), response.model_name.as_str(), response.outputs.len()), ("bad", "nobody", 0));
    sender.send(named("good", 1.0)).unwrap();
    let good = next(&mut answers).await;
    assert!(is_final(&good));
    assert_eq!(good.error_message, "");
    let response = good.infer_response.unwrap();
    assert_eq!((response.id.as_str(), floats(&response.raw_output_contents[0])), ("good", vec![3.5]));
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    assert!(answers.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn a_client_may_ask_for_the_first_error_to_end_the_stream() {
    let server = TestServer::new(models());
    let (sender, stream) = requests();
    let mut asked = Request::new(stream);
    asked.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let mut answers = client(&server).await.model_stream_infer(asked).await.unwrap().into_inner();
    sender.send(named("good", 1.0)).unwrap();
    assert_eq!(next(&mut answers).await.error_message, "");
    sender.send(ModelInferRequest { model_name: "nobody".to_owned(), ..named("bad", 1.0) }).unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn answers_come_as_they_are_ready_and_not_in_the_order_of_the_requests() {
    let slots: Arc<Mutex<Vec<Slot>>> = Arc::default();
    let waiting = Arc::clone(&slots);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let models = models().scalar("slow", move |_| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push(slot);
        arrived.send(()).unwrap();
        future
    });
    let server = TestServer::new(models);
    let (sender, stream) = requests();
    let mut answers = client(&server).await.model_stream_infer(stream).await.unwrap().into_inner();
    sender.send(ModelInferRequest { model_name: "slow".to_owned(), ..named("first", 1.0) }).unwrap();
    arrivals.recv().await.unwrap();
    sender.send(named("second", 1.0)).unwrap();
    assert_eq!(next(&mut answers).await.infer_response.unwrap().id, "second");
    let refusal = Refusal::new(Reason::BackendFailed, "it failed in the end");
    slots.lock().remove(0).answer(Err(refusal));
    let first = next(&mut answers).await;
    assert_eq!(first.error_message, "it failed in the end");
    assert_eq!(first.infer_response.unwrap().id, "first");
}

#[tokio::test]
async fn only_so_many_requests_of_a_stream_are_at_work_and_leaving_cancels_them() {
    let slots: Arc<Mutex<Vec<Slot>>> = Arc::default();
    let waiting = Arc::clone(&slots);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let models = models().scalar("slow", move |_| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push(slot);
        arrived.send(()).unwrap();
        future
    });
    let server = TestServer::with(models, |config| config.max_stream_requests = 2);
    let (sender, stream) = requests();
    let mut answers = client(&server).await.model_stream_infer(stream).await.unwrap().into_inner();
    for id in ["a", "b", "c", "d"] {
        sender.send(ModelInferRequest { model_name: "slow".to_owned(), ..named(id, 1.0) }).unwrap();
    }
    for _ in 0..2 {
        arrivals.recv().await.unwrap();
    }
    // The third begins once the first is answered, and not before: it would have been the next to arrive.
    slots.lock().remove(0).answer(Err(Refusal::new(Reason::BackendFailed, "done")));
    assert_eq!(next(&mut answers).await.infer_response.unwrap().id, "a");
    arrivals.recv().await.unwrap();
    assert_eq!(slots.lock().len(), 2);
    drop((answers, sender));
    while !slots.lock().iter().all(Slot::is_cancelled) {
        tokio::task::yield_now().await;
    }
    assert!(arrivals.try_recv().is_err(), "the fourth never began");
}

#[tokio::test]
async fn a_broken_message_ends_the_stream_with_a_status() {
    let server = TestServer::new(models());
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let good = prost::Message::encode_to_vec(&named("good", 1.0));
    let pieces = [crate::harness::framed(&good), bytes::Bytes::from_static(&[7, 0, 0, 0, 0])];
    let answer = server.send(path, &[], pieces).await;
    assert_eq!(
        (answer.code(), answer.trailers["grpc-message"].to_str().unwrap()),
        (3, "a message begins with 7; expected 0 or 1")
    );
    // A message of bytes that are no request is the fault of that request alone.
    let pieces = [crate::harness::framed(&[0xff]), crate::harness::framed(&good)];
    let answer = server.send(path, &[], pieces).await;
    assert_eq!((answer.code(), answer.messages.len()), (0, 2));
}

#[tokio::test]
async fn a_large_tensor_comes_back_through_a_stream() {
    let models = models().version(
        "wide",
        1,
        millrace_core::Signature::new(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Fp32, &[-1])])
            .unwrap(),
        |request| answered(request.inputs),
    );
    let server = TestServer::new(models);
    let (sender, stream) = requests();
    let mut answers = client(&server).await.model_stream_infer(stream).await.unwrap().into_inner();
    let x = vec![1.5; 1 << 20];
    sender.send(ModelInferRequest { model_name: "wide".to_owned(), ..request(&x) }).unwrap();
    let answer = next(&mut answers).await.infer_response.unwrap();
    assert_eq!(floats(&answer.raw_output_contents[0]), x);
}
