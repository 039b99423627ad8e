//! Trees as `TreeEnsemble` of opset 5 describes them: lists of splits and lists of leaves, and where each tree begins.

use millrace_core::LoadError;
use millrace_onnx::ElementType;

use super::tree_nodes::Mode;
use crate::forest::{Missing, Node, Split, Test, Tree, Values, Vote};
use crate::graph::node::NodeView;
use crate::graph::value::Data;

/// How a split of opset 5 sends rows on.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain(Mode),
    /// By membership in this range of values.
    Member(usize, usize),
}

/// The lists of a node.
#[derive(Debug)]
pub(super) struct Parts {
    roots: Vec<i64>,
    kinds: Vec<Kind>,
    features: Vec<i64>,
    splits: Vec<f64>,
    yes: Vec<i64>,
    yes_is_leaf: Vec<i64>,
    no: Vec<i64>,
    no_is_leaf: Vec<i64>,
    tracked: Vec<i64>,
    members: Vec<f64>,
    leaf_targets: Vec<i64>,
    leaf_weights: Vec<f64>,
    pub(super) is_double: bool,
}

impl Parts {
    pub(super) fn read(node: &NodeView<'_>) -> Result<Self, LoadError> {
        let missing = |name: &str| node.invalid(format_args!("the attribute `{name}` is missing"));
        let ints = |name: &str| node.ints(name)?.ok_or_else(|| missing(name));
        let reals = |name: &str| -> Result<Option<(Vec<f64>, bool)>, LoadError> {
            match node.tensor(name)?.map(|value| value.data) {
                None => Ok(None),
                Some(Data::F32(items)) => Ok(Some((items.into_iter().map(f64::from).collect(), false))),
                Some(Data::F64(items)) => Ok(Some((items, true))),
                Some(other) => Err(node.unsupported(format_args!("the attribute `{name}` is {}", other.kind().name()))),
            }
        };
        let features = ints("nodes_featureids")?;
        let count = features.len();
        // What a node takes here and in the forest.
        const NODE_BYTES: u64 = 200;
        if (count as u64).saturating_mul(NODE_BYTES) > node.budget {
            return Err(
                node.too_large(format_args!("{count} nodes of trees; the memory budget is {} bytes", node.budget))
            );
        }
        let (splits, is_double) = reals("nodes_splits")?.ok_or_else(|| missing("nodes_splits"))?;
        let (leaf_weights, _) = reals("leaf_weights")?.ok_or_else(|| missing("leaf_weights"))?;
        let (members, _) = reals("membership_values")?.unwrap_or_default();
        let modes = node.raw_tensor("nodes_modes")?.ok_or_else(|| missing("nodes_modes"))?;
        if modes.element_type() != ElementType::Uint8 {
            return Err(node.invalid(format_args!(
                "the attribute `nodes_modes` is {}; expected UINT8",
                modes.element_type().name()
            )));
        }
        let no_file = |_: &str| Err::<&[u8], _>(std::io::ErrorKind::Unsupported.into());
        let modes = modes.data(no_file).map_err(|error| node.invalid(error))?;
        let kinds = kinds(node, &modes, &members)?;
        let parts = Self {
            roots: ints("tree_roots")?,
            kinds,
            features,
            splits,
            yes: ints("nodes_truenodeids")?,
            yes_is_leaf: ints("nodes_trueleafs")?,
            no: ints("nodes_falsenodeids")?,
            no_is_leaf: ints("nodes_falseleafs")?,
            tracked: node.ints("nodes_missing_value_tracks_true")?.unwrap_or_default(),
            members,
            leaf_targets: ints("leaf_targetids")?,
            leaf_weights,
            is_double,
        };
        let lengths = [
            ("nodes_modes", parts.kinds.len()),
            ("nodes_splits", parts.splits.len()),
            ("nodes_truenodeids", parts.yes.len()),
            ("nodes_trueleafs", parts.yes_is_leaf.len()),
            ("nodes_falsenodeids", parts.no.len()),
            ("nodes_falseleafs", parts.no_is_leaf.len()),
        ];
        lengths.into_iter().try_for_each(|(what, length)| node.same_length(what, length, count))?;
        if !parts.tracked.is_empty() {
            node.same_length("nodes_missing_value_tracks_true", parts.tracked.len(), count)?;
        }
        node.same_length("leaf_weights", parts.leaf_weights.len(), parts.leaf_targets.len())?;
        if parts.roots.is_empty() || count == 0 {
            return Err(node.invalid("it has no trees"));
        }
        Ok(parts)
    }

    /// The greatest feature that a node asks about.
    pub(super) fn greatest_feature(&self) -> i64 {
        self.features.iter().copied().max().unwrap_or(0)
    }

