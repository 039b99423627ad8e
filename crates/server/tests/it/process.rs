//! The binary: what it prints, how it exits, and which signals it hears.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use millrace_testkit::fixture;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Client, PATIENCE, Process, Repository, millrace, now, output, prediction, serve};

fn serve_fixtures() -> std::process::Command {
    serve(fixture("models"))
}

#[test]
fn serve_prints_a_table_and_curl_lines_that_work() {
    let process = Process::start(&mut serve_fixtures());
    let printed = process.printed_until(|line| line.contains("/sum_diff:predict"));
    let table = printed.join("\n");
    for cell in ["MODEL", "fraud", "tract", "AVAILABLE", "transaction FP32[N,10] → probability FP32[N,1]", "1 (stable)"]
    {
        assert!(table.contains(cell), "no `{cell}` in\n{table}");
    }
    assert!(!table.contains("FAILED"), "{table}");
    let mut client = Client::connect(process.address);
    let prefix = format!("curl http://{}", process.address);
    let (mut predicted, mut described) = (0, 0);
    // The table is above the empty line.
    for line in printed.iter().skip_while(|line| !line.is_empty()).skip(1) {
        let rest = line.strip_prefix(&prefix).unwrap_or_else(|| panic!("{line} does not begin with {prefix}"));
        if let Some((path, body)) = rest.split_once(" -d ") {
            let body = body.strip_prefix('\'').and_then(|body| body.strip_suffix('\'')).unwrap();
            let reply = client.post(path, body);
            assert_eq!(reply.status, 200, "{line}: {}", reply.text());
            predicted += 1;
        } else {
            // What the protocol cannot carry is still described, and the line says why there is no more.
            let (path, why) = rest.split_once("  # ").unwrap_or_else(|| panic!("{line}"));
            let reply = client.get(path);
            assert_eq!(reply.status, 200, "{line}: {}", reply.text());
            assert!(reply.text().contains("signature_def"), "{line}: {}", reply.text());
            assert!(why.contains("FP16") || why.contains("UINT16"), "{line}");
            described += 1;
        }
    }
    assert!(predicted >= 15 && described >= 1, "{table}");
}

#[test]
fn a_server_on_every_address_is_shown_as_localhost() {
    let repository = Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1);
    let words = ["serve", "--log-format", "json", "--listen", "0.0.0.0:0", "--admin", "off"];
    let process = Process::start(millrace().args(words).arg(repository.path()));
    let printed = process.printed_until(|line| line.starts_with("curl "));
    let expected = format!("curl http://localhost:{}/v1/models/half_plus_two:predict ", process.address.port());
    assert!(printed.last().is_some_and(|line| line.starts_with(&expected)), "{printed:?}");
}

#[test]
fn a_start_logs_one_line_per_version_that_serves() {
    let process = Process::start(&mut serve_fixtures());
    process.logged("ready");
    let events = process.log_so_far();
    let available: Vec<_> = events.iter().filter(|event| event["message"] == "the version is available").collect();
    // Besides: that it listens and that it is ready.
    assert_eq!(available.len(), events.len() - 2, "{events:?}");
    for event in &available {
        assert_eq!(event["level"], "INFO");
        let trees = event["model"] == "fraud" && event["version"] == 2;
        assert_eq!(event["backend"], if trees { "trees" } else { "tract" }, "{event}");
        assert!(event["model"].is_string() && event["version"].is_u64() && event["load_time"].is_string(), "{event}");
    }
    let mut names: Vec<_> = available.iter().map(|event| (&event["model"], &event["version"])).collect();
    names.dedup();
    assert!(names.len() == available.len() && names.len() >= 20, "{names:?}");
    let mut admin = Client::connect(process.admin.unwrap());
    assert_eq!(admin.post("/admin/models/fraud/unload", "").status, 200);
    assert_eq!(process.logged("the version is unloaded")["model"], "fraud");
}

