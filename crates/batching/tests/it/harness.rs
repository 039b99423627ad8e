//! What the tests share: a pool, a queue over a fake model, requests and answers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_batching::{BatchConfig, BatchQueue, ComputePool, PoolConfig, Waiting};
use millrace_core::{
    CallerId, InferFuture, InferRequest, InferResponse, Model, Reason, Refusal, RequestContext, Tensor,
};
use millrace_testkit::{FakeModel, Gate};

pub(crate) fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the queue under test runs on the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn pool(threads: usize) -> ComputePool {
    ComputePool::new(PoolConfig { threads: count(threads), ..PoolConfig::default() })
}

pub(crate) fn queue(model: Arc<dyn Model>, config: BatchConfig, pool: &ComputePool) -> BatchQueue {
    BatchQueue::new(model, "fake".parse().unwrap(), 1, config, pool).unwrap()
}

/// One thread, one model behind a gate that lets nobody through yet, and one run that waits at it: what is asked from
/// here on queues up.
pub(crate) struct Held {
    pub(crate) pool: Option<ComputePool>,
    pub(crate) gate: Gate,
    pub(crate) model: Arc<FakeModel>,
    pub(crate) queue: BatchQueue,
    pub(crate) first: Option<InferFuture>,
}

impl Held {
    /// Batches are whatever is queued: what a run of this model costs on a busy machine must not decide a test.
    pub(crate) fn new(config: BatchConfig) -> Self {
        let (pool, gate) = (pool(1), Gate::closed());
        let model = FakeModel::builder().gate(gate.clone()).build();
        let config = BatchConfig { waiting: Waiting::Fixed(Duration::ZERO), ..config };
        let queue = queue(model.as_model(), config, &pool);
        let first = Some(queue.infer(request(&[0.5])));
        gate.wait_for(1);
        Self { pool: Some(pool), gate, model, queue, first }
    }

    /// What the held run gave, once the gate is open.
    pub(crate) fn first(&mut self) -> Result<Vec<f32>, Reason> {
        answer(self.first.take().unwrap())
    }

    /// The rows of the runs since the one that is held.
    pub(crate) fn later_runs(&self) -> Vec<usize> {
        self.model.runs().split_off(1)
    }
}

pub(crate) fn request(x: &[f32]) -> InferRequest {
    InferRequest::new(vec![Tensor::from_vec(&[x.len()], x.to_vec()).unwrap()], RequestContext::new(now()))
}

pub(crate) fn from_caller(caller: u64, x: &[f32]) -> InferRequest {
    let mut request = request(x);
    request.context.caller = CallerId(caller);
    request
}

pub(crate) fn within(limit: Duration, x: &[f32]) -> InferRequest {
    let mut request = request(x);
    request.context.deadline = Some(now() + limit);
    request
}

pub(crate) fn wait(future: InferFuture) -> Result<InferResponse, Refusal> {
    pollster::block_on(future)
}

/// The values of the one output.
pub(crate) fn values(response: &InferResponse) -> Vec<f32> {
    response.outputs[0].elements::<f32>().unwrap().into_owned()
}

pub(crate) fn ask(queue: &BatchQueue, x: &[f32]) -> Result<Vec<f32>, Reason> {
    answer(queue.infer(request(x)))
}

pub(crate) fn answer(future: InferFuture) -> Result<Vec<f32>, Reason> {
    wait(future).map(|response| values(&response)).map_err(|refusal| refusal.reason())
}
