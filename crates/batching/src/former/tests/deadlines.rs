//! Who is let in, who is given up, and how large batches are, where time is short.

use std::time::{Duration, Instant};

use millrace_core::CallerId;

use super::{arrival, config, group, ms, run, teach};
use crate::former::{Arrival, BatchFormer, Decision, Dropped, FormerConfig};
use crate::{Waiting, clock};

/// What a device costs whose runs are dear and whose rows are cheap: 4 ms and 0.1 ms a row.
fn steep(rows: usize) -> Duration {
    Duration::from_micros(4000 + 100 * rows as u64)
}

/// Pushes `count` items that have so much time left.
fn push_within(former: &mut BatchFormer<usize>, count: usize, left: Duration, queued: Instant, now: Instant) {
    let only = group(0);
    for _ in 0..count {
        former.push(0, Arrival { deadline: Some(now + left), ..arrival(&only, 1) }, queued);
    }
}

#[test]
fn where_all_cannot_be_in_time_those_go_that_would_make_the_others_late() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    push_within(&mut former, 60, ms(5), start, start);
    push_within(&mut former, 100, ms(16), start, start);
    let mut dropped = Vec::new();
    let Decision::Run(formed) = former.take(start, &mut |_| false, &mut dropped) else { panic!("nothing runs") };
    assert!(formed.rows >= 30, "{} rows ride, {} were given up", formed.rows, dropped.len());
    assert!((1..=60).contains(&dropped.len()) && dropped.iter().all(|item| matches!(item, Dropped::Late(_))));
}

#[test]
fn one_in_a_hurry_is_served_before_those_who_have_time() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    push_within(&mut former, 5, ms(7), start, start);
    push_within(&mut former, 200, ms(10_000), start, start);
    let mut dropped = Vec::new();
    let Decision::Run(formed) = former.take(start, &mut |_| false, &mut dropped) else { panic!("nothing runs") };
    assert!(dropped.is_empty());
    assert_eq!(formed.deadline, Some(start + ms(7)));
    assert!(formed.predicted.unwrap() <= ms(7), "{formed:?}");
}

#[test]
fn while_others_are_refused_nobody_makes_a_batch_far_dearer() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    let mut hurried = |is_refusing: bool| {
        if is_refusing {
            former.retry_after(&group(0), 1, start);
        }
        push_within(&mut former, 5, ms(7), start, start);
        push_within(&mut former, 200, ms(10_000), start, start);
        let mut dropped = Vec::new();
        let Decision::Run(formed) = former.take(start, &mut |_| false, &mut dropped) else { panic!("nothing runs") };
        former.complete(formed.key);
        former.drain();
        // Whoever was refused could be served now.
        assert_eq!(former.take(start, &mut |_| false, &mut Vec::new()), Decision::Empty);
        (dropped.len(), formed.rows)
    };
    let calm = hurried(false);
    assert!(calm.0 == 0 && calm.1 <= 30, "{calm:?}");
    assert_eq!(hurried(true), (5, 200));
    assert_eq!(hurried(false), calm);
}

#[test]
fn a_deadline_leaves_time_to_wait_for_those_who_will_have_come() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    // 2000 rows a second, each with 40 ms: the batch that pays best would take longer than that, those of 4 ms do not.
    let (only, mut now, mut asks) = (group(0), start + ms(1000), 0);
    for item in 0..2000 {
        now += Duration::from_micros(500);
        former.push(item, Arrival { deadline: Some(now + ms(40)), ..arrival(&only, 1) }, now);
        match former.take(now, &mut |_| false, &mut Vec::new()) {
            Decision::Run(formed) => former.complete(formed.key),
            Decision::Ask(until) => {
                asks += 1;
                assert!(until <= now + ms(5), "{:?}", until - now);
            }
            Decision::Empty => panic!("it was not empty"),
        }
    }
    assert!(asks > 1000, "{asks}");
}

#[test]
fn a_lone_item_runs_though_it_may_be_late() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8], steep, start);
    push_within(&mut former, 2, ms(1), start, start);
    let mut dropped = Vec::new();
    let decision = former.take(start, &mut |_| false, &mut dropped);
    assert!(matches!(decision, Decision::Run(formed) if formed.rows == 1));
    assert_eq!(dropped.len(), 1);
}

