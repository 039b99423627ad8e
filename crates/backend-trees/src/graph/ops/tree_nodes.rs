//! Trees as the operators of opsets 1 to 3 describe them: lists in parallel, one entry for each node and for each vote.

use std::collections::HashMap;

use millrace_core::{LoadError, LoadErrorKind};

use crate::forest::{
    Aggregate, Builder, Forest, ForestConfig, ForestError, Missing, Node, Numbers, Split, Test, Tree, Values, Vote,
};
use crate::graph::node::NodeView;

/// How a node sends rows on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    NotEqual,
    Leaf,
}

impl Mode {
    fn read(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"BRANCH_LEQ" => Self::AtMost,
            b"BRANCH_LT" => Self::Below,
            b"BRANCH_GTE" => Self::AtLeast,
            b"BRANCH_GT" => Self::Above,
            b"BRANCH_EQ" => Self::Equal,
            b"BRANCH_NEQ" => Self::NotEqual,
            b"LEAF" => Self::Leaf,
            _ => return None,
        })
    }

    /// The split of a row by `value` of `feature`. A value that is not there passes no test, but for the one that it is not
    /// equal, or goes to the true branch where the node says so.
    pub(super) fn split(
        self,
        feature: usize,
        value: f64,
        is_tracked: bool,
        yes: usize,
        no: usize,
        members: &mut Vec<f64>,
    ) -> Split {
        let missing = if is_tracked { Missing::Yes } else { Missing::No };
        let test = match self {
            Self::AtMost | Self::Leaf => Test::AtMost(value),
            Self::Below => Test::Below(value),
            Self::AtLeast => Test::AtLeast(value),
            Self::Above => Test::Above(value),
            Self::Equal | Self::NotEqual => {
                members.push(value);
                Test::OneOf(members.len() - 1..members.len(), Values::Exact)
            }
        };
        match self {
            // Asked the other way round; NaN differs from everything.
            Self::NotEqual => Split { feature, test, missing: Missing::No, yes: no, no: yes },
            _ => Split { feature, test, missing, yes, no },
        }
    }
}

/// Entries of lists, put together by trees in the order in which those first appear.
#[derive(Debug)]
struct ByTree {
    entries: Vec<usize>,
    /// Where each tree's entries begin, and the end of the last.
    starts: Vec<usize>,
}

impl ByTree {
    fn new(trees: impl Iterator<Item = usize> + Clone, n_trees: usize) -> Self {
        let mut starts = vec![0; n_trees + 1];
        trees.clone().for_each(|tree| starts[tree + 1] += 1);
        for tree in 0..n_trees {
            starts[tree + 1] += starts[tree];
        }
        let mut next = starts.clone();
        let mut entries = vec![0; starts[n_trees]];
        for (entry, tree) in trees.enumerate() {
            entries[next[tree]] = entry;
            next[tree] += 1;
        }
        Self { entries, starts }
    }

    fn of(&self, tree: usize) -> &[usize] {
        &self.entries[self.starts[tree]..self.starts[tree + 1]]
    }
}

/// The lists of a node `TreeEnsembleClassifier` or `TreeEnsembleRegressor`.
#[derive(Debug)]
pub(super) struct Columns {
    nodes: ByTree,
    votes: ByTree,
    node_ids: Vec<i64>,
    features: Vec<i64>,
    values: Vec<f64>,
    modes: Vec<Mode>,
    yes: Vec<i64>,
    no: Vec<i64>,
    tracked: Vec<i64>,
    vote_nodes: Vec<i64>,
    vote_targets: Vec<i64>,
    pub(super) weights: Vec<f64>,
    n_trees: usize,
    /// Whether numbers stand in the file as doubles.
    pub(super) is_double: bool,
}

