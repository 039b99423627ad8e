//! From times to a choice. No clock, no engines: numbers in, ranges out.
//!
//! One engine for everything is preferred, because several hold the weights several times: the base is the engine that is
//! nearest to the fastest over all row counts. Another takes a range only where it is clearly faster than the base. An
//! engine that is trusted less must be faster by [`BETTER`] to be the base at all.

use std::time::Duration;

/// Times of one engine, one for each row count.
pub(crate) type Times = Vec<Duration>;

/// An engine that is trusted less must take at most this share of the other's time.
const BETTER: f64 = 0.95;
/// An engine that would share the row counts with the base must take at most this share of its time there.
const CLEARLY_BETTER: f64 = 0.9;

/// Which engine takes which row counts: `(from, engine)`, ascending, the first from 1.
///
/// `engines` are the times of each engine, in order of trust, one for each of `rows` (ascending, at least one). With
/// `one_only` the base takes everything.
pub(crate) fn decide(rows: &[usize], engines: &[Times], one_only: bool) -> Vec<(usize, usize)> {
    let base = base(rows.len(), engines);
    let mut ranges = vec![(1, base)];
    if one_only {
        return ranges;
    }
    let mut before = None;
    for (column, &count) in rows.iter().enumerate() {
        let winner = winner(column, base, engines);
        match before {
            None => ranges[0].1 = winner,
            Some(smaller) if ranges.last().is_some_and(|last| last.1 != winner) => {
                ranges.push((middle(smaller, count), winner))
            }
            Some(_) => {}
        }
        before = Some(count);
    }
    ranges
}

/// The engine that is nearest to the fastest over all row counts, by the geometric mean of its distance.
fn base(columns: usize, engines: &[Times]) -> usize {
    let fastest = |column: usize| engines.iter().map(|times| seconds(times[column])).fold(f64::INFINITY, f64::min);
    let distance =
        |times: &Times| (0..columns).map(|column| (seconds(times[column]) / fastest(column)).ln()).sum::<f64>();
    let mean = |times: &Times| (distance(times) / f64::from(u32::try_from(columns.max(1)).unwrap_or(u32::MAX))).exp();
    let mut best = 0;
    for (index, times) in engines.iter().enumerate().skip(1) {
        if mean(times) < mean(&engines[best]) * BETTER {
            best = index;
        }
    }
    best
}

/// Who takes one row count: the base, or the fastest that is clearly faster.
fn winner(column: usize, base: usize, engines: &[Times]) -> usize {
    let time = |index: usize| seconds(engines[index][column]);
    let mut best = base;
    for index in 0..engines.len() {
        let limit = if best == base { time(base) * CLEARLY_BETTER } else { time(best) * BETTER };
        if index != base && time(index) < limit {
            best = index;
        }
    }
    best
}

/// Where the larger count's engine takes over: halfway between two measured counts, as factors go.
fn middle(smaller: usize, larger: usize) -> usize {
    smaller.saturating_mul(larger).isqrt().max(smaller + 1)
}

/// No time is shorter than a clock can tell.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::decide;

    /// Row counts 1, 4, 16, 64; one list of microseconds for each engine in order of trust.
    fn check(engines: &[[u64; 4]], expected: &[(usize, usize)]) {
        let times: Vec<Vec<Duration>> = engines.iter().map(|times| times.map(Duration::from_micros).to_vec()).collect();
        assert_eq!(decide(&[1, 4, 16, 64], &times, false), expected, "{engines:?}");
        let single = decide(&[1, 4, 16, 64], &times, true);
        assert_eq!(single.len(), 1, "{engines:?}");
    }

    #[test]
    fn the_fastest_serves_alone() {
        check(&[[100, 400, 1600, 6400]], &[(1, 0)]);
        check(&[[100, 400, 1600, 6400], [50, 200, 800, 3200]], &[(1, 1)]);
        check(&[[100, 400, 1600, 6400], [300, 900, 3200, 9000], [50, 200, 800, 3200]], &[(1, 2)]);
    }

    #[test]
    fn the_more_trusted_one_stays_within_five_percent() {
        check(&[[100, 100, 100, 100], [96, 96, 96, 96]], &[(1, 0)]);
        check(&[[100, 100, 100, 100], [94, 94, 94, 94]], &[(1, 1)]);
        check(&[[96, 96, 96, 96], [100, 100, 100, 100]], &[(1, 0)]);
    }

    #[test]
    fn ranges_are_split_where_that_pays() {
        // Another takes over halfway between the counts: at 8 between 4 and 16.
        check(&[[100, 200, 300, 400], [50, 100, 600, 800]], &[(1, 1), (8, 0)]);
        check(&[[100, 100, 100, 100], [200, 200, 50, 200]], &[(1, 0), (8, 1), (32, 0)]);
        // Eight percent at one count are not worth the weights a second time.
        check(&[[100, 100, 100, 100], [200, 200, 200, 92]], &[(1, 0)]);
    }

    #[test]
    fn the_boundary_of_neighbouring_counts_is_the_larger() {
        let times = [vec![Duration::from_micros(10), Duration::from_micros(90)], vec![Duration::from_micros(90); 2]];
        let times = [times[0].clone(), vec![times[1][0], Duration::from_micros(10)]];
        assert_eq!(decide(&[1, 2], &times, false), [(1, 0), (2, 1)]);
    }

    #[test]
    fn times_too_short_to_tell_are_equal() {
        assert_eq!(decide(&[1], &[vec![Duration::ZERO], vec![Duration::ZERO]], false), [(1, 0)]);
    }
}
