//! Tries out once, at load, whether rows give together what they give alone, and of which rank outputs are.
//!
//! Shapes show which axis carries rows, but an operator may work across it, a reshape may hide it, and a value may depend
//! on the row's place or on how many rows there are. So two different rows are run together and alone. The graph is not
//! looked at: it is the engine's, after its own rewriting, that runs.

use std::collections::HashMap;

use bytes::Bytes;
use half::{bf16, f16};
use millrace_core::{DType, Dim, Shape, Signature, Strings, Tensor, TensorList, TensorSpec};
use smallvec::SmallVec;

use crate::input::Gathered;
use crate::session::Runner;

/// Sizes that are tried for the axes that a request may choose, until one suits the model. Sums over several places show
/// more than sums over one, so small sizes come late.
const FREE_AXES: [usize; 10] = [4, 8, 16, 2, 1, 32, 64, 128, 224, 512];
/// Bytes of a row of one input; pictures of networks that find things take 5 MB. Larger ones are not tried: loading must not
/// take minutes.
const LARGEST: usize = 64 << 20;
/// What a string counts, in bytes.
const STRING: usize = 16;
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

/// Tries a model with the batched `signature`. Coarse numbers may differ more: a last bit may become a whole step.
pub(crate) fn rows(runner: &Runner, signature: &Signature, is_coarse: bool) -> Verdict {
    let Some((all, together)) = trial(runner, signature, ROWS) else { return Verdict::Unknown };
    let tolerance = if is_coarse { 0.05 } else { 1e-3 };
    for row in 0..ROWS {
        let one: TensorList = all.iter().map(|tensor| tensor.rows(row..row + 1)).collect();
        let Some(alone) = answer(runner, &one) else { return Verdict::Unknown };
        for (spec, (together, alone)) in signature.outputs().iter().zip(together.iter().zip(&alone)) {
            let own = (together.shape().rows() == Some(ROWS)).then(|| together.rows(row..row + 1));
            if !own.is_some_and(|own| is_same(&own, alone, tolerance)) {
                let text = format!("output `{}`: rows run together are not what they are alone", spec.name);
                return Verdict::Mixing(text);
            }
        }
    }
    Verdict::Independent
}

/// The rank of every output, by name; empty where no invented input fits.
pub(crate) fn ranks(runner: &Runner, signature: &Signature) -> HashMap<String, usize> {
    let Some((_, outputs)) = trial(runner, signature, 1) else { return HashMap::new() };
    let ranked = signature.outputs().iter().zip(&outputs);
    ranked.map(|(spec, tensor)| (spec.name.to_string(), tensor.shape().len())).collect()
}

/// Inputs that suit the model, and its answer to them.
fn trial(runner: &Runner, signature: &Signature, rows: usize) -> Option<(TensorList, TensorList)> {
    let free = if signature.symbols().is_empty() { &FREE_AXES[..1] } else { &FREE_AXES[..] };
    free.iter().find_map(|&size| {
        let inputs = invent(signature, rows, size)?;
        let answer = answer(runner, &inputs)?;
        Some((inputs, answer))
    })
}

fn answer(runner: &Runner, inputs: &TensorList) -> Option<TensorList> {
    let bound = inputs.iter().map(Gathered::whole).collect::<Option<SmallVec<[Gathered<'_>; 4]>>>()?;
    runner.run(&bound, &|_| true).ok()?.into_iter().collect()
}

fn invent(signature: &Signature, rows: usize, free: usize) -> Option<TensorList> {
    // Every element differs from its neighbours and from the same place in the other row.
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    signature.inputs().iter().map(|spec| tensor(spec, rows, free, &mut next)).collect()
}

/// Numbers between -1 and 1; for integers 0 and 1, which are tokens of any vocabulary.
fn tensor(spec: &TensorSpec, rows: usize, free: usize, next: &mut dyn FnMut() -> u32) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => Some(rows),
        Dim::Fixed(size) => Some(*size),
        Dim::Symbol(_) => Some(free),
        Dim::Expr(_) | Dim::Unknown => None,
    };
    let sizes = spec.shape.iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
    let shape = Shape::new(&sizes).ok()?;
    let elements = shape.n_elements();
    if elements.checked_mul(spec.dtype.size().unwrap_or(STRING))? > rows * LARGEST {
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

fn is_same(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return false;
    }
    let (Some(a_floats), Some(b_floats)) = (floats(a), floats(b)) else {
        return a.bytes() == b.bytes() && a.strings() == b.strings();
    };
    let both = a_floats.iter().chain(&b_floats);
    let largest = both.filter(|value| value.is_finite()).fold(0.0, |most: f64, value| most.max(value.abs()));
    a_floats
        .iter()
        .zip(&b_floats)
        .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest)
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
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
}
