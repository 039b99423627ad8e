use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::Group;

use super::{Led, State, Work, Worker};
use crate::fair::Account;

/// A queue that always has work.
#[derive(Default)]
struct Busy(Account);

impl Led for Busy {
    fn account(&self) -> &Account {
        &self.0
    }

    fn lead(self: Arc<Self>, _: &Arc<Worker>, _: Instant) {}

    fn on_time(self: Arc<Self>, _: Instant, _: Instant) -> Option<Instant> {
        None
    }

    fn watch(self: Arc<Self>, _: Instant) -> bool {
        false
    }

    fn prepare(&self, _: &Group, _: usize) {}

    fn drain(&self) {}
}

/// How many batches run until all of `jobs` jobs have, where a batch and a job take so long.
fn batches_meanwhile(jobs: usize, batch: Duration, job: Duration) -> usize {
    let (mut state, mut batches, mut done) = (State::default(), 0, 0);
    state.turns.add(Arc::new(Busy::default()));
    for _ in 0..jobs {
        state.push(Box::new(|| {}));
    }
    while done < jobs {
        match state.pick() {
            Some(Work::Queue(queue)) => {
                queue.account().charge(batch);
                state.turns.add(queue);
                batches += 1;
            }
            Some(Work::Job(_)) => {
                state.jobs_used.charge(job);
                done += 1;
            }
            None => unreachable!("the queue always has work"),
        }
    }
    batches
}

#[test]
fn short_jobs_do_not_wait_for_a_long_batch_each() {
    let batches = batches_meanwhile(100, Duration::from_millis(100), Duration::from_millis(1));
    assert!((1..=2).contains(&batches), "{batches}");
}

#[test]
fn long_jobs_and_short_batches_take_turns() {
    let batches = batches_meanwhile(100, Duration::from_micros(10), Duration::from_millis(1));
    assert!((98..=101).contains(&batches), "{batches}");
}
