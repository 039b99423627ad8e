//! One version's queue: requests in, answers out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_core::{
    Batch, Compute, InferFuture, InferRequest, InferResponse, LoadError, Model, ModelName, Reason, Refusal, RunContext,
    RunError, Stages, VersionStatistics,
};

use crate::{BatchConfig, ComputePool, Learned, clock};

/// A handle to the queue of one version of one model. Dropping the last one closes it.
#[derive(Clone)]
pub struct BatchQueue(Arc<Shared>);

struct Shared {
    model: Arc<dyn Model>,
    name: ModelName,
    version: u64,
    pool: ComputePool,
    closed: AtomicBool,
    answered: AtomicU64,
}

impl BatchQueue {
    /// A queue in front of `model`. Makes the first instance, so that a model without a usable one fails here.
    ///
    /// # Errors
    /// [`LoadError`] when the model gives no instance.
    pub fn new(
        model: Arc<dyn Model>,
        name: ModelName,
        version: u64,
        _config: BatchConfig,
        pool: &ComputePool,
    ) -> Result<Self, LoadError> {
        drop(model.instance()?);
        let pool = pool.clone();
        Ok(Self(Arc::new(Shared { model, name, version, pool, closed: false.into(), answered: 0.into() })))
    }

    /// Checks the inputs, then queues the request. Never blocks.
    pub fn infer(&self, request: InferRequest) -> InferFuture {
        let shared = Arc::clone(&self.0);
        if shared.closed.load(Ordering::Acquire) {
            return InferFuture::refused(Refusal::new(Reason::Draining, "the version is being unloaded"));
        }
        let queued = clock::now();
        let admitted = shared.model.signature().check(&request.inputs);
        let admission = match admitted.and_then(|a| shared.model.admit(&a).map(|()| a)) {
            Ok(admission) => admission,
            Err(error) => return InferFuture::refused(error.refusal(&shared.name)),
        };
        let (slot, future) = InferFuture::slot();
        let pool = shared.pool.clone();
        let job = move || {
            if slot.is_cancelled() {
                return;
            }
            let failed = |error: RunError| {
                Refusal::new(Reason::BackendFailed, "the backend failed").with_cause(Arc::new(error) as Arc<_>)
            };
            let run = || {
                let mut instance = shared.model.instance().map_err(|error| RunError::Failed(Box::new(error)))?;
                let batch = Batch::single(request.inputs, admission.rows);
                let started = clock::now();
                let outputs = instance.run(&batch, &RunContext { wanted: &request.wanted, ..RunContext::plain() })?;
                let parts = batch.split(&outputs, shared.model.signature())?;
                let outputs = parts.into_iter().flatten().flatten().collect();
                let stages =
                    Stages { queued, formed: started, started, finished: clock::now(), batch_rows: admission.rows };
                Ok(InferResponse { outputs, stages })
            };
            shared.answered.fetch_add(1, Ordering::Relaxed);
            slot.answer(run().map_err(failed));
        };
        match pool.run(Box::new(job)) {
            Ok(()) => future,
            Err(refusal) => InferFuture::refused(refusal),
        }
    }

    /// What it has done so far.
    pub fn statistics(&self) -> VersionStatistics {
        VersionStatistics { answered: self.0.answered.load(Ordering::Relaxed), ..VersionStatistics::default() }
    }

    /// Whether a run hung, so that the version takes no more requests.
    pub fn is_quarantined(&self) -> bool {
        false
    }

    /// Refuses new requests from now on; queued ones still run.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// What was learned about run times, one entry per group.
    pub fn learned(&self) -> Vec<Learned> {
        Vec::new()
    }
}

impl fmt::Debug for BatchQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchQueue")
            .field("model", &self.0.name)
            .field("version", &self.0.version)
            .finish_non_exhaustive()
    }
}
