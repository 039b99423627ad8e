//! A forest at work: rows in, scores out.
//!
//! Rows are turned into keys, eight at a time; then some trees, as many as a first-level cache holds, are walked for some
//! hundred rows before the next trees are. A few rows are walked one by one instead, through eight trees at once.

use super::column::{Column, Number, Reading};
use super::leaves::{Given, Leaves, Sum};
use super::nodes::{Draft, Narrow, Packed, Wide};
use super::walk::{Ground, Keys, WAYS};
use super::{Aggregate, ForestConfig, ForestError, Numbers};

/// Bytes of nodes that are walked for all rows of a block before the next.
const NEAR: usize = 16 * 1024;

/// Bytes of keys of a block of rows, at most, where that is more than one group of rows.
const KEYS: usize = 16 * 1024;

/// A tree within the forest's nodes.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Steps that are made without looking whether they are needed, and steps to the farthest leaf.
    pub(super) sure: u32,
    pub(super) most: u32,
    /// The target that it votes for, where each leaf has one vote.
    pub(super) target: u32,
}

/// Trees, checked and laid out, shared by all threads.
#[derive(Debug)]
pub(crate) struct Forest {
    config: ForestConfig,
    /// Whether sums start with the base values instead of ending with them.
    starts_with_base: bool,
    columns: Vec<Column>,
    roots: Vec<Root>,
    /// Ranges of trees whose nodes stay near while many rows pass.
    blocks: Vec<(usize, usize)>,
    ground: Size,
    leaves: Votes,
}

#[derive(Debug)]
enum Size {
    Narrow(Ground<Narrow>),
    Wide(Ground<Wide>),
}

#[derive(Debug)]
enum Votes {
    Single(Leaves<f32>),
    Double(Leaves<f64>),
}

/// Rows of numbers, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// For forests over [`Numbers::Single`].
    Single(&'a [f32]),
    /// For forests over [`Numbers::Double`].
    Double(&'a [f64]),
}

/// Memory that a run needs and that the next one can use again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    groups: Keys<WAYS>,
    row: Keys<1>,
    single: Vec<f32>,
    double: Vec<f64>,
}

impl Forest {
    pub(super) fn new(
        config: ForestConfig,
        columns: Vec<Column>,
        drafts: &[Draft],
        roots: Vec<Root>,
        given: &Given,
        sets: Vec<u32>,
    ) -> Result<Self, ForestError> {
        let leaves = match config.sums {
            Numbers::Single => Votes::Single(Leaves::new(given, config.targets, config.aggregate)),
            Numbers::Double => Votes::Double(Leaves::new(given, config.targets, config.aggregate)),
        };
        let is_inline = matches!(leaves, Votes::Single(Leaves::Inline) | Votes::Double(Leaves::Inline));
        let weights = is_inline.then_some(given);
        let narrow =
            packed(drafts, &columns, weights).and_then(|nodes| Ground::new(nodes, sets.clone(), columns.len()));
        let wide = || packed(drafts, &columns, weights).and_then(|nodes| Ground::new(nodes, sets, columns.len()));
        let ground = narrow.map(Size::Narrow).or_else(|| wide().map(Size::Wide));
        let too_large = ForestError::TooLarge { what: "columns", count: columns.len() as u64, most: 1 << 31 };
        Ok(Self {
            blocks: blocks(&roots),
            ground: ground.ok_or(too_large)?,
            starts_with_base: false,
            config,
            columns,
            roots,
            leaves,
        })
    }

    /// The same forest, with sums that start with the base values. Nothing changes where votes are not added.
    pub(super) fn starting_with_base(self) -> Self {
        let starts_with_base = self.config.aggregate == Aggregate::Sum && !self.config.base.is_empty();
        Self { starts_with_base, ..self }
    }

    /// What all trees share.
    pub(crate) fn config(&self) -> &ForestConfig {
        &self.config
    }

    /// How many trees there are.
    pub(crate) fn n_trees(&self) -> usize {
        self.roots.len()
    }

    /// How many nodes there are, leaves included.
    pub(crate) fn n_nodes(&self) -> usize {
        self.roots.last().map_or(0, |root| root.end as usize)
    }

    /// Bytes of memory that the forest holds.
    pub(crate) fn bytes(&self) -> usize {
        let column =
            |column: &Column| size_of_val(column.members.as_slice()) + size_of_val(column.thresholds.as_slice());
        let ground = match &self.ground {
            Size::Narrow(ground) => ground.bytes(),
            Size::Wide(ground) => ground.bytes(),
        };
        let leaves = match &self.leaves {
            Votes::Single(leaves) => leaves.bytes(),
            Votes::Double(leaves) => leaves.bytes(),
        };
        ground + leaves + size_of_val(self.roots.as_slice()) + self.columns.iter().map(column).sum::<usize>()
    }

