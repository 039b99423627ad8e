//! One version's queue, seen from outside: requests are checked and admitted here, or refused at the door.
//!
//! What happens to admitted ones is in `lead`; which of them run together is decided by `former`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millrace_core::{
    Admission, Group, InferFuture, InferRequest, InputError, Instance, LoadError, Model, ModelName, Priority, Progress,
    QueueStatus, Reason, Refusal, RequestContext, Tensor, TensorList, VersionStatistics, Wanted, on_compute,
};
use parking_lot::{Mutex, MutexGuard};

use crate::failure::{Failure, Hush};
use crate::fair::Account;
use crate::former::{Arrival, BatchFormer, Dropped, FormerConfig};
use crate::guest::Guest;
use crate::lead::UnderWay;
use crate::lending::Lending;
use crate::metric::Metrics;
use crate::poison::PoisonBook;
use crate::pool::{Led, Pool};
use crate::reply::Reply;
use crate::statistics::{Runs, Statistics};
use crate::{BatchConfig, ComputePool, Instances, Learned, Oversized, Sizes, clock};

/// How often callers that have gone are looked for while the queue is full.
const SWEEP: Duration = Duration::from_millis(1);
/// The most bytes of an answer of a model that runs requests of different lengths together.
const MOST_ANSWER_BYTES: usize = 1 << 30;
/// Bytes of inputs that are weighed where they arrive, in some tenth of a millisecond. Other connections wait for that
/// thread.
const WEIGHED_HERE: usize = 1 << 20;
/// The most pieces of a request that are weighed one by one.
const WEIGHED_PIECES: usize = 16;
/// A deadline this much earlier than the timer's next call is not worth another call: a flood of ever earlier deadlines
/// must not fill the timer.
const ALARM_STEP: Duration = Duration::from_millis(1);
/// When a refused caller should come back where nothing has been learned yet.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// A handle to the queue of one version of one model. Dropping the last one closes it.
#[derive(Clone)]
pub struct BatchQueue(Arc<Handle>);

struct Handle(Arc<Queue>);

/// The queue itself: shared by handles, workers and the timer.
pub(crate) struct Queue {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) name: ModelName,
    pub(crate) version: u64,
    pub(crate) config: BatchConfig,
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: Mutex<State>,
    pub(crate) statistics: Statistics,
    pub(crate) metrics: Metrics,
    pub(crate) account: Account,
    pub(crate) hush: Hush,
    pub(crate) is_quarantined: AtomicBool,
    pub(crate) is_closed: AtomicBool,
    /// Whether it ever panicked, failed or broke its contract: then it runs on the pool's own threads only.
    pub(crate) is_suspect: AtomicBool,
    /// Whether idle cores may make the model's runs shorter.
    pub(crate) uses_threads: bool,
    /// Whether requests of different sizes ride together, so that their work is not the number of their rows.
    pub(crate) is_mixed: bool,
    /// Requests whose inputs are still to come.
    pub(crate) expected: AtomicUsize,
    /// Batches in a row of which nothing succeeded.
    pub(crate) failed_batches: AtomicU32,
    pub(crate) this: Weak<Self>,
}

/// What the lock guards. It is held for bookkeeping only: never during a run, an answer or a call into the model.
pub(crate) struct State {
    pub(crate) former: BatchFormer<Pending>,
    pub(crate) under_way: Vec<Option<UnderWay>>,
    pub(crate) running: usize,
    /// How many runs may go on at once; zero refuses every request.
    pub(crate) workers: usize,
    /// The same as an operator said it, where one did: it may be more than the pool has threads.
    executors: Option<usize>,
    /// Whether the pool knows that there is work.
    pub(crate) is_listed: bool,
    /// Whether some caller's thread is about to lead.
    pub(crate) has_guest: bool,
    pub(crate) instances: Vec<Box<dyn Instance>>,
    /// The instant at which the timer will call.
    pub(crate) alarm: Option<Instant>,
    pub(crate) poison: PoisonBook,
    pub(crate) lending: Lending,
    pub(crate) runs: Runs,
    swept: Option<Instant>,
    /// The most urgent class that was ever asked for.
    pub(crate) most_urgent: Priority,
}

impl State {
    /// Whether the pool should be told that there is work; it will be.
    pub(crate) fn wants_a_worker(&mut self) -> bool {
        let wants = !self.former.is_empty() && !self.is_listed && self.running < self.workers;
        self.is_listed |= wants;
        wants
    }
}

