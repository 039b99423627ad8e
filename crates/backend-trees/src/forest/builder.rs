//! From trees as they are described to trees as they lie in memory: every index checked, every way ending in a leaf.

use std::collections::HashMap;
use std::ops::Range;

use super::column::{Column, FIRST_MEMBER, NAN, Number, Reading};
use super::leaves::Given;
use super::nodes::Draft;
use super::scores::{Forest, Root};
use super::{ForestConfig, ForestError, Missing, Node, Numbers, Split, Test, Tree, Values};

/// Words of 32 bits that all sets of a forest may take together.
const MOST_SET_WORDS: u64 = 1 << 26;

/// Trees as shallow as this are walked to their deepest leaf without asking; deeper ones as far as their leaves are deep on
/// average, and then step by step.
const SHALLOW: u32 = 8;

/// Collects trees for a [`Forest`].
#[derive(Debug)]
pub(crate) struct Builder {
    config: ForestConfig,
    columns: Vec<Column>,
    known: HashMap<(usize, Reading), u32>,
    drafts: Vec<Draft>,
    roots: Vec<Root>,
    given: Given,
    sets: Vec<Set>,
    members: Vec<f64>,
    starts_with_base: bool,
}

/// A split by membership, until all members of its column are known.
#[derive(Debug)]
struct Set {
    column: u32,
    members: Range<usize>,
    holds_nan: bool,
}

impl Builder {
    /// A forest without trees.
    ///
    /// # Errors
    /// [`ForestError::Forest`] when the configuration contradicts itself.
    pub(crate) fn new(config: ForestConfig) -> Result<Self, ForestError> {
        if config.features == 0 || config.targets == 0 {
            return Err(ForestError::Forest("a forest needs a feature and a target"));
        }
        if u32::try_from(config.features).is_err() || u32::try_from(config.targets).is_err() {
            return Err(ForestError::Forest("more than 2^32 features or targets"));
        }
        if !config.base.is_empty() && config.base.len() != config.targets {
            return Err(ForestError::Forest("base values are not one per target"));
        }
        if config.base.iter().any(|base| base.is_nan()) {
            return Err(ForestError::Forest("a base value is NaN"));
        }
        // Leaves look at a column that is always 0: the first. Its feature does not matter.
        let zero = Column { feature: 0, reading: Reading::Low, thresholds: Vec::new(), members: Vec::new() };
        Ok(Self {
            config,
            columns: vec![zero],
            known: HashMap::new(),
            drafts: Vec::new(),
            roots: Vec::new(),
            given: Given { targets: Some(Vec::new()), ..Given::default() },
            sets: Vec::new(),
            members: Vec::new(),
            starts_with_base: false,
        })
    }

    /// Adds the trees to the base values, one after the other, instead of the base values to what the trees add up to. With
    /// many trees and sums in `f32` that is another number.
    pub(crate) fn start_with_base(&mut self) {
        self.starts_with_base = true;
    }

    /// Adds a tree. Nodes that its root does not reach are left out. After an error the builder is of no further use.
    ///
    /// # Errors
    /// [`ForestError`] naming the node that is wrong.
    pub(crate) fn push(&mut self, tree: &Tree) -> Result<(), ForestError> {
        let number = self.roots.len();
        if tree.nodes.is_empty() {
            return Err(ForestError::Empty { tree: number });
        }
        let start = self.drafts.len();
        // Breadth first: the node at each place, and how deep it is. A place is given when the parent is laid.
        let mut order: Vec<(usize, u32)> = vec![(0, 0)];
        let mut is_placed = vec![false; tree.nodes.len()];
        is_placed[0] = true;
        let (mut leaves, mut depths, mut most) = (0_u64, 0_u64, 0);
        let mut target = None;
        let mut place = 0;
        while let Some(&(node, depth)) = order.get(place) {
            let draft = match &tree.nodes[node] {
                Node::Leaf(votes) => {
                    (leaves, depths, most) = (leaves + 1, depths + u64::from(depth), most.max(depth));
                    self.leaf(tree, node, votes, &mut target)?
                }
                Node::Split(split) => {
                    let (key, column, is_swapped) = self.split(tree, node, split)?;
                    let step = u32::try_from(order.len() - place).unwrap_or(u32::MAX);
                    let pair = if is_swapped { [split.no, split.yes] } else { [split.yes, split.no] };
                    for child in pair {
                        let nodes = tree.nodes.len();
                        match is_placed.get_mut(child) {
                            None => return Err(ForestError::Child { tree: number, node, child, nodes }),
                            Some(true) => return Err(ForestError::Shared { tree: number, node, child }),
                            Some(is_placed) => *is_placed = true,
                        }
                        order.push((child, depth + 1));
                    }
                    Draft { key, column, step }
                }
            };
            self.drafts.push(draft);
            place += 1;
        }
        let end = fits("nodes", self.drafts.len())?;
        let target = target.unwrap_or(0);
        if let Some(targets) = &mut self.given.targets {
            targets.push(target);
        }
        let sure = if most <= SHALLOW { most } else { u32::try_from(depths.div_ceil(leaves.max(1))).unwrap_or(most) };
        self.roots.push(Root { start: fits("nodes", start)?, end, sure, most, target });
        Ok(())
    }

