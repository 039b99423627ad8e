//! Evaluating many decision trees over many rows: what trees are, checked and laid out once by [`Builder`], run by
//! [`Forest`].
//!
//! Here are the trees alone: rows of numbers in, one sum (or average, least, greatest) of votes per target and row out.
//! What the numbers mean, and turning sums into labels and probabilities, belongs to `graph` and `formats`.

mod builder;
mod column;
mod error;
mod leaves;
mod nodes;
mod scores;
mod tree;
mod walk;

pub(crate) use builder::Builder;
pub(crate) use error::ForestError;
pub(crate) use scores::{Forest, Rows, Scratch};
pub(crate) use tree::{Aggregate, ForestConfig, Missing, Node, Numbers, Split, Test, Tree, Values, Vote};

#[cfg(test)]
mod tests;
