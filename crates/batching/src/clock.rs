//! The one place of this crate that reads the real clock: the threads and handles around the pure parts call it.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "drivers hand the instant to the pure parts, which never read it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
