use super::{CostModel, MOST_SAMPLES, SAFE_SECONDS};

const MICRO: f64 = 1e-6;

/// Times that wobble by a tenth around `seconds`, the same ones each time.
fn wobble(seconds: f64, step: u32) -> f64 {
    seconds * (1.0 + f64::from((step * 7919) % 21) / 100.0 - 0.1)
}

/// A model that ran each size often, at about the price that `price` says.
fn trained(sizes: &[usize], price: impl Fn(usize) -> f64) -> CostModel {
    let mut cost = CostModel::new(usize::MAX);
    for step in 0..40 {
        for &rows in sizes {
            cost.observe(rows, false, wobble(price(rows), step + u32::try_from(rows).unwrap()));
        }
    }
    cost
}

fn mean(cost: &CostModel, rows: usize) -> f64 {
    cost.predict(rows, false).unwrap().mean
}

#[track_caller]
fn assert_near(got: f64, expected: f64, share: f64) {
    assert!((got - expected).abs() <= expected * share, "expected about {expected:e}, got {got:e}");
}

#[test]
fn nothing_is_predicted_before_anything_ran() {
    let cost = CostModel::new(usize::MAX);
    assert_eq!(cost.predict(1, false), None);
    assert_eq!(cost.best_rows(), usize::MAX);
    assert_eq!(cost.reach(), 1);
}

#[test]
fn a_line_is_learned_through_noise() {
    let price = |rows: usize| 3.0 * MICRO + 0.08 * MICRO * rows as f64;
    let cost = trained(&[1, 4, 16, 32], price);
    for rows in [1, 2, 8, 16, 24, 32, 64] {
        assert_near(mean(&cost, rows), price(rows), 0.15);
    }
    let line = cost.line().unwrap();
    assert!(line.is_learned);
    assert_near(line.a, 3.0 * MICRO, 0.25);
    assert!(cost.best_rows() >= 256, "{}", cost.best_rows());
    assert!(!cost.is_row_by_row());
}

#[test]
fn batches_that_lose_are_found_out() {
    // An image network whose rows cost 23 ms alone and 54 ms each in a batch.
    let price = |rows: usize| if rows == 1 { 0.023 } else { 0.04 * rows as f64 + 0.002 * (rows * rows) as f64 };
    let cost = trained(&[1, 2, 4], price);
    assert_eq!(cost.best_rows(), 1);
    assert!(cost.is_row_by_row());
    assert_near(cost.row_seconds(), 0.023, 0.15);
}

#[test]
fn rows_that_cost_the_same_in_any_batch_run_in_small_ones_without_being_called_losers() {
    let cost = trained(&[1, 2, 8, 32], |rows| 0.016 * rows as f64);
    assert!(cost.best_rows() <= 2, "{}", cost.best_rows());
    assert!(!cost.is_row_by_row());
}

#[test]
fn one_slow_run_changes_little_and_a_new_level_is_followed() {
    let mut cost = trained(&[1, 8], |rows| 10.0 * MICRO * rows as f64);
    cost.observe(8, false, 1.0);
    assert!(mean(&cost, 8) < 100.0 * MICRO, "{:e}", mean(&cost, 8));
    // The machine is five times slower from now on.
    for step in 0..40 {
        cost.observe(8, false, wobble(400.0 * MICRO, step));
    }
    assert_near(mean(&cost, 8), 400.0 * MICRO, 0.2);
}

#[test]
fn what_two_sizes_show_holds_for_all() {
    let price = |rows: usize| 1e-3 + 0.5e-3 * rows as f64;
    for factor in [2.5, 0.4] {
        let mut cost = trained(&[1, 4, 8, 16], price);
        for (step, rows) in [(0, 4), (1, 8), (2, 4), (3, 8)] {
            cost.observe(rows, false, factor * wobble(price(rows), step));
        }
        for rows in [1, 4, 8, 16] {
            assert_near(mean(&cost, rows), factor * price(rows), 0.15);
        }
    }
}

