//! Clients that leave and deadlines that pass while work waits: by every door, it is not done. Runs are counted.
//!
//! The only worker is busy with one request, held at a gate; what is asked meanwhile waits in the queue.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ServerLiveRequest, ServerLiveResponse,
};
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
use millrace_proto::tensorflow::serving::{ModelSpec, PredictRequest};
use millrace_proto::tensorflow::tensor_shape_proto::Dim;
use millrace_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use millrace_testkit::{FakeBackend, Gate};
use prost::Message as _;
use serde_json::json;

use crate::support::grpc::{code, framed};
use crate::support::{Client, Grpc, PATIENCE, Repository, TestServer, now, prediction};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const PREDICTIONS: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const ROW: &str = r#"{"instances": [1.0]}"#;

/// A server whose worker is busy.
struct Busy {
    /// A model of its own: metrics are shared by all servers of a process.
    model: String,
    server: TestServer,
    gate: Gate,
    before: usize,
    client: Client,
}

impl Busy {
    fn new() -> Self {
        static SERVERS: AtomicUsize = AtomicUsize::new(0);
        let model = format!("busy_{}", SERVERS.fetch_add(1, Ordering::Relaxed));
        let gate = Gate::opened();
        let backend = FakeBackend::default().run_gate(gate.clone());
        let repository = Repository::new().fake("double", 1, 2.0, 0.0).fake(&model, 1, 2.0, 0.0);
        let server = TestServer::fake(repository, backend, |config| {
            config.pool.threads = std::num::NonZeroUsize::MIN;
        });
        gate.close();
        let before = gate.arrived();
        let mut client = server.client();
        client.send(Client::request("POST", &tfs(&model), "", ROW.as_bytes()));
        gate.wait_for(before + 1);
        Self { model, server, gate, before, client }
    }

    /// Waits until so many rows wait behind the busy one.
    #[track_caller]
    fn until_queued(&self, rows: usize) {
        let begin = now();
        let waiting = || {
            let model = self.server.server.catalog().model(&self.model).expect("it is served");
            model.versions[0].queue.waiting
        };
        while waiting() < rows {
            assert!(begin.elapsed() < PATIENCE, "only {} of {rows} rows wait", waiting());
            std::thread::yield_now();
        }
    }

    /// Waits until the server has taken note that so many requests are gone.
    #[track_caller]
    fn until_gone(&self, count: usize) {
        let begin = now();
        let series = format!("millrace_requests_total{{model=\"{}\",", self.model);
        let gone = || -> f64 {
            let page = self.server.client().get("/metrics").text();
            let lines = page.lines().filter(|line| line.starts_with(&series));
            let lines = lines.filter(|line| line.contains("code=\"499\"") || line.contains("code=\"CANCELLED\""));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        while gone() < count as f64 {
            assert!(begin.elapsed() < PATIENCE, "only {} of {count} are gone", gone());
        }
    }

    /// Lets the worker go on: it answers the busy request, and then nothing of what was asked meanwhile.
    #[track_caller]
    fn finish_without_more(mut self) {
        self.gate.open();
        self.client.reply().gives(&prediction(2.0));
        self.server.is_well();
        assert_eq!(self.gate.arrived(), self.before + 2, "the busy one and that of `is_well`");
    }
}

fn oip() -> Vec<u8> {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}).to_string().into_bytes()
}

fn tfs(model: &str) -> String {
    format!("/v1/models/{model}:predict")
}

/// Every REST question, with its path.
fn rest_questions(model: &str) -> Vec<(String, Vec<u8>)> {
    vec![
        (tfs(model), ROW.into()),
        (format!("/v2/models/{model}/infer"), oip()),
        (format!("/predictions/{model}"), b"[1.0]".to_vec()),
    ]
}

fn model_infer(model: &str) -> ModelInferRequest {
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![1], ..Default::default() };
    let raw = vec![1.0_f32.to_le_bytes().to_vec().into()];
    ModelInferRequest { model_name: model.into(), inputs: vec![input], raw_input_contents: raw, ..Default::default() }
}

