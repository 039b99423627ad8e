//! Inputs without an envelope, as TorchServe's handlers take them: a value for the only input, an object with a value for
//! each, or one of TensorFlow Serving's two forms.

use bytes::Bytes;
use millrace_core::{DType, Dim, Quoted, Signature, Signatures, Strings, Tensor, TensorList, TensorSpec};
use smallvec::SmallVec;

use super::column::Column;
use super::cursor::Cursor;
use super::document::{nothing_after, object, whole};
use super::error::{JsonError, value_here};
use super::{PlainBody, decode_predict};

/// What a body or a part of one holds, as far as its sender says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// JSON.
    Json,
    /// Bytes for an input that takes bytes, such as an image.
    Raw,
    /// Nothing was said: JSON where it looks like JSON, bytes otherwise.
    Unknown,
}

/// A named part of a body.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it holds.
    pub content: Content,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Reads a body that is one piece.
pub(crate) fn content(
    body: &Bytes,
    content: Content,
    signatures: &Signatures,
    max_depth: usize,
) -> Result<PlainBody, JsonError> {
    let (index, signature) = signatures.find("").expect("signatures are never empty");
    match signature.inputs() {
        [spec] if is_raw(spec, content, body) => {
            Ok(PlainBody { signature: index, inputs: [raw(spec, body)?].into_iter().collect() })
        }
        _ => decode(body, signatures, max_depth),
    }
}

