use crate::{Cost, Play, Process, Rule, closed_loop, play};

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
    for (name, least) in [("even", 0.8), ("steep (GPU)", 0.65), ("flat (CPU)", 0.85), ("convex", 0.8)] {
        let cost = engine(name);
        let goal = 8.0 * cost.plain(1);
        let outcome = play(&load(cost, 2.0, goal), Rule::Auto);
        let share = outcome.goodput / cost.capacity(goal / 2.0);
        assert!(share >= least, "{name}: {share:.3} of what the engine can do");
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
