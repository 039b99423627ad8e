//! Long bodies of requests that would be refused whatever they hold: the answer comes before they are read, and reaches
//! every kind of client.

use std::num::NonZeroUsize;

use millrace_proto::inference::ModelInferRequest;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_testkit::{FakeBackend, Gate};
use prost::Message as _;

use crate::support::frames::{END_HEADERS, END_STREAM, frame, headers, hello, kind, parse_in_full};
use crate::support::grpc::{code, framed};
use crate::support::{Client, DOUBLE, Grpc, PATIENCE, Repository, TestServer, now, prediction};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const GOOD: &str = r#"{"instances": [1.0]}"#;

/// A server whose queue is full: one request runs, one waits.
struct Full {
    server: TestServer,
    gate: Gate,
    running: Client,
    waiting: Client,
}

impl Full {
    fn new() -> Self {
        let gate = Gate::opened();
        let backend = FakeBackend::default().run_gate(gate.clone());
        let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
            config.pool.threads = NonZeroUsize::MIN;
            config.registry.batching.max_queue_rows = 1;
        });
        gate.close();
        let before = gate.arrived();
        let (mut running, mut waiting) = (server.client(), server.client());
        running.send(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
        gate.wait_for(before + 1);
        waiting.send(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
        let begin = now();
        while server.admin().get("/models/double").json()[0]["jobQueueStatus"]["pendingRequests"] != 1 {
            assert!(begin.elapsed() < PATIENCE);
        }
        Self { server, gate, running, waiting }
    }

    /// Nothing of what was refused has kept the others from their answers, or took their place.
    fn ends_well(mut self) {
        self.gate.open();
        self.running.reply().gives(&prediction(2.0));
        self.waiting.reply().gives(&prediction(2.0));
        self.server.is_well();
    }
}

/// A right request whose body is `length` bytes long, its head and its body.
fn long(length: usize, headers: &str) -> (Vec<u8>, Vec<u8>) {
    let body = format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    let head = Client::request("POST", DOUBLE, headers, body.as_bytes());
    (head[..head.len() - length].to_vec(), body.into_bytes())
}

#[test]
fn a_long_body_is_refused_by_its_head_and_the_connection_goes_on() {
    let full = Full::new();
    let mut client = full.server.client();
    for length in [40_000, 600_000, 4 << 20] {
        let (head, body) = long(length, "");
        client.send(&head);
        // None of the body was sent yet.
        let reply = client.reply();
        reply.refuses(503, "is full");
        assert!(reply.header("retry-after").is_some() && !reply.closes());
        client.send(&body);
        assert_eq!(client.get("/health").status, 200, "{length}");
    }
    full.ends_well();
}

#[test]
fn what_follows_a_body_that_nobody_reads_is_read_wherever_the_packets_end() {
    let full = Full::new();
    let (head, body) = long(300_000, "");
    let next = Client::request("GET", "/health", "", b"");
    let all = [&head[..], &body, &next, &head, &body, &next].concat();
    let mut cuts: Vec<_> = (0..8).map(|nth| head.len() + nth * 43_210).collect();
    cuts.extend([head.len() + body.len() - 1, head.len() + body.len(), head.len() + body.len() + 5, all.len()]);
    for cut in cuts {
        let mut client = full.server.client();
        client.send(&all[..cut]);
        client.reply().refuses(503, "is full");
        client.send(&all[cut..]);
        assert_eq!(client.reply().status, 200, "{cut}");
        client.reply().refuses(503, "is full");
        assert_eq!(client.reply().status, 200, "{cut}");
    }
    full.ends_well();
}

#[test]
fn a_client_that_sends_everything_before_it_reads_gets_its_refusal() {
    let full = Full::new();
    for length in [40_000, 600_000, 4 << 20] {
        let mut client = full.server.client();
        let (head, body) = long(length, "");
        client.send([head, body].concat());
        client.reply().refuses(503, "is full");
        assert_eq!(client.get("/health").status, 200, "{length}");
    }
    full.ends_well();
}

#[test]
fn whoever_waits_to_be_told_to_send_is_told_no() {
    let full = Full::new();
    let mut client = full.server.client();
    client.send(long(600_000, "expect: 100-continue\r\n").0);
    let said = String::from_utf8(client.rest_until_close()).unwrap();
    assert!(said.starts_with("HTTP/1.1 503 ") && said.to_lowercase().contains("retry-after: "), "{said}");
    full.ends_well();
}

