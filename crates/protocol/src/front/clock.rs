//! The one place that reads the clock. It is tokio's, so that tests can pause it.

use std::time::Instant;

/// The present instant.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
