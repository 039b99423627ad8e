//! Who goes next: priority class, then callers in turn, newcomers first, then earliest deadline within a caller.
//!
//! Pure bookkeeping in constant or logarithmic time: it knows groups only as numbers, costs only as sums, and no clock.
//! What runs together, and when, is decided in `former`.
//!
//! One *caller* of one class has a *lane* for each group it asks for. A class keeps its callers in the order of their
//! turns, and for each group the lanes in the order of theirs, so that whoever's turn it is leads, and the others of its
//! group follow in their turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use millrace_core::{CallerId, Priority};
use rapidhash::fast::RandomState;
use smallvec::SmallVec;

use crate::rota::{Rota, Seats};

/// What deciding needs to know of a queued item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    pub(crate) rows: usize,
    pub(crate) work: usize,
    pub(crate) bytes: usize,
    /// Predicted compute time.
    pub(crate) seconds: f64,
    pub(crate) group: usize,
    pub(crate) priority: Priority,
    pub(crate) caller: CallerId,
    pub(crate) queued: Instant,
    pub(crate) deadline: Option<Instant>,
    /// How long it was thought to wait, where anybody reckoned.
    pub(crate) forecast: Option<Forecast>,
}

/// How long somebody will wait, as far as is known when they come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Forecast {
    pub(crate) wait: Duration,
    /// Whether something of the same caller waits already, and of several others, so that newcomers may pass.
    pub(crate) is_passed: bool,
}

/// What is queued, summed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    pub(crate) entries: usize,
    pub(crate) rows: usize,
    pub(crate) work: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    /// Seconds from the first arrival ever to each deadline.
    due: f64,
}

/// Refers to a queued entry, also after it has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    id: usize,
    serial: u64,
}

/// Seconds that an entry without a deadline has left, where what is left is reckoned with.
const NO_HURRY: f64 = 3600.0;

/// So many entries for each caller that waits are no longer what callers have who wait for their answers.
const CROWD: usize = 4;

/// A caller that has so many times fewer entries than callers have in the mean is modest.
const MODEST: usize = 2;

/// Sorts by deadline (none is last), then arrival.
type Rank = (bool, Instant, u64);

#[derive(Debug)]
pub(crate) struct Order<T> {
    entries: Vec<Seat<T>>,
    free_entries: Vec<usize>,
    lanes: Vec<Lane>,
    free_lanes: Vec<usize>,
    callers: Vec<Caller>,
    free_callers: Vec<usize>,
    lane_seats: Seats,
    caller_seats: Seats,
    /// By priority, most urgent first.
    classes: SmallVec<[Class; 2]>,
    /// Queued entries of each group, oldest first, with gaps.
    ages: Vec<VecDeque<Ticket>>,
    group_loads: Vec<Load>,
    deadlines: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    n_deadlines: usize,
    load: Load,
    serial: u64,
    /// When the first entry came.
    began: Option<Instant>,
}

#[derive(Debug)]
struct Seat<T> {
    /// Gone once it has left. By itself, so that it is moved once in and once out, and the rest not at all.
    item: Option<T>,
    entry: Entry,
    serial: u64,
    lane: usize,
    /// Seconds from the first arrival ever to its deadline.
    due: f64,
}

#[derive(Debug, Default)]
struct Lane {
    caller: usize,
    group: usize,
    live: usize,
    queue: BinaryHeap<Reverse<(Rank, usize)>>,
}

#[derive(Debug)]
struct Caller {
    id: CallerId,
    class: usize,
    lanes: SmallVec<[usize; 2]>,
}

#[derive(Debug, Default)]
struct Class {
    priority: Priority,
    /// Looked up three times for each entry, so the hash is a quick one.
    index: HashMap<CallerId, usize, RandomState>,
    callers: Rota,
    /// By group.
    rings: Vec<Rota>,
    load: Load,
}

impl Load {
    fn add(&mut self, entry: &Entry, due: f64) {
        self.entries += 1;
        self.rows += entry.rows;
        self.work += entry.work;
        self.bytes += entry.bytes;
        self.seconds += entry.seconds;
        self.due += due;
    }

