//! Whether idle cores make a model's runs shorter. Pure: predictions and times are handed in.
//!
//! Threads have a price: waking them, and what two runs side by side would have done better. So cores are lent only to
//! runs that are long enough, only while they make them clearly shorter, and never to every run: what is predicted is what
//! a run takes alone, and that must stay true. Which cores are idle is `pool`'s to know.

use std::time::Duration;

/// A run predicted to be shorter than this stays alone: waking a thread takes tens of microseconds.
const WORTH: Duration = Duration::from_micros(300);
/// Runs with lent cores must take less than this share of what they would take alone.
const GAIN: f64 = 0.9;
/// So many of them are evidence.
const EVIDENCE: u32 = 3;
/// Every so many runs one stays alone, so that the prediction keeps up.
const ALONE_EVERY: u32 = 32;
/// Where lending does not pay it is tried again after so many runs, and after twice as many each time that it still does
/// not: an engine may be busy making what it needs for more threads when it first gets them.
const RETRY_FIRST: u32 = 8;
/// The longest such wait.
const RETRY_LAST: u32 = 512;
/// The share forgets at this rate.
const FORGET: f64 = 0.25;
/// The same for runs that try again where it did not pay.
const RETRIED: f64 = 0.5;

/// What was learned about lending cores to the runs of one model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lending {
    /// Time with lent cores, as a share of the time predicted without.
    share: f64,
    lent_runs: u32,
    asked: u32,
    /// Runs to go until lending is tried again, where it does not pay.
    pause: u32,
    /// How many there were at the beginning of this pause.
    paused: u32,
}

impl Lending {
    /// Whether the next run, which is predicted to take so long alone, should get idle cores.
    pub(crate) fn wants(&mut self, predicted: Duration) -> bool {
        if predicted < WORTH {
            return false;
        }
        self.asked = self.asked.wrapping_add(1);
        if self.lent_runs <= EVIDENCE || self.share < GAIN {
            self.paused = 0;
            return !self.asked.is_multiple_of(ALONE_EVERY);
        }
        if self.pause == 0 {
            self.paused = (self.paused * 2).clamp(RETRY_FIRST, RETRY_LAST);
            self.pause = self.paused;
        }
        self.pause -= 1;
        self.pause == 0
    }

    /// Learns what a run with lent cores took that was predicted to take `predicted` alone.
    pub(crate) fn learn(&mut self, predicted: Duration, took: Duration) {
        self.lent_runs = self.lent_runs.saturating_add(1);
        // The first is cold: an engine makes what it needs for more threads when it first gets them.
        if self.lent_runs < 2 {
            return;
        }
        let share = took.as_secs_f64() / predicted.as_secs_f64().max(f64::MIN_POSITIVE);
        // What a retry finds counts for more: the last one is long ago.
        let rate = match (self.lent_runs, self.paused) {
            (2, _) => 1.0,
            (_, 0) => FORGET,
            (_, _) => RETRIED,
        };
        self.share += rate * (share.min(4.0) - self.share);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ALONE_EVERY, Lending, RETRY_LAST};

    const RUN: Duration = Duration::from_millis(10);

    /// How many of `runs` runs got cores, where those make a run take `share` of its time.
    fn lent(lending: &mut Lending, runs: u32, share: f64) -> u32 {
        (0..runs)
            .filter(|_| {
                let is_lent = lending.wants(RUN);
                if is_lent {
                    lending.learn(RUN, RUN.mul_f64(share));
                }
                is_lent
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn where_it_pays_all_but_a_few_runs_get_cores() {
        assert_eq!(lent(&mut Lending::default(), 10 * ALONE_EVERY, 0.6), 10 * (ALONE_EVERY - 1));
    }

    #[test]
    fn where_it_does_not_pay_it_is_tried_again_ever_less_often() {
        let mut lending = Lending::default();
        // Four trials, then one after 8, 16, 32, 64, 128, 256 and 512 runs.
        assert_eq!(lent(&mut lending, 4 + 1016, 1.0), 4 + 7);
        assert_eq!(lent(&mut lending, RETRY_LAST, 1.0), 1);
        // The machine has changed: now it would pay, which a few trials find out.
        lent(&mut lending, 4 * RETRY_LAST, 0.5);
        assert!(lent(&mut lending, RETRY_LAST, 0.5) > RETRY_LAST / 2);
    }

    #[test]
    fn an_engine_that_needs_time_to_get_ready_for_more_threads_gets_them_soon_after() {
        let mut lending = Lending::default();
        lent(&mut lending, 20, 1.0);
        lent(&mut lending, 100, 0.55);
        assert!(lent(&mut lending, 2 * ALONE_EVERY, 0.55) > ALONE_EVERY);
    }

    #[test]
    fn a_cold_first_run_does_not_count() {
        let mut lending = Lending::default();
        lending.learn(RUN, RUN * 100);
        assert_eq!(lent(&mut lending, ALONE_EVERY, 0.6), ALONE_EVERY - 1);
    }

    #[test]
    fn short_runs_stay_alone() {
        assert!((0..100).all(|_| !Lending::default().wants(Duration::from_micros(100))));
    }
}
