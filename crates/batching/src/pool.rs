//! The compute threads that all models share, with the one timer and the one background thread beside them.
//!
//! Threads only: whose turn it is says `fair`, what runs says the queue that a worker leads. A worker that sleeps is
//! woken once per burst: whoever is on its way wakes the next one if there is more to do.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use millrace_core::{Compute, Group, Job, Reason, Refusal};
use parking_lot::{Condvar, Mutex};

use crate::PoolConfig;
use crate::background::Background;
use crate::fair::{Account, HasAccount, Turns};
use crate::queue::draining;
use crate::timer::Timer;
use crate::{clock, niceness};

/// A handle to the compute threads. Dropping the last one answers everything that still waits, lets the runs that are
/// under way end, and joins the threads.
#[derive(Clone)]
pub struct ComputePool(Arc<Owner>);

/// A queue, as the pool's threads see it.
pub(crate) trait Led: Send + Sync + 'static {
    /// What it has used.
    fn account(&self) -> &Account;
    /// Forms one batch and runs it on the calling thread.
    fn lead(self: Arc<Self>, worker: &Arc<Worker>, now: Instant);
    /// The instant `at` that the timer was given has come. Returns the next one.
    fn on_time(self: Arc<Self>, at: Instant, now: Instant) -> Option<Instant>;
    /// Looks for runs that take too long. Returns whether any run is under way.
    fn watch(self: Arc<Self>, now: Instant) -> bool;
    /// Specialises the model. Blocks.
    fn prepare(&self, group: &Group, rows: usize);
    /// The pool is gone: answers everything that waits.
    fn drain(&self);
}

impl HasAccount for Arc<dyn Led> {
    fn account(&self) -> &Account {
        (**self).account()
    }
}

/// One compute thread.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    is_given_up: AtomicBool,
    is_replaced: AtomicBool,
}

pub(crate) struct Pool {
    config: PoolConfig,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
    is_stopping: AtomicBool,
    hung: AtomicUsize,
    /// Threads of others that led a run which hangs. Nobody can replace those.
    lost_guests: AtomicUsize,
    has_one_core: bool,
    timer: Timer,
    background: OnceLock<Background>,
    queues: Mutex<Vec<Weak<dyn Led>>>,
}

#[derive(Default)]
struct State {
    turns: Turns<Arc<dyn Led>>,
    jobs: VecDeque<Job>,
    /// What all jobs together have used.
    jobs_used: Account,
    asleep: usize,
    /// Workers that were woken and have not looked yet.
    waking: usize,
    /// Cores of sleeping workers that runs of others use meanwhile.
    lent: usize,
    alive: usize,
    started: usize,
    was_job: bool,
    threads: Vec<(Arc<Worker>, JoinHandle<()>)>,
}

/// Cores lent to a run, until it is dropped.
pub(crate) struct Loan<'a> {
    pool: &'a Pool,
    cores: usize,
}

impl Loan<'_> {
    /// How many there are beside the run's own.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if self.cores > 0 {
            self.pool.state.lock().lent -= self.cores;
        }
    }
}

enum Work {
    Queue(Arc<dyn Led>),
    Job(Job),
}

impl State {
    fn pick(&mut self) -> Option<Work> {
        // Jobs and batches alternate while there are both: either kind may come in floods. Short jobs get more turns than that,
        // until they have used as much time: whoever is the hundredth to have a body read does not wait for a hundred batches.
        if self.was_job
            && !self.turns.come_after(&self.jobs_used)
            && let Some(queue) = self.turns.take()
        {
            self.was_job = false;
            return Some(Work::Queue(queue));
        }
        if let Some(job) = self.jobs.pop_front() {
            self.was_job = true;
            return Some(Work::Job(job));
        }
        self.turns.take().map(Work::Queue)
    }

    fn push(&mut self, job: Job) {
        if self.jobs.is_empty() {
            self.turns.level(&self.jobs_used);
        }
        self.jobs.push_back(job);
    }

    /// Whether a sleeping worker must be woken for the work there is.
    fn wakes(&mut self) -> bool {
        let wakes = self.asleep > 0 && self.waking == 0 && !(self.turns.is_empty() && self.jobs.is_empty());
        self.waking += usize::from(wakes);
        wakes
    }
}

impl Pool {
    pub(crate) fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Says that `queue` has work. With `wakes` a sleeping worker is woken for it; without, the caller is a worker that
    /// looks for work next. False when the pool is stopping: nobody will come.
    #[must_use]
    pub(crate) fn add(&self, queue: Arc<dyn Led>, wakes: bool) -> bool {
        let mut state = self.state.lock();
        if self.is_stopping() {
            return false;
        }
        state.turns.add(queue);
        let wakes = wakes && state.wakes();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        true
    }

