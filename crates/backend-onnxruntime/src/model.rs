//! A loaded model: what all its instances share.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use millrace_core::{Instance, LoadError, Model, ModelFacts, ModelSource, Signature, guarded};
use rapidhash::v3::rapidhash_v3;

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
    /// Absent where there must not be one.
    wide: Option<Wide>,
    pub(crate) recipe: Recipe,
}

/// The session of several threads, for runs that cannot be divided by rows; made when such a run first gets more than
/// one.
#[derive(Debug, Default)]
struct Wide {
    is_asked: AtomicBool,
    /// The session, or why it could not be made.
    made: OnceLock<Result<Runner, String>>,
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
    /// The [`digest`] of what the first session was made from.
    pub(crate) digest: u64,
}

/// Tells one model from another by all its bytes.
pub(crate) fn digest(model: &[u8], external: &[(CString, Bytes)]) -> u64 {
    let contents = std::iter::once(model).chain(external.iter().map(|(_, content)| &**content));
    contents.fold(0, |before, content| {
        let parts = [before, content.len() as u64, rapidhash_v3(content)];
        rapidhash_v3(parts.map(u64::to_le_bytes).as_flattened())
    })
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

    /// Whether a second session, which takes the weights' memory again, has a use and fits the budget beside the first.
    fn has_room_for_two(&self) -> bool {
        self.providers == [Provider::Cpu] && self.session_bytes.saturating_mul(2) <= self.source.memory_budget
    }

    /// The same from the files as they lie now, which must be the ones that were loaded.
    fn make_again(&self, threads: usize) -> Result<Runner, String> {
        let bytes = self.source.files.read(&self.file).map_err(|error| error.to_string())?;
        let model = millrace_onnx::Model::parse(&bytes).map_err(|error| error.to_string())?;
        let external = crate::external::files(&self.file, &bytes, &model, &self.source);
        let external = external.map_err(|error| error.to_string())?;
        if digest(&bytes, &external) != self.digest {
            return Err(format!("{}: not the content that was loaded", self.file));
        }
        self.make(&bytes, &external, threads).map_err(|error| error.to_string())
    }
}

impl Loaded {
    pub(crate) fn new(signature: Signature, facts: ModelFacts, runner: Runner, recipe: Recipe) -> Self {
        let wide = recipe.has_room_for_two().then(Wide::default);
        Self { signature, facts, runner, wide, recipe }
    }

    /// The session for a run that may use `threads` threads and cannot be divided. The one of several threads is made
    /// beside the runs, the first time that it would be used; until it is there the one of one thread runs.
    pub(crate) fn runner(self: &Arc<Self>, threads: usize) -> &Runner {
        let Some(wide) = self.wide.as_ref().filter(|_| threads > 1) else { return &self.runner };
        match wide.made.get() {
            Some(Ok(runner)) if runner.threads <= threads => return runner,
            Some(_) => return &self.runner,
            None => {}
        }
        if !wide.is_asked.swap(true, Ordering::Relaxed) {
            let this = Arc::downgrade(self);
            let work = move || widen(&this, threads.min(MOST_THREADS));
            if let Err(error) = std::thread::Builder::new().name("millrace-onnxruntime".to_owned()).spawn(work) {
                tracing::warn!(%error, "no thread to make a session of several threads");
            }
        }
        &self.runner
    }
}

/// More threads make a run of one row little shorter.
const MOST_THREADS: usize = 8;

fn widen(loaded: &Weak<Loaded>, threads: usize) {
    let Some(loaded) = loaded.upgrade() else { return };
    let Some(wide) = &loaded.wide else { return };
    let made = guarded(|| loaded.recipe.make_again(threads)).unwrap_or_else(|panicked| Err(panicked.to_string()));
    if let Err(error) = &made {
        let source = &loaded.recipe.source;
        tracing::warn!(model = %source.model, version = source.version, error, "runs of one row stay on one thread");
    }
    drop(wide.made.set(made));
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

    /// Counts the session of several threads from the start, since nobody asks again when it is made.
    fn memory_bytes(&self) -> u64 {
        let sessions = 1 + u64::from(self.0.wide.is_some());
        self.0.recipe.session_bytes.saturating_mul(sessions)
    }

    fn uses_threads(&self) -> bool {
        self.0.recipe.providers == [Provider::Cpu]
    }

    fn facts(&self) -> ModelFacts {
        let mut facts = self.0.facts.clone();
        if let Some(made) = self.0.wide.as_ref().and_then(|wide| wide.made.get()) {
            let threads = made.as_ref().map_or_else(|why| format!("1: {why}"), |runner| runner.threads.to_string());
            facts.properties.insert("threads of a lone row".to_owned(), threads);
        }
        facts
    }
}
