//! Why a configuration is refused: where, what, and what was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};

use millrace_core::{Quoted, nearest};

/// A configuration that cannot be used. Its text is one line: where it stands, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    message: String,
    suggestion: Option<String>,
}

/// Where a wrong value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file, at a line and a column (both from 1) where they are known.
    File { path: PathBuf, at: Option<(usize, usize)> },
    /// In an environment variable.
    Environment(String),
    /// In a flag or an argument.
    Flag(&'static str),
    /// In the combination of several.
    Together,
}

impl ConfigError {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), suggestion: None }
    }

    /// An error in `text`, the content of the file `path`, at the byte `offset`.
    pub(crate) fn in_file(path: &Path, text: &str, offset: Option<usize>, message: impl Into<String>) -> Self {
        let at = offset.map(|offset| line_and_column(text, offset));
        Self::new(Place::File { path: path.to_owned(), at }, message)
    }

    /// The error of reading `text` as TOML. Unknown keys get the known one that is spelled most alike.
    pub(crate) fn from_toml(place: Place, text: &str, error: &toml::de::Error) -> Self {
        let place = match (place, error.span()) {
            (Place::File { path, .. }, Some(span)) => Place::File { path, at: Some(line_and_column(text, span.start)) },
            (place, _) => place,
        };
        let message = error.message().replace('\n', " ");
        let mut this = Self::new(place, message.clone());
        if let Some((unknown, known)) = unknown_field(&message) {
            this.message = format!("unknown key {}", Quoted(&unknown));
            this.suggestion = nearest(&unknown, known.iter().map(String::as_str)).map(str::to_owned);
            if this.suggestion.is_none() {
                this.message = format!("{}; known here: {}", this.message, known.join(", "));
            }
        }
        this
    }

    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, at: Some((line, column)) } => write!(f, "{}:{line}:{column}: ", path.display())?,
            Place::File { path, at: None } => write!(f, "{}: ", path.display())?,
            Place::Environment(name) => write!(f, "environment variable {name}: ")?,
            Place::Flag(name) => write!(f, "{name}: ")?,
            Place::Together => {}
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Line and column, from 1, of the byte `offset`; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The unknown name and the known ones out of serde's message for `deny_unknown_fields`.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once("`, expected ")?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown.to_owned(), known))
}