    /// Lends the calling worker's run the cores of workers that sleep, while nothing waits for them. They are lent and not
    /// taken: should work come meanwhile, a worker wakes for it as ever, and later runs find fewer cores idle.
    pub(crate) fn lend(&self) -> Loan<'_> {
        let mut state = self.state.lock();
        let has_work = !(state.turns.is_empty() && state.jobs.is_empty());
        let idle = if has_work { 0 } else { state.asleep.saturating_sub(state.waking + state.lent) };
        state.lent += idle;
        Loan { pool: self, cores: idle }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Makes a queue known to the watch and to the pool's end.
    pub(crate) fn register(&self, queue: Weak<dyn Led>) {
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(queue);
    }

    /// Calls `queue` back at `at`.
    pub(crate) fn at(&self, at: Instant, queue: Weak<dyn Led>) {
        self.timer.add(at, queue);
    }

    pub(crate) fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Has the background thread specialise a model. False when it has too much to do already.
    pub(crate) fn prepare(&self, queue: Weak<dyn Led>, group: Group, rows: usize) -> bool {
        self.background.get().is_some_and(|background| background.add(queue, group, rows))
    }

    /// Gives up on a worker whose run hangs, and starts another in its place while that is allowed.
    pub(crate) fn give_up(self: &Arc<Self>, worker: &Worker) {
        let mut state = self.state.lock();
        if worker.is_given_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let hung = self.hung.fetch_add(1, Ordering::AcqRel) + 1;
        state.alive -= 1;
        if hung <= self.config.max_replacements && !self.is_stopping() && self.start(&mut state).is_ok() {
            worker.is_replaced.store(true, Ordering::Release);
        }
        drop(state);
        self.ended.notify_all();
    }

    /// Whether all threads of this process share one core.
    pub(crate) fn has_one_core(&self) -> bool {
        self.has_one_core
    }

    /// A run on somebody else's thread hangs.
    pub(crate) fn lose_guest(&self) {
        self.lost_guests.fetch_add(1, Ordering::AcqRel);
    }

    /// A run on somebody else's thread that was thought to hang has come back.
    pub(crate) fn regain_guest(&self) {
        self.lost_guests.fetch_sub(1, Ordering::AcqRel);
    }

    /// A worker is back from a run. Returns whether it goes on: not if it was given up and replaced meanwhile.
    fn goes_on(&self, worker: &Worker) -> bool {
        if !worker.is_given_up.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state.lock();
        self.hung.fetch_sub(1, Ordering::AcqRel);
        if worker.is_replaced.load(Ordering::Acquire) || self.is_stopping() {
            // Work that this thread meant to look at next needs somebody else to look.
            let wakes = state.wakes();
            drop(state);
            if wakes {
                self.work.notify_one();
            }
            return false;
        }
        worker.is_given_up.store(false, Ordering::Release);
        state.alive += 1;
        true
    }

    fn start(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let index = state.started;
        let worker = Worker { index, is_given_up: AtomicBool::new(false), is_replaced: AtomicBool::new(false) };
        let worker = Arc::new(worker);
        let (pool, me) = (Arc::clone(self), Arc::clone(&worker));
        let thread =
            std::thread::Builder::new().name(format!("millrace-compute-{}", worker.index)).spawn(move || {
                niceness::stand_back(niceness::COMPUTE);
                pool.work(&me);
            })?;
        state.started += 1;
        state.alive += 1;
        state.threads.retain(|(_, thread)| !thread.is_finished());
        state.threads.push((worker, thread));
        Ok(())
    }

    fn work(&self, me: &Arc<Worker>) {
        while let Some(work) = self.next() {
            // Queues contain their models' panics. Should one of ours get out, the thread goes on.
            let (begun, is_job) = (clock::now(), matches!(work, Work::Job(_)));
            let ran = catch_unwind(AssertUnwindSafe(|| match work {
                Work::Queue(queue) => queue.lead(me, begun),
                Work::Job(job) => job(),
            }));
            if is_job {
                let took = clock::now().saturating_duration_since(begun);
                self.state.lock().jobs_used.charge(took);
            }
            if ran.is_err() {
                tracing::warn!(thread = me.index, "a job panicked on a compute thread");
            }
            if !self.goes_on(me) {
                return;
            }
        }
        let mut state = self.state.lock();
        if !me.is_given_up.load(Ordering::Acquire) {
            state.alive -= 1;
        }
        drop(state);
        self.ended.notify_all();
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(work) = state.pick() {
                let wakes = state.wakes();
                drop(state);
                if wakes {
                    self.work.notify_one();
                }
                return Some(work);
            }
            state.asleep += 1;
            self.work.wait(&mut state);
            state.asleep -= 1;
            state.waking = state.waking.saturating_sub(1);
        }
    }

    /// Looks at every queue for runs that take too long. Returns whether any run is under way.
    pub(crate) fn watch(&self, now: Instant) -> bool {
        let queues: Vec<_> = self.queues.lock().iter().filter_map(Weak::upgrade).collect();
        // Every one is asked, whatever the ones before said.
        let busy = queues.into_iter().filter(|queue| Arc::clone(queue).watch(now)).count();
        busy > 0
    }

    /// How often the watch looks.
    pub(crate) fn watch_interval(&self) -> Duration {
        (self.config.hang_grace / 2).clamp(Duration::from_millis(2), Duration::from_millis(500))
    }
}

