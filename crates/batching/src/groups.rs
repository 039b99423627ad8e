//! What is known about each group of requests: costs, specialised sizes, how fast rows arrive. Bounded.
//!
//! A group is one assignment of the symbols other than the batch. Those least recently used are forgotten; a stranger
//! starts from what the whole model taught. What to do with this knowledge is decided in `former`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millrace_core::{Group, Prepared};
use rapidhash::fast::RandomState;
use smallvec::SmallVec;

use crate::Learned;
use crate::cost::{CostModel, Prediction, duration, whole};

/// How long arrivals are counted before the rate is updated.
const WINDOW: Duration = Duration::from_millis(10);
/// A specialised plan must cost this much less per row before fewer or padded rows are taken for it.
const WORTH: f64 = 0.97;
/// How many sizes of one group the model is asked to prepare for.
const MOST_WISHES: usize = 8;
/// What preparing a size is thought to cost before it was ever seen.
const FIRST_PREPARE: f64 = 0.05;
/// After so many runs of a group its costs are sure enough to run it on a thread that has other things to do.
const SETTLED: u64 = 32;
/// Of the rows that run in batches smaller than the queue would allow, one in so many is spent on trying larger ones.
const TRY_AGAIN: usize = 256;

/// Everything known, by group.
#[derive(Debug)]
pub(crate) struct Groups {
    slots: Vec<Option<Known>>,
    index: HashMap<Group, usize, RandomState>,
    /// The run times of all groups together: what a stranger is thought to cost.
    prior: CostModel,
    most: usize,
    clock: u64,
    latest: usize,
    prepare_seconds: f64,
}

/// What is known about one group.
#[derive(Debug)]
pub(crate) struct Known {
    group: Group,
    cost: CostModel,
    /// `None` where no size is special.
    prepared: Option<SmallVec<[usize; 8]>>,
    /// Bit k: a request of about 2^k rows was admitted by the model.
    admitted: u64,
    /// Runs that have left the queue and not come back, and requests that are in it.
    users: usize,
    used: u64,
    wishes: SmallVec<[Wish; 8]>,
    trials: Trials,
    window: Option<(Instant, usize)>,
    rows_per_second: f64,
}

/// Which larger size is tried next.
#[derive(Debug, Clone, Copy, Default)]
struct Trials {
    /// How many times the best size it has: two to the power of one more than this.
    doublings: u32,
    /// Rows that ran since the last trial.
    rows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    rows: usize,
    seconds: f64,
    is_asked: bool,
}

impl Groups {
    /// Knows nothing yet of at most so many groups, whose runs have at most `most_rows` rows.
    pub(crate) fn new(most: usize, most_rows: usize) -> Self {
        Self {
            slots: Vec::new(),
            index: HashMap::default(),
            prior: CostModel::new(most_rows),
            most: most.max(1),
            clock: 0,
            latest: usize::MAX,
            prepare_seconds: FIRST_PREPARE,
        }
    }

    /// The number of `group`, if it is known.
    pub(crate) fn find(&self, group: &Group) -> Option<usize> {
        match self.slots.get(self.latest) {
            Some(Some(known)) if known.group == *group => Some(self.latest),
            _ => self.index.get(group).copied(),
        }
    }

    /// The group that is known, where it is one.
    pub(crate) fn only(&self) -> Option<&Group> {
        if self.index.len() == 1 { self.index.keys().next() } else { None }
    }

    /// The number of `group`, which is known from now on. May forget one that nobody uses.
    pub(crate) fn intern(&mut self, group: &Group) -> usize {
        self.clock += 1;
        let number = self.find(group).unwrap_or_else(|| self.add(group.clone()));
        if let Some(known) = &mut self.slots[number] {
            known.used = self.clock;
        }
        self.latest = number;
        number
    }