/// A queued request or piece.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) rider: Rider,
    pub(crate) inputs: TensorList,
}

/// All of a request but its inputs.
#[derive(Debug)]
pub(crate) struct Rider {
    pub(crate) reply: Reply,
    pub(crate) wanted: Wanted,
    pub(crate) caller: millrace_core::CallerId,
    pub(crate) queued: Instant,
    /// Rows of the whole request, where this is a piece.
    pub(crate) rows: usize,
    /// Rows that waited already when the request came.
    pub(crate) ahead: usize,
}

impl BatchQueue {
    /// A queue in front of `model`. Makes the first instance, so that a model without a usable one fails here.
    ///
    /// Metrics go to whatever recorder is installed now.
    ///
    /// # Errors
    /// [`LoadError`] when the model gives no instance.
    pub fn new(
        model: Arc<dyn Model>,
        name: ModelName,
        version: u64,
        config: BatchConfig,
        pool: &ComputePool,
    ) -> Result<Self, LoadError> {
        let first = model.instance()?;
        let uses_threads = model.uses_threads();
        let pool = Arc::clone(pool.shared());
        let threads = pool.config().threads.get();
        let executors = match config.instances {
            Instances::PerThread => None,
            Instances::Exactly(count) => Some(count.get()),
        };
        let workers = executors.map_or(threads, |count| count.min(threads));
        let is_mixed = model.signature().is_mixed();
        let former = BatchFormer::new(FormerConfig {
            is_batched: config.enabled && model.signature().is_batched(),
            is_mixed,
            max_rows: if model.signature().is_batched() { config.max_batch_size.get() } else { 1 },
            max_work: if is_mixed { config.max_batch_tokens.get() } else { config.max_batch_size.get() },
            waiting: config.waiting,
            sizes: config.sizes.clone(),
            max_groups: config.max_groups,
            workers,
        });
        let state = State {
            former,
            under_way: Vec::new(),
            running: 0,
            workers,
            executors,
            is_listed: false,
            has_guest: false,
            instances: vec![first],
            alarm: None,
            poison: PoisonBook::new(config.poison_budget),
            lending: Lending::default(),
            runs: Runs::default(),
            swept: None,
            most_urgent: Priority::default(),
        };
        let metrics = Metrics::new(&name, version, config.has_own_series, is_mixed);
        let queue = Arc::new_cyclic(|this| Queue {
            model,
            name,
            version,
            config,
            pool,
            state: Mutex::new(state),
            statistics: Statistics::new(clock::now()),
            metrics,
            account: Account::default(),
            hush: Hush::default(),
            is_quarantined: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            uses_threads,
            is_mixed,
            expected: AtomicUsize::new(0),
            failed_batches: AtomicU32::new(0),
            this: Weak::clone(this),
        });
        queue.pool.register(queue.led());
        Ok(Self(Arc::new(Handle(queue))))
    }

    /// Checks the inputs, then queues the request. Never blocks, nor works for long. Dropping the future takes the request
    /// back.
    pub fn infer(&self, request: InferRequest) -> InferFuture {
        if self.0.0.is_mixed && bytes_of(&request.inputs) > WEIGHED_HERE {
            return self.infer_elsewhere(request);
        }
        self.infer_here(request)
    }

    fn infer_here(&self, request: InferRequest) -> InferFuture {
        let queue = &self.0.0;
        queue.admit(request).unwrap_or_else(|refusal| {
            queue.statistics.refused();
            queue.metrics.refused(refusal.reason());
            InferFuture::refused(refusal.with_progress(Progress::Door))
        })
    }

    /// On a compute thread, where the model may look at as many inputs as it likes.
    fn infer_elsewhere(&self, request: InferRequest) -> InferFuture {
        let queue = self.clone();
        InferFuture::boxed(async move {
            let pool = Arc::clone(&queue.0.0.pool);
            // That thread is not the one that waits for the answer.
            let context = RequestContext { lends_thread: false, ..request.context };
            let queued = on_compute(&*pool, move || queue.infer_here(InferRequest { context, ..request })).await;
            queued.map_err(|refusal| refusal.with_progress(Progress::Door))?.await
        })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.0.0
    }

