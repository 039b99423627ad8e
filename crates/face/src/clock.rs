//! The one place of this crate that reads the real clock: requests are measured with it, and late ones stopped.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a pipeline stands at the edge, as queues do: it stamps what it answers")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
