//! What a call is told about itself, in the metadata of its answer.

use std::time::Duration;

use millrace_core::{ClosedBy, InferFuture, InferResponse, Stages};
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
use millrace_proto::tensorflow::serving::PredictRequest;
use prost::Message as _;

use crate::harness::{Answer, Models, TestServer, framed};
use crate::oip::INFER;
use crate::tfs::{PREDICT, floats, spec_of};

const TORCHSERVE: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
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