    fn subtract(&mut self, entry: &Entry, due: f64) {
        self.entries -= 1;
        self.rows -= entry.rows;
        self.work -= entry.work;
        self.bytes -= entry.bytes;
        // Floating point does not subtract to zero by itself.
        self.seconds = if self.entries == 0 { 0.0 } else { (self.seconds - entry.seconds).max(0.0) };
        self.due = if self.entries == 0 { 0.0 } else { self.due - due };
    }
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free_entries: Vec::new(),
            lanes: Vec::new(),
            free_lanes: Vec::new(),
            callers: Vec::new(),
            free_callers: Vec::new(),
            lane_seats: Seats::default(),
            caller_seats: Seats::default(),
            classes: SmallVec::new(),
            ages: Vec::new(),
            group_loads: Vec::new(),
            deadlines: BinaryHeap::new(),
            n_deadlines: 0,
            load: Load::default(),
            serial: 0,
            began: None,
        }
    }
}

impl<T> Order<T> {
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    pub(crate) fn group_load(&self, group: usize) -> Load {
        self.group_loads.get(group).copied().unwrap_or_default()
    }

    /// How many seconds the entries of `group` have left, in the mean.
    pub(crate) fn mean_left(&self, group: usize, now: Instant) -> f64 {
        let load = self.group_load(group);
        let gone = self.began.map_or(0.0, |began| now.saturating_duration_since(began).as_secs_f64());
        load.due / load.entries.max(1) as f64 - gone
    }

