//! What happens to the files under a running server: models and its own state, in a process with the real engine.
//!
//! The registry's and the engine's own tests go into every corner of this; here it is seen from outside.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use millrace_testkit::fixture;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, HALF_PLUS_TWO, PATIENCE, Process, Repository, now, prediction, serve};

const GOOD: &str = r#"{"instances": [4.0]}"#;

/// Version 1: x / 2 + 2.
fn half_plus_two() -> Repository {
    Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1)
}

fn version_status(client: &mut Client, path: &str) -> Option<Value> {
    let reply = client.get(path);
    (reply.status == 200).then(|| reply.json()["model_version_status"][0].clone())
}

#[test]
fn row_59_a_version_copied_in_eight_slow_writes_serves_when_it_is_complete_and_not_before() {
    let repository = half_plus_two();
    let mut command = serve(repository.path());
    command.env("MILLRACE_REGISTRY__QUIET_PERIOD", "50ms").env("MILLRACE_REGISTRY__POLL_INTERVAL", "20ms");
    let process = Process::start(&mut command);
    process.logged("ready");
    let mut client = Client::connect(process.address);
    let whole = fs::read(fixture("models/half_plus_two/2/model.onnx")).unwrap();
    let folder = repository.path().join("half_plus_two/2");
    fs::create_dir(&folder).unwrap();
    let mut file = fs::File::create(folder.join("model.onnx")).unwrap();
    let parts: Vec<&[u8]> = whole.chunks(whole.len().div_ceil(8)).collect();
    let (last, first) = parts.split_last().unwrap();
    assert_eq!(first.len(), 7);
    for part in first {
        file.write_all(part).unwrap();
        // Each part lies there for long enough to be taken for the whole, and is found wanting.
        let failure = process.logged("the version failed to load");
        assert_eq!(failure["version"], 2, "{failure}");
        client.post(HALF_PLUS_TWO, GOOD).gives(&prediction(4.0));
        let status = version_status(&mut client, "/v1/models/half_plus_two/versions/2").expect("it is known");
        assert_ne!(status["state"], "AVAILABLE", "{status}");
        assert!(status["state"] != "END" || status["status"]["error_message"] != "", "{status}");
    }
    file.write_all(last).unwrap();
    drop(file);
    let begin = now();
    loop {
        let reply = client.post(HALF_PLUS_TWO, GOOD);
        assert_eq!(reply.status, 200, "{}", reply.text());
        if reply.json() == prediction(5.0) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{:?}", version_status(&mut client, "/v1/models/half_plus_two/versions/2"));
    }
}

#[test]
fn row_61_folders_that_are_no_versions_are_ignored_with_one_warning_each() {
    let repository = half_plus_two();
    let model = repository.path().join("half_plus_two");
    let outside = fixture("models/half_plus_two/2").canonicalize().unwrap();
    symlink(outside, model.join("2")).unwrap();
    symlink("3", model.join("3")).unwrap();
    fs::write(model.join("4"), "a file").unwrap();
    fs::create_dir(model.join("9".repeat(24))).unwrap();
    let process = Process::start(&mut serve(repository.path()));
    process.logged("ready");
    let events = process.log_so_far();
    for name in ["half_plus_two/2`", "half_plus_two/3`", "half_plus_two/4`", &format!("{}`", "9".repeat(24))] {
        let named = |event: &&Value| event["message"].as_str().is_some_and(|text| text.contains(name));
        let named: Vec<_> = events.iter().filter(named).collect();
        assert_eq!(named.len(), 1, "{name}: {events:#?}");
        assert_eq!(named[0]["level"], "WARN", "{name}");
    }
    let mut client = Client::connect(process.address);
    client.post(HALF_PLUS_TWO, GOOD).gives(&prediction(4.0));
    let versions = client.get("/v1/models/half_plus_two").json()["model_version_status"].as_array().unwrap().len();
    assert_eq!(versions, 1);
    for version in 2..=4 {
        assert_eq!(client.get(&format!("/v1/models/half_plus_two/versions/{version}")).status, 404);
    }
}

