//! Requests that are announced before their inputs are there.

use std::time::Duration;

use millrace_batching::BatchConfig;
use millrace_core::{Priority, Reason};

use crate::harness::{Held, answer, now, request, within};

#[test]
fn whoever_comes_to_a_full_queue_is_told_before_its_inputs_are_there() {
    let held = Held::new(BatchConfig { max_queue_rows: 2, ..BatchConfig::default() });
    let context = request(&[1.0]).context;
    // Those who only announced themselves take nobody's place.
    let places: Vec<_> = (0..10).map(|_| held.queue.knock(&context, 1).unwrap()).collect();
    let waiting = [held.queue.infer(request(&[1.0])), held.queue.infer(request(&[2.0]))];
    let refusal = held.queue.knock(&context, 1).unwrap_err();
    assert_eq!(refusal.reason(), Reason::QueueFull);
    assert!(refusal.retry_after().is_some_and(|wait| wait > Duration::ZERO), "{}", refusal.message());
    assert_eq!(held.queue.statistics().refused, 1);
    drop(places);
    held.gate.open();
    waiting.into_iter().for_each(|future| assert!(answer(future).is_ok()));
    assert!(held.queue.knock(&context, 1).is_ok());
    assert_eq!(held.queue.statistics().refused, 1);
}

#[test]
fn a_closed_queue_and_a_deadline_that_is_over_are_told_before_the_inputs_are_there() {
    let held = Held::new(BatchConfig::default());
    let late = within(Duration::ZERO, &[1.0]).context;
    assert_eq!(held.queue.knock(&late, 1).unwrap_err().reason(), Reason::Late);
    held.queue.set_executors(0);
    assert_eq!(held.queue.knock(&request(&[1.0]).context, 1).unwrap_err().reason(), Reason::NotReady);
    held.queue.close();
    assert_eq!(held.queue.knock(&request(&[1.0]).context, 1).unwrap_err().reason(), Reason::Draining);
    held.gate.open();
}

#[test]
fn as_many_are_let_come_as_can_be_in_time_once_run_times_are_known() {
    let mut held = Held::new(BatchConfig::default());
    held.gate.open();
    held.first().unwrap();
    for _ in 0..50 {
        answer(held.queue.infer(request(&[1.0]))).unwrap();
    }
    held.gate.close();
    let patience = Duration::from_millis(20);
    let mut context = request(&[1.0]).context;
    context.deadline = Some(now() + patience);
    // Each run takes some microseconds, so that thousands fit, but not any number.
    let mut places = Vec::new();
    let refusal = loop {
        context.deadline = Some(now() + patience);
        match held.queue.knock(&context, 1) {
            Ok(place) => places.push(place),
            Err(refusal) => break refusal,
        }
        assert!(places.len() < 10_000_000);
    };
    assert!(refusal.message().contains("are still arriving"), "{}", refusal.message());
    // An urgent one is no other before its body is read, and nobody's place is kept for longer than it is wanted.
    context.priority = Priority(0);
    assert!(held.queue.knock(&context, 1).is_err());
    drop(places);
    context.deadline = Some(now() + patience);
    assert!(held.queue.knock(&context, 1).is_ok());
    held.gate.open();
}
