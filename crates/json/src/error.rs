//! What can be wrong with a JSON body, said with place, expectation and what was there instead.
//!
//! [`Fault`] is the byte-sized word that the readers pass around; [`JsonError`] is what a caller gets to read. The
//! latter is built once a request has failed, never on the way to an answer.

use std::fmt;
use std::sync::Arc;

use millrace_core::{DType, ModelName, Quoted, Reason, Refusal, TensorError};

use crate::cursor::{Cursor, Numbers};

/// What a reader stumbled over; the place is where its cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The document ends here.
    End,
    /// Not the byte that the grammar wants.
    Unexpected,
    /// A malformed number.
    Number,
    /// A raw control character in a string.
    Control,
    /// A malformed escape or half a surrogate pair.
    Escape,
    /// Not UTF-8.
    Utf8,
    /// More open containers than allowed.
    Depth,
    /// A value of another kind than the dtype takes.
    Type,
    /// A number that the dtype cannot hold.
    Range,
    /// Text that is not base64.
    Base64,
    /// An array with another number of elements than its siblings.
    Ragged,
    /// An array where siblings have values, or the reverse.
    Level,
    /// More axes than a tensor has.
    Rank,
}

/// Why a JSON body is not a request, or an answer not a JSON body.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// A body of no bytes, or of white space only.
    #[error("JSON Parse error: The document is empty")]
    Empty,
    /// The text breaks the grammar.
    #[error("JSON Parse error: {what} at byte {at}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
    /// The body is in another encoding.
    #[error("JSON Parse error: {what} at byte {at}; expected UTF-8")]
    Encoding {
        /// What shows it.
        what: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
    /// Too many containers within each other.
    #[error("JSON Parse error: nesting is deeper than the limit of {limit} levels")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// Something stands after the document.
    #[error("JSON Parse error: trailing bytes after the document, from byte {at} on")]
    Trailing {
        /// Where, counted from 0.
        at: usize,
    },
    /// A key that stands twice in one object.
    #[error("JSON Parse error: duplicate key {key}")]
    Duplicate {
        /// The key, quoted.
        key: String,
    },
    /// More keys or elements than allowed.
    #[error("more {what} than the limit of {limit}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A value without a name, for a signature with several inputs.
    #[error("expected an object that names each input, as the model has {expected} of them: {names}; got {value}")]
    Unnamed {
        /// The beginning of the value, quoted.
        value: String,
        /// How many inputs the signature has.
        expected: usize,
        /// Their names.
        names: String,
    },
    /// Raw bytes for an input that takes more than one element.
    #[error("raw bytes are one element, but the input takes {input}; send JSON")]
    Raw {
        /// The input, its dtype and shape.
        input: String,
    },
    /// A key that names no input.
    #[error("unknown input {input}; expected: {names}")]
    UnknownName {
        /// The key, quoted.
        input: String,
        /// The inputs that exist.
        names: String,
    },
    /// The document is something else than an object.
    #[error("JSON Value: {value} Type: {kind} is not of expected type: object")]
    NotAnObject {
        /// The beginning of the value, quoted.
        value: String,
        /// What it is.
        kind: &'static str,
    },
    /// `signature_name` is no string.
    #[error("'signature_name' key must be a string value, got {value}")]
    SignatureName {
        /// The beginning of the value, quoted.
        value: String,
    },
    /// The model has no signature of that name.
    #[error("Serving signature name: \"{name}\" not found in signature def")]
    SignatureUnknown {
        /// The name, escaped.
        name: String,
    },
    /// Neither form of input is there.
    #[error("Missing 'inputs' or 'instances' key")]
    NoInputs,
    /// Both forms of input are there.
    #[error("Not formatted correctly: expected one of 'inputs' and 'instances', got both")]
    BothInputs,
    /// A classify or regress body without examples.
    #[error("Missing 'examples' key, or its value is not a non-empty list")]
    NoExamples,
    /// `instances` is not a list with something in it.
    #[error("'instances' must be a non-empty list, got {value}")]
    Instances {
        /// The beginning of the value, quoted.
        value: String,
    },
    /// Values without names, for a signature with several inputs.
    #[error("'{key}' must name each input, as the model has {expected} of them: {names}")]
    Names {
        /// `instances` or `inputs`.
        key: &'static str,
        /// How many inputs the signature has.
        expected: usize,
        /// Their names.
        names: String,
    },
    /// An element of `instances` is no object although the first one is.
    #[error("instances[{row}]: expected an object with one key for each input, as in instances[0], got {value}")]
    RowKind {
        /// The element.
        row: usize,
        /// The beginning of it, quoted.
        value: String,
    },
    /// An input is missing from a row or from `inputs`.
    #[error("{place}: input `{input}` is missing")]
    Missing {
        /// The row, as `instances[3]`, or `inputs`.
        place: String,
        /// The input.
        input: Arc<str>,
    },
    /// A row has a key that names no input.
    #[error("instances[{row}]: unknown input {input}; expected: {names}")]
    UnknownInput {
        /// The row.
        row: usize,
        /// The key, quoted.
        input: String,
        /// The inputs that exist.
        names: String,
    },
    /// A value that the input's dtype does not take.
    #[error(
        "input `{input}`{index}: JSON Value: {value} Type: {kind} is not of expected type: {}{}",
        tensorflow_name(*.expected),
        if *.is_out_of_range { " (out of range)" } else { "" }
    )]
    Element {
        /// The input.
        input: Arc<str>,
        /// Where in the tensor.
        index: Index,
        /// The beginning of the value, quoted.
        value: String,
        /// What it is.
        kind: &'static str,
        /// The dtype of the input.
        expected: DType,
        /// Whether the value is a number of the right kind that the dtype cannot hold.
        is_out_of_range: bool,
    },
    /// Base64 that cannot be decoded.
    #[error("input `{input}`{index}: Unable to base64 decode {value}")]
    Base64 {
        /// The input.
        input: Arc<str>,
        /// Where in the tensor.
        index: Index,
        /// The beginning of the value, quoted.
        value: String,
    },
    /// The nesting is not that of a tensor.
    #[error("input `{input}`{index}: ragged: expected {expected}, got {got}")]
    Ragged {
        /// The input.
        input: Arc<str>,
        /// Where in the tensor.
        index: Index,
        /// What the elements before it have.
        expected: String,
        /// What this one has.
        got: String,
    },
    /// A dtype that has no JSON form in requests.
    #[error("input `{input}`: Conversion of JSON Value: {value} to type: {dtype} is not supported")]
    Unsupported {
        /// The input.
        input: Arc<str>,
        /// The beginning of the value, quoted.
        value: String,
        /// The dtype.
        dtype: DType,
    },
    /// A tensor's elements that come as something else than a list.
    #[error("input `{input}`: expected a list of elements, got {value}")]
    NotAList {
        /// The input.
        input: Arc<str>,
        /// The beginning of the value, quoted.
        value: String,
    },
    /// Another number of elements than the shape wants.
    #[error("input `{input}`: expected {expected} elements, got {got}")]
    Count {
        /// The input.
        input: Arc<str>,
        /// The shape's.
        expected: usize,
        /// The number that came, or `more`.
        got: String,
    },
    /// The tensor has too many axes or elements.
    #[error("input `{input}`: {error}")]
    Tensor {
        /// The input.
        input: Arc<str>,
        /// Why.
        error: TensorError,
    },
    /// An output without rows, asked for as rows.
    #[error("Tensor name: {output} has no shape information: it has rank 0, so it has no rows; ask with 'inputs'")]
    NoRows {
        /// The output.
        output: Arc<str>,
    },
    /// Outputs that disagree on the number of rows.
    #[error("Tensor name: {output} has inconsistent batch size: {got} expecting: {expected}; ask with 'inputs'")]
    Rows {
        /// The output.
        output: Arc<str>,
        /// The rows of the first output.
        expected: usize,
        /// This one's.
        got: usize,
    },
    /// A ragged output without counts that add up to its rows.
    #[error("output `{output}`: {detail}")]
    Counts {
        /// The output that is ragged, or the one that counts.
        output: Arc<str>,
        /// What is wrong.
        detail: String,
    },
    /// An output dtype that has no JSON form.
    #[error("Failed to write JSON value for tensor type: {dtype} (output `{output}`)")]
    OutputType {
        /// The output.
        output: Arc<str>,
        /// Its dtype.
        dtype: DType,
    },
    /// An output string that is not text.
    #[error(
        "output `{output}`: a string is not UTF-8, so JSON cannot hold it; outputs named `…_bytes` are sent as base64"
    )]
    OutputText {
        /// The output.
        output: Arc<str>,
    },
    /// An answer above the limit.
    #[error("the answer is larger than the limit of {limit} bytes; ask for less at a time")]
    AnswerTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The outputs are not those of the signature.
    #[error("the model gave {got} outputs, its signature has {expected}")]
    Outputs {
        /// The signature's.
        expected: usize,
        /// The answer's.
        got: usize,
    },
}

