//! Counts of one version: of its requests in atomics, of its runs by size in a short list.
//!
//! The list's lock is the version's own and is taken twice per run, never per request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use millrace_core::{RunStatistics, Total, VersionStatistics};
use parking_lot::Mutex;

use crate::clock;

/// How many sizes of runs are told apart. Only models that are not batched, or whose requests are larger than a batch may
/// be, can have more; their further sizes are counted with a neighbouring one.
const SIZES: usize = 1024;

#[derive(Debug)]
pub(crate) struct Statistics {
    /// What the instant of the last answer is counted from.
    began: Instant,
    answered: Times,
    failed: Times,
    refused: AtomicU64,
    rows: AtomicU64,
    queue_nanos: AtomicU64,
    /// Nanoseconds from `began` to the last answer; zero before the first.
    last_answer: AtomicU64,
    /// Ascending by rows.
    runs: Mutex<Vec<RunStatistics>>,
}

#[derive(Debug, Default)]
struct Times {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Times {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }

    fn read(&self) -> Total {
        let count = self.count.load(Ordering::Relaxed);
        Total { count, time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

impl Statistics {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            answered: Times::default(),
            failed: Times::default(),
            refused: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            queue_nanos: AtomicU64::new(0),
            last_answer: AtomicU64::new(0),
            runs: Mutex::default(),
        }
    }

    /// Counts a request that was refused at the door.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was queued for so long and got no answer.
    pub(crate) fn failed(&self, time: Duration) {
        self.failed.add(time);
    }

    /// Counts a request of `rows` rows that was answered after `time`, of which it spent `queue` in the queue.
    pub(crate) fn answered(&self, rows: usize, queue: Duration, time: Duration) {
        self.answered.add(time);
        self.queue_nanos.fetch_add(nanos(queue), Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Counts the runs of one batch, each with its rows, padding included, and its time. The first began `gather` after the
    /// batch was formed, and some request is answered `now`.
    pub(crate) fn ran(&self, runs: &[(usize, Duration)], gather: Duration, now: Instant) {
        if runs.is_empty() {
            return;
        }
        let since = nanos(now.saturating_duration_since(self.began)).max(1);
        self.last_answer.fetch_max(since, Ordering::Relaxed);
        let mut known = self.runs.lock();
        for (index, (rows, compute)) in runs.iter().enumerate() {
            let size = size(&mut known, *rows as u64);
            size.count += 1;
            size.compute += *compute;
            if index == 0 {
                size.gather += gather;
            }
        }
    }

    /// Adds how long giving the answers took to runs of `rows` rows.
    pub(crate) fn scattered(&self, rows: usize, time: Duration) {
        size(&mut self.runs.lock(), rows as u64).scatter += time;
    }

    pub(crate) fn read(&self) -> VersionStatistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let answered = self.answered.read();
        let ago = Some(read(&self.last_answer)).filter(|nanos| *nanos > 0).map(|nanos| {
            let at = self.began + Duration::from_nanos(nanos);
            clock::now().saturating_duration_since(at)
        });
        VersionStatistics {
            answered,
            failed: self.failed.read(),
            refused: read(&self.refused),
            rows: read(&self.rows),
            queue: Total { count: answered.count, time: Duration::from_nanos(read(&self.queue_nanos)) },
            runs: self.runs.lock().clone(),
            // From the present backwards, so that a wall clock that was set meanwhile shows the right time.
            last_answer: ago.and_then(|ago| SystemTime::now().checked_sub(ago)),
        }
    }
}

/// The entry for runs of `rows` rows, made where there is none and there is room.
fn size(runs: &mut Vec<RunStatistics>, rows: u64) -> &mut RunStatistics {
    let index = match runs.binary_search_by_key(&rows, |run| run.rows) {
        Ok(index) => index,
        Err(index) if runs.len() < SIZES => {
            runs.insert(index, RunStatistics { rows, ..RunStatistics::default() });
            index
        }
        Err(index) => index.saturating_sub(1),
    };
    &mut runs[index]
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SIZES, Statistics};
    use crate::clock;

    #[test]
    fn runs_are_told_apart_by_size_in_ascending_order() {
        let (statistics, now) = (Statistics::new(clock::now()), clock::now());
        let tick = Duration::from_micros(1);
        for rows in [8, 1, 8, 3] {
            statistics.ran(&[(rows, 5 * tick)], tick, now);
            statistics.scattered(rows, 2 * tick);
        }
        statistics.ran(&[(1, tick), (1, tick)], tick, now);
        let read = statistics.read();
        let sizes: Vec<_> = read.runs.iter().map(|run| (run.rows, run.count)).collect();
        assert_eq!(sizes, [(1, 3), (3, 1), (8, 2)]);
        let one = read.runs[0];
        assert_eq!((one.gather, one.compute, one.scatter), (2 * tick, 7 * tick, 2 * tick));
        assert_eq!((read.all_runs().count, read.all_runs().rows), (6, 22));
    }

    #[test]
    fn so_many_sizes_and_no_more_are_told_apart() {
        let (statistics, now) = (Statistics::new(clock::now()), clock::now());
        for rows in 1..=2 * SIZES {
            statistics.ran(&[(rows, Duration::ZERO)], Duration::ZERO, now);
            statistics.scattered(rows, Duration::ZERO);
        }
        let runs = statistics.read().runs;
        assert_eq!((runs.len(), runs.iter().map(|run| run.count).sum::<u64>()), (SIZES, 2 * SIZES as u64));
    }

    #[test]
    fn the_last_answer_is_told_in_wall_clock_time() {
        let statistics = Statistics::new(clock::now());
        assert_eq!(statistics.read().last_answer, None);
        let before = std::time::SystemTime::now();
        statistics.ran(&[(1, Duration::ZERO)], Duration::ZERO, clock::now());
        let told = statistics.read().last_answer.unwrap();
        let off = told.duration_since(before).unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
    }
}