    /// Lays the forest out.
    ///
    /// # Errors
    /// [`ForestError::TooLarge`] for what has no room.
    pub(crate) fn build(mut self) -> Result<Forest, ForestError> {
        self.gather_members();
        if self.config.input == Numbers::Double {
            self.rank_thresholds();
        }
        let words = self.set_words()?;
        if self.given.targets.is_none() {
            for root in &mut self.roots {
                root.target = 0;
            }
        }
        let forest = Forest::new(self.config, self.columns, &self.drafts, self.roots, &self.given, words)?;
        Ok(if self.starts_with_base { forest.starting_with_base() } else { forest })
    }

    fn leaf(
        &mut self,
        tree: &Tree,
        node: usize,
        votes: &Range<usize>,
        target: &mut Option<u32>,
    ) -> Result<Draft, ForestError> {
        let number = self.roots.len();
        let listed = tree.votes.get(votes.clone()).ok_or(ForestError::Range {
            tree: number,
            node,
            what: "votes",
            start: votes.start,
            end: votes.end,
            length: tree.votes.len(),
        })?;
        for vote in listed {
            let targets = self.config.targets;
            if vote.target >= targets {
                return Err(ForestError::Target { tree: number, node, target: vote.target, targets });
            }
            if vote.weight.is_nan() {
                return Err(ForestError::Weight { tree: number, node });
            }
        }
        let only = match listed {
            [vote] => u32::try_from(vote.target).ok(),
            _ => None,
        };
        if only.is_none() || target.is_some_and(|target| Some(target) != only) {
            self.given.targets = None;
        }
        *target = only;
        let leaf = fits("leaves", self.given.ends.len())?;
        self.given.votes.extend_from_slice(listed);
        self.given.ends.push(fits("votes", self.given.votes.len())?);
        Ok(Draft { key: u64::from(leaf), column: Draft::LEAF, step: 0 })
    }

    /// The key and the column of a split, and whether its yes is the second child.
    fn split(&mut self, tree: &Tree, node: usize, split: &Split) -> Result<(u64, u32, bool), ForestError> {
        let number = self.roots.len();
        let features = self.config.features;
        if split.feature >= features {
            return Err(ForestError::Feature { tree: number, node, feature: split.feature, features });
        }
        let threshold = match &split.test {
            Test::AtMost(value) | Test::Below(value) | Test::AtLeast(value) | Test::Above(value) => *value,
            Test::OneOf(members, values) => return self.set(tree, node, split, members, *values),
        };
        if threshold.is_nan() {
            return Err(ForestError::Threshold { tree: number, node });
        }
        let key = match (&split.test, self.config.input) {
            (Test::AtMost(_) | Test::Above(_), Numbers::Single) => f32::order_at_most(threshold),
            (Test::AtMost(_) | Test::Above(_), Numbers::Double) => f64::order_at_most(threshold),
            // Less than a number is at most what comes before the number.
            (_, Numbers::Single) => f32::order_at_least(threshold) - 1,
            (_, Numbers::Double) => f64::order_at_least(threshold) - 1,
        };
        let is_swapped = matches!(split.test, Test::AtLeast(_) | Test::Above(_));
        let reading = match (split.missing, is_swapped) {
            (Missing::Yes, false) | (Missing::No, true) => Reading::Low,
            (Missing::No, false) | (Missing::Yes, true) => Reading::High,
            (Missing::IsZero, _) => Reading::NanIsZero,
            (Missing::ZeroYes, false) | (Missing::ZeroNo, true) => Reading::ZeroLow,
            (Missing::ZeroNo, false) | (Missing::ZeroYes, true) => Reading::ZeroHigh,
        };
        Ok((key, self.column(split.feature, reading)?, is_swapped))
    }

