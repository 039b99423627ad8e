//! Which rows of a packed batch share one attention.
//!
//! Everything else in an encoder works on the tokens of all rows at once; attention alone looks at one row at a time. On the
//! CPU rows are joined where they are equally long, because padding is work. On a card a further group costs more than the
//! padding that it saves, as long as rows are not too different: each group is some ten kernels, and a kernel takes its few
//! microseconds however small it is.

use std::ops::Range;

/// Where attention is computed, as far as grouping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// Rows of one length.
    Equal,
    /// Rows of similar lengths, padded to the longest, where a further group costs as much as this many
    /// cells of the square of tokens by tokens that one row is.
    Similar(u64),
}

impl Grouping {
    /// For NVIDIA cards. Ten launches of 4 µs each; a cell is read and written some six times in 2 to 4 bytes by twelve
    /// heads, so that at 2 TB/s 10 µs are some hundred thousand cells. An estimate until it is measured on a card.
    pub(super) const CARD: Self = Self::Similar(400_000);

    /// Cuts rows of these `lengths`, which ascend, into groups: ranges of rows, in order, without gaps. Among all ways to cut them
    /// this is one of the least cost, and always the same.
    pub(crate) fn cut(self, lengths: &[usize]) -> Vec<Range<usize>> {
        debug_assert!(lengths.is_sorted(), "rows come sorted by length");
        let runs: Vec<Range<usize>> = equal_runs(lengths);
        let Self::Similar(group_cost) = self else { return runs };
        // `best[n]` is the least cost of the first `n` runs and where their last group begins.
        let mut best: Vec<(u64, usize)> = vec![(0, 0)];
        for end in 1..=runs.len() {
            let last = &runs[end - 1];
            let longest = lengths[last.start] as u64;
            let with = |begin: usize| {
                let rows = (last.end - runs[begin].start) as u64;
                let cells = rows.saturating_mul(longest.saturating_mul(longest));
                best[begin].0.saturating_add(group_cost).saturating_add(cells)
            };
            let least = (0..end).map(|begin| (with(begin), begin)).min().unwrap_or_default();
            best.push(least);
        }
        let mut groups = Vec::new();
        let mut end = runs.len();
        while end > 0 {
            let begin = best[end].1;
            groups.push(runs[begin].start..runs[end - 1].end);
            end = begin;
        }
        groups.reverse();
        groups
    }
}

fn equal_runs(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for same in lengths.chunk_by(|one, other| one == other) {
        let start = runs.last().map_or(0, |run| run.end);
        runs.push(start..start + same.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Grouping;

    fn cut(grouping: Grouping, lengths: &[usize]) -> Vec<(usize, usize)> {
        grouping.cut(lengths).into_iter().map(|group| (group.start, group.end)).collect()
    }

    #[test]
    fn the_cpu_joins_rows_of_one_length() {
        assert_eq!(cut(Grouping::Equal, &[]), []);
        assert_eq!(cut(Grouping::Equal, &[3]), [(0, 1)]);
        assert_eq!(cut(Grouping::Equal, &[3, 3, 5, 8, 8, 8]), [(0, 2), (2, 3), (3, 6)]);
    }

    #[test]
    fn a_card_joins_rows_until_the_padding_costs_more_than_a_group() {
        assert_eq!(cut(Grouping::CARD, &[]), []);
        // All short: one group.
        assert_eq!(cut(Grouping::CARD, &[3, 8, 17, 60, 64]), [(0, 5)]);
        // Many short ones beside a long one: 33 rows of 512 tokens would be nearly nine million cells.
        let mut lengths = vec![16; 32];
        lengths.push(512);
        assert_eq!(cut(Grouping::CARD, &lengths), [(0, 32), (32, 33)]);
        // A single one beside it is not worth a group.
        assert_eq!(cut(Grouping::CARD, &[16, 512]), [(0, 2)]);
    }

    /// The cost of groups, as the header says it.
    fn cost(groups: &[std::ops::Range<usize>], lengths: &[usize], group_cost: u64) -> u64 {
        groups.iter().map(|group| group_cost + (group.len() * lengths[group.end - 1].pow(2)) as u64).sum()
    }

    proptest! {
        #[test]
        fn groups_cover_all_rows_and_no_single_cut_is_better(
            mut lengths in prop::collection::vec(1_usize..600, 1..24),
            group_cost in 0_u64..1_000_000,
        ) {
            lengths.sort_unstable();
            let groups = Grouping::Similar(group_cost).cut(&lengths);
            prop_assert_eq!(groups[0].start, 0);
            prop_assert_eq!(groups[groups.len() - 1].end, lengths.len());
            prop_assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start));
            let own = cost(&groups, &lengths, group_cost);
            for cut in 1..lengths.len() {
                let two = [0..cut, cut..lengths.len()];
                prop_assert!(own <= cost(&two, &lengths, group_cost));
            }
            prop_assert!(own <= cost(std::slice::from_ref(&(0..lengths.len())), &lengths, group_cost));
            prop_assert!(own <= cost(&Grouping::Equal.cut(&lengths), &lengths, group_cost));
        }
    }
}
