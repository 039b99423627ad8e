//! The threads that load: read, compile, warm up, check again. They run at low priority and hold no lock, so that
//! loading disturbs nobody who is being served.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;
use millrace_batching::{BatchConfig, BatchQueue, ComputePool, Waiting};
use millrace_core::{
    Backend, Code, EngineChoice, LoadError, LoadErrorKind, ModelFiles, ModelSource, Signatures, VersionFailure,
    own_options,
};

use crate::adapted::{Adapted, Form, Turner};
use crate::files::{Fingerprint, ListError, OneModel, VersionFiles};
use crate::lease::{Lease, Leased, Reaper, Serving};
use crate::metrics::Series;
use crate::pipeline::{self, Inner, Pipeline};
use crate::table::{Facts, LoadId, LoadOrder, LoadOutcome};
use crate::{BatchOverrides, Parts, PipelineConfig, clock, metrics, warmup};

/// How much lower than the threads that serve loader threads stand; compute threads are at 5.
const NICENESS: i32 = 15;

/// What every load needs.
#[derive(Debug, Clone)]
pub(crate) struct Workshop {
    pub(crate) parts: Parts,
    /// Where pipelines find their models.
    pub(crate) inner: Inner,
    pub(crate) pool: ComputePool,
    pub(crate) reaper: Reaper,
    pub(crate) max_model_bytes: u64,
    pub(crate) batching: BatchConfig,
    pub(crate) overrides: BatchOverrides,
    pub(crate) series: Arc<Series>,
}

/// One loading thread. It takes one order at a time, so that the manager knows which threads are idle.
#[derive(Debug)]
pub(crate) struct Loader {
    orders: Sender<LoadOrder>,
    thread: JoinHandle<()>,
    busy: bool,
}

impl Loader {
    /// Starts thread `index`; `done` is told of every result.
    pub(crate) fn start(
        index: usize,
        workshop: Workshop,
        done: impl Fn(usize, LoadId, LoadOutcome<Arc<Lease>>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = crossbeam_channel::bounded::<LoadOrder>(1);
        let thread = thread::Builder::new().name(format!("millrace-load-{index}")).spawn(move || {
            // On Linux this is the calling thread's alone. Where it is not allowed, loading works at full priority.
            let _ = rustix::process::nice(NICENESS);
            for order in inbox {
                done(index, order.id, workshop.load(&order));
            }
        })?;
        Ok(Self { orders, thread, busy: false })
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.busy
    }

    /// Hands it an order; only when it is idle.
    pub(crate) fn hand(&mut self, order: LoadOrder) {
        self.busy = true;
        // The thread ends only when this sender goes, so that the order cannot come back.
        let _ = self.orders.send(order);
    }

    /// It has told its result.
    pub(crate) fn finished(&mut self) {
        self.busy = false;
    }

    /// Ends it. A thread in the middle of a load is left to end by itself: nothing can interrupt an engine.
    pub(crate) fn stop(self) {
        drop(self.orders);
        if !self.busy {
            // A panic in there would have been the registry's own and has been printed.
            let _ = self.thread.join();
        }
    }
}

impl Workshop {
    /// Loads a version.
    pub(crate) fn load(&self, order: &LoadOrder) -> LoadOutcome<Arc<Lease>> {
        match &order.config.pipeline {
            Some(config) => self.load_pipeline(order, config),
            None => self.load_model(order),
        }
    }

    /// Makes a pipeline. It is made of what its `model.toml` says and of no other file.
    fn load_pipeline(&self, order: &LoadOrder, config: &PipelineConfig) -> LoadOutcome<Arc<Lease>> {
        let started = clock::now();
        let compute = Arc::new(self.pool.clone());
        let make = || pipeline::build(&self.parts.pipelines, config, order, &self.inner, compute);
        match caught(make) {
            Ok((name, servable)) => {
                let built = Built {
                    backend: Arc::from(name),
                    choice: None,
                    signatures: Arc::new(servable.signatures().clone()),
                    serving: Serving::Pipeline(Pipeline::new(servable)),
                    memory: 0,
                    max_batch_size: 0,
                    batch_delay: None,
                };
                self.finish(order, built, clock::now().saturating_duration_since(started))
            }
            Err(error) => LoadOutcome::Failed(failure(order, &error, &[])),
        }
    }

