//! The handle: starts the threads, resolves, lists, takes orders.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use millrace_batching::ComputePool;
use millrace_core::{
    Alias, Catalog, Control, ControlFuture, ModelName, ModelRef, ModelStatus, Refusal, RegisterFuture, Registration,
    RequestContext, Resolver, Servable, WantedModel,
};
use parking_lot::Mutex;

use crate::desired::Orders;
use crate::lease::Reaper;
use crate::loader::{Loader, Workshop};
use crate::manager::{Manager, Message, Order, Schedule};
use crate::metrics::Series;
use crate::pipeline::Inner;
use crate::reply::{Answer, Event, Happened, reply};
use crate::scan::Scanner;
use crate::snapshot::Snapshot;
use crate::state::StateFile;
use crate::table::{Listed, Table, TableConfig};
use crate::watch::Watch;
use crate::{ModelSet, Parts, RegistryConfig, RegistryError, clock};

/// Every loaded model, and the threads that keep it in step with the disk and with an operator's orders.
///
/// A cheap handle: clones are the same registry. The last one to go shuts it down.
#[derive(Clone)]
pub struct Registry(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    manager: Mutex<Option<JoinHandle<()>>>,
}

/// What the manager's thread and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) ready: Event,
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) reaper: Mutex<Option<JoinHandle<()>>>,
}

impl Registry {
    /// Reads the repository and starts to load with `parts`; a list of engines will do. Returns at once; [`Registry::settled`] tells when loading is done.
    ///
    /// # Errors
    /// [`RegistryError`] when the repository is not a readable folder, a model is listed twice, there is no backend or a
    /// thread cannot be started. Whatever is wrong with one model is that model's status.
    pub fn start(config: RegistryConfig, parts: impl Into<Parts>, pool: ComputePool) -> Result<Self, RegistryError> {
        let parts = parts.into();
        if parts.backends.is_empty() {
            return Err(RegistryError::NoBackend);
        }
        let listed = listed(&config.models)?;
        let (state, orders) = config.state_dir.as_deref().map(restore).unzip();
        let orders = orders.unwrap_or_default();
        let mut scanner = Scanner::new(config.models.clone(), config.stores, config.max_model_bytes);
        let started = clock::now();
        let scan = scanner.scan(&orders).map_err(|source| {
            let path = scanner.roots().into_iter().next().unwrap_or_default();
            RegistryError::Repository { path, source }
        })?;
        let cost = clock::now().saturating_duration_since(started);
        let table_config = TableConfig {
            quiet_period: config.quiet_period,
            retry: config.retry,
            memory_budget: config.memory_budget,
            listed,
        };

        let (messages, inbox) = crossbeam_channel::unbounded();
        let to_manager = messages.clone();
        let (reaper, reaper_thread) = Reaper::start(move |load, statistics| {
            // Without a manager nobody counts any more.
            let _ = to_manager.send(Message::Drained(load, statistics));
        })
        .map_err(RegistryError::Thread)?;
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            ready: Event::default(),
            warnings: Mutex::default(),
            reaper: Mutex::new(Some(reaper_thread)),
        });
        let series = Arc::new(Series::new(config.max_metric_series));
        let workshop = Workshop {
            parts,
            inner: Inner(Arc::downgrade(&shared)),
            pool,
            reaper: reaper.clone(),
            max_model_bytes: config.max_model_bytes,
            batching: config.batching,
            overrides: config.batching_overrides,
            series: Arc::clone(&series),
        };
        let mut loaders = Vec::new();
        for index in 0..config.load_threads.get() {
            let to_manager = messages.clone();
            let loader = Loader::start(index, workshop.clone(), move |loader, load, outcome| {
                let _ = to_manager.send(Message::Loaded(loader, load, outcome));
            });
            loaders.push(loader.map_err(RegistryError::Thread)?);
        }
        drop(workshop);
        let roots = scanner.roots();
        let mut manager = Manager {
            inbox,
            shared: Arc::clone(&shared),
            table: Table::new(table_config, orders),
            scanner,
            state,
            loaders,
            reaper,
            series,
            poll_interval: config.watch.then_some(config.poll_interval),
            schedule: Schedule { watch: None, scanned: started, cost, touched: None, not_before: None },
            waiting: Vec::new(),
            released: Vec::new(),
            answers: Vec::new(),
            warned: HashSet::new(),
        };
        manager.begin(scan);
        let to_manager = messages.clone();
        let watch = config.watch.then_some(move || {
            Watch::start(&roots, move || {
                let _ = to_manager.send(Message::Touched);
            })
        });
        let thread = thread::Builder::new()
            .name("millrace-registry".to_owned())
            .spawn(move || manager.run(watch))
            .map_err(RegistryError::Thread)?;
        Ok(Self(Arc::new(Handle { shared, messages, manager: Mutex::new(Some(thread)) })))
    }

    /// Ends once the first look at the repository has settled: every wanted version is available or has failed. Ends
    /// too when the registry shuts down before. Works on any executor and may be awaited any number of times.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + 'static {
        Happened(Arc::clone(&self.0.shared), |shared| &shared.ready)
    }

    /// What the last look at the repository found odd, one line each, naming paths: for the operator, not for callers.
    pub fn warnings(&self) -> Vec<String> {
        self.0.shared.warnings.lock().clone()
    }

    /// Whether the registry still follows the disk and takes orders. False only after its thread has panicked: what is
    /// loaded goes on serving, but nothing will change any more, so the process should be restarted.
    pub fn is_alive(&self) -> bool {
        self.0.manager.lock().as_ref().is_none_or(|thread| !thread.is_finished())
    }

    /// Shuts down: new requests and orders are refused with `Draining`, and the registry's threads end. Leases that are
    /// still out stay good until they are dropped; a load in progress is left behind and its result thrown away.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Sent now, not when first polled: orders count in the order in which they were given.
    fn give(&self, order: Order) -> Answer {
        let (reply, answer) = reply();
        // Without a manager the message comes back and is dropped, and its reply refuses.
        drop(self.0.messages.send(Message::Order(order, reply)));
        answer
    }

    fn order(&self, order: Order) -> ControlFuture {
        let answer = self.give(order);
        Box::pin(async move { answer.await.map(|_| ()) })
    }
}

