//! Why a file is not a model that can be read.

/// Why bytes are not a model, or a tensor has no data.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are no ONNX message: cut off, damaged, or something else entirely.
    #[error("{place}: {detail}; expected an ONNX model")]
    Damaged {
        /// The part of the file, such as `node `scaler` (Scaler)`.
        place: String,
        /// What is wrong there.
        detail: &'static str,
    },
    /// The structure is sound, but the content contradicts itself.
    #[error("{place}: {detail}")]
    Invalid {
        /// The part of the file.
        place: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The model has a feature that this reader does not know.
    #[error("{place}: {detail}")]
    Unsupported {
        /// The part of the file.
        place: String,
        /// What it is.
        detail: String,
    },
    /// External data whose name leads out of the model's folder.
    #[error("{place}: the external file `{name}` lies outside of the model's folder")]
    Outside {
        /// The tensor.
        place: String,
        /// The name as the file has it, quoted and cut to a reasonable length.
        name: String,
    },
    /// External data that could not be read.
    #[error("{place}: the external file `{name}` cannot be read")]
    Unreadable {
        /// The tensor.
        place: String,
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl OnnxError {
    pub(crate) fn damaged(place: impl Into<String>, detail: &'static str) -> Self {
        Self::Damaged { place: place.into(), detail }
    }

    pub(crate) fn invalid(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), detail: detail.into() }
    }
}

/// A name from a file as messages show it: without control characters, and not longer than a line.
pub(crate) fn shown(name: &str) -> String {
    const MOST: usize = 80;
    let mut text: String = name.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if name.chars().nth(MOST).is_some() {
        text.push('…');
    }
    text
}