    fn load_model(&self, order: &LoadOrder) -> LoadOutcome<Arc<Lease>> {
        let started = clock::now();
        let files = match order.place.files(self.max_model_bytes) {
            Ok(files) => Arc::new(files),
            Err(error) => return LoadOutcome::Failed(failure(order, &unlistable(error), &[])),
        };
        let seen = files.fingerprint();
        if order.fingerprint.is_some_and(|expected| expected != seen) {
            return LoadOutcome::Changed;
        }
        let loaded = caught(|| self.build(order, &files));
        // Checked for failures too: what was read may have been half of a copy that is still going on.
        if self.fingerprint(order) != Some(seen) {
            return LoadOutcome::Changed;
        }
        match loaded {
            Ok(built) => {
                let load_time = clock::now().saturating_duration_since(started);
                self.finish(order, built, load_time)
            }
            Err(error) => LoadOutcome::Failed(failure(order, &error, files.refused())),
        }
    }

    fn fingerprint(&self, order: &LoadOrder) -> Option<Fingerprint> {
        order.place.files(self.max_model_bytes).ok().map(|files| files.fingerprint())
    }

    fn build(&self, order: &LoadOrder, files: &Arc<VersionFiles>) -> Result<Built, LoadError> {
        let source = ModelSource {
            model: order.model.clone(),
            version: order.version,
            files: visible(order, files)?,
            memory_budget: order.memory,
            options: order.config.options.clone(),
            samples: warmup::samples(&order.config.warmup),
        };
        let backend = self.choose(order, &source)?;
        let model = match &order.config.backend {
            // Whoever chooses among engines hands each its own.
            None => backend.load(&source)?,
            Some(name) => {
                let all: Vec<&str> = self.parts.backends.iter().map(|backend| backend.name()).collect();
                let options = own_options(&source.options, name, &all);
                backend.load(&ModelSource { options, ..source.clone() })?
            }
        };
        if let Some(declared) = &order.config.declared {
            declared.check(model.signature())?;
        }
        let form = Form::find(&self.parts, &source, &*model, &order.config)?;
        let signatures = match &form {
            Some(form) => form.signatures(model.signature())?,
            None => Signatures::single(model.signature().clone()),
        };
        warmup::warm(&model, &order.config.warmup)?;
        let configured = self.overrides.apply(order.config.batching.apply(self.batching.clone()));
        let mut config = order.batching.apply(configured);
        config.has_own_series = self.series.names(&order.model, order.version);
        let is_batched = config.enabled && model.signature().is_batched();
        let max_batch_size = if is_batched { config.max_batch_size.get() } else { 0 };
        let batch_delay = match config.waiting {
            Waiting::Fixed(delay) => Some(delay),
            Waiting::Learned | Waiting::LearnedWithin(_) => None,
        };
        let memory = model.memory_bytes();
        let choice = model.facts().choice;
        let backend = choice.as_ref().map_or_else(|| Arc::from(backend.name()), |choice| Arc::from(choice.names()));
        let turner = form.map(|form| Turner::new(form, Arc::new(self.pool.clone()), order.model.clone(), &config));
        let queue = BatchQueue::new(model, order.model.clone(), order.version, config, &self.pool)?;
        let signatures = Arc::new(signatures);
        let serving = match turner {
            Some(turner) => Serving::Adapted(Adapted::new(queue, Arc::clone(&signatures), turner)),
            None => Serving::Queue(queue),
        };
        Ok(Built { backend, choice, signatures, serving, memory, max_batch_size, batch_delay })
    }

    fn choose(&self, order: &LoadOrder, source: &ModelSource) -> Result<&Arc<dyn Backend>, LoadError> {
        let names = || self.parts.backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", ");
        match &order.config.backend {
            Some(wanted) => {
                let found = self.parts.backends.iter().find(|backend| backend.name() == wanted);
                found.ok_or_else(|| {
                    let text = format!("there is no backend `{wanted}`; expected one of {}", names());
                    LoadError::new(LoadErrorKind::Unsupported, text)
                })
            }
            None => self.parts.backends.iter().find(|backend| backend.recognises(source)).ok_or_else(|| {
                let text = format!("no backend ({}) recognises the files: {}", names(), listing(&*source.files));
                LoadError::new(LoadErrorKind::Unsupported, text)
            }),
        }
    }