#[test]
fn the_door_knows_what_an_answer_would_take() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    let only = group(0);
    let newcomer = Arrival { deadline: Some(start + ms(30)), ..arrival(&only, 1) };
    assert_eq!(former.answer_in(&newcomer, start), (Duration::ZERO, Duration::ZERO));
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    let (wait, alone) = former.answer_in(&newcomer, start);
    assert_eq!(wait, Duration::ZERO);
    assert!(alone >= ms(4) && alone < ms(6), "{alone:?}");
    // Those who ride along make the run longer, those before them make one wait; so does a run under way.
    push_within(&mut former, 50, ms(30), start, start);
    let (wait, together) = former.answer_in(&newcomer, start);
    assert!(wait < ms(1) && together > ms(8), "{wait:?} {together:?}");
    push_within(&mut former, 400, ms(30), start, start);
    assert!(former.answer_in(&newcomer, start).0 > ms(20));
    let mut idle = BatchFormer::new(config(1024, Waiting::Learned));
    teach(&mut idle, &[1, 8, 32, 64, 128], steep, start);
    push_within(&mut idle, 50, ms(30), start, start);
    let under_way = run(&mut idle, start);
    let (wait, _) = idle.answer_in(&newcomer, start + ms(2));
    assert!(wait > ms(5) && wait < ms(10), "{wait:?} for {under_way:?}");
    idle.complete(under_way.key);
    assert_eq!(idle.answer_in(&newcomer, start + ms(9)).0, Duration::ZERO);
}

