//! Where to cut a batch whose rows differ in length.

use std::ops::Range;

use super::cost::Cost;

/// So many different lengths are told apart; more are rounded up, so that the time for cutting is bounded.
const MOST_LENGTHS: usize = 512;

/// The runs that rows of these `lengths`, ascending, are best cut into, each padded to its longest: every row stands in one
/// run, and no other way of cutting the sorted rows costs less (but for lengths that were rounded).
///
/// Rows of one length belong together, for a run costs something by itself; so the ways are those of cutting between
/// lengths, and the best way up to each is found from the best ways up to shorter ones.
pub(crate) fn runs(lengths: &[usize], cost: &Cost) -> Vec<Range<usize>> {
    let steps = steps(lengths);
    // For each step, the least cost of all rows up to its end, and where the last run of that way begins.
    let mut best: Vec<(f64, usize)> = Vec::with_capacity(steps.len() + 1);
    best.push((0.0, 0));
    for (index, step) in steps.iter().enumerate() {
        let way = |from: usize| {
            let start = from.checked_sub(1).map_or(0, |before| steps[before].end);
            (best[from].0 + cost.of(step.end - start, step.length), from)
        };
        let least = (0..=index).map(way).min_by(|left, right| left.0.total_cmp(&right.0));
        best.push(least.unwrap_or((0.0, 0)));
    }
    let mut runs = Vec::new();
    let mut end = steps.len();
    while end > 0 {
        let from = best[end].1;
        runs.push(from.checked_sub(1).map_or(0, |before| steps[before].end)..steps[end - 1].end);
        end = from;
    }
    runs.reverse();
    runs
}

/// Rows of one length, up to `end`.
struct Step {
    length: usize,
    end: usize,
}

fn steps(lengths: &[usize]) -> Vec<Step> {
    let grain = lengths.last().map_or(1, |longest| longest.div_ceil(MOST_LENGTHS).max(1));
    let mut steps: Vec<Step> = Vec::new();
    for (index, length) in lengths.iter().enumerate() {
        match steps.last_mut() {
            Some(last) if last.length.div_ceil(grain) == length.div_ceil(grain) => {
                *last = Step { length: *length, end: index + 1 };
            }
            _ => steps.push(Step { length: *length, end: index + 1 }),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::runs;
    use crate::wrapped::cost::Cost;

    fn price(lengths: &[usize], runs: &[std::ops::Range<usize>], cost: &Cost) -> f64 {
        runs.iter().map(|run| cost.of(run.len(), lengths[run.end - 1])).sum()
    }

    #[test]
    fn rows_that_fit_together_stay_together() {
        let cost = Cost::new(384);
        assert!(runs(&[], &cost).is_empty());
        assert_eq!(runs(&[7], &cost).len(), 1);
        assert_eq!(runs(&[7, 7, 8, 8], &cost).len(), 1);
        assert_eq!(runs(&[8, 8, 8, 512], &cost), [0..3, 3..4]);
        assert_eq!(runs(&[8, 9, 60, 61, 500, 505], &cost), [0..2, 2..4, 4..6]);
    }

    proptest! {
        #[test]
        fn no_row_is_lost_and_no_plain_way_is_cheaper(
            mut lengths in prop::collection::vec(1_usize..513, 1..60),
            runs_before in prop::collection::vec((1_usize..9, 1_usize..99, 1e-6_f64..1e-2), 0..300),
        ) {
            lengths.sort_unstable();
            let mut cost = Cost::new(32);
            runs_before.iter().for_each(|(rows, length, seconds)| cost.learn(*rows, *length, *seconds));
            let cut = runs(&lengths, &cost);
            let mut next = 0;
            for run in &cut {
                prop_assert_eq!(run.start, next);
                prop_assert!(run.end > run.start);
                next = run.end;
            }
            prop_assert_eq!(next, lengths.len());
            let own = price(&lengths, &cut, &cost);
            let lone: Vec<_> = (0..lengths.len()).map(|row| row..row + 1).collect();
            prop_assert!(own <= price(&lengths, &lone, &cost) * (1.0 + 1e-9));
            let one = 0..lengths.len();
            prop_assert!(own <= price(&lengths, &[one], &cost) * (1.0 + 1e-9));
        }

        #[test]
        fn of_few_rows_no_way_at_all_is_cheaper(mut lengths in prop::collection::vec(1_usize..200, 1..9)) {
            lengths.sort_unstable();
            let cost = Cost::new(32);
            let own = price(&lengths, &runs(&lengths, &cost), &cost);
            for cuts in 0..1_usize << (lengths.len() - 1) {
                let mut way = Vec::new();
                let mut start = 0;
                for end in 1..=lengths.len() {
                    if end == lengths.len() || cuts >> (end - 1) & 1 == 1 {
                        way.push(start..end);
                        start = end;
                    }
                }
                prop_assert!(own <= price(&lengths, &way, &cost) * (1.0 + 1e-9), "{:?} is cheaper", way);
            }
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn very_long_texts_are_cut_in_bounded_time(mut lengths in prop::collection::vec(1_usize..100_000, 2_000)) {
            lengths.sort_unstable();
            let cut = runs(&lengths, &Cost::new(32));
            prop_assert_eq!(cut.iter().map(ExactSizeIterator::len).sum::<usize>(), lengths.len());
        }
    }
}
