//! Counts of one version, in atomics: read without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_core::{Total, VersionStatistics};

#[derive(Debug, Default)]
pub(crate) struct Statistics {
    answered: AtomicU64,
    refused: AtomicU64,
    rows: AtomicU64,
    batches: AtomicU64,
    queue_nanos: AtomicU64,
    compute_nanos: AtomicU64,
}

impl Statistics {
    /// Counts a request that was refused or failed.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was answered, with its times.
    pub(crate) fn answered(&self, queue: Duration, compute: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.queue_nanos.fetch_add(nanos(queue), Ordering::Relaxed);
        self.compute_nanos.fetch_add(nanos(compute), Ordering::Relaxed);
    }

    /// Adds runs of the backend with their rows, padding included.
    pub(crate) fn ran(&self, runs: usize, rows: usize) {
        self.batches.fetch_add(runs as u64, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> VersionStatistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let queue = Duration::from_nanos(read(&self.queue_nanos));
        let compute = Duration::from_nanos(read(&self.compute_nanos));
        VersionStatistics {
            answered: Total { count: read(&self.answered), time: queue + compute },
            refused: read(&self.refused),
            rows: read(&self.rows),
            queue: Total { count: read(&self.answered), time: queue },
            ..VersionStatistics::default()
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