/// A place in a tensor, written as `[0][3]`; nothing for the tensor as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index(pub Box<[usize]>);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            f.write_str(" at index ")?;
        }
        self.0.iter().try_for_each(|index| write!(f, "[{index}]"))
    }
}

impl JsonError {
    /// Why, in the words that every protocol shares.
    pub fn reason(&self) -> Reason {
        match self {
            Self::SignatureUnknown { .. } => Reason::SignatureUnknown,
            Self::Unsupported { .. } => Reason::Unsupported,
            Self::Outputs { .. } | Self::Counts { .. } => Reason::BackendBroken,
            Self::AnswerTooLarge { .. } => Reason::TooLarge,
            Self::Empty
            | Self::Syntax { .. }
            | Self::Encoding { .. }
            | Self::Depth { .. }
            | Self::Trailing { .. }
            | Self::Duplicate { .. }
            | Self::TooMany { .. }
            | Self::Unnamed { .. }
            | Self::UnknownName { .. }
            | Self::Raw { .. }
            | Self::NotAnObject { .. }
            | Self::SignatureName { .. }
            | Self::NoInputs
            | Self::BothInputs
            | Self::NoExamples
            | Self::Instances { .. }
            | Self::Names { .. }
            | Self::RowKind { .. }
            | Self::Missing { .. }
            | Self::UnknownInput { .. }
            | Self::Element { .. }
            | Self::Base64 { .. }
            | Self::Ragged { .. }
            | Self::NotAList { .. }
            | Self::Count { .. }
            | Self::Tensor { .. }
            | Self::NoRows { .. }
            | Self::Rows { .. }
            | Self::OutputType { .. }
            | Self::OutputText { .. } => Reason::InvalidInput,
        }
    }

