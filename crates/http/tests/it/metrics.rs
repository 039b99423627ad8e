//! What requests leave on the metrics page, and what they cannot.

use std::future::Future;
use std::task::Poll;

use http::Method;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use millrace_core::{DType, InferFuture, Reason, Refusal};
use millrace_http::FrontConfig;
use millrace_protocol::front::metrics::{describe_metrics, histogram_buckets};

use crate::harness::{TestServer, models, signature, spec};

const BODY: &str = r#"{"instances": [1, 2]}"#;

/// The page after what `requests` did to a server.
fn page<F: Future<Output = ()>>(requests: impl FnOnce(TestServer) -> F) -> String {
    let mut builder = PrometheusBuilder::new();
    for (family, limits) in histogram_buckets() {
        builder = builder.set_buckets_for_metric(Matcher::Full(family.to_owned()), &limits).unwrap();
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let refusal = Refusal::new(Reason::QueueFull, "full");
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        let x = || vec![spec("x", DType::Fp32, &[-1])];
        let never = |_| InferFuture::boxed(std::future::pending());
        let models = models().refusing("full", refusal).version("slow", 1, signature(x(), x()), never);
        runtime.block_on(requests({
            let front = FrontConfig { max_metric_series: 3, ..FrontConfig::default() };
            TestServer::with_front(models, &front, |_| {})
        }));
    });
    handle.run_upkeep();
    handle.render()
}

fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[track_caller]
fn has(page: &str, series: &str, expected: f64) {
    assert_eq!(value(page, series), Some(expected), "{series} in\n{page}");
}

