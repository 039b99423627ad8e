//! Matrices as they are kept: in 32 or 16 bits a number, or in blocks of fewer that share a scale.

use std::fmt;
use std::sync::Arc;

use candle_core::CpuStorage;
use candle_core::quantized::QuantizedType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Numbers one after another.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Fp32(Vec<f32>),
    Fp16(Vec<f16>),
    Bf16(Vec<bf16>),
    /// Whole rows of blocks.
    Blocks(Arc<dyn Blocks>),
}

/// Rows of numbers in blocks that share a scale.
pub(crate) trait Blocks: fmt::Debug + Send + Sync {
    /// Numbers `start..start + out.len()`; both ends lie between rows.
    fn widen(&self, start: usize, out: &mut [f32]);

    /// Bytes of all.
    fn n_bytes(&self) -> usize;
}

/// A matrix of `rows` rows of `width` numbers in blocks of one of candle's kinds.
pub(crate) struct Quantised {
    blocks: Box<dyn QuantizedType>,
    rows: usize,
    width: usize,
}

impl Quantised {
    /// `None` where a row is no whole number of blocks, or `blocks` are not as many as the matrix has.
    pub(crate) fn new(blocks: Box<dyn QuantizedType>, rows: usize, width: usize) -> Option<Self> {
        let size = blocks.block_size();
        let bytes = rows.checked_mul(width)?.checked_div(size)?.checked_mul(blocks.dtype().type_size())?;
        let fits = width.is_multiple_of(size) && bytes == blocks.storage_size_in_bytes();
        fits.then_some(Self { blocks, rows, width })
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantised({:?}, {} x {})", self.blocks.dtype(), self.rows, self.width)
    }
}

impl Blocks for Quantised {
    fn widen(&self, start: usize, out: &mut [f32]) {
        let first = start / self.width;
        let rows: Vec<u32> = (first..first + out.len() / self.width).map_while(|row| u32::try_from(row).ok()).collect();
        match self.blocks.embedding(&rows, self.rows, self.width) {
            Ok(CpuStorage::F32(numbers)) => out.copy_from_slice(&numbers),
            other => unreachable!("rows of a matrix that was checked, got {other:?}"),
        }
    }

    fn n_bytes(&self) -> usize {
        self.blocks.storage_size_in_bytes()
    }
}

/// Stores one after another; no reader crosses from one into the next.
#[derive(Debug)]
struct Joined(Vec<(usize, Store)>);

impl Blocks for Joined {
    fn widen(&self, mut start: usize, out: &mut [f32]) {
        for (length, store) in &self.0 {
            if start < *length {
                return store.widen(start, out);
            }
            start -= length;
        }
        unreachable!("a place behind the last number");
    }

    fn n_bytes(&self) -> usize {
        self.0.iter().map(|(_, store)| store.n_bytes()).sum()
    }
}

impl Store {
    /// Matrices of as many numbers each, one below another.
    pub(crate) fn joined(stores: Vec<Self>, each: usize) -> Self {
        let fp32 = |store: &Self| if let Self::Fp32(numbers) = store { Some(numbers.clone()) } else { None };
        let fp16 = |store: &Self| if let Self::Fp16(numbers) = store { Some(numbers.clone()) } else { None };
        let bf16 = |store: &Self| if let Self::Bf16(numbers) = store { Some(numbers.clone()) } else { None };
        if let Some(parts) = stores.iter().map(fp32).collect::<Option<Vec<_>>>() {
            return Self::Fp32(parts.concat());
        }
        if let Some(parts) = stores.iter().map(fp16).collect::<Option<Vec<_>>>() {
            return Self::Fp16(parts.concat());
        }
        if let Some(parts) = stores.iter().map(bf16).collect::<Option<Vec<_>>>() {
            return Self::Bf16(parts.concat());
        }
        Self::Blocks(Arc::new(Joined(stores.into_iter().map(|store| (each, store)).collect())))
    }

    /// Numbers `start..start + out.len()` in FP32.
    pub(crate) fn widen(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Self::Fp32(numbers) => out.copy_from_slice(&numbers[range]),
            Self::Fp16(numbers) => numbers[range].convert_to_f32_slice(out),
            Self::Bf16(numbers) => numbers[range].convert_to_f32_slice(out),
            Self::Blocks(blocks) => blocks.widen(start, out),
        }
    }

    /// Bytes that it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Fp32(numbers) => size_of_val(numbers.as_slice()),
            Self::Fp16(numbers) => size_of_val(numbers.as_slice()),
            Self::Bf16(numbers) => size_of_val(numbers.as_slice()),
            Self::Blocks(blocks) => blocks.n_bytes(),
        }
    }
}
