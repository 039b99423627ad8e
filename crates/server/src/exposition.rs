//! The metrics page: the process's one Prometheus recorder, and what the process says about itself.
//!
//! Crates record through the `metrics` facade; names and buckets are theirs. Only the text is made here.

use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use millrace_http::MetricsText;
use millrace_protocol::front;
use tokio::time::{Instant, MissedTickBehavior};

use crate::names;

/// How often recorded values are folded into histograms; until then they take memory.
const UPKEEP: Duration = Duration::from_secs(1);

/// The recorder is the process's: `metrics` has one for all.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The process's metrics page.
#[derive(Clone)]
pub(crate) struct Exposition {
    handle: Option<PrometheusHandle>,
    started: Instant,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").field("recording", &self.handle.is_some()).finish_non_exhaustive()
    }
}

impl Exposition {
    /// Installs the recorder, once. Where the embedder has installed one already, the page says so instead.
    pub(crate) fn install() -> Self {
        let handle = RECORDER.get_or_init(|| {
            let handle = recorder();
            if handle.is_none() {
                tracing::warn!("another metrics recorder is installed in this process; the metrics page stays empty");
            }
            handle
        });
        Self { handle: handle.clone(), started: Instant::now() }
    }

    pub(crate) fn text(&self) -> MetricsText {
        let this = self.clone();
        MetricsText::new(move || this.render())
    }

    /// Keeps the recorder's memory bounded. Runs until dropped.
    pub(crate) async fn keep_up(self) {
        let Some(handle) = self.handle else { return };
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    }

    fn render(&self) -> String {
        let Some(handle) = &self.handle else {
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
        handle.render()
    }
}

fn recorder() -> Option<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in buckets() {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(name.to_owned()), &bounds)
            .expect("no list of buckets is empty");
    }
    let handle = builder.install_recorder().ok()?;
    front::metrics::describe_metrics();
    millrace_registry::describe_metrics();
    metrics::describe_gauge!(names::CONNECTIONS, "Open connections.");
    metrics::describe_counter!(names::CONNECTIONS_REFUSED, "Connections refused because too many were open.");
    metrics::describe_counter!(names::ACCEPT_ERRORS, "Failures to accept a connection.");
    metrics::describe_gauge!(names::BUILD_INFO, "Always 1; the label says which version runs.");
    metrics::describe_gauge!(names::UPTIME, "Seconds since the server started.");
    metrics::describe_gauge!(names::RESIDENT, "Resident memory in bytes.");
    metrics::describe_gauge!(names::OPEN_FILES, "Open file descriptors.");
    Some(handle)
}

/// The bucket limits of every histogram family. One without limits here would become a summary.
fn buckets() -> Vec<(&'static str, Vec<f64>)> {
    let mut families = front::metrics::histogram_buckets();
    // 1 µs to 56 s, four limits to each factor of ten.
    let seconds: Vec<f64> = (0..32).map(|step| 1e-6 * 10_f64.powf(f64::from(step) / 4.0)).collect();
    // 1 ms to 1000 s: loading reads files and compiles.
    let load_seconds: Vec<f64> = (0..25).map(|step| 1e-3 * 10_f64.powf(f64::from(step) / 4.0)).collect();
    let rows = (0..13).map(|power| 2_f64.powi(power)).collect();
    families.extend([
        (millrace_batching::QUEUE_SECONDS, seconds.clone()),
        (millrace_batching::COMPUTE_SECONDS, seconds),
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
