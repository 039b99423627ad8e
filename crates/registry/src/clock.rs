//! The real clock, for the threads that drive the pure parts.

use std::time::Instant;

/// Now.
#[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