/// Reads a body of named parts: `data`, or else `body`, is a whole body; without either, each part is an input.
pub(crate) fn fields(fields: &[Field<'_>], signatures: &Signatures, max_depth: usize) -> Result<PlainBody, JsonError> {
    let (index, signature) = signatures.find("").expect("signatures are never empty");
    let names_inputs = fields.iter().all(|field| signature.input_index(field.name).is_some());
    let find = |name: &str| fields.iter().find(|field| field.name == name);
    // Should the model's inputs be called `data` and `body`, then their names mean them.
    if (!names_inputs || fields.len() != signature.inputs().len())
        && let Some(field) = find("data").or_else(|| find("body"))
    {
        return content(&field.bytes, field.content, signatures, max_depth);
    }
    let mut tensors: SmallVec<[_; 2]> = signature.inputs().iter().map(|_| None).collect();
    for field in fields {
        let quoted = || Quoted(field.name).to_string();
        let Some(position) = signature.input_index(field.name) else {
            return Err(JsonError::UnknownName { input: quoted(), names: format!("data, body, {}", names(signature)) });
        };
        let spec = &signature.inputs()[position];
        let tensor = if is_raw(spec, field.content, &field.bytes) {
            raw(spec, &field.bytes)?
        } else {
            lifted(value(&field.bytes, spec, max_depth)?, spec)
        };
        if tensors[position].replace(tensor).is_some() {
            return Err(JsonError::Duplicate { key: quoted() });
        }
    }
    Ok(PlainBody { signature: index, inputs: in_order(tensors, signature)? })
}

/// Reads a document that is one value for `spec`.
pub(crate) fn value(body: &[u8], spec: &TensorSpec, max_depth: usize) -> Result<Tensor, JsonError> {
    whole(body, max_depth)?.tensor(spec, max_depth)
}

/// Whether `bytes` are an element of `spec` as they are.
fn is_raw(spec: &TensorSpec, content: Content, bytes: &[u8]) -> bool {
    let looks_like_json = || matches!(bytes.trim_ascii_start().first(), Some(b'[' | b'{' | b'"'));
    spec.dtype == DType::Bytes
        && match content {
            Content::Json => false,
            Content::Raw => true,
            Content::Unknown => !looks_like_json(),
        }
}

/// The shape that a single element of `spec` has, if it has one.
fn sizes_of_one(spec: &TensorSpec) -> Option<SmallVec<[usize; 4]>> {
    let one = |dim: &Dim| matches!(dim, Dim::Symbol(_) | Dim::Fixed(1)).then_some(1);
    spec.shape.iter().map(one).collect()
}

/// The same, where it is a single string and `spec` wants axes: a picture is written as `{"b64": …}`, as it is sent raw.
fn lifted(tensor: Tensor, spec: &TensorSpec) -> Tensor {
    if spec.dtype != DType::Bytes || !tensor.shape().is_empty() {
        return tensor;
    }
    sizes_of_one(spec).and_then(|sizes| tensor.reshaped(&sizes).ok()).unwrap_or(tensor)
}

/// One element, under a shape of as many axes as `spec` has.
fn raw(spec: &TensorSpec, bytes: &Bytes) -> Result<Tensor, JsonError> {
    let unfit = || JsonError::Raw { input: spec.to_string() };
    let sizes = sizes_of_one(spec).ok_or_else(unfit)?;
    let strings = Strings::new(bytes.clone(), vec![0, bytes.len()]).ok_or_else(unfit)?;
    Tensor::from_strings(&sizes, strings).map_err(|error| JsonError::Tensor { input: spec.name.clone(), error })
}

fn in_order(tensors: SmallVec<[Option<Tensor>; 2]>, signature: &Signature) -> Result<TensorList, JsonError> {
    let missing = |input| JsonError::Missing { place: "the body".to_owned(), input };
    let inputs = tensors.into_iter().zip(signature.inputs());
    inputs.map(|(tensor, spec)| tensor.ok_or_else(|| missing(spec.name.clone()))).collect()
}

pub(crate) fn decode(body: &[u8], signatures: &Signatures, max_depth: usize) -> Result<PlainBody, JsonError> {
    let (index, signature) = signatures.find("").expect("signatures are never empty");
    let mut cursor = Cursor::new(body);
    cursor.space();
    if cursor.peek() == Some(b'{') && cursor.clone().base64_object().is_none() {
        return named(body, signatures, max_depth);
    }
    let read = |mut cursor: Cursor<'_>| {
        let [spec] = signature.inputs() else {
            let (value, _) = value_here(&cursor);
            return Err(JsonError::Unnamed { value, expected: signature.inputs().len(), names: names(signature) });
        };
        let mut column = Column::new(spec, &cursor, max_depth)?;
        column.read(&mut cursor, None)?;
        nothing_after(cursor)?;
        column.finish(None).map(|tensor| lifted(tensor, spec))
    };
    // Should the document itself be broken, then that is what is said, and not what came of it.
    let tensor = read(cursor).map_err(|error| whole(body, max_depth).err().unwrap_or(error))?;
    Ok(PlainBody { signature: index, inputs: [tensor].into_iter().collect() })
}

/// Reads a body that is an object.
fn named(body: &[u8], signatures: &Signatures, max_depth: usize) -> Result<PlainBody, JsonError> {
    let members = object(body, max_depth)?;
    let (index, signature) = signatures.find("").expect("signatures are never empty");
    let is_input = |key: &str| signature.input_index(key).is_some();
    if members.iter().any(|(key, _)| matches!(&**key, "instances" | "inputs") && !is_input(key)) {
        let body = decode_predict(body, signatures, max_depth)?;
        return Ok(PlainBody { signature: body.signature, inputs: body.inputs });
    }
    let mut tensors: SmallVec<[_; 2]> = signature.inputs().iter().map(|_| None).collect();
    for (key, value) in members {
        let Some(position) = signature.input_index(&key) else {
            return Err(JsonError::UnknownName { input: Quoted(&key).to_string(), names: names(signature) });
        };
        let spec = &signature.inputs()[position];
        // Open by now: the document.
        tensors[position] = Some(lifted(value.tensor(spec, max_depth.saturating_sub(1))?, spec));
    }
    Ok(PlainBody { signature: index, inputs: in_order(tensors, signature)? })
}

fn names(signature: &Signature) -> String {
    signature.inputs().iter().map(|spec| spec.name.as_ref()).collect::<Vec<_>>().join(", ")
}
