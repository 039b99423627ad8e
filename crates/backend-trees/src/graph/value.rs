//! Values between nodes: typed elements with a shape, in buffers that the next run fills again.

use smallvec::SmallVec;

/// The sizes of the axes of a value at run time.
pub(crate) type Sizes = SmallVec<[usize; 4]>;

/// The types of elements that pipelines work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    I64,
    I32,
    Bool,
    Text,
}

impl Kind {
    /// The protocol's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::I64 => "INT64",
            Self::I32 => "INT32",
            Self::Bool => "BOOL",
            Self::Text => "BYTES",
        }
    }

    /// Bytes of memory of one element; for texts a guess.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Bool => 1,
            Self::Text => 24,
        }
    }
}

/// Elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
    Text(Texts),
}

impl Default for Data {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

/// A type of elements that lie in a plain vector.
pub(crate) trait Item: Copy + PartialEq + Send + Sync + 'static {
    const KIND: Kind;
    /// The elements of `data` where they are of this type.
    fn of(data: &Data) -> Option<&[Self]>;
    /// An empty vector inside `data`, which may have held anything.
    fn fresh(data: &mut Data) -> &mut Vec<Self>;
}

macro_rules! items {
    ($($type:ty => $kind:ident),*) => {$(
        impl Item for $type {
            const KIND: Kind = Kind::$kind;

            fn of(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$kind(items) => Some(items),
                    _ => None,
                }
            }

            fn fresh(data: &mut Data) -> &mut Vec<Self> {
                if !matches!(data, Data::$kind(_)) {
                    *data = Data::$kind(Vec::new());
                }
                match data {
                    Data::$kind(items) => {
                        items.clear();
                        items
                    }
                    _ => unreachable!("it was made of this kind just now"),
                }
            }
        }
    )*};
}

items! { f32 => F32, f64 => F64, i64 => I64, i32 => I32, bool => Bool }

/// Calls `$numbers` with the slice of any plain type bound to `$items`, or `$text` with the texts.
macro_rules! by_kind {
    ($data:expr, $items:ident => $numbers:expr, $texts:ident => $text:expr) => {
        match $data {
            $crate::graph::value::Data::F32($items) => $numbers,
            $crate::graph::value::Data::F64($items) => $numbers,
            $crate::graph::value::Data::I64($items) => $numbers,
            $crate::graph::value::Data::I32($items) => $numbers,
            $crate::graph::value::Data::Bool($items) => $numbers,
            $crate::graph::value::Data::Text($texts) => $text,
        }
    };
}

impl Data {
    /// The elements' type.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::I64(_) => Kind::I64,
            Self::I32(_) => Kind::I32,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
        }
    }

    /// How many elements.
    pub(crate) fn len(&self) -> usize {
        by_kind!(self, items => items.len(), texts => texts.len())
    }

    /// The texts inside, emptied; `self` may have held anything.
    pub(crate) fn fresh_texts(&mut self) -> &mut Texts {
        if !matches!(self, Self::Text(_)) {
            *self = Self::Text(Texts::default());
        }
        match self {
            Self::Text(texts) => {
                texts.clear();
                texts
            }
            _ => unreachable!("it was made of texts just now"),
        }
    }

    /// The texts, where the elements are texts.
    pub(crate) fn texts(&self) -> Option<&Texts> {
        match self {
            Self::Text(texts) => Some(texts),
            _ => None,
        }
    }

    /// Becomes the elements of `source` from each of `starts` on, `length` each.
    pub(crate) fn take_blocks(&mut self, source: &Self, starts: impl Iterator<Item = usize>, length: usize) {
        fn numbers<T: Item>(target: &mut Data, source: &[T], starts: impl Iterator<Item = usize>, length: usize) {
            let target = T::fresh(target);
            if length == 1 {
                target.extend(starts.map(|start| source[start]));
            } else {
                starts.for_each(|start| target.extend_from_slice(&source[start..start + length]));
            }
        }
        by_kind!(source, items => numbers(self, items, starts, length), texts => {
            let target = self.fresh_texts();
            for start in starts {
                (start..start + length).for_each(|index| target.push(texts.get(index)));
            }
        });
    }

    /// Becomes a copy of `source`.
    pub(crate) fn copy_from(&mut self, source: &Self) {
        self.take_blocks(source, std::iter::once(0), source.len());
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        by_kind!(self, items => size_of_val(items.as_slice()), texts => texts.bytes.len() + 8 * texts.ends.len())
    }
}

/// Byte strings in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    /// Adds what `write` appends to the buffer.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Text `index`, which must be there.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// The buffer, and where texts begin and end in it.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        offsets.extend(self.ends);
        (self.bytes, offsets)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a [u8]> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|text| all.push(text));
        all
    }
}

/// Elements with a shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Value {
    pub(crate) shape: Sizes,
    pub(crate) data: Data,
}

impl Value {
    /// A list of numbers.
    pub(crate) fn list(data: Data) -> Self {
        Self { shape: Sizes::from_slice(&[data.len()]), data }
    }

    /// The elements as `T`.
    ///
    /// # Panics
    /// When they are of another kind than the node was compiled for.
    pub(crate) fn items<T: Item>(&self) -> &[T] {
        T::of(&self.data).unwrap_or_else(|| panic!("elements are {:?}, not {:?}", self.data.kind(), T::KIND))
    }

    /// How many rows and how many numbers in each, where a lone list is one row.
    pub(crate) fn rows_and_width(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [] => (1, 1),
            [width] => (1, *width),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        }
    }
}

/// The positions in a value of `shape` that belong to the elements of `whole`, in order, where axes of size 1 repeat.
/// Both have the same rank, or `shape` has fewer axes and lies at the end.
#[derive(Debug, Clone)]
pub(crate) struct Positions {
    sizes: Sizes,
    strides: Sizes,
    counter: Sizes,
    position: usize,
    left: usize,
}

impl Positions {
    pub(crate) fn new(shape: &[usize], whole: &[usize]) -> Self {
        let mut strides = Sizes::from_elem(0, whole.len());
        let mut stride = 1;
        for (axis, size) in shape.iter().enumerate().rev() {
            let axis = axis + whole.len() - shape.len();
            strides[axis] = if *size == 1 { 0 } else { stride };
            stride *= size;
        }
        Self::with_strides(whole, strides)
    }

    /// With a step of its own for each axis of `whole`.
    pub(crate) fn with_strides(whole: &[usize], strides: Sizes) -> Self {
        let (sizes, counter) = (Sizes::from_slice(whole), Sizes::from_elem(0, whole.len()));
        Self { sizes, strides, counter, position: 0, left: whole.iter().product() }
    }

    /// Whether the positions are those from 0 on, without a gap.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut stride = 1;
        self.sizes.iter().zip(&self.strides).rev().all(|(size, given)| {
            let fits = *size == 1 || *given == stride;
            stride *= size;
            fits
        })
    }
}

impl Iterator for Positions {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let position = self.position;
        for axis in (0..self.sizes.len()).rev() {
            self.counter[axis] += 1;
            self.position += self.strides[axis];
            if self.counter[axis] < self.sizes[axis] {
                break;
            }
            self.position -= self.strides[axis] * self.sizes[axis];
            self.counter[axis] = 0;
        }
        Some(position)
    }
}
