//! The one thread that owns the truth. Orders, results of loads, freed memory and changes on disk come in as messages
//! and are handled one after the other, so that the last order wins; pictures for readers go out.
//!
//! How each order is carried out stands in `orders`. It decides nothing itself (that is `table`), loads nothing (`loader`) and frees nothing (`lease`). It does read the
//! repository and write the state file: a file system that hangs delays orders, never requests.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use millrace_core::{
    Alias, ModelName, Reason, Refusal, Registered, Registration, Servable as _, VersionStatistics, WantedModel,
};

use crate::desired::Overrides;
use crate::lease::{Lease, Reaper};
use crate::loader::{self, Loader};
use crate::metrics::Series;
use crate::registry::Shared;
use crate::reply::{OrderResult, Reply};
use crate::scan::{Scan, Scanner};
use crate::snapshot::{ModelView, Snapshot};
use crate::state::StateFile;
use crate::table::{LoadId, LoadOutcome, Progress, Table};
use crate::watch::Watch;
use crate::{clock, metrics};

mod orders;

/// After a change on disk, how long to wait for more of the same before looking.
const GATHER: Duration = Duration::from_millis(20);
/// Scans take at most one part in so many of the manager's time, however busy the disk is.
const SCAN_SHARE: u32 = 10;
/// How long to wait after a repository that could not be read, where nothing else says when to look again.
const UNREADABLE_WAIT: Duration = Duration::from_secs(1);

/// What the manager is told.
#[derive(Debug)]
pub(crate) enum Message {
    Order(Order, Reply),
    /// Something may have changed on disk.
    Touched,
    Loaded(usize, LoadId, LoadOutcome<Arc<Lease>>),
    Drained(LoadId, VersionStatistics),
    Stop,
}

/// An operator's order.
#[derive(Debug)]
pub(crate) enum Order {
    Load(ModelName, Option<u64>),
    Unload(ModelName, Option<u64>),
    SetAlias(ModelName, Alias, u64),
    RemoveAlias(ModelName, Alias),
    Rescan,
    Scale(ModelName, Option<u64>, usize),
    Register(Box<Registration>),
    Unregister(ModelName, Option<u64>),
    Replace(Vec<WantedModel>),
}

/// Everything that the manager's thread owns.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) inbox: Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: Table<Arc<Lease>>,
    pub(crate) scanner: Scanner,
    pub(crate) state: Option<StateFile>,
    pub(crate) loaders: Vec<Loader>,
    pub(crate) reaper: Reaper,
    pub(crate) series: Arc<Series>,
    pub(crate) poll_interval: Option<Duration>,
    pub(crate) schedule: Schedule,
    pub(crate) waiting: Vec<Waiter>,
    /// Versions that no reader should find any more; let go once the picture without them is out.
    pub(crate) released: Vec<Arc<Lease>>,
    pub(crate) answers: Vec<(Reply, OrderResult)>,
    pub(crate) warned: HashSet<String>,
}

/// When to look at the disk.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) watch: Option<Watch>,
    /// When the last look that succeeded began.
    pub(crate) scanned: Instant,
    /// How long a look takes.
    pub(crate) cost: Duration,
    /// A change was told; look then.
    pub(crate) touched: Option<Instant>,
    /// The repository could not be read; do not look before.
    pub(crate) not_before: Option<Instant>,
}

/// An order that has been carried out and waits for its effect.
#[derive(Debug)]
pub(crate) struct Waiter {
    goal: Goal,
    reply: Reply,
}

#[derive(Debug)]
enum Goal {
    Loaded(ModelName, BTreeSet<u64>),
    /// One version of a model. Should it fail, everything said about it goes back to what it was before.
    Registered(Registered, Box<Overrides>),
    /// All of these. The refusal is for what could not even be tried.
    Replaced(BTreeMap<ModelName, BTreeSet<u64>>, Option<Refusal>),
    Finished(BTreeSet<LoadId>),
    /// A look at the disk that began then or later, and everything that it set going.
    Settled(Option<Instant>),
}

impl Manager {
    /// Takes the first look at the disk, and shows what it found: nobody who has a registry is told that a model is
    /// unknown which only loads.
    pub(crate) fn begin(&mut self, scan: Scan) {
        self.take(scan, true, clock::now());
        self.released.extend(self.table.reconcile(clock::now()));
        show(&self.shared, &self.series, &mut self.table);
    }

