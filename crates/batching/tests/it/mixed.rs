//! Requests of different lengths in one run: what rides together, what is cut, what is counted.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use millrace_batching::{BatchConfig, BatchQueue, ComputePool, Waiting};
use millrace_core::{
    Admission, Batch, BatchOutputs, DType, Dim, InferRequest, InferResponse, InputError, Instance, LoadError, Model,
    Progress, Reason, RequestContext, RunContext, RunError, Signature, Tensor, TensorSpec, Wanted,
};
use millrace_testkit::Gate;
use parking_lot::Mutex;

use crate::harness::{now, pool, wait};

/// Adds up the ids of each row and gives them back; 0 is no id but padding, and nothing from 1000 on is in its vocabulary.
#[derive(Debug)]
pub(crate) struct Sums {
    signature: Signature,
    gate: Gate,
    /// The shapes of the parts of each run.
    runs: Mutex<Vec<Vec<[usize; 2]>>>,
    /// The threads that weighed requests.
    weighers: Mutex<Vec<ThreadId>>,
}

impl Sums {
    pub(crate) fn new(gate: Gate) -> Arc<Self> {
        let axes = || vec![Dim::symbol("batch"), Dim::symbol("sequence")];
        let signature = Signature::new(
            vec![TensorSpec::new("ids", DType::Int64, axes())],
            vec![
                TensorSpec::new("sum", DType::Int64, vec![Dim::symbol("batch")]),
                TensorSpec::new("echo", DType::Int64, axes()),
            ],
        );
        let signature = signature.unwrap().mixed("sequence").unwrap();
        Arc::new(Self { signature, gate, runs: Mutex::default(), weighers: Mutex::default() })
    }
}

/// The model behind its instances.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<Sums>);

impl Model for Shared {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Adder { sums: Arc::clone(&self.0), computed: 0 }))
    }

    fn weigh(&self, inputs: &[Tensor], _: &Admission) -> Result<usize, InputError> {
        self.0.weighers.lock().push(thread::current().id());
        let ids = inputs[0].elements::<i64>().unwrap();
        match ids.iter().position(|id| *id >= 1000) {
            Some(index) => {
                Err(InputError::Instance { input: Arc::from("ids"), index, detail: "not in the vocabulary".to_owned() })
            }
            None => Ok(ids.iter().filter(|id| **id != 0).count()),
        }
    }
}

struct Adder {
    sums: Arc<Sums>,
    computed: usize,
}

impl Instance for Adder {
    fn run(&mut self, batch: &Batch, _: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let shapes = batch.parts().iter().map(|part| [part.rows, part.inputs[0].shape()[1]]).collect::<Vec<_>>();
        let longest = shapes.iter().map(|[_, length]| *length).max().unwrap();
        self.sums.runs.lock().push(shapes);
        self.sums.gate.pass();
        let (mut sums, mut echo) = (Vec::new(), Vec::new());
        for part in batch.parts() {
            let ids = part.inputs[0].elements::<i64>()?;
            for row in ids.chunks(ids.len() / part.rows) {
                sums.push(row.iter().sum::<i64>());
                echo.extend_from_slice(row);
                echo.resize(sums.len() * longest, -1);
            }
        }
        self.computed = echo.len();
        let rows = batch.rows();
        Ok(BatchOutputs::all([Tensor::from_vec(&[rows], sums)?, Tensor::from_vec(&[rows, longest], echo)?]))
    }

    fn computed(&self) -> usize {
        self.computed
    }
}

/// A queue, and the thread that it runs on.
fn queue(sums: &Arc<Sums>, config: BatchConfig) -> (ComputePool, BatchQueue) {
    let pool = pool(1);
    let model = Arc::new(Shared(Arc::clone(sums)));
    let queue = BatchQueue::new(model, "sums".parse().unwrap(), 1, config, &pool).unwrap();
    (pool, queue)
}

/// Batches are whatever is queued: what a run costs on a busy machine must not decide a test.
fn plain() -> BatchConfig {
    BatchConfig { waiting: Waiting::Fixed(Duration::ZERO), ..BatchConfig::default() }
}

pub(crate) fn request(rows: &[&[i64]]) -> InferRequest {
    let ids = Tensor::from_vec(&[rows.len(), rows[0].len()], rows.concat()).unwrap();
    InferRequest::new(vec![ids], RequestContext::new(now()))
}

