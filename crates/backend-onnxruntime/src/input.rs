//! Inputs of a run: bound where they lie if that is possible, else gathered once into a buffer of the instance.

use std::ops::Range;

use bytemuck::cast_slice_mut;
use millrace_core::{Batch, ContractError, DType, RunError, Tensor};
use ort::Error;
use ort::memory::MemoryInfo;
use smallvec::SmallVec;

use crate::raw::Input;

/// One input of a run.
#[derive(Debug)]
pub(crate) enum Gathered<'a> {
    Plain { dtype: DType, sizes: SmallVec<[usize; 6]>, bytes: &'a [u8] },
    Strings(Tensor),
}

impl<'a> Gathered<'a> {
    /// The whole of `tensor`, or `None` where its bytes do not lie as the engine needs them.
    pub(crate) fn whole(tensor: &'a Tensor) -> Option<Self> {
        let Some(bytes) = tensor.bytes() else { return Some(Self::Strings(tensor.clone())) };
        let width = tensor.dtype().size().unwrap_or(1);
        let is_aligned = bytes.as_ptr().align_offset(width) == 0;
        is_aligned.then(|| Self::Plain {
            dtype: tensor.dtype(),
            sizes: tensor.shape().iter().copied().collect(),
            bytes,
        })
    }

    /// The rows `range` along the first axis, which every input of a batched model has.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        match self {
            Self::Strings(tensor) => Self::Strings(tensor.rows(range)),
            Self::Plain { dtype, sizes, bytes } => {
                let row = bytes.len() / sizes.first().copied().unwrap_or(1).max(1);
                let mut fewer = sizes.clone();
                if let Some(first) = fewer.first_mut() {
                    *first = range.len();
                }
                Self::Plain { dtype: *dtype, sizes: fewer, bytes: &bytes[range.start * row..range.end * row] }
            }
        }
    }

    /// As the engine takes it.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn bind(&self, memory: &MemoryInfo<'_>) -> Result<Input<'a>, Error> {
        match self {
            Self::Plain { dtype, sizes, bytes } => Input::over(memory, *dtype, sizes, bytes),
            Self::Strings(tensor) => {
                let strings = tensor.strings().ok_or_else(|| Error::new("expected strings"))?;
                Input::strings(tensor.shape(), strings.iter())
            }
        }
    }
}

/// The buffers of one instance, one for each input; reused from run to run.
#[derive(Debug)]
pub(crate) struct Buffers(Vec<Buffer>);

/// Wide elements, so that those of any dtype are aligned.
#[derive(Debug, Default)]
struct Buffer(Vec<u128>);

impl Buffers {
    pub(crate) fn new(inputs: usize) -> Self {
        Self((0..inputs).map(|_| Buffer::default()).collect())
    }

    /// The inputs of `batch`: those of a lone part where they lie, if they lie well, and else the one copy on the way in.
    ///
    /// # Errors
    /// [`RunError`] where the parts do not join, which checked requests of one group do.
    pub(crate) fn gather<'a>(&'a mut self, batch: &'a Batch) -> Result<SmallVec<[Gathered<'a>; 4]>, RunError> {
        let (parts, rows) = (batch.parts(), batch.rows());
        let first = parts.first().ok_or(ContractError::Gather { input: 0 })?;
        let is_lone = parts.len() == 1 && first.rows == rows;
        let mut gathered = SmallVec::new();
        for (index, (buffer, tensor)) in self.0.iter_mut().zip(&first.inputs).enumerate() {
            if let Some(whole) = Gathered::whole(tensor).filter(|_| is_lone) {
                gathered.push(whole);
                continue;
            }
            if tensor.dtype() == DType::Bytes {
                gathered.push(Gathered::Strings(batch.gather(index)?));
                continue;
            }
            let shape = if is_lone { tensor.shape().clone() } else { tensor.shape().with_rows(rows).map_err(wrong)? };
            let length = shape.n_elements().checked_mul(tensor.dtype().size().unwrap_or(1));
            let length = length.ok_or(ContractError::Gather { input: index })?;
            let bytes = buffer.of(length);
            batch.gather_into(index, bytes)?;
            gathered.push(Gathered::Plain { dtype: tensor.dtype(), sizes: shape.iter().copied().collect(), bytes });
        }
        Ok(gathered)
    }
}

impl Buffer {
    /// `length` bytes of it, grown where it is too small and given back where it is far too large.
    fn of(&mut self, length: usize) -> &mut [u8] {
        const WORD: usize = size_of::<u128>();
        const SPARE: usize = 8;
        let words = length.div_ceil(WORD);
        if self.0.len() < words || self.0.len() / SPARE > words.max(1 << 16) {
            self.0 = vec![0; words];
        }
        &mut cast_slice_mut(&mut self.0)[..length]
    }
}

fn wrong(error: millrace_core::ShapeError) -> RunError {
    RunError::Failed(Box::new(error))
}
