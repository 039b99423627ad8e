//! Connections that misbehave in time: slow, silent, gone, greedy, too many.

use std::time::Duration;

use millrace_testkit::{FakeBackend, Gate};

use crate::support::{Client, DOUBLE, PATIENCE, Repository, TestServer, now, prediction};

const GOOD: &str = r#"{"instances": [1.0]}"#;
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn row_40_a_client_that_half_closes_is_gone_and_its_work_is_not_done() {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.pool.threads = std::num::NonZeroUsize::MIN;
    });
    gate.close();
    let before = gate.arrived();
    let mut busy = server.client();
    busy.send(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
    gate.wait_for(before + 1);
    let mut gone = server.client();
    gone.send(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
    gone.half_close();
    assert!(gone.rest_until_close().is_empty(), "it is taken as gone");
    // The socket closes a moment before the request is dropped.
    server.until_connected(1);
    gate.open();
    busy.reply().gives(&prediction(2.0));
    server.is_well();
    // The busy one, and the one that `is_well` sends; the gone one never ran.
    assert_eq!(gate.arrived(), before + 2);
}

#[test]
fn row_41_resets_at_every_byte_leave_nothing_behind() {
    let server = TestServer::double(|_| {});
    let request = Client::request("POST", DOUBLE, "", GOOD.as_bytes());
    for round in 0..400 {
        let mut client = server.client();
        client.send(&request[..round % request.len() + 1]);
        client.reset();
    }
    server.until_connected(0);
    server.is_well();
}

#[test]
fn headers_that_trickle_in_are_timed_from_their_first_byte() {
    let server = TestServer::double(|config| {
        config.connections.header_timeout = SHORT;
        config.connections.idle_timeout = PATIENCE;
    });
    // On a connection that has served before: the timer must be the headers', not the idling's.
    let mut client = server.client();
    client.post(DOUBLE, GOOD).gives(&prediction(2.0));
    client.send("GET /health HTTP/1.1\r\n");
    let begin = now();
    client.rest_until_close();
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_connection_that_had_a_large_body_may_idle_like_any_other() {
    let server = TestServer::double(|config| config.connections.header_timeout = Duration::from_millis(50));
    let mut client = server.client();
    let body = format!("{{\"instances\": [1.0]{}}}", " ".repeat(2 << 20));
    client.post(DOUBLE, body).gives(&prediction(2.0));
    // Longer than the header timeout: a second connection's slow header runs into it meanwhile.
    let mut other = server.client();
    for _ in 0..2 {
        other.send("GET /health HTTP/1.1\r\n");
        other.rest_until_close();
        other = server.client();
    }
    client.post(DOUBLE, GOOD).gives(&prediction(2.0));
}

#[test]
fn an_idle_connection_is_closed_after_its_last_answer() {
    let server = TestServer::double(|config| config.connections.idle_timeout = SHORT);
    let mut client = server.client();
    for _ in 0..3 {
        client.post(DOUBLE, GOOD).gives(&prediction(2.0));
    }
    let begin = now();
    assert!(client.rest_until_close().is_empty());
    assert!(begin.elapsed() >= SHORT / 2 && begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_connection_over_the_limit_is_told_so_and_the_next_one_served_when_there_is_room() {
    let server = TestServer::double(|config| config.connections.max_connections = 2);
    let mut first = server.client();
    let mut second = server.client();
    first.post(DOUBLE, GOOD).gives(&prediction(2.0));
    second.post(DOUBLE, GOOD).gives(&prediction(2.0));
    let mut third = server.client();
    third.send_anyway(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
    let reply = third.reply();
    reply.refuses(503, "too many connections");
    assert!(reply.closes() && reply.header("retry-after").is_some());
    third.rest_until_close();
    drop(first);
    // The server notices the close in its own time; until then it says 503 again.
    let begin = now();
    loop {
        let mut client = server.client();
        client.send_anyway(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
        if client.try_reply().ok().flatten().is_some_and(|reply| reply.status == 200) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    second.post(DOUBLE, GOOD).gives(&prediction(2.0));
}
