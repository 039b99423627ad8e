//! Reads a parsed TOML table key by key and refuses what nobody asked for, with line, column and a suggestion.
//!
//! A hand-written reader in place of derived code, because a message such as "line 3: unknown key `verisons`; did you
//! mean `versions`?" needs the place and the list of known keys together.

use std::num::NonZeroUsize;
use std::ops::Range;

use millrace_core::{Quoted, nearest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A `model.toml` or `config.pbtxt` that cannot be used: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}, column {column}: {message}")]
pub struct ModelConfigError {
    /// The file's name.
    pub file: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl ModelConfigError {
    /// An error about the bytes at `span` of `text`, which is the file's.
    pub(crate) fn at(file: &'static str, text: &str, span: &Range<usize>, message: impl Into<String>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Self { file, line, column: before[line_start..].chars().count() + 1, message: message.into() }
    }
}

/// The file that is read here.
const FILE: &str = "model.toml";

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Value<'t> {
    text: &'t str,
    key: &'t str,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    pub(crate) fn error(&self, message: impl AsRef<str>) -> ModelConfigError {
        let message = format!("`{}`: {}", self.key, message.as_ref());
        ModelConfigError::at(FILE, self.text, &self.value.span(), message)
    }

    fn expected(&self, what: &str) -> ModelConfigError {
        self.error(format!("expected {what}, got {}", kind(self.value.get_ref())))
    }

    pub(crate) fn bool(self) -> Result<bool, ModelConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(crate) fn str(self) -> Result<&'t str, ModelConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("a string"))
    }

    pub(crate) fn as_str(self) -> Option<&'t str> {
        self.value.get_ref().as_str()
    }

    pub(crate) fn u64(self) -> Result<u64, ModelConfigError> {
        let wrong = || self.expected("a whole number, zero or more");
        let integer = self.value.get_ref().as_integer().ok_or_else(wrong)?;
        u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| wrong())
    }

    pub(crate) fn count(self) -> Result<NonZeroUsize, ModelConfigError> {
        let wrong = || self.expected("a whole number above zero");
        let number = self.u64().map_err(|_| wrong())?;
        usize::try_from(number).ok().and_then(NonZeroUsize::new).ok_or_else(wrong)
    }

    pub(crate) fn list<T>(
        self,
        each: impl Fn(Self) -> Result<T, ModelConfigError>,
    ) -> Result<Vec<T>, ModelConfigError> {
        let items = self.value.get_ref().as_array().ok_or_else(|| self.expected("a list"))?;
        items.iter().map(|value| each(Self { value, ..self })).collect()
    }

    pub(crate) fn is_list(self) -> bool {
        self.value.get_ref().is_array()
    }

    pub(crate) fn is_table(self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(crate) fn table(self) -> Result<Table<'t>, ModelConfigError> {
        let table = self.value.get_ref().as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(Table { text: self.text, name: self.key, table })
    }

    /// A scalar of any kind, as text.
    pub(crate) fn scalar(self) -> Result<String, ModelConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                Ok(self.text.get(self.value.span()).unwrap_or_default().to_owned())
            }
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(self.expected("a string, a number, true or false"))
            }
        }
    }

    /// A scalar of any kind, as text, or a list as it is written.
    pub(crate) fn written(self) -> Result<String, ModelConfigError> {
        match self.value.get_ref() {
            DeValue::Array(_) => Ok(self.text.get(self.value.span()).unwrap_or_default().to_owned()),
            DeValue::Datetime(_) | DeValue::Table(_) => Err(self.expected("a string, a number, true, false or a list")),
            DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => self.scalar(),
        }
    }
}

/// A table and what it is called.
#[derive(Clone, Copy)]
pub(crate) struct Table<'t> {
    text: &'t str,
    name: &'t str,
    table: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    /// The error of a document that is not TOML.
    pub(crate) fn unreadable(text: &str, error: &toml::de::Error) -> ModelConfigError {
        ModelConfigError::at(FILE, text, &error.span().unwrap_or(0..0), error.message())
    }

    /// The whole document.
    pub(crate) fn root(text: &'t str, table: &'t DeTable<'t>) -> Self {
        Self { text, name: "", table }
    }

    /// Every key with its value.
    pub(crate) fn entries(self) -> impl Iterator<Item = (&'t str, Value<'t>)> {
        self.table.iter().map(move |(key, value)| {
            let key = key.get_ref().as_ref();
            (key, Value { text: self.text, key, value })
        })
    }

    /// The value of `key`, if it is there.
    pub(crate) fn get(self, key: &str) -> Option<Value<'t>> {
        self.entries().find_map(|(known, value)| (known == key).then_some(value))
    }

    /// Refuses each of `keys` that is there, for the reason `why`.
    pub(crate) fn without(self, keys: &[&str], why: &str) -> Result<(), ModelConfigError> {
        for (key, _) in self.table {
            let name: &str = key.get_ref().as_ref();
            if keys.contains(&name) {
                return Err(ModelConfigError::at(FILE, self.text, &key.span(), format!("`{name}`: {why}")));
            }
        }
        Ok(())
    }

    /// Refuses every key but `known`, suggesting the nearest.
    pub(crate) fn only(self, known: &[&str]) -> Result<(), ModelConfigError> {
        for (key, _) in self.table {
            let name: &str = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
            let hint = match nearest(name, known.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            let message = format!("unknown key {}{place}; {hint}", Quoted(name));
            return Err(ModelConfigError::at(FILE, self.text, &key.span(), message));
        }
        Ok(())
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fractional number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
