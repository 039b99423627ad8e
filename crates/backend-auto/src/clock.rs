//! Time as a span since some beginning, so that tests can hand in their own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What tells the time. The default is the machine's own clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// A clock that shows what `now` gives: the time since any fixed beginning.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Duration {
        (self.0)()
    }

    /// How long ago `start` was.
    pub(crate) fn since(&self, start: Duration) -> Duration {
        self.now().saturating_sub(start)
    }
}

impl Default for Clock {
    fn default() -> Self {
        let beginning = instant();
        Self::new(move || instant().saturating_duration_since(beginning))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the real clock")]
fn instant() -> Instant {
    Instant::now()
}
