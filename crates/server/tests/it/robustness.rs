//! Hostile requests by the Open Inference Protocol, over REST and gRPC, at the doors of the binary.
//!
//! A test is named after the rows it covers of the list of bad inputs. After each, the server is live and ready, answers
//! what it answered before, and the very connections that carried the bad requests carry good ones.

mod binary;
mod messages;
mod orders;
mod tensors;

use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{ModelInferRequest, ModelInferResponse};
use serde_json::json;

use crate::support::grpc::code;
use crate::support::{Client, Grpc, Process, Repository, serve};

const MIB: u64 = 1 << 20;
const INFER: &str = "/v2/models/half_plus_two/infer";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A server and a connection of each kind to it.
struct Doors {
    process: Process,
    http: Client,
    grpc: Grpc,
    repository: Repository,
}

impl Doors {
    fn open() -> Self {
        Self::with(&[], &[])
    }

    /// With settings from the environment, and arguments.
    fn with(settings: &[(&str, &str)], arguments: &[&str]) -> Self {
        let repository = ["half_plus_two", "identity_string", "identity_bool", "identity_fp32"]
            .into_iter()
            .fold(Repository::new(), |repository, model| repository.copy(&format!("models/{model}/1"), model, 1));
        let mut command = serve(repository.path());
        command.args(arguments).envs(settings.iter().copied());
        let process = Process::start(&mut command);
        process.logged("ready");
        let (http, grpc) = (Client::connect(process.address), Grpc::connect(process.address));
        let mut doors = Self { process, http, grpc, repository };
        doors.is_well();
        doors
    }

    /// Both connections still carry good requests, and the server is well.
    #[track_caller]
    fn is_well(&mut self) {
        let input = json!({"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 5.0]});
        let reply = self.http.post(INFER, json!({"inputs": [input]}).to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["outputs"][0]["data"], json!([2.5, 4.5]));
        let answer: ModelInferResponse = self.grpc.ask(MODEL_INFER, &request(good())).ok();
        assert_eq!(answer.raw_output_contents[0][..], 2.5_f32.to_le_bytes());
        self.process.is_well();
    }

    /// The REST request is 400 with a short JSON error that has `text` in it.
    #[track_caller]
    fn rest_refuses(&mut self, body: impl AsRef<[u8]>, text: &str) {
        self.rest_refuses_with(INFER, "", body, &[400], text);
    }

    /// As [`rest_refuses`](Self::rest_refuses), anywhere and with any of `statuses`.
    #[track_caller]
    fn rest_refuses_with(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>, statuses: &[u16], text: &str) {
        let shown = String::from_utf8_lossy(&body.as_ref()[..body.as_ref().len().min(200)]).into_owned();
        self.http.send(Client::request("POST", path, headers, body.as_ref()));
        let reply = self.http.reply();
        assert!(statuses.contains(&reply.status), "{shown}: {} {}", reply.status, reply.text());
        assert!(reply.body.len() < 8 << 10, "{shown}: {} bytes of error", reply.body.len());
        let json = reply.json();
        let error = json["error"].as_str().unwrap_or_else(|| panic!("{shown}: no error in {json}"));
        assert!(error.contains(text), "{shown}: `{error}` lacks `{text}`");
        if reply.closes() {
            self.http.rest_until_close();
            self.http = Client::connect(self.process.address);
        }
    }

    /// The gRPC request is `INVALID_ARGUMENT` with `text` in its short message.
    #[track_caller]
    fn grpc_refuses(&self, request: &ModelInferRequest, text: &str) {
        let ended = self.grpc.ask(MODEL_INFER, request);
        assert!(ended.messages.is_empty() && ended.message.len() < 8 << 10);
        ended.refuses(code::INVALID_ARGUMENT, text);
    }

    /// The input with this shape, as JSON writes it and as numbers, is refused by either door.
    #[track_caller]
    fn both_refuse_shape(&mut self, shape: &str, sizes: &[i64], text: &str) {
        self.rest_refuses(input(shape, "[1, 2, 3, 4]"), text);
        let bad = request((InferInputTensor { shape: sizes.to_vec(), ..good().0 }, vec![0; 16]));
        self.grpc_refuses(&bad, text);
    }
}

/// A REST request with the input `x`.
fn input(shape: &str, data: &str) -> String {
    format!(r#"{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {data}}}]}}"#)
}

/// An input and its raw contents: one number, 1.
fn good() -> (InferInputTensor, Vec<u8>) {
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![1], ..Default::default() };
    (input, 1.0_f32.to_le_bytes().to_vec())
}

/// A gRPC request to `half_plus_two` with one input and its raw contents.
fn request((input, raw): (InferInputTensor, Vec<u8>)) -> ModelInferRequest {
    ModelInferRequest { raw_input_contents: vec![raw.into()], ..request_without_raw(input) }
}

/// The same without raw contents.
fn request_without_raw(input: InferInputTensor) -> ModelInferRequest {
    ModelInferRequest { model_name: "half_plus_two".into(), inputs: vec![input], ..Default::default() }
}
