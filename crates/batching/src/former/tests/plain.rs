//! The same order said plainly, with lists that are searched: what the real one must agree with.

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

type Lane = (u8, (usize, bool), u64);

#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) items: Vec<Item>,
    /// Callers of each class, served longest ago first.
    callers: Vec<(u8, u64)>,
    lanes: Vec<Lane>,
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
        let (caller, lane) = ((item.priority, item.caller), (item.priority, item.group, item.caller));
        if !self.callers.contains(&caller) {
            self.callers.push(caller);
        }
        if !self.lanes.contains(&lane) {
            self.lanes.push(lane);
        }
        self.items.push(item);
    }

    pub(super) fn remove(&mut self, id: usize) -> Option<Item> {
        let index = self.items.iter().position(|item| item.id == id)?;
        let item = self.items.remove(index);
        let items = &self.items;
        self.callers.retain(|caller| items.iter().any(|item| (item.priority, item.caller) == *caller));
        self.lanes.retain(|lane| items.iter().any(|item| (item.priority, item.group, item.caller) == *lane));
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
            let (_, caller) = *self.callers.iter().find(|(class, _)| *class == priority).unwrap();
            let first = self.first(|item| item.priority == priority && item.caller == caller);
            if !is_gone(first.id) {
                break first;
            }
            self.remove(first.id);
            left.gone.push(first.id);
        };
        let lane = (leader.priority, leader.group, leader.caller);
        self.lanes.retain(|other| *other != lane);
        self.lanes.insert(0, lane);
        let most = if leader.group.1 { 0 } else { most };
        let mut rows = 0;
        loop {
            let of_group = self.lanes.iter().filter(|lane| lane.1 == leader.group);
            let Some(&lane) = of_group.min_by_key(|lane| lane.0) else { break };
            let item = self.first(|item| (item.priority, item.group, item.caller) == lane);
            if is_gone(item.id) {
                self.remove(item.id);
                left.gone.push(item.id);
                continue;
            }
            if rows > 0 && rows + item.rows > most {
                break;
            }
            rows += item.rows;
            self.lanes.retain(|other| *other != lane);
            self.lanes.push(lane);
            let caller = (item.priority, item.caller);
            self.callers.retain(|other| *other != caller);
            self.callers.push(caller);
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
