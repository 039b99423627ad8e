//! What can be wrong with a file of a model folder.

use std::fmt;
use std::io;

/// A file that is not what it should be. The text names the file and the key, what was given and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HuggingFaceError {
    /// A file that another one refers to is not there.
    #[error("{file} is missing, but {by} names it")]
    Absent {
        /// The file.
        file: String,
        /// What refers to it.
        by: String,
    },
    /// A file that cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: String,
        /// What reading gave.
        source: io::Error,
    },
    /// More bytes than such a file has.
    #[error("{file} has {bytes} bytes; at most {most} are read")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
        /// The most that is read.
        most: usize,
    },
    /// Something that is no JSON object, or no JSON.
    #[error("{file}: {detail}")]
    Syntax {
        /// The file.
        file: String,
        /// Where and why.
        detail: String,
    },
    /// A key that must be there is not.
    #[error("{file}: `{key}` is missing; expected {expected}")]
    Missing {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What would be right.
        expected: String,
    },
    /// A key with a value that is impossible.
    #[error("{file}: `{key}` is {got}; expected {expected}")]
    Wrong {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there, shortened.
        got: String,
    },
    /// A key with a value that asks for something that is not known here.
    #[error("{file}: `{key}` is {got}, which is not supported; known: {known}")]
    Unsupported {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is known.
        known: String,
        /// What is there, shortened.
        got: String,
    },
}

impl HuggingFaceError {
    /// Whether the files are sound and only ask for something that is not known here.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// Whether a file is not there or cannot be read.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Read { .. })
    }
}

/// A JSON value in at most some tens of characters, on one line.
pub(crate) struct Shortened<'a>(pub(crate) &'a serde_json::Value);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 60;
        // Only the start of large values is written out: the rest would be thrown away.
        let text = match self.0 {
            serde_json::Value::Array(items) => return write!(f, "a list of {}", items.len()),
            serde_json::Value::Object(entries) => return write!(f, "an object of {}", entries.len()),
            serde_json::Value::String(text) => {
                let end = text.char_indices().nth(MOST).map_or(text.len(), |(at, _)| at);
                let dots = if end < text.len() { "…" } else { "" };
                return write!(f, "\"{}{dots}\"", text[..end].escape_debug());
            }
            plain => plain.to_string(),
        };
        f.write_str(&text)
    }
}
