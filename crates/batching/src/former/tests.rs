use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use millrace_core::{CallerId, ClosedBy, Group, Prepared, Priority};

use super::{Arrival, BatchFormer, Decision, Dropped, Formed, FormerConfig};
use crate::{Sizes, Waiting, clock};

mod deadlines;
mod plain;
mod properties;

pub(super) fn config(max_rows: usize, waiting: Waiting) -> FormerConfig {
    FormerConfig {
        is_batched: true,
        is_mixed: false,
        max_rows,
        max_work: max_rows,
        waiting,
        sizes: Sizes::Learned,
        max_groups: 8,
        workers: 1,
    }
}

pub(super) fn group(size: usize) -> Group {
    Group([size].into_iter().collect())
}

pub(super) fn arrival(group: &Group, rows: usize) -> Arrival<'_> {
    Arrival {
        group,
        rows,
        work: rows,
        bytes: 4 * rows,
        caller: CallerId(0),
        priority: Priority::default(),
        deadline: None,
        is_alone: false,
    }
}

pub(super) fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

pub(super) fn take<T>(former: &mut BatchFormer<T>, now: Instant) -> Decision<T> {
    former.take(now, &mut |_| false, &mut Vec::new())
}

pub(super) fn run<T>(former: &mut BatchFormer<T>, now: Instant) -> Formed<T> {
    match take(former, now) {
        Decision::Run(formed) => formed,
        Decision::Ask(at) => panic!("waits for {:?}", at.saturating_duration_since(now)),
        Decision::Empty => panic!("is empty"),
    }
}

/// Teaches the former what runs of group 0 cost.
pub(super) fn teach(
    former: &mut BatchFormer<usize>,
    sizes: &[usize],
    mut price: impl FnMut(usize) -> Duration,
    now: Instant,
) {
    let known = group(0);
    for _ in 0..20 {
        for &rows in sizes {
            former.push(0, arrival(&known, 1), now);
            let formed = run(former, now);
            former.observe(formed.key, rows, price(rows));
            former.complete(formed.key);
        }
    }
}

/// Arrivals `ms:name*rows`, departures `ms:names`, with a worker that is always idle. `timeout` in ms; 0 never waits.
#[track_caller]
fn check(max_rows: usize, timeout: u64, arrivals: &str, departures: &str) {
    let (mut former, start) = (BatchFormer::new(config(max_rows, Waiting::Fixed(ms(timeout)))), clock::now());
    let only = group(0);
    let mut script: Vec<(u64, &str, usize)> = Vec::new();
    for word in arrivals.split(' ') {
        let (at, rest) = word.split_once(':').unwrap();
        let (name, rows) = rest.split_once('*').unwrap();
        script.push((at.parse().unwrap(), name, rows.parse().unwrap()));
    }
    let mut seen = Vec::new();
    for at in 0..=50 {
        let now = start + ms(at);
        for &(_, name, rows) in script.iter().filter(|(due, ..)| *due == at) {
            former.push(name, arrival(&only, rows), now);
        }
        while let Decision::Run(formed) = take(&mut former, now) {
            let names: Vec<_> = formed.items.iter().map(|(name, _)| *name).collect();
            seen.push(format!("{at}:{}", names.join("+")));
        }
    }
    assert_eq!(seen.join(" "), departures);
}

#[test]
fn without_a_timeout_nothing_waits() {
    check(4, 0, "0:a*1 1:b*1 1:c*1", "0:a 1:b+c");
}

#[test]
fn a_full_batch_leaves_at_once() {
    check(4, 5, "0:a*2 1:b*2 2:c*1", "1:a+b 7:c");
}

#[test]
fn a_timeout_counts_from_the_oldest() {
    check(8, 5, "0:a*1 4:b*1 6:c*1", "5:a+b 11:c");
}

#[test]
fn what_does_not_fit_goes_next() {
    check(4, 0, "0:a*3 0:b*3 0:c*1", "0:a 0:b+c");
}

#[test]
fn an_oversized_item_goes_alone() {
    check(4, 0, "0:a*1 0:b*9 0:c*1", "0:a 0:b 0:c");
}