    fn set(
        &mut self,
        tree: &Tree,
        node: usize,
        split: &Split,
        members: &Range<usize>,
        values: Values,
    ) -> Result<(u64, u32, bool), ForestError> {
        let number = self.roots.len();
        let listed = tree.members.get(members.clone()).ok_or(ForestError::Range {
            tree: number,
            node,
            what: "members",
            start: members.start,
            end: members.end,
            length: tree.members.len(),
        })?;
        if listed.iter().any(|member| member.is_nan()) {
            return Err(ForestError::Threshold { tree: number, node });
        }
        let holds_nan = match split.missing {
            Missing::Yes => true,
            Missing::No => false,
            Missing::IsZero => listed.contains(&0.0),
            Missing::ZeroYes | Missing::ZeroNo => {
                return Err(ForestError::Forest("zeros are missing for a split by membership"));
            }
        };
        let column = self.column(split.feature, Reading::Place(values))?;
        let start = self.members.len();
        self.members.extend_from_slice(listed);
        self.columns[column as usize].members.extend_from_slice(listed);
        self.sets.push(Set { column, members: start..self.members.len(), holds_nan });
        // Which set it is, not how large: that is known when all trees are.
        Ok(((self.sets.len() - 1) as u64, column, true))
    }

    fn column(&mut self, feature: usize, reading: Reading) -> Result<u32, ForestError> {
        if let Some(column) = self.known.get(&(feature, reading)) {
            return Ok(*column);
        }
        let column = fits("columns", self.columns.len())?;
        self.columns.push(Column { feature, reading, thresholds: Vec::new(), members: Vec::new() });
        self.known.insert((feature, reading), column);
        Ok(column)
    }

    fn gather_members(&mut self) {
        for column in &mut self.columns {
            column.members.sort_by(f64::total_cmp);
            // Both zeros are one member.
            column.members.dedup_by(|left, right| left == right);
            column.members.shrink_to_fit();
        }
    }

    /// For `f64` input: a node's key becomes the rank of its threshold among those of its column.
    fn rank_thresholds(&mut self) {
        let is_threshold = |column: &Column| !matches!(column.reading, Reading::Place(_));
        for draft in &self.drafts {
            if let Some(column) = self.columns.get_mut(draft.column as usize).filter(|column| is_threshold(column)) {
                column.thresholds.push(draft.key);
            }
        }
        for column in &mut self.columns {
            column.thresholds.sort_unstable();
            column.thresholds.dedup();
            column.thresholds.shrink_to_fit();
        }
        for draft in &mut self.drafts {
            if let Some(column) = self.columns.get(draft.column as usize).filter(|column| is_threshold(column)) {
                draft.key = column.thresholds.partition_point(|threshold| *threshold < draft.key) as u64;
            }
        }
    }

    /// The bits of all sets; a set node's key becomes the word where its bits begin.
    fn set_words(&mut self) -> Result<Vec<u32>, ForestError> {
        let length = |set: &Set| (self.columns[set.column as usize].members.len() + FIRST_MEMBER as usize).div_ceil(32);
        let total = self.sets.iter().map(|set| length(set) as u64).sum::<u64>();
        if total > MOST_SET_WORDS {
            let what = "words for the members of splits";
            return Err(ForestError::TooLarge { what, count: total, most: MOST_SET_WORDS });
        }
        let mut words: Vec<u32> = Vec::new();
        let mut starts = Vec::with_capacity(self.sets.len());
        for set in &self.sets {
            let start = words.len();
            starts.push(start as u64);
            words.resize(start + length(set), 0);
            let column = &self.columns[set.column as usize];
            let places = self.members[set.members.clone()].iter().map(|member| column.place(*member, Values::Exact));
            for place in places.filter(|place| *place >= FIRST_MEMBER).chain(set.holds_nan.then_some(NAN)) {
                words[start + place as usize / 32] |= 1 << (place % 32);
            }
        }
        for draft in &mut self.drafts {
            let reading = self.columns.get(draft.column as usize).map(|column| column.reading);
            if matches!(reading, Some(Reading::Place(_))) {
                draft.key = usize::try_from(draft.key).map_or(0, |set| starts[set]);
            }
        }
        Ok(words)
    }
}

fn fits(what: &'static str, count: usize) -> Result<u32, ForestError> {
    let most = u32::MAX - 2;
    let too_large = || ForestError::TooLarge { what, count: count as u64, most: u64::from(most) };
    u32::try_from(count).ok().filter(|count| *count <= most).ok_or_else(too_large)
}
