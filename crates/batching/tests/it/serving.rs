//! Answers, batches, fairness, shutdown.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_batching::{BatchConfig, Instances, Waiting};
use millrace_core::{ClosedBy, Compute, Priority, Reason, Wanted};
use millrace_testkit::{FakeModel, Gate};

use crate::harness::{Held, answer, ask, count, from_caller, pool, queue, request, wait, within};

#[test]
fn a_request_is_answered_with_stages_that_follow_each_other() {
    let pool = pool(2);
    let queue = queue(FakeModel::builder().affine(0.5, 2.0).build().as_model(), BatchConfig::default(), &pool);
    let response = wait(queue.infer(request(&[1.0, 2.0, 5.0]))).unwrap();
    assert_eq!(crate::harness::values(&response), [2.5, 3.0, 4.5]);
    let stages = response.stages;
    assert!(stages.queued <= stages.formed && stages.formed <= stages.started && stages.started <= stages.finished);
    assert_eq!((stages.batch_rows, stages.padding, stages.requests, stages.ahead), (3, 0, 1, 0));
    // Nobody knows yet what a row costs, so nothing rides with the first.
    assert_eq!(stages.closed_by, Some(ClosedBy::Full));
    let statistics = queue.statistics();
    assert_eq!((statistics.answered.count, statistics.refused, statistics.rows), (1, 0, 3));
    assert_eq!(statistics.all_runs().count, 1);
}

#[test]
fn what_queued_up_while_the_worker_was_busy_rides_together() {
    let mut held = Held::new(BatchConfig::default());
    let futures: Vec<_> = (0..32_u8).map(|x| held.queue.infer(request(&[f32::from(x)]))).collect();
    held.gate.open();
    for (x, future) in futures.into_iter().enumerate() {
        let response = wait(future).unwrap();
        assert_eq!(crate::harness::values(&response), [2.0 * x as f32]);
        // Each knows its batch and how many had come before it.
        let stages = response.stages;
        assert_eq!((stages.batch_rows, stages.requests, stages.ahead), (32, 32, x));
        assert_eq!(stages.closed_by, Some(ClosedBy::Drained));
    }
    assert_eq!(held.first().unwrap(), [1.0]);
    assert_eq!(held.later_runs(), [32]);
}

#[test]
fn without_batching_every_request_runs_alone() {
    let held = Held::new(BatchConfig { enabled: false, ..BatchConfig::default() });
    let futures: Vec<_> = (0..5).map(|_| held.queue.infer(request(&[1.0]))).collect();
    held.gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
    assert_eq!(held.later_runs(), [1; 5]);
}

#[test]
fn a_model_without_a_batch_axis_runs_its_requests_one_by_one() {
    let (pool, gate) = (pool(1), Gate::closed());
    let model = FakeModel::builder().unbatched().gate(gate.clone()).build();
    let queue = queue(model.as_model(), BatchConfig::default(), &pool);
    let futures: Vec<_> = (0..4).map(|_| queue.infer(request(&[1.0, 2.0]))).collect();
    gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0, 4.0]));
    assert_eq!(model.runs(), [1; 4]);
}

#[test]
fn only_wanted_outputs_come_back() {
    let pool = pool(1);
    let queue = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    let mut one = request(&[1.0]);
    one.wanted = Wanted::Only([0, 0].into_iter().collect());
    assert_eq!(wait(queue.infer(one)).unwrap().outputs.len(), 2);
    let mut unknown = request(&[1.0]);
    unknown.wanted = Wanted::Only([1].into_iter().collect());
    assert_eq!(wait(queue.infer(unknown)).unwrap_err().reason(), Reason::InvalidInput);
}

#[test]
fn two_callers_take_turns_however_much_one_has_queued() {
    let config =
        BatchConfig { max_batch_size: count(4), waiting: Waiting::Fixed(Duration::ZERO), ..Default::default() };
    let held = Held::new(config);
    let greedy: Vec<_> = (0..40).map(|_| held.queue.infer(from_caller(1, &[1.0]))).collect();
    let modest: Vec<_> = (0..4).map(|_| held.queue.infer(from_caller(2, &[2.0]))).collect();
    held.gate.open();
    // Runs of four take two of each: the modest caller is done after two runs.
    let last = modest.into_iter().map(|future| wait(future).unwrap().stages.finished).max().unwrap();
    let before = greedy.into_iter().map(|future| wait(future).unwrap().stages.finished);
    let ahead = before.filter(|finished| *finished <= last).count();
    assert_eq!(ahead, 4);
}

