//! Short runs on the thread that asks, where it lends itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use millrace_batching::{BatchConfig, BatchQueue, ComputePool, PoolConfig, Waiting};
use millrace_core::{InferFuture, InferRequest, Reason};
use millrace_testkit::{FakeModel, Gate, Misbehaviour};

use crate::harness::{answer, ask, pool, queue, request};

/// How often a test tries for what a busy machine may spoil: that a run is seen to be short.
pub(crate) const TRIES: usize = 20_000;

pub(crate) fn lent(x: &[f32]) -> InferRequest {
    let mut request = request(x);
    request.context.lends_thread = true;
    request
}

/// A queue that knows what its model costs.
pub(crate) fn settled(pool: &ComputePool, hang: &Gate) -> (Arc<FakeModel>, BatchQueue) {
    let model = FakeModel::builder().hang(hang.clone()).build();
    let queue = queue(model.as_model(), BatchConfig::default(), pool);
    (0..64).for_each(|_| assert_eq!(ask(&queue, &[1.0]).unwrap(), [2.0]));
    (model, queue)
}

/// Whether the latest run was on this thread.
pub(crate) fn ran_here(model: &FakeModel) -> bool {
    model.run_threads().last() == Some(&thread::current().id())
}

/// Asks until a run was short enough to be led by this thread.
fn lead_once(model: &FakeModel, queue: &BatchQueue) {
    let led = (0..TRIES).any(|_| {
        assert_eq!(answer(queue.infer(lent(&[3.0]))).unwrap(), [6.0]);
        ran_here(model)
    });
    assert!(led, "no run was led by the thread that asked");
}

#[test]
fn a_short_run_is_led_by_the_thread_that_asks() {
    let pool = pool(1);
    let (model, queue) = settled(&pool, &Gate::closed());
    lead_once(&model, &queue);
}

#[test]
fn a_thread_that_is_not_lent_leads_nothing() {
    let pool = pool(1);
    let (model, queue) = settled(&pool, &Gate::closed());
    (0..64).for_each(|_| drop(ask(&queue, &[1.0]).unwrap()));
    assert!(!model.run_threads().contains(&thread::current().id()));
}

#[test]
fn requests_of_one_thread_gather_behind_the_first() {
    let pool = pool(1);
    let (model, queue) = settled(&pool, &Gate::closed());
    let gathered = (0..TRIES).any(|_| {
        let futures: Vec<InferFuture> = (0..8).map(|index| queue.infer(lent(&[index as f32]))).collect();
        for (index, future) in futures.into_iter().enumerate() {
            assert_eq!(answer(future).unwrap(), [2.0 * index as f32]);
        }
        model.runs().last() == Some(&8) && ran_here(&model)
    });
    assert!(gathered, "eight requests never shared a run on the thread that asked");
}

#[test]
fn a_guest_that_leaves_hands_its_companions_to_the_pool() {
    let pool = pool(1);
    let (_, queue) = settled(&pool, &Gate::closed());
    for _ in 0..1000 {
        let guest = queue.infer(lent(&[1.0]));
        let companion = queue.infer(lent(&[2.0]));
        drop(guest);
        // Were nobody at work on it, this would wait for ever.
        assert_eq!(answer(companion).unwrap(), [4.0]);
    }
}

#[test]
fn a_guest_leaves_the_end_of_a_wait_to_the_timer() {
    let pool = pool(1);
    let model = FakeModel::builder().build();
    let waits = BatchConfig { waiting: Waiting::Fixed(Duration::from_millis(2)), ..BatchConfig::default() };
    let queue = queue(model.as_model(), waits, &pool);
    (0..40).for_each(|_| assert_eq!(ask(&queue, &[1.0]).unwrap(), [2.0]));
    let before = model.run_threads().len();
    for index in 0..100 {
        // Nobody is there to fill the batch: were the timer not set, this would wait for ever.
        let x = index as f32;
        let (guest, companion) = (queue.infer(lent(&[x])), queue.infer(lent(&[x + 0.5])));
        assert_eq!(answer(guest).unwrap(), [2.0 * x]);
        assert_eq!(answer(companion).unwrap(), [2.0 * x + 1.0]);
    }
    assert!(model.run_threads().len() > before);
}

#[test]
fn a_model_that_broke_down_once_runs_on_the_pools_threads_only() {
    let pool = pool(1);
    let (model, queue) = settled(&pool, &Gate::closed());
    lead_once(&model, &queue);
    assert_eq!(ask(&queue, &[Misbehaviour::Panic.value()]), Err(Reason::BackendBroken));
    let before = model.run_threads().len();
    (0..200).for_each(|_| assert_eq!(answer(queue.infer(lent(&[1.0]))).unwrap(), [2.0]));
    assert!(!model.run_threads()[before..].contains(&thread::current().id()));
}

#[test]
fn a_run_that_hangs_on_a_lent_thread_is_given_up_and_makes_the_pool_unhealthy() {
    let impatient = PoolConfig {
        threads: NonZeroUsize::MIN,
        hang_grace: Duration::from_millis(40),
        hang_unknown: Duration::from_millis(1),
        ..PoolConfig::default()
    };
    let (pool, hang) = (ComputePool::new(impatient), Gate::closed());
    let (model, queue) = settled(&pool, &hang);
    thread::scope(|scope| {
        let lender = scope.spawn(|| {
            lead_once(&model, &queue);
            answer(queue.infer(lent(&[Misbehaviour::Hang.value()])))
        });
        hang.wait_for(1);
        while !queue.is_quarantined() {
            thread::yield_now();
        }
        assert_eq!(ask(&queue, &[1.0]), Err(Reason::NotReady));
        let was_led = model.run_threads().last() == Some(&lender.thread().id());
        // The quarantine shows a moment before the thread is counted as lost.
        while was_led && pool.is_healthy() {
            thread::yield_now();
        }
        assert_eq!(pool.is_healthy(), !was_led);
        hang.open();
        assert_eq!(lender.join().unwrap(), Err(Reason::BackendBroken));
    });
    while !pool.is_healthy() {
        thread::yield_now();
    }
}

#[test]
fn every_request_of_many_lent_threads_is_answered_with_its_own_rows() {
    let pool = pool(2);
    let (_, queue) = settled(&pool, &Gate::closed());
    thread::scope(|scope| {
        for caller in 0..8 {
            let queue = &queue;
            scope.spawn(move || {
                for index in 0..1500 {
                    let x = (caller * 10_000 + index) as f32;
                    let futures = [x, x + 0.25, x + 0.5].map(|x| (x, queue.infer(lent(&[x]))));
                    for (place, (x, future)) in futures.into_iter().enumerate() {
                        // Every so often a caller leaves, a guest among them.
                        if index % 7 == 3 && place != 1 {
                            drop(future);
                        } else {
                            assert_eq!(answer(future).unwrap(), [2.0 * x]);
                        }
                    }
                }
            });
        }
    });
}
