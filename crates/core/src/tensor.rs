//! Tensors: a dtype, a shape and shared bytes. Cloning and cutting rows never copies elements.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{DType, Element, Shape, ShapeError};

/// The tensors of one request or answer, in the order of the signature. Lists are moved from layer to layer, so no more
/// than the usual one tensor lies in them.
pub type TensorList = SmallVec<[Tensor; 1]>;

/// A row-major, little-endian tensor. The bytes are shared: a clone or a range of rows points into the same buffer.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Data,
}

#[derive(Clone, PartialEq)]
enum Data {
    Fixed(Bytes),
    /// In a box: they are rare, and by themselves twice as large as the bytes of any other.
    Strings(Box<Strings>),
}

/// Why bytes are not a tensor, or a tensor is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The sizes are not a shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The data has another length than shape and dtype say. Units: bytes for fixed-size dtypes, elements for `BYTES`.
    #[error("shape {shape} of {dtype} wants {expected} {unit}, got {got}")]
    Length {
        /// The declared shape.
        shape: Shape,
        /// The declared dtype.
        dtype: DType,
        /// `bytes` or `elements`.
        unit: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A `BOOL` byte other than 0 or 1.
    #[error("a BOOL element is neither 0 nor 1")]
    Bool,
    /// The elements were asked for as another type.
    #[error("expected elements of {expected}, got {got}")]
    DType {
        /// The dtype asked for.
        expected: DType,
        /// The tensor's dtype.
        got: DType,
    },
    /// Tensors to be joined differ in dtype or in row shape.
    #[error("cannot join {left} and {right}")]
    Join {
        /// The first tensor's dtype and shape.
        left: String,
        /// The one that does not fit.
        right: String,
    },
}

