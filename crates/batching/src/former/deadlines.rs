//! What deadlines decide: who is let in, and who is given up so that others are in time.
//!
//! Both questions have one reason. While more comes than can be done, somebody will be late; throughput is highest where that
//! is whoever would keep a batch small, because a batch of half the rows takes more than half the time. The door turns away
//! those who would not be in time behind what waits already, as far as that can be known when they come; what it could not
//! know (runs that took longer, others that came meanwhile) is put right when a batch is formed, at the cost of the leader.

use std::time::{Duration, Instant};

use millrace_core::Group;

use super::punctuality::Punctuality;
use super::{Arrival, BatchFormer};
use crate::cost::{duration, whole};
use crate::order::Forecast;

/// After so many runs of a group nobody is given up on the ground of a guess.
const KNOWN: u64 = 8;
/// A batch that is small for the sake of one deadline may cost so many times as much per row where others would be late
/// for it: smaller differences are within what predictions are wrong by.
const DEAR: f64 = 1.03;
/// While others are refused there is no time to spare: a batch that costs so many times as much per row is not run for one
/// deadline, though all that is queued could bear it. Those who come would be refused for it, and the queue would stay so
/// long that the next batches are as small.
const FAR_TOO_DEAR: f64 = 1.25;
/// Predictions are not so good that a request is refused for a wait shorter than this.
const SHORT_WAIT: Duration = Duration::from_millis(10);
/// Among so many callers nobody is passed by newcomers.
const FEW_CALLERS: usize = 2;
/// How often a forecast for several workers is made, each time with batches as small as the wait that it found before leaves
/// time for: there it is many batches that go before, and small ones make the queue long, which makes them small. One worker's
/// next batch ends so late that the first forecast has seen most of that.
const LOOKS: usize = 2;
/// What waits is counted at its cheapest. In small batches it takes longer, but hardly ever so many times.
const DEAREST: u32 = 100;

impl<T> BatchFormer<T> {
    /// How long the answer to an item that came now would take, where that is longer than the item has: it had better be
    /// refused at once.
    pub fn is_late(&self, arrival: &Arrival<'_>, now: Instant) -> Option<Duration> {
        let left = arrival.deadline?.saturating_duration_since(now);
        let (forecast, run) = self.long_wait(arrival, now)?;
        let takes = self.punctuality.surely(forecast).saturating_add(run);
        (takes > left).then_some(takes)
    }

    /// What [`BatchFormer::answer_in`] says, unless the wait is short or there is no deadline.
    pub(super) fn long_wait(&self, arrival: &Arrival<'_>, now: Instant) -> Option<(Forecast, Duration)> {
        let left = arrival.deadline?.saturating_duration_since(now);
        let short = SHORT_WAIT.min(left / 4);
        let worst = self.backlog().saturating_mul(DEAREST).saturating_add(self.busy(now));
        // Nearly always one of both holds, and then every request is spared the reckoning.
        if worst < short {
            return None;
        }
        let own = self.time_of(arrival.group, arrival.work).saturating_mul(DEAREST);
        if Punctuality::at_most(worst).saturating_add(own) < left {
            return None;
        }
        let (wait, run) = self.answer_in(arrival, now);
        // Of few callers nearly all wait already, and the forecast has counted their turns.
        let (callers, own) = self.order.turns(arrival.priority, arrival.caller);
        (wait >= short).then_some((Forecast { wait, is_passed: own > 0 && callers > FEW_CALLERS }, run))
    }

    /// How long it takes until a worker is free.
    fn busy(&self, now: Instant) -> Duration {
        self.ends.free_in(0, Duration::ZERO, self.config.workers, now)
    }

