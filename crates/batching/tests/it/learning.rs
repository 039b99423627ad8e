//! What the queue learns from a model whose prices the test knows, and what it asks of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_batching::{BatchConfig, Sizes};
use millrace_core::{
    Admission, Batch, BatchOutputs, DType, Dim, Group, InputError, Instance, LoadError, Model, Prepared, Reason,
    RunContext, RunError, Signature, Tensor, TensorSpec,
};
use millrace_testkit::Gate;
use parking_lot::Mutex;

use crate::harness::{ask, count, pool, queue, request, wait};

/// `y = x` over `[N, H]`. Prepares what it is asked to, refuses H above 9, and notes who asked what.
#[derive(Debug)]
struct Choosy {
    signature: Signature,
    prepared: Mutex<Vec<usize>>,
    admitted: AtomicUsize,
    preparing: Gate,
}

impl Choosy {
    fn new() -> Arc<Self> {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("H")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
        Arc::new(Self {
            signature,
            prepared: Mutex::default(),
            admitted: AtomicUsize::new(0),
            preparing: Gate::opened(),
        })
    }
}

#[derive(Debug)]
struct Handle(Arc<Choosy>);

impl Model for Handle {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Echo))
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.0.admitted.fetch_add(1, Ordering::SeqCst);
        let detail = "too high".to_owned();
        if admission.group.0[0] > 9 { Err(InputError::OutputSize { output: "y".into(), detail }) } else { Ok(()) }
    }

    fn prepared(&self, _group: &Group) -> Prepared {
        Prepared::Sizes(self.0.prepared.lock().iter().copied().collect())
    }

    fn prepare(&self, _group: &Group, rows: usize) -> Result<(), LoadError> {
        assert_eq!(std::thread::current().name(), Some("millrace-prepare"));
        self.0.prepared.lock().push(rows);
        self.0.preparing.pass();
        Ok(())
    }
}

struct Echo;

impl Instance for Echo {
    fn run(&mut self, batch: &Batch, _context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        Ok(BatchOutputs::all([batch.gather(0)?]))
    }
}

fn rows_of(rows: usize, height: usize) -> millrace_core::InferRequest {
    let mut asked = request(&[]);
    asked.inputs[0] = Tensor::from_vec(&[rows, height], vec![1.0_f32; rows * height]).unwrap();
    asked
}

#[test]
fn allowed_sizes_are_prepared_on_the_background_thread_when_a_group_first_comes() {
    let (pool, model) = (pool(1), Choosy::new());
    let sizes = [2, 4].map(count).to_vec();
    let config = BatchConfig { sizes: Sizes::Allowed(sizes), max_batch_size: count(4), ..BatchConfig::default() };
    let queue = queue(Arc::new(Handle(Arc::clone(&model))), config, &pool);
    let response = wait(queue.infer(rows_of(3, 5))).unwrap();
    assert_eq!(response.outputs[0].shape()[..], [3, 5]);
    model.preparing.wait_for(2);
    assert_eq!(*model.prepared.lock(), [2, 4]);
}

#[test]
fn the_model_is_asked_once_about_a_group_and_its_no_is_final() {
    let (pool, model) = (pool(1), Choosy::new());
    let queue = queue(Arc::new(Handle(Arc::clone(&model))), BatchConfig::default(), &pool);
    for _ in 0..5 {
        wait(queue.infer(rows_of(1, 5))).unwrap();
    }
    assert_eq!(model.admitted.load(Ordering::SeqCst), 1);
    let refusal = wait(queue.infer(rows_of(1, 10))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert!(refusal.message().contains("`fake`") && refusal.message().contains("too high"), "{}", refusal.message());
}

#[test]
fn requests_of_different_groups_do_not_share_a_run() {
    let (pool, model) = (pool(2), Choosy::new());
    let queue = queue(Arc::new(Handle(model)), BatchConfig::default(), &pool);
    let futures: Vec<_> = (0..200).map(|index| (index, queue.infer(rows_of(1 + index % 3, 1 + index % 4)))).collect();
    for (index, future) in futures {
        assert_eq!(wait(future).unwrap().outputs[0].shape()[..], [1 + index % 3, 1 + index % 4]);
    }
    let learned = queue.learned();
    assert_eq!(learned.iter().map(|known| known.group.0[0]).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(learned.iter().all(|known| known.runs > 0 && known.best_rows >= 1));
}

#[test]
fn what_was_learned_is_there_to_be_looked_at() {
    let pool = pool(1);
    let queue = queue(millrace_testkit::FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    assert!(queue.learned().is_empty());
    for _ in 0..10 {
        ask(&queue, &[1.0; 4]).unwrap();
    }
    let learned = queue.learned();
    assert_eq!((learned.len(), learned[0].runs >= 10), (1, true));
}
