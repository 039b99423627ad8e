//! The histograms of the metrics page, counted where they are recorded: a value is a search among a few limits and two
//! additions. The exporter would keep each value with its instant until somebody folds it in, which costs every request
//! several times as much.
//!
//! Everything that is no histogram is the exporter's.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;

/// The process's recorder: histograms here, the others in the exporter.
pub(crate) struct Recording {
    pub(crate) others: PrometheusRecorder,
    pub(crate) histograms: Arc<Histograms>,
}

/// Every histogram of the process.
pub(crate) struct Histograms {
    /// By family.
    limits: BTreeMap<&'static str, Arc<[f64]>>,
    /// Those of a family that is not among them.
    usual: Arc<[f64]>,
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Default)]
struct Family {
    help: Option<SharedString>,
    /// By their labels as the page has them.
    series: BTreeMap<String, Arc<Series>>,
}

/// One histogram.
struct Series {
    /// The largest value of each bucket but the last, ascending.
    limits: Arc<[f64]>,
    counts: Box<[AtomicU64]>,
    /// The bits of the sum of all values.
    sum: AtomicU64,
}

impl Histograms {
    /// None yet. `limits` are those of the buckets by family; a family that is not among them has the `usual` ones.
    pub(crate) fn new(limits: Vec<(&'static str, Vec<f64>)>, usual: &[f64]) -> Self {
        let limits = limits.into_iter().map(|(family, limits)| (family, limits.into())).collect();
        Self { limits, usual: usual.into(), families: Mutex::default() }
    }

    fn describe(&self, family: &str, help: SharedString) {
        self.families.lock().entry(family.to_owned()).or_default().help = Some(help);
    }

    fn series(&self, key: &Key) -> Arc<Series> {
        let limits = self.limits.get(key.name()).unwrap_or(&self.usual);
        let mut families = self.families.lock();
        let family = families.entry(key.name().to_owned()).or_default();
        Arc::clone(family.series.entry(labels(key)).or_insert_with(|| Arc::new(Series::new(limits))))
    }

    /// Adds all of them to the page.
    pub(crate) fn render(&self, page: &mut String) {
        for (name, family) in self.families.lock().iter().filter(|(_, family)| !family.series.is_empty()) {
            // Writing to a string cannot fail.
            let _infallible = family.write(name, page);
        }
    }
}

impl Family {
    fn write(&self, name: &str, page: &mut String) -> fmt::Result {
        if let Some(help) = &self.help {
            writeln!(page, "# HELP {name} {}", help.replace('\\', r"\\").replace('\n', r"\n"))?;
        }
        writeln!(page, "# TYPE {name} histogram")?;
        for (labels, series) in &self.series {
            series.write(name, labels, page)?;
        }
        page.write_char('\n')
    }
}

/// `a="1",b="2"`, in the order of the key.
fn labels(key: &Key) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> =
        key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value()))).collect();
    pairs.join(",")
}

impl Series {
    fn new(limits: &Arc<[f64]>) -> Self {
        let counts = (0..=limits.len()).map(|_| AtomicU64::new(0)).collect();
        Self { limits: Arc::clone(limits), counts, sum: AtomicU64::new(0) }
    }

    /// The count is that of the buckets written, so that the two agree whatever is recorded meanwhile.
    fn write(&self, name: &str, labels: &str, page: &mut String) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (limit, bucket) in self.limits.iter().zip(&self.counts) {
            count += bucket.load(Ordering::Relaxed);
            writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{limit}\"}} {count}")?;
        }
        count += self.counts.last().map_or(0, |bucket| bucket.load(Ordering::Relaxed));
        writeln!(page, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(page, "{name}_sum{labels} {}", f64::from_bits(self.sum.load(Ordering::Relaxed)))?;
        writeln!(page, "{name}_count{labels} {count}")
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let bucket = self.limits.partition_point(|limit| *limit < value);
        self.counts[bucket].fetch_add(count as u64, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a sum of floats is no more exact than this")]
        let more = value * count as f64;
        let add = |sum| Some((f64::from_bits(sum) + more).to_bits());
        let _always_some = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.others.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.others.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, _unit: Option<Unit>, description: SharedString) {
        self.histograms.describe(key.as_str(), description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.series(key))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use metrics::{HistogramFn, Key, Label};

    use super::Histograms;

    fn page(histograms: &Histograms) -> String {
        let mut page = String::new();
        histograms.render(&mut page);
        page
    }

    #[test]
    fn a_value_counts_in_every_bucket_that_it_does_not_exceed() {
        let histograms = Histograms::new(vec![("seconds", vec![0.5, 1.0])], &[1.0]);
        histograms.describe("seconds", "How\nlong".into());
        histograms.describe("never_recorded", "Nothing".into());
        let labels = vec![Label::new("model", "a\"\\b"), Label::new("version", "1")];
        let key = Key::from_parts("seconds", labels);
        for value in [0.25, 0.5, 0.75, 4.0] {
            histograms.series(&key).record(value);
        }
        let expected = r#"# HELP seconds How\nlong
# TYPE seconds histogram
seconds_bucket{model="a\"\\b",version="1",le="0.5"} 2
seconds_bucket{model="a\"\\b",version="1",le="1"} 3
seconds_bucket{model="a\"\\b",version="1",le="+Inf"} 4
seconds_sum{model="a\"\\b",version="1"} 5.5
seconds_count{model="a\"\\b",version="1"} 4

"#;
        assert_eq!(page(&histograms), expected);
    }

    #[test]
    fn a_family_without_limits_or_labels_has_the_usual_ones_and_none() {
        let histograms = Histograms::new(Vec::new(), &[10.0]);
        histograms.series(&Key::from_name("rows")).record_many(3.0, 2);
        let expected =
            "# TYPE rows histogram\nrows_bucket{le=\"10\"} 2\nrows_bucket{le=\"+Inf\"} 2\nrows_sum 6\nrows_count 2\n\n";
        assert_eq!(page(&histograms), expected);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let histograms = Histograms::new(Vec::new(), &[1.0]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let series = histograms.series(&Key::from_name("h"));
                    (0..10_000).for_each(|_| series.record(2.0));
                });
            }
        });
        let page = page(&histograms);
        assert!(page.contains("h_sum 80000\nh_count 40000\n") && page.contains("h_bucket{le=\"1\"} 0\n"), "{page}");
    }
}
