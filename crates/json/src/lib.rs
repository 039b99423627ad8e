//! JSON straight into tensors and straight out of them: TensorFlow Serving's bodies, bodies without an envelope, and for
//! documents of any other protocol a step-by-step [`Reader`].
//!
//! Nothing here builds a tree of values: a request's numbers go from the text into the vectors that become its tensors,
//! an answer's elements from the tensors into one buffer. Nothing recurses on what a client sends. Memory stays within a
//! small multiple of the body, whatever shapes a signature declares.
//!
//! The dialect is TensorFlow Serving's, so some things are looser than JSON: the tokens `NaN`, `Inf`, `Infinity`, `-Inf`
//! and `-Infinity` are numbers everywhere, and in its own bodies what follows the document is not looked at and the first
//! of equal keys counts. In two places the reader is stricter on purpose, as the alternative is a wrong answer: an integer
//! that does not fit `INT8`, `INT16` or `UINT8` is refused where TensorFlow Serving cuts it, and so is a finite number that
//! `FP32` cannot hold, which TensorFlow Serving turns into an infinity.
//!
//! Left to others: whether shapes fit the signature ([`Signature::check`]), compression, HTTP.

#![forbid(unsafe_code)]

mod column;
mod cursor;
mod document;
mod error;
mod flat;
mod number;
mod plain;
mod predict;
mod reader;
#[cfg(test)]
mod tests;
mod write;

use bytes::Bytes;
use millrace_core::{Signature, Signatures, Tensor, TensorList, TensorSpec};

pub use document::{MOST_KEYS, Value, list, object};
pub use error::{Index, JsonError};
pub use plain::{Content, Field};
pub use reader::{Key, Kind, Reader, Scalar};

/// The nesting that is allowed unless configured otherwise, the outermost object included.
pub const DEFAULT_MAX_DEPTH: usize = 64;

/// How inputs are laid out; the answer follows the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `instances` → `predictions`: a list with an entry for each row.
    Rows,
    /// `inputs` → `outputs`: a whole tensor for each name.
    Columns,
}

/// What a predict body says.
#[derive(Debug)]
pub struct PredictBody {
    /// The position of the signature it names, or of the default one.
    pub signature: usize,
    /// The form it has.
    pub form: Form,
    /// The inputs, in the order of the signature. Shapes are those of the text and not yet checked.
    pub inputs: TensorList,
}

/// What a body without an envelope says.
#[derive(Debug)]
pub struct PlainBody {
    /// The position of the signature it is read by.
    pub signature: usize,
    /// The inputs, in the order of the signature. Shapes are those of the text and not yet checked.
    pub inputs: TensorList,
}

/// Reads inputs without an envelope, by the default signature: the value of the only input, or an object with a value for
/// each. An object with a key `instances` or `inputs` that names no input is read as [`decode_predict`] does.
///
/// # Errors
/// [`JsonError`], naming the input and the place in it; also for a key that stands twice and for anything after the document.
pub fn decode_plain(body: &[u8], signatures: &Signatures, max_depth: usize) -> Result<PlainBody, JsonError> {
    plain::decode(body, signatures, max_depth)
}

/// The same for a body that may be the bytes of an element: where the only input takes bytes, what is not JSON is one
/// element of it, not copied.
///
/// # Errors
/// Those of [`decode_plain`].
pub fn decode_content(
    body: &Bytes,
    content: Content,
    signatures: &Signatures,
    max_depth: usize,
) -> Result<PlainBody, JsonError> {
    plain::content(body, content, signatures, max_depth)
}

