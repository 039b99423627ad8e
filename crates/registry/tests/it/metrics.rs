//! What a scrape would see of loads, failures, memory and states.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use millrace_batching::BATCH_ROWS;
use millrace_registry::{LOAD_FAILURES, LOAD_SECONDS, MEMORY_BYTES, VERSIONS};
use millrace_testkit::FakeBackend;
use parking_lot::Mutex;

use crate::repository::{Repository, start};

/// Keeps every value of every series. The registry records on threads of its own, so there is one for the whole process,
/// and tests keep apart by the names of their models.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Line(Ledger, String);

impl Line {
    fn push(&self, value: f64) {
        self.0.0.lock().entry(self.1.clone()).or_default().push(value);
    }
}

impl CounterFn for Line {
    fn increment(&self, value: u64) {
        self.push(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _value: u64) {}
}

impl GaugeFn for Line {
    fn increment(&self, _value: f64) {}
    fn decrement(&self, _value: f64) {}

    fn set(&self, value: f64) {
        self.push(value);
    }
}

impl HistogramFn for Line {
    fn record(&self, value: f64) {
        self.push(value);
    }
}

impl Ledger {
    fn line(&self, key: &Key) -> Arc<Line> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Line(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    fn values(&self, family: &str, labels: &str) -> Vec<f64> {
        self.0.lock().get(&format!("{family}{{{labels}}}")).cloned().unwrap_or_default()
    }

    /// What a gauge shows now.
    fn gauge(&self, family: &str, labels: &str) -> Option<f64> {
        self.values(family, labels).last().copied()
    }

    fn series(&self, family: &str, model: &str) -> usize {
        let wanted = format!("{family}{{model={model}");
        self.0.lock().keys().filter(|key| key.starts_with(&wanted)).count()
    }
}

impl Recorder for Ledger {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.line(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.line(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.line(key))
    }
}

fn ledger() -> Ledger {
    static LEDGER: OnceLock<Ledger> = OnceLock::new();
    let install = || {
        let ledger = Ledger::default();
        metrics::set_global_recorder(ledger.clone()).unwrap();
        ledger
    };
    LEDGER.get_or_init(install).clone()
}

fn memory_file(bytes: u32) -> String {
    format!("memory = {bytes}\nend\n")
}

#[test]
fn loads_are_timed_and_memory_and_states_follow_the_versions() {
    let ledger = ledger();
    let repository = Repository::new();
    repository.version_with("metered", 1, &memory_file(600));
    let served = repository.start();
    assert_eq!(ledger.values(LOAD_SECONDS, "model=metered,version=1").len(), 1);
    assert!(ledger.values(LOAD_SECONDS, "model=metered,version=1")[0] >= 0.0);
    assert_eq!(ledger.gauge(MEMORY_BYTES, "model=metered,version=1"), Some(600.0));
    assert_eq!(ledger.gauge(VERSIONS, "model=metered,state=AVAILABLE"), Some(1.0));
    assert_eq!(ledger.gauge(VERSIONS, "model=metered,state=END"), Some(0.0));

    repository.version_with("metered", 2, &memory_file(700));
    served.rescan();
    served.until("the swap", || ledger.gauge(MEMORY_BYTES, "model=metered,version=1") == Some(0.0));
    assert_eq!(ledger.gauge(MEMORY_BYTES, "model=metered,version=2"), Some(700.0));
    assert_eq!(ledger.gauge(VERSIONS, "model=metered,state=AVAILABLE"), Some(1.0));
    assert_eq!(ledger.values(LOAD_SECONDS, "model=metered,version=2").len(), 1);
    assert_eq!(ledger.values(LOAD_FAILURES, "model=metered"), [] as [f64; 0]);
}

#[test]
fn a_model_that_went_leaves_no_memory_and_no_versions_behind() {
    let ledger = ledger();
    let repository = Repository::new();
    repository.version_with("leaver", 1, &memory_file(600)).version("stayer", 1);
    let served = repository.start();
    assert_eq!(ledger.gauge(MEMORY_BYTES, "model=leaver,version=1"), Some(600.0));
    repository.remove("leaver");
    served.rescan();
    served.until("the end", || ledger.gauge(VERSIONS, "model=leaver,state=AVAILABLE") == Some(0.0));
    served.until("the memory's end", || ledger.gauge(MEMORY_BYTES, "model=leaver,version=1") == Some(0.0));
}

#[test]
fn failures_are_counted_and_not_timed() {
    let ledger = ledger();
    let repository = Repository::new();
    repository.version_with("failing", 1, "nonsense");
    let served = repository.start();
    assert_eq!(ledger.values(LOAD_FAILURES, "model=failing").iter().sum::<f64>().to_bits(), 1.0_f64.to_bits());
    assert_eq!(ledger.series(LOAD_SECONDS, "failing"), 0);
    assert_eq!(ledger.gauge(VERSIONS, "model=failing,state=END"), Some(1.0));
    assert_eq!(ledger.gauge(MEMORY_BYTES, "model=failing,version=1"), Some(0.0));
    assert_eq!(served.available("failing"), [] as [u64; 0]);
}

#[test]
fn beyond_the_configured_number_versions_have_no_series_of_their_own() {
    let ledger = ledger();
    let repository = Repository::new();
    repository.version("many", 1);
    let mut config = repository.config();
    config.max_metric_series = 3;
    let served = start(config, FakeBackend::default());
    assert_eq!(served.default_of("many"), Ok(1));
    for version in 2..=10 {
        repository.version("many", version);
        served.rescan();
        assert_eq!(served.default_of("many"), Ok(version));
    }
    assert_eq!(served.available("many"), [10]);
    assert_eq!(ledger.series(LOAD_SECONDS, "many"), 3);
    assert_eq!(ledger.series(MEMORY_BYTES, "many"), 3);
    assert_eq!(ledger.values(LOAD_SECONDS, "model=other,version=other").len(), 7);
    assert_eq!(ledger.series(BATCH_ROWS, "many"), 3);
    assert!(ledger.values(BATCH_ROWS, "model=other,version=other").len() >= 7);
    assert_eq!(ledger.gauge(VERSIONS, "model=many,state=AVAILABLE"), Some(1.0), "counts go on");
}