    /// Seconds from the first arrival ever to the entry's deadline.
    fn due(&self, entry: &Entry) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        match entry.deadline {
            Some(deadline) => deadline.saturating_duration_since(began).as_secs_f64(),
            None => entry.queued.saturating_duration_since(began).as_secs_f64() + NO_HURRY,
        }
    }

    /// What is queued at `priority` or more urgent.
    pub(crate) fn load_before(&self, priority: Priority) -> Load {
        let mut sum = Load::default();
        for class in self.classes.iter().take_while(|class| class.priority <= priority) {
            sum.entries += class.load.entries;
            sum.rows += class.load.rows;
            sum.work += class.load.work;
            sum.bytes += class.load.bytes;
            sum.seconds += class.load.seconds;
        }
        sum
    }

    /// How many callers of one class wait, and how many entries `caller` has there.
    pub(crate) fn turns(&self, priority: Priority, caller: CallerId) -> (usize, usize) {
        let Some(class) = self.classes.iter().find(|class| class.priority == priority) else { return (0, 0) };
        let own = class
            .index
            .get(&caller)
            .map_or(0, |&caller| self.callers[caller].lanes.iter().map(|&lane| self.lanes[lane].live).sum());
        (class.index.len(), own)
    }

    /// Whether so many of the most urgent wait that some caller, or the only one, has far more queued than who waits for its
    /// answers.
    pub(crate) fn is_crowded(&self) -> bool {
        let class = self.classes.iter().find(|class| class.load.entries > 0);
        class.is_some_and(|class| class.load.entries > CROWD * class.index.len().max(2))
    }

    /// Whether several of the most urgent callers wait.
    pub(crate) fn is_shared(&self) -> bool {
        self.classes.iter().find(|class| class.load.entries > 0).is_some_and(|class| class.index.len() > 1)
    }

    /// Whether [`Order::is_crowded`], and the caller of the entry `id` is none of those: it has far fewer queued than the others.
    pub(crate) fn is_modest(&self, id: usize) -> bool {
        let Some(entry) = self.get(id).filter(|_| self.is_crowded()) else { return false };
        let Some(class) = self.classes.iter().find(|class| class.priority == entry.priority) else { return false };
        let (callers, own) = self.turns(entry.priority, entry.caller);
        MODEST * own * callers <= class.load.entries
    }

    pub(crate) fn get(&self, id: usize) -> Option<&Entry> {
        self.entries.get(id).filter(|seat| seat.item.is_some()).map(|seat| &seat.entry)
    }

    pub(crate) fn item(&self, id: usize) -> Option<&T> {
        self.entries.get(id)?.item.as_ref()
    }

    pub(crate) fn insert(&mut self, item: T, entry: Entry) -> Ticket {
        self.serial += 1;
        let serial = self.serial;
        let class = self.class(entry.priority);
        let lane = self.lane(class, entry.caller, entry.group);
        let rank = (entry.deadline.is_none(), entry.deadline.unwrap_or(entry.queued), serial);
        let (group, deadline) = (entry.group, entry.deadline);
        self.began.get_or_insert(entry.queued);
        let due = self.due(&entry);
        self.load.add(&entry, due);
        self.group_loads[group].add(&entry, due);
        self.classes[class].load.add(&entry, due);
        let id = if let Some(id) = self.free_entries.pop() {
            let seat = &mut self.entries[id];
            seat.item = Some(item);
            (seat.entry, seat.serial, seat.lane, seat.due) = (entry, serial, lane, due);
            id
        } else {
            self.entries.push(Seat { item: Some(item), entry, serial, lane, due });
            self.entries.len() - 1
        };
        self.lanes[lane].live += 1;
        self.lanes[lane].queue.push(Reverse((rank, id)));
        let ticket = Ticket { id, serial };
        self.ages[group].push_back(ticket);
        if let Some(deadline) = deadline {
            self.n_deadlines += 1;
            self.deadlines.push(Reverse((deadline, serial, id)));
        }
        ticket
    }

    /// The entry whose turn it is: of the most urgent class, of the caller whose turn it is, the earliest deadline.
    pub(crate) fn leader(&mut self) -> Option<usize> {
        let class = self.classes.iter().position(|class| class.load.entries > 0)?;
        let caller = self.classes[class].callers.head()?;
        let lanes = self.callers[caller].lanes.clone();
        let first = lanes.into_iter().filter_map(|lane| self.front(lane)).min()?;
        Some(first.1)
    }

    /// Makes `id` the first of its group and class, as befits the leader.
    pub(crate) fn lead_with(&mut self, id: usize) {
        let lane = self.entries[id].lane;
        let Lane { caller, group, .. } = self.lanes[lane];
        let ring = &mut self.classes[self.callers[caller].class].rings[group];
        ring.lead(&mut self.lane_seats, lane);
    }

    /// The next entry of `group`: the most urgent class first, callers in turn.
    pub(crate) fn next(&mut self, group: usize) -> Option<usize> {
        for class in 0..self.classes.len() {
            let Some(lane) = self.classes[class].rings.get(group).and_then(|ring| ring.head()) else { continue };
            if let Some((_, id)) = self.front(lane) {
                return Some(id);
            }
        }
        None
    }

    /// Takes out the entry `id`, which has its turn now: its caller waits for the others' turns then.
    pub(crate) fn serve(&mut self, id: usize) -> Option<T> {
        let lane = self.entries.get(id)?.lane;
        let Lane { caller, group, .. } = self.lanes[lane];
        let class = &mut self.classes[self.callers[caller].class];
        class.callers.serve(&mut self.caller_seats, caller);
        class.rings[group].serve(&mut self.lane_seats, lane);
        self.remove(id)
    }

    /// Takes out the entry `id`, which will have no turn.
    pub(crate) fn remove(&mut self, id: usize) -> Option<T> {
        let seat = self.entries.get_mut(id).filter(|seat| seat.item.is_some())?;
        let Seat { entry, lane, due, .. } = *seat;
        // No longer live; the item itself is moved last, straight to the caller.
        seat.serial = 0;
        self.free_entries.push(id);
        self.load.subtract(&entry, due);
        self.group_loads[entry.group].subtract(&entry, due);
        let class = self.callers[self.lanes[lane].caller].class;
        self.classes[class].load.subtract(&entry, due);
        self.n_deadlines -= usize::from(entry.deadline.is_some());
        self.lanes[lane].live -= 1;
        if self.lanes[lane].live == 0 {
            self.close_lane(lane);
        } else {
            let Self { lanes, entries, .. } = self;
            let lane = &mut lanes[lane];
            if lane.queue.len() > 2 * lane.live + 16 {
                lane.queue.retain(|Reverse((rank, id))| is_live(entries, *id, rank.2));
            }
        }
        self.tidy(entry.group);
        self.entries[id].item.take()
    }

    /// The entry behind `ticket`, if it is still queued.
    pub(crate) fn find(&self, ticket: Ticket) -> Option<usize> {
        is_live(&self.entries, ticket.id, ticket.serial).then_some(ticket.id)
    }

    /// An entry whose deadline is `now` or earlier.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<usize> {
        self.first_deadline().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| id)
    }

    /// The earliest deadline of all, and whose it is.
    pub(crate) fn first_deadline(&mut self) -> Option<(Instant, usize)> {
        while let Some(Reverse((deadline, serial, id))) = self.deadlines.peek().copied() {
            if is_live(&self.entries, id, serial) {
                return Some((deadline, id));
            }
            self.deadlines.pop();
        }
        None
    }

    /// When the oldest queued entry of `group` came.
    pub(crate) fn oldest(&mut self, group: usize) -> Option<Instant> {
        let ages = self.ages.get_mut(group)?;
        while let Some(ticket) = ages.front() {
            match self.entries.get(ticket.id) {
                Some(seat) if seat.serial == ticket.serial && seat.item.is_some() => {
                    return Some(seat.entry.queued);
                }
                _ => ages.pop_front(),
            };
        }
        None
    }

    /// The groups that have entries.
    pub(crate) fn groups(&self) -> impl Iterator<Item = usize> {
        self.group_loads.iter().enumerate().filter(|(_, load)| load.entries > 0).map(|(group, _)| group)
    }

    /// Every queued entry.
    pub(crate) fn ids(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().enumerate().filter(|(_, seat)| seat.item.is_some()).map(|(id, _)| id)
    }

    /// The first live entry of a lane.
    fn front(&mut self, lane: usize) -> Option<(Rank, usize)> {
        let queue = &mut self.lanes[lane].queue;
        while let Some(Reverse((rank, id))) = queue.peek().copied() {
            if is_live(&self.entries, id, rank.2) {
                return Some((rank, id));
            }
            queue.pop();
        }
        None
    }

    fn class(&mut self, priority: Priority) -> usize {
        if let Some(known) = self.classes.iter().position(|class| class.priority == priority) {
            return known;
        }
        // An idle class is reused, so that strangers' numbers cannot make the list grow without end.
        if let Some(idle) = self.classes.iter().rposition(|class| class.load.entries == 0) {
            self.classes[idle].priority = priority;
        } else {
            self.classes.push(Class { priority, ..Class::default() });
        }
        self.classes.sort_by_key(|class| class.priority);
        for (position, class) in self.classes.iter().enumerate() {
            for &caller in class.index.values() {
                self.callers[caller].class = position;
            }
        }
        self.classes.iter().position(|class| class.priority == priority).unwrap_or_default()
    }

    fn lane(&mut self, class: usize, id: CallerId, group: usize) -> usize {
        if self.group_loads.len() <= group {
            self.group_loads.resize_with(group + 1, Load::default);
            self.ages.resize_with(group + 1, VecDeque::new);
        }
        let Self { classes, callers, free_callers, caller_seats, lanes, free_lanes, lane_seats, .. } = self;
        let class_of = &mut classes[class];
        if class_of.rings.len() <= group {
            class_of.rings.resize(group + 1, Rota::default());
        }
        let caller = *class_of.index.entry(id).or_insert_with(|| {
            let caller = place(callers, free_callers, Caller { id, class, lanes: SmallVec::new() });
            class_of.callers.join(caller_seats, caller);
            caller
        });
        if let Some(&lane) = callers[caller].lanes.iter().find(|&&lane| lanes[lane].group == group) {
            return lane;
        }
        // A lane that was used before keeps its heap's memory.
        let lane = free_lanes.pop().unwrap_or_else(|| {
            lanes.push(Lane::default());
            lanes.len() - 1
        });
        (lanes[lane].caller, lanes[lane].group) = (caller, group);
        callers[caller].lanes.push(lane);
        class_of.rings[group].join(lane_seats, lane);
        lane
    }

    fn close_lane(&mut self, lane: usize) {
        let Lane { caller, group, .. } = self.lanes[lane];
        let class = &mut self.classes[self.callers[caller].class];
        class.rings[group].leave(&mut self.lane_seats, lane);
        self.lanes[lane].queue.clear();
        self.lanes[lane].queue.shrink_to(64);
        self.free_lanes.push(lane);
        let lanes = &mut self.callers[caller].lanes;
        lanes.retain(|known| *known != lane);
        if lanes.is_empty() {
            class.callers.leave(&mut self.caller_seats, caller);
            class.index.remove(&self.callers[caller].id);
            self.free_callers.push(caller);
        }
    }

    /// Drops the marks of entries that have left, once they are the larger part.
    fn tidy(&mut self, group: usize) {
        let Self { ages, entries, group_loads, deadlines, .. } = self;
        if ages[group].len() > 2 * group_loads[group].entries + 64 {
            ages[group].retain(|ticket| is_live(entries, ticket.id, ticket.serial));
        }
        if deadlines.len() > 2 * self.n_deadlines + 64 {
            deadlines.retain(|Reverse((_, serial, id))| is_live(entries, *id, *serial));
        }
    }
}

fn is_live<T>(entries: &[Seat<T>], id: usize, serial: u64) -> bool {
    entries.get(id).is_some_and(|seat| seat.serial == serial && seat.item.is_some())
}

fn place<E>(all: &mut Vec<E>, free: &mut Vec<usize>, element: E) -> usize {
    match free.pop() {
        Some(id) => {
            all[id] = element;
            id
        }
        None => {
            all.push(element);
            all.len() - 1
        }
    }
}
