//! Cores that idle make long runs of one model shorter, and only where that pays.

use std::sync::Arc;
use std::time::Duration;

use millrace_batching::{BatchConfig, BatchQueue, ComputePool};
use millrace_core::{
    Batch, BatchOutputs, Compute, DType, Dim, Instance, LoadError, Model, RunContext, RunError, Signature, TensorSpec,
};
use millrace_testkit::Gate;
use parking_lot::Mutex;

use crate::harness::{ask, now, pool, queue};

/// A model whose runs keep a core busy for a millisecond, or for less where they may use several and it can.
#[derive(Debug)]
struct Long {
    signature: Signature,
    uses_threads: bool,
    gains: bool,
    threads: Arc<Mutex<Vec<usize>>>,
}

#[derive(Debug)]
struct Run {
    gains: bool,
    threads: Arc<Mutex<Vec<usize>>>,
}

impl Long {
    fn queue(uses_threads: bool, gains: bool, pool: &ComputePool) -> (BatchQueue, Arc<Mutex<Vec<usize>>>) {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let model = Arc::new(Self { signature, uses_threads, gains, threads: Arc::clone(&threads) });
        (queue(model, BatchConfig::default(), pool), threads)
    }
}

impl Model for Long {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Run { gains: self.gains, threads: Arc::clone(&self.threads) }))
    }

    fn uses_threads(&self) -> bool {
        self.uses_threads
    }
}

impl Instance for Run {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.threads.lock().push(context.threads);
        let threads = if self.gains { u32::try_from(context.threads).unwrap() } else { 1 };
        let end = now() + Duration::from_millis(2) / (threads * threads);
        while now() < end {
            std::hint::spin_loop();
        }
        Ok(BatchOutputs::all([batch.gather(0)?]))
    }
}

fn ask_often(queue: &BatchQueue, times: usize) {
    for _ in 0..times {
        assert_eq!(ask(queue, &[1.0]).unwrap(), [1.0]);
    }
}

#[test]
fn a_lone_caller_gets_the_idle_cores() {
    let pool = pool(2);
    let (queue, threads) = Long::queue(true, true, &pool);
    ask_often(&queue, 100);
    let threads = threads.lock();
    assert_eq!(threads[0], 1, "nothing is known about the first run");
    assert!(threads.iter().all(|threads| (1..=2).contains(threads)));
    let lent = threads.iter().filter(|threads| **threads == 2).count();
    assert!(lent > 50, "{lent} of 100 runs got both cores");
}

#[test]
fn a_model_that_gains_nothing_is_soon_left_alone() {
    let pool = pool(2);
    let (queue, threads) = Long::queue(true, false, &pool);
    ask_often(&queue, 100);
    let lent = threads.lock().iter().filter(|threads| **threads == 2).count();
    // Four trials, and one more should other work of the machine have made these look good.
    assert!((1..=50).contains(&lent), "{lent} of 100 runs got both cores");
}

#[test]
fn a_model_that_cannot_use_them_gets_none() {
    let pool = pool(2);
    let (queue, threads) = Long::queue(false, true, &pool);
    ask_often(&queue, 20);
    assert!(threads.lock().iter().all(|threads| *threads == 1));
}

#[test]
fn cores_that_work_are_not_lent() {
    let (pool, gate) = (pool(2), Gate::closed());
    let (queue, threads) = Long::queue(true, true, &pool);
    let held = gate.clone();
    pool.run(Box::new(move || held.pass())).unwrap();
    gate.wait_for(1);
    ask_often(&queue, 20);
    assert!(threads.lock().iter().all(|threads| *threads == 1));
    gate.open();
}
