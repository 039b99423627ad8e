//! What the binary tells a request about itself, over its real sockets, queues and engines.

use std::process::Command;

use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use prost::Message as _;
use serde_json::Value;

use crate::support::grpc::{code, framed};
use crate::support::{Client, Grpc, HALF_PLUS_TWO, Process, Reply, Repository, serve};

const MANUAL: &str = include_str!("../../../../docs/protocols.md");
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const INSTANCES: &[u8] = br#"{"instances": [1.0, 2.0, 5.0]}"#;
const ASK: &str = "x-millrace-timing: 1\r\n";

fn repository() -> Repository {
    Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1)
}

/// Starts `command`, and waits until its models can be asked.
fn started(command: &mut Command) -> Process {
    let process = Process::start(command);
    process.logged("ready");
    process
}

fn post(client: &mut Client, path: &str, headers: &str, body: &[u8]) -> Reply {
    client.send(Client::request("POST", path, headers, body));
    client.reply()
}

/// The metrics of `Server-Timing` with their milliseconds, and the words about the batch.
#[track_caller]
fn told(text: &str) -> (Vec<(&str, f64)>, &str) {
    let (times, batch) = text.split_once(", batch;desc=").unwrap_or_else(|| panic!("{text}"));
    let times = times.split(", ").map(|metric| {
        let (name, time) = metric.split_once(";dur=").unwrap_or_else(|| panic!("{text}"));
        (name, time.parse().unwrap())
    });
    (times.collect(), batch.trim_matches('"'))
}

/// The stages add up to the total, all are in the manual, and so is why the batch closed.
#[track_caller]
fn adds_up(text: &str, rows: usize) {
    let (mut times, batch) = told(text);
    assert_eq!(times.len(), 9, "{text}");
    let (last, total) = times.pop().unwrap();
    let parts: f64 = times.iter().map(|(_, time)| time).sum();
    assert!(last == "total" && total > 0.0 && (parts - total).abs() < 1e-6, "{text}");
    let is_documented = |word: &str| MANUAL.contains(&format!("\n| `{word}` |"));
    assert!(times.iter().all(|(name, time)| is_documented(name) && *time >= 0.0), "{text}");
    assert!(times.iter().any(|(name, time)| *name == "compute" && *time > 0.0), "{text}");
    let (in_batch, closed_by) = batch.split_once(' ').unwrap();
    assert!(in_batch.strip_prefix("rows=").unwrap().parse::<usize>().unwrap() >= rows, "{text}");
    assert!(is_documented(closed_by.strip_prefix("closed_by=").unwrap()), "{text}");
}

#[track_caller]
fn account(text: Option<&str>) -> Value {
    serde_json::from_str(text.expect("an account")).unwrap()
}

