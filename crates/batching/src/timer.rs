//! The pool's one timer thread: calls queues back at their instants, and looks for hung runs while any run is under way.
//!
//! Queues rarely call it: a queue has one instant here at a time, the earliest that concerns it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::pool::{Led, Pool};

/// How often in a row the watch may be put off because it was late itself.
const MOST_LATE: u32 = 3;

#[derive(Default)]
pub(crate) struct Timer {
    state: Mutex<State>,
    changed: Condvar,
    /// Set by workers as they begin something, cleared by the watch. While it is set nobody needs to wake the timer.
    is_poked: AtomicBool,
}

#[derive(Default)]
struct State {
    alarms: BTreeMap<(Instant, u64), Weak<dyn Led>>,
    serial: u64,
    is_stopping: bool,
}

impl Timer {
    /// Starts the thread.
    pub(crate) fn start(pool: &Arc<Pool>) -> std::io::Result<JoinHandle<()>> {
        let pool = Arc::clone(pool);
        std::thread::Builder::new().name("millrace-timer".to_owned()).spawn(move || pool.run_timer())
    }

    /// Calls `queue` back at `at`.
    pub(crate) fn add(&self, at: Instant, queue: Weak<dyn Led>) {
        let mut state = self.state.lock();
        let is_first = state.alarms.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.serial += 1;
        let key = (at, state.serial);
        state.alarms.insert(key, queue);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Something begins to run.
    pub(crate) fn poke(&self) {
        if !self.is_poked.load(Ordering::Relaxed) && !self.is_poked.swap(true, Ordering::AcqRel) {
            // The lock makes sure that the timer is either before its look at the flag or already waiting.
            drop(self.state.lock());
            self.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.changed.notify_one();
    }
}

impl Pool {
    fn run_timer(&self) {
        let timer = self.timer();
        let mut next_watch: Option<Instant> = None;
        let mut n_late = 0;
        loop {
            let now = clock::now();
            if let Some(at) = next_watch.filter(|at| *at <= now) {
                if now > at + self.watch_interval() && n_late < MOST_LATE {
                    // This thread was held up too: the machine stood still, and no run is to blame for that.
                    n_late += 1;
                    next_watch = Some(now + self.watch_interval());
                } else {
                    n_late = 0;
                    timer.is_poked.store(false, Ordering::Release);
                    next_watch = self.watch(now).then(|| now + self.watch_interval());
                }
            }
            let mut due = Vec::new();
            let mut state = timer.state.lock();
            while let Some(first) = state.alarms.first_entry() {
                let at = first.key().0;
                if at > now {
                    break;
                }
                due.push((at, first.remove()));
            }
            if due.is_empty() {
                if state.is_stopping {
                    return;
                }
                if next_watch.is_none() && timer.is_poked.load(Ordering::Acquire) {
                    next_watch = Some(now + self.watch_interval());
                }
                let next = state.alarms.first_key_value().map(|((at, _), _)| *at);
                match next.into_iter().chain(next_watch).min() {
                    Some(at) => drop(timer.changed.wait_until(&mut state, at)),
                    None => timer.changed.wait(&mut state),
                }
                continue;
            }
            drop(state);
            for (at, queue) in due {
                let Some(strong) = queue.upgrade() else { continue };
                if let Some(next) = strong.on_time(at, clock::now()) {
                    timer.add(next, queue);
                }
            }
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("alarms", &self.state.lock().alarms.len()).finish_non_exhaustive()
    }
}
