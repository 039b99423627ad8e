//! What is refused at the door, dropped in the queue, and why.

use std::time::Duration;

use millrace_batching::{BatchConfig, Oversized};
use millrace_core::{InferRequest, Progress, Reason, RequestContext, Tensor};
use millrace_testkit::{FakeModel, Misbehaviour};

use crate::harness::{Held, answer, ask, count, now, pool, queue, request, wait, within};

#[test]
fn a_deadline_that_passes_in_the_queue_is_answered_late_and_costs_no_run() {
    let mut held = Held::new(BatchConfig::default());
    let late = held.queue.infer(within(Duration::from_millis(1), &[7.0]));
    // The worker is still held: the timer answers.
    assert_eq!(answer(late), Err(Reason::Late));
    held.gate.open();
    assert_eq!(held.first().unwrap(), [1.0]);
    assert_eq!(ask(&held.queue, &[1.0]).unwrap(), [2.0]);
    assert_eq!(held.model.runs(), [1, 1]);
}

#[test]
fn a_deadline_that_has_passed_is_refused_at_the_door() {
    let pool = pool(1);
    let queue = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    let mut late = request(&[1.0]);
    late.context = RequestContext::new(now()).with_deadline(now());
    assert_eq!(answer(queue.infer(late)), Err(Reason::Late));
    assert_eq!(queue.statistics().refused, 1);
}

#[test]
fn a_refusal_says_how_far_its_request_had_come() {
    let held = Held::new(BatchConfig::default());
    let begun = now();
    let late = wait(held.queue.infer(within(Duration::from_millis(1), &[7.0]))).unwrap_err();
    assert!(matches!(late.progress(), Some(Progress::Queue { queued }) if queued >= begun), "{:?}", late.progress());
    let wrong = InferRequest { signature: 7, ..request(&[1.0]) };
    assert_eq!(wait(held.queue.infer(wrong)).unwrap_err().progress(), Some(Progress::Door));
    let poison = held.queue.infer(request(&[Misbehaviour::Fail.value()]));
    held.gate.open();
    let failed = wait(poison).unwrap_err();
    let Some(Progress::Run { queued, formed, started }) = failed.progress() else { panic!("{:?}", failed.progress()) };
    assert!(begun <= queued && queued <= formed && formed <= started && started <= now(), "{:?}", failed.progress());
}

#[test]
fn a_cancelled_request_takes_no_row() {
    let held = Held::new(BatchConfig::default());
    let kept = held.queue.infer(request(&[1.0]));
    for _ in 0..10 {
        drop(held.queue.infer(request(&[2.0, 2.0])));
    }
    let kept_too = held.queue.infer(request(&[3.0]));
    held.gate.open();
    assert_eq!(answer(kept).unwrap(), [2.0]);
    assert_eq!(answer(kept_too).unwrap(), [6.0]);
    assert_eq!(held.later_runs(), [2]);
}

#[test]
fn overload_is_answered_at_the_door_and_what_got_in_is_served() {
    let held = Held::new(BatchConfig { max_queue_rows: 100, ..BatchConfig::default() });
    let futures: Vec<_> = (0..1000).map(|_| held.queue.infer(request(&[1.0]))).collect();
    held.gate.open();
    let (mut served, mut refused) = (0, 0);
    for future in futures {
        match wait(future) {
            Ok(_) => served += 1,
            Err(refusal) => {
                assert_eq!(refusal.reason(), Reason::QueueFull);
                assert!(refusal.retry_after().is_some_and(|wait| wait > Duration::ZERO));
                let message = refusal.message();
                assert!(message.contains("`fake`") && message.contains("100 rows wait, the limit is 100"), "{message}");
                refused += 1;
            }
        }
    }
    assert_eq!((served, refused), (100, 900));
    assert_eq!(held.queue.statistics().refused, 900);
    // All that was counted was given back.
    let again: Vec<_> = (0..50).map(|_| held.queue.infer(request(&[1.0]))).collect();
    again.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let held = Held::new(BatchConfig { max_queue_bytes: 10_000, ..BatchConfig::default() });
    let large = vec![1.0; 1000];
    let futures: Vec<_> = (0..20).map(|_| held.queue.infer(request(&large))).collect();
    // A request larger than the whole budget would never get in: it is told so, not to come back.
    assert_eq!(ask(&held.queue, &vec![1.0; 3000]), Err(Reason::TooLarge));
    held.gate.open();
    let results: Vec<_> = futures.into_iter().map(answer).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(results.iter().filter(|result| **result == Err(Reason::QueueFull)).count(), 18);
}

#[test]
fn room_taken_by_callers_that_have_gone_is_given_to_new_ones() {
    let held = Held::new(BatchConfig { max_queue_rows: 10, ..BatchConfig::default() });
    for _ in 0..10 {
        drop(held.queue.infer(request(&[1.0])));
    }
    let futures: Vec<_> = (0..10).map(|_| held.queue.infer(request(&[1.0]))).collect();
    held.gate.open();
    futures.into_iter().for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
}

#[test]
fn max_enqueued_batches_counts_in_full_batches() {
    let held = Held::new(BatchConfig { max_enqueued_batches: 2, max_batch_size: count(4), ..BatchConfig::default() });
    let futures: Vec<_> = (0..10).map(|_| held.queue.infer(request(&[1.0]))).collect();
    held.gate.open();
    let refused = futures.into_iter().map(answer).filter(|result| *result == Err(Reason::QueueFull)).count();
    assert_eq!(refused, 2);
}

#[test]
fn an_oversized_task_is_refused_in_tensorflow_servings_words_where_splitting_is_off() {
    let pool = pool(1);
    let config = BatchConfig { max_batch_size: count(8), oversized: Oversized::Refuse, ..BatchConfig::default() };
    let queue = queue(FakeModel::builder().build().as_model(), config, &pool);
    let refusal = wait(queue.infer(request(&[1.0; 9]))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert_eq!(refusal.message(), "Task size 9 is larger than maximum input batch size 8");
    assert_eq!(ask(&queue, &[1.0; 8]).unwrap(), [2.0; 8]);
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_they_queue() {
    let pool = pool(1);
    let queue = queue(FakeModel::builder().build().as_model(), BatchConfig::default(), &pool);
    let mut wrong = request(&[1.0]);
    wrong.inputs[0] = Tensor::from_vec(&[1], vec![1_i32]).unwrap();
    let refusal = wait(queue.infer(wrong)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert!(refusal.message().contains("input `x`: expected FP32, got INT32"), "{}", refusal.message());
    let mut second = request(&[1.0]);
    second.signature = 1;
    assert_eq!(answer(queue.infer(second)), Err(Reason::SignatureUnknown));
}