#[test]
fn rows_63_to_65_hostile_model_files_fail_with_a_reason_and_the_good_model_serves() {
    let hostile = [
        ("external_outside", "external data"),
        ("external_absolute", "external data"),
        ("short_raw_data", "liar"),
        ("huge_constant", "filler"),
        ("cyclic", "add_first"),
        ("unknown_op", "mystery_node"),
    ];
    let mut repository = half_plus_two();
    for (name, _) in hostile {
        repository = repository.copy(&format!("bad-models/{name}/1"), name, 1);
    }
    fs::copy(fixture("bad-models/external_outside/secret.bin"), repository.path().join("external_outside/secret.bin"))
        .unwrap();
    // A header of 2^63 bytes, in a format that no engine here reads: nobody looks at it.
    let tensors = repository.path().join("tensors/1");
    fs::create_dir_all(&tensors).unwrap();
    fs::write(tensors.join("model.safetensors"), (1_u64 << 63).to_le_bytes()).unwrap();
    // Weights that lie inside by name and outside by nature.
    repository = repository
        .copy("extra/external_inside/1", "linked", 1)
        .copy("extra/external_inside/1", "foreign", 1)
        .copy("extra/external_inside/1", "inside", 1);
    let (weights, target) = ("1/weights.bin", repository.path().join("secret.bin"));
    fs::copy(fixture("extra/external_inside/1/weights.bin"), &target).unwrap();
    let linked = repository.path().join("linked").join(weights);
    fs::remove_file(&linked).unwrap();
    symlink(&target, &linked).unwrap();
    // A hard link to somebody else's file, which takes the right to make one.
    let foreign = repository.path().join("foreign").join(weights);
    fs::remove_file(&foreign).unwrap();
    fs::hard_link(&target, &foreign).unwrap();
    let is_foreign = chown(&target, Some(65_534), None).is_ok();

    let process = Process::start(&mut serve(repository.path()));
    process.logged("ready");
    let mut client = Client::connect(process.address);
    let links = [("linked", "weights.bin"), ("foreign", "hard link")].into_iter().take(1 + usize::from(is_foreign));
    for (name, reason) in hostile.into_iter().chain([("tensors", "no backend")]).chain(links) {
        let path = format!("/v1/models/{name}");
        let status = version_status(&mut client, &path).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(status["state"], "END", "{name}: {status}");
        let message = status["status"]["error_message"].as_str().unwrap();
        assert!(message.contains(reason), "{name}: {message}");
        assert!(!message.contains(repository.path().to_str().unwrap()), "{name}: {message}");
        let refused = client.post(&format!("{path}:predict"), GOOD);
        assert!(matches!(refused.status, 404 | 503), "{name}: {}", refused.text());
    }
    assert_eq!(version_status(&mut client, "/v1/models/inside").unwrap()["state"], "AVAILABLE");
    process.is_well();
    assert!(process.resident() < 256 << 20, "{} bytes", process.resident());
}

/// Two versions of which the newer serves, and the state of orders in a folder of its own.
fn ordered() -> (Repository, TempDir) {
    let repository = half_plus_two().copy("models/half_plus_two/2", "half_plus_two", 2);
    (repository, TempDir::new().unwrap())
}

fn start(repository: &Repository, state: &TempDir) -> Process {
    let process = Process::start(serve(repository.path()).arg("--state-dir").arg(state.path()));
    process.logged("ready");
    process
}