fn predict(model: &str) -> PredictRequest {
    let dim = vec![Dim { size: 1, ..Default::default() }];
    let tensor_shape = Some(TensorShapeProto { dim, ..Default::default() });
    let x = TensorProto { dtype: DataType::DtFloat.into(), tensor_shape, float_val: vec![1.0], ..Default::default() };
    let spec = ModelSpec { name: model.into(), ..Default::default() };
    PredictRequest { model_spec: Some(spec), inputs: [("x".to_owned(), x)].into(), ..Default::default() }
}

fn predictions(model: &str) -> PredictionsRequest {
    let input = [("data".to_owned(), Bytes::from_static(b"[1.0]"))].into();
    PredictionsRequest { model_name: model.into(), input, ..Default::default() }
}

/// Every gRPC question, with its path.
fn grpc_questions(model: &str) -> Vec<(String, Bytes)> {
    vec![
        (MODEL_INFER.into(), framed(&model_infer(model).encode_to_vec())),
        (PREDICT.into(), framed(&predict(model).encode_to_vec())),
        (PREDICTIONS.into(), framed(&predictions(model).encode_to_vec())),
    ]
}

/// Every question over HTTP/2, with its path and content type.
fn questions(model: &str) -> Vec<(String, &'static str, Bytes)> {
    let rest = rest_questions(model).into_iter().map(|(path, body)| (path, "application/json", body.into()));
    rest.chain(grpc_questions(model).into_iter().map(|(path, body)| (path, "application/grpc", body))).collect()
}

#[test]
fn an_http_1_client_that_closes_or_resets_cancels_what_waits() {
    for question in 0..rest_questions("").len() {
        for is_reset in [false, true] {
            let busy = Busy::new();
            let (path, body) = rest_questions(&busy.model).swap_remove(question);
            let mut gone = busy.server.client();
            gone.send(Client::request("POST", &path, "content-type: application/json\r\n", &body));
            busy.until_queued(1);
            if is_reset {
                gone.reset();
            } else {
                drop(gone);
            }
            busy.until_gone(1);
            busy.finish_without_more();
        }
    }
}

#[test]
fn a_stream_that_is_reset_cancels_what_waits_and_nothing_else() {
    for question in 0..questions("").len() {
        let busy = Busy::new();
        let connection = Grpc::connect(busy.server.address());
        let (path, content_type, body) = questions(&busy.model).swap_remove(question);
        let call = connection.send(&path, &[("content-type", content_type)], body);
        busy.until_queued(1);
        drop(call);
        busy.until_gone(1);
        let live = connection.ask("/inference.GRPCInferenceService/ServerLive", &ServerLiveRequest {});
        assert!(live.ok::<ServerLiveResponse>().live, "{path}: the connection lives on");
        busy.finish_without_more();
    }
}

#[test]
fn a_connection_that_ends_cancels_all_that_waits_on_it() {
    let busy = Busy::new();
    let connection = Grpc::connect(busy.server.address());
    let asked = questions(&busy.model);
    let count = asked.len();
    let calls: Vec<_> = asked
        .into_iter()
        .map(|(path, content_type, body)| connection.send(&path, &[("content-type", content_type)], body))
        .collect();
    busy.until_queued(count);
    drop(calls);
    drop(connection);
    busy.until_gone(count);
    busy.finish_without_more();
}

#[test]
fn a_bidirectional_stream_that_is_dropped_cancels_all_of_its_questions() {
    let busy = Busy::new();
    let connection = Grpc::connect(busy.server.address());
    let mut stream = connection.open(MODEL_STREAM_INFER, &[]);
    for _ in 0..3 {
        stream.send(&model_infer(&busy.model));
    }
    busy.until_queued(3);
    drop(stream);
    busy.until_gone(1);
    busy.finish_without_more();
}

