//! What calls leave on the metrics page, and what they cannot.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use millrace_core::{InferFuture, Slot};
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionsRequest;
use millrace_proto::tensorflow::serving::ClassificationRequest;
use millrace_protocol::front::FrontConfig;
use millrace_protocol::front::metrics::{describe_metrics, histogram_buckets};
use parking_lot::Mutex;
use prost::Message as _;

use crate::harness::{TestServer, framed};
use crate::knocking::closed;
use crate::tfs::{PREDICT, floats, good, models, request, spec_of};

/// The page after what `requests` did to a server.
pub(crate) fn page<F: Future<Output = ()>>(requests: impl FnOnce(TestServer) -> F) -> String {
    let mut builder = PrometheusBuilder::new();
    for (family, limits) in histogram_buckets() {
        builder = builder.set_buckets_for_metric(Matcher::Full(family.to_owned()), &limits).unwrap();
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        let slots: Mutex<Vec<Slot>> = Mutex::default();
        let models = models().scalar("slow", move |_| {
            let (slot, future) = InferFuture::slot();
            slots.lock().push(slot);
            future
        });
        let models = models.affine("closed", 1, 0.5, 2.0).closed(closed());
        let front = FrontConfig { max_metric_series: 3, ..FrontConfig::default() };
        runtime.block_on(requests(TestServer::with_front(models, &front, |_| {})));
    });
    handle.run_upkeep();
    handle.render()
}

#[track_caller]
pub(crate) fn has(page: &str, series: &str, expected: f64) {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok());
    assert_eq!(found.map(f64::to_bits), Some(expected.to_bits()), "{series} in\n{page}");
}

#[test]
fn a_prediction_counts_once_in_each_family() {
    let sent = good().encoded_len();
    let page = page(async |server: TestServer| {
        for _ in 0..3 {
            assert_eq!(server.ask(PREDICT, &good()).await.code(), 0);
        }
    });
    let labels = r#"model="half_plus_two",version="2",protocol="tfs_grpc""#;
    for family in ["request_seconds", "decode_seconds", "encode_seconds"] {
        has(&page, &format!("millrace_{family}_count{{{labels}}}"), 3.0);
    }
    has(&page, &format!("millrace_requests_total{{{labels},code=\"OK\"}}"), 3.0);
    let bytes = |family, each: usize| {
        let all = u32::try_from(3 * each).unwrap();
        has(&page, &format!("millrace_{family}_bytes_total{{{labels}}}"), f64::from(all));
    };
    bytes("request", sent);
    // The answer of the specification, for version 2, and its prefix.
    bytes("response", 29 + 38 + 5);
    has(&page, r#":tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}"#, 3.0);
    let latency = r#"model_name="half_plus_two",API="Predict",entrypoint="GRPC""#;
    has(&page, &format!(":tensorflow:serving:request_latency_count{{{latency}}}"), 3.0);
    let runtime = r#"model_name="half_plus_two",API="Predict",runtime="millrace""#;
    has(&page, &format!(":tensorflow:serving:runtime_latency_count{{{runtime}}}"), 3.0);
    has(&page, r#":tensorflow:serving:request_example_counts_sum{model="half_plus_two"}"#, 9.0);
    has(&page, r#":tensorflow:serving:request_example_count_total{model="half_plus_two"}"#, 9.0);
}

#[test]
fn refusals_count_under_their_code_and_strangers_share_a_series() {
    let page = page(async |server: TestServer| {
        server.ask(PREDICT, &request("full", [("x", floats(&[1.0]))])).await.code();
        server.ask(PREDICT, &request("half_plus_two", [])).await.code();
        let classify = ClassificationRequest { model_spec: Some(spec_of("half_plus_two")), input: None };
        server.ask("/tensorflow.serving.PredictionService/Classify", &classify).await.code();
        for number in 0..100 {
            server.ask(PREDICT, &request(&format!("stranger {number}"), [])).await.code();
        }
        let message = framed(&request("slow", [("x", floats(&[1.0]))]).encode_to_vec());
        server.send(PREDICT, &[("grpc-timeout", "10m")], [message]).await.code();
    });
    for (model, status, count) in [
        ("full", "UNAVAILABLE", 1.0),
        ("half_plus_two", "INVALID_ARGUMENT", 2.0),
        ("other", "NOT_FOUND", 100.0),
        ("slow", "DEADLINE_EXCEEDED", 1.0),
    ] {
        let labels = format!("model_name=\"{model}\",status=\"{status}\"");
        has(&page, &format!(":tensorflow:serving:request_count{{{labels}}}"), count);
    }
    has(&page, r#"millrace_refused_total{reason="model_unknown"}"#, 100.0);
    assert!(!page.contains("stranger"), "{page}");
}

#[test]
fn a_client_that_leaves_counts_as_cancelled() {
    let page = page(async |server: TestServer| {
        let server = Arc::new(server);
        let asking = Arc::clone(&server);
        let call = tokio::spawn(async move { asking.ask(PREDICT, &request("slow", [("x", floats(&[1.0]))])).await });
        // The clock stands still until everything waits.
        tokio::time::sleep(Duration::from_millis(1)).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    });
    has(&page, r#":tensorflow:serving:request_count{model_name="slow",status="CANCELLED"}"#, 1.0);
}

#[test]
fn torchserves_predictions_have_their_own_protocol_and_are_none_of_tensorflow_servings() {
    let page = page(async |server: TestServer| {
        let request = PredictionsRequest {
            model_name: "half_plus_two".to_owned(),
            input: [("data".to_owned(), "[1, 2]".into())].into(),
            ..PredictionsRequest::default()
        };
        for method in ["Predictions", "StreamPredictions", "StreamPredictions2"] {
            let path = format!("/org.pytorch.serve.grpc.inference.InferenceAPIsService/{method}");
            assert_eq!(server.ask(&path, &request).await.code(), 0);
        }
    });
    let labels = r#"model="half_plus_two",version="2",protocol="torchserve_grpc""#;
    has(&page, &format!("millrace_requests_total{{{labels},code=\"OK\"}}"), 3.0);
    assert!(!page.contains(":tensorflow:serving:request_count{"), "{page}");
}
