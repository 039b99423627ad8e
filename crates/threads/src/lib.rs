//! Threads that engines borrow for a run that was lent idle cores, so that nothing ever uses rayon's global pool.
//!
//! A run of one thread stays on the thread that calls: that thread becomes the only one of a pool of its own, once. A run of
//! several threads borrows a pool of just as many, which nobody else uses meanwhile.
//!
//! ```
//! use rayon::prelude::*;
//!
//! assert_eq!(millrace_threads::granted(), 1);
//! let squares = millrace_threads::within(2, || {
//!     assert_eq!(millrace_threads::granted(), 2);
//!     (0..1000_u64).into_par_iter().map(|n| n * n).sum::<u64>()
//! })?;
//! assert_eq!(squares, 332_833_500);
//! # Ok::<(), rayon::ThreadPoolBuildError>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod apart;
#[cfg(not(target_os = "linux"))]
#[path = "together.rs"]
mod apart;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::ops::Deref;

use apart::{Members, Places};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

thread_local! {
    /// The pool whose only thread this one is, or `None` where it belonged to some pool before.
    static ALONE: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };

    /// Threads of the run that is under way on this one.
    static GRANTED: Cell<usize> = const { Cell::new(1) };
}

/// Pools that no run uses now, by their number of threads.
static IDLE: Mutex<BTreeMap<usize, Vec<Pool>>> = Mutex::new(BTreeMap::new());

/// Runs `work` in a rayon pool of `threads` threads; 0 counts as 1.
///
/// # Errors
/// When the system gives no threads.
pub fn within<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, ThreadPoolBuildError> {
    if threads <= 1 && is_alone() {
        return Ok(work());
    }
    let pool = Borrowed::take(threads.max(1))?;
    let places = Places::here();
    Ok(pool.threads.install(|| {
        let _granted = Granted::to(threads.max(1));
        let _apart = rayon::current_thread_index().map(|this| places.apart(&pool.members, this));
        work()
    }))
}

/// How many threads the run on this thread was given by [`within`], itself included: what an operator may divide its work
/// among. 1 on a thread that no such run is on, those that help a run included.
pub fn granted() -> usize {
    GRANTED.get()
}

/// Whether this thread is the only one of the pool that it belongs to.
fn is_alone() -> bool {
    ALONE.with(|cell| {
        let made = cell.get_or_init(|| ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok());
        // A thread of somebody else's pool cannot join another one.
        made.is_some() || (rayon::current_thread_index().is_some() && rayon::current_num_threads() == 1)
    })
}

/// Says how many threads there are, until it is dropped.
struct Granted {
    before: usize,
}

impl Granted {
    fn to(threads: usize) -> Self {
        Self { before: GRANTED.replace(threads) }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        GRANTED.set(self.before);
    }
}

/// A pool and who belongs to it.
struct Pool {
    threads: ThreadPool,
    members: Members,
}

impl Pool {
    fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let members = Members::default();
        let joining = members.clone();
        let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "millrace-lent".to_owned());
        Ok(Self { threads: builder.start_handler(move |index| joining.join(index)).build()?, members })
    }
}

/// A pool that goes back when this is dropped, a panic of the run included.
struct Borrowed(Option<Pool>);

impl Borrowed {
    fn take(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let idle = IDLE.lock().get_mut(&threads).and_then(Vec::pop);
        Ok(Self(Some(idle.map_or_else(|| Pool::new(threads), Ok)?)))
    }
}

impl Deref for Borrowed {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            IDLE.lock().entry(pool.threads.current_num_threads()).or_default().push(pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_run_knows_its_threads_and_nobody_else_does() {
        assert_eq!(within(3, granted).unwrap(), 3);
        let helpers = within(2, || rayon::join(|| (), rayon::current_num_threads)).unwrap().1;
        assert_eq!((helpers, granted()), (2, 1));
    }

    #[test]
    fn what_a_run_was_given_ends_with_its_panic() {
        catch_unwind(|| within(2, || panic!("as it was to"))).unwrap_err();
        // The pool is the same: one thread at a time takes those of five threads.
        catch_unwind(|| within(5, || panic!("as it was to"))).unwrap_err();
        within(5, || {
            let seen = rayon::broadcast(|_| granted());
            assert_eq!(seen.iter().filter(|granted| **granted == 5).count(), 1);
        })
        .unwrap();
    }

    #[test]
    fn one_thread_is_the_calling_one() {
        let here = std::thread::current().id();
        assert_eq!(within(1, || std::thread::current().id()).unwrap(), here);
        assert_eq!(within(0, rayon::current_num_threads).unwrap(), 1);
    }
}
