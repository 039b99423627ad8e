//! What came of the requests of one stream in one piece of time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Counts and times while they grow. Times are microseconds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that the timetable held.
    pub(crate) due: u64,
    /// Answered rightly and in time.
    pub(crate) good: u64,
    /// Answered rightly, but too late.
    pub(crate) late: u64,
    /// The latency of each right answer, late ones included.
    pub(crate) latencies: Vec<u32>,
    /// Not asked, because the deadline was over before there was room to.
    pub(crate) given_up: u64,
    /// Refused, by status: the latency of each.
    pub(crate) refused: BTreeMap<u16, Vec<u32>>,
    /// Connections that broke, or answers that nobody understands.
    pub(crate) broken: u64,
    /// Requests that were refused first and asked again as the answer said, and how many of them were answered rightly.
    pub(crate) retried: u64,
    pub(crate) retried_good: u64,
    /// How much later than it held each the timetable came to it: by how much the generator was too slow.
    pub(crate) lag: Vec<u32>,
    /// Rightly answered in each tenth of a second of the piece.
    pub(crate) timeline: Vec<u32>,
}

/// The same, summed up.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    due: u64,
    good: u64,
    good_per_second: f64,
    late: u64,
    given_up: u64,
    refused: BTreeMap<u16, u64>,
    broken: u64,
    /// Neither answered nor refused when the waiting was over.
    unanswered: u64,
    retried: u64,
    retried_good: u64,
    latency_us: Option<Quantiles>,
    refusal_us: Option<Quantiles>,
    lag_us: Option<Quantiles>,
    /// Rightly answered in each tenth of a second.
    timeline: Vec<u32>,
}

/// Of a list of times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    mean: f64,
    p50: u32,
    p90: u32,
    p99: u32,
    p999: u32,
    max: u32,
}

impl Tally {
    /// Counts a right answer, `at` so far into the piece.
    pub(crate) fn good(&mut self, latency: Duration, at: Duration) {
        self.good += 1;
        self.latencies.push(micros(latency));
        let tenth = usize::try_from(at.as_millis() / 100).unwrap_or(usize::MAX).min(100_000);
        if self.timeline.len() <= tenth {
            self.timeline.resize(tenth + 1, 0);
        }
        self.timeline[tenth] += 1;
    }

    /// Counts a right answer that came too late.
    pub(crate) fn late(&mut self, latency: Duration) {
        self.late += 1;
        self.latencies.push(micros(latency));
    }

    /// Counts a refusal.
    pub(crate) fn refused(&mut self, status: u16, latency: Duration) {
        self.refused.entry(status).or_default().push(micros(latency));
    }

    /// Sums up a piece of so many seconds.
    pub(crate) fn summary(self, seconds: f64) -> Summary {
        let refused: BTreeMap<u16, u64> =
            self.refused.iter().map(|(status, times)| (*status, times.len() as u64)).collect();
        let good = self.good;
        let ended = good + self.late + self.given_up + self.broken + refused.values().sum::<u64>();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵³")]
        let good_per_second = good as f64 / seconds;
        Summary {
            due: self.due,
            good,
            good_per_second,
            late: self.late,
            given_up: self.given_up,
            refused,
            broken: self.broken,
            unanswered: self.due.saturating_sub(ended),
            retried: self.retried,
            retried_good: self.retried_good,
            latency_us: Quantiles::of(self.latencies),
            refusal_us: Quantiles::of(self.refused.into_values().flatten().collect()),
            lag_us: Quantiles::of(self.lag),
            timeline: self.timeline,
        }
    }
}

impl Quantiles {
    /// `None` of nothing.
    pub(crate) fn of(mut times: Vec<u32>) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        // The smallest time that at least so many per mille do not exceed.
        let at = |per_mille: usize| times[((last + 1) * per_mille).div_ceil(1000).saturating_sub(1)];
        #[expect(clippy::cast_precision_loss, reason = "counts and sums are far below 2⁵³")]
        let mean = times.iter().map(|time| u64::from(*time)).sum::<u64>() as f64 / times.len() as f64;
        Some(Self { mean, p50: at(500), p90: at(900), p99: at(990), p999: at(999), max: times[last] })
    }
}

pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Quantiles, Tally};

    #[test]
    fn quantiles_are_times_that_were_measured() {
        assert_eq!(Quantiles::of(Vec::new()), None);
        let of_hundred = Quantiles::of((1..=100).rev().collect()).unwrap();
        assert_eq!(of_hundred, Quantiles { mean: 50.5, p50: 50, p90: 90, p99: 99, p999: 100, max: 100 });
        assert_eq!(Quantiles::of(vec![7]).unwrap().p50, 7);
    }

    #[test]
    fn every_request_that_was_due_is_accounted_for() {
        let mut tally = Tally { due: 7, given_up: 1, broken: 1, ..Tally::default() };
        tally.late(Duration::from_millis(9));
        tally.good(Duration::from_millis(2), Duration::from_millis(250));
        tally.refused(503, Duration::from_millis(1));
        let summary = tally.summary(2.0);
        assert_eq!((summary.good, summary.unanswered, summary.good_per_second), (1, 2, 0.5));
        assert_eq!(summary.latency_us.unwrap().max, 9000);
        assert_eq!(summary.timeline, [0, 0, 1]);
        assert_eq!(summary.refused[&503], 1);
    }
}