    fn finish(&self, order: &LoadOrder, built: Built, load_time: Duration) -> LoadOutcome<Arc<Lease>> {
        self.series.load(&order.model, order.version, load_time.as_secs_f64());
        let facts = Facts {
            backend: built.backend,
            choice: built.choice,
            signatures: Arc::clone(&built.signatures),
            memory: built.memory,
            load_time,
            loaded_at: SystemTime::now(),
            max_batch_size: built.max_batch_size,
            batch_delay: built.batch_delay,
        };
        let leased = Leased { id: order.id, model: order.model.clone(), version: order.version };
        let (pool, reaper) = (self.pool.clone(), self.reaper.clone());
        let lease = Lease::new(leased, built.signatures, built.serving, pool, reaper);
        LoadOutcome::Ready(lease, facts)
    }
}

/// Runs foreign code.
fn caught<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What a panicking engine or factory was building is dropped whole, and nothing of ours was half changed.
    let result = catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| Err(LoadError::new(LoadErrorKind::Engine, panic_text(&*panic))))
}

/// The version's files as the engine sees them: without other models' where the configuration names the one that counts.
fn visible(order: &LoadOrder, files: &Arc<VersionFiles>) -> Result<Arc<dyn ModelFiles>, LoadError> {
    match &order.config.model_file {
        Some(name) => Ok(Arc::new(OneModel::new(Arc::clone(files), name)?)),
        None => Ok(Arc::clone(files) as Arc<dyn ModelFiles>),
    }
}

struct Built {
    backend: Arc<str>,
    choice: Option<Arc<EngineChoice>>,
    signatures: Arc<Signatures>,
    serving: Serving,
    memory: u64,
    max_batch_size: usize,
    batch_delay: Option<Duration>,
}

/// What the status shows: the error's own text, and which files were withheld.
fn failure(order: &LoadOrder, error: &LoadError, refused: &[String]) -> VersionFailure {
    metrics::load_failure(&order.model);
    let mut cause = error.source();
    let mut causes = String::new();
    while let Some(error) = cause {
        causes = format!("{causes}: {error}");
        cause = error.source();
    }
    if !causes.is_empty() {
        tracing::debug!(model = %order.model, version = order.version, "why the load failed: {error}{causes}");
    }
    let mut message = error.to_string();
    if !refused.is_empty() {
        message = format!("{message} (not served: {})", refused.join("; "));
    }
    VersionFailure { code: error.code(), message }
}

fn unlistable(error: ListError) -> LoadError {
    let kind = match error {
        ListError::TooMany | ListError::TooLarge { .. } => LoadErrorKind::TooLarge,
        ListError::Io(_) => LoadErrorKind::Missing,
    };
    LoadError::new(kind, error.to_string()).with_cause(error)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::warn!("a backend panicked while loading: {}", text.unwrap_or("no text"));
    "the engine panicked while loading".to_owned()
}

/// The first few names.
fn listing(files: &dyn ModelFiles) -> String {
    const SHOWN: usize = 5;
    let list = files.list();
    if list.is_empty() {
        return "there are none".to_owned();
    }
    let names: Vec<String> = list.iter().take(SHOWN).map(|(name, _)| millrace_core::Quoted(name).to_string()).collect();
    let more = if list.len() > SHOWN { format!(" and {} more", list.len() - SHOWN) } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// The refusal of an order whose version failed.
pub(crate) fn refusal(failure: &VersionFailure) -> millrace_core::Refusal {
    use millrace_core::{Reason, Refusal};
    let reason = match failure.code {
        Code::ResourceExhausted => Reason::TooLarge,
        Code::Unimplemented => Reason::Unsupported,
        Code::Internal => Reason::BackendFailed,
        _ => Reason::Conflict,
    };
    Refusal::new(reason, failure.message.clone())
}
