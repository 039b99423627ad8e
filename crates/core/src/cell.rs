//! Where one thread leaves what another waits for: the shared half of [`InferFuture`](crate::InferFuture) and of
//! [`on_compute`](crate::on_compute).

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A place for one value, with the waker of whoever waits for it.
pub(crate) struct Cell<T> {
    cancelled: AtomicBool,
    state: Mutex<State<T>>,
}

enum State<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Taken,
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self { cancelled: AtomicBool::new(false), state: Mutex::new(State::Waiting(None)) }
    }
}

impl<T> Cell<T> {
    /// Nobody waits any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// The value, or the promise to wake `context`.
    ///
    /// # Panics
    /// When polled again after it was ready.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting(Some(waker)) if waker.will_wake(context.waker()) => return Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            State::Answered(_) | State::Taken => {}
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Answered(result) => Poll::Ready(result),
            State::Waiting(_) | State::Taken => panic!("polled after it was ready"),
        }
    }

    /// Leaves the value; whoever waits is to be woken by the caller, outside of every lock.
    pub(crate) fn answer(&self, result: T) -> Option<Waker> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Answered(result)) {
            State::Waiting(waker) => waker,
            State::Answered(_) | State::Taken => None,
        }
    }
}
