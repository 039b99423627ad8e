//! gRPC as the server carries it: on the same port and connection as HTTP, by the listeners' roles, to the end of
//! draining.

use std::time::Duration;

use bytes::Bytes;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, RepositoryModelUnloadRequest,
};
use millrace_proto::org::pytorch::serve::grpc::management::{ListModelsRequest, ManagementResponse};
use millrace_server::Drained;
use millrace_testkit::{FakeBackend, Gate};
use prost::Message as _;

use crate::support::frames::{END_HEADERS, END_STREAM, PREFACE, frame, headers, hello, kind, parse};
use crate::support::grpc::{code, framed};
use crate::support::{Client, DOUBLE, Grpc, PATIENCE, Repository, TestServer, now};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const UNLOAD: &str = "/inference.GRPCInferenceService/RepositoryModelUnload";
const LIST_MODELS: &str = "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels";
const PERMISSION_DENIED: u32 = 7;

/// `double` of so many values.
fn question(values: usize) -> ModelInferRequest {
    let shape = vec![i64::try_from(values).unwrap()];
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape, ..Default::default() };
    let raw = 1.0_f32.to_le_bytes().repeat(values);
    ModelInferRequest {
        model_name: "double".into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

/// The frames of a call.
fn call(stream: u32, question: &ModelInferRequest) -> Vec<u8> {
    let mut head = headers("POST", MODEL_INFER);
    // 31 is the static table's `content-type`.
    head.extend([0x0f, 0x10, 16]);
    head.extend(b"application/grpc");
    let head = frame(kind::HEADERS, END_HEADERS, stream, &head);
    let message = framed(&question.encode_to_vec());
    let mut pieces = message.chunks(16 << 10).peekable();
    let mut frames = head;
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
        frames.extend(frame(kind::DATA, flags, stream, piece));
    }
    frames
}

/// Says hello as a client that takes no byte of an answer before it says so.
fn shut() -> Vec<u8> {
    // Setting 4 is the window that streams have at first.
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()
}

/// How many bytes of data there are among `frames`.
fn data_bytes(frames: &[u8]) -> usize {
    parse(frames).iter().filter(|(kind, _)| *kind == kind::DATA).map(|(_, payload)| payload.len()).sum()
}

#[track_caller]
fn is_doubled(response: &ModelInferResponse) {
    assert_eq!(response.raw_output_contents[0], Bytes::copy_from_slice(&2.0_f32.to_le_bytes()));
}

/// A server whose runs wait at the gate from now on.
fn gated(drain_timeout: Duration) -> (TestServer, Gate, usize) {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.drain_timeout = drain_timeout;
    });
    gate.close();
    let before = gate.arrived();
    (server, gate, before)
}

