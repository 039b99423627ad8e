//! Counts of requests that no batch queue counts: those to pipelines, and those that never came as far as a queue.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use millrace_core::{InferResult, Reason, Total, VersionStatistics};
use parking_lot::Mutex;

use crate::clock;

/// What became of the requests of one version. A cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    answered: Total,
    failed: Total,
    refused: u64,
    rows: u64,
    last_answer: Option<Instant>,
}

impl Counts {
    /// A request of `rows` rows begins now. Whatever happens to it is counted, also that nobody waits for it any more.
    pub(crate) fn begin(&self, rows: usize) -> Begun {
        Begun { counts: self.clone(), began: clock::now(), rows: rows as u64, is_over: false }
    }

    /// Counts a request that was refused at the door.
    pub(crate) fn refuse(&self) {
        self.0.lock().refused += 1;
    }

    /// What was counted. Nobody waited in a queue.
    pub(crate) fn read(&self) -> VersionStatistics {
        let inner = self.0.lock();
        let ago = inner.last_answer.map(|at| clock::now().saturating_duration_since(at));
        VersionStatistics {
            answered: inner.answered,
            failed: inner.failed,
            refused: inner.refused,
            rows: inner.rows,
            queue: Total { count: inner.answered.count, ..Total::default() },
            runs: Vec::new(),
            // From the present backwards, so that a wall clock that was set meanwhile shows the right time.
            last_answer: ago.and_then(|ago| SystemTime::now().checked_sub(ago)),
        }
    }
}

/// A request under way. Dropped before its end, it counts as failed: its caller has gone.
#[derive(Debug)]
pub(crate) struct Begun {
    counts: Counts,
    began: Instant,
    rows: u64,
    is_over: bool,
}

impl Begun {
    /// Counts how it ended.
    pub(crate) fn end(mut self, result: &InferResult) {
        self.is_over = true;
        let now = clock::now();
        let mut inner = self.counts.0.lock();
        match result {
            Ok(_) => {
                add(&mut inner.answered, self.began, now);
                inner.rows += self.rows;
                inner.last_answer = Some(now);
            }
            Err(refusal) if is_the_caller_s(refusal.reason()) => inner.refused += 1,
            Err(_) => add(&mut inner.failed, self.began, now),
        }
    }

    /// When it began.
    pub(crate) fn at(&self) -> Instant {
        self.began
    }

    /// It goes on where somebody else counts it.
    pub(crate) fn hand_on(mut self) {
        self.is_over = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_over {
            add(&mut self.counts.0.lock().failed, self.began, clock::now());
        }
    }
}

fn add(total: &mut Total, began: Instant, now: Instant) {
    total.count += 1;
    total.time += now.saturating_duration_since(began);
}

/// Whether such a refusal is no failure: the request was wrong, or there was no room for it.
fn is_the_caller_s(reason: Reason) -> bool {
    match reason {
        Reason::SignatureUnknown
        | Reason::InvalidInput
        | Reason::Unsupported
        | Reason::TooLarge
        | Reason::QueueFull
        | Reason::RateLimited
        | Reason::Forbidden
        | Reason::Unauthenticated => true,
        Reason::ModelUnknown
        | Reason::VersionUnknown
        | Reason::LabelUnknown
        | Reason::NotReady
        | Reason::Loading
        | Reason::Late
        | Reason::Cancelled
        | Reason::Draining
        | Reason::Exists
        | Reason::Conflict
        | Reason::BackendFailed
        | Reason::BackendBroken
        | Reason::NotSaved => false,
    }
}
