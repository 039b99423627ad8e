//! Walking down trees, several ways at once, so that the wait for one node is the time for others'.
//!
//! A step takes about a dozen cycles from the load of a node to the load of its child, and little work; eight ways that
//! do not depend on each other fill the time. Nothing here branches on data but the question whether all ways have ended,
//! asked once in a few steps for trees of uneven depth.

#![expect(
    unsafe_code,
    reason = "every index was checked when the forest was laid out; checked again, runs take 1.5 to 1.9 times as long"
)]

use super::nodes::Packed;
use super::scores::Root;

/// Ways walked at once.
pub(super) const WAYS: usize = 8;

/// Keys of rows: for each group of `N` rows, column after column, one key per row. Column 0 is 0 throughout.
#[derive(Debug, Default)]
pub(super) struct Keys<const N: usize> {
    keys: Vec<[u32; N]>,
    columns: usize,
}

impl<const N: usize> Keys<N> {
    /// Makes room for `groups` of rows over `columns` columns, and gives the room of each group's columns from 1 on.
    pub(super) fn reset(&mut self, groups: usize, columns: usize) -> impl Iterator<Item = &mut [[u32; N]]> {
        self.columns = columns;
        self.keys.resize(groups * columns, [0; N]);
        self.keys.chunks_exact_mut(columns).map(|group| {
            group[0] = [0; N];
            &mut group[1..]
        })
    }
}

/// What the walks read: nodes and the bits of sets.
#[derive(Debug)]
pub(super) struct Ground<P> {
    nodes: Vec<P>,
    sets: Vec<u32>,
    columns: usize,
}

impl<P: Packed> Ground<P> {
    /// Nodes over keys of `columns` columns, or `None` where a node would lead outside.
    pub(super) fn new(nodes: Vec<P>, sets: Vec<u32>, columns: usize) -> Option<Self> {
        let is_sound = |(index, node): (usize, &P)| {
            let (column, is_set) = node.column_and_kind();
            let is_leaf = node.step() == 0 && column == 0 && !is_set;
            column < columns && (is_leaf || node.step() > 0 && node.step() < nodes.len() - index - 1)
        };
        let has_marks = nodes.iter().any(|node| node.column_and_kind().1);
        (nodes.iter().enumerate().all(is_sound) && (!has_marks || !sets.is_empty())).then_some(Self {
            nodes,
            sets,
            columns,
        })
    }

    /// Whether some node asks for membership.
    pub(super) fn has_sets(&self) -> bool {
        !self.sets.is_empty()
    }

    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.sets.as_slice())
    }

    /// The keys of the leaves that the rows of group `group` reach in one tree. `SETS` is [`Ground::has_sets`].
    #[inline(always)]
    pub(super) fn one_tree<const SETS: bool>(&self, root: &Root, keys: &Keys<WAYS>, group: usize) -> [u32; WAYS] {
        let keys = self.checked::<SETS, WAYS>(keys, group);
        let start = root.start as usize;
        assert!(start < self.nodes.len(), "a root of this forest");
        // SAFETY: the ways start at a node; `checked` found a key for each column, and those of column 0 are 0.
        unsafe {
            self.walk::<SETS>([start; WAYS], root.sure, root.most, |column, way| {
                *keys.get_unchecked(column).get_unchecked(way)
            })
        }
    }

    /// The keys of the leaves that the one row of `keys` reaches in `WAYS` trees. `SETS` is [`Ground::has_sets`].
    #[inline(always)]
    pub(super) fn one_row<const SETS: bool>(&self, roots: &[Root; WAYS], keys: &Keys<1>) -> [u32; WAYS] {
        let keys = self.checked::<SETS, 1>(keys, 0);
        let ways = roots.each_ref().map(|root| root.start as usize);
        assert!(ways.iter().all(|start| *start < self.nodes.len()), "roots of this forest");
        let sure = roots.iter().map(|root| root.sure).max().unwrap_or(0);
        let most = roots.iter().map(|root| root.most).max().unwrap_or(0);
        // SAFETY: as in `one_tree`, with one key for each column.
        unsafe { self.walk::<SETS>(ways, sure, most, |column, _| keys.get_unchecked(column)[0]) }
    }

    /// The keys of a group, which are enough for all columns of the nodes.
    #[inline(always)]
    fn checked<'k, const SETS: bool, const N: usize>(&self, keys: &'k Keys<N>, group: usize) -> &'k [[u32; N]] {
        assert!(keys.columns == self.columns && SETS == self.has_sets(), "keys of this forest");
        &keys.keys[group * self.columns..][..self.columns]
    }

    /// Walks every way `sure` steps, and then until all have ended or made `most`. Gives the keys of the nodes there.
    ///
    /// # Safety
    /// Every way is an index of a node; `key` may be asked for every column of the forest and every way, and gives 0 for
    /// column 0; `SETS` holds where some node asks for membership.
    #[inline(always)]
    unsafe fn walk<const SETS: bool>(
        &self,
        mut ways: [usize; WAYS],
        sure: u32,
        most: u32,
        key: impl Fn(usize, usize) -> u32,
    ) -> [u32; WAYS] {
        // Steps of all ways together: 0 once all have ended.
        let step = |ways: &mut [usize; WAYS]| {
            let mut steps = 0;
            for (number, way) in ways.iter_mut().enumerate() {
                // SAFETY: a way starts at a node. From there it goes to one of two children, which are nodes as `new` has
                // seen, or stays: a leaf's key is not less than the 0 of its column.
                let node = unsafe { self.nodes.get_unchecked(*way) };
                let is_second = if SETS {
                    let (column, is_set) = node.column_and_kind();
                    let key = key(column, number);
                    if is_set {
                        let word = node.key() as usize + (key / 32) as usize;
                        self.sets.get(word).is_some_and(|word| word >> (key % 32) & 1 == 1)
                    } else {
                        key > node.key()
                    }
                } else {
                    key(node.column(), number) > node.key()
                };
                steps |= node.step();
                *way += node.step() + usize::from(is_second);
            }
            steps
        };
        for _ in 0..sure {
            step(&mut ways);
        }
        let mut left = most - sure;
        while left > 0 && step(&mut ways) != 0 {
            left -= 1;
        }
        let mut leaves = [0; WAYS];
        for (leaf, way) in leaves.iter_mut().zip(ways) {
            // SAFETY: every step has led to a node.
            *leaf = unsafe { self.nodes.get_unchecked(way) }.key();
        }
        leaves
    }
}