    fn add(&mut self, group: Group) -> usize {
        if self.index.len() >= self.most {
            let idle = self.slots.iter().enumerate().filter_map(|(number, known)| Some((number, known.as_ref()?)));
            let oldest = idle.filter(|(_, known)| known.users == 0).min_by_key(|(_, known)| known.used);
            if let Some((number, _)) = oldest
                && let Some(known) = self.slots[number].take()
            {
                self.index.remove(&known.group);
            }
        }
        let known = Known::new(group.clone(), self.prior.most());
        let number = match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = Some(known);
                free
            }
            None => {
                self.slots.push(Some(known));
                self.slots.len() - 1
            }
        };
        self.index.insert(group, number);
        number
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Known> {
        self.slots.get(number)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Known> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// The costs to reckon with: the group's own, or the whole model's where it has none yet.
    pub(crate) fn cost(&self, number: usize) -> &CostModel {
        match self.get(number) {
            Some(known) if known.cost.runs() > 0 => &known.cost,
            _ => &self.prior,
        }
    }

    pub(crate) fn predict(&self, number: usize, rows: usize) -> Option<Prediction> {
        let is_prepared = self.get(number).is_some_and(|known| known.is_prepared(rows));
        self.cost(number).predict(rows, is_prepared)
    }

    /// The most rows, up to `most`, whose run should end within `time`; at least one.
    pub(crate) fn fitting(&self, number: usize, most: usize, time: Duration) -> usize {
        let (cost, time) = (self.cost(number), time.as_secs_f64());
        let Some(line) = cost.line() else { return most };
        let mut rows =
            if line.a + line.b * most as f64 <= time { most } else { whole((time - line.a) / line.b).min(most) };
        // The line is a guess where runs are not that regular.
        let is_long = |rows: usize| self.predict(number, rows).is_some_and(|run| run.likely > time);
        if rows > 1 && is_long(rows) {
            let mut long = rows;
            rows = 1;
            while long - rows > 1 {
                let middle = usize::midpoint(rows, long);
                if is_long(middle) {
                    long = middle;
                } else {
                    rows = middle;
                }
            }
        }
        rows.max(1)
    }

    /// Learns from a run. Returns a size that is worth preparing for, once per size.
    pub(crate) fn observe(&mut self, number: usize, rows: usize, seconds: f64, may_wish: bool) -> Option<usize> {
        let prepare_seconds = self.prepare_seconds;
        self.prior.observe(rows, false, seconds);
        let known = self.get_mut(number)?;
        let is_prepared = known.is_prepared(rows);
        known.cost.observe(rows, is_prepared, seconds);
        if is_prepared || !may_wish || known.prepared.is_none() {
            return None;
        }
        known.wish(rows, seconds, prepare_seconds)
    }

    /// The sizes that the model is specialised for now, and how long the last preparation took, if there was one.
    pub(crate) fn set_prepared(&mut self, number: usize, prepared: Prepared, took: Option<Duration>) {
        if let Some(took) = took {
            self.prepare_seconds = took.as_secs_f64().max(1e-4);
        }
        let Some(known) = self.get_mut(number) else { return };
        let sizes = match prepared {
            Prepared::Any => None,
            Prepared::Sizes(sizes) => Some(sizes),
        };
        for size in known.prepared.iter().flatten() {
            if !sizes.iter().flatten().any(|kept| kept == size) {
                known.cost.forget_prepared(*size);
            }
        }
        known.prepared = sizes;
    }

    pub(crate) fn learned(&self) -> Vec<Learned> {
        let mut all: Vec<_> = self.slots.iter().flatten().map(Known::learned).collect();
        all.sort_by(|left, right| left.group.cmp(&right.group));
        all
    }
}