impl Handle {
    fn shutdown(&self) {
        let Some(thread) = self.manager.lock().take() else { return };
        // It may have ended by itself only by a panic, which joining shows.
        let _ = self.messages.send(Message::Stop);
        if thread.thread().id() == thread::current().id() {
            // A waker that the manager called has dropped the last handle; a thread cannot wait for itself.
            return;
        }
        if thread.join().is_err() {
            tracing::error!("the registry's thread had panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl Resolver for Registry {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        self.0.shared.snapshot.load().resolve(model)
    }
}

impl Catalog for Registry {
    fn models(&self) -> Vec<ModelStatus> {
        self.0.shared.snapshot.load().statuses()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.0.shared.snapshot.load().status(name)
    }

    fn is_ready(&self) -> bool {
        self.0.shared.ready.has_happened()
    }
}

impl Control for Registry {
    fn load(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.order(Order::Load(model.clone(), version))
    }

    fn unload(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.order(Order::Unload(model.clone(), version))
    }

    fn set_alias(&self, model: &ModelName, alias: &Alias, version: u64) -> ControlFuture {
        self.order(Order::SetAlias(model.clone(), alias.clone(), version))
    }

    fn remove_alias(&self, model: &ModelName, alias: &Alias) -> ControlFuture {
        self.order(Order::RemoveAlias(model.clone(), alias.clone()))
    }

    fn rescan(&self) -> ControlFuture {
        self.order(Order::Rescan)
    }

    fn scale(&self, model: &ModelName, version: Option<u64>, executors: usize) -> ControlFuture {
        self.order(Order::Scale(model.clone(), version, executors))
    }

    fn register(&self, registration: Registration) -> RegisterFuture {
        let answer = self.give(Order::Register(Box::new(registration)));
        Box::pin(
            async move { answer.await.map(|registered| registered.expect("an order to register says what it did")) },
        )
    }

    fn unregister(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.order(Order::Unregister(model.clone(), version))
    }

    fn replace(&self, models: Vec<WantedModel>) -> ControlFuture {
        self.order(Order::Replace(models))
    }
}

fn listed(models: &ModelSet) -> Result<BTreeMap<ModelName, Listed>, RegistryError> {
    let ModelSet::Listed(list) = models else { return Ok(BTreeMap::new()) };
    let mut names = BTreeSet::new();
    if let Some(twice) = list.iter().find(|model| !names.insert(&model.name)) {
        return Err(RegistryError::Duplicate(twice.name.clone()));
    }
    Ok(list.iter().map(|model| (model.name.clone(), (model.policy.clone(), model.aliases.clone()))).collect())
}

fn restore(path: &Path) -> (StateFile, Orders) {
    let (file, restored) = StateFile::open(path);
    restored.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    (file, restored.orders)
}