impl Columns {
    /// Reads the lists; those of votes are called after `prefix`: `class` or `target`.
    pub(super) fn read(node: &NodeView<'_>, prefix: &str) -> Result<Self, LoadError> {
        let ints = |name: &str| {
            node.ints(name)?.ok_or_else(|| node.invalid(format_args!("the attribute `{name}` is missing")))
        };
        let reals = |name: &str| {
            let numbers = node.reals(name)?;
            numbers.ok_or_else(|| node.invalid(format_args!("the attribute `{name}` is missing")))
        };
        let tree_ids = ints("nodes_treeids")?;
        let count = tree_ids.len();
        if count == 0 {
            return Err(node.invalid("it has no trees"));
        }
        // What a node takes here and in the forest.
        const NODE_BYTES: u64 = 200;
        if (count as u64).saturating_mul(NODE_BYTES) > node.budget {
            return Err(
                node.too_large(format_args!("{count} nodes of trees; the memory budget is {} bytes", node.budget))
            );
        }
        let mut modes = Vec::with_capacity(count);
        for word in node.each_string("nodes_modes")? {
            let mode = Mode::read(word).ok_or_else(|| {
                let word = crate::graph::node::short(&String::from_utf8_lossy(word));
                node.unsupported(format_args!("nodes of mode `{word}`"))
            })?;
            modes.push(mode);
        }
        let (values, is_double) = reals("nodes_values")?;
        let list = |what: &str| format!("{prefix}_{what}");
        let (weights, has_double_weights) = reals(&list("weights"))?;
        let vote_trees = ints(&list("treeids"))?;
        let tracked = node.ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
        let mut numbers: HashMap<i64, usize> = HashMap::new();
        let mut number = |id: i64| {
            let next = numbers.len();
            *numbers.entry(id).or_insert(next)
        };
        let node_trees: Vec<usize> = tree_ids.into_iter().map(&mut number).collect();
        let n_trees = numbers.len();
        let vote_trees: Vec<usize> = vote_trees
            .iter()
            .map(|id| {
                numbers
                    .get(id)
                    .copied()
                    .ok_or_else(|| node.invalid(format_args!("a vote in tree {id}, which is not there")))
            })
            .collect::<Result<_, _>>()?;
        let columns = Self {
            nodes: ByTree::new(node_trees.iter().copied(), n_trees),
            votes: ByTree::new(vote_trees.iter().copied(), n_trees),
            node_ids: ints("nodes_nodeids")?,
            features: ints("nodes_featureids")?,
            values,
            modes,
            yes: ints("nodes_truenodeids")?,
            no: ints("nodes_falsenodeids")?,
            tracked,
            vote_nodes: ints(&list("nodeids"))?,
            vote_targets: ints(&list("ids"))?,
            weights,
            n_trees,
            is_double: is_double || has_double_weights,
        };
        let lengths = [
            ("nodes_nodeids", columns.node_ids.len()),
            ("nodes_featureids", columns.features.len()),
            ("nodes_values", columns.values.len()),
            ("nodes_modes", columns.modes.len()),
            ("nodes_truenodeids", columns.yes.len()),
            ("nodes_falsenodeids", columns.no.len()),
        ];
        lengths.into_iter().try_for_each(|(what, length)| node.same_length(what, length, count))?;
        if !columns.tracked.is_empty() {
            node.same_length("nodes_missing_value_tracks_true", columns.tracked.len(), count)?;
        }
        let votes = vote_trees.len();
        node.same_length(&list("nodeids"), columns.vote_nodes.len(), votes)?;
        node.same_length(&list("ids"), columns.vote_targets.len(), votes)?;
        node.same_length(&list("weights"), columns.weights.len(), votes)?;
        Ok(columns)
    }

    /// The targets that votes are for.
    pub(super) fn targets(&self) -> &[i64] {
        &self.vote_targets
    }

    /// The greatest feature that a node asks about.
    pub(super) fn greatest_feature(&self) -> i64 {
        let splits = self.features.iter().zip(&self.modes).filter(|(_, mode)| **mode != Mode::Leaf);
        splits.map(|(feature, _)| *feature).max().unwrap_or(0)
    }

    /// Calls `visit` with each tree. Votes go to the targets that `target` makes of theirs.
    pub(super) fn for_each_tree(
        &self,
        node: &NodeView<'_>,
        target: &dyn Fn(i64) -> Option<usize>,
        visit: &mut dyn FnMut(&Tree) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        (0..self.n_trees).try_for_each(|number| visit(&self.tree(node, number, target)?))
    }

