//! Short runs on the thread that asked: it saves waking a compute thread, which costs more than such a run.
//!
//! The first request of a burst gets a [`Guest`]; the others that the same thread reads meanwhile queue quietly. When the
//! thread comes back to the first, everything has gathered: a short run is led right there, a longer one is given to the
//! pool, then as one batch and with one wake-up. Which it is was learned, not configured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace_core::Leader;

use crate::clock;
use crate::former::BatchFormer;
use crate::queue::{Pending, Queue};

/// The most work that is done on a lent thread at a time: about what waking another thread costs, there and back.
const SHORT: Duration = Duration::from_micros(50);
/// The same where there is one core: a compute thread would take it from the lent one all the same.
const SHORT_ON_ONE_CORE: Duration = Duration::from_micros(500);
/// A request with more work than this goes to the pool at once: against such a run, gathering others first gains nothing.
const GATHERED: Duration = Duration::from_micros(500);

/// The promise of one caller's thread to lead a queue.
pub(crate) struct Guest(Option<Arc<Queue>>);

impl Guest {
    pub(crate) fn boxed(queue: Arc<Queue>) -> Box<dyn Leader> {
        Box::new(Self(Some(queue)))
    }
}

impl Leader for Guest {
    fn lead(mut self: Box<Self>) {
        if let Some(queue) = self.0.take() {
            queue.lead_as_guest();
        }
    }
}

impl Drop for Guest {
    /// The caller has gone, or was answered already. Others may have queued behind this promise.
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.dismiss_guest();
        }
    }
}

impl Queue {
    /// Whether a request that was predicted to take so long, if that is known, may wait for its own thread to lead.
    pub(crate) fn may_be_led(&self, former: &BatchFormer<Pending>, predicted: Option<Duration>) -> bool {
        predicted.is_some_and(|time| time <= GATHERED)
            && former.next().is_none()
            && !self.is_suspect.load(Ordering::Relaxed)
    }

    fn lead_as_guest(self: Arc<Self>) {
        let mut left = if self.pool.has_one_core() { SHORT_ON_ONE_CORE } else { SHORT };
        loop {
            let mut state = self.state.lock();
            state.has_guest = false;
            if state.former.is_empty() || state.is_listed || state.running >= state.workers {
                // Nothing to do, or a worker is on its way, or one that is back from its run will look.
                return;
            }
            if state.former.next().is_some() {
                // More rows are worth waiting for: the timer has the pool look when that is over.
                return;
            }
            let work = state.former.work().filter(|work| *work <= left && !self.is_suspect.load(Ordering::Relaxed));
            let Some(work) = work else { break };
            left = left.saturating_sub(work);
            drop(state);
            Arc::clone(&self).lead_once(None, clock::now());
        }
        self.dismiss_guest();
    }

    /// Leaves what is queued to the pool.
    fn dismiss_guest(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.has_guest = false;
        let lists = state.wants_a_worker();
        drop(state);
        if lists {
            self.list(Arc::clone(&self), true);
        }
    }
}