    /// Runs until stopped.
    pub(crate) fn run(mut self, mut watch: Option<impl FnOnce() -> (Option<Watch>, Vec<String>)>) {
        loop {
            self.advance();
            while self.publish() {
                // What an answer has undone is carried out before anybody sleeps.
                self.advance();
            }
            if let Some(watch) = watch.take() {
                // After the first loads are under way: following a large tree takes a while.
                let (watch, warnings) = watch();
                self.schedule.watch = watch;
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                // Changes between the first look and now were told to nobody.
                self.schedule.touched = Some(clock::now());
            }
            let message = match self.next_due() {
                Some(due) => self.inbox.recv_deadline(due),
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
            };
            let mut next = match message {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Everything that is there already, so that a burst makes one picture.
            while let Some(message) = next {
                if matches!(message, Message::Stop) {
                    return self.stop();
                }
                self.handle(message);
                next = self.inbox.try_recv().ok();
            }
            if self.scan_due().is_some_and(|due| clock::now() >= due) {
                self.scan_quietly();
            }
        }
        self.stop();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Order(order, reply) => {
                match self.order(order) {
                    Ok(Some(goal)) => self.waiting.push(Waiter { goal, reply }),
                    Ok(None) => self.answers.push((reply, Ok(None))),
                    Err(refusal) => self.answers.push((reply, Err(refusal))),
                }
                self.advance();
            }
            Message::Touched => {
                let wait = GATHER.max(self.schedule.cost * SCAN_SHARE);
                self.schedule.touched.get_or_insert_with(|| clock::now() + wait);
            }
            Message::Loaded(loader, id, outcome) => {
                self.loaders[loader].finished();
                if let LoadOutcome::Ready(lease, _) = &outcome
                    && let Some(executors) = self.scaled(lease.model(), lease.version())
                {
                    lease.scale(executors);
                }
                self.released.extend(self.table.loaded(id, outcome, clock::now()));
            }
            Message::Drained(id, statistics) => self.table.drained(id, statistics),
            Message::Stop => {}
        }
    }

    /// Starts what can be started.
    fn advance(&mut self) {
        self.released.extend(self.table.reconcile(clock::now()));
        while let Some(loader) = self.loaders.iter_mut().find(|loader| loader.is_idle()) {
            let Some(order) = self.table.next_load() else { break };
            // A load that has begun is one that readers see, and a pipeline looks for its models where they do.
            show(&self.shared, &self.series, &mut self.table);
            loader.hand(order);
        }
    }

    /// How many runs of a version may go on at once, where that was ordered.
    fn scaled(&self, model: &ModelName, version: u64) -> Option<usize> {
        self.table.orders().get(model)?.executors.get(&version).copied()
    }

    /// Shows readers what has changed, lets go of what they no longer see, and answers orders. True when that has undone
    /// an order that came to nothing.
    fn publish(&mut self) -> bool {
        show(&self.shared, &self.series, &mut self.table);
        self.released.clear();
        let settled = self.table.is_settled();
        if settled && !self.shared.ready.has_happened() {
            self.shared.ready.happen();
        }
        for (reply, result) in self.answers.drain(..) {
            reply.give(result);
        }
        let scanned = self.schedule.scanned;
        let mut undone = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            let result = match &waiter.goal {
                Goal::Loaded(model, versions) => loaded(&self.table, model, versions),
                Goal::Registered(registered, _) => {
                    loaded(&self.table, &registered.model, &BTreeSet::from([registered.version]))
                        .map(|result| result.map(|_| Some(registered.clone())))
                }
                Goal::Replaced(models, refusal) => {
                    all_loaded(&self.table, models).map(|result| refusal.clone().map_or(result, Err))
                }
                Goal::Finished(loads) => loads.iter().all(|load| self.table.is_finished(*load)).then_some(Ok(None)),
                Goal::Settled(after) => (settled && after.is_none_or(|after| scanned >= after)).then_some(Ok(None)),
            };
            match (result, waiter) {
                (Some(Err(refusal)), Waiter { goal: Goal::Registered(registered, before), reply }) => {
                    undone.push((registered, before));
                    // Whoever has the answer finds nothing of the version any more.
                    self.answers.push((reply, Err(refusal)));
                }
                (Some(result), waiter) => waiter.reply.give(result),
                (None, waiter) => self.waiting.push(waiter),
            }
        }
        let any = !undone.is_empty();
        undone.into_iter().for_each(|(registered, before)| self.undo(&registered, &before));
        any
    }

    fn next_due(&self) -> Option<Instant> {
        [self.scan_due(), self.table.due().1].into_iter().flatten().min()
    }

    /// When to look at the disk next.
    fn scan_due(&self) -> Option<Instant> {
        let schedule = &self.schedule;
        let poll = self.poll_interval.map(|interval| schedule.scanned + interval.max(schedule.cost * SCAN_SHARE));
        let due = [poll, schedule.touched, self.table.due().0].into_iter().flatten().min()?;
        Some(schedule.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    fn scan_quietly(&mut self) {
        // Said once, by the warnings; whoever ordered a look is told directly.
        let _ = self.scan_now();
    }

    /// Looks at the disk.
    fn scan_now(&mut self) -> Result<(), Refusal> {
        if let Some(watch) = &self.schedule.watch {
            watch.listen();
        }
        let started = clock::now();
        self.schedule.touched = None;
        let result = self.scanner.scan(self.table.orders());
        self.schedule.cost = clock::now().saturating_duration_since(started);
        match result {
            Ok(scan) => {
                self.schedule.not_before = None;
                self.take(scan, false, started);
                Ok(())
            }
            Err(error) => {
                self.schedule.not_before = Some(started + self.poll_interval.unwrap_or(UNREADABLE_WAIT));
                self.warn(vec![format!("the repository cannot be read, and everything stays as it is: {error}")]);
                Err(Refusal::new(Reason::NotReady, "the model repository cannot be read now")
                    .with_cause(Arc::new(error) as Arc<dyn std::error::Error + Send + Sync>))
            }
        }
    }

    fn take(&mut self, mut scan: Scan, trusted: bool, now: Instant) {
        let mut warnings = std::mem::take(&mut scan.warnings);
        self.table.scanned(scan, trusted, now);
        warnings.extend(self.table.missing());
        self.warn(warnings);
        self.schedule.scanned = now;
    }

    /// Logs warnings that were not there the last time.
    fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings.iter().filter(|warning| !self.warned.contains(*warning)) {
            tracing::warn!("{warning}");
        }
        self.warned = warnings.iter().cloned().collect();
        *self.shared.warnings.lock() = warnings;
    }

    /// Ends everything that can be ended; what is in use ends with its users.
    fn stop(mut self) {
        self.shared.snapshot.store(Arc::new(Snapshot::closed()));
        self.shared.ready.give_up();
        self.schedule.watch = None;
        self.loaders.drain(..).for_each(Loader::stop);
        drop(self.table.clear());
        self.released.clear();
        // Results of loads that nobody took hold leases too.
        while let Ok(message) = self.inbox.try_recv() {
            drop(message);
        }
        let Self { shared, reaper, .. } = self;
        let reaper_thread = shared.reaper.lock().take();
        if reaper.release()
            && let Some(thread) = reaper_thread
        {
            // A panic while freeing is an engine's, and has been printed.
            let _ = thread.join();
        }
    }
}