#[test]
fn an_urgent_request_overtakes() {
    let config = BatchConfig { max_batch_size: count(1), ..BatchConfig::default() };
    let held = Held::new(config);
    let plain: Vec<_> = (0..4).map(|_| held.queue.infer(request(&[1.0]))).collect();
    let mut urgent = request(&[2.0]);
    urgent.context.priority = Priority(1);
    let urgent = held.queue.infer(urgent);
    held.gate.open();
    let urgent = wait(urgent).unwrap().stages.finished;
    assert!(plain.into_iter().all(|future| wait(future).unwrap().stages.finished > urgent));
}

#[test]
fn two_models_share_the_threads() {
    let (pool, gate) = (pool(1), Gate::closed());
    let config = BatchConfig { max_batch_size: count(1), ..BatchConfig::default() };
    let flooded = queue(FakeModel::builder().gate(gate.clone()).build().as_model(), config.clone(), &pool);
    let quiet = queue(FakeModel::builder().build().as_model(), config, &pool);
    let flood: Vec<_> = (0..50).map(|_| flooded.infer(request(&[1.0]))).collect();
    gate.wait_for(1);
    let one = quiet.infer(request(&[3.0]));
    gate.open();
    let finished = wait(one).unwrap().stages.finished;
    let ahead = flood.into_iter().map(|future| wait(future).unwrap().stages.finished);
    // The run that was under way, and perhaps one more where the two tie.
    assert!(ahead.filter(|other| *other < finished).count() <= 2);
}

#[test]
fn a_closed_queue_finishes_what_it_has() {
    let held = Held::new(BatchConfig::default());
    let queued = held.queue.infer(request(&[4.0]));
    held.queue.close();
    assert_eq!(ask(&held.queue, &[1.0]), Err(Reason::Draining));
    held.gate.open();
    assert_eq!(answer(queued).unwrap(), [8.0]);
}

#[test]
fn dropping_the_last_handle_still_answers_what_is_queued() {
    let held = Held::new(BatchConfig::default());
    let queued = held.queue.infer(request(&[4.0]));
    drop(held.queue);
    held.gate.open();
    assert_eq!(answer(queued).unwrap(), [8.0]);
}

#[test]
fn dropping_the_pool_answers_everything_and_ends_the_threads() {
    let mut held = Held::new(BatchConfig::default());
    let queued: Vec<_> = (0..10).map(|_| held.queue.infer(request(&[4.0]))).collect();
    let (gate, pool) = (held.gate.clone(), held.pool.take());
    let dropper = std::thread::spawn(move || drop(pool));
    for future in queued {
        assert_eq!(answer(future), Err(Reason::Draining));
    }
    gate.open();
    dropper.join().unwrap();
    assert_eq!(held.first().unwrap(), [1.0]);
    assert_eq!(ask(&held.queue, &[1.0]), Err(Reason::Draining));
}

#[test]
fn jobs_run_on_the_compute_threads_and_their_panics_stay_there() {
    let pool = pool(1);
    let (sender, receiver) = std::sync::mpsc::channel();
    pool.run(Box::new(|| panic!("as the test asked"))).unwrap();
    let job = move || sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
    pool.run(Box::new(job)).unwrap();
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("millrace-compute-0"));
    assert!(pool.is_healthy());
}

#[test]
fn jobs_are_bounded() {
    let config = millrace_batching::PoolConfig { threads: count(1), max_jobs: 2, ..Default::default() };
    let (pool, gate) = (millrace_batching::ComputePool::new(config), Gate::closed());
    let held = gate.clone();
    pool.run(Box::new(move || held.pass())).unwrap();
    gate.wait_for(1);
    pool.run(Box::new(|| {})).unwrap();
    pool.run(Box::new(|| {})).unwrap();
    let refusal = pool.run(Box::new(|| {})).unwrap_err();
    assert_eq!(refusal.reason(), Reason::QueueFull);
    gate.open();
}

