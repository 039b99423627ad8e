//! Messages to TensorFlow Serving's services that no client's library would write, by the rows of what must hold.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{InferFuture, Slot};
use millrace_proto::tensorflow::TensorProto;
use millrace_proto::tensorflow::serving::{PredictRequest, PredictResponse};
use millrace_protocol::front::{FrontConfig, Roles};
use parking_lot::Mutex;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::encode_varint;
use tonic::Code;

use crate::harness::{TestServer, framed};
use crate::tfs::{PREDICT, floats, good, models, proto, request, spec_of};

/// Wants a good request answered as if nothing had been.
async fn lives(server: &TestServer) {
    let answer: PredictResponse = server.ask(PREDICT, &good()).await.gives();
    assert_eq!(answer.outputs["y"].float_val, [3.5, 4.0, 5.5]);
}

fn to_x(tensor: TensorProto) -> PredictRequest {
    request("half_plus_two", [("x", tensor)])
}

/// A message whose field `number` is `content`, after a specification of a model.
fn with_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut message =
        PredictRequest { model_spec: Some(spec_of("half_plus_two")), ..Default::default() }.encode_to_vec();
    message.push(number << 3 | 2);
    encode_varint(content.len() as u64, &mut message);
    message.extend_from_slice(content);
    message
}

#[tokio::test]
async fn rows_12_to_17_shapes_that_cannot_be() {
    let server = TestServer::new(models());
    for sizes in [
        &[1 << 62, 4][..],
        &[1 << 32, 1 << 32],
        &[16, (1 << 60) + 2],
        &[-1],
        &[-2, -2],
        &[i64::MIN],
        &[0, 1 << 62],
        &[1, 1 << 40],
        &[1; 1_000_000],
    ] {
        let given = TensorProto { float_val: vec![1.0; 4], ..proto(1, sizes) };
        server.ask(PREDICT, &to_x(given)).await.refuses(Code::InvalidArgument, "x");
    }
    server.ask(PREDICT, &to_x(proto(1, &[0]))).await.refuses(Code::InvalidArgument, "0 rows");
    lives(&server).await;
}

#[tokio::test]
async fn rows_19_to_21_names_twice_or_by_the_thousand() {
    let server = TestServer::new(models());
    let entry = |name: &[u8]| {
        let tensor = floats(&[1.0]).encode_to_vec();
        let lengths = [name.len(), tensor.len()].map(|length| u8::try_from(length).unwrap());
        [&[0x0a, lengths[0]], name, &[0x12, lengths[1]], &tensor].concat()
    };
    let twice = [with_field(2, &entry(b"x")), with_field(2, &entry(b"x"))].concat();
    server.send(PREDICT, &[], [framed(&twice)]).await.refuses(Code::InvalidArgument, "input `x` was given twice");
    for name in [&b""[..], b"\0", b"x\n\x1b[31m"] {
        let answer = server.send(PREDICT, &[], [framed(&with_field(2, &entry(name)))]).await;
        answer.refuses(Code::InvalidArgument, "x not found in request");
    }
    let not_text = server.send(PREDICT, &[], [framed(&with_field(2, &entry(b"\xff")))]).await;
    not_text.refuses(Code::InvalidArgument, "UTF-8");
    let began = tokio::time::Instant::now();
    for number in [2, 3] {
        let many = with_field(number, b"").repeat(200_000);
        server.send(PREDICT, &[], [framed(&many)]).await.refuses(Code::InvalidArgument, "more than 4096 times");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lives(&server).await;
}

#[tokio::test]
async fn row_26_one_value_for_a_terabyte() {
    let server = TestServer::new(models());
    for (model, name, given) in [
        ("half_plus_two", "x", TensorProto { float_val: vec![1.0], ..proto(1, &[1 << 40]) }),
        ("half_plus_two", "x", TensorProto { float_val: vec![1.0], ..proto(1, &[(16 << 20) + 1]) }),
        ("ids", "ids", TensorProto { int64_val: vec![1], ..proto(9, &[1 << 28]) }),
        ("words", "w", proto(7, &[1 << 40])),
        ("words", "w", TensorProto { string_val: vec![vec![b'x'; 1 << 20].into()], ..proto(7, &[1 << 10]) }),
    ] {
        server.ask(PREDICT, &request(model, [(name, given)])).await.refuses(Code::InvalidArgument, "too large");
    }
    // Two that are within the limit one by one.
    let half = || TensorProto { float_val: vec![1.0], ..proto(1, &[9 << 20]) };
    let both = server.ask(PREDICT, &request("sums", [("a", half()), ("b", half())])).await;
    both.refuses(Code::InvalidArgument, "too large");
    lives(&server).await;
}

#[tokio::test]
async fn row_26_what_few_bytes_make_counts_for_all_requests_together() {
    let slots: Arc<Mutex<Vec<(Slot, millrace_core::InferRequest)>>> = Arc::default();
    let waiting = Arc::clone(&slots);
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let models = models().scalar("slow", move |request| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push((slot, request));
        arrived.send(()).unwrap();
        future
    });
    let front = FrontConfig { max_receiving_bytes: 10 << 20, ..FrontConfig::default() };
    let server = Arc::new(TestServer::with_front(models, &front, |_| {}));
    let bomb = || request("slow", [("x", TensorProto { float_val: vec![1.0], ..proto(1, &[2 << 20]) })]);
    let ask = || {
        let (server, bomb) = (Arc::clone(&server), bomb());
        tokio::spawn(async move { server.ask(PREDICT, &bomb).await.code() })
    };
    let first = ask();
    arrivals.recv().await.unwrap();
    server.ask(PREDICT, &bomb()).await.refuses(Code::Unavailable, "common limit");
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    slots.lock().clear();
    // There is room again: the model is asked.
    let second = ask();
    arrivals.recv().await.unwrap();
    second.abort();
    lives(&server).await;
}