/// Keeps a typed vector alive behind [`Bytes`], so that computed outputs leave without a copy.
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// A tensor of a fixed-size dtype over `data`, row-major and little-endian.
    ///
    /// # Errors
    /// [`TensorError`] when the length is not what shape and dtype ask for, a `BOOL` byte is neither 0 nor 1, or the
    /// dtype is [`DType::Bytes`] (use [`Tensor::from_strings`]).
    pub fn new(dtype: DType, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let Some(size) = dtype.size() else {
            return Err(TensorError::DType { expected: DType::Uint8, got: dtype });
        };
        let expected = shape.n_elements().checked_mul(size).ok_or(ShapeError::Overflow)?;
        if expected != data.len() {
            return Err(TensorError::Length { shape, dtype, unit: "bytes", expected, got: data.len() });
        }
        if dtype == DType::Bool && data.iter().any(|&byte| byte > 1) {
            return Err(TensorError::Bool);
        }
        Ok(Self { dtype, shape, data: Data::Fixed(data) })
    }

    /// A tensor over a typed vector, without a copy.
    ///
    /// # Errors
    /// [`TensorError`] when the sizes are not a shape or ask for another number of elements.
    pub fn from_vec<T: Element>(sizes: &[usize], elements: Vec<T>) -> Result<Self, TensorError> {
        let shape = Shape::new(sizes)?;
        let (expected, got) = (shape.n_elements(), elements.len());
        if expected != got {
            return Err(TensorError::Length { shape, dtype: T::DTYPE, unit: "elements", expected, got });
        }
        Ok(Self { dtype: T::DTYPE, shape, data: Data::Fixed(Bytes::from_owner(Owned(elements))) })
    }

    /// A `BYTES` tensor.
    ///
    /// # Errors
    /// [`TensorError`] when the sizes are not a shape or ask for another number of elements.
    pub fn from_strings(sizes: &[usize], strings: Strings) -> Result<Self, TensorError> {
        let shape = Shape::new(sizes)?;
        let (expected, got) = (shape.n_elements(), strings.len());
        if expected != got {
            return Err(TensorError::Length { shape, dtype: DType::Bytes, unit: "elements", expected, got });
        }
        Ok(Self { dtype: DType::Bytes, shape, data: Data::Strings(Box::new(strings)) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The row-major little-endian bytes, or `None` for a `BYTES` tensor.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Fixed(bytes) => Some(bytes),
            Data::Strings(_) => None,
        }
    }

    /// The elements of a `BYTES` tensor, or `None` for any other.
    pub fn strings(&self) -> Option<&Strings> {
        match &self.data {
            Data::Fixed(_) => None,
            Data::Strings(strings) => Some(strings),
        }
    }

    /// The elements as `T`: borrowed where the bytes are aligned for it, else copied once.
    ///
    /// # Errors
    /// [`TensorError::DType`] when the tensor holds another type.
    pub fn elements<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        let mismatch = TensorError::DType { expected: T::DTYPE, got: self.dtype };
        let bytes = match &self.data {
            Data::Fixed(bytes) if self.dtype == T::DTYPE => bytes,
            _ => return Err(mismatch),
        };
        if let Ok(elements) = bytemuck::checked::try_cast_slice(bytes) {
            return Ok(Cow::Borrowed(elements));
        }
        T::unaligned(bytes).map(Cow::Owned).ok_or(mismatch)
    }

    /// Bytes of payload: for `BYTES`, the sum of the elements' lengths plus eight each for their offsets.
    pub fn n_bytes(&self) -> usize {
        match &self.data {
            Data::Fixed(bytes) => bytes.len(),
            Data::Strings(strings) => strings.payload().len() + 8 * strings.len(),
        }
    }

    /// The rows `range` along axis 0, sharing this tensor's buffer.
    ///
    /// # Panics
    /// When the tensor has rank 0 or the range reaches past its rows, as slicing does.
    #[must_use]
    pub fn rows(&self, range: Range<usize>) -> Self {
        let rows = self.shape.rows().expect("a tensor of rank 0 has no rows");
        assert!(range.start <= range.end && range.end <= rows, "rows {range:?} of {rows}");
        let shape = self.shape.with_rows(range.len()).expect("fewer rows than a shape that fits");
        let width = self.shape.row_elements();
        let elements = range.start * width..range.end * width;
        let data = match &self.data {
            Data::Fixed(bytes) => {
                let size = self.dtype.size().unwrap_or(1);
                Data::Fixed(bytes.slice(elements.start * size..elements.end * size))
            }
            Data::Strings(strings) => Data::Strings(Box::new(strings.slice(elements))),
        };
        Self { dtype: self.dtype, shape, data }
    }

    /// The same elements in a buffer of their own, so that the shared one can be freed.
    #[must_use]
    pub fn detached(&self) -> Self {
        let data = match &self.data {
            Data::Fixed(bytes) => Data::Fixed(Bytes::copy_from_slice(bytes)),
            Data::Strings(strings) => Data::Strings(Box::new(strings.iter().collect())),
        };
        Self { dtype: self.dtype, shape: self.shape.clone(), data }
    }

    /// Joins tensors along axis 0. One tensor comes back as it is; several are copied once into a new buffer.
    ///
    /// # Errors
    /// [`TensorError::Join`] when dtypes or row shapes differ, the list is empty or a tensor has rank 0.
    pub fn concat(tensors: &[Self]) -> Result<Self, TensorError> {
        let Some((first, rest)) = tensors.split_first() else {
            return Err(TensorError::Join { left: "nothing".to_owned(), right: "nothing".to_owned() });
        };
        if rest.is_empty() {
            return Ok(first.clone());
        }
        let fits = |other: &Self| {
            other.dtype == first.dtype
                && other.shape.len() == first.shape.len()
                && other.shape.get(1..) == first.shape.get(1..)
        };
        if first.shape.is_empty() {
            return Err(TensorError::Join {
                left: format!("{first:?}"),
                right: "more (rank 0 has no rows)".to_owned(),
            });
        }
        if let Some(other) = rest.iter().find(|other| !fits(other)) {
            return Err(TensorError::Join { left: format!("{first:?}"), right: format!("{other:?}") });
        }
        let rows = tensors.iter().filter_map(|tensor| tensor.shape.rows()).sum();
        let shape = first.shape.with_rows(rows)?;
        let data = if first.dtype == DType::Bytes {
            Data::Strings(Box::new(tensors.iter().filter_map(Self::strings).flat_map(Strings::iter).collect()))
        } else {
            let mut joined = Vec::with_capacity(tensors.iter().map(Self::n_bytes).sum());
            tensors.iter().filter_map(Self::bytes).for_each(|bytes| joined.extend_from_slice(bytes));
            Data::Fixed(Bytes::from(joined))
        };
        Ok(Self { dtype: first.dtype, shape, data })
    }

    /// The first `size` entries along `axis`, in a buffer of their own unless that is all there are; `None` where there are
    /// fewer, or no such axis.
    #[must_use]
    pub fn narrowed(&self, axis: usize, size: usize) -> Option<Self> {
        let full = *self.shape.get(axis)?;
        if size == full {
            return Some(self.clone());
        }
        if size > full {
            return None;
        }
        let mut sizes: SmallVec<[usize; 8]> = self.shape.iter().copied().collect();
        sizes[axis] = size;
        let shape = Shape::new(&sizes).ok()?;
        let inner: usize = self.shape.get(axis + 1..)?.iter().product();
        let (block, keep) = (full * inner, size * inner);
        let blocks = self.shape.get(..axis)?.iter().product::<usize>();
        let data = match &self.data {
            Data::Fixed(bytes) => {
                let width = self.dtype.size().unwrap_or(1);
                let mut kept = Vec::with_capacity(blocks * keep * width);
                for start in (0..blocks).map(|index| index * block * width) {
                    kept.extend_from_slice(&bytes[start..start + keep * width]);
                }
                Data::Fixed(Bytes::from(kept))
            }
            Data::Strings(strings) => {
                let starts = (0..blocks).map(|index| index * block);
                Data::Strings(Box::new(starts.flat_map(|start| strings.iter().skip(start).take(keep)).collect()))
            }
        };
        Some(Self { dtype: self.dtype, shape, data })
    }

    /// The same elements under another shape of as many elements.
    ///
    /// # Errors
    /// [`TensorError`] when the sizes are not a shape or hold another number of elements.
    pub fn reshaped(&self, sizes: &[usize]) -> Result<Self, TensorError> {
        let shape = Shape::new(sizes)?;
        let (expected, got) = (shape.n_elements(), self.shape.n_elements());
        if expected != got {
            return Err(TensorError::Length { shape, dtype: self.dtype, unit: "elements", expected, got });
        }
        Ok(Self { dtype: self.dtype, shape, data: self.data.clone() })
    }
}

