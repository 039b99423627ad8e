//! A loaded model: what all its instances share.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use millrace_core::{Instance, LoadError, Model, ModelFacts, ModelSource, Signature};

use crate::guard::guarded;
use crate::instance::OnnxRuntimeInstance;
use crate::library::Library;
use crate::options::{Options, Provider};
use crate::session::{Parts, Runner};

/// Everything about a model that does not change, and its sessions.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) signature: Signature,
    pub(crate) facts: ModelFacts,
    /// Of one thread: all instances run it, at once where they like.
    pub(crate) runner: Runner,
    /// Of several threads, for runs that cannot be divided by rows; made when such a run first gets more than one.
    wide: OnceLock<Runner>,
    is_wide_asked: AtomicBool,
    pub(crate) recipe: Recipe,
}

/// What a further session is made from.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) library: Arc<Library>,
    pub(crate) options: Options,
    pub(crate) providers: Vec<Provider>,
    pub(crate) file: String,
    pub(crate) source: ModelSource,
    /// Bytes that a session takes, about.
    pub(crate) session_bytes: u64,
}

impl Recipe {
    /// Makes a session of `threads` threads from the files' contents.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn make(
        &self,
        model: &[u8],
        external: &[(CString, Bytes)],
        threads: usize,
    ) -> Result<Runner, ort::Error> {
        let (environment, options, providers) = (&self.library.environment, &self.options, &*self.providers);
        Runner::new(&Parts { environment, options, providers, model, external }, threads)
    }

    /// The same from the files as they lie, which have been checked before and never change.
    fn make_again(&self, threads: usize) -> Result<Runner, String> {
        let bytes = self.source.files.read(&self.file).map_err(|error| error.to_string())?;
        let model = millrace_onnx::Model::parse(&bytes).map_err(|error| error.to_string())?;
        let external = crate::external::files(&self.file, &bytes, &model, &self.source);
        let external = external.map_err(|error| error.to_string())?;
        self.make(&bytes, &external, threads).map_err(|error| error.to_string())
    }
}

impl Loaded {
    pub(crate) fn new(signature: Signature, facts: ModelFacts, runner: Runner, recipe: Recipe) -> Self {
        let (wide, is_wide_asked) = (OnceLock::new(), AtomicBool::new(false));
        Self { signature, facts, runner, wide, is_wide_asked, recipe }
    }

    /// The session for a run that may use `threads` threads and cannot be divided. The one of several threads is made
    /// beside the runs, the first time that it would be used; until it is there the one of one thread runs.
    pub(crate) fn runner(self: &Arc<Self>, threads: usize) -> &Runner {
        if threads < 2 || !self.may_be_wide() {
            return &self.runner;
        }
        if let Some(wide) = self.wide.get() {
            return if wide.threads <= threads { wide } else { &self.runner };
        }
        if !self.is_wide_asked.swap(true, Ordering::Relaxed) {
            let this = Arc::downgrade(self);
            let work = move || widen(&this, threads.min(MOST_THREADS));
            if let Err(error) = std::thread::Builder::new().name("millrace-onnxruntime".to_owned()).spawn(work) {
                tracing::warn!(%error, "no thread to make a session of several threads");
            }
        }
        &self.runner
    }

    /// A second session takes the weights' memory again, which must be there.
    fn may_be_wide(&self) -> bool {
        let recipe = &self.recipe;
        recipe.providers == [Provider::Cpu] && recipe.session_bytes.saturating_mul(2) <= recipe.source.memory_budget
    }
}

/// More threads make a run of one row little shorter.
const MOST_THREADS: usize = 8;

fn widen(loaded: &Weak<Loaded>, threads: usize) {
    let Some(loaded) = loaded.upgrade() else { return };
    match guarded(|| loaded.recipe.make_again(threads)) {
        Ok(Ok(wide)) => drop(loaded.wide.set(wide)),
        Ok(Err(error)) => tracing::warn!(error, "runs of one row stay on one thread"),
        Err(panicked) => tracing::warn!(error = %panicked, "runs of one row stay on one thread"),
    }
}

/// The model as the seams see it.
#[derive(Debug)]
pub(crate) struct OnnxRuntimeModel(pub(crate) Arc<Loaded>);

impl Model for OnnxRuntimeModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(OnnxRuntimeInstance::new(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        let sessions = 1 + u64::from(self.0.wide.get().is_some());
        self.0.recipe.session_bytes.saturating_mul(sessions)
    }

    fn uses_threads(&self) -> bool {
        self.0.recipe.providers == [Provider::Cpu]
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}
