//! What the `[options]` of a model may say to this engine. Anything else is an error: an option that does nothing would
//! be taken for one that works.

use std::collections::BTreeMap;

use millrace_core::{LoadError, LoadErrorKind, Quoted};

/// The options of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// `check_rows`: whether loading tries out that rows are independent. Default: true.
    pub(crate) check_rows: bool,
}

impl Options {
    /// Reads the options as `model.toml` has them.
    ///
    /// # Errors
    /// [`LoadError`] naming an option that does not exist or its value.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, text);
        let mut read = Self { check_rows: true };
        for (name, value) in options {
            match name.as_str() {
                "check_rows" => {
                    read.check_rows = value.parse().map_err(|_| {
                        invalid(format!("option `check_rows`: expected true or false, got {}", Quoted(value)))
                    })?;
                }
                _ => return Err(invalid(format!("unknown option {}; tract has `check_rows`", Quoted(name)))),
            }
        }
        Ok(read)
    }
}