#[test]
fn row_82_what_cannot_start_says_why_at_once() {
    let repository = Repository::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let path = repository.path().to_str().unwrap().to_owned();
    for (words, code, expected) in [
        (vec!["serve", &path, "--listen", &taken, "--admin", "off"], 1, taken.as_str()),
        (vec!["serve", &path, "--listen", "127.0.0.1:0", "--admin", &taken], 1, taken.as_str()),
        (vec!["serve", &path, "--lisen", "x"], 2, "--listen"),
        (vec!["serve", &path, "--drain-delay", "soon"], 2, "soon"),
        (vec!["serve", "/nowhere/at/all"], 2, "/nowhere/at/all"),
        (vec!["serve", "--config", "/nowhere.toml"], 2, "/nowhere.toml"),
        (vec!["check", "/nowhere/at/all"], 2, "/nowhere/at/all"),
        (vec!["inspect", "/nowhere/at/all"], 2, "/nowhere/at/all"),
    ] {
        let mut quickest = PATIENCE;
        // The promise is one second, which another test may take from one run, but not from three.
        for _ in 0..3 {
            let begin = now();
            let output = output(millrace().args(&words));
            quickest = quickest.min(begin.elapsed());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
            assert!(said.contains(expected), "{words:?}: {said}");
        }
        assert!(quickest < Duration::from_secs(1), "{words:?}: {quickest:?}");
    }
}

