//! Attention over packed rows.

use std::ops::Range;

use candle_core::{D, DType, Result, Tensor};

use super::{Kernels, on_cpu, with_floats};
use crate::cpu;
use crate::device::{Grouping, Staging};

/// Which tokens belong together, and what candle's operations need to know about it.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// The tokens of each row, one row after another.
    rows: Vec<Range<usize>>,
    /// Empty where no candle operation is used.
    groups: Vec<Group>,
    /// Token positions that attention computes, padding included.
    computed: usize,
}

/// Rows that share one attention.
#[derive(Debug)]
pub(crate) struct Group {
    /// The tokens of all its rows.
    tokens: Range<usize>,
    /// How many rows, and the longest of them.
    rows: usize,
    longest: usize,
    padding: Option<Padding>,
}

/// What makes rows of different lengths equally long and takes it back.
#[derive(Debug)]
struct Padding {
    /// For each place of the padded rows, the token that stands there, counted from the group's first.
    sources: Tensor,
    /// For each token of the group, its place in the padded rows.
    places: Tensor,
    /// 0 where there is a token and 1 elsewhere, [rows, longest], FP32.
    gaps: Tensor,
}

impl Ranges {
    /// Rows of these `lengths`, which ascend, one after another.
    ///
    /// # Errors
    /// candle's, where what it needs to know does not come to the device.
    pub(crate) fn new(lengths: &[usize], kernels: Kernels, grouping: Grouping, staging: &mut Staging) -> Result<Self> {
        let mut end = 0;
        let row = |length: &usize| {
            end += length;
            end - length..end
        };
        let rows: Vec<Range<usize>> = lengths.iter().map(row).collect();
        if kernels == Kernels::Own {
            return Ok(Self { rows, groups: Vec::new(), computed: end });
        }
        let groups = grouping.cut(lengths);
        let groups: Vec<Group> =
            groups.into_iter().map(|group| Group::new(&rows[group], staging)).collect::<Result<_>>()?;
        let computed = groups.iter().map(|group| group.rows * group.longest).sum();
        Ok(Self { rows, groups, computed })
    }

    /// The tokens of each row.
    pub(crate) fn rows(&self) -> &[Range<usize>] {
        &self.rows
    }

    /// Token positions that attention computes, padding included.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// Squares of tokens by tokens that attention computes, for one head.
    pub(crate) fn cells(&self) -> u64 {
        self.groups.iter().map(|group| (group.rows * group.longest * group.longest) as u64).sum()
    }

    /// The groups of rows, for candle's operations.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }
}

impl Group {
    fn new(rows: &[Range<usize>], staging: &mut Staging) -> Result<Self> {
        let start = rows.first().map_or(0, |row| row.start);
        let end = rows.last().map_or(0, |row| row.end);
        let longest = rows.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let padding = if rows.iter().all(|row| row.len() == longest) {
            None
        } else {
            let number = |place: usize| u32::try_from(place).map_err(candle_core::Error::wrap);
            let (mut sources, mut places, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
            for (index, row) in rows.iter().enumerate() {
                for column in 0..longest {
                    let is_token = column < row.len();
                    sources.push(number(if is_token { row.start - start + column } else { 0 })?);
                    gaps.push(if is_token { 0.0_f32 } else { 1.0 });
                    if is_token {
                        places.push(number(index * longest + column)?);
                    }
                }
            }
            Some(Padding {
                sources: staging.upload(&sources, &[sources.len()])?,
                places: staging.upload(&places, &[places.len()])?,
                gaps: staging.upload(&gaps, &[rows.len(), longest])?,
            })
        };
        Ok(Self { tokens: start..end, rows: rows.len(), longest, padding })
    }

    /// How many rows it has.
    pub(crate) fn n_rows(&self) -> usize {
        self.rows
    }

    /// The group's part of a packed tensor as `[rows, longest, width]`; what stands where there is no token is arbitrary.
    ///
    /// # Errors
    /// candle's.
    pub(crate) fn padded(&self, packed: &Tensor) -> Result<Tensor> {
        let width = packed.dim(1)?;
        let own = packed.narrow(0, self.tokens.start, self.tokens.len())?;
        let full = match &self.padding {
            Some(padding) => own.contiguous()?.index_select(&padding.sources, 0)?,
            None => own,
        };
        full.reshape((self.rows, self.longest, width))
    }

    /// 1 where there is no token, `[rows, longest]` in FP32; `None` where there is one everywhere.
    pub(crate) fn gaps(&self) -> Option<&Tensor> {
        self.padding.as_ref().map(|padding| &padding.gaps)
    }

    /// `[rows, longest, width]` back to packed tokens.
    fn packed(&self, padded: &Tensor) -> Result<Tensor> {
        let width = padded.dim(2)?;
        let full = padded.reshape((self.rows * self.longest, width))?;
        match &self.padding {
            Some(padding) => full.index_select(&padding.places, 0),
            None => Ok(full),
        }
    }
}

/// softmax(q·kᵀ/√d)·v within each row, head by head, where `qkv` is [tokens, 3·width]. Gives [tokens, width].
///
/// # Errors
/// candle's.
pub(crate) fn attention(qkv: &Tensor, heads: usize, ranges: &Ranges, kernels: Kernels) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    let width = width / 3;
    if kernels == Kernels::Own {
        let numbers = with_floats(qkv, |qkv| cpu::attention(qkv, width, heads, &ranges.rows))?;
        return on_cpu(numbers, (tokens, width));
    }
    let parts = ranges.groups.iter().map(|group| grouped(qkv, heads, group)).collect::<Result<Vec<_>>>()?;
    if let [only] = parts.as_slice() { Ok(only.clone()) } else { Tensor::cat(&parts, 0) }
}

fn grouped(qkv: &Tensor, heads: usize, group: &Group) -> Result<Tensor> {
    let size = qkv.dim(1)? / 3 / heads;
    let (rows, longest) = (group.rows, group.longest);
    let split = group.padded(qkv)?.reshape((rows, longest, 3, heads, size))?;
    let part = |index: usize| split.narrow(2, index, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    #[expect(clippy::cast_precision_loss, reason = "a head's size is far below 2^52")]
    let scale = 1.0 / (size as f64).sqrt();
    let mut scores = (q * scale)?.matmul(&k.transpose(2, 3)?)?;
    if let Some(gaps) = group.gaps() {
        // So low that nothing is left of it, and still a number of 16 bits.
        let least = if qkv.dtype() == DType::F16 { -6e4 } else { -1e30 };
        let added = (gaps * least)?.to_dtype(qkv.dtype())?.reshape((rows, 1, 1, longest))?;
        scores = scores.broadcast_add(&added)?;
    }
    let shares = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let mixed = shares.matmul(&v)?.transpose(1, 2)?.contiguous()?;
    group.packed(&mixed.reshape((rows, longest, heads * size))?)
}
