//! How far the server is on its way to the exit, as every connection sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The phases, in order; there is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connections finish what is in flight and close. Before it, they are served.
    Finishing = 1,
    /// Time is up: what is still in flight is answered 503.
    Cut = 2,
    /// Connections are dropped as they are, and nobody is accepted any more.
    Gone = 3,
}

/// Announces phases to all connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    now: AtomicU8,
    /// Requests that were not answered because time was up.
    cut: AtomicUsize,
    changed: Notify,
}

impl Phases {
    /// Moves on to `phase`; earlier phases than the present one are ignored.
    pub(crate) fn advance(&self, phase: Phase) {
        self.0.now.fetch_max(phase as u8, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }

    /// Whether `phase` has come. One atomic load: cheap enough for every poll.
    pub(crate) fn has_reached(&self, phase: Phase) -> bool {
        self.0.now.load(Ordering::Acquire) >= phase as u8
    }

    /// Counts a request that is not answered because time is up.
    pub(crate) fn count_cut(&self) {
        self.0.cut.fetch_add(1, Ordering::AcqRel);
    }

    /// How many requests were cut.
    pub(crate) fn n_cut(&self) -> usize {
        self.0.cut.load(Ordering::Acquire)
    }

    /// Ends once `phase` has come.
    pub(crate) async fn reached(&self, phase: Phase) {
        wait(&self.0.changed, || self.has_reached(phase)).await;
    }
}

/// Counts things that are open, and tells when none is left. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    closed: Notify,
}

impl Open {
    pub(crate) fn count(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// One more is open, until the answer is dropped.
    pub(crate) fn enter(&self) -> Entered {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        Entered(Arc::clone(&self.0))
    }

    /// Ends once none is open.
    pub(crate) async fn none(&self) {
        wait(&self.0.closed, || self.count() == 0).await;
    }
}

/// One thing that is open.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Count>);

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.closed.notify_waiters();
        }
    }
}

/// Waits until `is_so`, looking again at each notification.
async fn wait(changed: &Notify, is_so: impl Fn() -> bool) {
    loop {
        let mut notified = std::pin::pin!(changed.notified());
        // Registered before looking, so that a change in between is not missed.
        notified.as_mut().enable();
        if is_so() {
            return;
        }
        notified.await;
    }
}