/// What the orders have made of the model.
fn observe(process: &Process) -> Value {
    let model = Client::connect(process.admin.unwrap()).get("/admin/models/half_plus_two").json();
    let available: Vec<&Value> = model["versions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|version| version["state"] == "AVAILABLE")
        .map(|version| &version["version"])
        .collect();
    json!({
        "default": model["default_version"], "overrides": model["overrides"], "aliases": model["aliases"],
        "available": available,
    })
}

/// Every kind of order that changes what the next start finds.
fn orders() -> Vec<Vec<u8>> {
    let model = "/admin/models/half_plus_two";
    let alias = format!("{model}/aliases/default");
    let one = br#"{"version": 1}"#;
    vec![
        Client::request("POST", &format!("{model}/load"), "", one),
        Client::request("PUT", &alias, "", one),
        Client::request("DELETE", &alias, "", b""),
        Client::request("POST", &format!("{model}/unload"), "", one),
        Client::request("POST", &format!("{model}/unload"), "", br#"{"version": 2}"#),
        Client::request("POST", &format!("{model}/load"), "", b""),
    ]
}

#[test]
fn row_77_after_kill_9_during_an_order_a_restart_finds_the_old_or_the_new_state() {
    let carry_out = |process: &Process, order: &[u8]| {
        let mut admin = Client::connect(process.admin.unwrap());
        admin.send(order);
        let reply = admin.reply();
        assert_eq!(reply.status, 200, "{}", reply.text());
        observe(process)
    };
    // What each order leads to when nothing goes wrong, and how long it takes.
    let (repository, state) = ordered();
    let process = start(&repository, &state);
    let mut states = vec![observe(&process)];
    let mut times = Vec::new();
    for order in orders() {
        let begin = now();
        states.push(carry_out(&process, &order));
        times.push(begin.elapsed());
    }
    assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "every order changes something: {states:#?}");
    process.kill();

    let (repository, state) = ordered();
    let mut process = start(&repository, &state);
    let (mut old, mut new) = (0, 0);
    for (index, order) in orders().iter().enumerate() {
        // Killed earlier and later: after so many eighths of the time that the order takes.
        for eighths in [0, 1, 2, 3, 4, 6, 8, 16] {
            let mut admin = Client::connect(process.admin.unwrap());
            let mut other = Client::connect(process.address);
            let begin = now();
            admin.send(order);
            while begin.elapsed() < times[index] * eighths / 8 {
                other.get("/v2/health/live");
            }
            process.kill();
            // An answer that got out before the end is a promise.
            let answered = admin.try_reply().is_ok_and(|reply| reply.is_some());
            process = start(&repository, &state);
            let found = observe(&process);
            if found == states[index + 1] {
                new += 1;
                break;
            }
            assert_eq!(found, states[index], "neither the state before order {index} nor the one after");
            assert!(!answered, "order {index} was answered and is lost");
            old += 1;
        }
        if observe(&process) == states[index] {
            assert_eq!(carry_out(&process, order), states[index + 1]);
        }
    }
    assert!(new > 0 && old > 0, "{new} orders got through before the kill, {old} did not");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn row_78_an_order_that_cannot_be_saved_is_refused_and_nothing_changes() {
    let (repository, state) = ordered();
    let process = start(&repository, &state);
    let before = observe(&process);
    let mode = |mode| fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let in_the_way = state.path().join("registry.json.new");
    // Where the tests run with every right, a read-only folder is none; something in the way stops a write all the same.
    let privileged = fs::create_dir(&in_the_way).is_ok();
    let model = "/admin/models/half_plus_two";
    for order in [
        Client::request("POST", &format!("{model}/load"), "", br#"{"version": 1}"#),
        Client::request("POST", &format!("{model}/unload"), "", b""),
        Client::request("PUT", &format!("{model}/aliases/stable"), "", br#"{"version": 2}"#),
    ] {
        let mut admin = Client::connect(process.admin.unwrap());
        admin.send(&order);
        let reply = admin.reply();
        reply.refuses(500, "saved");
        assert_eq!(observe(&process), before);
        process.is_well();
    }
    mode(0o755);
    if privileged {
        fs::remove_dir(&in_the_way).unwrap();
    }
    let mut admin = Client::connect(process.admin.unwrap());
    admin.send(&orders()[0]);
    assert_eq!(admin.reply().status, 200);
    assert_ne!(observe(&process), before);
}
