//! Page-locked buffers, through which a card reads and writes the machine's memory by itself while threads go on.
//!
//! Inputs are written one after the other into one buffer, and the card copies each in the order of its stream. Where they do
//! not fit any more, the stream is waited for, and the buffer is begun again, or a larger one. Each output is copied into a
//! block of its own, and the stream waited for. The block may leave as an answer's bytes, as those of pictures do; when the
//! last of them is dropped it comes back to be used again, unless enough are there.

use std::sync::Arc;

use bytes::Bytes;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaSlice, DriverError, PinnedHostSlice, sys};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{DType, Storage, Tensor};
use half::{bf16, f16};
use parking_lot::Mutex;

use super::{Card, Number};

/// Where inputs begin in the buffer: what the widest loads ask for.
const ALIGNMENT: usize = 256;

/// The size of the first buffer and the least of a block: a page-locked allocation takes far longer than a copy.
const LEAST: usize = 1 << 20;

/// How many blocks wait for reuse at most.
const MOST_IDLE: usize = 4;

/// One instance's buffers.
#[derive(Debug)]
pub(crate) struct Pinned {
    device: CudaDevice,
    inputs: Option<Block>,
    /// Bytes of `inputs` that the card may not have read yet.
    used: usize,
    idle: Arc<Mutex<Vec<Block>>>,
}

impl Pinned {
    pub(in super::super) fn new(card: &Card) -> Self {
        Self { device: card.device.clone(), inputs: None, used: 0, idle: Arc::default() }
    }

    /// A tensor of `values`. The copy has begun, not ended, when this returns.
    pub(in super::super) fn upload<T: Number>(&mut self, values: &[T], shape: &[usize]) -> candle_core::Result<Tensor> {
        let elements: usize = shape.iter().product();
        if elements != values.len() {
            candle_core::bail!("{} values do not fill the shape {shape:?}", values.len());
        }
        let device = self.device.clone();
        let stream = device.cuda_stream();
        let staged = self.room(size_of_val(values))?;
        staged.copy_from_slice(bytemuck::cast_slice(values));
        // The buffer is aligned for any number, and so is each place in it.
        let staged: &[T] = bytemuck::cast_slice(staged);
        #[expect(unsafe_code, reason = "memory of the card that is about to be overwritten need not be cleared first")]
        // SAFETY: every number of it is written by the copy below, before anything that the stream does later.
        let mut slice: CudaSlice<T> = unsafe { stream.alloc(values.len()) }.w()?;
        // This returns at once: `room` hands these bytes out again only after the stream has been waited for.
        stream.memcpy_htod(staged, &mut slice).w()?;
        let storage = CudaStorage::wrap_cuda_slice(slice, device);
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    /// The bytes of a tensor, complete.
    pub(in super::super) fn download(&mut self, tensor: &Tensor) -> candle_core::Result<Bytes> {
        let tensor = tensor.contiguous()?;
        match tensor.dtype() {
            DType::F32 => self.fetch::<f32>(&tensor),
            DType::F16 => self.fetch::<f16>(&tensor),
            DType::BF16 => self.fetch::<bf16>(&tensor),
            other => candle_core::bail!("no output is of {other:?}"),
        }
    }

    fn fetch<T: Number>(&mut self, tensor: &Tensor) -> candle_core::Result<Bytes> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("an output of a card lies on another device");
        };
        let source: &CudaSlice<T> = <T as CudaDType>::as_cuda_slice(storage)?;
        let start = layout.start_offset();
        let view = source.slice(start..start + layout.shape().elem_count());
        let size = layout.shape().elem_count() * size_of::<T>();
        let stream = self.device.cuda_stream();
        let mut block = self.block(size).w()?;
        let target: &mut [T] = bytemuck::cast_slice_mut(&mut block.0.as_mut_slice().w()?[..size]);
        let copied = stream.memcpy_dtoh(&view, target);
        // Waited for even when the copy failed: it may have begun, and the block must not be touched before it ends.
        let done = stream.synchronize();
        copied.w()?;
        done.w()?;
        self.used = 0;
        Ok(Bytes::from_owner(Answer { block: Some(block), size, idle: Arc::clone(&self.idle) }))
    }

    /// `size` bytes that the card is not reading.
    fn room(&mut self, size: usize) -> candle_core::Result<&mut [u8]> {
        let start = self.used.next_multiple_of(ALIGNMENT);
        let fits = self.inputs.as_ref().is_some_and(|block| size <= block.len().saturating_sub(start));
        let start = if fits {
            start
        } else {
            self.device.cuda_stream().synchronize().w()?;
            if self.inputs.as_ref().is_none_or(|block| block.len() < size) {
                let context = Arc::clone(self.device.cuda_stream().context());
                self.inputs = None;
                let flags = sys::CU_MEMHOSTALLOC_WRITECOMBINED;
                self.inputs = Some(Block::new(&context, rounded(size), flags).w()?);
            }
            0
        };
        self.used = start + size;
        let block = self.inputs.as_mut().expect("it was made above where it was not there");
        Ok(&mut block.0.as_mut_slice().w()?[start..start + size])
    }

    fn block(&self, size: usize) -> Result<Block, DriverError> {
        let mut idle = self.idle.lock();
        if let Some(index) = idle.iter().position(|block| block.len() >= size) {
            return Ok(idle.swap_remove(index));
        }
        drop(idle);
        Block::new(self.device.cuda_stream().context(), rounded(size), 0)
    }
}

/// The size of the block for `size` bytes, such that blocks are found again.
fn rounded(size: usize) -> usize {
    size.max(LEAST).checked_next_power_of_two().unwrap_or(size)
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The card may still be reading inputs of a run that failed half-way.
        let _ = self.device.cuda_stream().synchronize();
    }
}

/// Page-locked memory.
#[derive(Debug)]
struct Block(PinnedHostSlice<u8>);

impl Block {
    /// `flags` say how the machine sees it: write-combined is fast to write and very slow to read.
    fn new(context: &Arc<CudaContext>, size: usize, flags: u32) -> Result<Self, DriverError> {
        #[expect(unsafe_code, reason = "the bindings hand the memory out as it is")]
        // SAFETY: these are bytes, of which every value is one, and they come from the system, not from this program.
        let mut memory = unsafe { context.alloc_pinned_with_flags(size, flags) }?;
        memory.as_mut_slice()?.fill(0);
        Ok(Self(memory))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Answers are dropped on threads that know nothing of the card, and freeing asks for its context.
        let _ = self.0.context().bind_to_thread();
    }
}

/// The bytes of an output. Its block goes back to the instance that made it, if that has not got enough of them.
struct Answer {
    block: Option<Block>,
    size: usize,
    idle: Arc<Mutex<Vec<Block>>>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        // Nothing of this can fail once the copy is complete; and bytes that are too few are refused by what takes them.
        let bytes = self.block.as_ref().and_then(|block| block.0.as_slice().ok());
        bytes.and_then(|bytes| bytes.get(..self.size)).unwrap_or_default()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.extend(self.block.take());
        }
    }
}
