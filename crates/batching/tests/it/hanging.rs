//! Runs that do not end.

use std::time::Duration;

use millrace_batching::{BatchConfig, ComputePool, PoolConfig};
use millrace_core::Reason;
use millrace_testkit::{FakeModel, Gate, Misbehaviour};

use crate::harness::{answer, ask, count, queue, request, wait};

fn impatient(threads: usize, max_replacements: usize) -> ComputePool {
    ComputePool::new(PoolConfig {
        threads: count(threads),
        max_replacements,
        hang_grace: Duration::from_millis(40),
        hang_unknown: Duration::from_millis(1),
        ..PoolConfig::default()
    })
}

#[test]
fn a_hung_run_quarantines_its_version_and_others_go_on_serving() {
    let (pool, hang) = (impatient(1, 1), Gate::closed());
    let sick = queue(FakeModel::builder().hang(hang.clone()).build().as_model(), BatchConfig::default(), &pool);
    let well = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    assert_eq!(ask(&well, &[1.0]).unwrap(), [2.0]);
    let stuck = sick.infer(request(&[Misbehaviour::Hang.value()]));
    hang.wait_for(1);
    let waiting = sick.infer(request(&[1.0]));
    assert_eq!(answer(stuck), Err(Reason::BackendBroken));
    // The one thread is stuck; its replacement serves the others.
    assert_eq!(ask(&well, &[1.0]).unwrap(), [2.0]);
    assert_eq!(answer(waiting), Err(Reason::NotReady));
    let refusal = wait(sick.infer(request(&[1.0]))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    assert!(refusal.message().contains("quarantined"));
    assert!(sick.is_quarantined() && !well.is_quarantined());
    assert!(pool.is_healthy());
    assert_eq!(pool.threads(), 1);
    hang.open();
    assert_eq!(ask(&well, &[1.0]).unwrap(), [2.0]);
}

#[test]
fn too_many_hung_threads_make_the_pool_unhealthy_until_they_return() {
    let (pool, hang) = (impatient(2, 0), Gate::closed());
    let sick = queue(FakeModel::builder().hang(hang.clone()).build().as_model(), BatchConfig::default(), &pool);
    let well = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    let stuck = sick.infer(request(&[Misbehaviour::Hang.value()]));
    assert_eq!(answer(stuck), Err(Reason::BackendBroken));
    assert!(!pool.is_healthy());
    assert_eq!(pool.threads(), 1);
    assert_eq!(ask(&well, &[1.0]).unwrap(), [2.0]);
    hang.open();
    // It was not replaced, so it takes up work again.
    while !pool.is_healthy() {
        std::thread::yield_now();
    }
    assert_eq!(ask(&well, &[1.0]).unwrap(), [2.0]);
}

#[test]
fn a_hung_run_does_not_keep_the_pool_from_ending() {
    let (pool, hang) = (impatient(1, 4), Gate::closed());
    let sick = queue(FakeModel::builder().hang(hang.clone()).build().as_model(), BatchConfig::default(), &pool);
    let stuck = sick.infer(request(&[Misbehaviour::Hang.value()]));
    hang.wait_for(1);
    drop(pool);
    assert_eq!(answer(stuck), Err(Reason::BackendBroken));
    hang.open();
}