    /// Calls `visit` with each tree.
    pub(super) fn for_each_tree(
        &self,
        node: &NodeView<'_>,
        targets: usize,
        visit: &mut dyn FnMut(&Tree) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        // A split belongs to one place of one tree; else a small file could describe trees without end.
        let mut seen = vec![false; self.kinds.len()];
        for (number, root) in self.roots.iter().enumerate() {
            visit(&self.tree(node, number, *root, targets, &mut seen)?)?;
        }
        Ok(())
    }

    fn tree(
        &self,
        node: &NodeView<'_>,
        number: usize,
        root: i64,
        targets: usize,
        seen: &mut [bool],
    ) -> Result<Tree, LoadError> {
        let mut tree = Tree::default();
        let count = self.kinds.len();
        let split_at = |id: i64| {
            let split = usize::try_from(id).ok().filter(|split| *split < count);
            split.ok_or_else(|| node.invalid(format_args!("tree {number}: node {id} of {count}")))
        };
        let root = split_at(root)?;
        let is_lone_leaf = self.yes_is_leaf[root] != 0 && self.no_is_leaf[root] != 0 && self.yes[root] == self.no[root];
        if is_lone_leaf {
            seen[root] = true;
            self.add_leaf(node, &mut tree, self.yes[root], targets)?;
            return Ok(tree);
        }
        // Places in the tree that wait for their split.
        let mut waiting = vec![(root, 0)];
        tree.nodes.push(Node::Leaf(0..0));
        while let Some((split, place)) = waiting.pop() {
            if std::mem::replace(&mut seen[split], true) {
                return Err(node.invalid(format_args!("tree {number}: node {split} is reached in two ways")));
            }
            let mut children = [0; 2];
            let sides = [(self.yes[split], self.yes_is_leaf[split]), (self.no[split], self.no_is_leaf[split])];
            for (child, (id, is_leaf)) in children.iter_mut().zip(sides) {
                *child = tree.nodes.len();
                if is_leaf != 0 {
                    self.add_leaf(node, &mut tree, id, targets)?;
                } else {
                    tree.nodes.push(Node::Leaf(0..0));
                    waiting.push((split_at(id)?, *child));
                }
            }
            tree.nodes[place] = Node::Split(self.split(node, split, children, &mut tree.members)?);
        }
        Ok(tree)
    }

    fn split(
        &self,
        node: &NodeView<'_>,
        at: usize,
        [yes, no]: [usize; 2],
        members: &mut Vec<f64>,
    ) -> Result<Split, LoadError> {
        let given = self.features[at];
        let feature =
            usize::try_from(given).map_err(|_| node.invalid(format_args!("node {at} asks about feature {given}")))?;
        let is_tracked = self.tracked.get(at).is_some_and(|tracked| *tracked != 0);
        Ok(match self.kinds[at] {
            Kind::Plain(mode) => mode.split(feature, self.splits[at], is_tracked, yes, no, members),
            Kind::Member(start, end) => {
                let first = members.len();
                members.extend_from_slice(&self.members[start..end]);
                let missing = if is_tracked { Missing::Yes } else { Missing::No };
                Split { feature, test: Test::OneOf(first..members.len(), Values::Exact), missing, yes, no }
            }
        })
    }

    fn add_leaf(&self, node: &NodeView<'_>, tree: &mut Tree, id: i64, targets: usize) -> Result<(), LoadError> {
        let count = self.leaf_targets.len();
        let leaf = usize::try_from(id).ok().filter(|leaf| *leaf < count);
        let leaf = leaf.ok_or_else(|| node.invalid(format_args!("leaf {id} of {count}")))?;
        let given = self.leaf_targets[leaf];
        let target = usize::try_from(given).ok().filter(|target| *target < targets);
        let target = target.ok_or_else(|| node.invalid(format_args!("leaf {id}: target {given} of {targets}")))?;
        tree.votes.push(Vote { target, weight: self.leaf_weights[leaf] });
        tree.nodes.push(Node::Leaf(tree.votes.len() - 1..tree.votes.len()));
        Ok(())
    }
}

/// The modes of all splits. The members of each split by membership follow one another, with NaN between them.
fn kinds(node: &NodeView<'_>, modes: &[u8], members: &[f64]) -> Result<Vec<Kind>, LoadError> {
    let mut next = 0;
    let mut kinds = Vec::with_capacity(modes.len());
    for mode in modes {
        kinds.push(match mode {
            0 => Kind::Plain(Mode::AtMost),
            1 => Kind::Plain(Mode::Below),
            2 => Kind::Plain(Mode::AtLeast),
            3 => Kind::Plain(Mode::Above),
            4 => Kind::Plain(Mode::Equal),
            5 => Kind::Plain(Mode::NotEqual),
            6 => {
                let rest = members.get(next..).ok_or_else(|| node.invalid("`membership_values` has too few sets"))?;
                let length = rest.iter().position(|member| member.is_nan()).unwrap_or(rest.len());
                let start = next;
                next = start + length + 1;
                Kind::Member(start, start + length)
            }
            other => return Err(node.unsupported(format_args!("nodes of mode {other}; expected 0 to 6"))),
        });
    }
    Ok(kinds)
}