#[test]
fn what_one_size_shows_holds_for_that_alone() {
    let price = |rows: usize| 1e-3 + 0.5e-3 * rows as f64;
    let mut cost = trained(&[1, 4, 8, 16], price);
    for step in 0..8 {
        cost.observe(4, false, 2.5 * wobble(price(4), step));
    }
    assert_near(mean(&cost, 4), 2.5 * price(4), 0.15);
    assert_near(mean(&cost, 16), price(16), 0.1);
}

#[test]
fn runs_that_take_long_now_and_then_are_no_new_level() {
    let price = |rows: usize| 1e-3 + 0.5e-3 * rows as f64;
    let mut cost = trained(&[1, 4, 8, 16], price);
    // Three of four.
    for step in 0..40 {
        for (rows, factor) in [(1, 1.0), (4, 2.5), (8, 2.5), (1, 2.5)] {
            cost.observe(rows, false, factor * wobble(price(rows), step));
        }
    }
    assert_near(mean(&cost, 16), price(16), 0.1);
}

#[test]
fn a_cold_first_run_is_forgotten_at_the_second() {
    let mut cost = CostModel::new(usize::MAX);
    cost.observe(1, false, 0.5);
    cost.observe(1, false, 0.001);
    cost.observe(1, false, 0.001);
    assert_near(mean(&cost, 1), 0.001, 0.1);
}

#[test]
fn unknown_sizes_of_slow_models_are_approached_in_steps() {
    let slow = trained(&[1], |_| 0.023);
    assert_eq!(slow.reach(), 2);
    let slow = trained(&[1, 8, 16], |rows| 0.023 * rows as f64);
    assert_eq!(slow.reach(), 32);
    let quick = trained(&[1], |_| 2.0 * MICRO);
    assert!(quick.reach() > 1000);
    assert!(mean(&quick, quick.reach()) < SAFE_SECONDS);
}

#[test]
fn a_specialised_plan_has_a_price_of_its_own() {
    let mut cost = trained(&[1, 8, 9], |rows| 100.0 * MICRO * rows as f64);
    let hoped = cost.predict(8, true).unwrap().mean;
    assert!(hoped < mean(&cost, 8), "it is worth trying");
    for _ in 0..5 {
        cost.observe(8, true, 1600.0 * MICRO);
    }
    assert_near(cost.predict(8, true).unwrap().mean, 1600.0 * MICRO, 0.1);
    assert_near(mean(&cost, 9), 900.0 * MICRO, 0.2);
    cost.forget_prepared(8);
    assert!(cost.predict(8, true).unwrap().mean < 1000.0 * MICRO);
}

#[test]
fn a_prediction_is_never_nothing_or_negative() {
    // Steep enough for a line that would cut below zero.
    let cost = trained(&[8, 16], |rows| if rows == 8 { 8.0 * MICRO } else { 80.0 * MICRO });
    assert!(cost.line().unwrap().a < 0.0);
    for rows in 1..64 {
        assert!(mean(&cost, rows) > 0.0, "{rows}");
    }
}

#[test]
fn memory_is_bounded_however_many_sizes_come() {
    let mut cost = CostModel::new(usize::MAX);
    for rows in 1..100_000 {
        cost.observe(rows, rows % 3 == 0, MICRO * rows as f64);
    }
    assert!(cost.samples.len() <= MOST_SAMPLES);
    assert!(cost.predict(1, false).is_some());
}

#[test]
fn what_a_run_is_worth_undisturbed_shows_among_disturbed_ones() {
    let mut cost = trained(&[8], |_| 100.0 * MICRO);
    // Every run but one in ten loses the core for a while.
    for run in 0..200 {
        cost.observe(8, false, if run % 10 == 0 { 100.0 } else { 900.0 } * MICRO);
    }
    let prediction = cost.predict(8, false).unwrap();
    assert!(prediction.mean > 600.0 * MICRO);
    assert!(prediction.least < 150.0 * MICRO);
    // Work that has really grown is found out.
    (0..400).for_each(|_| cost.observe(8, false, 900.0 * MICRO));
    assert!(cost.predict(8, false).unwrap().least > 700.0 * MICRO);
}

