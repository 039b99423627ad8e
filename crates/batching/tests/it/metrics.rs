//! What a scrape would see.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use millrace_batching::{
    BATCH_ROWS, BATCHES_TOTAL, BatchConfig, BatchQueue, COMPUTE_SECONDS, PADDING_TOKENS_TOTAL, QUEUE_SECONDS,
    REFUSED_TOTAL, SKIPPED_CANCELLED_TOTAL, TOKENS_TOTAL, Waiting,
};
use millrace_testkit::{FakeModel, Gate, Misbehaviour};
use parking_lot::Mutex;

use crate::harness::{answer, pool, request, wait};
use crate::mixed::{self, Shared, Sums};

/// Keeps every value, by name and labels.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Line(Ledger, String);

impl Line {
    fn add(&self, value: f64, times: usize) {
        let mut ledger = self.0.0.lock();
        ledger.entry(self.1.clone()).or_default().extend(std::iter::repeat_n(value, times));
    }
}

impl CounterFn for Line {
    fn increment(&self, value: u64) {
        self.add(1.0, usize::try_from(value).unwrap());
    }

    fn absolute(&self, _value: u64) {}
}

impl HistogramFn for Line {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }
}

impl Ledger {
    fn line(&self, key: &Key) -> Arc<Line> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Line(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    fn values(&self, name: &str, more: &str) -> Vec<f64> {
        let key = format!("{name}{{model=metered,version=3{more}}}");
        self.0.lock().get(&key).cloned().unwrap_or_default()
    }
}

impl Recorder for Ledger {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.line(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.line(key))
    }
}

#[test]
fn every_request_is_counted_once_under_its_model_and_version() {
    let ledger = Ledger::default();
    // The other tests of this binary record here as well, under another model's name.
    metrics::set_global_recorder(ledger.clone()).unwrap();
    let (pool, gate) = (pool(1), Gate::closed());
    let model = FakeModel::builder().gate(gate.clone()).build();
    let config = BatchConfig { waiting: Waiting::Fixed(std::time::Duration::ZERO), ..BatchConfig::default() };
    let queue = BatchQueue::new(model.as_model(), "metered".parse().unwrap(), 3, config, &pool).unwrap();
    let first = queue.infer(request(&[1.0]));
    gate.wait_for(1);
    let good: Vec<_> = (0..6).map(|_| queue.infer(request(&[1.0]))).collect();
    let bad = queue.infer(request(&[Misbehaviour::Fail.value()]));
    drop(queue.infer(request(&[1.0])));
    gate.open();
    assert!(answer(first).is_ok());
    good.into_iter().for_each(|future| drop(answer(future).unwrap()));
    assert!(answer(bad).is_err());
    let mut wrong = request(&[1.0]);
    wrong.inputs.clear();
    assert!(answer(queue.infer(wrong)).is_err());
    let statistics = queue.statistics();
    assert_eq!((statistics.answered.count, statistics.failed.count, statistics.refused), (7, 2, 1));
    assert_eq!(ledger.values(QUEUE_SECONDS, "").len(), 7);
    assert_eq!(ledger.values(COMPUTE_SECONDS, "").len(), 7);
    let total: f64 = ledger.values(QUEUE_SECONDS, "").iter().sum();
    assert!((total - statistics.queue.time.as_secs_f64()).abs() < 1e-6);
    // Seven rode together, one of them bad: the halves that ran without it, and the first.
    let rows = ledger.values(BATCH_ROWS, "");
    assert_eq!((rows[0], rows.iter().sum::<f64>()), (1.0, 7.0));
    assert_eq!(ledger.values(BATCHES_TOTAL, ",closed_by=drained").len(), 2);
    assert_eq!(ledger.values(REFUSED_TOTAL, ",reason=backend_failed").len(), 1);
    assert_eq!(ledger.values(REFUSED_TOTAL, ",reason=invalid_input").len(), 1);
    assert_eq!(ledger.values(SKIPPED_CANCELLED_TOTAL, "").len(), 1);

    assert!(ledger.values(TOKENS_TOTAL, "").is_empty(), "no tokens in a model of rows");

    let gate = Gate::closed();
    let sums = Sums::new(gate.clone());
    let config = BatchConfig { waiting: Waiting::Fixed(std::time::Duration::ZERO), ..BatchConfig::default() };
    let mixed = BatchQueue::new(Arc::new(Shared(sums)), "metered".parse().unwrap(), 3, config, &pool).unwrap();
    let first = mixed.infer(mixed::request(&[&[1]]));
    gate.wait_for(1);
    let rest = [mixed.infer(mixed::request(&[&[1, 2, 3, 0]])), mixed.infer(mixed::request(&[&[1, 2]]))];
    gate.open();
    rest.into_iter().chain([first]).for_each(|future| drop(wait(future).unwrap()));
    // Of two rows of four positions each, five hold a token.
    assert_eq!(ledger.values(TOKENS_TOTAL, "").len(), 1 + 8);
    assert_eq!(ledger.values(PADDING_TOKENS_TOTAL, "").len(), 3);

    let config = BatchConfig { has_own_series: false, ..BatchConfig::default() };
    let nameless = BatchQueue::new(model.as_model(), "nameless".parse().unwrap(), 1, config, &pool).unwrap();
    assert!(answer(nameless.infer(request(&[1.0]))).is_ok());
    let ledger = ledger.0.lock();
    assert!(ledger.contains_key(&format!("{QUEUE_SECONDS}{{model=other,version=other}}")));
    assert!(!ledger.keys().any(|key| key.contains("nameless")));
}