fn ones(length: usize) -> Vec<i64> {
    vec![1; length]
}

fn echo(response: &InferResponse) -> (Vec<usize>, Vec<i64>) {
    let echo = &response.outputs[1];
    (echo.shape().to_vec(), echo.elements::<i64>().unwrap().into_owned())
}

#[test]
fn a_huge_request_is_weighed_on_a_compute_thread() {
    let sums = Sums::new(Gate::opened());
    let (pool, queue) = queue(&sums, plain());
    let me = thread::current().id();
    let ask = |ids: Vec<i64>| wait(queue.infer(request(&[&ids])));
    assert!(ask(vec![1; 1000]).is_ok());
    assert_eq!(std::mem::take(&mut *sums.weighers.lock()), [me]);
    let response = ask(vec![1; 200_000]).unwrap();
    assert_eq!(*response.outputs[0].elements::<i64>().unwrap(), [200_000]);
    // What is wrong with it is said all the same, in the words of one that is small.
    let mut wrong = vec![1; 200_000];
    wrong[150_000] = 1000;
    let refusal = ask(wrong).unwrap_err();
    assert_eq!((refusal.reason(), refusal.progress()), (Reason::InvalidInput, Some(Progress::Door)));
    assert!(refusal.message().contains("not in the vocabulary"), "{}", refusal.message());
    let weighers = std::mem::take(&mut *sums.weighers.lock());
    assert!(weighers.len() == 2 && !weighers.contains(&me), "{weighers:?}");
    // Nor where nothing is run any more.
    drop(pool);
    let refusal = ask(vec![1; 200_000]).unwrap_err();
    assert_eq!((refusal.reason(), refusal.progress()), (Reason::Draining, Some(Progress::Door)));
    assert!(sums.weighers.lock().is_empty());
}

#[test]
fn different_lengths_ride_together_and_each_gets_its_own_length_back() {
    let gate = Gate::closed();
    let sums = Sums::new(gate.clone());
    let (_pool, queue) = queue(&sums, plain());
    let first = queue.infer(request(&[&[7]]));
    gate.wait_for(1);
    let short = queue.infer(request(&[&[1, 2]]));
    let long = queue.infer(request(&[&[1, 2, 3, 4, 5], &[6, 7, 8, 0, 0]]));
    gate.open();
    assert_eq!(echo(&wait(first).unwrap()), (vec![1, 1], vec![7]));
    assert_eq!(echo(&wait(short).unwrap()), (vec![1, 2], vec![1, 2]));
    let long = wait(long).unwrap();
    assert_eq!(echo(&long), (vec![2, 5], vec![1, 2, 3, 4, 5, 6, 7, 8, 0, 0]));
    assert_eq!(*long.outputs[0].elements::<i64>().unwrap(), [15, 21]);
    assert_eq!(*sums.runs.lock(), [vec![[1, 1]], vec![[1, 2], [2, 5]]]);
}

#[test]
fn a_batch_holds_as_many_tokens_as_it_may() {
    let gate = Gate::closed();
    let sums = Sums::new(gate.clone());
    let config = BatchConfig { max_batch_tokens: NonZeroUsize::new(10).unwrap(), ..plain() };
    let (_pool, queue) = queue(&sums, config);
    let first = queue.infer(request(&[&[7]]));
    gate.wait_for(1);
    let lengths = [4, 5, 2, 30, 3, 3];
    let rest: Vec<_> = lengths.iter().map(|length| queue.infer(request(&[&ones(*length)]))).collect();
    gate.open();
    assert!(wait(first).is_ok());
    for (length, future) in lengths.into_iter().zip(rest) {
        assert_eq!(echo(&wait(future).unwrap()).1, ones(length));
    }
    let runs = sums.runs.lock();
    let runs: Vec<Vec<usize>> = runs[1..].iter().map(|run| run.iter().map(|[_, length]| *length).collect()).collect();
    assert_eq!(runs, [vec![4, 5], vec![2], vec![30], vec![3, 3]]);
}

