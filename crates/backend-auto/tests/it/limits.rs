//! What trying may cost.

use std::sync::OnceLock;
use std::time::Duration;

use millrace_backend_auto::Available;
use millrace_core::{Backend as _, LoadErrorKind, ModelSource, RunError};

use crate::engine::{World, choice, dropped, load, runs, serves, signature, source};

#[test]
fn the_budget_bounds_the_trial_and_small_runs_need_little_of_it() {
    // A hundred milliseconds a row: one row, a few times, and no more.
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name).cost(|rows| rows as u64 * 100_000_000));
    let model = load(&world.auto(&[&first, &second]));
    assert!(world.now() <= Duration::from_millis(2400), "{:?}", world.now());
    let choice = choice(&model);
    let rows = |engine: usize| choice.engines[engine].times.iter().map(|run| run.rows).collect::<Vec<_>>();
    assert_eq!((rows(0), rows(1)), (vec![1], vec![1]));
    // Ten seconds a row: each engine twice to compare, the first once more.
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name).cost(|_| 10_000_000_000));
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "first");
    assert!(first.log().runs.len() <= 4 && second.log().runs.len() <= 3, "{:?} {:?}", first.log(), second.log());
    // A microsecond a row: a few milliseconds in all.
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name));
    load(&world.auto(&[&first, &second]));
    assert!(world.now() < Duration::from_millis(5), "{:?}", world.now());
}

#[test]
fn without_a_budget_engines_are_compared_and_the_most_trusted_serves_unless_much_slower() {
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name));
    let model = load(&world.configured(&[&first, &second], |config| config.budget = Duration::ZERO));
    assert_eq!(serves(&model), "first");
    assert!(first.log().runs.len() <= 3, "{:?}", first.log());
}

#[test]
fn engines_that_do_not_fit_together_are_tried_in_turn() {
    let world = World::default();
    let (slow, fast) = (world.engine("slow"), world.engine("fast").cost(|_| 10));
    let source = ModelSource { memory_budget: 150, ..source() };
    let model = world.auto(&[&slow, &fast]).load(&source).unwrap();
    assert_eq!((serves(&model).as_str(), world.most_alive()), ("fast", 1));
    // Once beside the other as long as that fits, once in turn, and the winner once more to serve.
    assert_eq!((slow.log().loads, fast.log().loads), (2, 3), "{:?}", choice(&model));
    runs(&model, 4);
    drop(model);
    // One that would win some rows only does not bring the other with it.
    let many = world.engine("many").cost(|_| 6000);
    let model = world.auto(&[&slow, &many]).load(&source).unwrap();
    assert_eq!(choice(&model).ranges.len(), 1);
    assert_eq!(world.most_alive(), 1);
    // An engine that alone is too large is told like any other failure.
    let huge = world.engine("huge").memory(151);
    let model = world.auto(&[&slow, &huge]).load(&source).unwrap();
    assert_eq!(serves(&model), "slow");
    let error = world.auto(&[&huge]).load(&source).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (LoadErrorKind::TooLarge, "it does not fit"));
}

#[test]
fn without_a_memory_budget_engines_share_half_of_what_is_free() {
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name));
    let auto = |free: u64| {
        world.configured(&[&first, &second], |config| config.available = Available::new(move || Some(free)))
    };
    drop(load(&auto(400)));
    assert_eq!(world.most_alive(), 2);
    let world = World::default();
    let (slow, fast) = (world.engine("slow"), world.engine("fast").cost(|_| 10));
    let auto =
        |free: u64| world.configured(&[&slow, &fast], |config| config.available = Available::new(move || Some(free)));
    // Not even one fits into the half; whether one fits at all is for whoever loads it.
    for free in [399, 0] {
        let model = load(&auto(free));
        assert_eq!((serves(&model).as_str(), world.most_alive()), ("fast", 1), "{free}");
    }
}

#[test]
fn what_one_engine_found_about_rows_holds_in_turn_too() {
    let world = World::default();
    let careless = world.engine("careless").cost(|_| 1);
    let careful = world.engine("careful").signature(signature().unbatched()).property("not batched", "a sum");
    let cannot = world.engine("cannot").signature(signature().unbatched()).cost(|_| 1);
    let source = ModelSource { memory_budget: 150, ..source() };
    for engines in [[&careless, &careful], [&careful, &careless]] {
        let model = world.auto(&engines).load(&source).unwrap();
        assert_eq!((serves(&model).as_str(), model.signature().is_batched()), ("careful", false));
        assert!(dropped(&model, "careless").contains("a sum"), "{}", dropped(&model, "careless"));
    }
    for engines in [[&cannot, &careless], [&careless, &cannot]] {
        let model = world.auto(&engines).load(&source).unwrap();
        assert_eq!((serves(&model).as_str(), model.signature().is_batched()), ("careless", true));
        assert!(dropped(&model, "cannot").contains("does not join"), "{}", dropped(&model, "cannot"));
    }
    assert_eq!(world.most_alive(), 1);
}

#[test]
fn what_runs_nowhere_is_left_to_the_warm_up_in_turn_too() {
    let world = World::default();
    let fails = |name| world.engine(name).answer(|_| Err(RunError::Failed("broken".into())));
    let (first, second) = (fails("first"), fails("second"));
    let source = ModelSource { memory_budget: 150, ..source() };
    let model = world.auto(&[&first, &second]).load(&source).unwrap();
    assert_eq!((serves(&model).as_str(), world.most_alive()), ("first", 1));
    assert!(choice(&model).reason.contains("no engine runs it"), "{}", choice(&model).reason);
    // Where none loads, that is told.
    let huge = |name| world.engine(name).memory(151);
    let error = world.auto(&[&huge("one"), &huge("two")]).load(&source).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge);
}

#[test]
fn each_engine_answers_two_requests_whatever_the_budget() {
    let world = World::default();
    let honest = world.engine("honest").cost(|_| 3_000_000_000);
    let constant = world.engine("constant").answer(|rows| {
        // What is right for the first request, always.
        static FIRST: OnceLock<f32> = OnceLock::new();
        let first = *FIRST.get_or_init(|| rows[0][0] + 2.0 * rows[0][1]);
        Ok(vec![first; rows.len()])
    });
    assert_eq!(serves(&load(&world.auto(&[&honest, &constant.cost(|_| 1)]))), "honest");
}
