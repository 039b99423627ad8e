//! One log line per failed request, and not more lines than anybody can read.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use millrace_core::{Code, Reason, Refusal};

use super::clock::now;

/// Lines per second for each reason; an overload would otherwise drown the log in its own refusals.
const PER_SECOND: u32 = 20;
/// Bytes of cause that a line repeats.
const LONGEST_CAUSE: usize = 1024;

/// Who a refusal is to be laid to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The caller: a line at debug level.
    Caller,
    /// Want of time or room: a warning.
    Overload,
    /// The server: an error.
    Fault,
}

impl Weight {
    /// By the canonical code of a refusal.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Unknown | Code::Internal | Code::DataLoss => Self::Fault,
            Code::Unavailable | Code::DeadlineExceeded | Code::Unimplemented => Self::Overload,
            Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unauthenticated => Self::Caller,
        }
    }

    /// By the HTTP status of an answer.
    pub const fn of_http(status: u16) -> Self {
        match status {
            500 => Self::Fault,
            501..=599 => Self::Overload,
            _ => Self::Caller,
        }
    }
}

/// Logs failures, at most twenty a second for each reason.
#[derive(Debug)]
pub struct FailureLog {
    started: Instant,
    /// For each reason, the second that is being counted (upper half) and the failures in it (lower half).
    seconds: [AtomicU64; Reason::ALL.len()],
    /// Seeded by the operating system, so that ids hardly ever repeat between processes.
    hasher: RandomState,
    next_id: AtomicU64,
}

impl Default for FailureLog {
    fn default() -> Self {
        Self::new()
    }
}

impl FailureLog {
    /// Nothing logged yet.
    pub fn new() -> Self {
        let (hasher, next_id) = (RandomState::new(), AtomicU64::new(0));
        Self { started: now(), seconds: Default::default(), hasher, next_id }
    }

    /// A request id to be sent back and logged where the server is at fault and the client gave none, so that the answer
    /// and the line can be brought together.
    pub fn new_id(&self) -> String {
        let number = self.hasher.hash_one(self.next_id.fetch_add(1, Ordering::Relaxed));
        format!("{number:016x}")
    }

    /// Logs a refusal that was answered with `status`. Foreign text in it was escaped where the message was made; causes
    /// and ids are escaped here.
    pub fn write(&self, weight: Weight, status: &dyn fmt::Display, refusal: &Refusal, request_id: &[u8]) {
        let (reason, message) = (refusal.reason().name(), refusal.message());
        let id = String::from_utf8_lossy(request_id);
        if weight == Weight::Caller {
            tracing::debug!(%status, reason, message, request_id = ?id, "request refused");
            return;
        }
        let Some(unlogged) = self.admit(refusal.reason()) else { return };
        let cause = cause(refusal);
        match weight {
            Weight::Fault => {
                tracing::error!(%status, reason, message, ?cause, request_id = ?id, unlogged, "request failed");
            }
            Weight::Caller | Weight::Overload => {
                tracing::warn!(%status, reason, message, ?cause, request_id = ?id, unlogged, "request refused");
            }
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
