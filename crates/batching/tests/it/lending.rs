//! Cores that idle go to long runs of a model that can use them. Whether that pays is learned by a rule that is tested beside it.

use std::sync::Arc;
use std::time::Duration;

use millrace_batching::{BatchConfig, BatchQueue, ComputePool};
use millrace_core::{
    Batch, BatchOutputs, Compute, DType, Dim, Instance, LoadError, Model, RunContext, RunError, Signature, TensorSpec,
};
use millrace_testkit::Gate;
use parking_lot::Mutex;

use crate::harness::{ask, now, pool, queue};

/// A model whose runs keep a core busy for two milliseconds, or for less where they may use several.
#[derive(Debug)]
struct Long {
    signature: Signature,
    uses_threads: bool,
    threads: Arc<Mutex<Vec<usize>>>,
}

#[derive(Debug)]
struct Run(Arc<Mutex<Vec<usize>>>);

impl Long {
    fn queue(uses_threads: bool, pool: &ComputePool) -> (BatchQueue, Arc<Mutex<Vec<usize>>>) {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]).unwrap();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let model = Arc::new(Self { signature, uses_threads, threads: Arc::clone(&threads) });
        (queue(model, BatchConfig::default(), pool), threads)
    }
}

impl Model for Long {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Run(Arc::clone(&self.threads))))
    }

    fn uses_threads(&self) -> bool {
        self.uses_threads
    }
}

impl Instance for Run {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.0.lock().push(context.threads);
        let threads = u32::try_from(context.threads).unwrap();
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
    let (queue, threads) = Long::queue(true, &pool);
    // A worker that has just answered may not sleep yet, so that it is not the first long run that must get its core.
    let has_both = |_: &usize| {
        ask_often(&queue, 1);
        threads.lock().last() == Some(&2)
    };
    assert!((0..5000).any(|asked| has_both(&asked)), "no run of 5000 got both cores");
    let threads = threads.lock();
    assert_eq!(threads[0], 1, "nothing is known about the first run");
    assert!(threads.iter().all(|threads| (1..=2).contains(threads)));
}

#[test]
fn a_model_that_cannot_use_them_gets_none() {
    let pool = pool(2);
    let (queue, threads) = Long::queue(false, &pool);
    ask_often(&queue, 20);
    assert!(threads.lock().iter().all(|threads| *threads == 1));
}

#[test]
fn cores_that_work_are_not_lent() {
    let (pool, gate) = (pool(2), Gate::closed());
    let (queue, threads) = Long::queue(true, &pool);
    let held = gate.clone();
    pool.run(Box::new(move || held.pass())).unwrap();
    gate.wait_for(1);
    ask_often(&queue, 20);
    assert!(threads.lock().iter().all(|threads| *threads == 1));
    gate.open();
}
