//! The wall around the engine's bindings: whatever panics inside comes out as an error.

use millrace_core::contained;

/// The bindings panicked; the text is their own message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub(crate) struct Panicked(String);

/// Runs `work`. The caller must not use again what `work` may have left half-changed when it panicked.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    contained(work)
        .map_err(|refusal| Panicked(refusal.cause().map_or_else(|| refusal.to_string(), ToString::to_string)))
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_comes_out_as_an_error_with_its_words() {
        assert_eq!(guarded(|| 1), Ok(1));
        let panicked = guarded(|| panic!("broken {}", 7)).unwrap_err();
        assert_eq!(panicked.to_string(), "the engine panicked: broken 7");
    }
}
