//! Who serves, by what was measured.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{
    Backend as _, DType, Dim, EngineOutcome, Group, ModelSource, Prepared, RunError, Samples, Signature, Tensor,
    TensorList, TensorSpec,
};
use millrace_testkit::FakeBackend;
use millrace_testkit::conformance::{self, Subject};

use crate::engine::{World, choice, load, right, run_by, runs, serves, source};

#[test]
fn the_fastest_engine_serves_and_the_others_are_let_go() {
    let world = World::default();
    let (slow, fast) = (world.engine("slow"), world.engine("fast").cost(|rows| rows as u64 * 100));
    let model = load(&world.auto(&[&slow, &fast]));
    assert_eq!(serves(&model), "fast");
    runs(&model, 3);
    assert_eq!(*fast.log().runs.last().unwrap(), 3);
    assert_eq!(model.memory_bytes(), 100);
    let choice = choice(&model);
    let outcomes: Vec<&EngineOutcome> = choice.engines.iter().map(|trial| &trial.outcome).collect();
    assert_eq!(outcomes, [&EngineOutcome::Slower, &EngineOutcome::Chosen]);
    let times = |engine: usize| {
        let times = choice.engines[engine].times.iter().map(|run| (run.rows, run.time.as_nanos()));
        times.collect::<Vec<_>>()
    };
    assert_eq!(times(0), [(1, 1000), (4, 4000), (16, 16_000), (64, 64_000)]);
    assert_eq!(times(1), [(1, 100), (4, 400), (16, 1600), (64, 6400)]);
    assert_eq!(choice.reason, "1 row: fast 0.10 µs, slow 1.00 µs; 64 rows: fast 6.40 µs, slow 64.0 µs");
    assert_eq!(choice.engines[1].difference.as_ref().unwrap().largest, 0.0);
    assert!(choice.engines[0].difference.is_none());
}

#[test]
fn of_engines_that_are_as_fast_the_more_trusted_serves() {
    let world = World::default();
    let (first, second) = (world.engine("first"), world.engine("second").cost(|rows| rows as u64 * 960));
    assert_eq!(serves(&load(&world.auto(&[&first, &second]))), "first");
    assert_eq!(serves(&load(&world.auto(&[&second, &first]))), "second");
}

#[test]
fn each_range_of_rows_is_served_by_its_fastest_engine() {
    let world = World::default();
    let single = world.engine("single");
    let many = world.engine("many").cost(|_| 6000);
    let model = load(&world.auto(&[&single, &many]));
    assert_eq!(serves(&model), "1:single 8:many");
    assert_eq!(model.memory_bytes(), 200);
    single.forget();
    many.forget();
    let mut instance = model.instance().unwrap();
    for rows in [1, 7, 8, 64, 2] {
        run_by(&mut *instance, rows);
    }
    assert_eq!((single.log().runs, many.log().runs), (vec![1, 7, 2], vec![8, 64]));
    // Each says for which sizes it is specialised; what the other serves does not count.
    assert_eq!(model.prepared(&Group::default()), Prepared::Sizes([1, 16].into_iter().collect()));
    model.prepare(&Group::default(), 16).unwrap();
}

#[test]
fn an_engine_without_a_rival_is_not_tried() {
    let world = World::default();
    let only = world.engine("only");
    let foreign = world.engine("other").refuses_to_load(millrace_core::LoadErrorKind::Foreign, "not mine");
    for engines in [vec![&only], vec![&foreign, &only]] {
        let model = load(&world.auto(&engines));
        assert_eq!(serves(&model), "only");
        assert!(only.log().runs.is_empty());
        assert_eq!(choice(&model).reason, "the only engine here that takes the files");
        assert_eq!(choice(&model).engines.len(), 1);
        assert!(choice(&model).took.is_zero());
    }
    let timed = load(&world.configured(&[&only], |config| config.times_alone = true));
    assert_eq!(choice(&timed).engines[0].times.len(), 4);
}

#[test]
fn recorded_requests_go_before_invented_ones() {
    #[derive(Debug)]
    struct Recorded;
    impl Samples for Recorded {
        fn inputs(&self, _: &Signature) -> Vec<TensorList> {
            let tensor = Tensor::from_vec(&[2, 2], vec![7.0_f32, 8.0, 9.0, 10.0]).unwrap();
            vec![[tensor].into_iter().collect()]
        }
    }
    let world = World::default();
    let engines = ["a", "b"].map(|name| world.engine(name));
    let source = ModelSource { samples: Some(Arc::new(Recorded)), ..source() };
    world.auto(&[&engines[0], &engines[1]]).load(&source).unwrap();
    for engine in &engines {
        let inputs = engine.log().inputs;
        assert!(!inputs.is_empty() && inputs.iter().all(|row| [[7.0, 8.0], [9.0, 10.0]].contains(row)), "{inputs:?}");
    }
}

#[test]
fn where_varied_data_is_refused_tamer_data_is_used() {
    let world = World::default();
    let tame = |rows: &[[f32; 2]]| {
        if rows.iter().flatten().any(|value| !(0.0..=1.0).contains(value)) {
            return Err(RunError::InvalidInput("out of range".to_owned()));
        }
        right(rows)
    };
    let (first, second) = (world.engine("first").answer(tame), world.engine("second").answer(tame).cost(|_| 10));
    assert_eq!(serves(&load(&world.auto(&[&first, &second]))), "second");
    // Data on which nothing runs proves nothing.
    let picky = |_: &[[f32; 2]]| Err(RunError::InvalidInput("nothing is right".to_owned()));
    let (first, second) = (world.engine("first").answer(picky), world.engine("second").cost(|_| 10));
    let model = load(&world.auto(&[&first, &second]));
    assert_eq!(serves(&model), "first");
    assert!(choice(&model).reason.contains("nothing could be compared"), "{}", choice(&model).reason);
}

