//! Keeps CPU work off the I/O threads and its panics inside, as well as those of engines.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::cell::Cell;
use crate::{Compute, Reason, Refusal};

/// Runs `work` on a compute thread. Dropping the future skips work that has not begun.
///
/// # Errors
/// The pool's refusal, or `BackendBroken` when the work panicked or was thrown away.
pub async fn on_compute<T: Send + 'static>(
    compute: &dyn Compute,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let cell = Arc::new(Cell::default());
    let worker = Worker(Some(Arc::clone(&cell)));
    let caller = Caller(cell);
    compute.run(Box::new(move || worker.work(work)))?;
    poll_fn(|context| caller.0.poll(context)).await
}

/// The caller's end: without it, work that has not begun never will.
struct Caller<T>(Arc<Cell<T>>);

impl<T> Drop for Caller<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The worker's end: dropped without a result, the caller is told.
struct Worker<T>(Option<Arc<Cell<Result<T, Refusal>>>>);

impl<T> Worker<T> {
    fn work(mut self, work: impl FnOnce() -> T) {
        if let Some(cell) = self.0.take_if(|cell| !cell.is_cancelled()) {
            give(&cell, contained(work));
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            give(&cell, Err(Refusal::new(Reason::BackendBroken, "the work was dropped before it was done")));
        }
    }
}

fn give<T>(cell: &Cell<T>, value: T) {
    if let Some(waker) = cell.answer(value) {
        waker.wake();
    }
}

/// Runs `work` here and now.
///
/// # Errors
/// `BackendBroken` when it panicked: one request dies, not its connection.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Refusal> {
    guarded(work).map_err(|Panicked(text)| {
        let cause: Box<dyn std::error::Error + Send + Sync> = text.into();
        Refusal::new(Reason::BackendBroken, "the server failed on this request").with_cause(cause)
    })
}

/// An engine panicked; the text is its own message, which is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub struct Panicked(String);

/// Runs `work`, an engine's own code: the wall around it.
///
/// # Errors
/// [`Panicked`]. What `work` may have left half-changed must not be used again.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Unwind safety: everything that `work` could have left half-done belongs to this request, or to this load, and is dropped
    // with it.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Panicked(text.unwrap_or_else(|| "a panic without a text".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::{Compute, Job, Reason, Refusal};
    use parking_lot::Mutex;

    use super::{contained, guarded, on_compute};

    /// Keeps jobs until told to run or drop them.
    #[derive(Default)]
    struct Held(Mutex<Vec<Job>>);

    impl std::fmt::Debug for Held {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Held")
        }
    }

    impl Compute for Held {
        fn run(&self, job: Job) -> Result<(), Refusal> {
            self.0.lock().push(job);
            Ok(())
        }
    }

    #[test]
    fn a_panic_becomes_a_refusal_whose_text_stays_private() {
        let refusal = contained(|| panic!("secret {}", 1)).unwrap_err();
        assert_eq!(refusal.reason(), Reason::BackendBroken);
        assert!(!refusal.message().contains("secret"));
        assert_eq!(refusal.cause().unwrap().to_string(), "secret 1");
    }

    #[test]
    fn a_panic_of_an_engine_comes_out_with_its_words() {
        assert_eq!(guarded(|| 1), Ok(1));
        let panicked = guarded(|| panic!("broken {}", 7)).unwrap_err();
        assert_eq!(panicked.to_string(), "the engine panicked: broken 7");
        let silent = guarded(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(silent.to_string(), "the engine panicked: a panic without a text");
    }

    #[test]
    fn thrown_away_work_is_an_answer_and_not_a_hang() {
        let held = Held::default();
        let mut future = std::pin::pin!(on_compute(&held, || 1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        held.0.lock().clear();
        assert_eq!(pollster::block_on(future).unwrap_err().reason(), Reason::BackendBroken);
    }

    #[test]
    fn work_of_a_caller_that_left_is_skipped() {
        let held = Held::default();
        let ran = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        {
            let mut future = std::pin::pin!(on_compute(&held, move || mark.store(true, Ordering::SeqCst)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(future.as_mut().poll(&mut context).is_pending());
        }
        held.0.lock().drain(..).for_each(|job| job());
        assert!(!ran.load(Ordering::SeqCst));
    }
}
