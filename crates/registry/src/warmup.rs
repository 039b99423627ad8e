//! Runs a freshly loaded model on invented inputs, or on those that an operator wrote down, so that its first caller does
//! not pay for first-time work, and so that a model that cannot run at all never replaces one that can.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    Admission, Batch, DType, Dim, InputError, LoadError, LoadErrorKind, Model, RunContext, RunError, Shape, Signature,
    Strings, Tensor, TensorError, TensorList, TensorSpec,
};

use crate::WarmupConfig;

mod requests;

pub(crate) use requests::samples;

/// Sizes tried for every axis that is neither fixed nor the batch: the first that the model admits is used.
const FREE_AXES: [usize; 5] = [1, 8, 32, 128, 224];
/// Inputs beyond this size are not worth inventing.
const LARGEST: usize = 256 << 20;

/// Runs `model` as `config` says.
///
/// # Errors
/// [`LoadError`] when every invented input makes it fail or panic, or when its outputs are not what its signature says.
/// Inputs that the model calls invalid prove nothing and are passed over.
pub(crate) fn warm(model: &Arc<dyn Model>, config: &WarmupConfig) -> Result<(), LoadError> {
    if !config.enabled {
        return Ok(());
    }
    if !config.requests.is_empty() {
        return config.requests.iter().try_for_each(|request| requests::run(model, request));
    }
    let one = [std::num::NonZeroUsize::MIN];
    let rows = if model.signature().is_batched() { &config.rows[..] } else { &one[..] };
    for &rows in rows {
        for _ in 0..config.runs.get() {
            run(model, rows.get())?;
        }
    }
    Ok(())
}

/// One run with zeros; where the model cannot take those, with ones.
fn run(model: &Arc<dyn Model>, rows: usize) -> Result<(), LoadError> {
    let (mut failure, mut fits) = (None, false);
    for fill in [0_u8, 1] {
        let Some((inputs, group)) = admitted(model, rows, fill) else { continue };
        fits = true;
        if let Err(error) = model.prepare(&group, rows) {
            tracing::debug!(rows, %error, "the model cannot be specialised for so many rows");
        }
        match attempt(model, inputs, rows) {
            Ok(()) => return Ok(()),
            Err(Attempt::Invalid(text)) => {
                tracing::debug!(rows, text, "the model calls an invented input invalid; that proves nothing");
                return Ok(());
            }
            Err(Attempt::Broken(error)) => return Err(error),
            Err(Attempt::Failed(error)) => failure = Some(error),
        }
    }
    if !fits {
        tracing::debug!(rows, "no invented input fits the model; it is not warmed up with so many rows");
    }
    failure.map_or(Ok(()), Err)
}

enum Attempt {
    Invalid(String),
    /// It may be the input's fault.
    Failed(LoadError),
    /// It cannot be the input's fault.
    Broken(LoadError),
}

fn attempt(model: &Arc<dyn Model>, inputs: TensorList, rows: usize) -> Result<(), Attempt> {
    let mut instance = model.instance().map_err(Attempt::Broken)?;
    let batch = Batch::single(inputs, rows);
    // Unwind safe: the instance is dropped and the model's own state is the engine's to keep sound.
    let outcome = catch_unwind(AssertUnwindSafe(|| instance.run(&batch, &RunContext::plain())));
    let hint = "`[warmup] enabled = false` in model.toml skips this";
    let failed = |text: &str| {
        LoadError::new(
            LoadErrorKind::Engine,
            format!("the model {text} when warmed up with {rows} rows of made-up input ({hint})"),
        )
    };
    match outcome {
        Ok(Ok(outputs)) => match batch.split(&outputs, model.signature()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("the engine's outputs are not what the model's signature says: {error}");
                Err(Attempt::Broken(LoadError::new(LoadErrorKind::Engine, text)))
            }
        },
        Ok(Err(RunError::InvalidInput(text))) => Err(Attempt::Invalid(text)),
        Ok(Err(RunError::Failed(cause))) => Err(Attempt::Failed(failed("failed").with_cause(cause))),
        Ok(Err(RunError::Cancelled)) => Err(Attempt::Broken(failed("gave up"))),
        Err(_) => Err(Attempt::Failed(failed("panicked"))),
    }
}

