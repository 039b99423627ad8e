//! The metrics page: the process's one Prometheus recorder, and what the process says about itself.
//!
//! Crates record through the `metrics` facade; names and buckets are theirs. Only the text is made here.

use std::fmt;
use std::fs;
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_http::MetricsText;
use millrace_protocol::front;
use tokio::time::Instant;

use crate::histograms::{Histograms, Recording};
use crate::names;

/// The recorder is the process's: `metrics` has one for all.
static RECORDER: OnceLock<Option<Recorded>> = OnceLock::new();

/// What was recorded.
#[derive(Clone)]
struct Recorded {
    others: PrometheusHandle,
    histograms: Arc<Histograms>,
}

/// The process's metrics page.
#[derive(Clone)]
pub(crate) struct Exposition {
    recorded: Option<Recorded>,
    started: Instant,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").field("recording", &self.recorded.is_some()).finish_non_exhaustive()
    }
}

impl Exposition {
    /// Installs the recorder, once. Where the embedder has installed one already, the page says so instead.
    pub(crate) fn install() -> Self {
        let recorded = RECORDER.get_or_init(|| {
            let recorded = record();
            if recorded.is_none() {
                tracing::warn!("another metrics recorder is installed in this process; the metrics page stays empty");
            }
            recorded
        });
        Self { recorded: recorded.clone(), started: Instant::now() }
    }

    pub(crate) fn text(&self) -> MetricsText {
        let this = self.clone();
        MetricsText::new(move || this.render())
    }

    fn render(&self) -> String {
        let Some(recorded) = &self.recorded else {
            return "# another metrics recorder is installed in this process\n".to_owned();
        };
        metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!(names::UPTIME).set(self.started.elapsed().as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            metrics::gauge!(names::RESIDENT).set(bytes);
        }
        if let Some(count) = open_files() {
            metrics::gauge!(names::OPEN_FILES).set(count);
        }
        let mut page = recorded.others.render();
        recorded.histograms.render(&mut page);
        page
    }
}

fn record() -> Option<Recorded> {
    let others = PrometheusBuilder::new().build_recorder();
    let histograms = Arc::new(Histograms::new(buckets(), &seconds()));
    let recorded = Recorded { others: others.handle(), histograms: Arc::clone(&histograms) };
    metrics::set_global_recorder(Recording { others, histograms }).ok()?;
    front::metrics::describe_metrics();
    millrace_registry::describe_metrics();
    metrics::describe_gauge!(names::CONNECTIONS, "Open connections.");
    metrics::describe_counter!(names::CONNECTIONS_REFUSED, "Connections refused because too many were open.");
    metrics::describe_counter!(names::ACCEPT_ERRORS, "Failures to accept a connection.");
    metrics::describe_gauge!(names::BUILD_INFO, "Always 1; the label says which version runs.");
    metrics::describe_gauge!(names::UPTIME, "Seconds since the server started.");
    metrics::describe_gauge!(names::RESIDENT, "Resident memory in bytes.");
    metrics::describe_gauge!(names::OPEN_FILES, "Open file descriptors.");
    Some(recorded)
}

/// 1 µs to 56 s, four limits to each factor of ten.
fn seconds() -> Vec<f64> {
    (0..32).map(|step| 1e-6 * 10_f64.powf(f64::from(step) / 4.0)).collect()
}

/// The bucket limits of every histogram family of ours.
fn buckets() -> Vec<(&'static str, Vec<f64>)> {
    let mut families = front::metrics::histogram_buckets();
    // 1 ms to 1000 s: loading reads files and compiles.
    let load_seconds: Vec<f64> = (0..25).map(|step| 1e-3 * 10_f64.powf(f64::from(step) / 4.0)).collect();
    let rows = (0..13).map(|power| 2_f64.powi(power)).collect();
    families.extend([
        (millrace_batching::QUEUE_SECONDS, seconds()),
        (millrace_batching::COMPUTE_SECONDS, seconds()),
        (millrace_batching::BATCH_ROWS, rows),
        (millrace_registry::LOAD_SECONDS, load_seconds),
    ]);
    families
}

/// Resident memory, where the system tells.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1024.0)
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}