#[test]
fn a_caller_that_goes_between_two_looks_does_not_hide_the_others() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(4, Waiting::Learned));
    former.push("goes", arrival(&group(0), 1), now);
    former.push("stays", arrival(&group(1), 1), now);
    let mut looks = 0;
    let mut is_gone = |item: &&str| {
        looks += usize::from(*item == "goes");
        *item == "goes" && looks > 1
    };
    let mut dropped = Vec::new();
    let Decision::Run(formed) = former.take(now, &mut is_gone, &mut dropped) else { panic!("one stays") };
    assert_eq!(formed.items, [("stays", 1)]);
    assert_eq!(dropped, [Dropped::Gone("goes")]);
}

#[test]
fn a_batch_takes_no_more_than_can_finish_before_the_earliest_deadline() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(64, Waiting::Fixed(Duration::ZERO)));
    teach(&mut former, &[1, 4, 16, 64], |rows| ms(10 * rows as u64), now);
    let only = group(0);
    for item in 0..20 {
        let deadline = Some(now + ms(100));
        former.push(item, Arrival { deadline, ..arrival(&only, 1) }, now);
    }
    let formed = run(&mut former, now);
    assert_eq!(formed.closed_by, ClosedBy::Deadline);
    assert!((3..=9).contains(&formed.rows), "{}", formed.rows);
    assert_eq!(formed.deadline, Some(now + ms(100)));
}

#[test]
fn a_model_whose_batches_lose_gets_one_row_at_a_time() {
    let now = clock::now();
    let mut former = BatchFormer::new(FormerConfig { workers: 4, ..config(1024, Waiting::Learned) });
    teach(&mut former, &[1, 2, 4], |rows| if rows == 1 { ms(23) } else { ms(50 * rows as u64) }, now);
    let only = group(0);
    for item in 0..3 {
        former.push(item, arrival(&only, 1), now);
    }
    for item in 0..3 {
        let formed = run(&mut former, now);
        assert_eq!((formed.items, formed.padding), (vec![(item, 1)], 0));
    }
    // Many rows at once: shared among the workers, and each share run row by row.
    assert_eq!(former.piece_rows(&only, 16, 16), 4);
    former.push(9, arrival(&only, 4), now);
    let formed = run(&mut former, now);
    assert_eq!((formed.rows, formed.run_rows), (4, 1));
    assert!(former.learned()[0].is_row_by_row);
}

#[test]
fn what_once_lost_is_tried_again_now_and_then() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut former, &[1, 2, 4], |rows| if rows == 1 { ms(23) } else { ms(50 * rows as u64) }, now);
    let only = group(0);
    let mut sizes = Vec::new();
    for item in 0..2000 {
        former.push(item, arrival(&only, 1), now);
        former.push(item, arrival(&only, 1), now);
        sizes.push(run(&mut former, now).rows);
    }
    // Never more than twice as many, for these take long.
    let tried = sizes.iter().filter(|rows| **rows > 1).count();
    assert!((1..=8).contains(&tried) && sizes.iter().all(|rows| *rows <= 2), "{tried}");
}

/// The modest caller's item.
const MODEST: usize = usize::MAX;

/// Batches of an engine that somebody keeps busy with so many rows, to be answered `within`; before each, somebody else asks for one row if `others` says so.
/// Returns the rows of each, and whether the other's was among them.
fn beside_a_greedy_one(
    rows: usize,
    within: Option<Duration>,
    price: impl Fn(usize) -> Duration,
    others: &[bool],
) -> Vec<(usize, bool)> {
    let (now, only) = (clock::now(), group(0));
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut former, &[1, 2, 4, 8, 16, 32, 64, 128], price, now);
    let deadline = within.map(|within| now + within);
    for item in 0..rows {
        former.push(item, Arrival { deadline, ..arrival(&only, 1) }, now);
    }
    let give = |asks: &bool| {
        if *asks {
            former.push(MODEST, Arrival { caller: CallerId(1), ..arrival(&only, 1) }, now);
        }
        let formed = run(&mut former, now);
        former.complete(formed.key);
        (formed.rows, formed.items.iter().any(|(item, _)| *item == MODEST))
    };
    others.iter().map(give).collect()
}

