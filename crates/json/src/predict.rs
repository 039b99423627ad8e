//! A predict body: which signature it means, in which form, and its inputs in the signature's order.
//!
//! Two ways lead through a body. The straight one reads it once and fills the tensors on the way. Should it stumble, its
//! work is thrown away and the careful one starts afresh: it checks the syntax of the whole document first, notes where
//! things are, and so can report faults in the order that clients know: syntax, signature, keys, values. A good request
//! never takes the careful way, except where `signature_name` follows the values and names another signature.

use millrace_core::{Quoted, Signature, Signatures, TensorList};

use crate::column::Column;
use crate::cursor::{Cursor, Numbers, Text};
use crate::error::{Fault, JsonError, value_here};
use crate::{Form, PredictBody};

/// Reads a body by the straight way; `None` where anything at all is amiss.
pub(crate) fn straight(body: &[u8], signatures: &Signatures, max_depth: usize) -> Option<PredictBody> {
    let mut cursor = Cursor::new(body);
    let (mut index, mut signature) = signatures.find("")?;
    let mut has_name = false;
    // Filled in place: a list of tensors holds the first two itself, and moving it about costs as much as reading a row.
    let mut inputs = TensorList::new();
    let mut form = None;
    let mut follows = cursor.open(b'{', b'}').ok()?;
    while follows {
        let key = cursor.key().ok()?;
        if key.is("signature_name") && !has_name {
            cursor.space();
            let (named, other) = signatures.find(&cursor.string().ok()?.display())?;
            if form.is_some() && named != index {
                return None;
            }
            (index, signature, has_name) = (named, other, true);
        } else if let Some(form_here) = form_of(key) {
            if form.replace(form_here).is_some() {
                return None;
            }
            read(&mut cursor, form_here, Reader { signature, max_depth }, &mut inputs).ok()?;
        } else {
            cursor.skip(max_depth.checked_sub(1)?, Numbers::InRange).ok()?;
        }
        follows = cursor.another(b'}').ok()?;
    }
    Some(PredictBody { signature: index, form: form?, inputs })
}

/// A document whose syntax has been checked, and where the keys that matter have their values. The first of equal keys
/// counts.
#[derive(Debug, Default)]
pub(crate) struct Document<'a> {
    signature_name: Option<Cursor<'a>>,
    instances: Option<Cursor<'a>>,
    inputs: Option<Cursor<'a>>,
    examples: Option<Cursor<'a>>,
}

impl<'a> Document<'a> {
    /// Checks the syntax of the whole document. What follows it is not looked at.
    pub(crate) fn scan(body: &'a [u8], max_depth: usize) -> Result<Self, JsonError> {
        let mut cursor = Cursor::new(body);
        cursor.space();
        let start = cursor;
        let mut document = Self::default();
        let read = match cursor.peek() {
            Some(b'{') if max_depth > 0 => document.object(&mut cursor, max_depth - 1),
            _ => cursor.skip(max_depth, Numbers::WellFormed),
        };
        read.map_err(|fault| JsonError::syntax(&cursor, fault, max_depth))?;
        if start.peek() != Some(b'{') {
            let (value, kind) = value_here(&start);
            return Err(JsonError::NotAnObject { value, kind });
        }
        Ok(document)
    }

    fn object(&mut self, cursor: &mut Cursor<'a>, levels: usize) -> Result<(), Fault> {
        let mut follows = cursor.open(b'{', b'}')?;
        while follows {
            let key = cursor.key()?;
            cursor.space();
            let value = *cursor;
            let slot = match form_of(key) {
                Some(Form::Rows) => Some(&mut self.instances),
                Some(Form::Columns) => Some(&mut self.inputs),
                None if key.is("signature_name") => Some(&mut self.signature_name),
                None if key.is("examples") => Some(&mut self.examples),
                None => None,
            };
            // A number out of range is reported where the input's name is known, so not yet for tensors.
            let numbers = if slot.is_some() { Numbers::WellFormed } else { Numbers::InRange };
            if let Some(slot) = slot {
                slot.get_or_insert(value);
            }
            cursor.skip(levels, numbers)?;
            follows = cursor.another(b'}')?;
        }
        Ok(())
    }