/// Shows dtype and shape, never the elements: they may be large, and they are the caller's.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Byte strings in one buffer plus offsets; a range of them shares both.
#[derive(Clone)]
pub struct Strings {
    buffer: Bytes,
    /// `offsets[i]..offsets[i + 1]` is element `i` of the whole; never empty, never descending.
    offsets: Arc<[usize]>,
    range: Range<usize>,
}

impl Strings {
    /// Strings over `buffer`, where element `i` is `offsets[i]..offsets[i + 1]`.
    ///
    /// Returns `None` when there is no offset, one descends, or the last reaches past the buffer.
    pub fn new(buffer: Bytes, offsets: Vec<usize>) -> Option<Self> {
        let last = *offsets.last()?;
        if last > buffer.len() || !offsets.is_sorted() {
            return None;
        }
        let range = 0..offsets.len() - 1;
        Some(Self { buffer, offsets: Arc::from(offsets), range })
    }

    /// How many strings.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// String `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let at = self.range.start.checked_add(index).filter(|at| *at < self.range.end)?;
        self.buffer.get(self.offsets[at]..self.offsets[at + 1])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// All the strings' bytes, back to back.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.offsets[self.range.start]..self.offsets[self.range.end]]
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        Self { buffer: self.buffer.clone(), offsets: Arc::clone(&self.offsets), range }
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut buffer = Vec::new();
        let mut offsets = vec![0];
        for string in strings {
            buffer.extend_from_slice(string.as_ref());
            offsets.push(buffer.len());
        }
        let range = 0..offsets.len() - 1;
        Self { buffer: Bytes::from(buffer), offsets: Arc::from(offsets), range }
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strings({})", self.len())
    }
}
