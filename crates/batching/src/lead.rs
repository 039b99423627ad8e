//! What happens to queued requests: a worker leads a queue by forming one batch, running it and answering its riders.
//!
//! [`Queue::lead`] works on whatever thread calls it. The lock is taken twice per batch: to form it, and to learn from it
//! and take the riders back, which meanwhile belong to the queue, so that a hung run cannot keep them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millrace_core::{ClosedBy, Group, Instance, Part, Progress, Reason, Refusal, RunContext, Stages, Wanted};
use smallvec::SmallVec;

use crate::clock;
use crate::failure::Failure;
use crate::fair::Account;
use crate::former::{BatchKey, Decision, Dropped, Formed};
use crate::pool::{Led, Loan, Worker};
use crate::queue::{Pending, Queue, Rider, State, draining};
use crate::reply::Piece;
use crate::run::{PartResult, Runner};

/// What a run costs beside the backend's time and the forming: taking turns and waking. For models of a microsecond this
/// is what makes batches worth while, so it counts as part of a run's price.
const HOP: Duration = Duration::from_micros(1);

/// A batch that is being run.
pub(crate) struct UnderWay {
    riders: Vec<Rider>,
    overdue: Option<Instant>,
    /// The pool's thread that leads it; `None` where it is a caller's.
    worker: Option<Arc<Worker>>,
}

/// How one batch is to be run.
struct Leading {
    ticket: usize,
    key: BatchKey,
    rows: usize,
    work: usize,
    padding: usize,
    run_rows: usize,
    deadline: Option<Instant>,
    wanted: Wanted,
    formed: Instant,
    is_guest: bool,
    /// How long it should take alone, where it may use idle cores.
    lent_against: Option<Duration>,
    closed_by: ClosedBy,
}

impl Led for Queue {
    fn account(&self) -> &Account {
        &self.account
    }

    fn lead(self: Arc<Self>, worker: &Arc<Worker>, now: Instant) {
        self.lead_once(Some(worker), now);
    }

    fn on_time(self: Arc<Self>, at: Instant, now: Instant) -> Option<Instant> {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        if state.alarm != Some(at) {
            // An earlier alarm was set since; the one that counts comes by itself.
            return None;
        }
        state.former.expire(now, &mut dropped);
        let is_due = state.former.next().is_some_and(|next| next <= now);
        let lists = is_due && state.wants_a_worker();
        let waiting = state.former.next().filter(|next| *next > now);
        state.alarm = state.former.next_deadline().into_iter().chain(waiting).min();
        let next = state.alarm;
        drop(state);
        if lists {
            self.list(Arc::clone(&self), true);
        }
        self.finish_dropped(dropped);
        next
    }

    fn watch(self: Arc<Self>, now: Instant) -> bool {
        let mut state = self.state.lock();
        let mut hung = Vec::new();
        for seat in &mut state.under_way {
            if seat.as_ref().is_some_and(|batch| batch.overdue.is_some_and(|overdue| overdue <= now)) {
                hung.extend(seat.take());
            }
        }
        if hung.is_empty() {
            return state.running > 0;
        }
        self.is_quarantined.store(true, Ordering::Release);
        state.running -= hung.len();
        let is_running = state.running > 0;
        let waiting = state.former.drain();
        drop(state);
        tracing::error!(
            model = self.name.as_str(),
            version = self.version,
            hung = hung.len(),
            "a run hangs; the version is quarantined"
        );
        for batch in hung {
            match &batch.worker {
                Some(worker) => self.pool.give_up(worker),
                None => self.pool.lose_guest(),
            }
            let message = format!("model `{}`: the run of this request hangs", self.name);
            let refusal = Refusal::new(Reason::BackendBroken, message);
            batch.riders.into_iter().for_each(|rider| self.give(rider, Err(refusal.clone()), now));
        }
        waiting.into_iter().for_each(|pending| self.refuse(pending.rider, self.quarantined()));
        is_running
    }

    fn prepare(&self, group: &Group, rows: usize) {
        if self.pool.is_stopping() || self.is_closed.load(Ordering::Acquire) {
            return;
        }
        let started = clock::now();
        let prepared = crate::run::prepare(&*self.model, group, rows);
        let took = clock::now().saturating_duration_since(started);
        match prepared {
            Ok(prepared) => {
                tracing::debug!(model = self.name.as_str(), version = self.version, rows, ?took, "prepared a size");
                self.state.lock().former.set_prepared(group, prepared, Some(took));
            }
            Err(failure) => drop(self.report(&failure, 0)),
        }
    }

