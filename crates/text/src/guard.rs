//! The wall around the tokenizer library: whatever panics inside comes out as an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why the library gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LibraryError {
    /// It said so.
    #[error("{0}")]
    Said(String),
    /// It panicked.
    #[error("the tokenizer library panicked: {0}")]
    Panicked(String),
}

/// Runs `work`, which must not change anything that is used again after a panic. What the library shares between calls are
/// caches behind locks, whose entries are whole or absent.
pub(crate) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, LibraryError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| LibraryError::Said(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(LibraryError::Panicked(text.unwrap_or("no message").to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn panics_and_errors_come_out_as_their_text() {
        assert_eq!(guarded(|| Ok(3)), Ok(3));
        assert_eq!(guarded::<()>(|| Err("no".into())).unwrap_err().to_string(), "no");
        let panicked = guarded::<()>(|| panic!("index {}", 7)).unwrap_err();
        assert_eq!(panicked.to_string(), "the tokenizer library panicked: index 7");
    }
}
