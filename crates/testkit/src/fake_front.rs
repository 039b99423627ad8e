//! What a front-end needs behind it: versions that answer through a closure, the choice among them, and compute threads
//! that are none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use millrace_core::{
    Compute, DType, Dim, InferFuture, InferRequest, Job, ModelName, ModelRef, ModelStatus, Place, Reason, Refusal,
    RequestContext, Servable, Signatures, TensorSpec, TextProcessor, VersionChoice, VersionStatus,
};

/// What a version does with a request whose inputs fit.
type Answerer = Arc<dyn Fn(InferRequest) -> InferFuture + Send + Sync>;

/// A version that checks its inputs and answers through a closure.
pub struct FakeServable {
    model: ModelName,
    version: u64,
    signatures: Signatures,
    text: Option<Arc<dyn TextProcessor>>,
    answer: Answerer,
}

impl FakeServable {
    /// Version `version` of `model`.
    pub fn new(
        model: ModelName,
        version: u64,
        signatures: Signatures,
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        Self { model, version, signatures, text: None, answer: Arc::new(answer) }
    }

    /// The same that takes text, 512 tokens in a run.
    #[must_use]
    pub fn with_text(self, text: Option<Arc<dyn TextProcessor>>) -> Self {
        Self { text, ..self }
    }
}

impl fmt::Debug for FakeServable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.model, self.version)
    }
}

impl Servable for FakeServable {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let signature = self.signatures.get(request.signature).expect("front-ends ask for signatures that there are");
        match signature.check(&request.inputs) {
            Ok(_) => (self.answer)(request),
            Err(error) => InferFuture::refused(error.refusal(&self.model)),
        }
    }

    fn max_batch_tokens(&self) -> Option<usize> {
        self.text.as_ref().map(|_| 512)
    }

    fn text(&self) -> Option<Arc<dyn TextProcessor>> {
        self.text.clone()
    }
}

/// A version that refuses every request that is announced, and answers those that are not.
#[derive(Debug)]
pub struct FullQueue {
    version: Arc<dyn Servable>,
    refusal: Refusal,
}

impl FullQueue {
    /// `version`, whose queue says `refusal` at the door.
    pub fn new(version: Arc<dyn Servable>, refusal: Refusal) -> Self {
        Self { version, refusal }
    }
}

impl Servable for FullQueue {
    fn model(&self) -> &ModelName {
        self.version.model()
    }

    fn version(&self) -> u64 {
        self.version.version()
    }

    fn signatures(&self) -> &Signatures {
        self.version.signatures()
    }

    fn knock(&self, _context: &RequestContext) -> Result<Place, Refusal> {
        Err(self.refusal.clone())
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        self.version.infer(request)
    }

    fn text(&self) -> Option<Arc<dyn TextProcessor>> {
        self.version.text()
    }
}

/// The one of `versions` that `model` means, as `statuses` has defaults and aliases.
///
/// # Errors
/// A [`Refusal`]: an unknown model, version or alias, or a version without an executor.
pub fn resolve_among(
    model: &ModelRef<'_>,
    statuses: &BTreeMap<String, ModelStatus>,
    versions: &[Arc<dyn Servable>],
) -> Result<Arc<dyn Servable>, Refusal> {
    let status = statuses.get(model.name).ok_or_else(|| Refusal::new(Reason::ModelUnknown, "no such model"))?;
    let version = match model.version {
        VersionChoice::Default => status.default_version,
        VersionChoice::Number(number) => Some(number),
        VersionChoice::Label(label) => match status.aliases.get(label) {
            Some(version) => Some(*version),
            None => return Err(Refusal::new(Reason::LabelUnknown, "no such label")),
        },
    };
    let is_idle = |known: &VersionStatus| Some(known.version) == version && known.executors == Some(0);
    if status.versions.iter().any(is_idle) {
        return Err(Refusal::new(Reason::NotReady, "it has no executor"));
    }
    let fits = |known: &&Arc<dyn Servable>| known.model().as_str() == model.name && Some(known.version()) == version;
    let found = versions.iter().find(fits).cloned();
    found.ok_or_else(|| Refusal::new(Reason::VersionUnknown, "no such version"))
}

/// A tensor's spec from its name, dtype and axes; `-1` is the batch axis.
pub fn spec(name: &str, dtype: DType, axes: &[isize]) -> TensorSpec {
    let dim = |&size: &isize| usize::try_from(size).map_or_else(|_| Dim::symbol("N"), Dim::Fixed);
    TensorSpec::new(name, dtype, axes.iter().map(dim).collect::<Vec<_>>())
}

/// Runs jobs on the spot and counts them, or refuses them.
#[derive(Debug, Default)]
pub struct InlineCompute {
    jobs: AtomicUsize,
    refusing: AtomicBool,
}

impl InlineCompute {
    /// How many jobs ran.
    pub fn jobs(&self) -> usize {
        self.jobs.load(Ordering::SeqCst)
    }

    /// Takes no more jobs.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }
}

impl Compute for InlineCompute {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::QueueFull, "the compute queue is full"));
        }
        self.jobs.fetch_add(1, Ordering::SeqCst);
        job();
        Ok(())
    }

    fn workers(&self) -> Option<usize> {
        Some(2)
    }
}