#[test]
fn a_modest_caller_leads_the_next_batch_and_it_is_no_longer_than_saves_much() {
    // A row takes 1.5 ms, and in large batches a third of that.
    let price = |rows: usize| Duration::from_micros(1000 + 500 * rows as u64);
    let batches = beside_a_greedy_one(1000, None, price, &[false, true, false, false]);
    let [alone, own, next, _] = batches[..] else { panic!("{batches:?}") };
    assert!(alone.0 >= 32 && !alone.1, "{batches:?}");
    assert!((2..=8).contains(&own.0) && own.1, "{batches:?}");
    // Those that follow may be met by its next request: they must save a tenth.
    assert!(next.0 > own.0 && next.0 <= alone.0 / 2 && !next.1, "{batches:?}");
}

#[test]
fn batches_that_save_little_are_short_while_modest_callers_are_about_and_as_ever_when_they_are_gone() {
    // Eight rows together save a twentieth.
    let price = |rows: usize| Duration::from_micros(if rows < 8 { 10_000 } else { 9_500 } * rows as u64);
    let mut others = vec![false; 70];
    others[1] = true;
    let batches = beside_a_greedy_one(1000, None, price, &others);
    assert_eq!((batches[0].0, batches[1]), (8, (1, true)), "{batches:?}");
    assert!(batches[2..60].iter().all(|(rows, _)| *rows == 2), "{batches:?}");
    assert_eq!(batches[69].0, 8, "{batches:?}");
    // The work of ten seconds, to be done within thirty: somebody may be lost by a row that runs alone.
    let pressed = beside_a_greedy_one(1000, Some(ms(30_000)), price, &others);
    assert_eq!((pressed[0].0, pressed[1]), (8, (2, true)), "{pressed:?}");
}

#[test]
fn a_goal_is_used_up_where_runs_are_not_on_a_line() {
    let now = clock::now();
    let goal = Waiting::LearnedWithin(ms(100));
    let mut former = BatchFormer::new(config(1024, goal));
    // Larger runs lose: the line through them says that more rows fit than do.
    let price = |rows: usize| Duration::from_micros(1000 * rows as u64 + 5 * (rows * rows) as u64);
    let sizes: Vec<usize> = (1..=128_usize).filter(|rows| rows.is_power_of_two() || rows % 8 == 0).collect();
    teach(&mut former, &sizes, price, now);
    let number = former.groups.find(&group(0)).unwrap();
    let fitting = former.groups.fitting(number, 128, ms(100));
    // 73 rows take 99.6 ms; runs of one price wobble by nothing here.
    assert!((68..=74).contains(&fitting), "{fitting}");
}

/// An engine with one way for a row and another for many, slow in between. Nanoseconds.
fn two_ways(rows: usize) -> Duration {
    Duration::from_nanos(if rows == 1 { 5_000 } else { 15_000 + 1_300 * rows as u64 })
}

/// 64 callers that wait for their answers, so that 64 rows are queued or under way. Gives the smallest of the last batches.
fn with_many_callers(former: &mut BatchFormer<usize>, mut price: impl FnMut(usize) -> Duration) -> usize {
    let (mut now, only) = (clock::now(), group(0));
    for item in 0..64 {
        former.push(item, arrival(&only, 1), now);
    }
    let mut smallest = usize::MAX;
    for round in 0..50_000 {
        let formed = run(former, now);
        let took = price(formed.rows);
        now += took;
        former.observe(formed.key, formed.rows, took);
        former.complete(formed.key);
        for (item, _) in formed.items {
            former.push(item, arrival(&only, 1), now);
        }
        smallest = if round % 100 == 0 { formed.rows } else { smallest.min(formed.rows) };
    }
    smallest
}

#[test]
fn what_few_callers_taught_is_found_to_be_wrong_for_many() {
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut former, &[1, 2, 3, 4], two_ways, clock::now());
    let smallest = with_many_callers(&mut former, two_ways);
    assert!(smallest >= 16, "{smallest}, {:?}", former.learned());
}