/// The sizes that run one after the other where more is always queued than `size` says: `row` says what each row of a run
/// costs. The first runs are cold, and every sixth is disturbed.
fn sizes_under_pressure(
    cost: &mut CostModel,
    size: fn(&CostModel) -> usize,
    runs: usize,
    row: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let mut sizes = Vec::new();
    for run in 0..runs {
        let rows = size(cost).min(cost.reach()).min(64);
        let is_first = !sizes.contains(&rows);
        let cold = if run < 2 {
            6.0
        } else if is_first {
            1.9
        } else {
            1.0
        };
        let disturbed = if run % 6 == 5 { 1.4 } else { 1.0 };
        let seconds = wobble(row(rows) * rows as f64, u32::try_from(run + rows).unwrap());
        cost.observe(rows, false, seconds * cold * disturbed);
        sizes.push(rows);
    }
    sizes
}

#[test]
fn batches_stay_short_where_long_ones_do_not_pay() {
    // An image network on a core: 8 ms a row in any company, half a millisecond more alone.
    let sizes = sizes_under_pressure(&mut CostModel::new(usize::MAX), CostModel::brief_rows, 2000, |rows| {
        0.0079 + 0.0005 / rows as f64
    });
    assert!(sizes.iter().all(|rows| *rows <= 32), "{:?}", sizes.iter().max());
    assert!(sizes[100..].iter().all(|rows| *rows <= 6), "{:?}", sizes[100..].iter().max());
    assert!(sizes[100..].iter().filter(|rows| **rows > 4).count() < 20);
}

#[test]
fn what_a_lone_caller_taught_does_not_make_batches_long() {
    // An idle core is slow to begin: alone a row took half as long again, so the line through that says that more rows pay.
    let mut alone = trained(&[1], |_| 0.0126);
    let row = |rows: usize| 0.0079 + 0.0005 / rows as f64 + 0.0003 / (rows as f64).sqrt();
    let sizes = sizes_under_pressure(&mut alone, CostModel::brief_rows, 500, row);
    assert!(sizes.iter().all(|rows| *rows <= 16), "{:?}", sizes.iter().max());
    assert!(sizes[60..].iter().all(|rows| *rows <= 8), "{:?}", &sizes[60..]);
}

#[test]
fn batches_grow_where_that_pays_however_cold_the_first_runs_are() {
    // A text network on a core: seven, six and at last some five and a half milliseconds a row.
    let mut cost = CostModel::new(usize::MAX);
    let sizes = sizes_under_pressure(&mut cost, CostModel::best_rows, 1000, |rows| 0.0056 + 0.0015 / rows as f64);
    assert!(sizes[60..].iter().all(|rows| (3..=16).contains(rows)), "{:?}", &sizes[60..]);
    // Where somebody waits for others' rows, few of them: those save a tenth against one, and more hardly any.
    assert!((2..=4).contains(&cost.brief_rows()), "{}", cost.brief_rows());
    // A card: more rows are nearly for nothing.
    let mut cost = CostModel::new(usize::MAX);
    let sizes = sizes_under_pressure(&mut cost, CostModel::best_rows, 200, |rows| 0.0001 + 0.004 / rows as f64);
    assert!(sizes[40..].iter().all(|rows| *rows >= 48), "{:?}", &sizes[40..]);
    assert!(cost.brief_rows() >= 16, "{}", cost.brief_rows());
}

#[test]
fn a_size_that_ran_once_is_not_the_best_for_what_a_straight_line_makes_of_a_bent_curve() {
    let price = |rows: usize| 1e-3 * (1.0 + 0.4 * rows as f64 + 0.02 * (rows * rows) as f64);
    // Seven rows are the cheapest. Sixteen fit no deadline, so they never run again.
    let mut cost = trained(&[1, 2, 3, 4, 5, 6, 7, 9, 11, 13], price);
    cost.observe(16, false, price(16));
    for _ in 0..16 {
        cost.observe(13, false, price(13));
    }
    assert!((4..=9).contains(&cost.best_rows()), "{}", cost.best_rows());
}
