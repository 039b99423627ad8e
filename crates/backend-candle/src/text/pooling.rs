//! How the vectors of a text's tokens become one. The rules are those of `sentence-transformers`.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use millrace_huggingface::{Pooling, PoolingMode};

use crate::device::Staging;
use crate::nn::{Group, Kernels, Ranges, with_floats};

/// Which tokens' vectors a pooling looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// One token of each row: the first.
    First,
    /// One token of each row: the last.
    Last,
    All,
}

/// Which tokens' vectors `pooling` looks at.
pub(super) fn needs(pooling: &Pooling) -> Needs {
    match pooling.modes.as_slice() {
        [PoolingMode::Cls] => Needs::First,
        [PoolingMode::LastToken] => Needs::Last,
        _ => Needs::All,
    }
}

/// One vector for each row, [rows, width · modes] in FP32, of the vectors of all tokens. `columns` are those that the tokens
/// stand in.
///
/// # Errors
/// candle's.
pub(super) fn pool(
    pooling: &Pooling,
    hidden: &Tensor,
    ranges: &Ranges,
    columns: &[usize],
    kernels: Kernels,
    staging: &mut Staging,
) -> Result<Tensor> {
    let (_, width) = hidden.dims2()?;
    if kernels == Kernels::Own {
        let modes = pooling.modes.len();
        let mut out = vec![0.0; ranges.rows().len() * modes * width];
        with_floats(hidden, |hidden| {
            let targets = out.chunks_exact_mut(width);
            let each = ranges.rows().iter().flat_map(|row| pooling.modes.iter().map(move |mode| (row, *mode)));
            for (target, (row, mode)) in targets.zip(each) {
                pool_row(mode, hidden, row, columns, target);
            }
        })?;
        return Tensor::from_vec(out, (ranges.rows().len(), modes * width), hidden.device());
    }
    let mut parts = Vec::new();
    for mode in &pooling.modes {
        parts.push(pool_grouped(*mode, hidden, ranges, columns, staging)?);
    }
    if let [only] = parts.as_slice() { Ok(only.clone()) } else { Tensor::cat(&parts, 1) }
}

/// How much the vector of each token of `row` counts in a sum that is the pooled vector.
#[expect(clippy::cast_precision_loss, reason = "numbers of tokens are far below 2^24")]
fn weights(mode: PoolingMode, row: &Range<usize>, columns: &[usize]) -> Vec<f32> {
    let count = row.len();
    match mode {
        PoolingMode::Mean | PoolingMode::Max => vec![1.0 / count as f32; count],
        PoolingMode::MeanSqrtLen => vec![1.0 / (count as f32).sqrt(); count],
        PoolingMode::WeightedMean => {
            // Counted from the first token, so that padding in front of it changes nothing.
            let place = |column: &usize| column + 1 - columns[row.start];
            let total: usize = columns[row.clone()].iter().map(place).sum();
            columns[row.clone()].iter().map(|column| place(column) as f32 / total as f32).collect()
        }
        PoolingMode::Cls => (0..count).map(|index| if index == 0 { 1.0 } else { 0.0 }).collect(),
        PoolingMode::LastToken => (0..count).map(|index| if index + 1 == count { 1.0 } else { 0.0 }).collect(),
    }
}

fn pool_row(mode: PoolingMode, hidden: &[f32], row: &Range<usize>, columns: &[usize], target: &mut [f32]) {
    let width = target.len();
    let vector = |token: usize| &hidden[token * width..(token + 1) * width];
    match mode {
        PoolingMode::Cls => target.copy_from_slice(vector(row.start)),
        PoolingMode::LastToken => target.copy_from_slice(vector(row.end - 1)),
        PoolingMode::Max => {
            target.copy_from_slice(vector(row.start));
            for token in row.clone().skip(1) {
                target.iter_mut().zip(vector(token)).for_each(|(most, x)| *most = most.max(*x));
            }
        }
        PoolingMode::Mean | PoolingMode::MeanSqrtLen | PoolingMode::WeightedMean => {
            for (token, weight) in row.clone().zip(weights(mode, row, columns)) {
                target.iter_mut().zip(vector(token)).for_each(|(sum, x)| *sum += weight * x);
            }
        }
    }
}

/// The same with candle's operations, group by group.
fn pool_grouped(
    mode: PoolingMode,
    hidden: &Tensor,
    ranges: &Ranges,
    columns: &[usize],
    staging: &mut Staging,
) -> Result<Tensor> {
    let mut first = 0;
    let mut parts = Vec::new();
    for group in ranges.groups() {
        let rows = &ranges.rows()[first..first + group.n_rows()];
        first += group.n_rows();
        let padded = group.padded(hidden)?.to_dtype(DType::F32)?;
        parts.push(match mode {
            PoolingMode::Max => largest(&padded, group)?,
            _ => {
                let (count, longest, _) = padded.dims3()?;
                let mut all = Vec::with_capacity(count * longest);
                for row in rows {
                    all.extend(weights(mode, row, columns));
                    all.resize(all.len().next_multiple_of(longest), 0.0);
                }
                let weights = staging.upload(&all, &[count, 1, longest])?;
                weights.matmul(&padded)?.squeeze(1)?
            }
        });
    }
    Tensor::cat(&parts, 0)
}

fn largest(padded: &Tensor, group: &Group) -> Result<Tensor> {
    match group.gaps() {
        Some(gaps) => padded.broadcast_add(&(gaps * -1e30)?.unsqueeze(2)?)?.max(1),
        None => padded.max(1),
    }
}