    /// The signature that is named, and its position.
    fn signature<'s>(&self, signatures: &'s Signatures) -> Result<(usize, &'s Signature), JsonError> {
        let name = match self.signature_name {
            None => String::new(),
            Some(mut cursor) => match cursor.string() {
                Ok(text) => text.display(),
                Err(_) => return Err(JsonError::SignatureName { value: value_here(&cursor).0 }),
            },
        };
        signatures.find(&name).ok_or_else(|| {
            let name = Quoted(&name).to_string().trim_matches('`').to_owned();
            JsonError::SignatureUnknown { name }
        })
    }

    /// Finds the signature and reads the inputs.
    pub(crate) fn predict(&self, signatures: &Signatures, max_depth: usize) -> Result<PredictBody, JsonError> {
        let (signature, found) = self.signature(signatures)?;
        let (form, mut cursor) = match (self.instances, self.inputs) {
            (None, None) => return Err(JsonError::NoInputs),
            (Some(_), Some(_)) => return Err(JsonError::BothInputs),
            (Some(cursor), None) => (Form::Rows, cursor),
            (None, Some(cursor)) => (Form::Columns, cursor),
        };
        let mut inputs = TensorList::new();
        read(&mut cursor, form, Reader { signature: found, max_depth }, &mut inputs)?;
        Ok(PredictBody { signature, form, inputs })
    }

    /// Finds the signature and checks that there is a list of examples with something in it.
    pub(crate) fn examples(&self, signatures: &Signatures) -> Result<usize, JsonError> {
        let (signature, _) = self.signature(signatures)?;
        match self.examples {
            Some(cursor) if cursor.clone().open(b'[', b']') == Ok(true) => Ok(signature),
            _ => Err(JsonError::NoExamples),
        }
    }
}

fn form_of(key: Text<'_>) -> Option<Form> {
    if key.is("instances") {
        return Some(Form::Rows);
    }
    key.is("inputs").then_some(Form::Columns)
}

/// Reads the value of `instances` or `inputs`.
fn read(cursor: &mut Cursor<'_>, form: Form, reader: Reader<'_>, inputs: &mut TensorList) -> Result<(), JsonError> {
    cursor.space();
    match form {
        Form::Rows => reader.rows(cursor, inputs),
        Form::Columns => reader.columns(cursor, inputs),
    }
}

#[derive(Clone, Copy)]
struct Reader<'s> {
    signature: &'s Signature,
    max_depth: usize,
}

impl<'s> Reader<'s> {
    fn rows(self, cursor: &mut Cursor<'_>, inputs: &mut TensorList) -> Result<(), JsonError> {
        let mut ahead = *cursor;
        if cursor.peek() != Some(b'[') || !self.syntax(&ahead, ahead.clone().open(b'[', b']'))? {
            return Err(JsonError::Instances { value: value_here(cursor).0 });
        }
        ahead.at += 1;
        ahead.space();
        if ahead.peek() == Some(b'{') && ahead.clone().base64_object().is_none() {
            *cursor = ahead;
            return self.row_objects(cursor, inputs);
        }
        // A list of values is nested like the tensor itself, so one reading serves both forms.
        self.only_value(cursor, "instances", inputs)
    }

    fn columns(self, cursor: &mut Cursor<'_>, inputs: &mut TensorList) -> Result<(), JsonError> {
        if cursor.peek() != Some(b'{') || cursor.clone().base64_object().is_some() {
            return self.only_value(cursor, "inputs", inputs);
        }
        let specs = self.signature.inputs();
        let mut tensors = (0..specs.len()).map(|_| None).collect::<smallvec::SmallVec<[_; 2]>>();
        let mut follows = self.here(cursor, |cursor| cursor.open(b'{', b'}'))?;
        while follows {
            let key = self.here(cursor, Cursor::key)?;
            match specs.iter().position(|spec| key.is(&spec.name)) {
                Some(position) if tensors[position].is_none() => {
                    // Open by now: the document and the object of inputs.
                    let mut column = Column::new(&specs[position], cursor, self.max_depth.saturating_sub(2))?;
                    column.read(cursor, None)?;
                    tensors[position] = Some(column.finish(None)?);
                }
                _ => self.here(cursor, |cursor| cursor.skip(self.max_depth.saturating_sub(2), Numbers::InRange))?,
            }
            follows = self.here(cursor, |cursor| cursor.another(b'}'))?;
        }
        let missing = |input| JsonError::Missing { place: "inputs".to_owned(), input };
        for (tensor, spec) in tensors.into_iter().zip(specs) {
            inputs.push(tensor.ok_or_else(|| missing(spec.name.clone()))?);
        }
        Ok(())
    }

