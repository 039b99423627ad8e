//! Shapes whose element count is known to fit, so that nobody checks again.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

/// The largest rank of a tensor; a request with a higher one is refused before anything is allocated.
pub const MAX_RANK: usize = 32;

/// The sizes of a tensor's axes, outermost first. The product of the non-zero sizes fits in an `isize`.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(SmallVec<[usize; 4]>);

/// Why some numbers are not a shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More axes than [`MAX_RANK`].
    #[error("rank {rank} is above the limit of {MAX_RANK}")]
    Rank {
        /// The rank given.
        rank: usize,
    },
    /// The sizes multiply to more elements than memory can address.
    #[error("shape overflow: the number of elements does not fit in memory")]
    Overflow,
}

impl Shape {
    /// Checks rank and element count.
    ///
    /// # Errors
    /// [`ShapeError`] when the rank is above [`MAX_RANK`] or the non-zero sizes multiply past `isize::MAX`.
    pub fn new(sizes: &[usize]) -> Result<Self, ShapeError> {
        if sizes.len() > MAX_RANK {
            return Err(ShapeError::Rank { rank: sizes.len() });
        }
        // Zero sizes are left out of the product: `[0, 2^62]` is as unreasonable as `[1, 2^62, 4]`.
        let product = sizes.iter().filter(|&&n| n != 0).try_fold(1_usize, |product, &n| product.checked_mul(n));
        match product {
            Some(product) if isize::try_from(product).is_ok() => Ok(Self(SmallVec::from_slice(sizes))),
            _ => Err(ShapeError::Overflow),
        }
    }

    /// The shape of a rank-0 tensor.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// The number of elements; 1 for rank 0.
    pub fn n_elements(&self) -> usize {
        self.0.iter().product()
    }

    /// The number of elements in one row (one entry along axis 0); 1 for rank 0.
    pub fn row_elements(&self) -> usize {
        self.0.iter().skip(1).product()
    }

    /// The size of axis 0, or `None` for rank 0.
    pub fn rows(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// The same shape with another size of axis 0. Rank 0 stays as it is.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] when the new element count does not fit.
    pub fn with_rows(&self, rows: usize) -> Result<Self, ShapeError> {
        let mut sizes = self.0.clone();
        if let Some(first) = sizes.first_mut() {
            *first = rows;
        }
        Self::new(&sizes)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Written as `[3,224,224]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, size) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}
