//! BentoML 1.x's dispatcher, by its published behaviour: a line through the last fifty runs, renewed every five seconds,
//! tells how long a batch will take; while the batch is small next to the usual wait it sleeps for a millisecond at a time; the
//! newest requests leave first, and requests that would be late by that line are dropped.

use std::collections::VecDeque;

use super::{Decider, Key, Next};
use crate::Request;

const TICK: f64 = 0.001;
const KEPT: usize = 50;
const DECAY: f64 = 0.95;
const REFRESH: f64 = 5.0;

pub(super) struct Bento {
    size: usize,
    goal: f64,
    queue: VecDeque<(usize, f64)>,
    runs: VecDeque<(f64, f64, f64)>,
    per_row: f64,
    per_run: f64,
    wait: f64,
    refreshed: f64,
    now: f64,
    /// How long the oldest of the batch that was formed last had waited.
    waited: f64,
}

impl Bento {
    pub(super) fn new(size: usize, goal: f64) -> Self {
        let (per_row, per_run) = ((goal * 2.0 / 30.0).min(2.0), (goal / 30.0).min(1.0));
        Self {
            size,
            goal,
            queue: VecDeque::new(),
            runs: VecDeque::new(),
            per_row,
            per_run,
            wait: 0.01,
            refreshed: f64::NEG_INFINITY,
            now: 0.0,
            waited: 0.0,
        }
    }

    /// Least squares over what is kept.
    fn refresh(&mut self) {
        let count = self.runs.len() as f64;
        let sum = |value: fn(&(f64, f64, f64)) -> f64| self.runs.iter().map(value).sum::<f64>();
        let (n, t, nn, nt) = (sum(|run| run.0), sum(|run| run.1), sum(|run| run.0 * run.0), sum(|run| run.0 * run.1));
        let spread = count * nn - n * n;
        // With one size only, the solution of least norm.
        let slope = if spread.abs() < 1e-12 { nt / (nn + count) } else { (count * nt - n * t) / spread };
        let base = if spread.abs() < 1e-12 { t / (nn / n.max(1.0) * n + count) } else { (t - slope * n) / count };
        (self.per_row, self.per_run) = (slope.max(1e-6), base.max(0.0));
        self.wait = (sum(|run| run.2) / count).max(0.0);
        self.refreshed = self.now;
    }
}

impl Decider for Bento {
    fn push(&mut self, id: usize, _: &Request, now: f64) -> Result<(), f64> {
        self.queue.push_back((id, now));
        Ok(())
    }

    fn take(&mut self, now: f64) -> Next {
        self.now = now;
        loop {
            let (Some((_, oldest)), Some((_, newest))) = (self.queue.front(), self.queue.back()) else {
                return Next::Nothing;
            };
            let count = self.queue.len();
            let latency = now - oldest + self.per_row * count as f64 + self.per_run;
            if count > 1 && latency >= self.goal {
                self.queue.pop_front();
                continue;
            }
            if count < self.size && count as f64 * (now - newest + TICK + self.per_row) <= self.wait * DECAY {
                return Next::Ask(now + TICK);
            }
            let leaves = count.min(self.size);
            self.waited = now - oldest;
            let ids: Vec<usize> = (0..leaves).filter_map(|_| self.queue.pop_back()).map(|(id, _)| id).collect();
            return Next::Run { runs: vec![ids.len()], ids, key: None };
        }
    }

    fn ran(&mut self, rows: usize, took: f64) {
        self.runs.push_back((rows as f64, took, self.waited));
        if self.runs.len() > KEPT {
            self.runs.pop_front();
        }
        self.now += took;
        if self.now - self.refreshed >= REFRESH {
            self.refresh();
        }
    }

    fn ended(&mut self, _: Key) {}
}