#[test]
fn one_cold_run_does_not_keep_batches_at_the_sizes_that_are_prepared() {
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    former.set_prepared(&group(0), Prepared::Sizes([1, 8].into_iter().collect()), None);
    let mut seen = HashSet::from([1, 8]);
    // The general plan's first run of a size is slow.
    let mut price =
        |rows: usize| Duration::from_nanos(if seen.insert(rows) { 75_000 } else { 7_000 + 600 * rows as u64 });
    teach(&mut former, &[1, 8], &mut price, clock::now());
    former.push(0, arrival(&group(0), 4), clock::now());
    let formed = run(&mut former, clock::now());
    former.observe(formed.key, 4, price(4));
    former.complete(formed.key);
    let smallest = with_many_callers(&mut former, price);
    assert!(smallest >= 16, "{smallest}, {:?}", former.learned());
}

/// How many of `queued` rows are taken, and how many rows are then added, where sizes 1, 8, 16 and 32 are prepared and cost
/// so many microseconds, and any other size costs 28.
fn taken(queued: usize, prepared: [u64; 4]) -> (usize, usize) {
    let (now, only, sizes) = (clock::now(), group(0), [1, 8, 16, 32]);
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    former.set_prepared(&only, Prepared::Sizes(sizes.into_iter().collect()), None);
    let price = |rows| sizes.iter().position(|size| *size == rows).map_or(28, |index| prepared[index]);
    teach(&mut former, &[1, 8, 16, 20, 25, 32], |rows| Duration::from_micros(price(rows)), now);
    for item in 0..queued {
        former.push(item, arrival(&only, 1), now + ms(1000));
    }
    let formed = run(&mut former, now + ms(1000));
    (formed.rows, formed.padding)
}

#[test]
fn what_is_left_of_a_specialised_size_is_reckoned_with() {
    // In runs of 16, 8 and 1 it would take 30 microseconds and three batches, as 32 it takes 20 and one.
    assert_eq!(taken(25, [8, 8, 14, 20]), (25, 7));
    // One row more than a cheap size is no reason for a dear one.
    assert_eq!(taken(17, [3, 4, 5, 26]), (16, 0));
}

#[test]
fn a_quick_model_takes_all_that_is_queued() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut former, &[1, 8, 32], |rows| Duration::from_nanos(3000 + 80 * rows as u64), now);
    let only = group(0);
    for item in 0..200 {
        former.push(item, arrival(&only, 1), now);
    }
    assert_eq!(run(&mut former, now).rows, 200);
}

/// Pushes rows at an even rate, one worker taking whatever it gives, and returns how often it waited and how long at most.
fn waits(price: impl Fn(usize) -> Duration, every: Duration) -> (usize, Duration) {
    let start = clock::now();
    let mut former = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut former, &[1, 2, 8, 32], &price, start);
    let (only, mut now, mut asks, mut longest) = (group(0), start + ms(1000), 0, Duration::ZERO);
    for item in 0..5000 {
        now += every;
        former.push(item, arrival(&only, 1), now);
        match take(&mut former, now) {
            Decision::Run(formed) => former.complete(formed.key),
            Decision::Ask(until) => {
                asks += 1;
                longest = longest.max(until.saturating_duration_since(now));
            }
            Decision::Empty => panic!("it was not empty"),
        }
    }
    (asks, longest)
}

#[test]
fn nothing_waits_where_waiting_cannot_raise_throughput() {
    let steep = |rows: usize| Duration::from_micros(1000 + 10 * rows as u64);
    // Rows come more slowly than runs of one row work them off.
    assert_eq!(waits(steep, Duration::from_millis(2)).0, 0);
    // Rows come quickly, but larger runs are no cheaper per row.
    assert_eq!(waits(|rows| Duration::from_micros(1000 * rows as u64), Duration::from_micros(100)).0, 0);
}

#[test]
fn under_overload_a_batch_waits_for_a_learned_gain_and_at_most_one_run() {
    let steep = |rows: usize| Duration::from_micros(1000 + 10 * rows as u64);
    let (asks, longest) = waits(steep, Duration::from_micros(100));
    assert!(asks > 1000, "{asks}");
    assert!(longest <= Duration::from_micros(1100), "{longest:?}");
}