/// The same for a body of named parts: `data`, or else `body`, is a whole body; without either, each part is an input.
///
/// # Errors
/// Those of [`decode_plain`], and for parts that are neither.
pub fn decode_fields(fields: &[Field<'_>], signatures: &Signatures, max_depth: usize) -> Result<PlainBody, JsonError> {
    plain::fields(fields, signatures, max_depth)
}

/// Reads a document that is one value for `spec`: an element, or arrays of them. The shape is that of the text.
///
/// # Errors
/// [`JsonError`], naming the input and the place in it; also for anything after the document.
pub fn decode_value(body: &[u8], spec: &TensorSpec, max_depth: usize) -> Result<Tensor, JsonError> {
    plain::value(body, spec, max_depth)
}

/// Writes outputs between two pieces of text, in at most `max_bytes` bytes: the value of the only output, or an object with
/// the outputs' names.
///
/// # Errors
/// Those of [`encode_predict_within`] about outputs.
pub fn encode_plain_within(
    signature: &Signature,
    outputs: &[Tensor],
    around: (&[u8], &[u8]),
    max_bytes: usize,
) -> Result<Vec<u8>, JsonError> {
    let (before, after) = around;
    write::body(write::Envelope { form: Form::Columns, before, after, limit: max_bytes }, signature.outputs(), outputs)
}

/// Writes one output between two pieces of text, in at most `max_bytes` bytes.
///
/// # Errors
/// Those of [`encode_predict_within`] about outputs.
pub fn encode_value_within(
    spec: &TensorSpec,
    output: &Tensor,
    around: (&[u8], &[u8]),
    max_bytes: usize,
) -> Result<Vec<u8>, JsonError> {
    let (before, after) = around;
    let envelope = write::Envelope { form: Form::Columns, before, after, limit: max_bytes };
    write::body(envelope, std::slice::from_ref(spec), std::slice::from_ref(output))
}

/// Appends the elements of an output to `text` as one flat list, row-major. Strings are written as they are.
///
/// # Errors
/// [`JsonError`] when the dtype has no JSON form, a string is not UTF-8, or `text` would grow past `max_bytes`. What was
/// appended until then stays.
pub fn encode_elements(
    text: &mut Vec<u8>,
    spec: &TensorSpec,
    tensor: &Tensor,
    max_bytes: usize,
) -> Result<(), JsonError> {
    write::elements(text, spec, tensor, max_bytes)
}

/// Appends `value` to `text` as a string, quoted and escaped.
pub fn encode_string(text: &mut Vec<u8>, value: &str) {
    write::string(text, value);
}

/// Appends `number` to `text` as elements of tensors are written.
pub fn encode_float(text: &mut Vec<u8>, number: f32) {
    write::float(text, number);
}

/// Appends `numbers` to `text` as one list.
pub fn encode_floats(text: &mut Vec<u8>, numbers: &[f32]) {
    write::floats(text, numbers);
}

/// Reads the body of a predict request.
///
/// # Errors
/// [`JsonError`], naming the input and the place in it. Where several things are wrong, the first of these is reported:
/// the syntax, nested at most `max_depth` deep; the signature's name; the keys; the values.
pub fn decode_predict(body: &[u8], signatures: &Signatures, max_depth: usize) -> Result<PredictBody, JsonError> {
    if let Some(body) = predict::straight(body, signatures, max_depth) {
        return Ok(body);
    }
    predict::Document::scan(body, max_depth)?.predict(signatures, max_depth)
}

/// Checks the body of a classify or regress request: its syntax, the signature it names, and that it has examples. No
/// signature here takes examples, so nothing is read from them. Gives the position of the signature.
///
/// # Errors
/// [`JsonError`] when the syntax is broken, nesting is deeper than `max_depth`, `signature_name` is none of `signatures`,
/// or `examples` is no non-empty list.
pub fn check_examples(body: &[u8], signatures: &Signatures, max_depth: usize) -> Result<usize, JsonError> {
    predict::Document::scan(body, max_depth)?.examples(signatures)
}

/// Writes the body of a predict answer. `outputs` are all those of `signature`, in its order.
///
/// A signature with one output gives its value alone; one with several gives objects with the outputs' names.
///
/// # Errors
/// [`JsonError`] when an output's dtype has no JSON form, a string of an output not named `…_bytes` is not UTF-8, the
/// outputs are not those of the signature, or rows are asked for and the outputs have none or differ in their number.
pub fn encode_predict(form: Form, signature: &Signature, outputs: &[Tensor]) -> Result<Vec<u8>, JsonError> {
    encode_predict_within(form, signature, outputs, usize::MAX)
}

/// The same, of at most `max_bytes` bytes. What is certainly larger is refused before anything is written; the rest takes
/// at most a few times as much memory until it is.
///
/// # Errors
/// Those of [`encode_predict`], and [`JsonError::AnswerTooLarge`].
pub fn encode_predict_within(
    form: Form,
    signature: &Signature,
    outputs: &[Tensor],
    max_bytes: usize,
) -> Result<Vec<u8>, JsonError> {
    let before: &[u8] = match form {
        Form::Rows => b"{\"predictions\":",
        Form::Columns => b"{\"outputs\":",
    };
    write::body(write::Envelope { form, before, after: b"}", limit: max_bytes }, signature.outputs(), outputs)
}
