//! Stopping in good order: nobody who was being served is dropped, and nobody waits for ever.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use millrace_server::{Drained, Ready};
use millrace_testkit::{FakeBackend, Gate};
use parking_lot::Mutex;

use crate::support::{Client, DOUBLE, PATIENCE, Repository, TestServer, now, prediction};

const GOOD: &str = r#"{"instances": [1.0]}"#;

/// A server whose runs wait at the gate from now on, and one request that has arrived there.
fn busy(drain_timeout: Duration) -> (TestServer, Gate, Client) {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.drain_timeout = drain_timeout;
    });
    gate.close();
    let before = gate.arrived();
    let mut client = server.client();
    client.send(Client::request("POST", DOUBLE, "", GOOD.as_bytes()));
    gate.wait_for(before + 1);
    (server, gate, client)
}

/// Waits until the server says that it is not ready.
#[track_caller]
fn until_not_ready(server: &TestServer) {
    let begin = now();
    while server.client().get("/v2/health/ready").status != 503 {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn row_74_in_flight_work_finishes_while_new_work_is_refused() {
    let (server, gate, mut in_flight) = busy(PATIENCE);
    let drain = server.begin_drain();
    until_not_ready(&server);
    // Not ready comes a moment before refusing; a request that is wrong anyway tells when, and never waits at the gate.
    let begin = now();
    while server.client().post(DOUBLE, "{").status != 503 {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert_eq!(server.client().get("/v2/health/live").status, 200);
    let refused = server.client().post(DOUBLE, GOOD);
    refused.refuses(503, "");
    assert!(refused.closes());
    gate.open();
    let reply = in_flight.reply();
    reply.gives(&prediction(2.0));
    assert!(reply.closes());
    assert!(in_flight.rest_until_close().is_empty());
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(Client::try_connect(server.address()).is_err(), "nobody listens any more");
}

#[test]
fn the_drain_delay_is_spent_serving_but_not_ready() {
    let server = TestServer::double(|config| config.drain_delay = PATIENCE);
    let drain = server.begin_drain();
    until_not_ready(&server);
    let mut client = server.client();
    for _ in 0..20 {
        let reply = client.post(DOUBLE, GOOD);
        reply.gives(&prediction(2.0));
        assert!(!reply.closes());
    }
    server.server.cut();
    assert_eq!(server.wait(drain), Drained::Complete, "an idle connection is not work that was cut");
}

#[test]
fn row_75_what_is_over_time_gets_503() {
    let (server, gate, mut in_flight) = busy(Duration::from_millis(100));
    let drain = server.begin_drain();
    let reply = in_flight.reply();
    reply.refuses(503, "shutting down");
    assert!(reply.closes());
    assert_eq!(server.wait(drain), Drained::Cut);
    gate.open();
}

#[test]
fn row_76_draining_while_a_model_loads_does_not_hang() {
    let gate = Gate::closed();
    let repository = Repository::new().fake("double", 1, 2.0, 0.0);
    let path = repository.path().to_owned();
    let backend = FakeBackend::default().load_gate(gate.clone());
    let server = TestServer::start_unready(&path, backend, Some(repository), |_| {});
    gate.wait_for(1);
    assert_eq!(server.client().get("/v2/health/ready").status, 503);
    assert_eq!(server.client().get("/v2/health/live").status, 200);
    let begin = now();
    let drain = server.begin_drain();
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    gate.open();
}

#[test]
fn connections_that_never_said_a_word_do_not_hold_up_the_end() {
    let server = TestServer::double(|_| {});
    let mut silent: Vec<Client> = (0..10).map(|_| server.client()).collect();
    let mut idle = server.client();
    idle.post(DOUBLE, GOOD).gives(&prediction(2.0));
    let begin = now();
    let drain = server.begin_drain();
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(begin.elapsed() < PATIENCE / 4, "{:?}", begin.elapsed());
    for client in &mut silent {
        assert!(client.rest_until_close().is_empty());
    }
}

#[test]
fn ready_all_waits_for_every_model() {
    let repository = || {
        Repository::new().fake("double", 1, 2.0, 0.0).file("broken", 1, "model.fake", "fail = no such operator\nend\n")
    };
    let settled = TestServer::fake(repository(), FakeBackend::default(), |_| {});
    assert_eq!(settled.client().get("/v2/health/ready").status, 200);
    let all = TestServer::fake(repository(), FakeBackend::default(), |config| config.ready = Ready::All);
    assert_eq!(all.client().get("/v2/health/ready").status, 503);
    all.client().post(DOUBLE, GOOD).gives(&prediction(2.0));
}

#[test]
fn a_rolling_restart_fails_no_request() {
    // What a load balancer does: it sends to whoever was ready when it last looked, over connections that it keeps, and
    // looks again between requests.
    let start = || TestServer::double(|config| config.drain_delay = Duration::from_secs(2));
    let mut current = start();
    let pool: Mutex<Vec<SocketAddr>> = Mutex::new(vec![current.address()]);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ready = |address: &SocketAddr| {
        let client = Client::try_connect(*address).ok();
        client.is_some_and(|mut client| client.get("/v2/health/ready").status == 200)
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection: Option<(SocketAddr, Client)> = None;
                while !stop.load(Ordering::Relaxed) {
                    let backends = pool.lock().clone();
                    // Nobody: the list is from just before the newest was added.
                    let Some(address) = backends.into_iter().rev().find(ready) else { continue };
                    let client = match &mut connection {
                        Some((to, client)) if *to == address => client,
                        other => &mut other.insert((address, Client::connect(address))).1,
                    };
                    for _ in 0..5 {
                        client.post(DOUBLE, GOOD).gives(&prediction(2.0));
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..3 {
            let next = start();
            let before = asked.load(Ordering::Relaxed);
            pool.lock().push(next.address());
            let drain = current.begin_drain();
            assert_eq!(current.wait(drain), Drained::Complete);
            assert!(asked.load(Ordering::Relaxed) > before, "the load goes on during the restart");
            pool.lock().retain(|address| *address != current.address());
            current = next;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
