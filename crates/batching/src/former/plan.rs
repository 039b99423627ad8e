//! How large a batch should be now, whether more rows are worth waiting for, and with how much padding it runs.
//!
//! The part of the decision that weighs what was learned against what the operator said. Who rides is `former`'s.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::BatchFormer;
use crate::cost::{duration, whole};
use crate::{Sizes, Waiting};

/// Waiting must promise at least this much more throughput per doubling of the batch.
const GAIN: f64 = 1.1;
/// After so many batches that none led, modest callers are thought to have gone.
const COMPANY: usize = 64;
/// Somebody may be late whose deadline is nearer than so many times what all that is queued will take.
const PRESSED: u32 = 4;
/// A request of so many rows is run whole though nothing ever ran: what rides with it is another matter.
const UNCUT_ROWS: usize = 32;

/// How a batch of some group would be formed now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The most rows; zero where the first item rides alone.
    pub(super) limit: usize,
    /// The most rows in one run.
    pub(super) run_rows: usize,
    /// Whether a modest caller leads it beside a greedy one.
    pub(super) is_modest: bool,
    pub(super) has_waited: bool,
    /// Seconds that the others lose because it is small for the sake of urgent items.
    pub(super) loss: f64,
    /// Until when to wait, and with how many queued rows the waiting ends.
    pub(super) wait: Option<(Instant, usize)>,
}

impl<T> BatchFormer<T> {
    /// How many rows a batch of `group` that the entry `leader` leads should have now, and whether more are worth waiting for.
    pub(super) fn plan(&mut self, group: usize, leader: usize, now: Instant) -> Plan {
        let (number, is_alone) = (group / 2, group % 2 == 1);
        let most = self.config.most_work();
        let queued = self.order.group_load(group).work;
        let first = self.order.first_deadline().map(|(deadline, _)| deadline);
        let is_pressed = first.is_some_and(|deadline| deadline < now + PRESSED * self.backlog());
        let cost = self.groups.cost(number);
        let (best, reach, short, loses) = (cost.best_rows(), cost.reach(), cost.short(), cost.is_row_by_row());
        let uncut = if cost.runs() == 0 { UNCUT_ROWS } else { 1 };
        if is_alone || !self.config.is_batched {
            let run_rows = if loses { best.min(most) } else { most };
            return Plan { limit: 0, run_rows, is_modest: false, has_waited: false, loss: 0.0, wait: None };
        }
        let (mut trial, mut loss) = (None, 0.0);
        let is_modest = self.order.is_modest(leader);
        // An operator who says how long to wait, or which sizes to run, has the say in how many rows ride together;
        // what was learned then only cuts batches that lose into several runs.
        let (limit, run_rows) = match (self.config.waiting, self.sizes()) {
            (Waiting::Learned | Waiting::LearnedWithin(_), Sizes::Learned | Sizes::Preferred(_)) => {
                // A modest caller's rows ride with a greedy one's, or will come while those run: that takes no longer than is
                // worth it.
                let has_company = self.order.is_crowded() && (self.order.is_shared() || self.company > 0);
                // As long as nobody will be late, nobody is lost by what a small batch costs more.
                let best = match has_company {
                    true if is_modest && !is_pressed => cost.own_rows(),
                    true => cost.brief_rows(),
                    false => best,
                };
                let mut limit = best.min(reach).min(most).max(1);
                if let Waiting::LearnedWithin(goal) = self.config.waiting
                    && !goal.is_zero()
                {
                    // Whoever comes while a batch runs waits for it, however urgent.
                    limit = self.groups.fitting(number, limit, goal);
                }
                (limit, loss) = self.privileged(group, leader, limit, now);
                let room = queued.min(most).min(reach).min(short.max(best.saturating_mul(2)));
                if limit == best && limit < room {
                    trial = self.groups.get_mut(number).and_then(|known| known.tries_again(limit, room));
                }
                limit = trial.unwrap_or(limit);
                (limit, limit)
            }
            (Waiting::Fixed(_), Sizes::Learned | Sizes::Preferred(_)) => {
                (most, if loses { best.min(most) } else { most })
            }
            (_, Sizes::Allowed(sizes)) => {
                let largest = sizes.iter().map(|size| size.get()).filter(|size| *size <= most).max().unwrap_or(most);
                (largest, largest)
            }
        };
        let rows = queued.min(limit);
        let is_full = queued >= limit || self.order.group_load(group).rows >= self.config.max_rows;
        let wait = if is_full { None } else { self.wait(group, rows, limit, now) };
        let has_waited = wait.is_some_and(|(until, _)| until <= now);
        let wait = wait.filter(|(until, _)| *until > now);
        let limit = match self.sizes() {
            Sizes::Learned if rows > 0 && trial.is_none() => {
                let (cost, is_all) = (self.groups.cost(number), rows == queued);
                let target =
                    self.groups.get(number).map(|known| known.target(cost, rows, self.config.max_rows, is_all));
                // All that is queued fits: whoever comes while the batch is formed may ride too.
                target.filter(|target| *target < rows).unwrap_or(limit)
            }
            Sizes::Preferred(sizes) => preferred(sizes, rows).unwrap_or(limit),
            Sizes::Learned | Sizes::Allowed(_) => limit,
        };
        Plan { limit, run_rows: run_rows.min(limit).max(uncut.min(most)), is_modest, has_waited, loss, wait }
    }

