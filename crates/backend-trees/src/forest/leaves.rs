//! What leaves say, in the form that is fastest to add up.

use super::{Aggregate, Vote};

/// A type in which votes are added up.
pub(super) trait Sum: Copy + Send + Sync + PartialOrd + 'static {
    /// Nothing yet, where the least or the greatest is sought.
    const NAN: Self;
    /// Nothing yet, where votes are added.
    const ZERO: Self;
    fn of(value: f64) -> Self;
    fn of_bits(bits: u32) -> Self;
    fn widen(self) -> f64;
    fn plus(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
}

impl Sum for f32 {
    const NAN: Self = Self::NAN;
    const ZERO: Self = 0.0;

    #[expect(clippy::cast_possible_truncation, reason = "a forest that adds in f32 rounds its weights to it")]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn of_bits(bits: u32) -> Self {
        Self::from_bits(bits)
    }

    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn over(self, other: Self) -> Self {
        self / other
    }
}

impl Sum for f64 {
    const NAN: Self = Self::NAN;
    const ZERO: Self = 0.0;

    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn of_bits(bits: u32) -> Self {
        Self::from(f32::from_bits(bits))
    }

    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn over(self, other: Self) -> Self {
        self / other
    }
}

/// The votes of a forest's leaves. A leaf's key says which are its own.
#[derive(Debug)]
pub(super) enum Leaves<S> {
    /// Each leaf votes once, for its tree's target, and its key is the weight, as the bits of an `f32`.
    Inline,
    /// Each leaf votes once, for its tree's target; its key is an index into these.
    One(Vec<S>),
    /// Each leaf has a weight for every target, from its key times the number of targets on.
    Dense(Vec<S>),
    /// A leaf's votes reach from where its key's predecessor ends to where it ends.
    Sparse(Vec<u32>, Vec<(u32, S)>),
}

/// The votes as they were given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Where each leaf's votes end.
    pub(super) ends: Vec<u32>,
    pub(super) votes: Vec<Vote>,
    /// The target of each tree, while all leaves so far have voted once and for their tree's target.
    pub(super) targets: Option<Vec<u32>>,
}

impl<S: Sum> Leaves<S> {
    /// The best form for `given`.
    pub(super) fn new(given: &Given, targets: usize, aggregate: Aggregate) -> Self {
        if given.targets.is_some() {
            let is_short = |vote: &Vote| f64::from(f32::of(vote.weight)) == vote.weight || size_of::<S>() == 4;
            return if given.votes.iter().all(is_short) {
                Self::Inline
            } else {
                Self::One(given.votes.iter().map(|vote| S::of(vote.weight)).collect())
            };
        }
        Self::dense(given, targets, aggregate).unwrap_or_else(|| {
            let vote = |vote: &Vote| (u32::try_from(vote.target).unwrap_or(u32::MAX), S::of(vote.weight));
            Self::Sparse(given.ends.clone(), given.votes.iter().map(vote).collect())
        })
    }

    /// The dense form, where that is not much larger, and where a weight of 0 is as good as no vote.
    fn dense(given: &Given, targets: usize, aggregate: Aggregate) -> Option<Self> {
        let is_sum = matches!(aggregate, Aggregate::Sum | Aggregate::Average);
        let cells = given.ends.len().checked_mul(targets)?;
        if !is_sum || cells / 2 > given.votes.len() {
            return None;
        }
        // NaN marks what has no vote yet. Two votes for one target are added to the sum one after the other, not to each
        // other, so they have no place here.
        let mut weights = vec![S::NAN; cells];
        let mut start = 0;
        for (leaf, end) in given.ends.iter().enumerate() {
            for vote in &given.votes[start..*end as usize] {
                let cell = &mut weights[leaf * targets + vote.target];
                if !cell.widen().is_nan() {
                    return None;
                }
                *cell = S::of(vote.weight);
            }
            start = *end as usize;
        }
        for weight in &mut weights {
            *weight = if weight.widen().is_nan() { S::ZERO } else { *weight };
        }
        Some(Self::Dense(weights))
    }

    /// Adds what the leaf `key` of a tree for `target` says to one row's sums.
    #[inline(always)]
    pub(super) fn add(&self, key: u32, target: usize, sums: &mut [S]) {
        match self {
            Self::Inline => sums[target] = sums[target].plus(S::of_bits(key)),
            Self::One(weights) => sums[target] = sums[target].plus(weights[key as usize]),
            Self::Dense(weights) => {
                let weights = &weights[key as usize * sums.len()..];
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.plus(*weight);
                }
            }
            Self::Sparse(..) => self.each(key, target, |target, weight| sums[target] = sums[target].plus(weight)),
        }
    }

    /// Calls `vote` with every target and weight of the leaf `key` of a tree for `target`.
    pub(super) fn each(&self, key: u32, target: usize, mut vote: impl FnMut(usize, S)) {
        let key = key as usize;
        match self {
            Self::Inline => vote(target, S::of_bits(u32::try_from(key).unwrap_or_default())),
            Self::One(weights) => vote(target, weights[key]),
            Self::Dense(_) => unreachable!("dense leaves are only added"),
            Self::Sparse(ends, votes) => {
                let start = if key == 0 { 0 } else { ends[key - 1] as usize };
                for (target, weight) in &votes[start..ends[key] as usize] {
                    vote(*target as usize, *weight);
                }
            }
        }
    }

    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Inline => 0,
            Self::One(weights) | Self::Dense(weights) => size_of_val(weights.as_slice()),
            Self::Sparse(ends, votes) => size_of_val(ends.as_slice()) + size_of_val(votes.as_slice()),
        }
    }
}
