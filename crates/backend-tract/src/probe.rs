//! Tries out once, at load, whether rows give together what they give alone.
//!
//! `rows` knows the operators that mix along an axis, and shapes show which axis carries rows; but a reshape can hide
//! that axis, and a value can depend on the row's place or on how many there are. So two different rows are run together
//! and alone. A model that cannot be tried, because no invented input suits it, is judged by `rows` only.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use millrace_core::{
    Batch, DType, Dim, Instance, RunContext, Shape, Signature, Strings, Tensor, TensorList, TensorSpec,
};

use crate::instance::TractInstance;
use crate::model::Loaded;

/// Sizes that are tried for the axes that a request may choose, until one suits the model.
const FREE_AXES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 224];
/// Elements of a row. Larger ones are not tried: loading must not take minutes.
const LARGEST: usize = 1 << 20;
const ROWS: usize = 2;

/// What trying showed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Rows together are what they are alone.
    Independent,
    /// They are not; in words.
    Mixing(String),
    /// It could not be tried.
    Unknown,
}

/// Tries the batched model `loaded`.
pub(crate) fn rows(loaded: &Arc<Loaded>) -> Verdict {
    let Some(all) = admitted(loaded) else { return Verdict::Unknown };
    let Some(together) = answer(loaded, &all, ROWS) else { return Verdict::Unknown };
    for row in 0..ROWS {
        let one: TensorList = all.iter().map(|tensor| tensor.rows(row..row + 1)).collect();
        let Some(alone) = answer(loaded, &one, 1) else { return Verdict::Unknown };
        let outputs = loaded.signature.outputs().iter().zip(together.iter().zip(&alone));
        for (spec, (together, alone)) in outputs {
            if !is_same(&together.rows(row..row + 1), alone, tolerance(loaded)) {
                let text = format!("output `{}`: rows run together are not what they are alone", spec.name);
                return Verdict::Mixing(text);
            }
        }
    }
    Verdict::Independent
}

/// Inputs of two rows that the model admits.
fn admitted(loaded: &Loaded) -> Option<TensorList> {
    let signature = &loaded.signature;
    let free = if signature.symbols().is_empty() { &FREE_AXES[..1] } else { &FREE_AXES[..] };
    free.iter().find_map(|&size| {
        let inputs = invent(signature, size)?;
        let admission = signature.check(&inputs).ok()?;
        loaded.sizes.check(&admission).ok()?;
        Some(inputs)
    })
}

fn invent(signature: &Signature, free: usize) -> Option<TensorList> {
    // Every element differs from its neighbours and from the same place in the other row.
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    signature.inputs().iter().map(|spec| tensor(spec, free, &mut next)).collect()
}

/// Numbers between -1 and 1; for integers 0 and 1, which are tokens of any vocabulary.
fn tensor(spec: &TensorSpec, free: usize, next: &mut dyn FnMut() -> u32) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => Some(ROWS),
        Dim::Fixed(size) => Some(*size),
        Dim::Symbol(_) => Some(free),
        Dim::Expr(_) | Dim::Unknown => None,
    };
    let sizes = spec.shape.iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
    let shape = Shape::new(&sizes).ok()?;
    let elements = shape.n_elements();
    if elements > ROWS * LARGEST {
        return None;
    }
    let Some(width) = spec.dtype.size() else {
        let strings: Strings = (0..elements).map(|_| if next() & 1 == 0 { &b"0"[..] } else { b"1" }).collect();
        return Tensor::from_strings(&sizes, strings).ok();
    };
    let mut bytes = Vec::with_capacity(elements * width);
    for _ in 0..elements {
        let random = next();
        let (sign, unit) = (random & 1, f32::from(u16::try_from(random >> 17).unwrap_or_default()) / 32_768.0);
        let value = if sign == 0 { unit } else { -unit };
        match spec.dtype {
            DType::Fp32 => bytes.extend_from_slice(&value.to_le_bytes()),
            DType::Fp64 => bytes.extend_from_slice(&f64::from(value).to_le_bytes()),
            DType::Fp16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
            DType::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
            DType::Bool
            | DType::Uint8
            | DType::Uint16
            | DType::Uint32
            | DType::Uint64
            | DType::Int8
            | DType::Int16
            | DType::Int32
            | DType::Int64 => {
                bytes.push(u8::from(sign == 1));
                bytes.resize(bytes.len() + width - 1, 0);
            }
            DType::Bytes => return None,
        }
    }
    Tensor::new(spec.dtype, shape, Bytes::from(bytes)).ok()
}

fn answer(loaded: &Arc<Loaded>, inputs: &TensorList, rows: usize) -> Option<TensorList> {
    let batch = Batch::single(inputs.clone(), rows);
    let outputs = TractInstance::undivided(Arc::clone(loaded)).run(&batch, &RunContext::plain()).ok()?;
    batch.split(&outputs, &loaded.signature).ok()?.into_iter().next()?.into_iter().collect()
}

/// How far apart equal answers may be, as a part of the largest number in them: sums are added up in another order.
fn tolerance(loaded: &Loaded) -> f64 {
    // Where numbers are rounded to 256 steps, or to halves, a last bit may become a whole step.
    let is_coarse = loaded.facts.operators.keys().any(|operator| operator.contains("Quantize"))
        || loaded.signature.outputs().iter().any(|spec| matches!(spec.dtype, DType::Fp16 | DType::Bf16));
    if is_coarse { 0.05 } else { 1e-3 }
}

fn is_same(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    let floats = |tensor: &Tensor| -> Option<Vec<f64>> {
        match tensor.dtype() {
            DType::Fp32 => Some(tensor.elements::<f32>().ok()?.iter().map(|value| f64::from(*value)).collect()),
            DType::Fp64 => Some(tensor.elements::<f64>().ok()?.to_vec()),
            DType::Fp16 => Some(tensor.elements::<f16>().ok()?.iter().map(|value| value.to_f64()).collect()),
            DType::Bf16 => Some(tensor.elements::<bf16>().ok()?.iter().map(|value| value.to_f64()).collect()),
            DType::Bool
            | DType::Uint8
            | DType::Uint16
            | DType::Uint32
            | DType::Uint64
            | DType::Int8
            | DType::Int16
            | DType::Int32
            | DType::Int64
            | DType::Bytes => None,
        }
    };
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return false;
    }
    match (floats(a), floats(b)) {
        (Some(a), Some(b)) => {
            let largest = a
                .iter()
                .chain(&b)
                .filter(|value| value.is_finite())
                .fold(0.0, |most: f64, value| most.max(value.abs()));
            let near = |(a, b): (&f64, &f64)| {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest
            };
            a.iter().zip(&b).all(near)
        }
        _ => a.bytes() == b.bytes() && a.strings() == b.strings(),
    }
}
