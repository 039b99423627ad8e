//! Bytes that many requests hold together: bodies that arrive, answers that clients have not taken yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// A number of bytes that may be held at once.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    taken: AtomicU64,
}

impl Budget {
    /// Room for `total` bytes.
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, taken: AtomicU64::new(0) })
    }

    /// All of it in bytes, taken or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// `bytes`, which count until the last handle to them is dropped; `None` where there is no room for them.
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Option<Bytes> {
        let mut share = Share::new(self);
        share.grow(bytes.len()).then(|| Bytes::from_owner(Held { bytes, _share: share }))
    }

    /// How many of its bytes are held now.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Somebody's part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// Nothing yet.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes `bytes` more; false where there is no room, and then takes none.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let within = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.budget.total);
        // Only the number itself is shared, so no order with other memory is needed.
        let grown = self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Budget, Share};

    #[test]
    fn what_is_held_counts_until_its_last_handle_goes() {
        let budget = Budget::new(10);
        let held = budget.hold(Bytes::from_static(b"123456")).unwrap();
        let part = held.slice(2..3);
        assert!(budget.hold(Bytes::from_static(b"12345")).is_none());
        drop(held);
        assert_eq!((&part[..], budget.taken()), (&b"3"[..], 6), "a slice keeps the whole");
        drop(part);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_share_that_cannot_grow_keeps_what_it_has() {
        let budget = Budget::new(u64::MAX);
        let mut share = Share::new(&budget);
        assert!(share.grow(5));
        let mut other = Share::new(&budget);
        assert!(!other.grow(usize::MAX), "more than all of it, and the sum does not wrap");
        assert!(other.grow(7));
        assert_eq!(budget.taken(), 12);
        drop(share);
        assert_eq!(budget.taken(), 7);
    }
}