    /// Writes the scores of `rows` into `scores`, a row of targets for each row of features.
    ///
    /// # Panics
    /// When the numbers are not of the configured type, or are not rows of as many features and targets.
    pub(crate) fn scores(&self, rows: Rows<'_>, scratch: &mut Scratch, scores: &mut [f64]) {
        match (rows, self.config.input) {
            (Rows::Single(rows), Numbers::Single) => self.scores_of(rows, scratch, scores),
            (Rows::Double(rows), Numbers::Double) => self.scores_of(rows, scratch, scores),
            _ => panic!("a forest over {:?} got other numbers", self.config.input),
        }
    }

    fn scores_of<T: Number>(&self, rows: &[T], scratch: &mut Scratch, scores: &mut [f64]) {
        let n_rows = rows.len() / self.config.features;
        assert!(
            n_rows * self.config.features == rows.len() && n_rows * self.config.targets == scores.len(),
            "{} numbers of {} features for {} scores",
            rows.len(),
            self.config.features,
            scores.len()
        );
        let Scratch { groups, row, single, double } = scratch;
        match (&self.ground, &self.leaves) {
            (Size::Narrow(ground), Votes::Single(leaves)) => {
                Run { forest: self, ground, leaves }.all(rows, groups, row, single, scores)
            }
            (Size::Narrow(ground), Votes::Double(leaves)) => {
                Run { forest: self, ground, leaves }.all(rows, groups, row, double, scores)
            }
            (Size::Wide(ground), Votes::Single(leaves)) => {
                Run { forest: self, ground, leaves }.all(rows, groups, row, single, scores)
            }
            (Size::Wide(ground), Votes::Double(leaves)) => {
                Run { forest: self, ground, leaves }.all(rows, groups, row, double, scores)
            }
        }
    }
}

/// A forest in its form.
struct Run<'a, P, S> {
    forest: &'a Forest,
    ground: &'a Ground<P>,
    leaves: &'a Leaves<S>,
}

