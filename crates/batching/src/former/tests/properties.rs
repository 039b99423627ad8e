//! Properties over random histories.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use millrace_core::{CallerId, Priority};
use proptest::prelude::*;

use super::plain::{Item, Plain};
use super::{arrival, config, group};
use crate::former::{Arrival, BatchFormer, Decision, Dropped};
use crate::{Waiting, clock};

/// One event of a history.
#[derive(Debug, Clone)]
enum Event {
    Push {
        rows: usize,
        group: usize,
        caller: u64,
        priority: u8,
        deadline: Option<u64>,
        is_alone: bool,
    },
    /// The caller of that item goes away; the former finds out when it looks.
    Leave(usize),
    /// That item is taken back.
    Cancel(usize),
    Sweep,
    Advance(u64),
    /// A worker is idle. What it runs takes about so many microseconds.
    Take(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let deadline = prop_oneof![2 => Just(None), 3 => (0_u64..20).prop_map(Some)];
    let push = (1_usize..6, 0_usize..3, 0_u64..4, 0_u8..2, deadline, prop::bool::weighted(0.1));
    prop_oneof![
        8 => push.prop_map(|(rows, group, caller, priority, deadline, is_alone)| {
            Event::Push { rows, group, caller, priority, deadline, is_alone }
        }),
        1 => (0_usize..60).prop_map(Event::Leave),
        1 => (0_usize..60).prop_map(Event::Cancel),
        1 => Just(Event::Sweep),
        2 => (0_u64..6).prop_map(Event::Advance),
        4 => (1_u64..5000).prop_map(Event::Take),
    ]
}

/// The ids of the late and of the gone.
fn split(dropped: Vec<Dropped<usize>>) -> (Vec<usize>, Vec<usize>) {
    let (mut late, mut gone) = (Vec::new(), Vec::new());
    for item in dropped {
        match item {
            Dropped::Late(id) => late.push(id),
            Dropped::Gone(id) => gone.push(id),
        }
    }
    late.sort_unstable();
    (late, gone)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Priority, then callers in turn, then deadlines; one group per batch; no more rows than allowed; the expired and
    /// the cancelled never run: just as the plain model has it.
    #[test]
    fn the_order_is_the_plain_models(events in prop::collection::vec(event(), 1..120), most in 1_usize..12) {
        let mut now = clock::now();
        let mut former = BatchFormer::new(config(most, Waiting::Fixed(Duration::ZERO)));
        let (mut plain, mut tickets, mut gone) = (Plain::default(), HashMap::new(), HashSet::new());
        for (id, event) in events.into_iter().enumerate() {
            match event {
                Event::Push { rows, group: number, caller, priority, deadline, is_alone } => {
                    let deadline = deadline.map(|wait| now + Duration::from_millis(wait));
                    let key = group(number);
                    let plain_arrival = arrival(&key, rows);
                    let arrival = Arrival {
                        caller: CallerId(caller), priority: Priority(priority), deadline, is_alone, ..plain_arrival
                    };
                    tickets.insert(id, former.push(id, arrival, now).ticket);
                    plain.push(Item { id, rows, group: (number, is_alone), caller, priority, deadline, queued: now });
                }
                Event::Leave(id) => drop(gone.insert(id)),
                Event::Cancel(id) => {
                    let took = tickets.get(&id).and_then(|ticket| former.cancel(*ticket));
                    prop_assert_eq!(took, plain.remove(id).map(|item| item.id));
                }
                Event::Sweep => {
                    let mut dropped = Vec::new();
                    former.sweep(&mut |id| gone.contains(id), &mut dropped);
                    let mut swept = split(dropped).1;
                    swept.sort_unstable();
                    let mut expected: Vec<usize> =
                        plain.items.iter().map(|item| item.id).filter(|id| gone.contains(id)).collect();
                    expected.sort_unstable();
                    for id in &expected {
                        plain.remove(*id);
                    }
                    prop_assert_eq!(swept, expected);
                }
                Event::Advance(millis) => now += Duration::from_millis(millis),
                Event::Take(_) => {
                    let mut dropped = Vec::new();
                    let decision = former.take(now, &mut |id| gone.contains(id), &mut dropped);
                    let mut expected = plain.take(now, most, |id| gone.contains(&id));
                    expected.late.sort_unstable();
                    prop_assert_eq!(split(dropped), (expected.late, expected.gone));
                    let batch: Vec<usize> = match decision {
                        Decision::Run(formed) => {
                            prop_assert_eq!(formed.rows, formed.items.iter().map(|(_, rows)| rows).sum::<usize>());
                            former.complete(formed.key);
                            formed.items.into_iter().map(|(id, _)| id).collect()
                        }
                        Decision::Empty => Vec::new(),
                        Decision::Ask(_) => return Err(TestCaseError::fail("nothing may wait here")),
                    };
                    prop_assert_eq!(batch, expected.batch);
                }
            }
            prop_assert_eq!(former.len(), plain.items.len());
            prop_assert_eq!(former.rows(), plain.items.iter().map(|item| item.rows).sum::<usize>());
            prop_assert_eq!(former.bytes(), plain.items.iter().map(|item| 4 * item.rows).sum::<usize>());
            prop_assert_eq!(former.next_deadline(), plain.items.iter().filter_map(|item| item.deadline).min());
        }
    }

    /// Whatever is learned and however long it waits: no item is lost, doubled, run in another's group, run late, or run
    /// in a batch that is too large.
    #[test]
    fn nothing_is_lost_whatever_was_learned(
        events in prop::collection::vec(event(), 1..150),
        most in 1_usize..40,
        waiting in prop_oneof![
            Just(Waiting::Learned),
            Just(Waiting::LearnedWithin(Duration::from_millis(2))),
            Just(Waiting::Fixed(Duration::from_millis(3))),
        ],
        row_micros in 0_u64..2000,
        run_micros in 0_u64..2000,
    ) {
        let mut now = clock::now();
        let mut former = BatchFormer::new(config(most, waiting));
        let (mut live, mut gone) = (HashMap::new(), HashSet::new());
        let end = [Event::Advance(100), Event::Take(1)].into_iter().cycle().take(600);
        for (id, event) in events.into_iter().chain(end).enumerate() {
            match event {
                Event::Push { rows, group: number, caller, priority, deadline, is_alone } => {
                    let deadline = deadline.map(|wait| now + Duration::from_millis(wait));
                    let key = group(number);
                    let plain_arrival = arrival(&key, rows);
                    let arrival = Arrival {
                        caller: CallerId(caller), priority: Priority(priority), deadline, is_alone, ..plain_arrival
                    };
                    former.push(id, arrival, now);
                    live.insert(id, (rows, (number, is_alone), deadline));
                }
                Event::Leave(id) => drop(gone.insert(id)),
                Event::Cancel(_) | Event::Sweep => {}
                Event::Advance(millis) => now += Duration::from_millis(millis),
                Event::Take(micros) => {
                    let mut dropped = Vec::new();
                    let decision = former.take(now, &mut |id| gone.contains(id), &mut dropped);
                    for item in dropped {
                        let (Dropped::Late(id) | Dropped::Gone(id)) = item;
                        let (_, _, deadline) = live.remove(&id).unwrap();
                        // Late, or given up because it would be.
                        prop_assert!(gone.contains(&id) || deadline.is_some());
                    }
                    let Decision::Run(formed) = decision else { continue };
                    let n_items = formed.items.len();
                    let mut groups = HashSet::new();
                    for (id, rows) in formed.items {
                        let (expected, group, deadline) = live.remove(&id).unwrap();
                        prop_assert_eq!(rows, expected);
                        prop_assert!(!gone.contains(&id) && deadline.is_none_or(|at| at > now));
                        groups.insert(group);
                    }
                    prop_assert_eq!(groups.len(), 1);
                    prop_assert!(n_items == 1 || formed.rows + formed.padding <= most);
                    prop_assert!(n_items == 1 || groups.iter().all(|(_, is_alone)| !is_alone));
                    prop_assert!(formed.run_rows >= 1 && formed.run_rows <= most);
                    let rows = formed.rows.min(formed.run_rows) + formed.padding;
                    let took = run_micros + row_micros * rows as u64 + micros / 10;
                    former.observe(formed.key, rows, Duration::from_micros(took));
                    former.complete(formed.key);
                }
            }
        }
        prop_assert!(live.is_empty() && former.is_empty(), "left behind: {live:?}");
    }
}