impl ComputePool {
    /// Starts the threads, named `millrace-compute-0` and on.
    ///
    /// # Panics
    /// When the operating system gives no thread: nothing can be served then.
    pub fn new(config: PoolConfig) -> Self {
        let threads = config.threads.get();
        let pool = Arc::new(Pool {
            config,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            hung: AtomicUsize::new(0),
            lost_guests: AtomicUsize::new(0),
            has_one_core: std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1),
            timer: Timer::default(),
            background: OnceLock::new(),
            queues: Mutex::default(),
        });
        let mut state = pool.state.lock();
        for _ in 0..threads {
            pool.start(&mut state).expect("the operating system gives a thread");
        }
        drop(state);
        let helpers = vec![Timer::start(&pool).expect("the operating system gives a thread")];
        let background = Background::start().expect("the operating system gives a thread");
        drop(pool.background.set(background));
        Self(Arc::new(Owner { pool, helpers: Mutex::new(helpers) }))
    }

    /// How many compute threads there are, hung ones aside.
    pub fn threads(&self) -> usize {
        self.0.pool.state.lock().alive
    }

    /// False while more threads hang than may be replaced, or one that was lent.
    pub fn is_healthy(&self) -> bool {
        let pool = &self.0.pool;
        pool.hung.load(Ordering::Acquire) <= pool.config.max_replacements
            && pool.lost_guests.load(Ordering::Acquire) == 0
    }

    pub(crate) fn shared(&self) -> &Arc<Pool> {
        &self.0.pool
    }
}

impl Compute for ComputePool {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        self.0.pool.run(job)
    }

    fn workers(&self) -> Option<usize> {
        self.0.pool.workers()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Compute for Pool {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if self.is_stopping() {
            return Err(draining());
        }
        if state.jobs.len() >= self.config.max_jobs {
            let message = format!("{} jobs wait for a compute thread, which is the limit", state.jobs.len());
            return Err(Refusal::new(Reason::QueueFull, message).with_retry_after(Duration::from_secs(1)));
        }
        state.push(job);
        let wakes = state.wakes();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        Ok(())
    }

    fn workers(&self) -> Option<usize> {
        Some(self.config.threads.get())
    }
}

impl fmt::Debug for ComputePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputePool").field("threads", &self.threads()).field("is_healthy", &self.is_healthy()).finish()
    }
}

/// Ends the threads when the last handle goes.
struct Owner {
    pool: Arc<Pool>,
    helpers: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let pool = &self.pool;
        let mut state = pool.state.lock();
        pool.is_stopping.store(true, Ordering::Release);
        let (ready, jobs) = (state.turns.clear(), std::mem::take(&mut state.jobs));
        drop(state);
        pool.work.notify_all();
        // Outside the lock: both may run foreign code when they are dropped.
        drop((ready, jobs));
        let queues: Vec<_> = pool.queues.lock().iter().filter_map(Weak::upgrade).collect();
        for queue in queues {
            queue.drain();
        }
        let me = std::thread::current().id();
        let mut state = pool.state.lock();
        let is_own = |(_, thread): &(Arc<Worker>, JoinHandle<()>)| is(thread, me);
        if state.threads.iter().any(is_own) {
            // The last handle went in a job. This thread cannot wait for itself; all threads end on their own.
            drop(state);
            pool.timer.stop();
            return;
        }
        // The timer still watches, so a run that hangs is given up and not waited for.
        pool.ended.wait_while(&mut state, |state| state.alive > 0);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        pool.timer.stop();
        let ended = threads.into_iter().filter(|(worker, _)| !worker.is_given_up.load(Ordering::Acquire));
        for thread in ended.map(|(_, thread)| thread).chain(self.helpers.lock().drain(..)) {
            if !is(&thread, me) {
                drop(thread.join());
            }
        }
        if let Some(background) = pool.background.get() {
            background.stop();
        }
    }
}

fn is(thread: &JoinHandle<()>, id: ThreadId) -> bool {
    thread.thread().id() == id
}

#[cfg(test)]
mod tests;
