//! Documents taken apart one level at a time, for bodies that say more than tensors: which keys they have and where the
//! values are. Nothing is copied but keys.
//!
//! Stricter than the readers of TensorFlow Serving's bodies: a key must not stand twice, and nothing may follow.

use millrace_core::{Quoted, Tensor, TensorSpec};

use super::column::Column;
use super::cursor::{Cursor, Numbers};
use super::error::{Fault, JsonError, value_here};

/// The most keys of one object; more than any request needs.
pub const MOST_KEYS: usize = 1024;

/// A value inside a document whose syntax has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    start: Cursor<'a>,
    end: usize,
}

/// The keys and values of the object that `body` is.
///
/// # Errors
/// [`JsonError`] when the syntax is broken, nesting is deeper than `max_depth`, the document is no object, a key stands
/// twice, there are more than [`MOST_KEYS`], or anything follows.
pub fn object(body: &[u8], max_depth: usize) -> Result<Vec<(String, Value<'_>)>, JsonError> {
    let mut cursor = Cursor::new(body);
    cursor.space();
    if cursor.peek() != Some(b'{') {
        let value = whole(body, max_depth)?;
        return Err(value.not_an_object());
    }
    let members = members(&mut cursor, max_depth)?;
    nothing_after(cursor)?;
    Ok(members)
}

/// The elements of the list that `body` is, or `None` where it is something else; at most `most` of them.
///
/// # Errors
/// [`JsonError`] when the syntax is broken, nesting is deeper than `max_depth`, there are more elements, or anything
/// follows.
pub fn list(body: &[u8], max_depth: usize, most: usize) -> Result<Option<Vec<Value<'_>>>, JsonError> {
    let mut cursor = Cursor::new(body);
    cursor.space();
    if cursor.peek() != Some(b'[') {
        return whole(body, max_depth).map(|_| None);
    }
    let broken = |cursor: &Cursor<'_>, fault| JsonError::syntax(cursor, fault, max_depth);
    let levels = max_depth.checked_sub(1).ok_or(JsonError::Depth { limit: max_depth })?;
    let mut values = Vec::new();
    let mut follows = cursor.open(b'[', b']').map_err(|fault| broken(&cursor, fault))?;
    while follows {
        if values.len() == most {
            return Err(JsonError::TooMany { what: "elements", limit: most });
        }
        values.push(value(&mut cursor, levels).map_err(|fault| broken(&cursor, fault))?);
        follows = cursor.another(b']').map_err(|fault| broken(&cursor, fault))?;
    }
    nothing_after(cursor)?;
    Ok(Some(values))
}

/// The document that `body` is.
pub(crate) fn whole(body: &[u8], max_depth: usize) -> Result<Value<'_>, JsonError> {
    let mut cursor = Cursor::new(body);
    let value = value(&mut cursor, max_depth).map_err(|fault| JsonError::syntax(&cursor, fault, max_depth))?;
    nothing_after(cursor)?;
    Ok(value)
}

/// Refuses anything but white space from `cursor` on.
pub(crate) fn nothing_after(mut cursor: Cursor<'_>) -> Result<(), JsonError> {
    cursor.space();
    if cursor.peek().is_some() { Err(JsonError::Trailing { at: cursor.at }) } else { Ok(()) }
}

/// The value at the cursor, which moves past it.
fn value<'a>(cursor: &mut Cursor<'a>, levels: usize) -> Result<Value<'a>, Fault> {
    cursor.space();
    let start = *cursor;
    cursor.skip(levels, Numbers::WellFormed)?;
    Ok(Value { start, end: cursor.at })
}

/// The members of the object at the cursor, which moves past it.
fn members<'a>(cursor: &mut Cursor<'a>, max_depth: usize) -> Result<Vec<(String, Value<'a>)>, JsonError> {
    let broken = |cursor: &Cursor<'_>, fault| JsonError::syntax(cursor, fault, max_depth);
    let levels = max_depth.checked_sub(1).ok_or(JsonError::Depth { limit: max_depth })?;
    let mut members: Vec<(String, Value<'a>)> = Vec::new();
    let mut follows = cursor.open(b'{', b'}').map_err(|fault| broken(cursor, fault))?;
    while follows {
        let key = cursor.key().map_err(|fault| broken(cursor, fault))?.display();
        if members.len() == MOST_KEYS {
            return Err(JsonError::TooMany { what: "keys", limit: MOST_KEYS });
        }
        if members.iter().any(|(known, _)| *known == key) {
            return Err(JsonError::Duplicate { key: Quoted(&key).to_string() });
        }
        members.push((key, value(cursor, levels).map_err(|fault| broken(cursor, fault))?));
        follows = cursor.another(b'}').map_err(|fault| broken(cursor, fault))?;
    }
    Ok(members)
}

impl<'a> Value<'a> {
    /// The value's own text.
    pub fn text(&self) -> &'a [u8] {
        self.start.text.get(self.start.at..self.end).unwrap_or_default()
    }

    /// What it means, where it is a string.
    pub fn string(&self) -> Option<String> {
        self.start.clone().string().ok().map(|text| text.display())
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.text() == b"null"
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.text().first() == Some(&b'{')
    }

    /// Whether it is an object that stands for bytes, `{"b64": "…"}`.
    pub fn is_base64(&self) -> bool {
        self.start.clone().base64_object().is_some()
    }

    /// The keys and values of the object that it is, nested at most `max_depth` deep.
    ///
    /// # Errors
    /// Those of [`object`] about keys and kinds.
    pub fn object(&self, max_depth: usize) -> Result<Vec<(String, Self)>, JsonError> {
        if !self.is_object() {
            return Err(self.not_an_object());
        }
        members(&mut self.start.clone(), max_depth)
    }

    /// The tensor that it is as a value for `spec`: an element, or arrays of them at most `max_depth` deep. The shape is
    /// that of the text.
    ///
    /// # Errors
    /// [`JsonError`], naming the input and the place in it.
    pub fn tensor(&self, spec: &TensorSpec, max_depth: usize) -> Result<Tensor, JsonError> {
        let mut cursor = self.start;
        let mut column = Column::new(spec, &cursor, max_depth)?;
        column.read(&mut cursor, None)?;
        column.finish(None)
    }

    /// The beginning of its text, quoted, and its kind, such as `Object`.
    pub fn shown(&self) -> (String, &'static str) {
        value_here(&self.start)
    }

    fn not_an_object(&self) -> JsonError {
        let (value, kind) = self.shown();
        JsonError::NotAnObject { value, kind }
    }
}