#[test]
fn every_request_of_many_threads_is_answered_once_with_its_own_rows() {
    const THREADS: u16 = 8;
    const REQUESTS: u16 = 1500;
    let pool = pool(4);
    let queue = queue(FakeModel::builder().affine(2.0, 1.0).build().as_model(), BatchConfig::default(), &pool);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (queue, answered) = (&queue, &answered);
            scope.spawn(move || {
                let mut futures = Vec::new();
                for index in 0..REQUESTS {
                    let rows = usize::from(index % 5) + 1;
                    let x: Vec<f32> =
                        (0..rows).map(|row| f32::from(thread) * 1e5 + f32::from(index) * 8.0 + row as f32).collect();
                    let mut asked = from_caller(u64::from(thread), &x);
                    asked.context.deadline = Some(asked.context.received + Duration::from_secs(60));
                    futures.push((queue.infer(asked), x));
                    if futures.len() == 16 {
                        for (future, x) in futures.drain(..) {
                            let expected: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
                            assert_eq!(answer(future).unwrap(), expected);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                for (future, x) in futures {
                    let expected: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
                    assert_eq!(answer(future).unwrap(), expected);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let total = u64::from(THREADS) * u64::from(REQUESTS);
    assert_eq!(answered.load(Ordering::Relaxed) as u64, total);
    let statistics = queue.statistics();
    assert_eq!((statistics.answered.count, statistics.failed.count, statistics.refused), (total, 0, 0));
    assert_eq!(statistics.rows, statistics.all_runs().rows, "nothing was padded");
}

#[test]
fn as_many_runs_go_on_at_once_as_the_operator_said() {
    let (pool, gate) = (pool(3), Gate::closed());
    let model = FakeModel::builder().gate(gate.clone()).build();
    let config =
        BatchConfig { instances: Instances::Exactly(count(2)), max_batch_size: count(1), ..Default::default() };
    let queue = queue(model.as_model(), config, &pool);
    let futures: Vec<_> = (0..6).map(|_| queue.infer(request(&[1.0]))).collect();
    gate.wait_for(2);
    // A job gets the third thread: it would not, were it held at the gate.
    let (sender, receiver) = std::sync::mpsc::channel();
    pool.run(Box::new(move || sender.send(()).unwrap())).unwrap();
    receiver.recv().unwrap();
    assert_eq!(gate.arrived(), 2);
    gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
    assert!(model.instances_made() <= 2);
}

#[test]
fn a_fixed_timeout_is_kept_and_ends_early_when_the_batch_is_full() {
    let pool = pool(1);
    let model = FakeModel::builder().build();
    let config = BatchConfig {
        max_batch_size: count(4),
        waiting: Waiting::Fixed(Duration::from_secs(3600)),
        ..BatchConfig::default()
    };
    let queue = queue(model.as_model(), config, &pool);
    let futures: Vec<_> = (0..4).map(|_| queue.infer(request(&[1.0]))).collect();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
    assert_eq!(model.runs(), [4]);
    // A deadline ends the waiting too: nobody is left to be late for company's sake.
    let near = queue.infer(within(Duration::from_millis(200), &[1.0]));
    assert_eq!(answer(near).unwrap(), [2.0]);
}

#[test]
fn statistics_tell_runs_by_their_size_and_requests_by_their_end() {
    let mut held = Held::new(BatchConfig::default());
    let mut futures: Vec<_> = (0..5).map(|_| held.queue.infer(request(&[1.0, 2.0]))).collect();
    let late = held.queue.infer(within(Duration::from_millis(1), &[7.0]));
    assert_eq!(answer(late), Err(Reason::Late));
    let mut wrong = request(&[1.0]);
    wrong.inputs.clear();
    assert_eq!(answer(held.queue.infer(wrong)), Err(Reason::InvalidInput));
    drop(futures.pop());
    held.gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0, 4.0]));
    held.first().unwrap();
    // Only the end of the answering is counted after the answers; the pool's end waits for it.
    drop(held.pool.take());
    let statistics = held.queue.statistics();
    let sizes: Vec<_> = statistics.runs.iter().map(|run| (run.rows, run.count)).collect();
    assert_eq!(sizes, [(1, 1), (8, 1)]);
    assert_eq!((statistics.answered.count, statistics.rows), (5, 9));
    // One was late and one went away; the wrong one was never queued.
    assert_eq!((statistics.failed.count, statistics.refused), (2, 1));
    assert!(statistics.failed.time >= Duration::from_millis(1));
    assert_eq!(statistics.queue.count, 5);
    assert!(statistics.runs.iter().all(|run| run.compute > Duration::ZERO && run.scatter > Duration::ZERO));
    let run = statistics.all_runs();
    assert!(statistics.answered.time >= statistics.queue.time + run.gather);
    assert!(statistics.last_answer.is_some());
}