    /// What it has done so far.
    pub fn statistics(&self) -> VersionStatistics {
        let queue = &self.0.0;
        let runs = queue.state.lock().runs.read();
        queue.statistics.read(runs)
    }

    /// Changes how many runs may go on at once: at most `executors`, and never more than the pool has threads. Zero answers
    /// what is queued with `NotReady`, and everything that comes until the next change. Runs under way go on.
    pub fn set_executors(&self, executors: usize) {
        let queue = &self.0.0;
        let mut state = queue.state.lock();
        state.executors = Some(executors);
        state.workers = executors.min(queue.pool.config().threads.get());
        let workers = state.workers;
        state.former.set_workers(workers);
        let keep = workers.max(1).min(state.instances.len());
        let idle = state.instances.split_off(keep);
        let waiting = if workers == 0 { state.former.drain() } else { Vec::new() };
        let lists = state.wants_a_worker();
        drop(state);
        if lists {
            queue.list(Arc::clone(queue), true);
        }
        waiting.into_iter().for_each(|pending| queue.refuse(pending.rider, queue.idle()));
        // Foreign code, which may take its time or panic.
        drop(catch_unwind(AssertUnwindSafe(move || drop(idle))));
    }

    /// How many runs may go on at once, where an operator has said so: by configuration or by
    /// [`BatchQueue::set_executors`].
    pub fn executors(&self) -> Option<usize> {
        self.0.0.state.lock().executors
    }

    /// The rows that wait, and how many may.
    pub fn waiting(&self) -> QueueStatus {
        let queue = &self.0.0;
        let waiting = queue.state.lock().former.rows();
        QueueStatus { waiting, capacity: queue.most_rows() }
    }

    /// Whether a run hung, so that the version takes no more requests.
    pub fn is_quarantined(&self) -> bool {
        self.0.0.is_quarantined.load(Ordering::Acquire)
    }

    /// Refuses new requests from now on; queued ones still run.
    pub fn close(&self) {
        self.0.0.is_closed.store(true, Ordering::Release);
    }

    /// What was learned about run times, one entry per group, by group.
    pub fn learned(&self) -> Vec<Learned> {
        self.0.0.state.lock().former.learned()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
    }
}

impl fmt::Debug for BatchQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = &self.0.0;
        f.debug_struct("BatchQueue")
            .field("model", &queue.name)
            .field("version", &queue.version)
            .field("is_quarantined", &self.is_quarantined())
            .finish_non_exhaustive()
    }
}

fn bytes_of(inputs: &[Tensor]) -> usize {
    inputs.iter().map(Tensor::n_bytes).sum()
}

/// A checked request, about to be queued.
pub(crate) struct Checked {
    pub(crate) rows: usize,
    pub(crate) work: usize,
    /// What it is thought to come back with, should it be refused.
    pub(crate) promised: usize,
    /// What it has in common with those that may share its run.
    pub(crate) group: Group,
    pub(crate) bytes: usize,
    pub(crate) now: Instant,
}

impl Queue {
    /// This queue as the pool knows it.
    pub(crate) fn led(&self) -> Weak<dyn Led> {
        Weak::clone(&self.this) as Weak<dyn Led>
    }