    fn drain(&self) {
        let waiting = self.state.lock().former.drain();
        waiting.into_iter().for_each(|pending| self.refuse(pending.rider, draining()));
    }
}

impl Queue {
    /// Forms one batch and runs it on the calling thread: a worker of the pool, or a guest.
    pub(crate) fn lead_once(self: Arc<Self>, worker: Option<&Arc<Worker>>, now: Instant) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        let is_guest = worker.is_none();
        if !is_guest {
            state.is_listed = false;
            if state.running >= state.workers {
                // The operator allows fewer runs since this worker was called. Whoever ends one looks again.
                return;
            }
        }
        let decision = state.former.take(now, &mut |pending| pending.rider.reply.is_cancelled(), &mut dropped);
        let formed = match decision {
            Decision::Run(formed) => formed,
            Decision::Ask(at) => {
                let is_earlier = state.alarm.is_none_or(|alarm| at < alarm);
                if is_earlier {
                    state.alarm = Some(at);
                }
                drop(state);
                if is_earlier {
                    self.pool.at(at, self.led());
                }
                return self.finish_dropped(dropped);
            }
            Decision::Empty => {
                drop(state);
                return self.finish_dropped(dropped);
            }
        };
        let Formed { items, rows, work, padding, run_rows, predicted, deadline, closed_by, key } = formed;
        let (riders, parts) = apart(items);
        let wanted = union(&riders);
        let predicted = predicted.filter(|_| state.former.has_run(key));
        let is_lent = |predicted: &Duration| self.uses_threads && !is_guest && state.lending.wants(*predicted);
        let lent_against = predicted.filter(is_lent);
        let ticket = enter(&mut state, riders, now.checked_add(self.patience(predicted)), worker.cloned());
        let instance = state.instances.pop();
        // A guest looks again itself.
        let lists = !is_guest && state.wants_a_worker();
        drop(state);
        // Only now, with the batch entered, may the watch look: it would stop looking if it saw nothing under way.
        self.pool.timer().poke();
        if lists {
            self.list(Arc::clone(&self), true);
        }
        self.finish_dropped(dropped);
        self.metrics.batch(closed_by);
        let leading = Leading {
            ticket,
            key,
            rows,
            work,
            padding,
            run_rows,
            deadline,
            wanted,
            formed: now,
            is_guest,
            lent_against,
            closed_by,
        };
        self.run(&leading, parts, instance);
    }

    /// Runs a batch that was entered, learns from it and answers its riders.
    fn run(self: Arc<Self>, leading: &Leading, parts: Vec<Part>, instance: Option<Box<dyn Instance>>) {
        let is_cancelled = || self.is_abandoned(leading.ticket);
        let before_more = |rows| self.extend(leading, rows);
        let loan = leading.lent_against.map(|_| self.pool.lend()).filter(|loan| loan.cores() > 0);
        let mut runner = Runner {
            model: &*self.model,
            instance,
            context: RunContext {
                deadline: leading.deadline,
                wanted: &leading.wanted,
                threads: 1 + loan.as_ref().map_or(0, Loan::cores),
                cancelled: &is_cancelled,
            },
            before_more: &before_more,
            is_weary: self.failed_batches.load(Ordering::Relaxed) > 0,
            runs: SmallVec::new(),
            computed: 0,
            extra_runs: 0,
            started: None,
            finished: None,
        };
        let n_parts = parts.len();
        let results = runner.run_all(parts, leading.padding, leading.run_rows);
        let Runner { instance, runs, computed, extra_runs, started, finished, .. } = runner;
        let lent_against = leading.lent_against.filter(|_| loan.is_some());
        drop(loan);
        let started = started.unwrap_or(leading.formed);
        let stages = Stages {
            queued: leading.formed,
            formed: leading.formed,
            started,
            finished: finished.unwrap_or(started),
            batch_rows: leading.rows,
            padding: leading.padding,
            requests: n_parts,
            ahead: 0,
            closed_by: Some(leading.closed_by),
        };
        self.account.charge(stages.finished.saturating_duration_since(leading.formed));
        let mut state = self.state.lock();
        let Some(batch) = state.under_way.get_mut(leading.ticket).and_then(Option::take) else {
            // The watch gave this run up and answered its riders. The instance is not to be trusted either.
            drop(state);
            if leading.is_guest {
                self.pool.regain_guest();
            }
            drop(catch_unwind(AssertUnwindSafe(move || drop(instance))));
            return;
        };
        state.running -= 1;
        let spare = if state.instances.len() < state.workers.max(1) {
            state.instances.extend(instance);
            None
        } else {
            instance
        };
        let forming = started.saturating_duration_since(leading.formed);
        let overheads = std::iter::once(forming + HOP).chain(std::iter::repeat(HOP));
        // A mixed batch is one run, unless culprits were looked for: what those runs weighed is not known.
        let known = if self.is_mixed && extra_runs > 0 { &[] } else { &*runs };
        let work_of = |rows: usize| if self.is_mixed { leading.work } else { rows };
        let priced = known.iter().zip(overheads).map(|((rows, took), overhead)| (work_of(*rows), *took + overhead));
        let wishes: SmallVec<[usize; 1]> = match lent_against {
            None => priced.filter_map(|(rows, took)| state.former.observe(leading.key, rows, took)).collect(),
            // What the former predicts is what a run takes alone.
            Some(predicted) => {
                if extra_runs == 0 && !runs.is_empty() {
                    state.lending.learn(predicted, stages.finished.saturating_duration_since(started));
                }
                SmallVec::new()
            }
        };
        let group = if wishes.is_empty() { None } else { state.former.group(leading.key).cloned() };
        state.former.complete(leading.key);
        let scatter = state.runs.ran(&runs, forming);
        charge_culprits(&mut state, &batch.riders, &results, extra_runs, stages.finished);
        let lists = !leading.is_guest && state.wants_a_worker();
        drop(state);
        if lists {
            // Nobody is woken: this thread looks for work as soon as it has answered.
            self.list(Arc::clone(&self), false);
        }
        for rows in wishes {
            if let Some(group) = &group {
                self.ask_to_prepare(group, rows);
            }
        }
        if spare.is_some() {
            drop(catch_unwind(AssertUnwindSafe(move || drop(spare))));
        }
        runs.iter().for_each(|(rows, _)| self.metrics.rows.record(*rows as f64));
        if self.is_mixed && extra_runs == 0 && !runs.is_empty() {
            self.metrics.worked(leading.work, computed);
        }
        let n_failed = results.iter().filter(|result| result.is_err()).count();
        if n_parts > 1 {
            let failed = if n_failed == n_parts { self.failed_batches.load(Ordering::Relaxed) + 1 } else { 0 };
            self.failed_batches.store(failed, Ordering::Relaxed);
        }
        if scatter.is_some() {
            self.statistics.answers(stages.finished);
        }
        self.answer_all(batch.riders, results, stages, n_failed);
        if let Some(scatter) = scatter {
            scatter.add(clock::now().saturating_duration_since(stages.finished));
        }
    }

    fn answer_all(&self, riders: Vec<Rider>, results: Vec<PartResult>, stages: Stages, n_failed: usize) {
        let mut has_reported = false;
        for (rider, result) in riders.into_iter().zip(results) {
            let Stages { formed, started, .. } = stages;
            let progress = Progress::Run { queued: rider.queued, formed, started };
            let piece = match result {
                Ok(outputs) => Ok((outputs, Stages { queued: rider.queued, ahead: rider.ahead, ..stages })),
                Err(Failure::Cancelled) => {
                    self.metrics.skipped.increment(1);
                    Err(Failure::Cancelled.refusal(&self.name).with_progress(progress))
                }
                Err(failure) if has_reported => Err(failure.refusal(&self.name).with_progress(progress)),
                Err(failure) => {
                    has_reported = true;
                    Err(self.report(&failure, n_failed).with_progress(progress))
                }
            };
            self.give(rider, piece, stages.finished);
        }
    }

    /// Answers a rider and counts it, if that ends its request.
    fn give(&self, rider: Rider, piece: Piece, now: Instant) {
        let Rider { reply, wanted, queued, rows, .. } = rider;
        reply.give(piece, &wanted, |end| self.count(end, queued, rows, now));
    }

    fn count(&self, end: Result<Stages, Reason>, queued: Instant, rows: usize, now: Instant) {
        match end {
            Ok(stages) => {
                let (time, queue) = (now.saturating_duration_since(stages.queued), stages.queue());
                self.statistics.answered(rows, queue, time);
                self.metrics.queue.record(queue.as_secs_f64());
                self.metrics.compute.record(stages.compute().as_secs_f64());
            }
            Err(reason) => {
                self.statistics.failed(now.saturating_duration_since(queued));
                self.metrics.refused(reason);
            }
        }
    }

    /// Answers items that left the queue without a run.
    pub(crate) fn finish_dropped(&self, dropped: Vec<Dropped<Pending>>) {
        for item in dropped {
            match item {
                Dropped::Late(pending) => self.refuse(pending.rider, self.late()),
                Dropped::Gone(Pending { rider: Rider { reply, queued, .. }, .. }) => {
                    self.metrics.skipped.increment(1);
                    if reply.ends() {
                        self.statistics.failed(clock::now().saturating_duration_since(queued));
                    }
                }
            }
        }
    }

    /// Has the background thread specialise the model, if it can take more.
    pub(crate) fn ask_to_prepare(&self, group: &Group, rows: usize) {
        if !self.pool.prepare(self.led(), group.clone(), rows) {
            tracing::debug!(model = self.name.as_str(), version = self.version, rows, "too busy to prepare a size");
        }
    }

    /// Refuses a rider that waits.
    pub(crate) fn refuse(&self, rider: Rider, refusal: Refusal) {
        let refusal = refusal.with_progress(Progress::Queue { queued: rider.queued });
        self.give(rider, Err(refusal), clock::now());
    }

    /// How long a run may take before it counts as hung. `predicted` is `None` also where other groups' runs would tell: a
    /// first long sequence is no hang because short ones were quick.
    fn patience(&self, predicted: Option<Duration>) -> Duration {
        let config = self.pool.config();
        predicted.unwrap_or(config.hang_unknown).saturating_mul(config.hang_factor).saturating_add(config.hang_grace)
    }

    /// A batch goes on with a further run of `rows` rows: it may take as long again.
    fn extend(&self, leading: &Leading, rows: usize) {
        let now = clock::now();
        let mut state = self.state.lock();
        let work = if self.is_mixed { leading.work } else { rows };
        let predicted = state.former.group(leading.key).and_then(|group| state.former.predict(group, work));
        let predicted = predicted.filter(|_| state.former.has_run(leading.key));
        if let Some(batch) = state.under_way.get_mut(leading.ticket).and_then(Option::as_mut) {
            batch.overdue = now.checked_add(self.patience(predicted));
        }
    }

    /// Whether nobody waits for a batch any more.
    fn is_abandoned(&self, ticket: usize) -> bool {
        let state = self.state.lock();
        let batch = state.under_way.get(ticket).and_then(Option::as_ref);
        batch.is_none_or(|batch| batch.riders.iter().all(|rider| rider.reply.is_cancelled()))
    }
}

