use crate::{Cost, Effort, Fairness, Overload, Play, Process, Row, Rule, Urgency, closed_loop, play};

fn engine(name: &str) -> Cost {
    Cost::all().into_iter().find(|cost| cost.name == name).unwrap()
}

fn load(cost: Cost, share: f64, goal: f64) -> Play {
    let rate = share * cost.capacity(goal / 2.0);
    Play { cost, process: Process::Poisson, rate, count: 20_000, goal, seed: 5 }
}

#[test]
fn the_same_play_has_the_same_end() {
    let given = load(engine("noisy"), 0.9, 0.012);
    assert_eq!(play(&given, Rule::Auto), play(&given, Rule::Auto));
}

#[test]
fn one_client_never_waits() {
    for cost in Cost::all() {
        assert_eq!(closed_loop(cost, Rule::Auto, 1, 500, 1.0).wait, 0.0, "{}", cost.name);
    }
}

#[test]
fn every_process_keeps_its_rate() {
    for process in Process::ALL {
        let times = process.times(1000.0, 30_000, &mut crate::Random::new(3));
        let length = times.last().unwrap();
        assert!(times.is_sorted() && (25.0..36.0).contains(length), "{}: {length} s", process.name());
    }
}

/// Twice as much as can be done is asked: those who are answered in time are nearly as many as without the crush.
#[test]
fn too_much_load_does_not_bring_it_down() {
    for (name, least) in [("even", 0.95), ("steep (GPU)", 0.95), ("flat (CPU)", 0.9), ("convex", 0.93)] {
        let cost = engine(name);
        let goal = 8.0 * cost.plain(1);
        let outcome = play(&load(cost, 2.0, goal), Rule::Auto);
        let share = outcome.goodput / cost.capacity(goal / 2.0);
        assert!(share >= least, "{name}: {share:.3} of what the engine can do");
    }
}

/// The guard against regressions: some of the cells of the whole table, with some of the settings.
#[test]
fn auto_is_near_the_best_fixed_setting() {
    let cells = [
        ("flat (CPU)", Process::Bursts, 0.85),
        ("steep (GPU)", Process::Poisson, 2.0),
        ("even", Process::OnOff, 1.0),
        ("even", Process::Mixed, 1.3),
        ("steps of 8", Process::Poisson, 1.0),
        ("noisy", Process::Poisson, 1.0),
        ("even, 16 cores", Process::Poisson, 2.0),
    ];
    for (name, process, load) in cells {
        let row = Row::play(engine(name), process, load, 5000, 11, Effort::Few);
        let ratio = row.against_fixed().unwrap();
        assert!(ratio >= 0.95, "{name}, {} at {load}: {ratio:.3} of {:?}", process.name(), row.fixed);
    }
}

/// Engines whose loads are quick to play and that stay what they are.
fn steady() -> impl Iterator<Item = Cost> {
    Cost::all().into_iter().filter(|cost| cost.plain(1) > 1e-4 && cost.change.is_none() && cost.workers == 1)
}

#[test]
fn urgent_requests_wait_for_one_bulk_batch_at_most() {
    for cost in steady().filter(|cost| cost.capacity(4.0 * cost.plain(1)) < 3000.0) {
        let scene = Urgency::play(cost, 4.0 * cost.plain(1));
        // What an engine can do whose runs vary that much is no more than a guess.
        let least = if cost.spread < 0.1 { 0.9 } else { 0.75 };
        assert!(scene.excess() <= 0.002 && scene.throughput >= least, "{}: {scene:?}", cost.name);
    }
}

#[test]
fn a_greedy_caller_slows_down_itself() {
    for cost in steady().filter(|cost| cost.capacity(4.0 * cost.plain(1)) < 3000.0) {
        let scene = Fairness::play(cost);
        assert!(scene.ratio() <= 1.5, "{}: {scene:?}", cost.name);
    }
}

/// The same with nothing set, where rows cost about the same in any company.
#[test]
fn a_greedy_caller_slows_down_itself_with_nothing_set() {
    let scene = Fairness::play_unset(engine("flat (CPU)"));
    assert!(scene.ratio() <= 1.5, "{scene:?}");
}

#[test]
fn who_is_refused_and_comes_again_as_told_is_served() {
    for (name, times) in
        [("flat (CPU)", 10.0), ("even", 5.0), ("convex", 5.0), ("steep (GPU)", 2.0), ("flat, 16 cores", 2.0)]
    {
        let scene = Overload::play(engine(name), times);
        let is_well = scene.obeying >= 0.95 && scene.recovery < 2.0 && scene.p99 <= 1.0 && scene.goodput >= 0.95;
        assert!(is_well, "{name} at {times}: {scene:?}");
    }
}

#[test]
fn a_light_load_is_always_in_time() {
    for cost in Cost::all().into_iter().filter(|cost| cost.change.is_none() && cost.spread < 0.1) {
        let goal = (8.0 * cost.plain(1)).max(0.005);
        let outcome = play(&load(cost, 0.5, goal), Rule::Auto);
        assert!(outcome.share > 0.99, "{}: {:.3}", cost.name, outcome.share);
    }
}
