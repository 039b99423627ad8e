//! The same order said plainly, with lists that are searched: what the real one must agree with.

use std::collections::HashMap;
use std::time::Instant;

/// One queued item.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: usize,
    pub(super) rows: usize,
    pub(super) group: (usize, bool),
    pub(super) caller: u64,
    pub(super) priority: u8,
    pub(super) deadline: Option<Instant>,
    pub(super) queued: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) items: Vec<Item>,
    /// Of each class.
    callers: HashMap<u8, Turns<u64>>,
    /// Of each class and group.
    lanes: HashMap<(u8, (usize, bool)), Turns<u64>>,
}

/// Callers in turn: those not served since they came before the others, but not too often in a row.
#[derive(Debug)]
struct Turns<C> {
    fresh: Vec<C>,
    served: Vec<C>,
    passes: usize,
}

impl<C> Default for Turns<C> {
    fn default() -> Self {
        Self { fresh: Vec::new(), served: Vec::new(), passes: 0 }
    }
}

impl<C: Copy + PartialEq> Turns<C> {
    fn join(&mut self, caller: C) {
        if !self.fresh.contains(&caller) && !self.served.contains(&caller) {
            self.fresh.push(caller);
        }
    }

    fn head(&self) -> Option<C> {
        let (fresh, served) = (self.fresh.first(), self.served.first());
        let is_passed = self.passes < self.fresh.len() + self.served.len();
        if is_passed { fresh.or(served) } else { served.or(fresh) }.copied()
    }

    fn serve(&mut self, caller: C) {
        let is_fresh = self.fresh.contains(&caller);
        self.passes = if is_fresh && !self.served.is_empty() { self.passes + 1 } else { 0 };
        self.fresh.retain(|other| *other != caller);
        self.served.retain(|other| *other != caller);
        self.served.push(caller);
    }

    fn lead(&mut self, caller: C) {
        let is_served = self.served.contains(&caller);
        let list = if is_served { &mut self.served } else { &mut self.fresh };
        list.retain(|other| *other != caller);
        list.insert(0, caller);
        self.passes = if is_served { usize::MAX } else { 0 };
    }

    fn retain(&mut self, stays: impl Fn(&C) -> bool) {
        self.fresh.retain(&stays);
        self.served.retain(&stays);
        if self.fresh.is_empty() && self.served.is_empty() {
            self.passes = 0;
        }
    }
}

/// What leaves: ids that ran, that were late, that had gone.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Left {
    pub(super) batch: Vec<usize>,
    pub(super) late: Vec<usize>,
    pub(super) gone: Vec<usize>,
}

impl Plain {
    pub(super) fn push(&mut self, item: Item) {
        self.callers.entry(item.priority).or_default().join(item.caller);
        self.lanes.entry((item.priority, item.group)).or_default().join(item.caller);
        self.items.push(item);
    }

    pub(super) fn remove(&mut self, id: usize) -> Option<Item> {
        let index = self.items.iter().position(|item| item.id == id)?;
        let item = self.items.remove(index);
        let items = &self.items;
        let waits = |class: u8, caller: u64| items.iter().any(|item| (item.priority, item.caller) == (class, caller));
        let in_group = |(class, group): (u8, (usize, bool)), caller: u64| {
            items.iter().any(|item| (item.priority, item.group, item.caller) == (class, group, caller))
        };
        for (class, turns) in &mut self.callers {
            turns.retain(|caller| waits(*class, *caller));
        }
        for (lane, turns) in &mut self.lanes {
            turns.retain(|caller| in_group(*lane, *caller));
        }
        Some(item)
    }

    pub(super) fn take(&mut self, now: Instant, most: usize, is_gone: impl Fn(usize) -> bool) -> Left {
        let mut left = Left::default();
        let is_late = |item: &&Item| item.deadline.is_some_and(|at| at <= now);
        left.late = self.items.iter().filter(is_late).map(|item| item.id).collect();
        for id in left.late.clone() {
            self.remove(id);
        }
        let leader = loop {
            let Some(priority) = self.items.iter().map(|item| item.priority).min() else { return left };
            let caller = self.callers[&priority].head().unwrap();
            let first = self.first(|item| item.priority == priority && item.caller == caller);
            if !is_gone(first.id) {
                break first;
            }
            self.remove(first.id);
            left.gone.push(first.id);
        };
        self.lanes.get_mut(&(leader.priority, leader.group)).unwrap().lead(leader.caller);
        let most = if leader.group.1 { 0 } else { most };
        let mut rows = 0;
        loop {
            let of_group =
                self.lanes.iter().filter(|((_, group), turns)| *group == leader.group && turns.head().is_some());
            let Some((&(priority, _), turns)) = of_group.min_by_key(|((priority, _), _)| *priority) else { break };
            let caller = turns.head().unwrap();
            let item = self.first(|item| (item.priority, item.group, item.caller) == (priority, leader.group, caller));
            if is_gone(item.id) {
                self.remove(item.id);
                left.gone.push(item.id);
                continue;
            }
            if rows > 0 && rows + item.rows > most {
                break;
            }
            rows += item.rows;
            self.lanes.get_mut(&(priority, leader.group)).unwrap().serve(caller);
            self.callers.get_mut(&priority).unwrap().serve(caller);
            self.remove(item.id);
            left.batch.push(item.id);
        }
        left
    }

    /// The earliest deadline; without one, the oldest.
    fn first(&self, fits: impl Fn(&Item) -> bool) -> Item {
        let fitting = self.items.iter().filter(|item| fits(item));
        let rank = |item: &&Item| (item.deadline.is_none(), item.deadline.unwrap_or(item.queued), item.id);
        fitting.min_by_key(rank).unwrap().clone()
    }
}
