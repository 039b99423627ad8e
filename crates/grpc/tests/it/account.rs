//! What a call is told about itself, in the metadata of its answer.

use std::time::Duration;

use millrace_core::{ClosedBy, InferFuture, InferResponse, Progress, Reason, Refusal, Stages};
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
use millrace_proto::tensorflow::serving::PredictRequest;
use prost::Message as _;

use crate::harness::{Answer, Models, TestServer, framed};
use crate::oip::INFER;
use crate::tfs::{PREDICT, floats, spec_of};

const TORCHSERVE: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const TIMING: &str = "x-millrace-timing";
const EXPLAIN: &str = "x-millrace-explain";

/// A model whose answers waited 2 ms and took 3 ms, in a batch of eight rows.
fn models() -> Models {
    Models::new().scalar("half_plus_two", |request| {
        InferFuture::boxed(async move {
            let queued = tokio::time::Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (queued, finished) = (queued.into_std(), tokio::time::Instant::now().into_std());
            let formed = queued + Duration::from_millis(2);
            let (ahead, closed_by) = (3, Some(ClosedBy::Deadline));
            let company = Stages { batch_rows: 8, requests: 4, ahead, closed_by, ..Stages::immediate(finished) };
            let stages = Stages { queued, formed, started: formed, ..company };
            Ok(InferResponse { outputs: request.inputs, stages })
        })
    })
}

/// One call of each protocol, and what it is called.
fn calls() -> [(&'static str, &'static str, Vec<u8>); 3] {
    let inputs = [("x".to_owned(), floats(&[1.0, 2.0]))].into();
    let predict = PredictRequest { model_spec: Some(spec_of("half_plus_two")), inputs, ..PredictRequest::default() };
    let input = [("data".to_owned(), b"[1, 2]".to_vec().into())].into();
    let predictions = PredictionsRequest { model_name: "half_plus_two".to_owned(), input, ..Default::default() };
    [
        (PREDICT, "tfs_grpc", predict.encode_to_vec()),
        (INFER, "oip_grpc", crate::oip::request(&[1.0, 2.0]).encode_to_vec()),
        (TORCHSERVE, "torchserve_grpc", predictions.encode_to_vec()),
    ]
}