/// Those whose requests failed pay for the runs that finding them took, if somebody else rode with them.
fn charge_culprits(state: &mut State, riders: &[Rider], results: &[PartResult], runs: usize, now: Instant) {
    let is_culprit = |result: &PartResult| !matches!(result, Ok(_) | Err(Failure::Cancelled));
    let culprits = results.iter().filter(|result| is_culprit(result)).count();
    if runs == 0 || culprits == 0 || culprits == results.len() {
        return;
    }
    let each = runs as f64 / culprits as f64;
    for (rider, _) in riders.iter().zip(results).filter(|(_, result)| is_culprit(result)) {
        state.poison.charge(rider.caller, each, now);
    }
}

fn apart(items: Vec<(Pending, usize)>) -> (Vec<Rider>, Vec<Part>) {
    let mut riders = Vec::with_capacity(items.len());
    let mut parts = Vec::with_capacity(items.len());
    for (Pending { rider, inputs }, rows) in items {
        riders.push(rider);
        parts.push(Part { inputs, rows });
    }
    (riders, parts)
}

/// The outputs that some rider wants.
fn union(riders: &[Rider]) -> Wanted {
    let mut all = SmallVec::<[usize; 4]>::new();
    for rider in riders {
        let Wanted::Only(indices) = &rider.wanted else { return Wanted::All };
        all.extend_from_slice(indices);
    }
    all.sort_unstable();
    all.dedup();
    Wanted::Only(all)
}

/// Enters a batch among those under way; its place there is its ticket.
fn enter(state: &mut State, riders: Vec<Rider>, overdue: Option<Instant>, worker: Option<Arc<Worker>>) -> usize {
    state.running += 1;
    let batch = UnderWay { riders, overdue, worker };
    if let Some(free) = state.under_way.iter().position(Option::is_none) {
        state.under_way[free] = Some(batch);
        return free;
    }
    state.under_way.push(Some(batch));
    state.under_way.len() - 1
}
