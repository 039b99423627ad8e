//! An answer: a document, and behind it the outputs that were wanted in binary form, each as it lies.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};
use millrace_core::{InferResponse, Reason, Refusal, Servable, Tensor};
use millrace_json::{JsonError, encode_elements, encode_string};
use millrace_protocol::oip::{PlannedOutput, raw_bytes, raw_len};
use smallvec::SmallVec;

use super::codec::Reply;
use super::request::default_signature;
use crate::coding::Coding;
use crate::head::HEADER_LENGTH;
use crate::response::{self, Answer, ResponseBody};

/// Bytes. So few are copied behind the document: a segment of their own costs more, here and on the way out.
const SMALL: usize = 4 << 10;

/// What the answer must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How it is packed.
    pub(super) packed: Coding,
    /// The most bytes, before packing.
    pub(super) max_bytes: usize,
}

/// Writes the whole answer.
///
/// # Errors
/// `BackendFailed` for an output whose strings are no text, `Unsupported` for a dtype that has no JSON form, `TooLarge`,
/// and `BackendBroken` where the outputs are not those wanted.
pub(super) fn write(
    servable: &dyn Servable,
    reply: &Reply,
    response: &InferResponse,
    limits: Limits,
) -> Result<Answer, Refusal> {
    let outputs = reply.plan.apply(&response.outputs)?;
    let mut text = Vec::with_capacity(256);
    text.push(b'{');
    if let Some(id) = &reply.id {
        text.extend_from_slice(b"\"id\":");
        encode_string(&mut text, id);
        text.push(b',');
    }
    text.extend_from_slice(b"\"model_name\":");
    encode_string(&mut text, servable.model().as_str());
    text.extend_from_slice(b",\"model_version\":");
    text.push(b'"');
    number(&mut text, servable.version());
    text.extend_from_slice(b"\",\"outputs\":[");
    let mut blobs: SmallVec<[&Tensor; 2]> = SmallVec::new();
    for (index, (planned, tensor)) in reply.plan.outputs.iter().zip(&*outputs).enumerate() {
        if index > 0 {
            text.push(b',');
        }
        output(&mut text, servable, (planned, tensor), limits.max_bytes)?;
        blobs.extend(planned.binary.then_some(tensor));
    }
    text.extend_from_slice(b"]}");
    finish(text, &blobs, limits)
}

/// Writes one output into the document, but for the bytes of one that is wanted in binary form.
fn output(
    text: &mut Vec<u8>,
    servable: &dyn Servable,
    (planned, tensor): (&PlannedOutput, &Tensor),
    max_bytes: usize,
) -> Result<(), Refusal> {
    text.extend_from_slice(b"{\"name\":");
    encode_string(text, &planned.name);
    text.extend_from_slice(b",\"datatype\":\"");
    text.extend_from_slice(tensor.dtype().name().as_bytes());
    text.extend_from_slice(b"\",\"shape\":[");
    for (axis, size) in tensor.shape().iter().enumerate() {
        if axis > 0 {
            text.push(b',');
        }
        number(text, *size);
    }
    text.push(b']');
    if planned.binary {
        text.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        number(text, raw_len(tensor));
        text.extend_from_slice(b"}}");
        return Ok(());
    }
    text.extend_from_slice(b",\"data\":");
    let specs = default_signature(servable)?.outputs();
    let spec = specs.get(planned.index).ok_or_else(|| {
        Refusal::new(Reason::BackendBroken, format!("model '{}' changed its signature", servable.model()))
    })?;
    encode_elements(text, spec, tensor, max_bytes).map_err(|error| unwritable(&error, servable, planned))?;
    text.push(b'}');
    Ok(())
}

fn number(text: &mut Vec<u8>, number: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Why an output is no text, in words that say what would work.
fn unwritable(error: &JsonError, servable: &dyn Servable, planned: &PlannedOutput) -> Refusal {
    let (name, model) = (&planned.name, servable.model());
    match error {
        JsonError::OutputText { .. } => Refusal::new(
            Reason::BackendFailed,
            format!("output '{name}' of model '{model}' is not UTF-8; ask for it with 'binary_data'"),
        ),
        JsonError::OutputType { dtype, .. } => Refusal::new(
            Reason::InvalidInput,
            format!("sending {dtype} data via JSON is not supported; ask for output '{name}' with 'binary_data'"),
        ),
        other => other.refusal(model),
    }
}

fn finish(mut text: Vec<u8>, blobs: &[&Tensor], limits: Limits) -> Result<Answer, Refusal> {
    let lengths = blobs.iter().map(|tensor| raw_len(tensor));
    let (header, n_blob_bytes) = (text.len(), lengths.fold(0, usize::saturating_add));
    if header.saturating_add(n_blob_bytes) > limits.max_bytes {
        return Err(Refusal::new(Reason::TooLarge, JsonError::AnswerTooLarge { limit: limits.max_bytes }.to_string()));
    }
    let mut body = if n_blob_bytes <= SMALL {
        for tensor in blobs {
            match tensor.bytes() {
                Some(bytes) => text.extend_from_slice(bytes),
                None => text.extend_from_slice(&raw_bytes(tensor)?),
            }
        }
        ResponseBody::new(text)
    } else {
        let blobs = blobs.iter().map(|tensor| raw_bytes(tensor)).collect::<Result<SmallVec<[Bytes; 2]>, Refusal>>()?;
        ResponseBody::of_segments(std::iter::once(Bytes::from(text)).chain(blobs))
    };
    if limits.packed != Coding::Identity {
        body = ResponseBody::new(limits.packed.pack(&body.into_bytes())?);
    }
    let mut answer = response::with_body(StatusCode::OK, body);
    let headers = answer.headers_mut();
    if n_blob_bytes > 0 {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // One allocation; as a number it would be two.
        let length = HeaderValue::from_str(itoa::Buffer::new().format(header));
        headers.insert(HEADER_LENGTH, length.unwrap_or_else(|_| HeaderValue::from(header)));
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if limits.packed != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(limits.packed.name()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(answer)
}
