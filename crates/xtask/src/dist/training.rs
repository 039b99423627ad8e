//! The traffic that the counting program serves: every protocol, alone and in crowds, also in a hurry.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{output, say};

/// How many ask at once, one number after the other.
const CALLERS: [usize; 3] = [1, 8, 64];
/// For how long they do.
const SECONDS: f64 = 2.0;
/// A transaction, as the model `fraud` knows it.
const TRANSACTION: [f32; 10] = [52.3, 0.25, 14.0, 3.2, 1.0, 0.0, 2.0, 0.4, 730.0, 0.0];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

/// A request that is asked over and over.
struct Request {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    is_grpc: bool,
    /// Whether it allows a millisecond only, so that some are refused.
    is_in_a_hurry: bool,
}

/// Starts `program` on `models` and has `traffic` ask it everything. What was counted lies in `folder` afterwards.
pub(super) fn serve(program: &Path, traffic: &Path, models: &Path, folder: &Path) -> Result<(), String> {
    let child = Command::new(program)
        .args(["serve", "--no-watch", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg(models)
        .env("LLVM_PROFILE_FILE", folder.join("%p.profraw"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut server = Server(child.map_err(|error| format!("cannot run {}: {error}", program.display()))?);
    let address = server.address()?;
    for request in requests() {
        ask(&request, &address, traffic, folder)?;
    }
    server.end()
}

/// The server, ended with this value.
struct Server(Child);

impl Server {
    /// Where it listens, which its log says first, once every model is there.
    fn address(&mut self) -> Result<String, String> {
        let log = BufReader::new(self.0.stderr.take().ok_or("the server has no log")?);
        let mut events = log.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let mut address = None;
        let is = |event: &Value, message| event.get("message").and_then(Value::as_str) == Some(message);
        for event in events.by_ref() {
            if is(&event, "listening") {
                address = event.get("address").and_then(Value::as_str).map(str::to_owned);
            }
            if is(&event, "ready") {
                break;
            }
        }
        // Read on, so that it never waits for its log to be read.
        std::thread::spawn(move || events.for_each(drop));
        address.ok_or_else(|| "the server ended before it was ready".to_owned())
    }

    /// Asks it to end, which is when it writes down what it counted.
    fn end(mut self) -> Result<(), String> {
        output(Command::new("kill").arg(self.0.id().to_string()))?;
        let status = self.0.wait().map_err(|error| format!("the server's end: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In vain when it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks `request` in every number at once, and makes sure that it was answered.
fn ask(request: &Request, address: &str, traffic: &Path, folder: &Path) -> Result<(), String> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display())).map(|()| path)
    };
    let body = write("body", &request.body)?;
    let pieces: Vec<Value> =
        CALLERS.iter().map(|callers| json!({ "name": callers.to_string(), "seconds": SECONDS })).collect();
    let stream = json!({
        "name": request.name,
        "path": request.path,
        "body": body,
        "headers": request.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
        "load": { "callers": CALLERS },
        "in_flight": CALLERS.iter().max(),
        "http2": request.is_grpc.then_some(4),
    });
    let plan = json!({ "address": address, "pieces": pieces, "streams": [stream] });
    let plan = write("plan.json", plan.to_string().as_bytes())?;
    let report = output(Command::new(traffic).arg(plan))?;
    let report: Value = serde_json::from_slice(&report.stdout).map_err(|error| format!("the traffic: {error}"))?;
    let parts = report.pointer(&format!("/streams/{}", request.name)).and_then(Value::as_array);
    let sum = |key: &str| {
        let counts = parts.into_iter().flatten().filter_map(|part| part.get(key)?.as_u64());
        counts.sum::<u64>()
    };
    let refused = parts.into_iter().flatten().filter_map(|part| part.get("refused")?.as_object());
    let refused: u64 = refused.flat_map(|counts| counts.values().filter_map(Value::as_u64)).sum();
    let (good, broken) = (sum("good"), sum("broken") + sum("unanswered"));
    say(&format!("{}: {good} answered, {refused} refused", request.name));
    if good == 0 || broken > 0 || (refused > 0 && !request.is_in_a_hurry) {
        let refusals: Vec<_> = parts.into_iter().flatten().filter_map(|part| part.get("refused")).collect();
        return Err(format!(
            "the training's `{}` at {} was to be answered every time: {good} were, {broken} got no answer, refused by status {}",
            request.name,
            request.path,
            json!(refusals)
        ));
    }
    Ok(())
}

/// Everything that is asked.
fn requests() -> Vec<Request> {
    let document = |name, path, body: Value| Request::new(name, path, JSON, body.to_string().into_bytes());
    let rows = vec![TRANSACTION; 32];
    let transaction = |rows: &[[f32; 10]]| json!({ "inputs": [input(rows.len(), &rows.concat())] });
    let numbers: Vec<f32> = (0_u8..64).map(|pixel| f32::from(pixel % 17) / 16.0).collect();
    let digit: Vec<&[f32]> = numbers.chunks(8).collect();
    let one = [TRANSACTION];
    let mut requests = vec![
        document("rows", "/v1/models/fraud:predict", json!({ "instances": one })),
        document("many rows", "/v1/models/fraud:predict", json!({ "instances": rows })),
        document("a named input", "/v1/models/fraud:predict", json!({ "inputs": { "transaction": one } })),
        document("a picture", "/v1/models/digits:predict", json!({ "instances": [[digit]] })),
        document("open inference", "/v2/models/fraud/infer", transaction(&one)),
        document("open inference of many rows", "/v2/models/fraud/infer", transaction(&rows)),
        document(
            "text",
            "/v2/models/identity_string/infer",
            json!({ "inputs": [{ "name": "x", "datatype": "BYTES", "shape": [1, 4], "data": ["mill", "a \"race\"\n", "", "é"] }] }),
        ),
        document(
            "whole numbers",
            "/v2/models/identity_int64/infer",
            json!({ "inputs": [{ "name": "x", "datatype": "INT64", "shape": [1, 4], "data": [1, -20, 3_000_000, 0] }] }),
        ),
        binary("binary", &one),
        binary("binary of many rows", &rows),
        grpc("grpc raw", "/inference.GRPCInferenceService/ModelInfer", &[infer(), field(7, &bytes(&one))]),
        grpc("grpc numbers", "/inference.GRPCInferenceService/ModelInfer", &[infer_numbers()]),
        grpc("grpc predict", "/tensorflow.serving.PredictionService/Predict", &[predict(&one)]),
        grpc("grpc of many rows", "/tensorflow.serving.PredictionService/Predict", &[predict(&rows)]),
    ];
    let mut hurried = document("rows in a hurry", "/v1/models/fraud:predict", json!({ "instances": one }));
    hurried.headers.push(("x-request-timeout-ms", "1".to_owned()));
    let mut hurried_call = grpc("grpc in a hurry", "/tensorflow.serving.PredictionService/Predict", &[predict(&one)]);
    hurried_call.headers.push(("grpc-timeout", "1m".to_owned()));
    for mut request in [hurried, hurried_call] {
        request.is_in_a_hurry = true;
        requests.push(request);
    }
    requests
}

impl Request {
    fn new(name: &'static str, path: &'static str, headers: &[(&'static str, &str)], body: Vec<u8>) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { name, path, headers, body, is_grpc: false, is_in_a_hurry: false }
    }
}

/// An input of the Open Inference Protocol.
fn input(rows: usize, numbers: &[f32]) -> Value {
    json!({ "name": "transaction", "datatype": "FP32", "shape": [rows, 10], "data": numbers })
}

fn bytes(rows: &[[f32; 10]]) -> Vec<u8> {
    rows.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
}

/// With the binary tensor extension of the Open Inference Protocol.
fn binary(name: &'static str, rows: &[[f32; 10]]) -> Request {
    let numbers = bytes(rows);
    let head = json!({
        "inputs": [{
            "name": "transaction",
            "datatype": "FP32",
            "shape": [rows.len(), 10],
            "parameters": { "binary_data_size": numbers.len() },
        }],
        "parameters": { "binary_data_output": true },
    });
    let head = head.to_string().into_bytes();
    let length = head.len().to_string();
    let octets = [("content-type", "application/octet-stream"), ("inference-header-content-length", length.as_str())];
    Request::new(name, "/v2/models/fraud/infer", &octets, [head, numbers].concat())
}

/// A call whose message has these fields. A frame is a byte that says "not compressed", the length, the message.
fn grpc(name: &'static str, path: &'static str, fields: &[Vec<u8>]) -> Request {
    let message = fields.concat();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Request { is_grpc: true, ..Request::new(name, path, GRPC, [&[0][..], &length, &message].concat()) }
}

/// A field that holds bytes, as protobuf writes it.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(content.len(), &mut field);
    field.extend_from_slice(content);
    field
}

/// A field that holds a whole number.
fn number(number: u8, value: usize) -> Vec<u8> {
    let mut field = vec![number << 3];
    varint(value, &mut field);
    field
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// `ModelInferRequest` of one transaction (proto/grpc_service.proto) without its numbers, which follow as raw contents.
fn infer() -> Vec<u8> {
    [field(1, b"fraud"), field(5, &infer_input())].concat()
}

/// The same with its numbers as `contents`.
fn infer_numbers() -> Vec<u8> {
    let contents = field(6, &bytes(&[TRANSACTION]));
    [field(1, b"fraud"), field(5, &[infer_input(), field(5, &contents)].concat())].concat()
}

fn infer_input() -> Vec<u8> {
    [field(1, b"transaction"), field(2, b"FP32"), field(3, &[1, 10])].concat()
}

/// `PredictRequest` (proto/tensorflow_serving).
fn predict(rows: &[[f32; 10]]) -> Vec<u8> {
    let size = |size| field(2, &number(1, size));
    let shape = [size(rows.len()), size(10)].concat();
    let tensor = [number(1, 1), field(2, &shape), field(4, &bytes(rows))].concat();
    let entry = [field(1, b"transaction"), field(2, &tensor)].concat();
    [field(1, &field(1, b"fraud")), field(2, &entry)].concat()
}
