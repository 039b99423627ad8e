//! How long a call may take, and what becomes of it when its client leaves.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{InferFuture, Slot};
use millrace_proto::inference::ModelInferRequest;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Code;

use crate::harness::{Models, TestServer};
use crate::oip::{INFER, client, models, request};

/// The answers that a test has to give.
type Slots = Arc<Mutex<Vec<Slot>>>;
/// How long each request that has reached its model gives it.
type Arrivals = mpsc::UnboundedReceiver<Option<Duration>>;

/// A model `slow` whose answers a test gives, and word of each request.
fn slow() -> (Models, Slots, Arrivals) {
    let slots = Slots::default();
    let waiting = Arc::clone(&slots);
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let models = models().scalar("slow", move |request| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push(slot);
        let context = request.context;
        arrived.send(context.deadline.map(|deadline| deadline - context.received)).unwrap();
        future
    });
    (models, slots, arrivals)
}

fn to_slow() -> ModelInferRequest {
    ModelInferRequest { model_name: "slow".to_owned(), ..request(&[1.0]) }
}

#[tokio::test(start_paused = true)]
async fn a_calls_timeout_is_kept_and_told_to_the_model() {
    let (models, slots, mut arrivals) = slow();
    let server = TestServer::new(models);
    let message = crate::harness::framed(&prost::Message::encode_to_vec(&to_slow()));
    let answer = server.send(INFER, &[("grpc-timeout", "200m")], [message.clone()]).await;
    answer.refuses(Code::DeadlineExceeded, "200 ms");
    assert_eq!(arrivals.recv().await.unwrap(), Some(Duration::from_millis(200)));
    assert!(slots.lock()[0].is_cancelled());
    // Without one, the server's own limit holds.
    server.send(INFER, &[], [message.clone()]).await.refuses(Code::DeadlineExceeded, "30000 ms");
    server.send(INFER, &[("grpc-timeout", "0n")], [message.clone()]).await.refuses(Code::DeadlineExceeded, "0 ms");
    assert_eq!(slots.lock().len(), 2, "a call without any time asks nobody");
    server.send(INFER, &[("grpc-timeout", "soon")], [message]).await.refuses(Code::InvalidArgument, "grpc-timeout");
}

#[tokio::test(start_paused = true)]
async fn being_late_by_the_requests_own_timeout_is_unavailable() {
    use millrace_proto::inference::infer_parameter::ParameterChoice;
    let (models, slots, _arrivals) = slow();
    let server = TestServer::new(models);
    let mut asked = to_slow();
    let timeout = crate::oip::parameter(ParameterChoice::Int64Param(50_000));
    asked.parameters = [("timeout".to_owned(), timeout)].into();
    server.ask(INFER, &asked).await.refuses(Code::Unavailable, "50 ms");
    assert!(slots.lock()[0].is_cancelled());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_work() {
    let (models, slots, mut arrivals) = slow();
    let server = TestServer::new(models);
    let mut client = client(&server).await;
    let call = tokio::spawn(async move { client.model_infer(to_slow()).await });
    arrivals.recv().await.unwrap();
    assert!(!slots.lock()[0].is_cancelled());
    call.abort();
    while !slots.lock()[0].is_cancelled() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_streams_timeout_ends_all_of_it() {
    let (models, slots, _arrivals) = slow();
    let server = TestServer::new(models);
    let message = crate::harness::framed(&prost::Message::encode_to_vec(&to_slow()));
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let answer = server.send(path, &[("grpc-timeout", "1S")], [message]).await;
    answer.refuses(Code::DeadlineExceeded, "1000 ms");
    while !slots.lock()[0].is_cancelled() {
        tokio::task::yield_now().await;
    }
}
