//! Many threads on one session, and several threads in one run.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use millrace_core::{RunContext, Tensor, TensorList};
use millrace_testkit::Case;

use crate::support::{arranged, by_name, engine, loaded, run_with};

#[test]
fn eight_threads_run_one_model_at_once() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/digits/1");
    let cases: Vec<Case> = Case::models().into_iter().filter(|case| case.model == "digits").collect();
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for seat in 0..8 {
            let (model, cases, barrier) = (&model, &cases, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for turn in 0..50 {
                    let case = &cases[(seat + turn) % cases.len()];
                    let (inputs, _) = arranged(&**model, &case.inputs);
                    let threads = 1 + turn % 3;
                    let context = RunContext { threads, ..RunContext::plain() };
                    let answer = run_with(&**model, &[inputs], &context).unwrap();
                    case.check(by_name(&**model, &answer[0]));
                }
            });
        }
    });
}

#[test]
fn a_lone_row_with_several_threads_gets_a_session_of_them_and_the_same_answer() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/digits/1");
    assert!(model.uses_threads());
    let case = Case::models().into_iter().find(|case| case.model == "digits").unwrap();
    let (inputs, _) = arranged(&*model, &case.inputs);
    let one: TensorList = inputs.iter().map(|input| input.rows(0..1)).collect();
    let alone = run_with(&*model, std::slice::from_ref(&one), &RunContext::plain()).unwrap();
    let before = model.memory_bytes();
    let context = RunContext { threads: 2, ..RunContext::plain() };
    // The session is made beside the runs; each of them is right, whichever session it meets.
    let (mut runs, deadline) = (0_u32, Duration::from_secs(30));
    let started = clock();
    while model.memory_bytes() == before && clock() - started < deadline {
        let answer = run_with(&*model, std::slice::from_ref(&one), &context).unwrap();
        same(&answer[0], &alone[0]);
        runs += 1;
    }
    assert!(runs > 0 && model.memory_bytes() > before, "no session of two threads after {runs} runs");
    for _ in 0..5 {
        same(&run_with(&*model, std::slice::from_ref(&one), &context).unwrap()[0], &alone[0]);
    }
}

fn same(a: &[Tensor], b: &[Tensor]) {
    for (a, b) in a.iter().zip(b) {
        millrace_testkit::assert_close(a, b, 1e-5, "with more threads");
    }
}

#[expect(clippy::disallowed_methods, reason = "the test gives up after some real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn a_budget_that_holds_one_session_only_is_kept() {
    use millrace_core::Backend;
    let Some(engine) = engine() else { return };
    let mut source = millrace_testkit::fixture_source("models/digits/1");
    let bytes = engine.load(&source).unwrap().memory_bytes();
    source.memory_budget = bytes + bytes / 2;
    let model = engine.load(&source).unwrap();
    let case = Case::models().into_iter().find(|case| case.model == "digits").unwrap();
    let (inputs, _) = arranged(&*model, &case.inputs);
    let one: TensorList = inputs.iter().map(|input| input.rows(0..1)).collect();
    let context = RunContext { threads: 2, ..RunContext::plain() };
    for _ in 0..20 {
        run_with(&*model, std::slice::from_ref(&one), &context).unwrap();
    }
    assert_eq!(model.memory_bytes(), bytes);
}