/// Inputs of `rows` rows that the signature and the model admit.
fn admitted(model: &Arc<dyn Model>, rows: usize, fill: u8) -> Option<(TensorList, millrace_core::Group)> {
    let signature = model.signature();
    let free = if signature.symbols().is_empty() { &FREE_AXES[..1] } else { &FREE_AXES[..] };
    free.iter().find_map(|&size| {
        let inputs = invent(signature, rows, size, fill)?;
        let group = admit(model, &inputs).ok()?.group;
        Some((inputs, group))
    })
}

/// Asks the model about `inputs` as its queue would: also about their values, where it has a say in those. A text model
/// refuses a row of masked tokens, say, which zeros are.
fn admit(model: &Arc<dyn Model>, inputs: &TensorList) -> Result<Admission, InputError> {
    let admission = model.signature().check(inputs)?;
    model.admit(&admission)?;
    if model.signature().is_mixed() {
        model.weigh(inputs, &admission)?;
    }
    Ok(admission)
}

fn invent(signature: &Signature, rows: usize, free: usize, fill: u8) -> Option<TensorList> {
    let mut left = LARGEST;
    let mut inputs = TensorList::new();
    for spec in signature.inputs() {
        let sizes: Vec<usize> = axes(spec, rows, free)?;
        let tensor = tensor(spec.dtype, &sizes, fill, left)?.ok()?;
        left = left.checked_sub(tensor.n_bytes())?;
        inputs.push(tensor);
    }
    Some(inputs)
}

fn axes(spec: &TensorSpec, rows: usize, free: usize) -> Option<Vec<usize>> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => Some(rows),
        Dim::Fixed(size) => Some(*size),
        Dim::Symbol(_) => Some(free),
        Dim::Expr(_) | Dim::Unknown => None,
    };
    spec.shape.iter().enumerate().map(size).collect()
}

/// A tensor of zeros, or of ones; `None` when it would be larger than `most` bytes.
fn tensor(dtype: DType, sizes: &[usize], fill: u8, most: usize) -> Option<Result<Tensor, TensorError>> {
    let shape = Shape::new(sizes).ok()?;
    let elements = shape.n_elements();
    let Some(size) = dtype.size() else {
        if elements > most / size_of::<usize>() {
            return None;
        }
        let text = if fill == 0 { Bytes::new() } else { Bytes::from(vec![b'1'; elements]) };
        let offsets = (0..=elements).map(|index| index * usize::from(fill)).collect();
        return Some(Tensor::from_strings(sizes, Strings::new(text, offsets)?));
    };
    let bytes = elements.checked_mul(size).filter(|bytes| *bytes <= most)?;
    if fill == 0 {
        return Some(Tensor::new(dtype, shape, Bytes::from(vec![0; bytes])));
    }
    Some(Tensor::new(dtype, shape, Bytes::from(one(dtype)?.repeat(elements))))
}

/// The number one; `None` for strings.
fn one(dtype: DType) -> Option<&'static [u8]> {
    Some(match dtype {
        DType::Fp16 => &[0x00, 0x3c],
        DType::Bf16 => &[0x80, 0x3f],
        DType::Fp32 => &[0, 0, 0x80, 0x3f],
        DType::Fp64 => &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
        DType::Bool | DType::Uint8 | DType::Int8 => &[1],
        DType::Uint16 | DType::Int16 => &[1, 0],
        DType::Uint32 | DType::Int32 => &[1, 0, 0, 0],
        DType::Uint64 | DType::Int64 => &[1, 0, 0, 0, 0, 0, 0, 0],
        DType::Bytes => return None,
    })
}

#[cfg(test)]
mod tests;