impl Known {
    fn new(group: Group, most_rows: usize) -> Self {
        Self {
            group,
            cost: CostModel::new(most_rows),
            prepared: None,
            admitted: 0,
            users: 0,
            used: 0,
            wishes: SmallVec::new(),
            trials: Trials::default(),
            window: None,
            rows_per_second: 0.0,
        }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn cost(&self) -> &CostModel {
        &self.cost
    }

    /// Whether it has run often enough to be sure of what it costs.
    pub(crate) fn is_settled(&self) -> bool {
        self.cost.runs() >= SETTLED
    }

    pub(crate) fn is_prepared(&self, rows: usize) -> bool {
        self.prepared.as_ref().is_some_and(|sizes| sizes.contains(&rows))
    }

    /// Whether a request of about so many rows was admitted before.
    pub(crate) fn is_admitted(&self, rows: usize) -> bool {
        self.admitted & admission_bit(rows) != 0
    }

    pub(crate) fn set_admitted(&mut self, rows: usize) {
        self.admitted |= admission_bit(rows);
    }

    pub(crate) fn join(&mut self) {
        self.users += 1;
    }

    pub(crate) fn leave(&mut self) {
        self.users = self.users.saturating_sub(1);
    }

    /// Counts an arrival.
    pub(crate) fn arrive(&mut self, rows: usize, now: Instant) {
        let (start, count) = self.window.get_or_insert((now, 0));
        let span = now.saturating_duration_since(*start);
        if span < WINDOW {
            *count += rows;
            return;
        }
        let rate = *count as f64 / span.as_secs_f64();
        // After a pause the past says little.
        let is_stale = span > 20 * WINDOW;
        self.rows_per_second = if is_stale { rate } else { (self.rows_per_second + rate) / 2.0 };
        self.window = Some((now, rows));
    }

    pub(crate) fn rows_per_second(&self) -> f64 {
        self.rows_per_second
    }

    /// How many of `queued` rows to try this time, where `best` are the most that pay by what is known; `None` nearly always.
    /// Twice as many, four times, and so on, for what loses just above the best may win far above it: an engine may have one
    /// way for a row, a second one for many, and be slow in between. Also, what once lost may have been disturbed.
    pub(crate) fn tries_again(&mut self, best: usize, queued: usize) -> Option<usize> {
        let trials = &mut self.trials;
        trials.rows = trials.rows.saturating_add(best);
        let size = best.saturating_mul(2 << trials.doublings).min(queued);
        if trials.rows / TRY_AGAIN < size {
            return None;
        }
        trials.rows = 0;
        trials.doublings = if size < queued { (trials.doublings + 1) % 16 } else { 0 };
        Some(size)
    }

    /// How many of `rows` queued rows to take, so that a specialised size is met where that is cheaper: per row where more is
    /// queued than these, else with the run that the rest of them then takes.
    pub(crate) fn target(&self, cost: &CostModel, rows: usize, most: usize, is_all: bool) -> usize {
        let run = |size: usize| {
            let price = cost.price(size, self.is_prepared(size))?;
            Some((size, price, price / size as f64))
        };
        let sizes = self.prepared.iter().flatten().copied().filter(|size| (1..rows).contains(size));
        let Some((size, price, per_row)) = sizes.filter_map(run).min_by(|left, right| left.2.total_cmp(&right.2))
        else {
            return rows;
        };
        let is_cheaper = if is_all {
            // Who comes meanwhile may be who was just answered, so the rest is not thought to ride with others.
            let padded = |rows: usize| run(self.padded(cost, rows, most)).map(|(_, price, _)| price);
            padded(rows).zip(padded(rows - size)).is_some_and(|(all, rest)| price + rest < all * WORTH)
        } else {
            run(rows).is_some_and(|(.., all)| per_row < all * WORTH)
        };
        if is_cheaper { size } else { rows }
    }

    /// How many rows, padding included, to run `rows` rows with.
    pub(crate) fn padded(&self, cost: &CostModel, rows: usize, most: usize) -> usize {
        if self.is_prepared(rows) {
            return rows;
        }
        let Some(plain) = cost.predict(rows, false) else { return rows };
        let sizes = self.prepared.iter().flatten().copied().filter(|size| (rows..=most).contains(size));
        let priced = sizes.filter_map(|size| Some((size, cost.predict(size, true)?.mean)));
        let best = priced.min_by(|left, right| left.1.total_cmp(&right.1));
        best.filter(|(_, price)| *price < plain.mean * WORTH).map_or(rows, |(size, _)| size)
    }

    fn wish(&mut self, rows: usize, seconds: f64, prepare_seconds: f64) -> Option<usize> {
        // Few sizes, each used often: what runs with 13 rows today may as well run with 8 and 5.
        let rows = if rows <= 4 { rows } else { 1 << rows.ilog2() };
        if self.is_prepared(rows) {
            return None;
        }
        if let Some(wish) = self.wishes.iter_mut().find(|wish| wish.rows == rows) {
            wish.seconds += seconds;
        } else if self.wishes.len() < MOST_WISHES {
            self.wishes.push(Wish { rows, seconds, is_asked: false });
        }
        // Preparing pays once as much time went into this size as preparing takes, twice over: it never saves all.
        let ripe = |wish: &&mut Wish| !wish.is_asked && wish.rows == rows && wish.seconds > 2.0 * prepare_seconds;
        let wish = self.wishes.iter_mut().find(ripe)?;
        wish.is_asked = true;
        Some(rows)
    }

    fn learned(&self) -> Learned {
        let line = self.cost.line();
        Learned {
            group: self.group.clone(),
            runs: self.cost.runs(),
            per_run: duration(line.map_or(0.0, |line| line.a)),
            per_row: duration(line.map_or(0.0, |line| line.b)),
            prepared: self.prepared.iter().flatten().copied().collect(),
            best_rows: self.cost.best_rows(),
            is_row_by_row: self.cost.is_row_by_row(),
        }
    }
}

fn admission_bit(rows: usize) -> u64 {
    1 << rows.checked_ilog2().unwrap_or(0)
}
