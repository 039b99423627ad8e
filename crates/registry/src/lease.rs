//! One loaded version, shared by everybody who uses it, and the thread that frees it after the last of them.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use millrace_batching::{BatchQueue, ComputePool};
use millrace_core::{InferFuture, InferRequest, ModelName, QueueStatus, Servable, Signatures, VersionStatistics};

use crate::table::LoadId;

/// A loaded version. Whoever holds it may use it, whatever the registry has decided since; when the last holder lets
/// go, it is freed on the reaper's thread, because freeing gigabytes takes longer than an I/O thread has.
pub(crate) struct Lease {
    model: ModelName,
    version: u64,
    signatures: Arc<Signatures>,
    body: Option<Body>,
    reaper: Reaper,
}

/// The heavy part of a lease.
struct Body {
    id: LoadId,
    queue: BatchQueue,
    /// The queue alone would not keep the threads that it runs on.
    _pool: ComputePool,
}

impl Lease {
    pub(crate) fn new(
        model: ModelName,
        version: u64,
        signatures: Arc<Signatures>,
        id: LoadId,
        queue: BatchQueue,
        pool: ComputePool,
        reaper: Reaper,
    ) -> Self {
        Self { model, version, signatures, body: Some(Body { id, queue, _pool: pool }), reaper }
    }

    pub(crate) fn statistics(&self) -> VersionStatistics {
        self.queue().statistics()
    }

    /// Changes how many runs may go on at once.
    pub(crate) fn scale(&self, executors: usize) {
        self.queue().set_executors(executors);
    }

    pub(crate) fn executors(&self) -> Option<usize> {
        self.queue().executors()
    }

    pub(crate) fn waiting(&self) -> QueueStatus {
        self.queue().waiting()
    }

    /// Whether a run hung and requests are refused since.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.queue().is_quarantined()
    }

    fn queue(&self) -> &BatchQueue {
        &self.body.as_ref().expect("only `drop` takes the body").queue
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

    fn infer(&self, request: InferRequest) -> InferFuture {
        self.queue().infer(request)
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
            for body in bodies {
                let (id, statistics) = (body.id, body.queue.statistics());
                drop(body);
                freed(id, statistics);
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
