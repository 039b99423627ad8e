//! One log line per failed request, and not more lines than anybody can read.

use std::error::Error;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, Version};
use millrace_core::{Reason, Refusal};

use crate::clock::now;
use crate::error::Failure;
use crate::head::REQUEST_ID;
use crate::response::Answer;

/// Lines per second for each reason; an overload would otherwise drown the log in its own refusals.
const PER_SECOND: u32 = 20;
/// Bytes of cause that a line repeats.
const LONGEST_CAUSE: usize = 1024;

/// Logs failures, at most [`PER_SECOND`] per reason.
#[derive(Debug)]
pub(crate) struct FailureLog {
    started: Instant,
    /// For each reason, the second that is being counted (upper half) and the failures in it (lower half).
    seconds: [AtomicU64; Reason::ALL.len()],
    ids: Ids,
}

impl FailureLog {
    pub(crate) fn new() -> Self {
        Self { started: now(), seconds: Default::default(), ids: Ids::default() }
    }

    /// The answer to a failed request, logged. Where the server is at fault and the client sent no id, both the line and
    /// the answer get one, so that the two can be brought together.
    pub(crate) fn refuse(&self, failure: &Failure, version: Version, request_id: Option<&HeaderValue>) -> Answer {
        let mut answer = failure.answer(version);
        match request_id {
            None if failure.status().is_server_error() => {
                let id = self.ids.next();
                self.write(failure, id.as_bytes());
                answer.headers_mut().insert(REQUEST_ID, id);
            }
            given => self.write(failure, given.map_or(b"", HeaderValue::as_bytes)),
        }
        answer
    }

    /// Logs `failure`: the server's own faults as errors, refusals for want of time or room as warnings, the rest at
    /// debug level. Foreign text in it was escaped where the message was made; causes and ids are escaped here.
    fn write(&self, failure: &Failure, request_id: &[u8]) {
        let status = failure.status().as_u16();
        let refusal = failure.refusal();
        let (reason, message) = (refusal.reason().name(), refusal.message());
        let id = String::from_utf8_lossy(request_id);
        if status < 500 {
            tracing::debug!(status, reason, message, request_id = ?id, "request refused");
            return;
        }
        let Some(unlogged) = self.admit(refusal.reason()) else { return };
        let cause = cause(refusal);
        if status == 500 {
            tracing::error!(status, reason, message, ?cause, request_id = ?id, unlogged, "request failed");
        } else {
            tracing::warn!(status, reason, message, ?cause, request_id = ?id, unlogged, "request refused");
        }
    }

    /// Whether one more line may be written, and how many were not in the second counted before.
    fn admit(&self, reason: Reason) -> Option<u32> {
        let second = now().saturating_duration_since(self.started).as_secs() & u64::from(u32::MAX);
        let halves = |packed: u64| (packed >> 32, u32::try_from(packed & u64::from(u32::MAX)).unwrap_or(u32::MAX));
        let count = |packed| match halves(packed) {
            (counted, count) if counted == second => Some(second << 32 | u64::from(count.saturating_add(1))),
            _ => Some(second << 32 | 1),
        };
        let before = self.seconds[reason as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        let (counted, count) = halves(before.unwrap_or_default());
        if counted == second { (count < PER_SECOND).then_some(0) } else { Some(count.saturating_sub(PER_SECOND)) }
    }
}

/// Request ids that do not repeat within a process and hardly ever between processes.
#[derive(Debug, Default)]
struct Ids {
    /// Seeded by the operating system.
    hasher: RandomState,
    next: AtomicU64,
}

impl Ids {
    fn next(&self) -> HeaderValue {
        let number = self.hasher.hash_one(self.next.fetch_add(1, Ordering::Relaxed));
        HeaderValue::from_str(&format!("{number:016x}")).expect("hexadecimal digits make a header")
    }
}

/// The chain of causes, one after the other.
fn cause(refusal: &Refusal) -> String {
    let mut text = String::new();
    let mut next = refusal.source();
    while let Some(error) = next {
        let between = if text.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{between}{error}");
        next = error.source();
    }
    let end = (0..=LONGEST_CAUSE.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use millrace_core::{Reason, Refusal};

    use super::{FailureLog, LONGEST_CAUSE, PER_SECOND, cause};

    #[test]
    fn a_flood_of_one_reason_is_cut_and_others_still_get_through() {
        let log = FailureLog::new();
        let flood: Vec<_> = (0..1000).filter_map(|_| log.admit(Reason::QueueFull)).collect();
        // The clock may step into a second or third window meanwhile.
        assert!((PER_SECOND as usize..=3 * PER_SECOND as usize).contains(&flood.len()), "{}", flood.len());
        assert!(log.admit(Reason::BackendFailed).is_some());
    }

    #[test]
    fn causes_are_joined_and_cut() {
        let refusal = Refusal::new(Reason::BackendFailed, "the backend failed");
        assert_eq!(cause(&refusal), "");
        let cause_of = |text: &str| {
            let source: Box<dyn std::error::Error + Send + Sync> = Box::new(io::Error::other(text.to_owned()));
            cause(&refusal.clone().with_cause(source))
        };
        assert_eq!(cause_of("node `Conv_3`"), "node `Conv_3`");
        assert!(cause_of(&"ä".repeat(5000)).len() <= LONGEST_CAUSE);
    }
}
