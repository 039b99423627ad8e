//! The words in which trees are described to the builder. No checks and no layout here.

use std::ops::Range;

/// What all trees of a forest share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForestConfig {
    /// Numbers in a row of input.
    pub features: usize,
    /// Numbers in a row of output; at least 1.
    pub targets: usize,
    /// The type of the input's numbers.
    pub input: Numbers,
    /// How the votes for a target become one score.
    pub aggregate: Aggregate,
    /// In which type votes are added up, tree after tree.
    pub sums: Numbers,
    /// Added to the scores, one per target, or empty for none.
    pub base: Vec<f64>,
}

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// `f32`.
    Single,
    /// `f64`.
    Double,
}

/// How the votes for a target become one score. A target that nobody votes for has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    /// Their sum.
    Sum,
    /// Their sum, divided by the number of trees.
    Average,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// One tree: its nodes, of which the first is the root, and what they refer to. Each node but the root is the child of
/// exactly one other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tree {
    /// The nodes. Children are indices into this list.
    pub nodes: Vec<Node>,
    /// What leaves say.
    pub votes: Vec<Vote>,
    /// The values that [`Test::OneOf`] looks for.
    pub members: Vec<f64>,
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// Sends a row on to one of two children.
    Split(Split),
    /// Ends the way: the votes are this range of [`Tree::votes`]; it may be empty.
    Leaf(Range<usize>),
}

/// A question about one feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    /// The feature asked about, from 0.
    pub feature: usize,
    /// The question.
    pub test: Test,
    /// What a value that is not there does.
    pub missing: Missing,
    /// The child for a yes.
    pub yes: usize,
    /// The child for a no.
    pub no: usize,
}

/// A question about a number. Thresholds are compared as real numbers, whatever the type of the input; NaN in the input
/// follows [`Missing`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// Less than this or equal to it.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// Greater than this or equal to it.
    AtLeast(f64),
    /// Greater than this.
    Above(f64),
    /// One of this range of [`Tree::members`], read as [`Values`] says.
    OneOf(Range<usize>, Values),
}

/// How a number is read before it is looked up among members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Values {
    /// As it is.
    Exact,
    /// Cut to a whole number towards zero; negative ones are members of nothing. So does LightGBM.
    Cut,
    /// The same, but a number below zero is negative before it is cut, and from 2^24 on members of nothing. So does
    /// XGBoost.
    CutIfPositive,
}

/// What NaN (and zero, for two of these) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// NaN goes to the child for a yes.
    Yes,
    /// NaN goes to the child for a no.
    No,
    /// NaN is read as 0.
    IsZero,
    /// NaN, and numbers within 1e-35 of 0, go to the child for a yes.
    ZeroYes,
    /// NaN, and numbers within 1e-35 of 0, go to the child for a no.
    ZeroNo,
}

/// A leaf's weight for one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vote {
    /// The target, from 0.
    pub target: usize,
    /// What is added to its score.
    pub weight: f64,
}