#[test]
fn rows_bound_a_batch_as_well() {
    let gate = Gate::closed();
    let sums = Sums::new(gate.clone());
    let config = BatchConfig { max_batch_size: NonZeroUsize::new(2).unwrap(), ..plain() };
    let (_pool, queue) = queue(&sums, config);
    let first = queue.infer(request(&[&[7]]));
    gate.wait_for(1);
    let rest: Vec<_> = (0..5).map(|length| queue.infer(request(&[&ones(1 + length)]))).collect();
    gate.open();
    assert!(wait(first).is_ok());
    assert!(rest.into_iter().all(|future| wait(future).is_ok()));
    let sizes: Vec<usize> = sums.runs.lock()[1..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1]);
}

#[test]
fn a_batch_with_all_its_rows_waits_for_nobody() {
    let sums = Sums::new(Gate::opened());
    let config = BatchConfig {
        max_batch_size: NonZeroUsize::new(2).unwrap(),
        waiting: Waiting::Fixed(Duration::from_secs(3600)),
        ..BatchConfig::default()
    };
    let (_pool, queue) = queue(&sums, config);
    let both = [queue.infer(request(&[&[1]])), queue.infer(request(&[&[1, 2]]))];
    both.into_iter().for_each(|future| drop(wait(future).unwrap()));
    assert_eq!(*sums.runs.lock(), [vec![[1, 1], [1, 2]]]);
}

#[test]
fn a_request_of_many_tokens_is_cut_by_its_rows() {
    let sums = Sums::new(Gate::opened());
    let config = BatchConfig { max_batch_tokens: NonZeroUsize::new(600).unwrap(), ..BatchConfig::default() };
    let (_pool, queue) = queue(&sums, config);
    let rows: Vec<Vec<i64>> = (0..8).map(|row| vec![row + 1; 200]).collect();
    let rows: Vec<&[i64]> = rows.iter().map(Vec::as_slice).collect();
    let response = wait(queue.infer(request(&rows))).unwrap();
    let (shape, values) = echo(&response);
    assert_eq!((shape, values), (vec![8, 200], rows.concat()));
    let runs = sums.runs.lock();
    let tokens: Vec<usize> = runs.iter().map(|run| run.iter().map(|[rows, length]| rows * length).sum()).collect();
    assert!(tokens.len() > 1 && tokens.iter().all(|tokens| *tokens <= 600), "{tokens:?}");
}

#[test]
fn values_that_the_model_refuses_never_reach_a_run() {
    let sums = Sums::new(Gate::opened());
    let (_pool, queue) = queue(&sums, BatchConfig::default());
    let refusal = wait(queue.infer(request(&[&[1, 1000]]))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert!(refusal.message().contains("not in the vocabulary"), "{refusal:?}");
    // Also where another request of that length was sound.
    assert!(wait(queue.infer(request(&[&[1, 2]]))).is_ok());
    assert!(wait(queue.infer(request(&[&[1, 1000]]))).is_err());
    assert_eq!(sums.runs.lock().len(), 1);
}

#[test]
fn an_answer_that_would_not_fit_in_memory_is_refused_before_it_is_computed() {
    let sums = Sums::new(Gate::opened());
    let (_pool, queue) = queue(&sums, plain());
    let row = ones(1 << 16);
    let wide: Vec<&[i64]> = vec![&row; 2100];
    let mut asked = request(&wide);
    let refusal = wait(queue.infer(asked.clone())).unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooLarge);
    assert!(refusal.message().contains("ask for fewer outputs"), "{refusal:?}");
    assert!(sums.runs.lock().is_empty());
    // The sums alone are small; what refuses them is the queue's limit of bytes.
    asked.wanted = Wanted::Only([0].as_slice().into());
    let refusal = wait(queue.infer(asked)).unwrap_err();
    assert!(refusal.message().contains("does not fit its queue"), "{refusal:?}");
}

#[test]
fn what_a_token_costs_is_learned_over_all_lengths() {
    let sums = Sums::new(Gate::opened());
    let (_pool, queue) = queue(&sums, BatchConfig::default());
    for length in [1, 9, 40, 200].repeat(8) {
        assert!(wait(queue.infer(request(&[&ones(length)]))).is_ok());
    }
    let learned = queue.learned();
    assert_eq!(learned.len(), 1, "{learned:?}");
    assert_eq!(learned[0].runs, 32);
    assert!(learned[0].best_rows > 1, "{learned:?}");
}
