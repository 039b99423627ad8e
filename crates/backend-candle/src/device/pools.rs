//! rayon pools that runs compute in, so that nothing ever uses rayon's global one.
//!
//! A run of one thread stays on the thread that calls: that thread becomes the only one of a pool of its own, once. A run of
//! several threads borrows a pool of just as many, which nobody else uses meanwhile.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::PlaceError;

thread_local! {
    /// The pool whose only thread this one is, or `None` where it belonged to some pool before.
    static ALONE: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
}

/// Pools that no run uses now, by their number of threads.
static IDLE: Mutex<BTreeMap<usize, Vec<ThreadPool>>> = Mutex::new(BTreeMap::new());

/// Runs `work` in a pool of `threads` threads.
///
/// # Errors
/// When the system gives no threads.
pub(super) fn within<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, PlaceError> {
    if threads <= 1 && is_alone() {
        return Ok(work());
    }
    let pool = Borrowed::take(threads.max(1))?;
    Ok(pool.get().install(work))
}

/// Whether this thread is the only one of the pool that it belongs to.
fn is_alone() -> bool {
    ALONE.with(|cell| {
        let made = cell.get_or_init(|| ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok());
        // A thread of somebody else's pool cannot join another one.
        made.is_some() || (rayon::current_thread_index().is_some() && rayon::current_num_threads() == 1)
    })
}

/// A pool that goes back when this is dropped, a panic of the run included.
struct Borrowed(Option<ThreadPool>);

impl Borrowed {
    fn take(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let idle = IDLE.lock().get_mut(&threads).and_then(Vec::pop);
        let pool = match idle {
            Some(pool) => pool,
            None => {
                ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "millrace-candle".to_owned()).build()?
            }
        };
        Ok(Self(Some(pool)))
    }

    fn get(&self) -> &ThreadPool {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            IDLE.lock().entry(pool.current_num_threads()).or_default().push(pool);
        }
    }
}
