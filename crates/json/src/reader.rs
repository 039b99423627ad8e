//! A document read in one pass by whoever knows its keys: objects and lists call back for each member, values are taken or
//! skipped where they stand, and the elements of a tensor go straight into it.
//!
//! What keys mean, which of them may be missing and which must not stand twice is the caller's affair. A reader is a
//! position and can be copied: a copy taken before a value was skipped reads it later.

use std::borrow::Cow;

use millrace_core::{Shape, Tensor, TensorSpec};

use super::cursor::{Cursor, Numbers, Text};
use super::document::nothing_after;
use super::error::{Fault, JsonError, value_here};
use super::flat;
use super::number::Leaf;

/// A position in a document.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    cursor: Cursor<'a>,
    /// The most containers that may be open.
    max_depth: usize,
    /// How many are.
    open: usize,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    List,
    /// `"…"`
    String,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
    /// Anything else: a number, if the document is sound.
    Number,
}

/// A value that is no container.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number, written as one, that fits 64 bits with a sign.
    Int(i64),
    /// A larger one that fits them without.
    Uint(u64),
    /// Any other number.
    Double(f64),
    /// A string.
    String(Cow<'a, str>),
}

/// An object's key.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a>(Text<'a>);

impl<'a> Key<'a> {
    /// Whether the key is `name`.
    pub fn is(&self, name: &str) -> bool {
        self.0.is(name)
    }

    /// The key as text.
    pub fn text(&self) -> Cow<'a, str> {
        self.0.text()
    }
}

impl<'a> Reader<'a> {
    /// At the start of `text`, which may nest at most `max_depth` deep.
    pub fn new(text: &'a [u8], max_depth: usize) -> Self {
        Self { cursor: Cursor::new(text), max_depth, open: 0 }
    }

    /// What stands here.
    ///
    /// # Errors
    /// [`JsonError`] where the document ends.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        Ok(match self.step(Cursor::peek_value)? {
            b'{' => Kind::Object,
            b'[' => Kind::List,
            b'"' => Kind::String,
            b't' | b'f' => Kind::Bool,
            b'n' => Kind::Null,
            _ => Kind::Number,
        })
    }

    /// The beginning of the value here, quoted.
    pub fn shown(&self) -> String {
        value_here(&self.cursor).0
    }

    /// Reads an object. `member` is called with each key and must take or skip the value behind it.
    ///
    /// # Errors
    /// [`JsonError`] where this is no object or a broken one, and whatever `member` gives.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Key<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.kind()? != Kind::Object {
            let (value, kind) = value_here(&self.cursor);
            // What is no value at all is wrong in another way.
            self.skip()?;
            return Err(JsonError::NotAnObject { value, kind }.into());
        }
        let mut follows = self.enter(b'{', b'}')?;
        while follows {
            let key = self.step(Cursor::key)?;
            self.cursor.space();
            member(self, Key(key))?;
            follows = self.step(|cursor| cursor.another(b'}'))?;
        }
        self.open -= 1;
        Ok(())
    }

    /// Reads a list. `element` is called with each position and must take or skip the value there.
    ///
    /// # Errors
    /// [`JsonError`] where this is no list or a broken one, and whatever `element` gives.
    pub fn list<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut follows = self.enter(b'[', b']')?;
        let mut index = 0;
        while follows {
            self.cursor.space();
            element(self, index)?;
            index += 1;
            follows = self.step(|cursor| cursor.another(b']'))?;
        }
        self.open -= 1;
        Ok(())
    }

    /// Reads a value that is no container; gives `None`, without moving, at one.
    ///
    /// # Errors
    /// [`JsonError`] where the value is broken or a number that 64 bits cannot hold.
    pub fn scalar(&mut self) -> Result<Option<Scalar<'a>>, JsonError> {
        Ok(Some(match self.kind()? {
            Kind::Object | Kind::List => return Ok(None),
            Kind::String => Scalar::String(self.step(Cursor::string)?.text()),
            Kind::Bool => Scalar::Bool(self.step(bool::read)?),
            Kind::Null if self.cursor.literal("null") => Scalar::Null,
            Kind::Null | Kind::Number => self.number()?,
        }))
    }

    fn number(&mut self) -> Result<Scalar<'a>, JsonError> {
        if let Ok(number) = i64::read(&mut self.cursor) {
            return Ok(Scalar::Int(number));
        }
        if let Ok(number) = u64::read(&mut self.cursor) {
            return Ok(Scalar::Uint(number));
        }
        self.step(f64::read).map(Scalar::Double)
    }

    /// Moves past the value here, whatever it is.
    ///
    /// # Errors
    /// [`JsonError`] where it is broken or nested too deep.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        let levels = self.max_depth.saturating_sub(self.open);
        self.step(|cursor| cursor.skip(levels, Numbers::InRange))
    }

    /// Reads the elements of a tensor for `spec`: a list, nested in any way, whose leaves are taken in order. The tensor has
    /// `shape`, or where that is not known yet one axis with as many elements as there are. Nothing is allocated on the word
    /// of a shape.
    ///
    /// # Errors
    /// [`JsonError`], naming the input and the place in it: no list, an element that the dtype does not take, more or fewer
    /// elements than the shape wants, or a dtype that has no JSON form.
    pub fn elements(&mut self, spec: &TensorSpec, shape: Option<&Shape>) -> Result<Tensor, JsonError> {
        flat::tensor(&mut self.cursor, spec, shape, (self.open, self.max_depth))
    }

    /// Makes sure that nothing follows.
    ///
    /// # Errors
    /// [`JsonError::Trailing`].
    pub fn finish(self) -> Result<(), JsonError> {
        nothing_after(self.cursor)
    }

    /// Opens a container; says whether it has elements.
    fn enter(&mut self, open: u8, close: u8) -> Result<bool, JsonError> {
        if self.open >= self.max_depth {
            return Err(JsonError::Depth { limit: self.max_depth });
        }
        let follows = self.step(|cursor| cursor.open(open, close))?;
        self.open += 1;
        Ok(follows)
    }

    #[inline]
    fn step<T>(&mut self, step: impl FnOnce(&mut Cursor<'a>) -> Result<T, Fault>) -> Result<T, JsonError> {
        step(&mut self.cursor).map_err(|fault| JsonError::syntax(&self.cursor, fault, self.max_depth))
    }
}
