//! When the batches under way should end.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// One instant for each batch under way, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Ends {
    ends: SmallVec<[(Instant, u64); 4]>,
    batches: u64,
}

impl Ends {
    /// A batch begins that should end then. Returns its number, for [`Ends::remove`].
    pub(super) fn add(&mut self, end: Instant) -> u64 {
        self.batches += 1;
        let at = self.ends.partition_point(|(other, _)| *other <= end);
        self.ends.insert(at, (end, self.batches));
        self.batches
    }

    /// The batch of that number has ended.
    pub(super) fn remove(&mut self, number: u64) {
        self.ends.retain(|(_, other)| *other != number);
    }

    /// After how long one of `workers` is free for the batch that goes behind `before` others of so much time each.
    pub(super) fn free_in(&self, before: usize, each: Duration, workers: usize, now: Instant) -> Duration {
        let workers = workers.max(1);
        // Those that idle are free now. Where more batches are under way than there are workers left, the first to end have
        // none after them.
        let idle = workers.saturating_sub(self.ends.len());
        let surplus = self.ends.len().saturating_sub(workers);
        let turn = (before % workers).checked_sub(idle);
        let first = turn.and_then(|turn| self.ends.get(turn + surplus));
        let first = first.map_or(Duration::ZERO, |(end, _)| end.saturating_duration_since(now));
        let rounds = u32::try_from(before / workers).unwrap_or(u32::MAX);
        first.saturating_add(each.saturating_mul(rounds))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Ends;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_batch_begins_when_those_before_it_leave_a_worker_free() {
        let now = Instant::now();
        let mut ends = Ends::default();
        let free = |ends: &Ends, before, workers| ends.free_in(before, 10 * MS, workers, now);
        assert_eq!(free(&ends, 0, 1), Duration::ZERO);
        assert_eq!(free(&ends, 2, 1), 20 * MS);
        let late = ends.add(now + 9 * MS);
        let early = ends.add(now + 4 * MS);
        ends.add(now + 6 * MS);
        assert_eq!([0, 1, 2, 3].map(|before| free(&ends, before, 3)), [4 * MS, 6 * MS, 9 * MS, 14 * MS]);
        assert_eq!([0, 1, 4].map(|before| free(&ends, before, 4)), [Duration::ZERO, 4 * MS, 10 * MS]);
        assert_eq!([0, 1].map(|before| free(&ends, before, 2)), [6 * MS, 9 * MS], "one of two workers has gone");
        ends.remove(early);
        assert_eq!(free(&ends, 0, 2), 6 * MS);
        ends.remove(late);
        assert_eq!([0, 1].map(|before| free(&ends, before, 2)), [Duration::ZERO, 6 * MS]);
    }
}
