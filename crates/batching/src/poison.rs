//! Which callers' requests have cost their batch mates extra runs of late. Pure.
//!
//! A caller over its budget is not refused: its requests run alone until the charges have faded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millrace_core::CallerId;

/// A charge counts half after this long.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The most callers remembered.
const MOST: usize = 1024;

#[derive(Debug)]
pub(crate) struct PoisonBook {
    budget: f64,
    charges: HashMap<CallerId, (f64, Instant)>,
}

impl PoisonBook {
    pub(crate) fn new(budget: u32) -> Self {
        Self { budget: f64::from(budget), charges: HashMap::new() }
    }

    /// Charges `caller` with so many extra runs.
    pub(crate) fn charge(&mut self, caller: CallerId, runs: f64, now: Instant) {
        if self.charges.len() >= MOST && !self.charges.contains_key(&caller) {
            self.charges.retain(|_, (runs, since)| faded(*runs, *since, now) >= 1.0);
            let least = self.charges.iter().min_by(|left, right| left.1.0.total_cmp(&right.1.0)).map(|(id, _)| *id);
            if let Some(least) = least.filter(|_| self.charges.len() >= MOST) {
                self.charges.remove(&least);
            }
        }
        let (charged, since) = self.charges.entry(caller).or_insert((0.0, now));
        (*charged, *since) = (faded(*charged, *since, now) + runs, now);
    }

    /// Whether `caller`'s requests run alone for now.
    pub(crate) fn runs_alone(&self, caller: CallerId, now: Instant) -> bool {
        // Nearly always there is nobody in the book.
        if self.charges.is_empty() {
            return false;
        }
        self.charges.get(&caller).is_some_and(|(runs, since)| faded(*runs, *since, now) >= self.budget)
    }
}

fn faded(runs: f64, since: Instant, now: Instant) -> f64 {
    runs * (-now.saturating_duration_since(since).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::CallerId;

    use super::{MOST, PoisonBook};
    use crate::clock;

    #[test]
    fn a_caller_over_its_budget_runs_alone_until_its_charges_fade() {
        let (mut book, start) = (PoisonBook::new(10), clock::now());
        let (good, bad) = (CallerId(1), CallerId(2));
        book.charge(bad, 9.0, start);
        assert!(!book.runs_alone(bad, start));
        book.charge(bad, 9.0, start);
        assert!(book.runs_alone(bad, start) && !book.runs_alone(good, start));
        assert!(!book.runs_alone(bad, start + Duration::from_secs(10)));
    }

    #[test]
    fn the_book_is_bounded_and_keeps_the_worst() {
        let (mut book, start) = (PoisonBook::new(10), clock::now());
        book.charge(CallerId(u64::MAX), 100.0, start);
        for id in 0..10 * MOST as u64 {
            book.charge(CallerId(id), 5.0, start);
        }
        assert!(book.charges.len() <= MOST);
        assert!(book.runs_alone(CallerId(u64::MAX), start));
    }
}