/// Shows readers what has changed.
fn show(shared: &Shared, series: &Series, table: &mut Table<Arc<Lease>>) {
    let changed = table.take_changed();
    if changed.is_empty() {
        return;
    }
    let mut snapshot = Snapshot::clone(&shared.snapshot.load());
    for name in &changed {
        let view = ModelView::of(name, table);
        report(series, name, snapshot.view(name), view.as_ref());
        snapshot.set(name, view);
    }
    shared.snapshot.store(Arc::new(snapshot));
}

/// Whether `versions` of `model` have come as far as they will.
fn loaded(table: &Table<Arc<Lease>>, model: &ModelName, versions: &BTreeSet<u64>) -> Option<OrderResult> {
    let progress: Vec<(u64, Progress)> =
        versions.iter().map(|version| (*version, table.progress(model, *version))).collect();
    if progress.iter().any(|(_, progress)| *progress == Progress::Pending) {
        return None;
    }
    let refused = progress.into_iter().find_map(|(version, progress)| match progress {
        Progress::Failed(failure) => Some(loader::refusal(&failure)),
        Progress::Absent => {
            // Overtaken by an order to unload: nobody's fault, and nothing is there.
            let text = format!("version {version} of model `{model}` was unloaded before it was available");
            Some(Refusal::new(Reason::VersionUnknown, text))
        }
        Progress::Pending | Progress::Available => None,
    });
    Some(refused.map_or(Ok(None), Err))
}

/// The same for several models: the first that failed refuses.
fn all_loaded(table: &Table<Arc<Lease>>, models: &BTreeMap<ModelName, BTreeSet<u64>>) -> Option<OrderResult> {
    let results: Option<Vec<OrderResult>> =
        models.iter().map(|(model, versions)| loaded(table, model, versions)).collect();
    Some(results?.into_iter().find(Result::is_err).unwrap_or(Ok(None)))
}

/// Brings the gauges of `name` up to date. A version that is no longer in view holds nothing.
fn report(series: &Series, name: &ModelName, before: Option<&ModelView>, view: Option<&ModelView>) {
    metrics::versions(name, |state| view.map_or(0, |view| view.count(state)));
    for (version, _) in before.into_iter().flat_map(ModelView::memory) {
        if !view.is_some_and(|view| view.memory().any(|(known, _)| known == version)) {
            series.memory(name, version, 0);
        }
    }
    for (version, bytes) in view.into_iter().flat_map(ModelView::memory) {
        series.memory(name, version, bytes);
    }
    for (version, choice) in before.into_iter().flat_map(ModelView::choices) {
        let now = view.and_then(|view| view.choices().find(|(known, _)| *known == version));
        if now.is_none_or(|(_, now)| now.ranges != choice.ranges) {
            series.engines(name, version, choice, false);
        }
    }
    for (version, choice) in view.into_iter().flat_map(ModelView::choices) {
        series.engines(name, version, choice, true);
    }
}
