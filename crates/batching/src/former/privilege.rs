//! What urgent items may cost the others: a batch that is small for their sake is dearer per row than one that bulk fills.
//!
//! Whoever is urgent has waited for the batch that ran when it came, and would wait as long again for one that bulk fills for
//! the sake of throughput. A small batch instead is a loss to the others, of so many seconds as its rows would have taken less
//! in batches of the best size. They bear that as long as all such losses together stay a small share of the compute time, and
//! each a part of its own batch: on an engine that needs large batches, small ones would win the urgent little and cost the
//! others nearly everything. Where some will be late anyway, every second lost is an answer lost, and nobody has a privilege.

use std::time::{Duration, Instant};

use super::BatchFormer;
use crate::cost::duration;

/// So many seconds may what is less urgent add to a batch of what is more.
const COMPANY: f64 = 2e-3;
/// Or such a share of its time, where that is more.
const COMPANY_SHARE: f64 = 0.1;
/// Such a share of all compute time may be lost.
const SHARE: f64 = 0.05;
/// Seconds of it that are saved up.
const MOST: f64 = 0.25;
/// Somebody may be late where what is queued has less time left, in the mean, than so many times what it takes.
const PRESSED: f64 = 4.0;
/// Such a share of its own time may one batch lose.
const DEAR: f64 = 0.3;

/// Seconds that may still be lost. What is lost was saved before.
#[derive(Debug, Default)]
pub(super) struct Privilege(f64);

impl Privilege {
    /// A batch that takes about so long is about to run, by which the others lose so many seconds.
    pub(super) fn spend(&mut self, batch: Option<Duration>, loss: f64) {
        let earned = SHARE * batch.unwrap_or_default().as_secs_f64();
        self.0 = (self.0 + earned).min(MOST) - loss;
    }
}

impl<T> BatchFormer<T> {
    /// How many of `limit` rows a batch should have that the entry `leader` of `group` leads, and how many seconds the others
    /// lose by that.
    pub(super) fn privileged(&self, group: usize, leader: usize, limit: usize, now: Instant) -> (usize, f64) {
        let all = (limit, 0.0);
        let Some(leader) = self.order.get(leader) else { return all };
        let urgent = self.order.load_before(leader.priority);
        let is_pressed = || self.order.mean_left(group, now) < PRESSED * self.backlog().as_secs_f64();
        if urgent.entries == self.order.load().entries || is_pressed() {
            return all;
        }
        let number = group / 2;
        let own = urgent.work.min(self.order.group_load(group).work).min(limit);
        let Some(alone) = self.groups.predict(number, own) else { return all };
        let time = alone.mean + COMPANY.max(alone.mean * COMPANY_SHARE);
        let rows = self.groups.fitting(number, limit, duration(time)).max(own);
        let Some(run) = self.groups.predict(number, rows) else { return all };
        let loss = (run.mean - self.groups.cost(number).row_seconds() * rows as f64).max(0.0);
        if loss > self.privilege.0 || loss > run.mean * DEAR { all } else { (rows, loss) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::Priority;

    use super::super::tests::{arrival, config, group, ms, run, teach};
    use super::super::{Arrival, BatchFormer};
    use crate::{Waiting, clock};

    const URGENT: Priority = Priority(0);
    const BULK: Priority = Priority(9);

    /// A queue that knows its engine and has had 20 batches of bulk to earn by.
    fn taught(price: impl Fn(usize) -> Duration) -> BatchFormer<usize> {
        let (mut former, start) = (BatchFormer::new(config(64, Waiting::Learned)), clock::now());
        teach(&mut former, &[1, 2, 4, 8, 16, 32, 64], price, start);
        for _ in 0..20 {
            led_by(&mut former, BULK);
        }
        former
    }

    /// The rows of a batch that someone of `priority` leads with 100 rows of bulk behind. The queue is empty then.
    fn led_by(former: &mut BatchFormer<usize>, priority: Priority) -> usize {
        led_within(former, priority, None)
    }

    /// The same where everybody has so long.
    fn led_within(former: &mut BatchFormer<usize>, priority: Priority, time: Option<Duration>) -> usize {
        let (now, only) = (clock::now(), group(0));
        let bulk = (0..100).map(|_| BULK);
        for priority in std::iter::once(priority).chain(bulk) {
            let deadline = time.map(|time| now + time);
            former.push(0, Arrival { priority, deadline, ..arrival(&only, 1) }, now);
        }
        let formed = run(former, now);
        former.complete(formed.key);
        former.drain();
        formed.rows
    }

    #[test]
    fn bulk_rides_with_the_urgent_where_it_takes_them_no_longer() {
        // 0.5 ms for each run, and 4 ms for each row.
        let mut slow = taught(|rows| Duration::from_micros(500 + 4000 * rows as u64));
        assert_eq!(led_by(&mut slow, URGENT), 1);
        assert!(led_by(&mut slow, BULK) > 1, "bulk is as ever");
        // 10 and 100 µs: 2 ms for the sake of others are 20 rows.
        let mut quick = taught(|rows| Duration::from_micros(10 + 100 * rows as u64));
        assert!((2..=22).contains(&led_by(&mut quick, URGENT)));
    }

    #[test]
    fn an_engine_that_needs_large_batches_has_them() {
        let mut steep = taught(|rows| ms(20) + Duration::from_micros(10 * rows as u64));
        assert_eq!(led_by(&mut steep, URGENT), led_by(&mut steep, BULK));
    }

    #[test]
    fn where_some_will_be_late_no_second_is_lost() {
        let mut former = taught(|rows| Duration::from_micros(500 + 4000 * rows as u64));
        assert_eq!(led_within(&mut former, URGENT, Some(ms(10_000))), 1);
        assert!(led_within(&mut former, URGENT, Some(ms(500))) > 1);
    }

    #[test]
    fn what_the_urgent_cost_the_others_stays_a_small_share() {
        let price = |rows: usize| Duration::from_micros(2000 + 8000 * rows as u64);
        let mut former = taught(price);
        let rows: Vec<usize> = (0..400).map(|_| led_by(&mut former, URGENT)).collect();
        let (alone, all) = (rows.iter().filter(|rows| **rows == 1).count(), rows.iter().sum::<usize>());
        assert!(alone > 50 && rows.iter().any(|rows| *rows > 1), "{alone} of {} are alone", rows.len());
        // As if all rows had run in batches of the best size.
        let least = price(64).as_secs_f64() / 64.0 * all as f64;
        let taken: f64 = rows.iter().map(|rows| price(*rows).as_secs_f64()).sum();
        assert!(taken < least * 1.12, "{taken} s in place of {least}");
    }
}
