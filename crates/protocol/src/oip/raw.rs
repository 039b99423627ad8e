//! The layout of raw tensors: numbers little-endian and row-major without padding; byte strings as a length of four
//! bytes each and then the bytes.
//!
//! Tensors of numbers are slices of what was received and leave as they are. Strings are copied once either way, as
//! inside they lie back to back.

use bytes::Bytes;
use millrace_core::{
    DType, Dim, ModelName, Reason, Refusal, Shape, ShapeError, Strings, Tensor, TensorError, TensorSpec,
};
use smallvec::SmallVec;

use super::words;
use crate::tfs::Bare;

/// Bytes before each string.
const PREFIX: usize = 4;

/// The tensor whose raw bytes are `bytes`. Shares them where `dtype` is not `BYTES`.
///
/// # Errors
/// `InvalidInput` when their number is not what `dtype` and `shape` want, a `BOOL` is neither 0 nor 1, or a string reaches
/// past the end.
pub fn tensor_from_raw(
    model: &ModelName,
    name: &str,
    dtype: DType,
    shape: Shape,
    bytes: Bytes,
) -> Result<Tensor, Refusal> {
    if dtype == DType::Bytes {
        let strings = strings_from_raw(name, &bytes, shape.n_elements())?;
        return Tensor::from_strings(&shape, strings).map_err(|error| words::bad_shape(name, error));
    }
    Tensor::new(dtype, shape, bytes).map_err(|error| match error {
        TensorError::Length { expected, got, .. } => words::wrong_byte_size(model, name, expected, got),
        TensorError::Shape(_) | TensorError::Bool | TensorError::DType { .. } | TensorError::Join { .. } => {
            words::bad_shape(name, error)
        }
    })
}

/// The `n_elements` strings that `bytes` hold.
///
/// # Errors
/// `InvalidInput` when a length is cut off or reaches past the end, or there are more or fewer strings. Nothing is
/// allocated on the word of a shape.
pub fn strings_from_raw(name: &str, bytes: &[u8], n_elements: usize) -> Result<Strings, Refusal> {
    let wrong = |why: String| words::invalid(format!("BYTES elements of input '{}': {why}", Bare(name)));
    let least = n_elements.checked_mul(PREFIX).filter(|least| *least <= bytes.len());
    let Some(least) = least else {
        return Err(wrong(format!("expected {n_elements} of them, got {} bytes", bytes.len())));
    };
    let mut payload = Vec::with_capacity(bytes.len() - least);
    let mut offsets = Vec::with_capacity(n_elements + 1);
    offsets.push(0);
    let mut rest = bytes;
    for index in 0..n_elements {
        let (prefix, after) = rest
            .split_first_chunk::<PREFIX>()
            .ok_or_else(|| wrong(format!("the length of element {index} is cut off")))?;
        let length = u32::from_le_bytes(*prefix);
        let element = usize::try_from(length).ok().and_then(|length| after.split_at_checked(length));
        let (element, after) = element.ok_or_else(|| {
            wrong(format!("element {index} of {length} bytes reaches past the end, {} bytes are left", after.len()))
        })?;
        payload.extend_from_slice(element);
        offsets.push(payload.len());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(wrong(format!("expected {n_elements} of them, but {} bytes follow the last", rest.len())));
    }
    Strings::new(Bytes::from(payload), offsets).ok_or_else(|| wrong("the offsets do not fit".to_owned()))
}

/// The number of raw bytes of a tensor.
pub fn raw_len(tensor: &Tensor) -> usize {
    match tensor.strings() {
        Some(strings) => strings.payload().len() + PREFIX * strings.len(),
        None => tensor.n_bytes(),
    }
}

/// A tensor's raw bytes; shared, not copied, where it is not of `BYTES`.
///
/// # Errors
/// `TooLarge` when a string is so long that its length does not fit in four bytes.
pub fn raw_bytes(tensor: &Tensor) -> Result<Bytes, Refusal> {
    let Some(strings) = tensor.strings() else {
        return Ok(tensor.bytes().cloned().unwrap_or_default());
    };
    let mut raw = Vec::with_capacity(raw_len(tensor));
    for string in strings.iter() {
        let length = u32::try_from(string.len())
            .map_err(|_| Refusal::new(Reason::TooLarge, "an output string is longer than 4 GiB"))?;
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(string);
    }
    Ok(Bytes::from(raw))
}

/// The tensor of `spec` that a whole body is.
pub(super) fn whole_body(model: &ModelName, spec: &TensorSpec, bytes: Bytes) -> Result<Tensor, Refusal> {
    let refuse =
        |why: String| words::invalid(format!("raw request for input '{}' of model '{model}': {why}", Bare(&spec.name)));
    let open = spec.shape.iter().filter(|dim| !matches!(dim, Dim::Fixed(_))).count();
    let fixed = spec.shape.iter().try_fold(1_usize, |product, dim| match dim {
        Dim::Fixed(size) => product.checked_mul(*size),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => Some(product),
    });
    let fixed = fixed.ok_or_else(|| words::bad_shape(&spec.name, ShapeError::Overflow))?;
    let Some(size) = spec.dtype.size() else {
        // One element without a length before it, so every open size is 1.
        if fixed != 1 {
            return Err(refuse("a BYTES input must have a single element".to_owned()));
        }
        let sizes: SmallVec<[usize; 8]> = spec.shape.iter().map(|_| 1).collect();
        let end = bytes.len();
        let strings = Strings::new(bytes, vec![0, end]).ok_or_else(|| refuse("the bytes are no element".to_owned()))?;
        return Tensor::from_strings(&sizes, strings).map_err(|error| words::bad_shape(&spec.name, error));
    };
    if open > 1 {
        return Err(refuse(format!("{open} sizes are variable, so the bytes do not tell the shape")));
    }
    let row = fixed.checked_mul(size).ok_or_else(|| words::bad_shape(&spec.name, ShapeError::Overflow))?;
    let n_rows = bytes.len().checked_div(row).unwrap_or(0);
    let sizes: SmallVec<[usize; 8]> =
        spec.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { n_rows }).collect();
    let shape = Shape::new(&sizes).map_err(|error| words::bad_shape(&spec.name, error))?;
    tensor_from_raw(model, &spec.name, spec.dtype, shape, bytes)
}

#[cfg(test)]
mod tests;
