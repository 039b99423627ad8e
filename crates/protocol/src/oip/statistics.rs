//! What versions have done, in Triton's terms.
//!
//! Times of computing are counted per run here and cumulative per request there. The view scales them: the rows of every
//! run are taken to come from requests of average size, which is exact where all requests are alike. The rows per batch
//! size are counted per run on both sides and are exact.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_core::{Catalog, ModelRef, ModelStatus, Reason, Refusal, VersionChoice, VersionState, VersionStatus};

use super::failure::Failure;
use crate::tfs::Bare;

/// How often something happened and the nanoseconds that it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// The totals over all requests of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InferTotals {
    /// Requests answered.
    pub success: StatisticDuration,
    /// Requests that were queued and failed.
    pub fail: StatisticDuration,
    /// Waiting in the queue.
    pub queue: StatisticDuration,
    /// Gathering inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Handing out outputs.
    pub compute_output: StatisticDuration,
}

/// The runs of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchRow {
    /// Rows of each run.
    pub batch_size: u64,
    /// Gathering inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Handing out outputs.
    pub compute_output: StatisticDuration,
}

/// Memory that a version holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The kind of memory, such as `CPU`.
    pub kind: &'static str,
    /// Which device.
    pub id: i64,
    /// How much.
    pub byte_size: u64,
}

/// What one version has done. Caches and decoupled answers there are none, so their rows are always zero or absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// When the last request was answered, in milliseconds since 1970; 0 for never.
    pub last_inference: u64,
    /// Rows of the requests answered.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    /// Totals over all requests.
    pub inference_stats: InferTotals,
    /// A row for each executed batch size, ascending.
    pub batch_stats: Vec<BatchRow>,
    /// Memory, by device.
    pub memory_usage: Vec<MemoryUsage>,
}

/// The statistics of every version of every model that can serve.
pub fn ready_statistics(catalog: &dyn Catalog) -> Vec<ModelStatistics> {
    catalog.models().iter().flat_map(ready_versions).collect()
}

/// The statistics of the versions of `model` that can serve, or of the one asked for.
///
/// # Errors
/// A [`Failure`] when the model or version is not known, or cannot serve.
pub fn model_statistics(catalog: &dyn Catalog, model: &ModelRef<'_>) -> Result<Vec<ModelStatistics>, Failure> {
    let name = Bare(model.name);
    let refuse =
        |reason, what: String| Failure::from(Refusal::new(reason, format!("requested {what} is not available")));
    let status = catalog.model(model.name);
    let status = status.ok_or_else(|| refuse(Reason::ModelUnknown, format!("model '{name}'")))?;
    let VersionChoice::Number(number) = model.version else {
        let found: Vec<_> = ready_versions(&status).collect();
        return if found.is_empty() { Err(refuse(Reason::NotReady, format!("model '{name}'"))) } else { Ok(found) };
    };
    let what = || format!("model '{name}' version {number}");
    match status.versions.iter().find(|version| version.version == number) {
        Some(version) if version.state == VersionState::Available => Ok(vec![view(&status, version)]),
        Some(_) => Err(refuse(Reason::NotReady, what())),
        None => Err(refuse(Reason::VersionUnknown, what())),
    }
}

fn ready_versions(status: &ModelStatus) -> impl Iterator<Item = ModelStatistics> {
    let is_ready = |version: &&VersionStatus| version.state == VersionState::Available;
    status.versions.iter().filter(is_ready).map(|version| view(status, version))
}

