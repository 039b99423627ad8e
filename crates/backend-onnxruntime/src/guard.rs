//! The wall around the engine's bindings: whatever panics inside comes out as an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The bindings panicked; the text is their own message.
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
