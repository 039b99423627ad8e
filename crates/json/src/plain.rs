//! Inputs without an envelope, as TorchServe's handlers take them: a value for the only input, an object with a value for
//! each, or one of TensorFlow Serving's two forms.

use millrace_core::{Quoted, Signature, Signatures, TensorList};
use smallvec::SmallVec;

use super::column::Column;
use super::cursor::Cursor;
use super::document::{nothing_after, object, whole};
use super::error::{JsonError, value_here};
use super::{PlainBody, decode_predict};

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
        column.finish(None)
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
        // Open by now: the document.
        tensors[position] = Some(value.tensor(&signature.inputs()[position], max_depth.saturating_sub(1))?);
    }
    let missing = |input| JsonError::Missing { place: "the body".to_owned(), input };
    let inputs = tensors.into_iter().zip(signature.inputs());
    let inputs = inputs.map(|(tensor, spec)| tensor.ok_or_else(|| missing(spec.name.clone())));
    Ok(PlainBody { signature: index, inputs: inputs.collect::<Result<TensorList, _>>()? })
}

fn names(signature: &Signature) -> String {
    signature.inputs().iter().map(|spec| spec.name.as_ref()).collect::<Vec<_>>().join(", ")
}