    /// How long an item that came now would wait for its run, and how long that would take with all that would ride along.
    ///
    /// Batches leave whole: whoever comes behind a full one waits for all of it, however few rows are ahead.
    pub fn answer_in(&self, arrival: &Arrival<'_>, now: Instant) -> (Duration, Duration) {
        let number = self.groups.find(arrival.group).unwrap_or(usize::MAX);
        let busy = self.busy(now);
        let turn = self.wait_of(arrival.priority, arrival.caller);
        let run = |work: usize| self.groups.predict(number, work);
        let cost = self.groups.cost(number);
        let shared = if self.config.is_batched { self.config.most_work() } else { 0 };
        let most = cost.best_rows().min(cost.reach()).min(shared).max(arrival.work);
        // What goes before it, as work of its own group; with several groups that is an estimate.
        let workers = self.config.workers.max(1) as f64;
        let row = cost.row_seconds();
        let ahead = if row > 0.0 { whole(turn.as_secs_f64() * workers / row) } else { 0 };
        let all = ahead.saturating_add(arrival.work);
        let Some(together) = run(all.min(most)) else { return (busy.saturating_add(turn), Duration::ZERO) };
        let together = duration(together.likely);
        let left = |wait: Duration| arrival.deadline.map(|deadline| deadline.saturating_duration_since(now + wait));
        if all <= most && left(busy).is_none_or(|left| together <= left) {
            return (busy, together);
        }
        // Not all ride in the next batch. The largest that this item could lead and be in time is what the batches before
        // it have at least: they are led by others that came earlier.
        let (mut wait, mut rides) = (busy, arrival.work);
        for _ in 0..if self.config.workers > 1 { LOOKS } else { 1 } {
            let size = left(wait).map_or(most, |left| self.groups.fitting(number, most, left)).max(arrival.work);
            let before = (all - 1) / size;
            rides = (all - before * size).max(arrival.work);
            let each = run(size).map_or(0.0, |run| run.mean);
            // When its worker is free; but those that are free soon, after small batches, will then be busy as long as others.
            let free = self.ends.free_in(before, duration(each), self.config.workers, now);
            wait = free.max(busy.saturating_add(self.shared(each * before as f64)));
        }
        (wait, run(rides).map_or(together, |run| duration(run.likely)))
    }

    /// After how many whole seconds whoever is refused now should come again: not before what is queued will have been done,
    /// and not with all others who are refused. `None` where nothing is known about run times.
    pub fn retry_after(&mut self, group: &Group, work: usize, now: Instant) -> Option<Duration> {
        self.punctuality.refused();
        let number = self.groups.find(group).unwrap_or(usize::MAX);
        let seconds = self.groups.cost(number).row_seconds() * work as f64;
        if seconds <= 0.0 {
            return None;
        }
        let (seconds, backlog) = (self.shared(seconds).as_secs_f32(), self.backlog());
        Some(self.promises.promise(seconds, backlog, now))
    }

    /// Whether the entry `id`, which would lead the next batch of `group`, had better be told at once that it is late: it
    /// would be, even if it ran alone now; or more is queued, or comes, than can be done in time in batches small enough for
    /// it, and larger ones would do more.
    pub(super) fn is_hopeless(&self, group: usize, id: usize, limit: usize, now: Instant) -> bool {
        let number = group / 2;
        let Some(entry) = self.order.get(id) else { return false };
        let Some(deadline) = entry.deadline else { return false };
        if self.groups.get(number).is_none_or(|known| known.cost().runs() < KNOWN) {
            return false;
        }
        let queued = self.order.group_load(group);
        if queued.entries == 1 {
            // Somebody has to find out whether runs have become quicker.
            return false;
        }
        let left = deadline.saturating_duration_since(now).as_secs_f64();
        let run = |work: usize| self.groups.predict(number, work);
        let Some(alone) = run(entry.work) else { return false };
        if alone.least > left {
            return true;
        }
        let size = queued.work.min(limit).max(entry.work);
        let (Some(whole), false) = (run(size), limit == 0) else { return false };
        if whole.likely <= left {
            return false;
        }
        // The largest batch that would be done in time for it.
        let (mut fits, mut fails) = (entry.work, size);
        while fails - fits > 1 {
            let middle = usize::midpoint(fits, fails);
            if run(middle).is_some_and(|run| run.likely <= left) {
                fits = middle;
            } else {
                fails = middle;
            }
        }
        let Some(detour) = run(fits) else { return false };
        let per_row = whole.mean / size as f64;
        let times = detour.mean / fits as f64 / per_row;
        // The door of several workers foresees small batches, and what comes can bear them.
        if times > FAR_TOO_DEAR && self.config.workers == 1 && self.punctuality.is_refusing() {
            return true;
        }
        // That batch first, then all that is queued in larger ones; or, where those behind it are in as much of a hurry, in
        // more of its kind. Shared among the workers.
        let first = detour.mean + per_row * queued.work as f64;
        let throughout = detour.mean / fits as f64 * queued.work as f64;
        let workers = self.config.workers.max(1) as f64;
        let all = (first.max(throughout) / workers).max(detour.mean);
        times > DEAR && self.order.mean_left(group, now) < all
    }
}
