//! What is known about values before anything runs: types, shapes as far as they can be foretold, and whether rows keep to
//! themselves.

use super::value::Kind;

/// The size of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As many as the batch has rows, and each entry comes from its own row alone.
    Rows,
    Fixed(usize),
    Unknown,
}

impl Size {
    pub(crate) fn fixed(self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(size),
            Self::Rows | Self::Unknown => None,
        }
    }
}

/// What is known about a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fact {
    pub(crate) kind: Kind,
    /// The axes; `None` where not even their number is known.
    pub(crate) shape: Option<Vec<Size>>,
    /// The elements of a list of sizes, as the operator `Shape` makes.
    pub(crate) contents: Option<Vec<Size>>,
    /// Whether an element may depend on several rows.
    pub(crate) is_mixed: bool,
}

impl Fact {
    pub(crate) fn new(kind: Kind, shape: Option<Vec<Size>>) -> Self {
        let rows = shape.iter().flatten().filter(|size| **size == Size::Rows).count();
        Self { kind, shape, contents: None, is_mixed: rows > 1 }
    }

    /// One that mixes rows, if `is_mixed`.
    #[must_use]
    pub(crate) fn mixed_if(mut self, is_mixed: bool) -> Self {
        self.is_mixed |= is_mixed;
        self
    }

    /// The same with elements of another kind.
    #[must_use]
    pub(crate) fn of_kind(&self, kind: Kind) -> Self {
        Self { kind, shape: self.shape.clone(), contents: None, is_mixed: self.is_mixed }
    }

    pub(crate) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The size of axis `axis`.
    pub(crate) fn size(&self, axis: usize) -> Size {
        self.shape.as_ref().and_then(|shape| shape.get(axis)).copied().unwrap_or(Size::Unknown)
    }

    /// Whether the value depends on how many rows there are.
    pub(crate) fn counts_rows(&self) -> bool {
        self.contents.as_ref().is_some_and(|contents| contents.contains(&Size::Rows))
    }

    /// The numbers in a row of a value that operators of `ai.onnx.ml` read as a matrix; a lone list is one row.
    pub(crate) fn width(&self) -> Option<usize> {
        let shape = self.shape.as_ref()?;
        let sizes = if shape.len() < 2 { shape } else { &shape[1..] };
        sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(size.fixed()?))
    }

    /// How many rows an operator of `ai.onnx.ml` sees in it.
    pub(crate) fn height(&self) -> Size {
        match &self.shape {
            Some(shape) if shape.len() < 2 => Size::Fixed(1),
            Some(shape) => shape[0],
            None => Size::Unknown,
        }
    }

    /// Whether an operator that reads a value as a matrix takes several rows for one: a lone list whose entries are rows.
    pub(crate) fn is_list_of_rows(&self) -> bool {
        matches!(self.shape.as_deref(), None | Some([Size::Rows]))
    }

    /// Bytes of memory for each row, where that can be told.
    pub(crate) fn row_bytes(&self) -> u64 {
        let Some(shape) = &self.shape else { return 0 };
        if !shape.contains(&Size::Rows) {
            return 0;
        }
        let elements =
            shape.iter().filter_map(|size| size.fixed()).fold(1_u64, |total, size| total.saturating_mul(size as u64));
        elements.saturating_mul(self.kind.bytes())
    }
}

/// The shape of two values that are combined element by element, and whether that mixes rows.
pub(crate) fn broadcast(left: &Fact, right: &Fact) -> (Option<Vec<Size>>, bool) {
    let (Some(a), Some(b)) = (&left.shape, &right.shape) else { return (None, true) };
    let rank = a.len().max(b.len());
    let at =
        |shape: &[Size], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(Size::Fixed(1), |axis| shape[axis]);
    let mut is_mixed = false;
    let shape = (0..rank).map(|axis| match (at(a, axis), at(b, axis)) {
        (Size::Rows, Size::Rows | Size::Fixed(1)) | (Size::Fixed(1), Size::Rows) => Size::Rows,
        (Size::Rows, _) | (_, Size::Rows) => {
            is_mixed = true;
            Size::Unknown
        }
        (Size::Fixed(1), other) | (other, Size::Fixed(1)) => other,
        (Size::Fixed(size), _) | (_, Size::Fixed(size)) => Size::Fixed(size),
        (Size::Unknown, Size::Unknown) => Size::Unknown,
    });
    let shape = shape.collect();
    (Some(shape), is_mixed)
}