/// `x` FP32 `[N,S,2]`, whose rows are not independent, and `y` with a number for each pair.
fn pairs() -> Signature {
    let x = TensorSpec::new("x", DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("S"), Dim::Fixed(2)]);
    Signature::new(vec![x], vec![TensorSpec::new("y", DType::Fp32, vec![Dim::Unknown])]).unwrap().unbatched()
}

#[test]
fn a_model_whose_rows_are_joined_is_tried_with_few_and_with_the_length_that_it_runs() {
    let short = |rows: &[[f32; 2]]| {
        if rows.len() > 40 {
            return Err(RunError::Failed("too many positions".into()));
        }
        right(rows)
    };
    let world = World::default();
    let engine = |name| world.engine(name).signature(pairs());
    let (first, second) = (engine("first").answer(short), engine("second").answer(short).cost(|_| 10));
    assert_eq!(serves(&load(&world.auto(&[&first, &second]))), "second");
    assert!(second.log().runs.iter().all(|pairs| *pairs == 2 * 8), "{:?}", second.log().runs);
    // Where runs grow long with the square of the length, the length stays small, and the whole within the budget.
    let world = World::default();
    let engine = |name| world.engine(name).signature(pairs()).cost(|pairs| (pairs * pairs) as u64 * 100_000);
    let (first, second) = (engine("first"), engine("second"));
    load(&world.auto(&[&first, &second]));
    assert!(second.log().runs.iter().all(|pairs| *pairs == 2 * 8), "{:?}", second.log().runs);
    assert_eq!(first.log().runs.iter().max(), Some(&64));
    assert!(world.now() <= Duration::from_secs(2), "{:?}", world.now());
}

#[test]
fn data_to_which_the_answer_is_no_number_proves_nothing() {
    fn inside(rows: &[[f32; 2]], factor: f32) -> Vec<f32> {
        let is_inside = |row: &[f32; 2]| row.iter().all(|value| (0.0..1.0).contains(value));
        rows.iter().map(|row| if is_inside(row) { row[0] + factor * row[1] } else { f32::NAN }).collect()
    }
    let world = World::default();
    let honest = world.engine("honest").answer(|rows| Ok(inside(rows, 2.0)));
    let wrong = world.engine("wrong").answer(|rows| Ok(inside(rows, 2.1))).cost(|_| 1);
    let model = load(&world.auto(&[&honest, &wrong]));
    assert_eq!(serves(&model), "honest");
    let timed = honest.log().inputs;
    assert!(timed[timed.len() - 64..].iter().flatten().all(|value| (0.0..1.0).contains(value)), "{timed:?}");
    // Where all data is so, the first is as good as any other.
    let never = |rows: &[[f32; 2]]| Ok(vec![f32::NAN; rows.len()]);
    let (first, second) = (world.engine("first").answer(never), world.engine("second").answer(never).cost(|_| 1));
    assert_eq!(serves(&load(&world.auto(&[&first, &second]))), "second");
    let zeros = second.log().inputs.iter().filter(|row| **row == [0.0, 0.0]).count();
    assert_eq!(zeros, 0);
}

#[test]
fn trying_whether_requests_are_taken_has_its_share_of_the_budget() {
    let world = World::default();
    let [first, second] = ["first", "second"].map(|name| world.engine(name).cost(|rows| rows as u64 * 120_000_000));
    load(&world.auto(&[&first, &second]));
    // Two hundred milliseconds are over after three; then each answers one by one, and is timed.
    assert!(world.now() <= Duration::from_millis(2600), "{:?}", world.now());
    let before = first.log().runs.len() - second.log().runs.len();
    assert_eq!(before, 3, "{:?}", first.log().runs);
}

#[test]
fn options_go_to_the_engine_that_they_name() {
    let world = World::default();
    let engines = ["a", "b"].map(|name| world.engine(name));
    let mut source = source();
    for key in ["all", "a.own", "b.own"] {
        source.options.insert(key.to_owned(), key.to_owned());
    }
    world.auto(&[&engines[0], &engines[1]]).load(&source).unwrap();
    let options = |engine: usize| engines[engine].log().options.into_iter().collect::<Vec<_>>();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(options(0), [pair("all", "all"), pair("own", "a.own")]);
    assert_eq!(options(1), [pair("all", "all"), pair("own", "b.own")]);
}

/// Whatever holds for an engine holds for a choice among engines.
#[test]
fn conforms() {
    let subject = || {
        let files = millrace_core::MemoryFiles::default().with("model.fake", FakeBackend::file(0.5, 2.0));
        let source = ModelSource::new("half_plus_two".parse().unwrap(), 1, Arc::new(files));
        let x = Tensor::from_vec(&[3], vec![1.0_f32, 2.0, 5.0]).unwrap();
        let y = Tensor::from_vec(&[3], vec![2.5_f32, 3.0, 4.5]).unwrap();
        Subject::new(source).case([("x", x)], [("y", y)], 1e-6)
    };
    let bad = ModelSource::new("bad".parse().unwrap(), 1, Arc::new(millrace_core::MemoryFiles::default()));
    let engine = || Arc::new(FakeBackend::default()) as Arc<dyn millrace_core::Backend>;
    let auto =
        millrace_backend_auto::AutoBackend::new(vec![engine(), engine()], millrace_backend_auto::AutoConfig::default());
    conformance::run(&auto, &[subject()], &[bad], &[]);
}
