//! What runs together, and when: millrace's rule, and those of others.

mod bento;
mod deferred;
mod former;

use std::fmt;

use crate::Request;

/// A rule of batching. Times are seconds since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the text of each variant names its fields")]
pub enum Rule {
    /// millrace as it comes: everything learned.
    Auto,
    /// The same with an operator's bound on how long anybody may wait for more rows or for a batch under way, in seconds.
    Goal(f64),
    /// millrace's queue with an operator's figures: rows in a batch, seconds that its oldest may wait.
    Fixed { size: usize, timeout: f64 },
    /// TensorFlow Serving's basic batch scheduler and Triton's dynamic batcher: a batch leaves when it is full or its oldest
    /// request is `delay` old; none is refused or dropped for being late.
    Queue { size: usize, delay: f64 },
    /// BentoML's dispatcher (`CorkDispatcher`): a line through the last runs, ticks of a millisecond.
    Bento { size: usize },
    /// Deferred scheduling (Symphony, arXiv 2308.07470 §3): a batch leaves at the last moment at which one request more could
    /// still ride and meet its deadline. It is told the true costs.
    Deferred { size: usize },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Goal(goal) => write!(f, "auto within {:.2} ms", goal * 1e3),
            Self::Fixed { size, timeout } => write!(f, "{size}, {:.2} ms", timeout * 1e3),
            Self::Queue { size, delay } => write!(f, "{size}, {:.2} ms", delay * 1e3),
            Self::Bento { size } => write!(f, "BentoML {size}"),
            Self::Deferred { size } => write!(f, "deferred {size}"),
        }
    }
}

/// A rule at work.
pub(crate) trait Decider {
    /// A request comes. An error says after how many seconds the refused caller is told to come again.
    fn push(&mut self, id: usize, request: &Request, now: f64) -> Result<(), f64>;

    /// What an idle worker does now.
    fn take(&mut self, now: f64) -> Next;

    /// A run ended: its rows, and how long it took.
    fn ran(&mut self, rows: usize, took: f64);

    /// Everything of the batch `key` has ended.
    fn ended(&mut self, key: Key);
}

/// Names a batch to the rule that formed it.
pub(crate) type Key = Option<millrace_batching::BatchKey>;

/// What an idle worker does.
#[derive(Debug)]
pub(crate) enum Next {
    /// It runs these requests, in runs of so many rows.
    Run { ids: Vec<usize>, runs: Vec<usize>, key: Key },
    /// It asks again then, or when a request comes.
    Ask(f64),
    /// It asks again when a request comes.
    Nothing,
}

impl Rule {
    /// The rule, for an engine with `workers`, where answers are of use for `goal` seconds. `cost` is what a run of some
    /// rows truly takes, for the one rule that is told.
    pub(crate) fn start(self, workers: usize, goal: f64, cost: impl Fn(usize) -> f64 + 'static) -> Box<dyn Decider> {
        match self {
            Self::Auto => Box::new(former::Former::auto(workers)),
            Self::Goal(goal) => Box::new(former::Former::within(workers, goal)),
            Self::Fixed { size, timeout } => Box::new(former::Former::fixed(workers, size, timeout)),
            Self::Queue { size, delay } => Box::new(former::Plain::new(size, delay)),
            Self::Bento { size } => Box::new(bento::Bento::new(size, goal)),
            Self::Deferred { size } => Box::new(deferred::Deferred::new(size, cost)),
        }
    }
}
