//! How many runs go on at once can change while requests come.

use std::sync::atomic::{AtomicBool, Ordering};

use millrace_batching::{BatchConfig, Instances};
use millrace_core::{Compute, Reason};
use millrace_testkit::{FakeModel, Gate};

use crate::harness::{Held, answer, ask, count, pool, queue, request, wait};

/// Waits until the one thread that no run holds has had its turn: whatever could have begun has begun.
fn a_job_runs(pool: &millrace_batching::ComputePool) {
    let (sender, receiver) = std::sync::mpsc::channel();
    pool.run(Box::new(move || sender.send(()).unwrap())).unwrap();
    receiver.recv().unwrap();
}

#[test]
fn more_executors_begin_at_once_and_fewer_hold_from_the_next_run_on() {
    let (pool, gate) = (pool(3), Gate::closed());
    let model = FakeModel::builder().gate(gate.clone()).build();
    let config =
        BatchConfig { instances: Instances::Exactly(count(1)), max_batch_size: count(1), ..Default::default() };
    let queue = queue(model.as_model(), config, &pool);
    assert_eq!(queue.executors(), Some(1));
    let futures: Vec<_> = (0..6).map(|_| queue.infer(request(&[1.0]))).collect();
    gate.wait_for(1);
    a_job_runs(&pool);
    assert_eq!(gate.arrived(), 1);
    queue.set_executors(2);
    gate.wait_for(2);
    a_job_runs(&pool);
    assert_eq!(gate.arrived(), 2);
    queue.set_executors(1);
    assert_eq!(queue.waiting().waiting, 4);
    gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
    assert_eq!(queue.executors(), Some(1));
}

#[test]
fn without_an_executor_everything_is_refused_until_there_is_one_again() {
    let mut held = Held::new(BatchConfig::default());
    assert_eq!(held.queue.executors(), None);
    let queued = held.queue.infer(request(&[1.0]));
    held.queue.set_executors(0);
    // What was queued is answered at once, although the worker is still held.
    assert_eq!(answer(queued), Err(Reason::NotReady));
    let refusal = wait(held.queue.infer(request(&[1.0]))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    assert!(refusal.message().contains("has no worker to serve inference request"), "{}", refusal.message());
    held.gate.open();
    assert_eq!(held.first().unwrap(), [1.0], "the run under way goes on");
    let statistics = held.queue.statistics();
    assert_eq!((statistics.answered.count, statistics.failed.count, statistics.refused), (1, 1, 1));
    held.queue.set_executors(1);
    assert_eq!(ask(&held.queue, &[1.0]).unwrap(), [2.0]);
}

#[test]
fn more_executors_than_threads_are_remembered_and_do_no_harm() {
    let pool = pool(2);
    let queue = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    queue.set_executors(1000);
    assert_eq!(queue.executors(), Some(1000));
    assert_eq!(ask(&queue, &[1.0]).unwrap(), [2.0]);
}

#[test]
fn nothing_is_lost_or_answered_twice_while_executors_change() {
    let pool = pool(3);
    let queue = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        match ask(&queue, &[1.0, 2.0]) {
                            Ok(answer) => assert_eq!(answer, [2.0, 4.0]),
                            Err(reason) => assert_eq!(reason, Reason::NotReady),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut executors = 0;
            while !stop.load(Ordering::Relaxed) {
                queue.set_executors(executors % 4);
                executors += 1;
            }
        });
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    queue.set_executors(2);
    assert_eq!(ask(&queue, &[1.0]).unwrap(), [2.0]);
    let statistics = queue.statistics();
    let ended = statistics.answered.count + statistics.failed.count + statistics.refused;
    assert_eq!(ended, 4 * 2000 + 1);
    assert_eq!(queue.waiting().waiting, 0);
}
