//! Models that fail, hang or are asked too much, and models that come and go while asked.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use millrace_testkit::{FakeBackend, Gate, Misbehaviour};
use serde_json::json;

use crate::support::{Client, DOUBLE, PATIENCE, Repository, TestServer, now, prediction};

fn body(value: impl std::fmt::Display) -> String {
    format!("{{\"instances\": [{value}]}}")
}

fn two_models() -> Repository {
    Repository::new().fake("double", 1, 2.0, 0.0).fake("triple", 1, 3.0, 0.0)
}

#[test]
fn row_67_a_poison_request_fails_alone() {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(two_models(), backend, |config| {
        config.pool.threads = std::num::NonZeroUsize::MIN;
    });
    for (misbehaviour, status) in
        [(Misbehaviour::Panic, 500), (Misbehaviour::Fail, 500), (Misbehaviour::InvalidInput, 400)]
    {
        // One request holds the only worker while the others gather behind it into one batch.
        gate.close();
        let before = gate.arrived();
        let mut first = server.client();
        first.send(Client::request("POST", DOUBLE, "", body(0.5).as_bytes()));
        gate.wait_for(before + 1);
        let values = [1.0, f64::from(misbehaviour.value()), 3.0];
        let mut clients: Vec<Client> = values
            .iter()
            .map(|value| {
                let mut client = server.client();
                client.send(Client::request("POST", DOUBLE, "", body(value).as_bytes()));
                client
            })
            .collect();
        gate.open();
        first.reply().gives(&prediction(1.0));
        let replies: Vec<_> = clients.iter_mut().map(Client::reply).collect();
        replies[0].gives(&prediction(2.0));
        replies[1].refuses(status, "");
        assert!(!replies[1].text().contains(".rs"), "{}", replies[1].text());
        replies[2].gives(&prediction(6.0));
        server.is_well();
    }
}

#[test]
fn row_68_a_backend_that_breaks_its_contract_gives_nobody_anothers_rows() {
    let server = TestServer::double(|_| {});
    for misbehaviour in [Misbehaviour::TooFewRows, Misbehaviour::TooManyRows, Misbehaviour::WrongDType] {
        server.client().post(DOUBLE, body(misbehaviour.value())).refuses(500, "");
        server.is_well();
    }
}

#[test]
fn row_69_a_hung_model_is_answered_504_and_others_are_served() {
    let hang = Gate::closed();
    let backend = FakeBackend::default().hang(hang.clone());
    let server = TestServer::fake(two_models(), backend, |config| {
        config.http.request_timeout = Duration::from_millis(300);
        config.pool.hang_grace = Duration::from_secs(30);
    });
    let mut stuck = server.client();
    stuck.send(Client::request("POST", DOUBLE, "", body(Misbehaviour::Hang.value()).as_bytes()));
    stuck.reply().refuses(504, "");
    server.client().post("/v1/models/triple:predict", body(2.0)).gives(&prediction(6.0));
    hang.open();
}

#[test]
fn row_69_the_watchdog_quarantines_a_version_that_hangs() {
    let hang = Gate::closed();
    let backend = FakeBackend::default().hang(hang.clone());
    let server = TestServer::fake(two_models(), backend, |config| {
        config.pool.hang_grace = Duration::from_millis(50);
        config.pool.hang_unknown = Duration::from_millis(5);
        config.pool.hang_factor = 1;
    });
    let mut stuck = server.client();
    let reply = stuck.post(DOUBLE, body(Misbehaviour::Hang.value()));
    assert!(reply.status == 500 || reply.status == 504, "{}", reply.text());
    let begin = now();
    while server.client().post(DOUBLE, body(1.0)).status == 200 {
        assert!(begin.elapsed() < PATIENCE);
    }
    server.client().post("/v1/models/triple:predict", body(2.0)).gives(&prediction(6.0));
    assert_eq!(server.client().get("/v2/health/live").status, 200);
    hang.open();
}

#[test]
fn row_70_a_deadline_that_passes_in_the_queue_is_504_and_the_work_is_not_done() {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.pool.threads = std::num::NonZeroUsize::MIN;
    });
    gate.close();
    let before = gate.arrived();
    let mut busy = server.client();
    busy.send(Client::request("POST", DOUBLE, "", body(1.0).as_bytes()));
    gate.wait_for(before + 1);
    let mut hasty = server.client();
    hasty.send(Client::request("POST", DOUBLE, "x-request-timeout-ms: 1\r\n", body(2.0).as_bytes()));
    hasty.reply().refuses(504, "");
    gate.open();
    busy.reply().gives(&prediction(2.0));
    server.is_well();
    assert_eq!(gate.arrived(), before + 2, "the late request never ran");
}

#[test]
fn rows_71_and_72_overload_is_refused_at_the_door_and_the_rest_is_answered() {
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.pool.threads = std::num::NonZeroUsize::MIN;
        config.registry.batching.max_queue_bytes = 40;
    });
    gate.close();
    let before = gate.arrived();
    let mut busy = server.client();
    busy.send(Client::request("POST", DOUBLE, "", body(1.0).as_bytes()));
    gate.wait_for(before + 1);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(Client::request("POST", DOUBLE, "", body(4.0).as_bytes()));
    }
    // All but those that fit are refused at once, while the worker is still busy.
    server.until_metric("millrace_refused_total{reason=\"queue_full\"}", |refused| refused >= 90.0);
    gate.open();
    busy.reply().gives(&prediction(2.0));
    let mut served = 0;
    for client in &mut clients {
        let reply = client.reply();
        if reply.status == 200 {
            reply.gives(&prediction(8.0));
            served += 1;
        } else {
            reply.refuses(503, "queue");
            assert!(reply.header("retry-after").is_some());
        }
    }
    assert!(served > 0 && served <= 10, "40 bytes hold ten rows of four bytes, not {served}");
    server.is_well();
}