#[test]
fn one_connection_carries_calls_and_plain_requests() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    client.send(hello());
    client.send(call(1, &question(1)));
    client.send(frame(kind::HEADERS, END_HEADERS, 3, &headers("POST", DOUBLE)));
    client.send(frame(kind::DATA, END_STREAM, 3, br#"{"instances": [1.0]}"#));
    let mut seen = Vec::new();
    let has = |seen: &[u8], text: &[u8]| seen.windows(text.len()).any(|window| window == text);
    let begin = now();
    // The one answer names its model, the other is JSON.
    while !has(&seen, b"double") || !has(&seen, br#"{"predictions":[2.0]}"#) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", parse(&seen));
        seen.extend(client.until_frame(kind::DATA));
    }
}

#[test]
fn a_message_over_the_configured_limit_is_refused() {
    let server = TestServer::double(|config| config.grpc.max_message_bytes = 1 << 10);
    let grpc = Grpc::connect(server.address());
    grpc.ask(MODEL_INFER, &question(1 << 10)).refuses(code::RESOURCE_EXHAUSTED, "1024");
    is_doubled(&grpc.ask(MODEL_INFER, &question(1)).ok());
}

#[test]
fn row_43_a_client_that_opens_no_window_for_its_answer_is_closed() {
    let server = TestServer::double(|config| config.connections.write_timeout = Duration::from_millis(300));
    let mut client = server.client();
    client.send(shut());
    client.send(call(1, &question(12_000)));
    let begin = now();
    // It reads, and so never stalls the socket; but it lets nothing of its answer come.
    let seen = client.rest_until_close();
    assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
    assert!(parse(&seen).iter().any(|(kind, _)| *kind == kind::HEADERS), "it was answered");
    assert_eq!(data_bytes(&seen), 0);
    server.is_well();
}

#[test]
fn row_74_an_answer_that_a_client_takes_slowly_is_sent_to_its_end_while_draining() {
    let server = TestServer::double(|config| config.drain_timeout = PATIENCE);
    let mut silent = server.client();
    let mut client = server.client();
    client.send(shut());
    client.send(call(1, &question(12_000)));
    client.until_frame(kind::HEADERS);
    let drain = server.begin_drain();
    client.until_frame(kind::GOAWAY);
    // Closed when it had its time to say something, as any connection with nothing under way would be by now.
    silent.rest_until_close();
    client.send(frame(kind::WINDOW_UPDATE, 0, 1, &60_000_u32.to_be_bytes()));
    let seen = client.rest_until_close();
    assert!(data_bytes(&seen) > 48_000, "{} bytes", data_bytes(&seen));
    assert_eq!(server.wait(drain), Drained::Complete);
}

#[test]
fn row_74_a_call_in_flight_finishes_while_new_ones_are_unavailable() {
    let (server, gate, before) = gated(PATIENCE);
    let grpc = Grpc::connect(server.address());
    let in_flight = grpc.send(MODEL_INFER, &[], framed(&question(1).encode_to_vec()));
    gate.wait_for(before + 1);
    let drain = server.begin_drain();
    // Whoever comes now is told so, on a connection of its own.
    let begin = now();
    loop {
        let ended = Grpc::connect(server.address()).ask(MODEL_INFER, &ModelInferRequest::default());
        if ended.code == Some(code::UNAVAILABLE) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{ended:?}");
    }
    gate.open();
    is_doubled(&in_flight.wait().ok());
    assert_eq!(server.wait(drain), Drained::Complete);
}

#[test]
fn row_75_a_call_that_is_over_time_is_unavailable() {
    let (server, gate, before) = gated(Duration::from_millis(100));
    let grpc = Grpc::connect(server.address());
    let in_flight = grpc.send(MODEL_INFER, &[], framed(&question(1).encode_to_vec()));
    gate.wait_for(before + 1);
    let drain = server.begin_drain();
    in_flight.wait().refuses(code::UNAVAILABLE, "shutting down");
    assert_eq!(server.wait(drain), Drained::Cut);
    gate.open();
}

#[test]
fn row_75_a_stream_that_has_begun_to_answer_ends_unavailable() {
    let (server, gate, before) = gated(Duration::from_millis(100));
    let grpc = Grpc::connect(server.address());
    let mut stream = grpc.open(MODEL_STREAM_INFER, &[]);
    gate.open();
    stream.send(&question(1));
    let first: ModelStreamInferResponse = stream.next().expect("the first request is answered");
    is_doubled(&first.infer_response.unwrap());
    gate.close();
    stream.send(&question(1));
    gate.wait_for(before + 2);
    let drain = server.begin_drain();
    let ended = stream.next::<ModelStreamInferResponse>().expect_err("it is cut");
    ended.refuses(code::UNAVAILABLE, "shutting down");
    assert_eq!(server.wait(drain), Drained::Cut);
    gate.open();
}

#[test]
fn row_74_a_stream_finishes_what_is_at_work_and_then_ends() {
    let (server, gate, before) = gated(PATIENCE);
    let grpc = Grpc::connect(server.address());
    let mut stream = grpc.open(MODEL_STREAM_INFER, &[]);
    stream.send(&question(1));
    gate.wait_for(before + 1);
    let drain = server.begin_drain();
    let begin = now();
    while server.client().get("/v2/health/ready").status != 503 {
        assert!(begin.elapsed() < PATIENCE);
    }
    gate.open();
    let answer: ModelStreamInferResponse = stream.next().expect("what was at work is answered");
    is_doubled(&answer.infer_response.unwrap());
    // The client would go on.
    let ended = stream.next::<ModelStreamInferResponse>().expect_err("it ends");
    assert_eq!(ended.code, Some(code::UNAVAILABLE));
    assert_eq!(server.wait(drain), Drained::Complete);
}

#[test]
fn streams_on_which_nothing_is_under_way_do_not_hold_up_the_end() {
    let server = TestServer::double(|config| config.drain_timeout = PATIENCE);
    let grpc = Grpc::connect(server.address());
    let mut used = grpc.open(MODEL_STREAM_INFER, &[]);
    used.send(&question(1));
    used.next::<ModelStreamInferResponse>().expect("it is answered");
    let mut unused = grpc.open(MODEL_STREAM_INFER, &[]);
    let begin = now();
    let drain = server.begin_drain();
    for stream in [&mut used, &mut unused] {
        let ended = stream.next::<ModelStreamInferResponse>().expect_err("it ends");
        assert_eq!(ended.code, Some(code::UNAVAILABLE));
    }
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn an_open_stream_is_not_idle() {
    let short = Duration::from_millis(200);
    let server = TestServer::double(|config| config.connections.idle_timeout = short);
    let grpc = Grpc::connect(server.address());
    let mut stream = grpc.open(MODEL_STREAM_INFER, &[]);
    stream.send(&question(1));
    stream.next::<ModelStreamInferResponse>().expect("it is answered");
    // Two connections that say nothing are closed one after the other meanwhile.
    for _ in 0..2 {
        server.client().rest_until_close();
    }
    stream.send(&question(1));
    stream.next::<ModelStreamInferResponse>().expect("it is answered still");
    stream.close();
    assert_eq!(stream.next::<ModelStreamInferResponse>().expect_err("it ends").code, Some(code::OK));
}

#[test]
fn a_listener_takes_the_calls_that_it_is_for() {
    let server = TestServer::double(|config| config.metrics = vec!["127.0.0.1:0".parse().unwrap()]);
    let metrics = server.server.listening().iter().find(|one| !one.roles.inference && !one.roles.management);
    let metrics = Grpc::connect(metrics.unwrap().address.tcp().unwrap());
    let data = Grpc::connect(server.address());
    let admin = Grpc::connect(server.admin_address());
    let list = ListModelsRequest::default();
    is_doubled(&data.ask(MODEL_INFER, &question(1)).ok());
    assert_ne!(metrics.ask(MODEL_INFER, &question(1)).code, Some(code::OK));
    // TorchServe's management is for operators alone.
    let listed: ManagementResponse = admin.ask(LIST_MODELS, &list).ok();
    assert!(listed.msg.contains("double"), "{}", listed.msg);
    for other in [&data, &metrics] {
        let ended = other.ask(LIST_MODELS, &list);
        assert!(matches!(ended.code, Some(PERMISSION_DENIED | code::UNIMPLEMENTED)), "{ended:?}");
        let unload = RepositoryModelUnloadRequest { model_name: "double".into(), ..Default::default() };
        let ended = other.ask(UNLOAD, &unload);
        assert!(matches!(ended.code, Some(PERMISSION_DENIED | code::UNIMPLEMENTED)), "{ended:?}");
    }
    server.is_well();
}

#[test]
fn grpc_over_http1_is_answered_and_not_taken_for_a_call() {
    let server = TestServer::double(|_| {});
    let mut client = server.client();
    let body = framed(&question(1).encode_to_vec());
    client.send(Client::request("POST", MODEL_INFER, "content-type: application/grpc\r\n", &body));
    assert_eq!(client.reply().status, 404);
    server.is_well();
}
