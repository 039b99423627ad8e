//! millrace's own former behind the door that the server's queue has, and the plain queue of others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millrace_batching::{Arrival, BatchFormer, Decision, FormerConfig, Sizes, Waiting};
use millrace_core::Group;

use super::{Decider, Key, Next};
use crate::Request;

/// What taking turns costs beside a run, as the server reckons it.
const HOP: Duration = Duration::from_micros(1);

/// When refused callers come again where nothing has been learned yet.
const RETRY: Duration = Duration::from_secs(1);

/// The former as the server drives it.
pub(super) struct Former {
    former: BatchFormer<usize>,
    began: Instant,
    group: Group,
    key: Key,
}

#[expect(clippy::disallowed_methods, reason = "instants have no other origin; only differences of them are used")]
fn origin() -> Instant {
    Instant::now()
}

impl Former {
    pub(super) fn auto(workers: usize) -> Self {
        Self::new(workers, 1024, Waiting::Learned)
    }

    pub(super) fn within(workers: usize, goal: f64) -> Self {
        Self::new(workers, 1024, Waiting::LearnedWithin(Duration::from_secs_f64(goal)))
    }

    pub(super) fn fixed(workers: usize, size: usize, timeout: f64) -> Self {
        Self::new(workers, size, Waiting::Fixed(Duration::from_secs_f64(timeout)))
    }

    fn new(workers: usize, max_rows: usize, waiting: Waiting) -> Self {
        let config = FormerConfig {
            is_batched: true,
            is_mixed: false,
            max_rows,
            max_work: max_rows,
            waiting,
            sizes: Sizes::Learned,
            max_groups: 1,
            workers,
        };
        Self { former: BatchFormer::new(config), began: origin(), group: Group::default(), key: None }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.began + Duration::from_secs_f64(seconds)
    }
}

impl Decider for Former {
    fn push(&mut self, id: usize, request: &Request, now: f64) -> Result<(), f64> {
        let now = self.at(now);
        let arrival = Arrival {
            group: &self.group,
            rows: 1,
            work: 1,
            bytes: 0,
            caller: request.caller,
            priority: request.priority,
            deadline: Some(now + Duration::from_secs_f64(request.within)),
            is_alone: false,
        };
        if self.former.is_late(&arrival, now).is_some() {
            let wait = self.former.retry_after(&self.group, 1, now);
            return Err(wait.unwrap_or(RETRY).as_secs_f64());
        }
        self.former.push(id, arrival, now);
        Ok(())
    }

    fn take(&mut self, now: f64) -> Next {
        let now = self.at(now);
        match self.former.take(now, &mut |_| false, &mut Vec::new()) {
            Decision::Run(formed) => {
                let ids = formed.items.iter().map(|(id, _)| *id).collect();
                let runs = if formed.rows <= formed.run_rows {
                    vec![formed.rows + formed.padding]
                } else {
                    let (whole, rest) = (formed.rows / formed.run_rows, formed.rows % formed.run_rows);
                    let mut runs = vec![formed.run_rows; whole];
                    runs.extend((rest > 0).then_some(rest));
                    runs
                };
                self.key = Some(formed.key);
                Next::Run { ids, runs, key: Some(formed.key) }
            }
            Decision::Ask(at) => Next::Ask(at.saturating_duration_since(self.began).as_secs_f64()),
            Decision::Empty => Next::Nothing,
        }
    }

    fn ran(&mut self, rows: usize, took: f64) {
        if let Some(key) = self.key {
            self.former.observe(key, rows, Duration::from_secs_f64(took) + HOP);
        }
    }

    fn ended(&mut self, key: Key) {
        if let Some(key) = key {
            self.former.complete(key);
        }
    }
}

/// A queue that neither refuses nor forgets: full or old enough, it leaves.
pub(super) struct Plain {
    size: usize,
    timeout: f64,
    queue: VecDeque<(usize, f64)>,
}

impl Plain {
    pub(super) fn new(size: usize, timeout: f64) -> Self {
        Self { size, timeout, queue: VecDeque::new() }
    }
}

impl Decider for Plain {
    fn push(&mut self, id: usize, _: &Request, now: f64) -> Result<(), f64> {
        self.queue.push_back((id, now));
        Ok(())
    }

    fn take(&mut self, now: f64) -> Next {
        let Some((_, oldest)) = self.queue.front() else { return Next::Nothing };
        let due = oldest + self.timeout;
        if self.queue.len() < self.size && now < due {
            return Next::Ask(due);
        }
        let count = self.queue.len().min(self.size);
        Next::Run { ids: self.queue.drain(..count).map(|(id, _)| id).collect(), runs: vec![count], key: None }
    }

    fn ran(&mut self, _: usize, _: f64) {}

    fn ended(&mut self, _: Key) {}
}
