//! Long bodies of requests that would be refused whatever they hold: the answer comes before they are read, and reaches
//! every kind of client.

use std::num::NonZeroUsize;

use millrace_testkit::{FakeBackend, Gate};

use crate::support::{Client, DOUBLE, PATIENCE, Repository, TestServer, now, prediction};

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
