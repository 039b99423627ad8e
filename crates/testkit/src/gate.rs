//! A gate that holds threads until a test opens it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long a helper waits before it calls the test failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds whoever passes while it is closed, and tells a test how many have come.
#[derive(Debug, Clone)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A gate that nobody passes yet.
    pub fn closed() -> Self {
        Self::with(false)
    }

    /// A gate that all pass, and that still counts.
    pub fn opened() -> Self {
        Self::with(true)
    }

    fn with(open: bool) -> Self {
        Self(Arc::new((Mutex::new(State { open, arrived: 0 }), Condvar::new())))
    }

    /// Arrives at the gate and waits until it is open.
    pub fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        state.arrived += 1;
        changed.notify_all();
        // A forgotten gate must not hang a test run for ever: after the patience the thread goes on.
        let _ = changed.wait_while_for(&mut state, |state| !state.open, PATIENCE);
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.0.lock().open = true;
        self.0.1.notify_all();
    }

    /// Holds whoever comes from now on.
    pub fn close(&self) {
        self.0.0.lock().open = false;
    }

    /// Waits until `count` threads in all have arrived.
    ///
    /// # Panics
    /// When they do not arrive within a minute.
    pub fn wait_for(&self, count: usize) {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        let waited = changed.wait_while_for(&mut state, |state| state.arrived < count, PATIENCE);
        assert!(!waited.timed_out(), "only {} of {count} arrived at the gate", state.arrived);
    }

    /// How many threads have arrived in all.
    pub fn arrived(&self) -> usize {
        self.0.0.lock().arrived
    }
}