#[test]
fn an_answer_counts_once_in_each_family() {
    let page = page(async |server: TestServer| {
        for _ in 0..3 {
            assert_eq!(server.predict("half_plus_two/versions/1", BODY).await.status, 200);
        }
    });
    let labels = r#"model="half_plus_two",version="1",protocol="tfs_rest""#;
    for family in ["request_seconds", "decode_seconds", "encode_seconds"] {
        has(&page, &format!("millrace_{family}_count{{{labels}}}"), 3.0);
    }
    has(&page, &format!("millrace_requests_total{{{labels},code=\"200\"}}"), 3.0);
    has(&page, &format!("millrace_request_bytes_total{{{labels}}}"), 3.0 * BODY.len() as f64);
    assert!(value(&page, &format!("millrace_response_bytes_total{{{labels}}}")).unwrap() > 60.0);
    has(&page, r#":tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}"#, 3.0);
    let latency = r#"model_name="half_plus_two",API="predict",entrypoint="REST""#;
    has(&page, &format!(":tensorflow:serving:request_latency_count{{{latency}}}"), 3.0);
    has(&page, &format!(":tensorflow:serving:request_latency_bucket{{{latency},le=\"+Inf\"}}"), 3.0);
    has(&page, r#":tensorflow:serving:request_example_counts_count{model="half_plus_two"}"#, 3.0);
    has(&page, r#":tensorflow:serving:request_example_counts_bucket{model="half_plus_two",le="1"}"#, 0.0);
    has(&page, r#":tensorflow:serving:request_example_counts_bucket{model="half_plus_two",le="2"}"#, 3.0);
    has(&page, r#":tensorflow:serving:request_example_count_total{model="half_plus_two"}"#, 6.0);
    assert!(page.contains(r#":tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="predict""#));
}

#[test]
fn tensorflow_servings_histogram_has_its_own_33_limits() {
    let page = page(async |server: TestServer| {
        server.predict("half_plus_two", BODY).await;
    });
    let limits: Vec<f64> = page
        .lines()
        .filter(|line| line.starts_with(":tensorflow:serving:request_latency_bucket"))
        .filter_map(|line| line.split_once("le=\"")?.1.split_once('"')?.0.parse().ok())
        .filter(|limit: &f64| limit.is_finite())
        .collect();
    assert_eq!(limits.len(), 33);
    assert_eq!(limits[..2], [10.0, 18.0]);
}

#[test]
fn refusals_count_by_status_and_reason_and_not_as_latency() {
    let page = page(async |server: TestServer| {
        server.predict("half_plus_two/versions/1", "{}").await.refuses(400, "");
        server.predict("full", BODY).await.refuses(503, "full");
    });
    let labels = r#"model="half_plus_two",version="1",protocol="tfs_rest",code="400""#;
    has(&page, &format!("millrace_requests_total{{{labels}}}"), 1.0);
    has(&page, r#"millrace_refused_total{reason="invalid_input"}"#, 1.0);
    has(&page, r#"millrace_refused_total{reason="queue_full"}"#, 1.0);
    has(&page, r#":tensorflow:serving:request_count{model_name="half_plus_two",status="INVALID_ARGUMENT"}"#, 1.0);
    has(&page, r#":tensorflow:serving:request_count{model_name="full",status="UNAVAILABLE"}"#, 1.0);
    assert!(!page.contains("request_latency_count"), "{page}");
}

#[test]
fn a_client_that_leaves_counts_as_cancelled() {
    let page = page(async |server: TestServer| {
        let request = crate::harness::request(Method::POST, "/v1/models/slow:predict", &[], BODY);
        let mut answer = Box::pin(server.service.answer(request, millrace_http::ConnectionContext::default()));
        // Polled once, so that it began, and then dropped.
        std::future::poll_fn(|context| {
            assert!(answer.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    });
    has(&page, r#"millrace_refused_total{reason="cancelled"}"#, 1.0);
    let labels = r#"model="slow",version="1",protocol="tfs_rest",code="499""#;
    has(&page, &format!("millrace_requests_total{{{labels}}}"), 1.0);
    has(&page, r#":tensorflow:serving:request_count{model_name="slow",status="CANCELLED"}"#, 1.0);
}

#[test]
fn a_hundred_thousand_unknown_names_add_no_series() {
    let ask = async |server: &TestServer, from: usize, to: usize| {
        for index in from..to {
            server.predict(&format!("unknown{index}"), BODY).await.refuses(404, "");
        }
    };
    let few = page(async |server: TestServer| ask(&server, 0, 1).await);
    let many = page(async |server: TestServer| ask(&server, 0, 100_000).await);
    assert_eq!(many.lines().count(), few.lines().count());
    assert!(!many.contains("unknown0") && !many.contains("unknown99999"));
    has(&many, r#"millrace_refused_total{reason="model_unknown"}"#, 100_000.0);
    has(&many, r#":tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"}"#, 100_000.0);
}

#[test]
fn beyond_the_configured_number_of_versions_series_are_shared() {
    let page = page(async |server: TestServer| {
        for model in ["half_plus_two/versions/1", "half_plus_two/versions/2", "pairs", "ints", "strings", "total"] {
            server.predict(model, "{}").await.refuses(400, "");
        }
    });
    let versions = page.lines().filter(|line| line.starts_with("millrace_request_seconds_count")).count();
    assert_eq!(versions, 4, "three of their own and the shared one:\n{page}");
    has(&page, r#"millrace_request_seconds_count{model="other",version="other",protocol="tfs_rest"}"#, 3.0);
}

#[test]
fn the_page_passes_a_lint() {
    let page = page(async |server: TestServer| {
        server.predict("half_plus_two", BODY).await;
        server.predict("nope", BODY).await;
        server.predict("pairs", "{}").await;
    });
    let mut families = std::collections::HashSet::new();
    let mut series = std::collections::HashSet::new();
    let mut kind = String::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, of) = rest.split_once(' ').unwrap();
            assert!(families.insert(family.to_owned()), "{family} stands twice");
            let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
            assert!(family.bytes().all(word), "{family}");
            let total = family.ends_with("_total") || family.starts_with(":tensorflow:");
            assert!(of != "counter" || total, "a counter ends in _total: {family}");
            kind = family.to_owned();
        } else if !line.starts_with('#') {
            let (name, number) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&kind), "{name} stands below another family: {kind}");
            assert!(number.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name.to_owned()), "{name} stands twice");
        }
    }
    assert!(families.len() >= 9, "{families:?}");
    for family in families.iter().filter(|family| family.starts_with("millrace_")) {
        assert!(page.contains(&format!("# HELP {family} ")), "{family} has no help text");
    }
}

#[test]
fn examples_are_rows_in_either_form_and_one_where_there_are_none() {
    let page = page(async |server: TestServer| {
        for (model, body) in [
            ("pairs", r#"{"instances": [[1, 2], [3, 4], [5, 6]]}"#),
            ("pairs", r#"{"inputs": [[1, 2], [3, 4]]}"#),
            ("half_scalar", r#"{"inputs": 5}"#),
        ] {
            assert_eq!(server.predict(model, body).await.status, 200, "{body}");
        }
        server.predict("half_plus_two", "{}").await.refuses(400, "");
    });
    has(&page, r#":tensorflow:serving:request_example_count_total{model="pairs"}"#, 5.0);
    has(&page, r#":tensorflow:serving:request_example_count_total{model="half_scalar"}"#, 1.0);
    assert!(!page.contains(r#"request_example_count_total{model="half_plus_two"}"#), "only what was answered counts");
}

#[test]
fn torchserves_families_count_its_requests_alone() {
    let page = page(async |server: TestServer| {
        let ask = async |path: &str| server.ask(Method::POST, path, &[], "[1, 2]").await.status.as_u16();
        assert_eq!(ask("/predictions/half_plus_two").await, 200);
        assert_eq!(ask("/predictions/half_plus_two").await, 200);
        assert_eq!(ask("/predictions/half_plus_two/1.0").await, 200);
        assert_eq!(ask("/predictions/nope").await, 404);
        assert_eq!(ask("/predictions/full").await, 503);
        assert_eq!(server.predict("half_plus_two", BODY).await.status, 200);
    });
    let labels =
        |version: &str| format!(r#"model_name="half_plus_two",model_version="{version}",hostname="localhost""#);
    has(&page, &format!("ts_inference_requests_total{{{}}}", labels("default")), 2.0);
    has(&page, &format!("ts_inference_requests_total{{{}}}", labels("1")), 1.0);
    assert!(value(&page, &format!("ts_inference_latency_microseconds{{{}}}", labels("1"))).is_some());
    assert!(value(&page, &format!("ts_queue_latency_microseconds{{{}}}", labels("default"))).is_some());
    for (family, expected) in [("Requests2XX", 3.0), ("Requests4XX", 1.0), ("Requests5XX", 1.0)] {
        has(&page, &format!(r#"{family}{{Level="Host",Hostname="localhost"}}"#), expected);
    }
    let ours = r#"model="half_plus_two",version="2",protocol="torchserve_rest",code="200""#;
    has(&page, &format!("millrace_requests_total{{{ours}}}"), 2.0);
}

#[test]
fn a_batch_counts_each_of_its_requests_and_once_itself() {
    let page = page(async |server: TestServer| {
        let one = r#"{"model_name": "half_plus_two", "input_data": [[1]]}"#;
        let body = format!(r#"[{one}, {one}, {{"model_name": "nope", "input_data": [[1]]}}]"#);
        assert_eq!(server.ask(Method::POST, "/batch_predict", &[], body).await.status, 200);
    });
    let series = |model: &str, version: &str, code: &str| {
        let labels = format!(r#"model="{model}",version="{version}",protocol="general",code="{code}""#);
        format!("millrace_requests_total{{{labels}}}")
    };
    has(&page, &series("half_plus_two", "2", "200"), 2.0);
    has(&page, &series("other", "other", "404"), 1.0);
    has(&page, &series("other", "other", "200"), 1.0);
}
