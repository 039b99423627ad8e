//! Nodes as they lie in memory while rows run: a key, a column, and how far it is to the children.
//!
//! The two children of a node lie side by side, after it. A row whose key in the node's column is greater than the
//! node's key goes to the second. A leaf looks at a column that is always 0, is 0 away from its child, and so stays where
//! it is: walking too many steps does no harm, and no step needs a branch.

/// Set in the column of a node that asks for membership: its key is where its bits begin.
const IS_SET: u32 = 1 << 31;

/// A node before it is known how small it can be made. Columns of leaves are [`Draft::LEAF`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Draft {
    /// The threshold's key; of a set node, which set; of a leaf, which leaf.
    pub key: u64,
    /// The column.
    pub column: u32,
    /// From this node to its first child. At least 1, and 0 for leaves.
    pub step: u32,
}

impl Draft {
    /// The column of leaves.
    pub(super) const LEAF: u32 = u32::MAX;
}

/// A node at rest, in one of the two sizes.
pub(super) trait Packed: Copy + Send + Sync + 'static {
    /// Puts the parts together, if they fit.
    fn pack(key: u32, column: u32, step: u32, is_set: bool) -> Option<Self>;
    /// The threshold's key, where a set's bits begin, or what a leaf says.
    fn key(&self) -> u32;
    /// The column, in a forest that has no sets.
    fn column(&self) -> usize;
    /// The column and whether the node asks for membership.
    fn column_and_kind(&self) -> (usize, bool);
    /// From this node to its first child.
    fn step(&self) -> usize;
}

/// Eight bytes: enough for trees of some ten thousand nodes over as many columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Narrow {
    key: u32,
    column: u16,
    step: u16,
}

impl Packed for Narrow {
    fn pack(key: u32, column: u32, step: u32, is_set: bool) -> Option<Self> {
        let column = u16::try_from(column).ok().filter(|column| *column < 1 << 15)?;
        Some(Self { key, column: column | u16::from(is_set) << 15, step: u16::try_from(step).ok()? })
    }

    #[inline(always)]
    fn key(&self) -> u32 {
        self.key
    }

    #[inline(always)]
    fn column(&self) -> usize {
        usize::from(self.column)
    }

    #[inline(always)]
    fn column_and_kind(&self) -> (usize, bool) {
        (usize::from(self.column & 0x7fff), self.column >> 15 == 1)
    }

    #[inline(always)]
    fn step(&self) -> usize {
        usize::from(self.step)
    }
}

/// Twelve bytes, for larger ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide {
    key: u32,
    column: u32,
    step: u32,
}

impl Packed for Wide {
    fn pack(key: u32, column: u32, step: u32, is_set: bool) -> Option<Self> {
        (column < IS_SET).then_some(Self { key, column: if is_set { column | IS_SET } else { column }, step })
    }

    #[inline(always)]
    fn key(&self) -> u32 {
        self.key
    }

    #[inline(always)]
    fn column(&self) -> usize {
        self.column as usize
    }

    #[inline(always)]
    fn column_and_kind(&self) -> (usize, bool) {
        ((self.column & !IS_SET) as usize, self.column & IS_SET != 0)
    }

    #[inline(always)]
    fn step(&self) -> usize {
        self.step as usize
    }
}
