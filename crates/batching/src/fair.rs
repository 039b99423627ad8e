//! Whose turn it is among models: whoever has used the least compute time. Pure.
//!
//! A model that was idle does not save up: when it comes back it starts level with the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The compute time that one model has used, in nanoseconds, moved up to the others' level after idle times.
#[derive(Debug, Default)]
pub(crate) struct Account(AtomicU64);

impl Account {
    /// Adds compute time.
    pub(crate) fn charge(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2), Ordering::Relaxed);
    }

    fn used(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whoever has an account.
pub(crate) trait HasAccount {
    fn account(&self) -> &Account;
}

/// Those with work to do.
#[derive(Debug)]
pub(crate) struct Turns<Q> {
    ready: Vec<Q>,
    /// The used time of whoever had the last turn: the level.
    level: u64,
}

impl<Q> Default for Turns<Q> {
    fn default() -> Self {
        Self { ready: Vec::new(), level: 0 }
    }
}

impl<Q: HasAccount> Turns<Q> {
    /// Adds one that has work. Nobody is added twice before its turn.
    pub(crate) fn add(&mut self, queue: Q) {
        self.level(queue.account());
        self.ready.push(queue);
    }

    /// Takes out the one that has used least; the first of those that tie.
    pub(crate) fn take(&mut self) -> Option<Q> {
        let used = self.ready.iter().map(|queue| queue.account().used());
        let (index, used) = used.enumerate().min_by_key(|(_, used)| *used)?;
        self.level = self.level.max(used);
        // Not `swap_remove`: among those that tie, the order of arrival holds.
        Some(self.ready.remove(index))
    }

    /// Whether all those here have used more than somebody with this account.
    pub(crate) fn come_after(&self, account: &Account) -> bool {
        let used = account.used();
        self.ready.iter().all(|queue| queue.account().used() > used)
    }

    /// Moves the account of somebody who was idle up to the others' level.
    pub(crate) fn level(&self, account: &Account) {
        account.0.fetch_max(self.level, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes out all.
    pub(crate) fn clear(&mut self) -> Vec<Q> {
        std::mem::take(&mut self.ready)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Account, HasAccount, Turns};

    struct Model(&'static str, Account);

    impl HasAccount for Model {
        fn account(&self) -> &Account {
            &self.1
        }
    }

    /// Runs `turns` turns of models that always have work, each run costing what `cost` says.
    fn share(turns: usize, models: [(&'static str, u64); 2]) -> [usize; 2] {
        let mut ready = Turns::default();
        for (name, _) in models {
            ready.add(Model(name, Account::default()));
        }
        let mut counts = [0; 2];
        for _ in 0..turns {
            let model = ready.take().unwrap();
            let index = models.iter().position(|(name, _)| *name == model.0).unwrap();
            counts[index] += 1;
            model.account().charge(Duration::from_micros(models[index].1));
            ready.add(model);
        }
        counts
    }

    #[test]
    fn models_share_time_and_not_runs() {
        assert_eq!(share(100, [("equal", 10), ("equal too", 10)]), [50, 50]);
        let [slow, quick] = share(1100, [("slow", 1000), ("quick", 100)]);
        assert!((95..=105).contains(&slow), "{slow}");
        assert!((995..=1005).contains(&quick), "{quick}");
    }

    #[test]
    fn an_idle_model_does_not_save_up() {
        let mut ready = Turns::default();
        ready.add(Model("busy", Account::default()));
        for _ in 0..1000 {
            let busy = ready.take().unwrap();
            busy.account().charge(Duration::from_millis(1));
            ready.add(busy);
        }
        ready.add(Model("late", Account::default()));
        let mut late = 0;
        for _ in 0..10 {
            let model = ready.take().unwrap();
            late += usize::from(model.0 == "late");
            model.account().charge(Duration::from_millis(1));
            ready.add(model);
        }
        assert!((5..=6).contains(&late), "{late}");
    }
}
