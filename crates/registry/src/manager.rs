//! The one thread that owns the truth. Orders, results of loads, freed memory and changes on disk come in as messages
//! and are handled one after the other, so that the last order wins; pictures for readers go out.
//!
//! It decides nothing itself (that is `table`), loads nothing (`loader`) and frees nothing (`lease`). It does read the
//! repository and write the state file: a file system that hangs delays orders, never requests.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use millrace_core::{Alias, ModelName, Reason, Refusal, VersionStatistics};

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
    Finished(BTreeSet<LoadId>),
    /// A look at the disk that began then or later, and everything that it set going.
    Settled(Option<Instant>),
}

impl Manager {
    /// Runs until stopped. `scan` is the first look at the disk.
    pub(crate) fn run(mut self, scan: Scan, mut watch: Option<impl FnOnce() -> (Option<Watch>, Vec<String>)>) {
        self.take(scan, true, clock::now());
        loop {
            self.advance();
            self.publish();
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
                    Ok(None) => self.answers.push((reply, Ok(()))),
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
                self.released.extend(self.table.loaded(id, outcome, clock::now()));
            }
            Message::Drained(id, statistics) => self.table.drained(id, statistics),
            Message::Stop => {}
        }
    }

    /// Carries an order out and says what to wait for, if anything.
    fn order(&mut self, order: Order) -> Result<Option<Goal>, Refusal> {
        match order {
            Order::Load(model, version) => self.load(model, version).map(Some),
            Order::Unload(model, version) => self.unload(&model, version).map(Some),
            Order::SetAlias(model, alias, version) => self.set_alias(&model, alias, version).map(|()| None),
            Order::RemoveAlias(model, alias) => self.remove_alias(&model, &alias).map(|()| None),
            Order::Rescan => {
                self.scan_now()?;
                Ok(Some(Goal::Settled(self.table.due().0)))
            }
        }
    }

    fn load(&mut self, model: ModelName, version: Option<u64>) -> Result<Goal, Refusal> {
        // What was just copied counts: the operator says that it is complete.
        self.scan_now()?;
        self.known(&model)?;
        if let Some(message) = self.table.model(&model).and_then(|model| model.config_error()) {
            return Err(Refusal::new(Reason::Conflict, message.to_string()));
        }
        if let Some(version) = version
            && !self.table.is_on_disk(&model, version)
        {
            return Err(no_version(&model, version));
        }
        self.change(&model, |overrides| overrides.with_load(version))?;
        self.table.trust(&model, version);
        self.table.retry_now(&model, version);
        self.released.extend(self.table.give_up(&model, version, |lease| lease.is_quarantined()));
        let targets = match version {
            Some(version) => BTreeSet::from([version]),
            None => self.table.wanted(&model).unwrap_or_default(),
        };
        if targets.is_empty() {
            return Err(Refusal::new(Reason::NotReady, format!("model `{model}` has no version that could be loaded")));
        }
        Ok(Goal::Loaded(model, targets))
    }

    fn unload(&mut self, model: &ModelName, version: Option<u64>) -> Result<Goal, Refusal> {
        self.known(model)?;
        if let Some(version) = version
            && !self.table.knows(model, version)
        {
            return Err(no_version(model, version));
        }
        self.change(model, |overrides| overrides.with_unload(version))?;
        self.released.extend(self.table.reconcile(clock::now()));
        Ok(Goal::Finished(self.table.unfinished(model, version)))
    }

    fn set_alias(&mut self, model: &ModelName, alias: Alias, version: u64) -> Result<(), Refusal> {
        self.known(model)?;
        if alias.as_str() == Alias::LATEST {
            let text = "alias `latest` is reserved: it always means the highest available version";
            return Err(Refusal::new(Reason::InvalidInput, text));
        }
        if self.table.progress(model, version) != Progress::Available {
            let text = format!(
                "Request to assign label to version {version} of model {model}, which is not currently available for \
                 inference"
            );
            return Err(Refusal::new(Reason::Conflict, text));
        }
        self.change(model, |mut overrides| {
            overrides.aliases.insert(alias, Some(version));
            overrides
        })
    }

    fn remove_alias(&mut self, model: &ModelName, alias: &Alias) -> Result<(), Refusal> {
        self.known(model)?;
        if !self.table.aliases(model).contains_key(alias) {
            return Err(Refusal::new(Reason::LabelUnknown, format!("Unrecognized servable version label: {alias}")));
        }
        let configured = self.table.is_configured(model, alias);
        self.change(model, |mut overrides| {
            if configured {
                overrides.aliases.insert(alias.clone(), None);
            } else {
                overrides.aliases.remove(alias);
            }
            overrides
        })
    }

    fn known(&self, model: &ModelName) -> Result<(), Refusal> {
        match self.table.wanted(model) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Reason::ModelUnknown, format!("Could not find any versions of model {model}"))),
        }
    }

    /// Changes the orders for `model`, first on disk and then here: what cannot be kept is not done.
    fn change(&mut self, model: &ModelName, change: impl FnOnce(Overrides) -> Overrides) -> Result<(), Refusal> {
        let before = self.table.orders();
        let changed = change(before.get(model).cloned().unwrap_or_default());
        let mut orders = before.clone();
        if changed.is_empty() {
            orders.remove(model);
        } else {
            orders.insert(model.clone(), changed);
        }
        if orders == *before {
            return Ok(());
        }
        if let Some(state) = &self.state
            && let Err(error) = state.save(&orders)
        {
            // The new file may be in place although its directory could not be synced; the old one then goes back.
            // Should that fail too, the disk has the last word at the next start, with a whole file in any case.
            let _ = state.save(before);
            tracing::error!(%model, "the order cannot be saved and is not carried out: {error}");
            let text = "the order could not be saved, so it was not carried out; the server's log says why";
            return Err(Refusal::new(Reason::NotSaved, text)
                .with_cause(Arc::new(error) as Arc<dyn std::error::Error + Send + Sync>));
        }
        self.table.set_orders(orders, model);
        Ok(())
    }

    /// Starts what can be started.
    fn advance(&mut self) {
        self.released.extend(self.table.reconcile(clock::now()));
        while let Some(loader) = self.loaders.iter_mut().find(|loader| loader.is_idle()) {
            let Some(order) = self.table.next_load() else { break };
            loader.hand(order);
        }
    }

    /// Shows readers what has changed, lets go of what they no longer see, and answers orders.
    fn publish(&mut self) {
        let changed = self.table.take_changed();
        if !changed.is_empty() {
            let mut snapshot = Snapshot::clone(&self.shared.snapshot.load());
            for name in &changed {
                let view = ModelView::of(name, &self.table);
                report(&self.series, name, snapshot.view(name), view.as_ref());
                snapshot.set(name, view);
            }
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        self.released.clear();
        let settled = self.table.is_settled();
        if settled && !self.shared.ready.has_happened() {
            self.shared.ready.happen();
        }
        for (reply, result) in self.answers.drain(..) {
            reply.give(result);
        }
        let scanned = self.schedule.scanned;
        for waiter in std::mem::take(&mut self.waiting) {
            let result = match &waiter.goal {
                Goal::Loaded(model, versions) => loaded(&self.table, model, versions),
                Goal::Finished(loads) => loads.iter().all(|load| self.table.is_finished(*load)).then_some(Ok(())),
                Goal::Settled(after) => (settled && after.is_none_or(|after| scanned >= after)).then_some(Ok(())),
            };
            match result {
                Some(result) => waiter.reply.give(result),
                None => self.waiting.push(waiter),
            }
        }
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
        let result = self.scanner.scan();
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
        self.warn(std::mem::take(&mut scan.warnings));
        self.table.scanned(scan, trusted, now);
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
            let text = format!("version {version} of model `{model}` was unloaded before it was available");
            Some(Refusal::new(Reason::Conflict, text))
        }
        Progress::Pending | Progress::Available => None,
    });
    Some(refused.map_or(Ok(()), Err))
}

fn no_version(model: &ModelName, version: u64) -> Refusal {
    Refusal::new(Reason::VersionUnknown, format!("Could not find version {version} of model {model}"))
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
}
