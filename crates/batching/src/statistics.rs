//! Counts of one version: of its requests in atomics, of its runs by size in a short list that the queue's lock guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use millrace_core::{RunStatistics, Total, VersionStatistics};

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
}

/// The runs of one version by their size, ascending.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<Size>);

#[derive(Debug)]
struct Size {
    known: RunStatistics,
    scatter: Scatter,
}

/// Where the time goes that giving the answers of a run took: it is known only after the queue's lock is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scatter(Arc<AtomicU64>);

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

    /// Some request is answered `now`.
    pub(crate) fn answers(&self, now: Instant) {
        let since = nanos(now.saturating_duration_since(self.began)).max(1);
        self.last_answer.fetch_max(since, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, runs: Vec<RunStatistics>) -> VersionStatistics {
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
            runs,
            // From the present backwards, so that a wall clock that was set meanwhile shows the right time.
            last_answer: ago.and_then(|ago| SystemTime::now().checked_sub(ago)),
        }
    }
}

impl Runs {
    /// Counts the runs of one batch, each with its rows, padding included, and its time. The first began `gather` after the
    /// batch was formed. Gives where the time of answering goes, if there was a run.
    pub(crate) fn ran(&mut self, runs: &[(usize, Duration)], mut gather: Duration) -> Option<Scatter> {
        let mut last = None;
        for (rows, compute) in runs {
            let index = self.index(*rows as u64);
            let size = &mut self.0[index].known;
            size.count += 1;
            size.compute += *compute;
            size.gather += std::mem::take(&mut gather);
            last = Some(index);
        }
        last.map(|index| self.0[index].scatter.clone())
    }

    pub(crate) fn read(&self) -> Vec<RunStatistics> {
        let scatter = |size: &Size| Duration::from_nanos(size.scatter.0.load(Ordering::Relaxed));
        self.0.iter().map(|size| RunStatistics { scatter: scatter(size), ..size.known }).collect()
    }

    /// Where runs of `rows` rows are counted; made where there is none and there is room.
    fn index(&mut self, rows: u64) -> usize {
        match self.0.binary_search_by_key(&rows, |size| size.known.rows) {
            Ok(index) => index,
            Err(index) if self.0.len() < SIZES => {
                let known = RunStatistics { rows, ..RunStatistics::default() };
                self.0.insert(index, Size { known, scatter: Scatter::default() });
                index
            }
            Err(index) => index.saturating_sub(1),
        }
    }
}

impl Scatter {
    pub(crate) fn add(&self, time: Duration) {
        self.0.fetch_add(nanos(time), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Runs, SIZES, Statistics};
    use crate::clock;

    #[test]
    fn runs_are_told_apart_by_size_in_ascending_order() {
        let mut runs = Runs::default();
        let tick = Duration::from_micros(1);
        for rows in [8, 1, 8, 3] {
            runs.ran(&[(rows, 5 * tick)], tick).unwrap().add(2 * tick);
        }
        runs.ran(&[(1, tick), (1, tick)], tick).unwrap().add(tick);
        assert!(runs.ran(&[], tick).is_none());
        let read = runs.read();
        let sizes: Vec<_> = read.iter().map(|run| (run.rows, run.count)).collect();
        assert_eq!(sizes, [(1, 3), (3, 1), (8, 2)]);
        assert_eq!((read[0].gather, read[0].compute, read[0].scatter), (2 * tick, 7 * tick, 3 * tick));
    }

    #[test]
    fn so_many_sizes_and_no_more_are_told_apart() {
        let mut runs = Runs::default();
        for rows in 1..=2 * SIZES {
            runs.ran(&[(rows, Duration::ZERO)], Duration::ZERO);
        }
        let read = runs.read();
        assert_eq!((read.len(), read.iter().map(|run| run.count).sum::<u64>()), (SIZES, 2 * SIZES as u64));
    }

    #[test]
    fn the_last_answer_is_told_in_wall_clock_time() {
        let statistics = Statistics::new(clock::now());
        assert_eq!(statistics.read(Vec::new()).last_answer, None);
        let before = std::time::SystemTime::now();
        statistics.answers(clock::now());
        let told = statistics.read(Vec::new()).last_answer.unwrap();
        let off = told.duration_since(before).unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
    }
}
