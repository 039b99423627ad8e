//! What trying may cost.

use std::time::Duration;

use millrace_core::{Backend as _, LoadErrorKind, ModelSource};

use crate::engine::{World, choice, load, runs, serves, source};

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
    // Ten seconds a row: each engine once to compare, and once more.
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name).cost(|_| 10_000_000_000));
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "first");
    assert!(first.log().runs.len() <= 3 && second.log().runs.len() <= 2, "{:?} {:?}", first.log(), second.log());
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