#[test]
fn a_frequent_size_is_wished_for_once_and_used_when_prepared() {
    let now = clock::now();
    let mut former: BatchFormer<usize> = BatchFormer::new(config(64, Waiting::Fixed(Duration::ZERO)));
    let only = group(0);
    former.set_prepared(&only, Prepared::Sizes([1].into_iter().collect()), None);
    let mut wishes = Vec::new();
    for item in 0..100 {
        former.push(item, arrival(&only, 8), now);
        let formed = run(&mut former, now);
        wishes.extend(former.observe(formed.key, 8, ms(5)));
        former.complete(formed.key);
    }
    assert_eq!(wishes, [8]);
    former.set_prepared(&only, Prepared::Sizes([1, 8].into_iter().collect()), Some(ms(50)));
    for item in 0..5 {
        former.push(item, arrival(&only, 8), now);
        let formed = run(&mut former, now);
        assert_eq!(former.observe(formed.key, 8, ms(2)), None);
        former.complete(formed.key);
    }
    // Seven rows are run as eight: that plan is quicker.
    former.push(0, arrival(&only, 7), now);
    let formed = run(&mut former, now);
    assert_eq!((formed.rows, formed.padding), (7, 1));
    former.complete(formed.key);
    assert_eq!(former.learned()[0].prepared, [1, 8]);
}

#[test]
fn allowed_sizes_are_padded_to() {
    let now = clock::now();
    let sizes = [2, 8].map(|size| NonZeroUsize::new(size).unwrap()).to_vec();
    let mut former = BatchFormer::new(FormerConfig { sizes: Sizes::Allowed(sizes), ..config(16, Waiting::Learned) });
    let only = group(0);
    for (rows, padding) in [(1, 1), (2, 0), (3, 5), (8, 0)] {
        former.push(0, arrival(&only, rows), now);
        assert_eq!(run(&mut former, now).padding, padding, "{rows}");
    }
}

#[test]
fn groups_are_bounded_and_those_in_use_are_kept() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(4, Waiting::Learned));
    former.push(0, arrival(&group(7), 1), now);
    for size in 100..10_000 {
        former.push(size, Arrival { priority: Priority(0), ..arrival(&group(size), 1) }, now);
        let formed = run(&mut former, now);
        former.observe(formed.key, 1, ms(1));
        former.complete(formed.key);
    }
    let learned = former.learned();
    assert!(learned.len() <= 8);
    assert!(learned.iter().any(|known| known.group == group(7)));
    assert_eq!(run(&mut former, now).items, [(0, 1)]);
}

#[test]
fn a_stranger_is_predicted_from_what_the_model_taught() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(64, Waiting::Learned));
    assert_eq!(former.predict(&group(5), 1), None);
    teach(&mut former, &[1, 8], |rows| ms(rows as u64), now);
    let stranger = former.predict(&group(5), 8).unwrap();
    assert!((ms(7)..ms(9)).contains(&stranger), "{stranger:?}");
}

#[test]
fn a_group_has_run_once_a_run_of_its_own_has_ended_whatever_others_taught() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(64, Waiting::Learned));
    teach(&mut former, &[1, 8], |rows| ms(rows as u64), now);
    let stranger = group(5);
    former.push(0, arrival(&stranger, 1), now);
    let formed = run(&mut former, now);
    assert!(formed.predicted.is_some() && !former.has_run(formed.key));
    former.observe(formed.key, 1, ms(1000));
    assert!(former.has_run(formed.key));
}

#[test]
fn the_wait_of_a_caller_is_that_of_its_turn_and_not_of_the_whole_queue() {
    let now = clock::now();
    let mut former = BatchFormer::new(config(1, Waiting::Learned));
    teach(&mut former, &[1, 2, 8], |rows| ms(10 * rows as u64), now);
    let only = group(0);
    for item in 0..100 {
        former.push(item, Arrival { caller: CallerId(1), ..arrival(&only, 1) }, now);
    }
    let greedy = former.wait_of(Priority::default(), CallerId(1));
    let modest = former.wait_of(Priority::default(), CallerId(2));
    assert!(greedy > ms(900), "{greedy:?}");
    assert!(modest < ms(50), "{modest:?}");
}