#[tokio::test]
async fn row_31_a_message_over_the_limit() {
    let server = TestServer::with(models(), |config| config.max_message_bytes = 1000);
    let padded = |length: usize| {
        let mut message = good().encode_to_vec();
        let padding = length - message.len() - 4;
        message.extend_from_slice(&[0xa2, 0x06]);
        encode_varint(padding as u64, &mut message);
        message.resize(length, 0);
        framed(&message)
    };
    let answer = server.send(PREDICT, &[], [padded(1001)]).await;
    answer.refuses(Code::ResourceExhausted, "limit of 1000 bytes");
    let _answer: PredictResponse = server.send(PREDICT, &[], [padded(1000)]).await.gives();
    lives(&server).await;
}

#[tokio::test]
async fn row_48_bytes_that_are_no_message() {
    let server = TestServer::new(models()).roles(Roles::DATA.and(Roles::ADMIN));
    let mut nested = Vec::new();
    for _ in 0..9_000 {
        let mut outer = vec![0x0a];
        encode_varint(nested.len() as u64, &mut outer);
        outer.append(&mut nested);
        nested = outer;
    }
    let cut = good().encode_to_vec();
    let hostile = [
        vec![0xff; 40],
        cut[..cut.len() - 3].to_vec(),
        vec![0x0b; 100_000],
        vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x07, 1],
        with_field(2, &[0x0b; 100_000]),
        with_field(2, &[0x12, 0xff, 0xff, 0xff, 0xff, 0x07]),
    ];
    let paths = [
        PREDICT,
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.PredictionService/MultiInference",
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        "/tensorflow.serving.ModelService/GetModelStatus",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    ];
    for path in paths {
        for message in &hostile[..4] {
            server.send(path, &[], [framed(message)]).await.refuses(Code::InvalidArgument, "decode");
        }
        // Nested bytes are a name that nobody has, or no message; which of them differs by the method.
        let answer = server.send(path, &[], [framed(&nested)]).await;
        assert!([3, 5].contains(&answer.code()), "{path}: {} {}", answer.code(), answer.text());
    }
    for message in &hostile[4..] {
        server.send(PREDICT, &[], [framed(message)]).await.refuses(Code::InvalidArgument, "decode");
    }
    assert!(server.models.orders().is_empty());
    lives(&server).await;
}

#[tokio::test]
async fn rows_51_and_52_names_and_versions_that_cannot_be() {
    let server = TestServer::new(models());
    for name in ["..", "../x", "a/b", "a\0", "a\r\nb", "\u{ff0e}\u{ff0e}", &"x".repeat(8192)] {
        let answer = server.ask(PREDICT, &request(name, [("x", floats(&[1.0]))])).await;
        answer.refuses(Code::NotFound, "Servable not found for request: Latest(");
        assert!(answer.text().len() < 300, "{}", answer.text());
    }
    lives(&server).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_cancels_the_work() {
    let slots: Arc<Mutex<Vec<Slot>>> = Arc::default();
    let waiting = Arc::clone(&slots);
    let models = models().scalar("slow", move |_| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push(slot);
        future
    });
    let server = TestServer::new(models);
    let message = framed(&request("slow", [("x", floats(&[1.0]))]).encode_to_vec());
    let answer = server.send(PREDICT, &[("grpc-timeout", "200m")], [message.clone()]).await;
    answer.refuses(Code::DeadlineExceeded, "200 ms");
    assert!(slots.lock()[0].is_cancelled());
    server.send(PREDICT, &[], [message]).await.refuses(Code::DeadlineExceeded, "30000 ms");
    assert!(slots.lock()[1].is_cancelled());
}

#[tokio::test]
async fn a_server_that_shuts_down_takes_no_new_predictions() {
    let server = TestServer::new(models());
    server.readiness.begin_drain();
    lives(&server).await;
    server.readiness.refuse_new();
    server.ask(PREDICT, &good()).await.refuses(Code::Unavailable, "shutting down");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_answered(message in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let server = TestServer::new(models());
            server.send(PREDICT, &[], [framed(&message)]).await.code();
            // A good one with a wrong byte.
            let mut changed = good().encode_to_vec();
            let at = at % changed.len();
            changed[at] = message.first().copied().unwrap_or(0xff);
            server.send(PREDICT, &[], [framed(&changed)]).await.code();
            lives(&server).await;
        });
    }
}
