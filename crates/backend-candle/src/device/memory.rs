//! How much of a card's memory one model may hold.
//!
//! Weights are counted once, when they are loaded; a run asks for room before it begins and gives it back when it ends. What
//! a run will need is an estimate of the network, so the card may still run out: that is an error of that run alone.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// What the card itself has.
pub(super) trait Free: fmt::Debug + Send + Sync {
    /// Bytes that can be allocated now, what the card's allocator keeps for reuse included; `None` where that is not known.
    fn free(&self) -> Option<u64>;
}

/// The account of one model, shared by all its streams.
#[derive(Debug)]
pub(super) struct Budget {
    limit: Option<u64>,
    held: Mutex<Held>,
}

/// Bytes held now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    weights: u64,
    runs: u64,
}

/// Room for one run, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    bytes: u64,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    /// The model's own limit would have to be larger.
    #[error(
        "{} MiB of device memory are wanted, and `device_memory` = {} MiB leaves {} MiB",
        mib(*.wanted), mib(*.limit), mib(*.left)
    )]
    Limit { wanted: u64, left: u64, limit: u64 },
    /// The limit would do if other runs were not under way.
    #[error("{} MiB of device memory are wanted, and other runs leave {} MiB of `device_memory`", mib(*.wanted), mib(*.left))]
    Busy { wanted: u64, left: u64 },
    /// The card has not got it.
    #[error("{} MiB of device memory are wanted, and the card has {} MiB free", mib(*.wanted), mib(*.free))]
    Card { wanted: u64, free: u64 },
}

/// Rounded up, so that small numbers do not look like none.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl Budget {
    pub(super) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::default() })
    }

    /// Counts `bytes` of weights, for as long as the account lives.
    ///
    /// # Errors
    /// [`NoRoom`], and then nothing is counted.
    pub(super) fn hold_weights(&self, bytes: u64, card: &dyn Free) -> Result<(), NoRoom> {
        let mut held = self.held.lock();
        held.weights = self.fits(bytes, held.weights, *held, card)?;
        Ok(())
    }

    /// Room for a run that takes `bytes` beside the weights.
    ///
    /// # Errors
    /// [`NoRoom`], and then nothing is counted.
    pub(super) fn hold_run(self: &Arc<Self>, bytes: u64, card: &dyn Free) -> Result<Room, NoRoom> {
        let mut held = self.held.lock();
        held.runs = self.fits(bytes, held.runs, *held, card)?;
        Ok(Room { budget: Arc::clone(self), bytes })
    }

    /// `part`, one of what is held, with `wanted` more.
    fn fits(&self, wanted: u64, part: u64, held: Held, card: &dyn Free) -> Result<u64, NoRoom> {
        if let Some(limit) = self.limit {
            let left = limit.saturating_sub(held.weights);
            if wanted > left {
                return Err(NoRoom::Limit { wanted, left, limit });
            }
            let left = left.saturating_sub(held.runs);
            if wanted > left {
                return Err(NoRoom::Busy { wanted, left });
            }
        }
        // What runs hold is partly allocated by now and partly still to come, so this is the best case.
        if let Some(free) = card.free().filter(|free| wanted > *free) {
            return Err(NoRoom::Card { wanted, free });
        }
        part.checked_add(wanted).ok_or(NoRoom::Card { wanted, free: u64::MAX - part })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.held.lock().runs -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Free, Held, NoRoom};

    #[derive(Debug)]
    struct Card(Option<u64>);

    impl Free for Card {
        fn free(&self) -> Option<u64> {
            self.0
        }
    }

    #[test]
    fn weights_stay_and_runs_give_their_room_back() {
        let card = Card(None);
        let budget = Budget::new(Some(100));
        budget.hold_weights(60, &card).unwrap();
        let run = budget.hold_run(30, &card).unwrap();
        assert_eq!(budget.hold_run(11, &card).unwrap_err(), NoRoom::Busy { wanted: 11, left: 10 });
        assert_eq!(budget.hold_run(41, &card).unwrap_err(), NoRoom::Limit { wanted: 41, left: 40, limit: 100 });
        assert_eq!(budget.hold_weights(41, &card).unwrap_err(), NoRoom::Limit { wanted: 41, left: 40, limit: 100 });
        drop(run);
        drop(budget.hold_run(40, &card).unwrap());
        assert_eq!(*budget.held.lock(), Held { weights: 60, runs: 0 });
    }

    #[test]
    fn a_full_card_is_no_room_within_any_budget() {
        let budget = Budget::new(None);
        assert_eq!(budget.hold_run(11, &Card(Some(10))).unwrap_err(), NoRoom::Card { wanted: 11, free: 10 });
        assert!(budget.hold_run(10, &Card(Some(10))).is_ok());
        let most = budget.hold_run(u64::MAX, &Card(None)).unwrap();
        assert!(matches!(budget.hold_run(1, &Card(None)), Err(NoRoom::Card { free: 0, .. })));
        drop(most);
        assert_eq!(*budget.held.lock(), Held::default());
    }

    #[test]
    fn refusals_say_what_would_be_enough() {
        let text = NoRoom::Limit { wanted: (3 << 20) + 1, left: 2 << 20, limit: 8 << 20 }.to_string();
        assert_eq!(text, "4 MiB of device memory are wanted, and `device_memory` = 8 MiB leaves 2 MiB");
    }
}