    fn tree(
        &self,
        node: &NodeView<'_>,
        number: usize,
        target: &dyn Fn(i64) -> Option<usize>,
    ) -> Result<Tree, LoadError> {
        let entries = self.nodes.of(number);
        let is_plain = entries.iter().zip(0_i64..).all(|(entry, place)| self.node_ids[*entry] == place);
        let mut places = HashMap::new();
        if !is_plain {
            for (place, entry) in entries.iter().enumerate() {
                if places.insert(self.node_ids[*entry], place).is_some() {
                    return Err(node.invalid(format_args!("tree {number}: two nodes {}", self.node_ids[*entry])));
                }
            }
        }
        let place = |id: i64| match is_plain {
            true => usize::try_from(id).ok().filter(|place| *place < entries.len()),
            false => places.get(&id).copied(),
        };
        let mut votes: Vec<(usize, Vote)> = Vec::with_capacity(self.votes.of(number).len());
        for entry in self.votes.of(number) {
            let id = self.vote_nodes[*entry];
            let leaf = place(id)
                .ok_or_else(|| node.invalid(format_args!("tree {number}: a vote of node {id}, which is not there")))?;
            let given = self.vote_targets[*entry];
            let target = target(given)
                .ok_or_else(|| node.invalid(format_args!("tree {number}: a vote for {given}, which is not there")))?;
            votes.push((leaf, Vote { target, weight: self.weights[*entry] }));
        }
        votes.sort_by_key(|(leaf, _)| *leaf);
        let mut tree = Tree { nodes: Vec::with_capacity(entries.len()), ..Tree::default() };
        let mut next = 0;
        for (at, entry) in entries.iter().enumerate() {
            let start = next;
            while votes.get(next).is_some_and(|(leaf, _)| *leaf == at) {
                next += 1;
            }
            if self.modes[*entry] == Mode::Leaf {
                tree.nodes.push(Node::Leaf(start..next));
                continue;
            }
            let child = |id: i64| {
                place(id).ok_or_else(|| {
                    node.invalid(format_args!(
                        "tree {number}, node {}: its child {id} is not there",
                        self.node_ids[*entry]
                    ))
                })
            };
            let given = self.features[*entry];
            let feature = usize::try_from(given)
                .map_err(|_| node.invalid(format_args!("tree {number}: it asks about feature {given}")))?;
            let is_tracked = self.tracked.get(*entry).is_some_and(|tracked| *tracked == 1);
            let (yes, no) = (child(self.yes[*entry])?, child(self.no[*entry])?);
            tree.nodes.push(Node::Split(self.modes[*entry].split(
                feature,
                self.values[*entry],
                is_tracked,
                yes,
                no,
                &mut tree.members,
            )));
        }
        tree.votes = votes.into_iter().map(|(_, vote)| vote).collect();
        Ok(tree)
    }
}

/// What the three operators of trees have in common when a forest is made.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) features: usize,
    pub(super) targets: usize,
    pub(super) aggregate: Aggregate,
    pub(super) input: Numbers,
    pub(super) sums: Numbers,
    pub(super) base: Vec<f64>,
}

/// Builds a forest of the trees that `each` gives out.
pub(super) fn forest(
    node: &NodeView<'_>,
    frame: Frame,
    each: impl FnOnce(&mut dyn FnMut(&Tree) -> Result<(), LoadError>) -> Result<(), LoadError>,
) -> Result<Forest, LoadError> {
    let Frame { features, targets, aggregate, input, sums, base } = frame;
    let failed = |error: ForestError| {
        let kind = if matches!(error, ForestError::TooLarge { .. }) {
            LoadErrorKind::TooLarge
        } else {
            LoadErrorKind::Invalid
        };
        node.error(kind, error)
    };
    let mut builder = Builder::new(ForestConfig { features, targets, input, aggregate, sums, base }).map_err(failed)?;
    each(&mut |tree| builder.push(tree).map_err(failed))?;
    let forest = builder.build().map_err(failed)?;
    if forest.bytes() as u64 > node.budget {
        return Err(node.too_large(format_args!(
            "its trees take {} bytes; the memory budget is {}",
            forest.bytes(),
            node.budget
        )));
    }
    Ok(forest)
}