    fn admit(&self, request: InferRequest) -> Result<InferFuture, Refusal> {
        self.check_open()?;
        let admission = self.check(&request)?;
        let now = clock::now();
        if request.context.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(self.late());
        }
        let bytes = bytes_of(&request.inputs);
        let (checked, mut state) = if self.is_mixed {
            self.admit_mixed(&request, &admission, bytes, now)?
        } else {
            let mut state = self.state.lock();
            if !state.former.is_admitted(&admission.group, admission.rows) {
                drop(state);
                state = self.admit_stranger(&admission)?;
            }
            let Admission { rows, group } = admission;
            (Checked { rows, work: rows, promised: rows, group, bytes, now }, state)
        };
        if state.workers == 0 {
            return Err(self.idle());
        }
        state.most_urgent = state.most_urgent.min(request.context.priority);
        let mut gone = Vec::new();
        let room = self.make_room(&mut state, &checked, &request.context, &mut gone);
        if let Err(refusal) = room {
            drop(state);
            self.finish_dropped(gone);
            return Err(refusal);
        }
        let (slot, mut future) = InferFuture::slot();
        let (deadline, is_lent) = (request.context.deadline, request.context.lends_thread);
        let predicted = is_lent.then(|| state.former.predict_surely(&checked.group, checked.work)).flatten();
        let is_news = self.push(&mut state, checked, request, slot);
        let alarm = deadline.filter(|at| state.alarm.is_none_or(|alarm| *at + ALARM_STEP < alarm));
        if alarm.is_some() {
            state.alarm = alarm;
        }
        let wants = is_news && !state.is_listed && state.running < state.workers;
        let is_led = wants && is_lent && self.may_be_led(&state.former, predicted);
        let (lists, leads) = (wants && !is_led, is_led && !state.has_guest);
        state.is_listed |= lists;
        state.has_guest |= leads;
        drop(state);
        if let Some(at) = alarm {
            self.pool.at(at, self.led());
        }
        if leads && let Some(this) = self.this.upgrade() {
            future = future.led_by(Guest::boxed(this));
        } else if is_led {
            future = future.led_elsewhere();
        }
        if lists && let Some(this) = self.this.upgrade() {
            self.list(this, true);
        } else if self.pool.is_stopping() {
            self.drain();
        }
        self.finish_dropped(gone);
        Ok(future)
    }

    /// Tells the pool that there is work. Should the pool be stopping, everything queued is answered.
    pub(crate) fn list(&self, this: Arc<Self>, wakes: bool) {
        if !self.pool.add(this, wakes) {
            self.drain();
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Refusal> {
        if self.is_quarantined.load(Ordering::Acquire) {
            return Err(self.quarantined());
        }
        if self.is_closed.load(Ordering::Acquire) {
            let message = format!("model `{}` version {} is being unloaded", self.name, self.version);
            return Err(Refusal::new(Reason::Draining, message));
        }
        if self.pool.is_stopping() {
            return Err(draining());
        }
        Ok(())
    }

    fn check(&self, request: &InferRequest) -> Result<Admission, Refusal> {
        let signature = self.model.signature();
        if request.signature != 0 {
            let message = format!("model `{}` has no signature number {}", self.name, request.signature);
            return Err(Refusal::new(Reason::SignatureUnknown, message));
        }
        let admission = signature.check(&request.inputs).map_err(|error| error.refusal(&self.name))?;
        if let Wanted::Only(indices) = &request.wanted
            && let Some(unknown) = indices.iter().find(|index| **index >= signature.outputs().len())
        {
            let message = format!("model `{}` has no output number {unknown}", self.name);
            return Err(Refusal::new(Reason::InvalidInput, message));
        }
        self.check_answer(request, &admission)?;
        let (rows, most) = (admission.rows, self.config.max_batch_size.get());
        if rows > most && self.config.oversized == Oversized::Refuse {
            // TensorFlow Serving's words: its clients look for them.
            let message = format!("Task size {rows} is larger than maximum input batch size {most}");
            return Err(Refusal::new(Reason::InvalidInput, message));
        }
        Ok(admission)
    }

    /// Refuses a request whose answer would not fit in memory: vectors of tokens are a thousand times as large as the tokens.
    fn check_answer(&self, request: &InferRequest, admission: &Admission) -> Result<(), Refusal> {
        if !self.is_mixed {
            return Ok(());
        }
        let signature = self.model.signature();
        let mut bytes = 0_usize;
        for (index, spec) in signature.outputs().iter().enumerate() {
            if !request.wanted.includes(index) {
                continue;
            }
            let shape = signature.output_shape(spec, admission).map_err(|error| error.refusal(&self.name))?;
            let width = spec.dtype.size().unwrap_or(1);
            bytes = bytes.saturating_add(shape.map_or(0, |shape| shape.n_elements().saturating_mul(width)));
        }
        if bytes <= MOST_ANSWER_BYTES {
            return Ok(());
        }
        let message = format!(
            "the answer of model `{}` would take {bytes} bytes, the limit is {MOST_ANSWER_BYTES}: ask for fewer outputs or in \
             several requests",
            self.name
        );
        Err(Refusal::new(Reason::TooLarge, message))
    }

    /// Asks the model about a request whose size is its own: every one, because no other speaks for it.
    fn admit_mixed(
        &self,
        request: &InferRequest,
        admission: &Admission,
        bytes: usize,
        now: Instant,
    ) -> Result<(Checked, MutexGuard<'_, State>), Refusal> {
        let ask = || -> Result<_, InputError> {
            self.model.admit(admission)?;
            self.model.weigh(&request.inputs, admission)
        };
        let work = match catch_unwind(AssertUnwindSafe(ask)) {
            Ok(answer) => answer.map_err(|error| error.refusal(&self.name))?.max(1),
            Err(payload) => return Err(self.report(&Failure::panicked(&*payload), 1)),
        };
        let (rows, group) = (admission.rows, self.model.signature().shared_group(admission));
        let mut state = self.state.lock();
        state.former.set_admitted(&group, rows);
        Ok((Checked { rows, work, promised: work, group, bytes, now }, state))
    }

    /// Asks the model about the first request of a group or of a range of row counts.
    fn admit_stranger(&self, admission: &Admission) -> Result<MutexGuard<'_, State>, Refusal> {
        let ask = || -> Result<_, InputError> {
            self.model.admit(admission)?;
            Ok(self.model.prepared(&admission.group))
        };
        let prepared = match catch_unwind(AssertUnwindSafe(ask)) {
            Ok(answer) => answer.map_err(|error| error.refusal(&self.name))?,
            Err(payload) => return Err(self.report(&Failure::panicked(&*payload), 1)),
        };
        let mut state = self.state.lock();
        let is_new = state.former.set_admitted(&admission.group, admission.rows);
        state.former.set_prepared(&admission.group, prepared, None);
        if is_new && let Sizes::Allowed(sizes) = &self.config.sizes {
            for size in sizes {
                // Should the background thread be too busy, such runs go the slower way, as any other size does.
                self.ask_to_prepare(&admission.group, size.get());
            }
        }
        Ok(state)
    }

    /// Refuses what does not fit into the queue's limits. Requests whose callers have gone make room first.
    pub(crate) fn make_room(
        &self,
        state: &mut State,
        checked: &Checked,
        context: &RequestContext,
        gone: &mut Vec<Dropped<Pending>>,
    ) -> Result<(), Refusal> {
        let Err(mut refusal) = self.fits(&state.former, checked, context) else { return Ok(()) };
        let now = checked.now;
        if state.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            state.swept = Some(now);
            state.former.sweep(&mut |pending| pending.rider.reply.is_cancelled(), gone);
            state.former.expire(now, gone);
            if !gone.is_empty() {
                match self.fits(&state.former, checked, context) {
                    Ok(()) => return Ok(()),
                    Err(again) => refusal = again,
                }
            }
        }
        if refusal.reason() == Reason::QueueFull {
            let wait = state.former.retry_after(&checked.group, checked.promised, now);
            refusal = refusal.with_retry_after(wait.unwrap_or(RETRY));
        }
        Err(refusal)
    }

    fn fits(&self, former: &BatchFormer<Pending>, checked: &Checked, context: &RequestContext) -> Result<(), Refusal> {
        let config = &self.config;
        for (what, used, new, most) in [
            ("rows", former.rows(), checked.rows, self.most_rows()),
            ("bytes", former.bytes(), checked.bytes, config.max_queue_bytes),
        ] {
            if new > most {
                let message =
                    format!("a request of {new} {what} to model `{}` does not fit its queue of {most}", self.name);
                return Err(Refusal::new(Reason::TooLarge, message));
            }
            if used.saturating_add(new) > most {
                return Err(self.full(&format!("{used} {what} wait, the limit is {most}")));
            }
        }
        let (backlog, most) = (former.backlog(), config.max_queue_time);
        if backlog > most {
            let message = format!("{} ms of work wait, the limit is {} ms", backlog.as_millis(), most.as_millis());
            return Err(self.full(&message));
        }
        let Some(deadline) = context.deadline else { return Ok(()) };
        let arrival = Arrival {
            group: &checked.group,
            rows: checked.rows,
            work: checked.work,
            bytes: checked.bytes,
            caller: context.caller,
            priority: context.priority,
            deadline: Some(deadline),
            is_alone: false,
        };
        let Some(takes) = former.is_late(&arrival, checked.now) else { return Ok(()) };
        let left = deadline.saturating_duration_since(checked.now);
        let message =
            format!("the answer would take {} ms, the deadline is in {} ms", takes.as_millis(), left.as_millis());
        Err(self.full(&message))
    }

    /// The most rows that may wait.
    fn most_rows(&self) -> usize {
        let config = &self.config;
        config.max_enqueued_batches.saturating_mul(config.max_batch_size.get()).min(config.max_queue_rows)
    }

    pub(crate) fn full(&self, which: &str) -> Refusal {
        let message = format!("the queue of model `{}` version {} is full: {which}", self.name, self.version);
        Refusal::new(Reason::QueueFull, message)
    }

    /// Queues a request, in pieces where one run cannot or should not hold it. Returns whether a worker should look.
    fn push(&self, state: &mut State, checked: Checked, request: InferRequest, slot: millrace_core::Slot) -> bool {
        let Checked { rows, work, group, bytes, now, .. } = checked;
        let InferRequest { inputs, wanted, context, .. } = request;
        let is_batched = self.model.signature().is_batched();
        let piece = if is_batched { state.former.piece_rows(&group, rows, work) } else { rows };
        let arrival = Arrival {
            group: &group,
            rows,
            work,
            bytes,
            caller: context.caller,
            priority: context.priority,
            deadline: context.deadline,
            is_alone: state.poison.runs_alone(context.caller, now),
        };
        let ahead = state.former.rows();
        let rider = |reply, wanted| Rider { reply, wanted, caller: context.caller, queued: now, rows, ahead };
        if piece >= rows {
            let pending = Pending { rider: rider(Reply::Direct(slot), wanted), inputs };
            return state.former.push(pending, arrival, now).is_news;
        }
        let count = rows.div_ceil(piece);
        let mut is_news = false;
        for (index, reply) in Reply::pieces(slot, count).enumerate() {
            let range = index * piece..rows.min((index + 1) * piece);
            let inputs: TensorList = inputs.iter().map(|input| input.rows(range.clone())).collect();
            // The lock is held: many or large pieces are weighed as parts of the whole.
            let piece_work = if count > WEIGHED_PIECES || bytes > WEIGHED_HERE {
                (work * range.len() / rows).max(1)
            } else {
                self.work(&inputs, range.len())
            };
            let bytes = bytes_of(&inputs);
            let arrival = Arrival { rows: range.len(), work: piece_work, bytes, ..arrival };
            let pending = Pending { rider: rider(reply, wanted.clone()), inputs };
            is_news |= state.former.push(pending, arrival, now).is_news;
        }
        is_news
    }

    /// The work of a piece of a request that was admitted whole.
    fn work(&self, inputs: &TensorList, rows: usize) -> usize {
        if !self.is_mixed {
            return rows;
        }
        let weigh = || {
            let admission = self.model.signature().check(inputs).ok()?;
            self.model.weigh(inputs, &admission).ok()
        };
        // Foreign code. The whole was weighed well; should a piece not be, its rows are the best guess.
        catch_unwind(AssertUnwindSafe(weigh)).ok().flatten().unwrap_or(rows).max(1)
    }

    pub(crate) fn quarantined(&self) -> Refusal {
        let message = format!("model `{}` version {} is quarantined: a run of it hangs", self.name, self.version);
        Refusal::new(Reason::NotReady, message)
    }

    /// The refusal while nothing may run. TorchServe's words: its clients look for them.
    pub(crate) fn idle(&self) -> Refusal {
        let message =
            format!("model `{}` version {} has no worker to serve inference request", self.name, self.version);
        Refusal::new(Reason::NotReady, message)
    }

    pub(crate) fn late(&self) -> Refusal {
        Refusal::new(Reason::Late, format!("model `{}`: the answer would come after the deadline", self.name))
    }

    /// Logs a failure, but not too often, and says what its callers are told.
    pub(crate) fn report(&self, failure: &Failure, requests: usize) -> Refusal {
        if !matches!(failure, Failure::Invalid(_) | Failure::Cancelled) {
            self.is_suspect.store(true, Ordering::Relaxed);
        }
        let refusal = failure.refusal(&self.name);
        if let Some(held_back) = self.hush.passes(clock::now()) {
            let cause = refusal.cause().map(tracing::field::display);
            let (model, version, reason) = (self.name.as_str(), self.version, refusal.reason().name());
            tracing::warn!(model, version, reason, cause, requests, held_back, "{}", refusal.message());
        }
        refusal
    }
}

pub(crate) fn draining() -> Refusal {
    Refusal::new(Reason::Draining, "the server is shutting down")
}
