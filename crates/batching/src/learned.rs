//! What a queue has learned about its model, for people to look at.

use std::time::Duration;

use millrace_core::Group;

/// What is known about one group's run times.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The group: the values of the symbols other than the batch.
    pub group: Group,
    /// How many runs this rests on.
    pub runs: u64,
    /// The fixed cost of a run: `a` in t(n) = a + b·n. Zero where runs of several rows lose.
    pub per_run: Duration,
    /// The cost of each further row (token, where requests of different lengths ride together): `b`.
    pub per_row: Duration,
    /// The row counts that the model is specialised for; empty where it is for none or for any.
    pub prepared: Vec<usize>,
    /// The smallest row (or token) count beyond which more rows in one run no longer pay.
    pub best_rows: usize,
    /// Whether runs of several rows were seen to be slower per row than single ones, so that rows run one by one.
    pub is_row_by_row: bool,
}