    /// Reads a value without a name, which only a signature with one input gives a meaning.
    fn only_value(self, cursor: &mut Cursor<'_>, key: &'static str, inputs: &mut TensorList) -> Result<(), JsonError> {
        let [spec] = self.signature.inputs() else {
            let expected = self.signature.inputs().len();
            return Err(JsonError::Names { key, expected, names: self.names() });
        };
        let mut column = Column::new(spec, cursor, self.max_depth.saturating_sub(1))?;
        column.read(cursor, None)?;
        inputs.push(column.finish(None)?);
        Ok(())
    }

    /// Reads the rows of `instances`, which has been opened: an object each.
    fn row_objects(self, cursor: &mut Cursor<'_>, inputs: &mut TensorList) -> Result<(), JsonError> {
        // Open in a row: the document, the list, the row.
        let levels = self.max_depth.saturating_sub(3);
        let new = |spec: &'s _| Column::new(spec, cursor, levels);
        let mut columns = self.signature.inputs().iter().map(new).collect::<Result<Vec<_>, _>>()?;
        let mut n_rows = 0;
        loop {
            self.row(cursor, &mut columns, n_rows)?;
            n_rows += 1;
            if !self.here(cursor, |cursor| cursor.another(b']'))? {
                break;
            }
        }
        for column in columns {
            inputs.push(column.finish(Some(n_rows))?);
        }
        Ok(())
    }

    fn row(self, cursor: &mut Cursor<'_>, columns: &mut [Column<'s>], row: usize) -> Result<(), JsonError> {
        if self.here(cursor, Cursor::peek_value)? != b'{' {
            return Err(JsonError::RowKind { row, value: value_here(cursor).0 });
        }
        let mut follows = self.here(cursor, |cursor| cursor.open(b'{', b'}'))?;
        // Clients mostly keep one order of keys, so the column after the last one is tried first.
        let mut next = 0;
        while follows {
            let key = self.here(cursor, Cursor::key)?;
            let is_next = columns.get(next).is_some_and(|column| key.is(&column.spec().name));
            let found = if is_next { Some(next) } else { columns.iter().position(|it| key.is(&it.spec().name)) };
            let Some(position) = found else {
                let input = Quoted(&key.display()).to_string();
                return Err(JsonError::UnknownInput { row, input, names: self.names() });
            };
            let column = &mut columns[position];
            if column.n_values() > row {
                let levels = self.max_depth.saturating_sub(3);
                self.here(cursor, |cursor| cursor.skip(levels, Numbers::InRange))?;
            } else {
                column.read(cursor, Some(row))?;
            }
            next = position + 1;
            follows = self.here(cursor, |cursor| cursor.another(b'}'))?;
        }
        match columns.iter().find(|column| column.n_values() <= row) {
            Some(column) => {
                Err(JsonError::Missing { place: format!("instances[{row}]"), input: column.spec().name.clone() })
            }
            None => Ok(()),
        }
    }

    fn names(self) -> String {
        self.signature.inputs().iter().map(|spec| spec.name.as_ref()).collect::<Vec<_>>().join(", ")
    }

    /// Takes a step of the cursor; a fault becomes a syntax error where the cursor then stands.
    #[inline]
    fn here<'a, T>(
        self,
        cursor: &mut Cursor<'a>,
        step: impl FnOnce(&mut Cursor<'a>) -> Result<T, Fault>,
    ) -> Result<T, JsonError> {
        let taken = step(cursor);
        self.syntax(cursor, taken)
    }

    #[inline]
    fn syntax<T>(self, cursor: &Cursor<'_>, taken: Result<T, Fault>) -> Result<T, JsonError> {
        taken.map_err(|fault| JsonError::syntax(cursor, fault, self.max_depth))
    }
}