#[test]
fn stages_add_up_and_the_batch_closed_for_a_documented_reason() {
    let repository = repository();
    let process = started(&mut serve(repository.path()));
    let mut client = Client::connect(process.address);
    let silent = post(&mut client, HALF_PLUS_TWO, "", INSTANCES);
    assert_eq!((silent.header("server-timing"), silent.header("x-millrace-explain")), (None, None));
    let told = post(&mut client, HALF_PLUS_TWO, ASK, INSTANCES);
    assert_eq!((told.status, &told.body), (200, &silent.body));
    adds_up(told.header("server-timing").unwrap(), 3);
    // Under load from many connections, where requests share batches.
    let mut clients: Vec<_> = (0..16).map(|_| Client::connect(process.address)).collect();
    for _ in 0..8 {
        clients.iter_mut().for_each(|client| client.send(Client::request("POST", HALF_PLUS_TWO, ASK, INSTANCES)));
        for client in &mut clients {
            adds_up(client.reply().header("server-timing").unwrap(), 3);
        }
    }
    // The same words as in the metrics, which count batches and not requests.
    let page = client.get("/metrics").text();
    let is_of = |line: &&str| line.starts_with("millrace_batching_batches_total{model=\"half_plus_two\"");
    let batches: u64 =
        page.lines().filter(is_of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!((2..=130).contains(&batches), "{page}");
    for word in page.lines().filter(is_of).filter_map(|line| line.split("closed_by=\"").nth(1)?.split('"').next()) {
        assert!(MANUAL.contains(&format!("\n| `{word}` |")), "{word}");
    }
}

#[test]
fn every_protocol_explains() {
    let repository = repository();
    let process = started(&mut serve(repository.path()));
    let mut client = Client::connect(process.address);
    let infer = br#"{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 5]}]}"#;
    for (path, body, protocol) in [
        (HALF_PLUS_TWO, INSTANCES, "tfs_rest"),
        ("/v2/models/half_plus_two/infer", &infer[..], "oip_rest"),
        ("/predictions/half_plus_two", br#"{"x": [1, 2, 5]}"#, "torchserve_rest"),
        ("/predict/half_plus_two", br#"{"input_data": [[1], [2], [5]]}"#, "general"),
    ] {
        let headers = "content-type: application/json\r\nx-request-id: mine\r\nx-request-timeout-ms: 9000\r\n";
        let told = post(&mut client, &format!("{path}?explain=1"), headers, body);
        assert_eq!(told.status, 200, "{path}: {}", told.text());
        let account = account(told.header("x-millrace-explain"));
        assert_eq!(account["protocol"], protocol, "{account}");
        assert_eq!((&account["request_id"], &account["deadline_ms"]), (&"mine".into(), &8975.into()), "{account}");
        assert_eq!(
            (&account["model"], &account["version"], &account["rows"]),
            (&"half_plus_two".into(), &1.into(), &3.into())
        );
        assert_eq!(account["engine"], "tract", "{account}");
        assert_eq!((&account["batch"]["requests"], &account["rows_ahead"]), (&1.into(), &0.into()), "{account}");
        let parts: f64 = account["stages_us"].as_object().unwrap().values().map(|time| time.as_f64().unwrap()).sum();
        assert!((parts - account["total_us"].as_f64().unwrap()).abs() < 1e-3, "{account}");
        let refused = post(&mut Client::connect(process.address), &format!("{path}?explain=maybe"), headers, body);
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        assert!(refused.text().contains("explain: expected 1 or 0"), "{path}: {}", refused.text());
    }
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![1], ..Default::default() };
    let question = ModelInferRequest {
        model_name: "half_plus_two".into(),
        inputs: vec![input],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..Default::default()
    };
    let grpc = Grpc::connect(process.address);
    let asked = [("x-millrace-timing", "1"), ("x-millrace-explain", "1")];
    let ended = grpc.send(MODEL_INFER, &asked, framed(&question.encode_to_vec())).wait();
    assert_eq!(ended.code, Some(code::OK), "{}", ended.message);
    let header = |name: &str| ended.head.get(name).map(|value| value.to_str().unwrap());
    adds_up(header("server-timing").unwrap(), 1);
    assert_eq!(account(header("x-millrace-explain"))["protocol"], "oip_grpc");
    let ended = grpc.send(MODEL_INFER, &[], framed(&question.encode_to_vec())).wait();
    assert_eq!((ended.code, ended.head.get("server-timing")), (Some(code::OK), None));
}

#[test]
fn an_operator_may_have_every_request_told() {
    let repository = repository();
    let mut command = serve(repository.path());
    let process = started(command.env("MILLRACE_SERVER__SERVER_TIMING", "true"));
    let mut client = Client::connect(process.address);
    adds_up(post(&mut client, HALF_PLUS_TWO, "", INSTANCES).header("server-timing").unwrap(), 3);
    assert_eq!(post(&mut client, HALF_PLUS_TWO, "x-millrace-timing: 0\r\n", INSTANCES).header("server-timing"), None);
    assert_eq!(client.get("/health").header("server-timing"), None);
}

/// The stage that refused a request and why: documented, the last one, and the stages add up.
#[track_caller]
fn refused_in(text: &str) -> String {
    let (times, words) = text.split_once(", refused;desc=").unwrap_or_else(|| panic!("{text}"));
    let times: Vec<_> = times.split(", ").map(|metric| metric.split_once(";dur=").unwrap()).collect();
    let [stages @ .., ("total", total)] = &times[..] else { panic!("{text}") };
    let parts: f64 = stages.iter().map(|(_, time)| time.parse::<f64>().unwrap()).sum();
    assert!((parts - total.parse::<f64>().unwrap()).abs() < 1e-6, "{text}");
    assert!(stages.iter().all(|(name, _)| MANUAL.contains(&format!("\n| `{name}` |"))), "{text}");
    let words = words.trim_matches('"').replace("stage=", "").replace("reason=", "");
    assert_eq!(words.split(' ').next(), stages.last().map(|(name, _)| *name), "{text}");
    words
}

#[test]
fn a_refused_request_is_told_which_stage_refused_it() {
    let repository = repository();
    let process = started(&mut serve(repository.path()));
    for (path, body, status, words) in [
        (HALF_PLUS_TWO, &b"{"[..], 400, "decode invalid_input"),
        ("/v1/models/none:predict", INSTANCES, 404, "decode model_unknown"),
        (HALF_PLUS_TWO, br#"{"instances": [[1.0], [2.0]]}"#, 400, "admit invalid_input"),
    ] {
        let refused = post(&mut Client::connect(process.address), path, ASK, body);
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert_eq!(refused_in(refused.header("server-timing").unwrap()), words, "{path}");
    }
    // A deadline that is over before the queue sees it.
    let headers = format!("{ASK}x-request-timeout-ms: 0\r\n");
    let late = post(&mut Client::connect(process.address), HALF_PLUS_TWO, &headers, INSTANCES);
    assert!(refused_in(late.header("server-timing").unwrap()).ends_with(" late"), "{late:?}");

    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![1], ..Default::default() };
    let good = ModelInferRequest {
        model_name: "half_plus_two".into(),
        inputs: vec![input],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..Default::default()
    };
    let bad = ModelInferRequest { model_name: "none".into(), ..good.clone() };
    let grpc = Grpc::connect(process.address);
    let asked = [("x-millrace-timing", "1")];
    let ended = grpc.send(MODEL_INFER, &asked, framed(&bad.encode_to_vec())).wait();
    ended.refuses(code::NOT_FOUND, "none");
    assert_eq!(refused_in(ended.head["server-timing"].to_str().unwrap()), "decode model_unknown");

    let mut stream = grpc.open("/inference.GRPCInferenceService/ModelStreamInfer", &asked);
    for (question, is_refused) in [(&good, false), (&bad, true), (&good, false)] {
        stream.send(question);
        let answer = stream.next::<ModelStreamInferResponse>().unwrap().infer_response.unwrap();
        let Some(ParameterChoice::StringParam(text)) = &answer.parameters["millrace_timing"].parameter_choice else {
            panic!("{answer:?}")
        };
        if is_refused { assert_eq!(refused_in(text), "decode model_unknown") } else { adds_up(text, 1) }
    }
}

#[test]
fn a_body_of_many_requests_has_one_account() {
    let repository = repository();
    let process = started(&mut serve(repository.path()));
    let part = |rows: usize, model: &str| {
        let rows = vec!["[1]"; rows].join(",");
        format!("{{\"model_name\": \"{model}\", \"input_data\": [{rows}]}}")
    };
    let body = format!("[{}, {}, {}]", part(3, "half_plus_two"), part(4, "half_plus_two"), part(1, "none"));
    let headers = format!("{ASK}content-type: application/json\r\n");
    let told = post(&mut Client::connect(process.address), "/batch_predict?explain=1", &headers, body.as_bytes());
    assert_eq!(told.status, 200, "{}", told.text());
    adds_up(told.header("server-timing").unwrap(), 3);
    let account = account(told.header("x-millrace-explain"));
    assert_eq!((&account["model"], &account["rows"]), (&"half_plus_two".into(), &7.into()), "{account}");
    assert_eq!(account["parts"], serde_json::json!({"answered": 2, "refused": 1}), "{account}");
}
