//! The compute threads that all models share.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError};
use millrace_core::{Compute, Job, Reason, Refusal};

use crate::PoolConfig;

/// A handle to the compute threads. Dropping the last one answers everything that still waits and joins the threads.
#[derive(Clone)]
pub struct ComputePool(Arc<Threads>);

struct Threads {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl ComputePool {
    /// Starts the threads, named `millrace-compute-0` and on.
    ///
    /// # Panics
    /// When the operating system gives no thread.
    #[expect(clippy::needless_pass_by_value, reason = "a config is consumed by what it configures")]
    pub fn new(config: PoolConfig) -> Self {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(config.max_jobs);
        let spawn = |index| {
            let queue = queue.clone();
            let work = move || {
                for job in queue {
                    // A job is consumed by its run, so nothing half-changed is seen afterwards.
                    drop(catch_unwind(AssertUnwindSafe(job)));
                }
            };
            std::thread::Builder::new().name(format!("millrace-compute-{index}")).spawn(work).expect("a thread")
        };
        let threads = (0..config.threads.get()).map(spawn).collect();
        Self(Arc::new(Threads { jobs: Some(jobs), threads }))
    }

    /// How many compute threads there are, hung ones aside.
    pub fn threads(&self) -> usize {
        self.0.threads.len()
    }

    /// False once more threads hang than may be replaced.
    pub fn is_healthy(&self) -> bool {
        !self.0.threads.is_empty()
    }
}

impl Compute for ComputePool {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        match self.0.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => {
                Err(Refusal::new(Reason::QueueFull, "too much work waits for the compute threads"))
            }
            _ => Err(Refusal::new(Reason::Draining, "the compute threads are stopping")),
        }
    }
}

impl fmt::Debug for ComputePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputePool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                drop(thread.join());
            }
        }
    }
}
