//! Why a description of trees is not a forest.

/// Why a description of trees is not a forest. Trees and nodes are counted from 0, in the order in which they were
/// given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ForestError {
    /// The forest as a whole.
    #[error("{0}")]
    Forest(&'static str),
    /// A tree without nodes.
    #[error("tree {tree}: it has no nodes")]
    Empty { tree: usize },
    /// A child that is not there.
    #[error("tree {tree}, node {node}: child {child} of {nodes} nodes")]
    Child { tree: usize, node: usize, child: usize, nodes: usize },
    /// A child that is the root, or that another node has too: a cycle, or a way that joins another.
    #[error("tree {tree}, node {node}: child {child} is reached in two ways")]
    Shared { tree: usize, node: usize, child: usize },
    /// A feature that the rows do not have.
    #[error("tree {tree}, node {node}: feature {feature} of {features}")]
    Feature { tree: usize, node: usize, feature: usize, features: usize },
    /// A target that the scores do not have.
    #[error("tree {tree}, node {node}: target {target} of {targets}")]
    Target { tree: usize, node: usize, target: usize, targets: usize },
    /// A threshold or a member that is not a number.
    #[error("tree {tree}, node {node}: compares with NaN")]
    Threshold { tree: usize, node: usize },
    /// A weight that is not a number.
    #[error("tree {tree}, node {node}: votes NaN")]
    Weight { tree: usize, node: usize },
    /// A range that reaches past its list.
    #[error("tree {tree}, node {node}: {what} {start}..{end} of {length}")]
    Range { tree: usize, node: usize, what: &'static str, start: usize, end: usize, length: usize },
    /// More than can be laid out.
    #[error("too large: {what} are {count}, at most {most} can be laid out")]
    TooLarge { what: &'static str, count: u64, most: u64 },
}