#[test]
fn behind_a_full_batch_the_door_reckons_with_all_of_it() {
    let (mut former, start) = (BatchFormer::new(config(64, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64], steep, start);
    let only = group(0);
    let newcomer = Arrival { deadline: Some(start + ms(1000)), ..arrival(&only, 1) };
    push_within(&mut former, 63, ms(1000), start, start);
    assert_eq!(former.answer_in(&newcomer, start).0, Duration::ZERO);
    // One row more is ahead, and that is a batch more: no run is a little longer than the largest.
    push_within(&mut former, 1, ms(1000), start, start);
    let (wait, run) = former.answer_in(&newcomer, start);
    assert!(wait > ms(9) && wait < ms(12) && run < ms(6), "{wait:?} {run:?}");
    let hurried = Arrival { deadline: Some(start + ms(12)), ..arrival(&only, 1) };
    let late = former.is_late(&hurried, start).unwrap();
    assert!(late > ms(12), "{late:?}");
    assert_eq!(former.is_late(&newcomer, start), None);
}

#[test]
fn the_door_is_more_careful_once_it_let_in_too_many_and_less_once_it_kept_out_too_many() {
    let row = |rows: usize| ms(10 * rows as u64);
    let settings = FormerConfig { is_batched: false, ..config(64, Waiting::Learned) };
    let (mut former, start) = (BatchFormer::new(settings), clock::now());
    teach(&mut former, &[1], row, start);
    let only = group(0);
    // How many are let in at once who have 200 ms for runs of 10 ms.
    let fill = |former: &mut BatchFormer<usize>, now: Instant| {
        let mut count = 0;
        loop {
            let newcomer = Arrival { deadline: Some(now + ms(200)), ..arrival(&only, 1) };
            if former.is_late(&newcomer, now).is_some() {
                assert!(former.retry_after(&only, 1, now).is_some());
                return count;
            }
            former.push(0, newcomer, now);
            count += 1;
        }
    };
    let first = fill(&mut former, start);
    assert!((12..=20).contains(&first), "{first}");
    // Nobody's turn comes before it is too late.
    let mut dropped = Vec::new();
    former.expire(start + ms(200), &mut dropped);
    assert_eq!(dropped.len(), first);
    let careful = fill(&mut former, start + ms(200));
    assert!(careful < first, "{careful}");
    // Again and again all that was let in is done in time, and the worker has nothing to do.
    let mut now = start + ms(200);
    for _ in 0..10 {
        while let Decision::Run(formed) = former.take(now, &mut |_| false, &mut dropped) {
            now += ms(10);
            former.complete(formed.key);
        }
        assert!(former.is_empty());
        fill(&mut former, now);
    }
    assert!(former.len() > careful, "{} and {careful}", former.len());
    assert_eq!(dropped.len(), first);
}

#[test]
fn hardly_any_request_is_let_in_only_to_be_passed_by_newcomers_until_its_deadline() {
    let settings = FormerConfig { is_batched: false, ..config(64, Waiting::Learned) };
    let (mut former, start) = (BatchFormer::new(settings), clock::now());
    teach(&mut former, &[1], |_| ms(7), start);
    let (only, mut dropped) = (group(0), Vec::new());
    let (mut let_in, mut refused, mut given_up, mut busy, mut chance) = (0, 0, 0, 0, 1_u64);
    // Twice what can be done, by 16 callers without any order, for a minute. The first seconds are for learning.
    for time in 0..60_000 {
        let now = start + ms(time);
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (chance >> 40) % 7 < 2 {
            let caller = CallerId(chance >> 60);
            let newcomer = Arrival { deadline: Some(now + ms(500)), caller, ..arrival(&only, 1) };
            if former.is_late(&newcomer, now).is_some() {
                former.retry_after(&only, 1, now);
                refused += usize::from(time > 20_000);
            } else {
                former.push(0, newcomer, now);
                let_in += usize::from(time > 20_000);
            }
        }
        former.expire(now, &mut dropped);
        if time >= busy
            && let Decision::Run(formed) = former.take(now, &mut |_| false, &mut dropped)
        {
            busy = time + 7;
            former.complete(formed.key);
        }
        given_up += if time > 20_000 { dropped.len() } else { 0 };
        dropped.clear();
    }
    assert!(50 * given_up < let_in, "{given_up} of {let_in}");
    // What is kept out does not leave the worker without work.
    assert!(let_in >= 40_000 / 7 - 100, "{let_in} and {refused}");
}

#[test]
fn a_batch_may_take_all_the_time_that_its_leader_has() {
    let (mut former, start) = (BatchFormer::new(config(1024, Waiting::Learned)), clock::now());
    teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
    push_within(&mut former, 100, ms(17), start, start);
    let formed = run(&mut former, start);
    assert_eq!((formed.rows, formed.deadline), (100, Some(start + ms(17))));
}

#[test]
fn leaders_in_a_hurry_do_not_make_many_workers_run_small_batches_for_ever() {
    let price = |rows: usize| Duration::from_micros(1000 + 500 * rows as u64);
    let settings = FormerConfig { workers: 16, ..config(1024, Waiting::Learned) };
    let (mut former, start) = (BatchFormer::new(settings), clock::now());
    teach(&mut former, &[1, 2, 4, 8, 16, 32], price, start);
    // Each has a little more time than the one before it, and there are more than sixteen workers can do one by one.
    for item in 0..400 {
        push_within(&mut former, 1, Duration::from_micros(1600 + 20 * item), start, start);
    }
    let mut dropped = Vec::new();
    let Decision::Run(formed) = former.take(start, &mut |_| false, &mut dropped) else { panic!("nothing runs") };
    assert!(formed.rows >= 6, "{} rows ride, {} were given up", formed.rows, dropped.len());
}

#[test]
fn a_latency_goal_bounds_batches_and_not_single_rows() {
    let start = clock::now();
    for (goal, rows) in [(ms(12), 55..=80), (ms(2), 1..=1), (Duration::ZERO, 200..=200)] {
        let mut former = BatchFormer::new(config(1024, Waiting::LearnedWithin(goal)));
        teach(&mut former, &[1, 8, 32, 64, 128], steep, start);
        let only = group(0);
        for item in 0..200 {
            former.push(item, arrival(&only, 1), start);
        }
        let formed = run(&mut former, start);
        assert!(rows.contains(&formed.rows), "{} rows within {goal:?}", formed.rows);
    }
}

#[test]
fn who_is_refused_is_told_when_to_come_again_once_costs_are_known() {
    let (mut former, start) = (BatchFormer::new(config(64, Waiting::Learned)), clock::now());
    let only = group(0);
    assert_eq!(former.retry_after(&only, 1, start), None);
    teach(&mut former, &[1, 8, 64], |rows| ms(10 * rows as u64), start);
    push_within(&mut former, 350, ms(60_000), start, start);
    assert_eq!(former.retry_after(&only, 1, start), Some(ms(4000)));
}