#[test]
fn row_57_loads_unloads_and_requests_race_and_the_last_order_wins() {
    let server = TestServer::fake(two_models(), FakeBackend::default(), |_| {});
    thread::scope(|scope| {
        for order in ["load", "unload", "load", "unload"] {
            let (admin, path) = (server.admin_address(), format!("/admin/models/double/{order}"));
            scope.spawn(move || {
                for _ in 0..10 {
                    let reply = Client::connect(admin).post(&path, "");
                    assert!(matches!(reply.status, 200 | 404 | 409 | 503), "{}: {}", reply.status, reply.text());
                }
            });
        }
        for _ in 0..4 {
            let mut client = server.client();
            let mut other = server.client();
            scope.spawn(move || {
                for _ in 0..50 {
                    let reply = client.post(DOUBLE, body(1.0));
                    assert!(matches!(reply.status, 200 | 404 | 503), "{}: {}", reply.status, reply.text());
                    other.post("/v1/models/triple:predict", body(1.0)).gives(&prediction(3.0));
                }
            });
        }
    });
    assert_eq!(server.admin().post("/admin/models/double/unload", "").status, 200);
    assert_ne!(server.client().post(DOUBLE, body(1.0)).status, 200);
    assert_eq!(server.admin().post("/admin/models/double/load", "").status, 200);
    server.is_well();
}

#[test]
fn row_58_twenty_version_swaps_under_load_fail_no_request() {
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), FakeBackend::default(), |config| {
        config.registry.watch = false;
        config.registry.quiet_period = Duration::ZERO;
    });
    let root = server.repository_path();
    let stop = Arc::new(AtomicBool::new(false));
    let asked: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (mut client, stop) = (server.client(), Arc::clone(&stop));
                scope.spawn(move || {
                    let mut asked = 0;
                    let mut newest = 0.0;
                    while !stop.load(Ordering::Relaxed) {
                        let reply = client.post(DOUBLE, r#"{"instances": [0.0, 1.0, 2.0]}"#);
                        assert_eq!(reply.status, 200, "{}", reply.text());
                        // Version v gives 2 x + v: all rows of an answer come from one version, never an older one.
                        let json = reply.json();
                        let version = json["predictions"][0].as_f64().unwrap();
                        assert_eq!(json, json!({"predictions": [version, version + 2.0, version + 4.0]}));
                        assert!(version >= newest, "{version} after {newest}");
                        newest = version;
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for version in 1..=20_u8 {
            let folder = root.join("double").join((version + 1).to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("model.fake"), FakeBackend::file(2.0, f32::from(version))).unwrap();
            let begin = now();
            let mut client = server.client();
            loop {
                server.runtime().block_on(server.server.control().rescan()).unwrap();
                let reply = client.post(DOUBLE, body(0.0));
                if reply.json()["predictions"][0] == json!(f64::from(version)) {
                    break;
                }
                assert!(begin.elapsed() < PATIENCE, "version {} does not come: {}", version + 1, reply.text());
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(asked > 60, "only {asked}");
}

#[test]
fn row_60_a_broken_new_version_leaves_the_old_one_serving_and_says_why() {
    let server = TestServer::double(|config| {
        config.registry.watch = false;
        config.registry.quiet_period = Duration::ZERO;
    });
    let folder = server.repository_path().join("double/2");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.fake"), "scale = 2\n").unwrap();
    let begin = now();
    let message = loop {
        server.runtime().block_on(server.server.control().rescan()).unwrap();
        server.is_well();
        let status = server.client().get("/v1/models/double/versions/2");
        if status.status == 200 && status.json()["model_version_status"][0]["status"]["error_code"] != "OK" {
            break status.json()["model_version_status"][0]["status"]["error_message"].as_str().unwrap().to_owned();
        }
        assert!(begin.elapsed() < PATIENCE, "{}", status.text());
    };
    assert!(message.contains("cut off") && !message.contains('/'), "{message}");
    server.is_well();
}

#[test]
fn row_62_a_version_removed_on_disk_gives_way_to_the_next_best() {
    let repository = Repository::new().fake("double", 1, 2.0, 0.0).fake("double", 2, 2.0, 100.0);
    let server = TestServer::fake(repository, FakeBackend::default(), |config| {
        config.registry.watch = false;
        config.registry.quiet_period = Duration::ZERO;
    });
    let mut client = server.client();
    client.post(DOUBLE, body(21.0)).gives(&prediction(142.0));
    fs::remove_dir_all(server.repository_path().join("double/2")).unwrap();
    let begin = now();
    loop {
        server.runtime().block_on(server.server.control().rescan()).unwrap();
        let reply = client.post(DOUBLE, body(21.0));
        assert_eq!(reply.status, 200, "{}", reply.text());
        if reply.json() == prediction(42.0) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
}