#[test]
fn serve_without_a_repository_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let output = output(millrace().arg("serve").current_dir(&folder));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("./models") && said.contains("millrace serve PATH"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

#[test]
fn tf_servings_variables_and_files_choose_the_models() {
    let models = fixture("models").canonicalize().unwrap();
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("models.config");
    let base = models.join("half_plus_two");
    let text = "model_version_policy { specific { versions: 1 } } version_labels { key: 'old' value: 1 }";
    let text = format!("model_config_list {{ config {{ name: 'half' base_path: '{}' {text} }} }}", base.display());
    fs::write(&list, text).unwrap();
    let batching = folder.path().join("batching.json");
    let json = r#"{"max_batch_size":2,"batch_timeout_micros":5000,"max_enqueued_batches":100,"num_batch_threads":8}"#;
    fs::write(&batching, json).unwrap();
    let common = ["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "off"];

    let process = Process::start(
        millrace().args(common).arg("--model_config_file").arg(&list).arg("--batching_parameters_file").arg(&batching),
    );
    process.logged("ready");
    let mut client = Client::connect(process.address);
    client.post("/v1/models/half/labels/old:predict", r#"{"instances": [2.0]}"#).gives(&prediction(3.0));
    client
        .post("/v1/models/half:predict", r#"{"instances": [1.0, 2.0, 3.0]}"#)
        .refuses(400, "maximum input batch size 2");

    let process = Process::start(millrace().args(common).env("MODEL_NAME", "fraud").env("MODEL_BASE_PATH", &models));
    process.logged("ready");
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/v1/models/fraud").status, 200);
    assert_eq!(client.get("/v1/models/iris").status, 404);
}

#[test]
fn check_passes_good_models_and_fails_bad_ones() {
    let good = output(millrace().arg("check").arg(fixture("models")));
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert_eq!(good.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&good.stderr));
    assert!(said.contains("fraud") && said.contains("AVAILABLE"), "{said}");
    let bad = output(millrace().arg("check").arg(fixture("bad-models")));
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    for name in ["truncated", "unknown_op", "external_outside", "cyclic"] {
        assert!(said.contains(&format!("problem: {name} version 1: ")), "{said}");
    }
    assert!(said.contains("Frobnicate"), "{said}");
    for line in said.lines() {
        // One line each, said once, with what to do; what is only ignored is a warning.
        let is_complete = line.starts_with("problem: ") && line.contains(" → ");
        assert!(is_complete || line.starts_with("warning: ") && line.contains("ignored: "), "{line}");
        assert_eq!(said.matches(line).count(), 1, "{line}");
    }
    let table = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(table.contains("FAILED") && !table.contains("Frobnicate"), "{table}");
}

#[test]
fn check_knows_a_folder_that_is_one_too_deep_and_an_empty_one() {
    let empty = TempDir::new().unwrap();
    for (path, hint) in
        [(fixture("models/fraud"), "the folder above it"), (empty.path().to_owned(), "NAME/1/model.onnx")]
    {
        let output = output(millrace().arg("check").arg(path));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let problems: Vec<_> = said.lines().filter(|line| line.starts_with("problem: ")).collect();
        assert!(problems.len() == 1 && problems[0].contains(hint), "{said}");
    }
}

#[test]
fn inspect_shows_a_model_by_folder_version_file_and_name() {
    for (path, operator) in
        [("models/fraud", "TreeEnsembleClassifier"), ("models/fraud/1", "Gemm"), ("models/fraud/1/model.onnx", "Gemm")]
    {
        let output = output(millrace().arg("inspect").arg(fixture(path)));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
        for word in ["transaction FP32[N,10]", "probability FP32[N,1]", operator, "nodes", "weights"] {
            assert!(said.contains(word), "no `{word}` in\n{said}");
        }
    }
    let named = output(millrace().args(["inspect", "fraud", "--sample"]).current_dir(fixture("")));
    let body = String::from_utf8_lossy(&named.stdout).into_owned();
    assert!(body.starts_with("{\"instances\": [[1.0"), "{body}");
}

#[test]
fn predict_answers_without_a_server() {
    let mut child = millrace()
        .arg("predict")
        .arg(fixture("models/half_plus_two/1"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(br#"{"instances": [1.0, 2.0, 5.0]}"#).unwrap();
    let answer = child.wait_with_output().unwrap();
    assert_eq!(answer.status.code(), Some(0));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer, json!({"predictions": [2.5, 3.0, 4.5]}));

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("request.json");
    fs::write(&file, r#"{"instances": [[1.0]]}"#).unwrap();
    let wrong = output(millrace().arg("predict").arg(fixture("models/fraud/1/model.onnx")).arg("--input").arg(&file));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("transaction"), "{wrong:?}");
}

#[test]
fn help_and_version_teach_and_exit_0() {
    for words in [vec!["--help"], vec!["serve", "--help"], vec!["--version"]] {
        let output = output(millrace().args(&words));
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("millrace"), "{said}");
        assert!(words == ["--version"] || said.contains("Examples:"), "{said}");
    }
}

#[test]
fn row_74_sigterm_drains_and_exits_0() {
    let mut process = Process::start(&mut serve_fixtures());
    process.logged("ready");
    let mut client = Client::connect(process.address);
    let body = r#"{"instances": [1.0]}"#;
    assert_eq!(client.post("/v1/models/half_plus_two:predict", body).status, 200);
    process.signal(Signal::TERM);
    assert!(client.rest_until_close().is_empty());
    assert_eq!(process.exit_code(), Some(0));
    assert!(process.rest_of_output().len() > 20);
}

#[test]
fn row_75_a_second_sigterm_ends_it_at_once() {
    let mut process = Process::start(serve_fixtures().args(["--drain-delay", "1h"]));
    process.logged("ready");
    // A body that never comes: a request that is in flight for as long as it likes.
    let mut client = Client::connect(process.address);
    client.send("POST /v1/models/fraud:predict HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n{");
    Client::connect(process.address).get("/v2/health/ready");
    process.signal(Signal::TERM);
    process.logged("not ready any more");
    let begin = now();
    loop {
        // Signals that follow the first within a moment count as the same order.
        process.signal(Signal::INT);
        let Ok(mut probe) = Client::try_connect(process.address) else { break };
        probe.send_anyway(Client::request("GET", "/v2/health/live", "", b""));
        if !probe.try_reply().is_ok_and(|reply| reply.is_some()) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    client.reply().refuses(503, "shutting down");
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn row_76_sigpipe_and_sighup_do_not_end_it() {
    let folder = Repository::new();
    let target = folder.path().join("late/1");
    let mut command = millrace();
    command.args(["serve", "--no-watch", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "off"]);
    let mut process = Process::start(command.arg(folder.path()));
    process.logged("ready");
    process.signal(Signal::PIPE);
    fs::create_dir_all(&target).unwrap();
    fs::copy(fixture("models/half_plus_two/1/model.onnx"), target.join("model.onnx")).unwrap();
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/v1/models/late").status, 404);
    let begin = now();
    while client.post("/v1/models/late:predict", r#"{"instances": [1.0]}"#).status != 200 {
        process.signal(Signal::HUP);
        assert!(begin.elapsed() < PATIENCE);
    }
    process.signal(Signal::INT);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn row_73_running_out_of_file_descriptors_is_survived_without_spinning() {
    let mut command = std::process::Command::new("sh");
    // The limit holds for the server alone.
    command.args(["-c", "ulimit -n 48; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_millrace")]).env_clear();
    command.args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "off", "--no-watch"]);
    let mut process = Process::start(command.arg(fixture("models")));
    process.logged("ready");
    let many: Vec<Client> = (0..100).map(|_| Client::connect(process.address)).collect();
    process.logged("cannot accept connections");
    // Once fds are free, the same loop accepts again.
    drop(many);
    let body = r#"{"instances": [1.0]}"#;
    assert_eq!(Client::connect(process.address).post("/v1/models/half_plus_two:predict", body).status, 200);
    let page = Client::connect(process.address).get("/metrics").text();
    let errors =
        page.lines().find_map(|line| line.strip_prefix("millrace_server_accept_errors_total{listener=\"data\"} "));
    let errors: f64 = errors.expect("it counts them").parse().unwrap();
    assert!((1.0..200.0).contains(&errors), "{errors} failures are a busy loop");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}