    /// The refusal for a caller of `model`.
    pub fn refusal(&self, model: &ModelName) -> Refusal {
        Refusal::new(self.reason(), format!("model `{model}`: {self}"))
    }

    /// The error for a document that breaks the grammar where `cursor` stands.
    pub(crate) fn syntax(cursor: &Cursor<'_>, fault: Fault, limit: usize) -> Self {
        let (text, at) = (cursor.text, cursor.at);
        if let Some(error) = foreign_encoding(text) {
            return error;
        }
        let what = match fault {
            Fault::End if text.iter().all(u8::is_ascii_whitespace) => return Self::Empty,
            Fault::End => "the document ends too early",
            Fault::Depth => return Self::Depth { limit },
            Fault::Control => {
                return Self::Encoding { what: "a string holds a raw control character, which must be escaped,", at };
            }
            Fault::Utf8 => return Self::Encoding { what: "a byte is not text", at },
            Fault::Number => "a number is malformed",
            Fault::Range => "a number is out of range",
            Fault::Escape => "an escape is malformed",
            Fault::Unexpected | Fault::Type | Fault::Base64 | Fault::Ragged | Fault::Level | Fault::Rank => {
                "an unexpected character stands"
            }
        };
        Self::Syntax { what, at }
    }
}

/// The error for a body that is not UTF-8 at all, however its bytes may look to the grammar.
fn foreign_encoding(text: &[u8]) -> Option<JsonError> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Some(JsonError::Encoding { what: "a byte order mark, which JSON must not have,", at: 0 });
    }
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") || text.iter().take(4).any(|&byte| byte == 0) {
        return Some(JsonError::Encoding { what: "UTF-16 or UTF-32", at: 0 });
    }
    let error = std::str::from_utf8(text).err()?;
    Some(JsonError::Encoding { what: "a byte is not text", at: error.valid_up_to() })
}

/// The beginning of the value at the cursor, quoted, and its kind by the names that TensorFlow Serving uses.
pub(crate) fn value_here(cursor: &Cursor<'_>) -> (String, &'static str) {
    const MOST: usize = 100;
    let mut here = *cursor;
    let kind = match here.peek_value() {
        Ok(b'{') => "Object",
        Ok(b'[') => "Array",
        Ok(b'"') => "String",
        Ok(b't') => "True",
        Ok(b'f') => "False",
        Ok(b'n') => "Null",
        Ok(_) => "Number",
        Err(_) => "Nothing",
    };
    let rest = here.text.get(here.at..).unwrap_or_default();
    let mut value = Cursor::new(&rest[..rest.len().min(MOST)]);
    let is_whole = value.skip(MOST, Numbers::WellFormed).is_ok();
    let shown = if is_whole { &value.text[..value.at] } else { value.text };
    let mut shown = Quoted(&String::from_utf8_lossy(shown)).to_string();
    if !is_whole && rest.len() > MOST {
        shown.insert(shown.len() - 1, '…');
    }
    (shown, kind)
}

/// TensorFlow's name of a dtype, as its messages have it.
pub(crate) fn tensorflow_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::Uint8 => "uint8",
        DType::Uint16 => "uint16",
        DType::Uint32 => "uint32",
        DType::Uint64 => "uint64",
        DType::Int8 => "int8",
        DType::Int16 => "int16",
        DType::Int32 => "int32",
        DType::Int64 => "int64",
        DType::Fp16 => "half",
        DType::Bf16 => "bfloat16",
        DType::Fp32 => "float",
        DType::Fp64 => "double",
        DType::Bytes => "string",
    }
}
