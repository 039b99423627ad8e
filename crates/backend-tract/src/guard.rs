//! The wall around the engine: whatever panics inside comes out as an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The engine panicked; the text is its own message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub(crate) struct Panicked(String);

/// Runs `work`. The caller must not use again what `work` may have left half-changed when it panicked.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(text(payload.as_ref())))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_comes_out_as_its_text() {
        assert_eq!(guarded(|| 3), Ok(3));
        let panicked = guarded(|| -> u8 { panic!("index {} out of bounds", 7) }).unwrap_err();
        assert_eq!(panicked.to_string(), "the engine panicked: index 7 out of bounds");
    }
}