async fn call(server: &TestServer, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Answer {
    server.send(path, headers, [framed(message)]).await
}

#[tokio::test(start_paused = true)]
async fn every_call_of_one_message_tells_what_it_is_asked() {
    let server = TestServer::new(models());
    for (path, protocol, message) in calls() {
        let plain = call(&server, path, &[], &message).await;
        assert_eq!(plain.code(), 0, "{path}: {}", plain.text());
        assert!(!plain.headers.contains_key("server-timing") && !plain.headers.contains_key(EXPLAIN), "{path}");
        let asked = [(TIMING, "1"), (EXPLAIN, "1"), ("x-request-id", "mine"), ("grpc-timeout", "250m")];
        let told = call(&server, path, &asked, &message).await;
        assert_eq!((told.code(), &told.messages), (0, &plain.messages), "{path}");
        let timing = told.headers["server-timing"].to_str().unwrap();
        for part in ["queue;dur=2.000000", "compute;dur=3.000000", "batch;desc=\"rows=8 closed_by=deadline\""] {
            assert!(timing.contains(part), "{path}: {timing}");
        }
        let account = told.headers[EXPLAIN].to_str().unwrap();
        for part in [
            "\"request_id\":\"mine\",\"model\":\"half_plus_two\",\"version\":1,\"signature\":\"serving_default\"",
            "\"engine\":\"fake\"",
            &format!("\"protocol\":\"{protocol}\""),
            "\"deadline_ms\":250,\"rows\":2,\"rows_ahead\":3",
            "\"batch\":{\"rows\":8,\"padding\":0,\"requests\":4,\"closed_by\":\"deadline\"}",
            "\"queue\":2000.000",
            "\"compute\":3000.000",
            "\"readings\":9",
        ] {
            assert!(account.contains(part), "{path}: {account} lacks {part}");
        }
        let only = call(&server, path, &[(EXPLAIN, "true")], &message).await;
        assert!(only.headers.contains_key(EXPLAIN) && !only.headers.contains_key("server-timing"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_may_tell_stages_without_being_asked() {
    let server = TestServer::with(models(), |config| config.server_timing = true);
    for (path, _, message) in calls() {
        let told = call(&server, path, &[], &message).await;
        assert!(told.headers.contains_key("server-timing") && !told.headers.contains_key(EXPLAIN), "{path}");
        let silent = call(&server, path, &[(TIMING, "0")], &message).await;
        assert_eq!((silent.code(), silent.headers.contains_key("server-timing")), (0, false), "{path}");
    }
}

#[tokio::test]
async fn what_is_neither_on_nor_off_is_refused() {
    let server = TestServer::new(models());
    for (path, _, message) in calls() {
        for name in [TIMING, EXPLAIN] {
            let answer = call(&server, path, &[(name, "maybe")], &message).await;
            answer.refuses(tonic::Code::InvalidArgument, &format!("{name}: expected 1 or 0, got `maybe`"));
        }
    }
}

/// The stage that refused a call and why, of what was told in its trailers; the stages up to it add up.
#[track_caller]
fn refused_in(told: &http::HeaderMap) -> String {
    let (timing, account) = (told["server-timing"].to_str().unwrap(), told[EXPLAIN].to_str().unwrap());
    refusal(timing, account)
}

/// The same of the two texts.
#[track_caller]
fn refusal(timing: &str, account: &str) -> String {
    let (times, words) = timing.split_once(", refused;desc=").unwrap();
    let words = words.trim_matches('"').replace("stage=", "").replace("reason=", "");
    let times = times.split(", ").map(|metric| metric.split_once(";dur=").unwrap());
    let mut times: Vec<(&str, f64)> = times.map(|(name, time)| (name, time.parse().unwrap())).collect();
    let (_, total) = times.pop().unwrap();
    assert!((times.iter().map(|(_, time)| time).sum::<f64>() - total).abs() < 1e-9, "{timing}");
    let (stage, reason) = words.split_once(' ').unwrap();
    assert_eq!(times.last().unwrap().0, stage, "{timing}");
    assert!(account.contains(&format!("\"refused\":{{\"stage\":\"{stage}\",\"reason\":\"{reason}\"}}")), "{account}");
    words
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_told_where_its_time_went_and_who_refused_it() {
    let full = || Refusal::new(Reason::QueueFull, "no room");
    let models = models().refusing("door", full().with_progress(Progress::Door)).refusing("silent", full());
    let server = TestServer::new(models);
    let asked = [(TIMING, "1"), (EXPLAIN, "1")];
    for (path, _, message) in calls() {
        let broken = call(&server, path, &asked, b"\xff").await;
        assert_eq!((broken.code(), refused_in(&broken.trailers).as_str()), (3, "decode invalid_input"), "{path}");
        let silent = call(&server, path, &[], b"\xff").await;
        assert_eq!((silent.trailers.len(), silent.text()), (broken.trailers.len() - 2, broken.text()), "{path}");
        let late = [asked[0], asked[1], ("grpc-timeout", "3m")];
        let late = call(&server, path, &late, &message).await;
        assert_eq!((late.code(), refused_in(&late.trailers).as_str()), (4, "model late"), "{path}");
        // Another model's name, as long as this one's.
        let unknown = String::from_utf8_lossy(&message).find("half_plus_two").map(|at| {
            let mut message = message.clone();
            message.splice(at..at + 13, *b"none_such_one");
            message
        });
        let refused = call(&server, path, &asked, &unknown.unwrap()).await;
        assert_eq!(refused_in(&refused.trailers), "decode model_unknown", "{path}: {}", refused.text());
    }
    for (model, words) in [("door", "admit queue_full"), ("silent", "model queue_full")] {
        let request = ModelInferRequest { model_name: model.to_owned(), ..crate::oip::request(&[1.0]) };
        let refused = call(&server, INFER, &asked, &request.encode_to_vec()).await;
        assert_eq!(refused_in(&refused.trailers), words, "{model}: {}", refused.text());
        let account = refused.trailers[EXPLAIN].to_str().unwrap();
        assert!(account.contains(&format!("\"model\":\"{model}\",\"version\":1,")), "{account}");
    }
    server.readiness.refuse_new();
    for (path, _, message) in calls() {
        let refused = call(&server, path, &asked, &message).await;
        assert_eq!(refused_in(&refused.trailers), "receive draining", "{path}");
    }
}

/// The texts among the parameters of an answer that say what it asked about itself.
fn told_inside(response: &ModelInferResponse) -> [Option<&str>; 2] {
    ["millrace_timing", "millrace_explain"].map(|name| match &response.parameters.get(name)?.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Some(text.as_str()),
        other => panic!("{other:?}"),
    })
}

fn asking(name: &str, value: ParameterChoice) -> ModelInferRequest {
    let parameter = InferParameter { parameter_choice: Some(value) };
    let parameters = [(name.to_owned(), parameter)].into_iter().collect();
    ModelInferRequest { parameters, id: "a".to_owned(), ..crate::oip::request(&[1.0, 2.0]) }
}

#[tokio::test(start_paused = true)]
async fn who_asks_by_parameter_is_told_in_parameters() {
    let server = TestServer::new(models());
    let ask = async |name, value, headers: &[(&str, &str)]| {
        call(&server, INFER, headers, &asking(name, value).encode_to_vec()).await
    };
    let told = ask("millrace_explain", ParameterChoice::BoolParam(true), &[]).await;
    assert!(!told.headers.contains_key(EXPLAIN) && !told.headers.contains_key("server-timing"));
    let response: ModelInferResponse = told.gives();
    let [None, Some(account)] = told_inside(&response) else { panic!("{response:?}") };
    assert!(account.contains("\"queue\":2000.000,\"form\":0.000,\"compute\":3000.000"), "{account}");
    let told: ModelInferResponse = ask("millrace_timing", ParameterChoice::BoolParam(true), &[]).await.gives();
    assert!(matches!(told_inside(&told), [Some(timing), None] if timing.contains("compute;dur=3.000000")), "{told:?}");
    // The message goes before its head.
    let silent = ask("millrace_timing", ParameterChoice::BoolParam(false), &[(TIMING, "1")]).await;
    assert!(!silent.headers.contains_key("server-timing"));
    assert_eq!(told_inside(&silent.gives()), [None, None]);
    let wrong = ask("millrace_explain", ParameterChoice::StringParam("maybe".to_owned()), &[]).await;
    assert_eq!(wrong.code(), 3, "{}", wrong.text());
    assert!(wrong.text().contains("millrace_explain") && wrong.text().contains("a boolean"), "{}", wrong.text());
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_stream_is_told_its_own_account() {
    let server = TestServer::new(models());
    let plain = ModelInferRequest { id: "b".to_owned(), ..crate::oip::request(&[1.0, 2.0]) };
    let unknown = ModelInferRequest { model_name: "none".to_owned(), id: "c".to_owned(), ..plain.clone() };
    let explained = asking("millrace_explain", ParameterChoice::BoolParam(true));
    let messages = [&explained, &plain, &unknown].map(|message| framed(&message.encode_to_vec()));
    let answers = async |headers: &[(&str, &str)]| {
        let answer = server.send(STREAM, headers, messages.clone()).await;
        assert_eq!(answer.code(), 0, "{}", answer.text());
        assert!(!answer.headers.contains_key(EXPLAIN));
        let read = |message: &bytes::Bytes| {
            let response = ModelStreamInferResponse::decode(message.clone()).unwrap().infer_response.unwrap();
            (response.id.clone(), told_inside(&response).map(|text| text.map(str::to_owned)))
        };
        answer.messages.iter().map(read).collect::<std::collections::BTreeMap<_, _>>()
    };
    // One asks by its own parameter.
    let told = answers(&[]).await;
    assert!(told["a"][1].as_deref().unwrap().contains("\"compute\":3000.000"), "{told:?}");
    assert_eq!((&told["a"][0], &told["b"], &told["c"]), (&None, &[None, None], &[None, None]));
    // All ask by the head of the stream.
    let told = answers(&[(TIMING, "1"), (EXPLAIN, "1"), ("x-request-id", "mine")]).await;
    for id in ["a", "b"] {
        let [Some(timing), Some(account)] = &told[id] else { panic!("{told:?}") };
        assert!(timing.contains("queue;dur=2.000000") && timing.ends_with("closed_by=deadline\""), "{timing}");
        assert!(account.starts_with("{\"request_id\":\"mine\",\"model\":\"half_plus_two\",\"version\":1"), "{account}");
    }
    let [Some(timing), Some(account)] = &told["c"] else { panic!("{told:?}") };
    assert_eq!(refusal(timing, account), "decode model_unknown");
    // The first failure ends such a stream: it is told in the trailers.
    let headers = [(TIMING, "1"), (EXPLAIN, "1"), ("triton_grpc_error", "true")];
    let ended = server.send(STREAM, &headers, [messages[2].clone()]).await;
    assert_eq!((ended.code(), refused_in(&ended.trailers).as_str()), (5, "decode model_unknown"));
    // An operator may have every request told.
    let server = TestServer::with(models(), |config| config.server_timing = true);
    let answer = server.send(STREAM, &[], [messages[1].clone()]).await;
    let response = ModelStreamInferResponse::decode(answer.messages[0].clone()).unwrap().infer_response.unwrap();
    assert!(matches!(told_inside(&response), [Some(_), None]), "{response:?}");
}
