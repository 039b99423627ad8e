//! Poison in a batch: the one that caused it is told, its mates are answered.

use millrace_batching::BatchConfig;
use millrace_core::Reason;
use millrace_testkit::Misbehaviour;

use crate::harness::{Held, answer, ask, from_caller, request, wait};

/// Puts one poisonous request among 31 good ones into one batch.
fn poison(kind: Misbehaviour) -> (Held, Reason, String) {
    let held = Held::new(BatchConfig::default());
    let x = |index: usize| if index == 21 { kind.value() } else { index as f32 / 3.0 };
    let mut futures: Vec<_> = (0..32).map(|index| Some(held.queue.infer(request(&[x(index)])))).collect();
    held.gate.open();
    let refusal = wait(futures[21].take().unwrap()).unwrap_err();
    for (index, future) in futures.into_iter().enumerate().filter_map(|(index, future)| Some((index, future?))) {
        assert_eq!(answer(future).unwrap()[0].to_bits(), (2.0 * x(index)).to_bits(), "mate {index}");
    }
    let runs = held.later_runs();
    assert_eq!(runs[0], 32);
    assert!(runs.len() <= 1 + 2 * 5, "{runs:?}");
    let message = refusal.message().to_owned();
    assert!(message.contains("`fake`") && !message.contains("as the test asked"), "{message}");
    (held, refusal.reason(), message)
}

#[test]
fn a_panic_fails_its_request_alone_and_replaces_the_instance() {
    let (held, reason, _) = poison(Misbehaviour::Panic);
    assert_eq!(reason, Reason::BackendBroken);
    assert!(held.model.instances_made() > 1);
    assert_eq!(ask(&held.queue, &[1.0]).unwrap(), [2.0]);
    assert!(!held.queue.is_quarantined());
}

#[test]
fn a_bad_value_fails_its_request_alone() {
    let (held, reason, message) = poison(Misbehaviour::InvalidInput);
    assert_eq!(reason, Reason::InvalidInput);
    assert!(message.contains("a value is out of range"));
    assert_eq!(held.model.instances_made(), 1);
}

#[test]
fn a_backend_error_fails_its_request_alone() {
    assert_eq!(poison(Misbehaviour::Fail).1, Reason::BackendFailed);
}

#[test]
fn wrong_rows_or_dtypes_are_nobodys_answer() {
    for kind in [Misbehaviour::TooFewRows, Misbehaviour::TooManyRows, Misbehaviour::WrongDType] {
        assert_eq!(poison(kind).1, Reason::BackendBroken);
    }
}

#[test]
fn a_batch_of_nothing_but_poison_is_not_run_over_and_over() {
    let held = Held::new(BatchConfig::default());
    let bad = |_| held.queue.infer(request(&[Misbehaviour::Fail.value()]));
    let first: Vec<_> = (0..16).map(bad).collect();
    held.gate.open();
    first.into_iter().for_each(|future| assert_eq!(answer(future), Err(Reason::BackendFailed)));
    // The first time every single one is tried: some might have been good.
    assert_eq!(held.later_runs().len(), 2 * 16 - 1);
    held.gate.close();
    let arrived = held.gate.arrived();
    let holder = held.queue.infer(request(&[1.0]));
    held.gate.wait_for(arrived + 1);
    let second: Vec<_> = (0..16).map(bad).collect();
    held.gate.open();
    assert_eq!(answer(holder).unwrap(), [2.0]);
    second.into_iter().for_each(|future| assert_eq!(answer(future), Err(Reason::BackendFailed)));
    let runs = held.later_runs().len() - (2 * 16 - 1) - 1;
    assert!(runs <= 1 + 2 * 4, "{runs}");
}

#[test]
fn a_caller_that_keeps_sending_poison_soon_runs_alone() {
    let held = Held::new(BatchConfig { poison_budget: 5, ..BatchConfig::default() });
    let round = || {
        let before = held.later_runs().len();
        held.gate.close();
        let arrived = held.gate.arrived();
        let holder = held.queue.infer(request(&[1.0]));
        held.gate.wait_for(arrived + 1);
        let bad = held.queue.infer(from_caller(666, &[Misbehaviour::Fail.value()]));
        let good: Vec<_> = (0..7).map(|caller| held.queue.infer(from_caller(caller, &[1.0]))).collect();
        held.gate.open();
        good.into_iter().chain([holder]).for_each(|future| assert_eq!(answer(future).unwrap(), [2.0]));
        assert_eq!(answer(bad), Err(Reason::BackendFailed));
        held.later_runs().split_off(before)
    };
    held.gate.open();
    assert!(answer(held.queue.infer(request(&[1.0]))).is_ok());
    assert_eq!(round()[..2], [1, 8]);
    let later = round();
    assert_eq!(later.len(), 3, "{later:?}");
    assert!(later.contains(&7), "{later:?}");
}