#[test]
fn a_client_that_never_sends_the_rest_is_not_waited_for() {
    let full = Full::new();
    let mut client = full.server.client();
    client.send(long(600_000, "").0);
    client.reply().refuses(503, "is full");
    assert!(client.rest_until_close().is_empty());
    full.ends_well();
}

#[test]
fn a_long_body_that_is_let_in_is_read_and_answered() {
    let mut full = Full::new();
    full.gate.open();
    full.running.reply().gives(&prediction(2.0));
    full.waiting.reply().gives(&prediction(2.0));
    let mut client = full.server.client();
    // Places are given back: there is only one.
    for _ in 0..5 {
        let (head, body) = long(600_000, "");
        client.send([head, body].concat());
        client.reply().gives(&prediction(2.0));
    }
}

/// `double` of so many ones, over gRPC.
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

#[test]
fn a_call_with_a_long_message_is_refused_like_one_with_a_short_one_but_unread() {
    let full = Full::new();
    let grpc = Grpc::connect(full.server.address());
    let refused = |values| {
        let ended = grpc.ask(MODEL_INFER, &question(values));
        ended.refuses(code::UNAVAILABLE, "is full");
        assert!(ended.head.contains_key("grpc-retry-pushback-ms"));
        ended.message
    };
    let carried = || {
        let page = full.server.admin().get("/metrics").text();
        let bytes = "millrace_request_bytes_total{model=\"double\",version=\"1\",protocol=\"oip_grpc\"} ";
        page.lines().find_map(|line| line.strip_prefix(bytes)).map(|bytes| bytes.parse::<u64>().unwrap())
    };
    let short = refused(1);
    let before = carried();
    assert!(before.is_some_and(|bytes| bytes > 0));
    for values in [10_000, 150_000, 1 << 20] {
        assert_eq!(refused(values), short);
    }
    assert_eq!(carried(), before);
    full.ends_well();
}

#[test]
fn the_stream_of_a_call_refused_early_is_reset_and_the_others_have_its_window() {
    let full = Full::new();
    let mut client = full.server.client();
    client.send(hello());
    let message = framed(&question(150_000).encode_to_vec());
    let mut head = headers("POST", MODEL_INFER);
    // 31 is the static table's `content-type`.
    head.extend([0x0f, 0x10, 16]);
    head.extend(b"application/grpc");
    // What a connection lets come at first would be used up by the first four.
    let mut window = 65_535_i64;
    for stream in (1..20).step_by(2) {
        client.send(frame(kind::HEADERS, END_HEADERS, stream, &head));
        client.send(frame(kind::DATA, 0, stream, &message[..16 << 10]));
        window -= 16 << 10;
        let (mut is_answered, mut is_reset) = (false, false);
        let begin = now();
        while !is_reset || window < 16 << 10 {
            assert!(begin.elapsed() < PATIENCE, "answered {is_answered}, reset {is_reset}, window {window}");
            for seen in parse_in_full(&client.some_frames()) {
                let number = || u32::from_be_bytes(seen.payload[..].try_into().unwrap());
                match seen.kind {
                    kind::HEADERS => {
                        assert_eq!((seen.stream, seen.flags & END_STREAM), (stream, END_STREAM));
                        is_answered = true;
                    }
                    kind::RST_STREAM => {
                        // NO_ERROR, and not before the answer.
                        assert_eq!((seen.stream, number()), (stream, 0));
                        assert!(is_answered);
                        is_reset = true;
                    }
                    kind::WINDOW_UPDATE if seen.stream == 0 => window += i64::from(number()),
                    kind::GOAWAY => panic!("{:?}", seen.payload),
                    _ => {}
                }
            }
        }
    }
    client.send(frame(kind::HEADERS, END_HEADERS | END_STREAM, 21, &headers("GET", "/health")));
    assert!(!client.until_frame(kind::DATA).is_empty());
    full.ends_well();
}

#[test]
fn calls_refused_early_in_great_numbers_leave_their_connection_whole() {
    let full = Full::new();
    let grpc = Grpc::connect(full.server.address());
    let message = framed(&question(50_000).encode_to_vec());
    for _ in 0..3 {
        let calls: Vec<_> = (0..100).map(|_| grpc.send(MODEL_INFER, &[], message.clone())).collect();
        // One that is read is answered beside them.
        grpc.ask(MODEL_INFER, &ModelInferRequest { model_name: "nobody".into(), ..question(1) })
            .refuses(code::NOT_FOUND, "");
        for call in calls {
            call.wait().refuses(code::UNAVAILABLE, "is full");
        }
    }
    full.ends_well();
}