#[test]
fn row_40_a_grpc_client_that_half_closes_gets_its_answer() {
    let mut busy = Busy::new();
    let connection = Grpc::connect(busy.server.address());
    // END_STREAM is on the request's last frame, as in every unary call, and long before the answer.
    let call = connection.send(MODEL_INFER, &[], framed(&model_infer(&busy.model).encode_to_vec()));
    busy.until_queued(1);
    busy.gate.open();
    busy.client.reply().gives(&prediction(2.0));
    let answer: ModelInferResponse = call.wait().ok();
    assert_eq!(answer.raw_output_contents[0][..], 2.0_f32.to_le_bytes());
}

#[test]
fn a_grpc_timeout_that_passes_in_the_queue_is_deadline_exceeded_and_the_work_is_not_done() {
    let busy = Busy::new();
    let connection = Grpc::connect(busy.server.address());
    for (path, body) in grpc_questions(&busy.model) {
        for timeout in ["1m", "1000u", "1000000n"] {
            let ended = connection.send(&path, &[("grpc-timeout", timeout)], body.clone()).wait();
            ended.refuses(code::DEADLINE_EXCEEDED, "");
        }
    }
    busy.finish_without_more();
}

#[test]
fn grpc_timeouts_that_are_none_are_refused_and_long_ones_kept() {
    let server = TestServer::double(|_| {});
    let connection = Grpc::connect(server.address());
    let body = framed(&model_infer("double").encode_to_vec());
    for timeout in ["", "1", "m", "1x", "-1S", "123456789S", "1.5S", "1 S"] {
        let ended = connection.send(MODEL_INFER, &[("grpc-timeout", timeout)], body.clone()).wait();
        assert!(ended.code.is_some_and(|code| code != code::DEADLINE_EXCEEDED), "{timeout}: {ended:?}");
    }
    for timeout in ["1H", "99999999H", "20S", "00020S"] {
        let ended = connection.send(MODEL_INFER, &[("grpc-timeout", timeout)], body.clone()).wait();
        assert_eq!(ended.code, Some(code::OK), "{timeout}: {}", ended.message);
    }
    server.is_well();
}

#[test]
fn the_protocols_own_timeout_is_unavailable_and_the_work_is_not_done() {
    let mut busy = Busy::new();
    let mut client = busy.server.client();
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]});
    let timed = json!({"parameters": {"timeout": 1000}, "inputs": [input]});
    client.post(&format!("/v2/models/{}/infer", busy.model), timed.to_string()).refuses(503, "");
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1000)) };
    let request =
        ModelInferRequest { parameters: [("timeout".to_owned(), parameter)].into(), ..model_infer(&busy.model) };
    Grpc::connect(busy.server.address()).ask(MODEL_INFER, &request).refuses(code::UNAVAILABLE, "");
    // 0 is no timeout at all.
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(0)) };
    let patient =
        ModelInferRequest { parameters: [("timeout".to_owned(), parameter)].into(), ..model_infer(&busy.model) };
    let connection = Grpc::connect(busy.server.address());
    let call = connection.send(MODEL_INFER, &[], framed(&patient.encode_to_vec()));
    busy.until_queued(1);
    busy.gate.open();
    busy.client.reply().gives(&prediction(2.0));
    assert_eq!(call.wait().code, Some(code::OK));
    assert_eq!(busy.gate.arrived(), busy.before + 2, "the busy one and the patient one");
}

#[test]
fn the_timeout_header_counts_for_every_rest_protocol() {
    let busy = Busy::new();
    for (path, body) in rest_questions(&busy.model) {
        let mut client = busy.server.client();
        let headers = "content-type: application/json\r\nx-request-timeout-ms: 1\r\n";
        client.send(Client::request("POST", &path, headers, &body));
        let reply = client.reply();
        assert!(matches!(reply.status, 503 | 504), "{path}: {} {}", reply.status, reply.text());
    }
    busy.finish_without_more();
}