    /// Remembers whom a batch that is about to run, and takes about so long, is for.
    pub(super) fn note(&mut self, plan: Plan, predicted: Option<Duration>) {
        self.privilege.spend(predicted, plan.loss);
        self.company = if plan.is_modest { COMPANY } else { self.company.saturating_sub(1) };
    }

    /// What an operator says about row counts means nothing where rows differ in size.
    fn sizes(&self) -> &Sizes {
        if self.config.is_mixed { &Sizes::Learned } else { &self.config.sizes }
    }

    /// Until when to wait for more than `rows` rows, and with how many the waiting ends; `None` where it never pays.
    fn wait(&mut self, group: usize, rows: usize, limit: usize, now: Instant) -> Option<(Instant, usize)> {
        let number = group / 2;
        let (bound, enough) = match self.config.waiting {
            Waiting::Fixed(bound) => {
                let enough = match self.sizes() {
                    Sizes::Preferred(sizes) if preferred(sizes, rows).is_some() => return None,
                    Sizes::Preferred(sizes) => sizes.iter().map(|size| size.get()).min().unwrap_or(limit).min(limit),
                    Sizes::Learned | Sizes::Allowed(_) => limit,
                };
                (bound, enough)
            }
            Waiting::Learned => (self.learned_wait(number, rows)?, limit),
            Waiting::LearnedWithin(goal) => (self.learned_wait(number, rows).map(|_| goal)?, limit),
        };
        if bound.is_zero() {
            return None;
        }
        let mut until = self.order.oldest(group)?.checked_add(bound)?;
        // Somebody's deadline may be nearer than that. The run itself takes time, and so do the threads in between: a
        // quarter of what that request had is kept for them.
        if let Some((deadline, id)) = self.order.first_deadline() {
            // What was learned about the load tells how many will have come by then.
            let more = match self.config.waiting {
                Waiting::Fixed(_) => usize::MAX,
                Waiting::Learned | Waiting::LearnedWithin(_) => {
                    let rate = self.groups.get(number).map_or(0.0, |known| known.rows_per_second());
                    whole(rate * bound.as_secs_f64())
                }
            };
            let size = rows.saturating_add(more).min(enough);
            let run = self.groups.predict(number, size).map_or(Duration::ZERO, |run| duration(run.high));
            let had =
                self.order.get(id).map_or(Duration::ZERO, |entry| deadline.saturating_duration_since(entry.queued));
            until = until.min(deadline.checked_sub(run + had / 4).unwrap_or(now));
        }
        Some((until, enough))
    }

    /// How long waiting may pay: nothing, unless rows arrive faster than runs of this size could work them off, and larger
    /// runs are known to be cheaper per row.
    fn learned_wait(&self, number: usize, rows: usize) -> Option<Duration> {
        let cost = self.groups.cost(number);
        if !cost.line()?.is_learned {
            return None;
        }
        let per_row = |rows: usize| Some(self.groups.predict(number, rows)?.mean / rows as f64);
        let (now, later) = (per_row(rows)?, per_row(2 * rows)?);
        let offered = self.groups.get(number)?.rows_per_second() * now;
        if now < later * GAIN || offered < self.config.workers as f64 {
            return None;
        }
        self.groups.predict(number, 1).map(|one| duration(one.mean))
    }

    pub(super) fn padding(&self, number: usize, rows: usize) -> usize {
        let most = self.config.max_rows;
        let size = match &self.config.sizes {
            _ if !self.config.is_batched => rows,
            Sizes::Allowed(sizes) => {
                let fitting = sizes.iter().map(|size| size.get()).filter(|size| (rows..=most).contains(size));
                fitting.min().unwrap_or(rows)
            }
            Sizes::Preferred(_) => rows,
            Sizes::Learned => {
                self.groups.get(number).map_or(rows, |known| known.padded(self.groups.cost(number), rows, most))
            }
        };
        size - rows
    }

    pub(super) fn predict_all(&self, number: usize, rows: usize, padding: usize, run_rows: usize) -> Option<Duration> {
        if rows <= run_rows {
            return self.groups.predict(number, rows + padding).map(|run| duration(run.mean));
        }
        let run = self.groups.predict(number, run_rows)?;
        Some(duration(run.mean * rows.div_ceil(run_rows) as f64))
    }
}

/// The largest preferred size that `rows` rows fill.
fn preferred(sizes: &[NonZeroUsize], rows: usize) -> Option<usize> {
    sizes.iter().map(|size| size.get()).filter(|size| *size <= rows).max()
}
