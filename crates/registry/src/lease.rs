//! One loaded version, shared by everybody who uses it, and the thread that frees it after the last of them.

use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use millrace_batching::{BatchQueue, ComputePool};
use millrace_core::{
    InferFuture, InferRequest, ModelName, Place, QueueStatus, Refusal, RequestContext, Servable, Signatures,
    TextProcessor, VersionStatistics,
};

use crate::adapted::Adapted;
use crate::heap;
use crate::pipeline::Pipeline;
use crate::table::LoadId;

/// A loaded version. Whoever holds it may use it, whatever the registry has decided since; when the last holder lets
/// go, it is freed on the reaper's thread, because freeing gigabytes takes longer than an I/O thread has.
pub(crate) struct Lease {
    model: ModelName,
    version: u64,
    signatures: Arc<Signatures>,
    body: Option<Body>,
    reaper: Reaper,
    /// For answers that outlive the call: they hold the version until they are given.
    this: Weak<Self>,
}

/// The heavy part of a lease.
struct Body {
    id: LoadId,
    serving: Serving,
    /// A queue alone would not keep the threads that it runs on.
    _pool: ComputePool,
}

/// What answers.
pub(crate) enum Serving {
    /// A model's queue.
    Queue(BatchQueue),
    /// A model whose inputs, or whose texts, are turned into what its network takes.
    Adapted(Adapted),
    /// Other models, asked by a pipeline.
    Pipeline(Pipeline),
}

impl Serving {
    fn queue(&self) -> Option<&BatchQueue> {
        match self {
            Self::Queue(queue) => Some(queue),
            Self::Adapted(adapted) => Some(adapted.queue()),
            Self::Pipeline(_) => None,
        }
    }

    fn statistics(&self) -> VersionStatistics {
        match self {
            Self::Queue(queue) => queue.statistics(),
            Self::Adapted(adapted) => adapted.statistics(),
            Self::Pipeline(pipeline) => pipeline.counts().read(),
        }
    }
}

/// Which version a lease is of, and for which load.
#[derive(Debug, Clone)]
pub(crate) struct Leased {
    pub(crate) id: LoadId,
    pub(crate) model: ModelName,
    pub(crate) version: u64,
}

impl Lease {
    pub(crate) fn new(
        leased: Leased,
        signatures: Arc<Signatures>,
        serving: Serving,
        pool: ComputePool,
        reaper: Reaper,
    ) -> Arc<Self> {
        let Leased { id, model, version } = leased;
        let body = Some(Body { id, serving, _pool: pool });
        Arc::new_cyclic(|this| Self { model, version, signatures, body, reaper, this: Weak::clone(this) })
    }

    pub(crate) fn statistics(&self) -> VersionStatistics {
        self.serving().statistics()
    }

    /// Changes how many runs may go on at once. A pipeline has none of its own.
    pub(crate) fn scale(&self, executors: usize) {
        match self.serving().queue() {
            Some(queue) => queue.set_executors(executors),
            None => tracing::warn!(
                model = %self.model,
                version = self.version,
                "a pipeline runs nothing itself and cannot be scaled; the order has no effect on it"
            ),
        }
    }

    pub(crate) fn executors(&self) -> Option<usize> {
        self.serving().queue()?.executors()
    }

    pub(crate) fn waiting(&self) -> QueueStatus {
        self.serving().queue().map(BatchQueue::waiting).unwrap_or_default()
    }

    /// Whether a run hung and requests are refused since.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.serving().queue().is_some_and(BatchQueue::is_quarantined)
    }

    fn serving(&self) -> &Serving {
        &self.body.as_ref().expect("only `drop` takes the body").serving
    }

    /// The same lease, for an answer that is on its way.
    fn held(&self) -> Arc<Self> {
        self.this.upgrade().expect("a lease is called through the Arc that it was made in")
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("model", &self.model).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Servable for Lease {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn knock(&self, context: &RequestContext) -> Result<Place, Refusal> {
        let queue = self.serving().queue();
        queue.map_or_else(|| Ok(Place::default()), |queue| queue.knock(context, 1).map(Place::new))
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        match self.serving() {
            Serving::Queue(queue) => queue.infer(request),
            Serving::Adapted(adapted) => adapted.infer(request, &self.model, || self.held()),
            Serving::Pipeline(pipeline) => pipeline.infer(request, self.held()),
        }
    }

    fn max_batch_tokens(&self) -> Option<usize> {
        match self.serving() {
            Serving::Adapted(adapted) => adapted.max_batch_tokens(),
            Serving::Queue(_) | Serving::Pipeline(_) => None,
        }
    }

    fn text(&self) -> Option<Arc<dyn TextProcessor>> {
        match self.serving() {
            Serving::Adapted(adapted) => adapted.text().cloned(),
            Serving::Queue(_) | Serving::Pipeline(_) => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            // Nobody listens any more only when the process is on its way out; the body is then freed right here.
            drop(self.reaper.0.send(body));
        }
    }
}

/// Where the bodies of leases go. Its thread ends when the last lease and the last handle have gone.
#[derive(Clone)]
pub(crate) struct Reaper(Arc<Sender<Body>>);

impl Reaper {
    /// Starts the thread; `freed` is told of every load whose memory is free, with its last counts.
    pub(crate) fn start(
        freed: impl Fn(LoadId, VersionStatistics) + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, bodies) = crossbeam_channel::unbounded::<Body>();
        let thread = thread::Builder::new().name("millrace-reaper".to_owned()).spawn(move || {
            for body in &bodies {
                let (id, statistics) = (body.id, body.serving.statistics());
                drop(body);
                freed(id, statistics);
                // Once for all that are freed in a row.
                if bodies.is_empty() {
                    heap::give_back();
                }
            }
        })?;
        Ok((Self(Arc::new(sender)), thread))
    }

    /// Lets go; true when that was the last handle, so that the thread ends.
    pub(crate) fn release(self) -> bool {
        Arc::into_inner(self.0).is_some()
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reaper")
    }
}
