//! The clients that people already have, unchanged, against the binary: the suites are in `tests/clients`.
//!
//! Each suite is a Python program of its own, for some of the clients cannot share a process. The environment they run
//! in is made once by `tests/clients/venv.sh` and kept under `target`. Where there is no Python, a suite is skipped, and
//! says so past the test harness's capture.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use millrace_testkit::fixture;
use tempfile::TempDir;

use crate::support::{Process, serve};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The Python that has the clients, or `None` where there is no Python at all.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        match Command::new("python3").arg("--version").output() {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            other => other.expect("python3 starts"),
        };
        // The folder above the one for tests' temporary files is where cargo builds.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
        let made = Command::new("sh").arg(clients().join("venv.sh")).arg(target).output().expect("sh starts");
        assert!(made.status.success(), "no environment: {}", String::from_utf8_lossy(&made.stderr));
        Some(PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim_end()))
    };
    PYTHON.get_or_init(make).as_deref()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}

/// A server of its own for a test, whose models the test may change.
fn server(folder: &TempDir) -> Process {
    let (repository, store) = (folder.path().join("models"), folder.path().join("store"));
    copy(&fixture("models"), &repository);
    copy(&fixture("extra/unnamed_dims"), &store.join("unnamed_dims"));
    let mut command = serve(&repository);
    command.arg("--listen").arg(format!("unix:{}", folder.path().join("socket").display()));
    command.arg("--state-dir").arg(folder.path().join("state")).arg("--model-store").arg(&store);
    let server = Process::start(command.arg("--admin-on-data-plane"));
    server.logged("ready");
    server
}

/// Says that `what` did not run. Not by `eprintln!`, which the test harness would keep to itself.
fn skipped(what: &str, missing: &str) {
    let line = format!("\n*** SKIPPED: {what} did not run, for there is no {missing} here ***\n\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr is open");
}

/// Runs `suite` against a server of its own.
fn run(suite: &str) {
    run_beside(suite, &[]);
}

/// The same, on a server that has the models of the folders `more` too.
fn run_beside(suite: &str, more: &[&str]) {
    let Some(python) = python() else {
        return skipped(suite, "python3");
    };
    let folder = TempDir::new().expect("a temporary folder");
    more.iter().for_each(|more| copy(&fixture(more), &folder.path().join("models")));
    let server = server(&folder);
    let output = Command::new(python)
        .arg(clients().join(suite))
        // No proxy, no settings of the user's: the server is on this machine.
        .env_clear()
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MILLRACE_DATA", server.address.to_string())
        .env("MILLRACE_SOCKET", folder.path().join("socket"))
        .env("MILLRACE_ADMIN", server.admin.expect("there is an admin port").to_string())
        .env("MILLRACE_FIXTURES", fixture("."))
        .env("MILLRACE_PROTOS", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto"))
        .env("MILLRACE_REPOSITORY", folder.path().join("models"))
        .output()
        .expect("the environment has a Python");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{suite}\n{out}\n{error}");
    assert!(out.contains("ok     "), "{suite} ran nothing\n{out}");
    server.is_well();
}

#[test]
fn tritonclient_http_works_unchanged() {
    run("test_tritonclient_http.py");
}

#[test]
fn tritonclient_grpc_works_unchanged() {
    run("test_tritonclient_grpc.py");
}

#[cfg(all(feature = "candle", feature = "text"))]
#[test]
fn openai_and_hugging_face_clients_work_unchanged() {
    run_beside("test_text.py", &["text-models"]);
}

#[test]
fn kserve_inference_clients_work_unchanged() {
    run("test_kserve.py");
}

#[test]
fn ovmsclient_works_unchanged() {
    run("test_ovmsclient.py");
}

#[test]
fn tensorflow_serving_stubs_work_unchanged() {
    run("test_tfs_stubs.py");
}

#[test]
fn grpc_health_and_reflection_clients_work_unchanged() {
    run("test_grpc_standard.py");
}

#[test]
fn torchserve_scripts_work_unchanged() {
    run("test_torchserve_requests.py");
}

#[test]
fn scripts_of_the_general_endpoints_work_unchanged() {
    run("test_flat_requests.py");
}

#[test]
fn scripts_and_tritonclient_http_find_faces() {
    run_beside("test_faces_http.py", &["face-models"]);
}

#[test]
fn tritonclient_grpc_finds_faces() {
    run_beside("test_faces_grpc.py", &["face-models"]);
}

/// Runs an example of `examples/clients`, and gives what it prints.
#[track_caller]
fn example(command: &mut Command) -> String {
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("the example starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    out.into_owned()
}

#[test]
fn the_examples_print_what_their_headers_say() {
    let folder = TempDir::new().expect("a temporary folder");
    let server = server(&folder);
    let (data, admin) = (server.address.to_string(), server.admin.expect("there is an admin port").to_string());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/clients");
    if let Some(python) = python() {
        let run = |name: &str| example(Command::new(python).arg(examples.join(name)).args([&data, &admin]));
        assert!(run("triton_http.py").contains("fraud 2: 0.927, "));
        assert!(run("tfs_grpc.py").contains("half_plus_two 1 says [2.5, 3.0, 4.5]"));
        let torchserve = run("torchserve.py");
        assert!(torchserve.contains("Healthy") && torchserve.contains("[0, 2]"), "{torchserve}");
        assert!(torchserve.contains("Workers scaled to 2 for model: iris"), "{torchserve}");
    } else {
        skipped("the examples in Python", "python3");
    }
    if Command::new("curl").arg("--version").output().is_ok() {
        let answers = example(Command::new("sh").arg(examples.join("rest.sh")).arg(&data));
        let fives = answers.lines().filter(|line| line.contains("5.5")).count();
        assert_eq!(fives, 5, "{answers}");
        assert!(answers.contains("\"predictions\":[[0.926"), "{answers}");
    } else {
        skipped("rest.sh", "curl");
    }
}