fn view(model: &ModelStatus, version: &VersionStatus) -> ModelStatistics {
    let statistics = &version.statistics;
    let runs = statistics.all_runs();
    let answered = statistics.answered.count;
    let per_request = |of: fn(&millrace_core::RunStatistics) -> Duration| {
        let weighted: u128 = statistics.runs.iter().map(|run| of(run).as_nanos() * u128::from(run.rows)).sum();
        // Rows of a run over rows of a request is how many requests the time counts for. What a run was padded with rode
        // along for nobody, so the rows of a request are those run, shared out.
        let ns = (weighted * u128::from(answered)).checked_div(u128::from(runs.rows)).unwrap_or(0);
        StatisticDuration { count: answered, ns: u64::try_from(ns).unwrap_or(u64::MAX) }
    };
    let total = |total: millrace_core::Total| StatisticDuration { count: total.count, ns: nanoseconds(total.time) };
    let row = |run: &millrace_core::RunStatistics| {
        let of = |time| StatisticDuration { count: run.count, ns: nanoseconds(time) };
        BatchRow {
            batch_size: run.rows,
            compute_input: of(run.gather),
            compute_infer: of(run.compute),
            compute_output: of(run.scatter),
        }
    };
    ModelStatistics {
        name: model.name.to_string(),
        version: version.version.to_string(),
        last_inference: statistics.last_answer.map_or(0, milliseconds),
        inference_count: statistics.rows,
        execution_count: runs.count,
        inference_stats: InferTotals {
            success: total(statistics.answered),
            fail: total(statistics.failed),
            queue: total(statistics.queue),
            compute_input: per_request(|run| run.gather),
            compute_infer: per_request(|run| run.compute),
            compute_output: per_request(|run| run.scatter),
        },
        batch_stats: statistics.runs.iter().map(row).collect(),
        memory_usage: vec![MemoryUsage { kind: "CPU", id: 0, byte_size: version.memory_bytes }],
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use millrace_core::{ModelStatus, RunStatistics, Total, VersionState, VersionStatistics, VersionStatus};

    use super::{StatisticDuration, view};

    fn status(statistics: VersionStatistics) -> VersionStatus {
        VersionStatus { statistics, memory_bytes: 9, ..VersionStatus::new(3, VersionState::Available) }
    }

    fn run(rows: u64, count: u64, compute: u64) -> RunStatistics {
        let compute = Duration::from_micros(compute);
        RunStatistics { rows, count, compute, gather: Duration::from_nanos(10 * count), scatter: Duration::ZERO }
    }

    #[test]
    fn a_request_counts_the_whole_run_it_rode_in() {
        // Six requests of one row: two alone for 100 µs each, four together for 300 µs.
        let statistics = VersionStatistics {
            answered: Total { count: 6, time: Duration::from_millis(2) },
            rows: 6,
            runs: vec![run(1, 2, 200), run(4, 1, 300)],
            last_answer: Some(UNIX_EPOCH + Duration::from_millis(1234)),
            ..VersionStatistics::default()
        };
        let seen = view(&ModelStatus::new("m".parse().unwrap()), &status(statistics));
        assert_eq!((seen.inference_count, seen.execution_count, seen.last_inference), (6, 3, 1234));
        assert_eq!(seen.inference_stats.success, StatisticDuration { count: 6, ns: 2_000_000 });
        assert_eq!(seen.inference_stats.compute_infer, StatisticDuration { count: 6, ns: 200_000 + 4 * 300_000 });
        assert_eq!(seen.inference_stats.compute_input, StatisticDuration { count: 6, ns: 20 + 40 });
        let rows: Vec<_> = seen.batch_stats.iter().map(|row| (row.batch_size, row.compute_infer)).collect();
        assert_eq!(
            rows,
            [(1, StatisticDuration { count: 2, ns: 200_000 }), (4, StatisticDuration { count: 1, ns: 300_000 })]
        );
        assert_eq!(seen.memory_usage[0].byte_size, 9);
    }

    #[test]
    fn a_version_that_has_done_nothing_is_all_zeros() {
        let seen = view(&ModelStatus::new("m".parse().unwrap()), &status(VersionStatistics::default()));
        assert_eq!((seen.inference_count, seen.execution_count, seen.last_inference), (0, 0, 0));
        assert_eq!(seen.inference_stats, super::InferTotals::default());
        assert_eq!(seen.batch_stats, []);
    }
}
