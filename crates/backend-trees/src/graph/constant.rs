//! Constant tensors of the file as values.

use std::io;

use millrace_core::{LoadError, LoadErrorKind};
use millrace_onnx::{ElementType, OnnxError, Tensor};

use super::value::{Data, Kind, Sizes, Value};

/// The kind of values of `element`, if pipelines have it.
pub(crate) fn kind(element: ElementType) -> Option<Kind> {
    Some(match element {
        ElementType::Fp32 => Kind::F32,
        ElementType::Fp64 => Kind::F64,
        ElementType::Int64 => Kind::I64,
        ElementType::Int32 => Kind::I32,
        ElementType::Bool => Kind::Bool,
        ElementType::String => Kind::Text,
        _ => return None,
    })
}

/// The value of `tensor`.
///
/// # Errors
/// [`LoadError`] without the place in the file, which the caller knows.
pub(crate) fn value<B: AsRef<[u8]>>(
    tensor: &Tensor<'_>,
    read: impl FnOnce(&str) -> io::Result<B>,
    budget: u64,
) -> Result<Value, LoadError> {
    let element = tensor.element_type();
    let Some(kind) = kind(element) else {
        let text = format!(
            "constants of {} are not supported; expected FP32, FP64, INT64, INT32, BOOL or BYTES",
            element.name()
        );
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    };
    let shape: Sizes = tensor.shape().map_err(load_error)?.into_iter().collect();
    let elements: usize = shape.iter().product();
    if (elements as u64).saturating_mul(kind.bytes()) > budget {
        return Err(LoadError::new(LoadErrorKind::TooLarge, format!("a constant of {elements} elements")));
    }
    if kind == Kind::Text {
        let got = tensor.strings().count();
        if got != elements {
            let text = format!("a constant of {got} texts; its shape asks for {elements}");
            return Err(LoadError::new(LoadErrorKind::Invalid, text));
        }
        return Ok(Value { shape, data: Data::Text(tensor.strings().collect()) });
    }
    let bytes = tensor.data(read).map_err(load_error)?;
    let data = match kind {
        Kind::F32 => Data::F32(bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()),
        Kind::F64 => Data::F64(bytes.as_chunks().0.iter().copied().map(f64::from_le_bytes).collect()),
        Kind::I64 => Data::I64(bytes.as_chunks().0.iter().copied().map(i64::from_le_bytes).collect()),
        Kind::I32 => Data::I32(bytes.as_chunks().0.iter().copied().map(i32::from_le_bytes).collect()),
        Kind::Bool | Kind::Text => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
    };
    Ok(Value { shape, data })
}

/// The error as the seam has it.
pub(crate) fn load_error(error: OnnxError) -> LoadError {
    let kind = match error {
        OnnxError::Damaged { .. } | OnnxError::Invalid { .. } => LoadErrorKind::Invalid,
        OnnxError::Unsupported { .. } => LoadErrorKind::Unsupported,
        OnnxError::Outside { .. } => LoadErrorKind::Forbidden,
        OnnxError::Unreadable { .. } => LoadErrorKind::Missing,
    };
    LoadError::new(kind, error.to_string()).with_cause(error)
}