impl<P: Packed, S: Sum> Run<'_, P, S> {
    fn all<T: Number>(
        &self,
        rows: &[T],
        groups: &mut Keys<WAYS>,
        row: &mut Keys<1>,
        sums: &mut Vec<S>,
        scores: &mut [f64],
    ) {
        let ForestConfig { features, targets, .. } = self.forest.config;
        let row_keys = self.forest.columns.len() * size_of::<u32>();
        let block = (KEYS / row_keys / WAYS).max(1) * WAYS;
        for (rows, scores) in rows.chunks(block * features).zip(scores.chunks_mut(block * targets)) {
            let n_rows = rows.len() / features;
            let whole = n_rows - n_rows % WAYS;
            sums.clear();
            sums.resize(n_rows * targets, if self.is_sum() { S::ZERO } else { S::NAN });
            if self.forest.starts_with_base {
                for (target, base) in self.forest.config.base.iter().enumerate() {
                    sums.iter_mut().skip(target).step_by(targets).for_each(|sum| *sum = S::of(*base));
                }
            }
            let (grouped, rest) = sums.split_at_mut(whole * targets);
            let (grouped_rows, rest_rows) = rows.split_at(whole * features);
            if self.ground.has_sets() {
                self.groups::<T, true>(grouped_rows, groups, grouped);
                self.singles::<T, true>(rest_rows, row, rest);
            } else {
                self.groups::<T, false>(grouped_rows, groups, grouped);
                self.singles::<T, false>(rest_rows, row, rest);
            }
            self.finish(sums, scores);
        }
    }

    /// Rows in groups, each through tree after tree.
    fn groups<T: Number, const SETS: bool>(&self, rows: &[T], keys: &mut Keys<WAYS>, sums: &mut [S]) {
        let ForestConfig { features, targets, .. } = self.forest.config;
        let n_groups = rows.len() / (features * WAYS);
        let columns = &self.forest.columns;
        for (rows, keys) in rows.chunks_exact(features * WAYS).zip(keys.reset(n_groups, columns.len())) {
            for (column, keys) in columns[1..].iter().zip(keys) {
                column.fill(rows, features, keys);
            }
        }
        for (from, to) in &self.forest.blocks {
            for (group, sums) in sums.chunks_exact_mut(targets * WAYS).enumerate() {
                for root in &self.forest.roots[*from..*to] {
                    let leaves = self.ground.one_tree::<SETS>(root, keys, group);
                    self.add_group(&leaves, root, sums);
                }
            }
        }
    }

    /// Rows one by one, each through some trees at once.
    fn singles<T: Number, const SETS: bool>(&self, rows: &[T], keys: &mut Keys<1>, sums: &mut [S]) {
        let ForestConfig { features, targets, .. } = self.forest.config;
        let columns = &self.forest.columns;
        let (some, rest) = self.forest.roots.as_chunks::<WAYS>();
        for (row, sums) in rows.chunks_exact(features).zip(sums.chunks_exact_mut(targets)) {
            for target in keys.reset(1, columns.len()) {
                for (column, key) in columns[1..].iter().zip(target) {
                    column.fill(row, features, key);
                }
            }
            for roots in some {
                let leaves = self.ground.one_row::<SETS>(roots, keys);
                for (leaf, root) in leaves.iter().zip(roots) {
                    self.add(*leaf, root, sums);
                }
            }
            if let Some(last) = rest.last() {
                let roots: [Root; WAYS] = std::array::from_fn(|index| rest.get(index).unwrap_or(last).clone());
                let leaves = self.ground.one_row::<SETS>(&roots, keys);
                for (leaf, root) in leaves.iter().zip(rest) {
                    self.add(*leaf, root, sums);
                }
            }
        }
    }

    /// Adds what the leaves that a group of rows reached in one tree say.
    #[inline(always)]
    fn add_group(&self, leaves: &[u32; WAYS], root: &Root, sums: &mut [S]) {
        let targets = self.forest.config.targets;
        let target = root.target as usize;
        // One loop for each form, so that no choice is made for each row; the most frequent have the simplest.
        match (self.leaves, self.is_sum(), sums.as_mut_array::<WAYS>()) {
            (Leaves::Inline, true, Some(sums)) => {
                for (leaf, sum) in leaves.iter().zip(sums) {
                    *sum = sum.plus(S::of_bits(*leaf));
                }
            }
            (Leaves::One(weights), true, Some(sums)) => {
                for (leaf, sum) in leaves.iter().zip(sums) {
                    *sum = sum.plus(weights[*leaf as usize]);
                }
            }
            (Leaves::Inline, true, None) => {
                for (way, leaf) in leaves.iter().enumerate() {
                    let sum = &mut sums[way * targets + target];
                    *sum = sum.plus(S::of_bits(*leaf));
                }
            }
            _ => {
                for (leaf, sums) in leaves.iter().zip(sums.chunks_exact_mut(targets)) {
                    self.add(*leaf, root, sums);
                }
            }
        }
    }

    #[inline(always)]
    fn add(&self, leaf: u32, root: &Root, sums: &mut [S]) {
        let target = root.target as usize;
        match self.forest.config.aggregate {
            Aggregate::Sum | Aggregate::Average => self.leaves.add(leaf, target, sums),
            // NaN, of which no vote is, gives way to every vote.
            Aggregate::Min => self.leaves.each(leaf, target, |target, vote| {
                if sums[target].widen().is_nan() || vote < sums[target] {
                    sums[target] = vote;
                }
            }),
            Aggregate::Max => self.leaves.each(leaf, target, |target, vote| {
                if sums[target].widen().is_nan() || vote > sums[target] {
                    sums[target] = vote;
                }
            }),
        }
    }

    fn is_sum(&self) -> bool {
        matches!(self.forest.config.aggregate, Aggregate::Sum | Aggregate::Average)
    }

    /// From sums to scores: averages, targets that nobody voted for, base values.
    fn finish(&self, sums: &[S], scores: &mut [f64]) {
        let ForestConfig { targets, aggregate, base, .. } = &self.forest.config;
        let trees = S::of(self.forest.roots.len().max(1) as f64);
        for (sums, scores) in sums.chunks_exact(*targets).zip(scores.chunks_exact_mut(*targets)) {
            for (target, (sum, score)) in sums.iter().zip(scores).enumerate() {
                let sum = match aggregate {
                    Aggregate::Average => sum.over(trees),
                    Aggregate::Min | Aggregate::Max if sum.widen().is_nan() => S::ZERO,
                    Aggregate::Sum | Aggregate::Min | Aggregate::Max => *sum,
                };
                *score = match base.get(target) {
                    Some(base) if !self.forest.starts_with_base => sum.plus(S::of(*base)).widen(),
                    _ => sum.widen(),
                };
            }
        }
    }
}

/// Packs `drafts` into nodes of one size, if they fit. With `weights`, a leaf's key is its only vote.
fn packed<P: Packed>(drafts: &[Draft], columns: &[Column], weights: Option<&Given>) -> Option<Vec<P>> {
    let pack = |draft: &Draft| {
        if draft.column == Draft::LEAF {
            let key = match weights {
                Some(given) => f32::of(given.votes.get(usize::try_from(draft.key).ok()?)?.weight).to_bits(),
                None => u32::try_from(draft.key).ok()?,
            };
            return P::pack(key, 0, 0, false);
        }
        let is_set = matches!(columns.get(draft.column as usize)?.reading, Reading::Place(_));
        P::pack(u32::try_from(draft.key).ok()?, draft.column, draft.step, is_set)
    };
    drafts.iter().map(pack).collect()
}

/// Cuts the trees into ranges of about [`NEAR`] bytes.
fn blocks(roots: &[Root]) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    let mut from = 0;
    for (number, root) in roots.iter().enumerate() {
        let bytes = (root.end - roots[from].start) as usize * size_of::<Narrow>();
        if bytes > NEAR && number > from {
            blocks.push((from, number));
            from = number;
        }
    }
    if from < roots.len() {
        blocks.push((from, roots.len()));
    }
    blocks
}
