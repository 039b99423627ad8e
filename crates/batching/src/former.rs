//! Decides what runs together, and when. Pure: arrivals, completions and the instant go in; a batch or an instant at
//! which to ask again comes out.
//!
//! It alone holds what was learned about run times. Who is next is kept by `order`; threads, clocks, tensors and answers
//! are the driver's.

use std::time::{Duration, Instant};

use millrace_core::{CallerId, ClosedBy, Group, Prepared, Priority};

use self::ends::Ends;
use self::plan::Plan;
use self::privilege::Privilege;
use self::punctuality::Punctuality;
use crate::cost::duration;
use crate::groups::Groups;
use crate::order::{Entry, Load, Order, Ticket};
use crate::promises::Promises;
use crate::{Learned, Sizes, Waiting};

mod deadlines;
mod ends;
mod plan;
mod privilege;
mod punctuality;

/// The least work in a piece of a request whose rows differ in size.
const LEAST_PIECE: usize = 512;

/// The part of a queue's configuration that the decision needs.
#[derive(Debug, Clone, PartialEq)]
pub struct FormerConfig {
    /// Whether items may share a run at all.
    pub is_batched: bool,
    /// Whether items of one group may differ in size, so that work and rows are two things. Sizes of runs are learned
    /// then, whatever `sizes` says, and nothing is padded.
    pub is_mixed: bool,
    /// The most rows in one run, padding included.
    pub max_rows: usize,
    /// The most work in one run, in the units of [`Arrival::work`]; the same as `max_rows` where a row is the unit.
    pub max_work: usize,
    /// How long an idle worker may wait for more rows.
    pub waiting: Waiting,
    /// Which row counts runs should have.
    pub sizes: Sizes,
    /// How many groups are remembered.
    pub max_groups: usize,
    /// How many runs go on at once.
    pub workers: usize,
}

impl FormerConfig {
    /// The most work in one run, as the operator has it.
    fn most_work(&self) -> usize {
        if self.is_mixed { self.max_work } else { self.max_rows }
    }
}

/// What the decision needs to know about an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival<'a> {
    /// Only items of one group share a run.
    pub group: &'a Group,
    /// Rows, at least one. More than `max_rows` run alone.
    pub rows: usize,
    /// How much work it is: what run times are learned by. The same as `rows`, except where the rows of a group differ
    /// in size (see [`Signature::mixed`](millrace_core::Signature::mixed)). More than `max_work` runs alone.
    pub work: usize,
    /// Bytes that it holds while queued.
    pub bytes: usize,
    /// Who asks.
    pub caller: CallerId,
    /// How urgent.
    pub priority: Priority,
    /// When it stops being of use.
    pub deadline: Option<Instant>,
    /// Whether it must not share its run.
    pub is_alone: bool,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub enum Decision<T> {
    /// Run these.
    Run(Formed<T>),
    /// Waiting until then may bring a better batch; an arrival may make it sooner (see [`BatchFormer::push`]).
    Ask(Instant),
    /// Nothing is queued.
    Empty,
}

/// Items that run together.
#[derive(Debug, PartialEq)]
pub struct Formed<T> {
    /// The items with their rows, in the order of their turns. At least one.
    pub items: Vec<(T, usize)>,
    /// Rows of all items.
    pub rows: usize,
    /// Work of all items.
    pub work: usize,
    /// Rows to add so that a specialised size is met.
    pub padding: usize,
    /// The most rows in one run. Where `rows` is more, the rows run in several runs, without padding.
    pub run_rows: usize,
    /// How long it will take in all, where anything is known.
    pub predicted: Option<Duration>,
    /// The earliest deadline among the items.
    pub deadline: Option<Instant>,
    /// Why the batch is not larger.
    pub closed_by: ClosedBy,
    /// Names the batch in [`BatchFormer::complete`].
    pub key: BatchKey,
}

/// Names a batch that is under way, and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchKey {
    group: usize,
    /// Counts batches.
    number: u64,
}

/// An item that leaves without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped<T> {
    /// Its deadline has passed, or will before its answer could be there.
    Late(T),
    /// Its caller has gone.
    Gone(T),
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// For [`BatchFormer::cancel`].
    pub ticket: Ticket,
    /// Whether [`BatchFormer::take`] may now say something else than it last said.
    pub is_news: bool,
}

/// The state of the decision for one queue.
#[derive(Debug)]
pub struct BatchFormer<T> {
    config: FormerConfig,
    order: Order<T>,
    groups: Groups,
    /// After [`Decision::Ask`]: until when, and how much work of which lane group would end the waiting.
    asked: Option<Asked>,
    ends: Ends,
    /// For how many more batches modest callers are thought to come back.
    company: usize,
    privilege: Privilege,
    /// When those who were refused will come again.
    promises: Promises,
    punctuality: Punctuality,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    until: Instant,
    group: usize,
    work: usize,
}

impl<T> BatchFormer<T> {
    /// An empty queue that knows nothing yet.
    pub fn new(config: FormerConfig) -> Self {
        let groups = Groups::new(config.max_groups, config.most_work());
        Self {
            config,
            order: Order::default(),
            groups,
            asked: None,
            ends: Ends::default(),
            company: 0,
            privilege: Privilege::default(),
            promises: Promises::default(),
            punctuality: Punctuality::default(),
        }
    }

    /// How many runs go on at once from now on.
    pub fn set_workers(&mut self, workers: usize) {
        self.config.workers = workers;
    }

    /// Queues an item.
    pub fn push(&mut self, item: T, arrival: Arrival<'_>, now: Instant) -> Pushed {
        let forecast = self.long_wait(&arrival, now).map(|(forecast, _)| forecast);
        let number = self.groups.intern(arrival.group);
        if let Some(known) = self.groups.get_mut(number) {
            known.join();
            known.arrive(arrival.work, now);
        }
        let group = 2 * number + usize::from(arrival.is_alone);
        let seconds = self.groups.cost(number).row_seconds() * arrival.work as f64;
        let Arrival { rows, work, bytes, caller, priority, deadline, .. } = arrival;
        let entry = Entry { rows, work, bytes, seconds, group, priority, caller, queued: now, deadline, forecast };
        let ticket = self.order.insert(item, entry);
        let is_news = match self.asked {
            None => true,
            Some(asked) => {
                let load = self.order.group_load(group);
                let is_full = load.work >= asked.work || load.rows >= self.config.max_rows;
                group != asked.group || is_full || deadline.is_some_and(|deadline| deadline <= asked.until)
            }
        };
        Pushed { ticket, is_news }
    }

    /// Takes an item back, unless it has left.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let id = self.order.find(ticket)?;
        self.drop_entry(id)
    }

    /// Chooses what an idle worker runs now. Items whose deadline has passed or for which `is_gone` holds are put into
    /// `dropped` and never run.
    ///
    /// Order: the most urgent priority; within it the caller whose turn it is leads with its earliest deadline, and the
    /// other callers of that item's group follow in turn. Callers of whom nothing waited go before those served since.
    pub fn take(
        &mut self,
        now: Instant,
        is_gone: &mut dyn FnMut(&T) -> bool,
        dropped: &mut Vec<Dropped<T>>,
    ) -> Decision<T> {
        loop {
            match self.take_once(now, is_gone, dropped) {
                // A caller may go between two looks. What was chosen has gone then, but others may be queued.
                Decision::Empty if !self.is_empty() => {}
                decision => return decision,
            }
        }
    }

    fn take_once(
        &mut self,
        now: Instant,
        is_gone: &mut dyn FnMut(&T) -> bool,
        dropped: &mut Vec<Dropped<T>>,
    ) -> Decision<T> {
        self.asked = None;
        self.expire(now, dropped);
        let Some(leader) = self.leader(is_gone, dropped) else {
            self.punctuality.ran_dry();
            return Decision::Empty;
        };
        let Some(group) = self.order.get(leader).map(|entry| entry.group) else { return Decision::Empty };
        let plan = self.plan(group, leader, now);
        let Some((until, work)) = plan.wait else {
            self.order.lead_with(leader);
            return self.collect(group, plan, now, is_gone, dropped);
        };
        // While the leader's group waits, another may be ready.
        let others: Vec<usize> = self.order.groups().filter(|&other| other != group).collect();
        let mut asked = Asked { until, group, work };
        for other in others {
            let Some(leader) = self.order.next(other) else { continue };
            let plan = self.plan(other, leader, now);
            match plan.wait {
                None => match self.collect(other, plan, now, is_gone, dropped) {
                    Decision::Run(formed) => return Decision::Run(formed),
                    Decision::Ask(_) | Decision::Empty => {}
                },
                Some((until, _)) => asked.until = asked.until.min(until),
            }
        }
        self.asked = Some(asked);
        Decision::Ask(asked.until)
    }

    /// Takes out every item whose deadline has passed.
    pub fn expire(&mut self, now: Instant, dropped: &mut Vec<Dropped<T>>) {
        while let Some(id) = self.order.expired(now) {
            dropped.extend(self.drop_late(id, now));
        }
    }

    /// Takes out every item for which `is_gone` holds. Looks at all of them.
    pub fn sweep(&mut self, is_gone: &mut dyn FnMut(&T) -> bool, dropped: &mut Vec<Dropped<T>>) {
        let gone: Vec<usize> = self.order.ids().filter(|&id| self.order.item(id).is_some_and(&mut *is_gone)).collect();
        for id in gone {
            dropped.extend(self.drop_entry(id).map(Dropped::Gone));
        }
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<T> {
        let ids: Vec<usize> = self.order.ids().collect();
        ids.into_iter().filter_map(|id| self.drop_entry(id)).collect()
    }

    /// Learns how long a run of `rows` rows, padding included, took. Returns a size that the model should be asked to
    /// prepare for.
    pub fn observe(&mut self, key: BatchKey, rows: usize, took: Duration) -> Option<usize> {
        let may_wish = match &self.config.sizes {
            Sizes::Learned => true,
            Sizes::Allowed(sizes) | Sizes::Preferred(sizes) => sizes.iter().any(|size| size.get() == rows),
        };
        self.groups.observe(key.group, rows, took.as_secs_f64(), may_wish)
    }

    /// Ends a batch: its group may be forgotten when nobody else uses it.
    pub fn complete(&mut self, key: BatchKey) {
        self.ends.remove(key.number);
        self.leave(key.group);
    }

    fn leave(&mut self, number: usize) {
        if let Some(known) = self.groups.get_mut(number) {
            known.leave();
        }
    }

    /// Says for which row counts of `group` the model is specialised now, and how long that took, if just done.
    pub fn set_prepared(&mut self, group: &Group, prepared: Prepared, took: Option<Duration>) {
        let number = self.groups.intern(group);
        self.groups.set_prepared(number, prepared, took);
    }

    /// The group behind `key`.
    pub fn group(&self, key: BatchKey) -> Option<&Group> {
        self.groups.get(key.group).map(crate::groups::Known::group)
    }

    /// About how long the workers need for so much work of `group`, at its cheapest; nothing where that is unknown.
    pub fn time_of(&self, group: &Group, work: usize) -> Duration {
        let number = self.groups.find(group).unwrap_or(usize::MAX);
        self.shared(self.groups.cost(number).row_seconds() * work as f64)
    }

    /// The work of a request, as far as those that are queued tell.
    pub fn typical_work(&self) -> usize {
        let load = self.order.load();
        load.work.checked_div(load.entries).unwrap_or(1).max(1)
    }

    /// The group of all requests so far, where they were all of one.
    pub fn only_group(&self) -> Option<Group> {
        self.groups.only().cloned()
    }

    /// Whether the model has admitted about so many rows of `group` before; see
    /// [`Model::admit`](millrace_core::Model::admit).
    pub fn is_admitted(&self, group: &Group, rows: usize) -> bool {
        self.groups.find(group).and_then(|number| self.groups.get(number)).is_some_and(|known| known.is_admitted(rows))
    }

    /// Remembers that the model admitted so many rows of `group`. Returns whether the group is a stranger.
    pub fn set_admitted(&mut self, group: &Group, rows: usize) -> bool {
        let is_new = self.groups.find(group).is_none();
        let number = self.groups.intern(group);
        if let Some(known) = self.groups.get_mut(number) {
            known.set_admitted(rows);
        }
        is_new
    }

    /// How many rows a piece of a request of `rows` rows and so much `work` should have: all of them, unless more than one
    /// run may hold, or unless rows run one by one anyway and other workers can share them.
    pub fn piece_rows(&self, group: &Group, rows: usize, work: usize) -> usize {
        let most = rows.min(self.config.max_rows).max(1);
        if self.config.is_mixed {
            return self.piece_of_mixed(group, rows, work).min(most);
        }
        match self.groups.find(group).and_then(|number| self.groups.get(number)) {
            Some(_) if self.config.sizes != Sizes::Learned => most,
            Some(_) if self.row_by_row(group) => rows.div_ceil(self.config.workers.max(1)).min(most),
            _ => most,
        }
    }

    /// When [`BatchFormer::expire`] has work to do.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.order.first_deadline().map(|(deadline, _)| deadline)
    }

    /// When [`BatchFormer::take`] wants to be asked again after it said [`Decision::Ask`].
    pub fn next(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.until)
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.order.load().entries == 0
    }

    /// Items queued.
    pub fn len(&self) -> usize {
        self.order.load().entries
    }

    /// Rows queued.
    pub fn rows(&self) -> usize {
        self.order.load().rows
    }

    /// Bytes queued.
    pub fn bytes(&self) -> usize {
        self.order.load().bytes
    }

    /// How long the workers will be busy with what is queued.
    pub fn backlog(&self) -> Duration {
        self.shared(self.order.load().seconds)
    }

    /// How long an item of `caller` would wait before its run: until its turn, or until everything as urgent is done.
    pub fn wait_of(&self, priority: Priority, caller: CallerId) -> Duration {
        let Load { entries, seconds, .. } = self.order.load_before(priority);
        if entries == 0 {
            return Duration::ZERO;
        }
        let (callers, own) = self.order.turns(priority, caller);
        let in_turn = (own + 1).saturating_mul(callers.max(1)).min(entries);
        self.shared(seconds / entries as f64 * in_turn as f64)
    }

    /// How long a run of `rows` rows of `group` will take, where anything is known.
    pub fn predict(&self, group: &Group, rows: usize) -> Option<Duration> {
        let number = self.groups.find(group).unwrap_or(usize::MAX);
        self.groups.predict(number, rows).map(|prediction| duration(prediction.mean))
    }

    /// How long the runs of everything queued will take one after the other when nothing disturbs them, or `None` where some
    /// group of it has not run often enough to be sure.
    pub fn work(&self) -> Option<Duration> {
        let mut seconds = 0.0;
        for group in self.order.groups() {
            let known = self.groups.get(group / 2).filter(|known| known.is_settled())?;
            let work = self.order.group_load(group).work;
            let size = work.min(known.cost().best_rows()).max(1);
            seconds += self.groups.predict(group / 2, size)?.least * work.div_ceil(size) as f64;
        }
        Some(duration(seconds))
    }

    /// How long a run takes when nothing disturbs it, from runs of `group` itself, and of enough of them to be sure.
    pub fn predict_surely(&self, group: &Group, rows: usize) -> Option<Duration> {
        let number = self.groups.find(group)?;
        self.groups.get(number).filter(|known| known.is_settled())?;
        self.groups.predict(number, rows).map(|prediction| duration(prediction.least))
    }

    /// Whether a run of the group behind `key` has ended, so that what is predicted for it rests on the group itself and
    /// not on others, whose requests may be a thousand times smaller.
    pub fn has_run(&self, key: BatchKey) -> bool {
        self.groups.get(key.group).is_some_and(|known| known.cost().runs() > 0)
    }

    /// What was learned, by group.
    pub fn learned(&self) -> Vec<Learned> {
        self.groups.learned()
    }

    fn shared(&self, seconds: f64) -> Duration {
        duration(seconds / self.config.workers.max(1) as f64)
    }

    fn row_by_row(&self, group: &Group) -> bool {
        self.groups.find(group).is_some_and(|number| self.groups.cost(number).is_row_by_row())
    }

    /// The same where rows differ in size: pieces of as much work as pays in one run, so that other workers can share them
    /// and no caller holds one for longer than that.
    fn piece_of_mixed(&self, group: &Group, rows: usize, work: usize) -> usize {
        let cost = self.groups.cost(self.groups.find(group).unwrap_or(usize::MAX));
        let most = cost.best_rows().min(cost.reach()).max(LEAST_PIECE).min(self.config.max_work);
        if work <= most { rows } else { (rows * most / work).max(1) }
    }

    fn drop_late(&mut self, id: usize, now: Instant) -> Option<Dropped<T>> {
        let entry = self.order.get(id)?;
        if let Some(forecast) = entry.forecast {
            self.punctuality.broken(now.saturating_duration_since(entry.queued), forecast);
        }
        self.drop_entry(id).map(Dropped::Late)
    }

    fn drop_entry(&mut self, id: usize) -> Option<T> {
        let group = self.order.get(id)?.group;
        self.leave(group / 2);
        self.order.remove(id)
    }

    fn leader(&mut self, is_gone: &mut dyn FnMut(&T) -> bool, dropped: &mut Vec<Dropped<T>>) -> Option<usize> {
        loop {
            let id = self.order.leader()?;
            if !self.order.item(id).is_some_and(&mut *is_gone) {
                return Some(id);
            }
            dropped.extend(self.drop_entry(id).map(Dropped::Gone));
        }
    }

    fn collect(
        &mut self,
        group: usize,
        plan: Plan,
        now: Instant,
        is_gone: &mut dyn FnMut(&T) -> bool,
        dropped: &mut Vec<Dropped<T>>,
    ) -> Decision<T> {
        let number = group / 2;
        let mut items = Vec::with_capacity(self.order.group_load(group).entries.min(plan.limit).max(1));
        let (mut rows, mut work, mut deadline) = (0, 0, None::<Instant>);
        let mut closed_by = if plan.limit == 0 { ClosedBy::Alone } else { ClosedBy::Drained };
        let whole = self.groups.predict(number, plan.limit.max(1)).map(|run| duration(run.likely));
        while let Some(id) = self.order.next(group) {
            if self.order.item(id).is_some_and(&mut *is_gone) {
                dropped.extend(self.drop_entry(id).map(Dropped::Gone));
                continue;
            }
            let Some(&entry) = self.order.get(id) else { break };
            // Whoever would keep the batch small is looked at as its leader would be, whoever leads.
            let is_first = entry.deadline.is_some_and(|own| deadline.is_none_or(|deadline| own < deadline));
            if is_first && self.is_hopeless(group, id, plan.limit, now) {
                dropped.extend(self.drop_late(id, now));
                continue;
            }
            let (more_rows, total) = (rows + entry.rows, work + entry.work);
            let earliest = earlier(deadline, entry.deadline);
            if !items.is_empty() {
                if total > plan.limit || more_rows > self.config.max_rows {
                    closed_by = if plan.limit == 0 { ClosedBy::Alone } else { ClosedBy::Full };
                    break;
                }
                let left = earliest.map(|deadline| deadline.saturating_duration_since(now));
                // The full batch's time is known already; only where that is too long is this one's own looked up.
                if let (Some(left), Some(whole)) = (left, whole)
                    && whole > left
                    && self.groups.predict(number, total).is_some_and(|run| duration(run.likely) > left)
                {
                    closed_by = ClosedBy::Deadline;
                    break;
                }
            }
            let Some(item) = self.order.serve(id) else { break };
            if let (Some(forecast), Some(due)) = (entry.forecast, entry.deadline) {
                let waited = now.saturating_duration_since(entry.queued);
                self.punctuality.kept(waited, due.saturating_duration_since(entry.queued), forecast);
            }
            (rows, work, deadline) = (more_rows, total, earliest);
            items.push((item, entry.rows));
        }
        if items.is_empty() {
            return Decision::Empty;
        }
        // The items leave as one user of the group.
        for _ in 1..items.len() {
            self.leave(number);
        }
        if closed_by == ClosedBy::Drained && work >= plan.limit {
            closed_by = ClosedBy::Full;
        } else if closed_by == ClosedBy::Drained && plan.has_waited {
            closed_by = ClosedBy::Timeout;
        }
        let is_mixed = self.config.is_mixed;
        // Requests of different sizes are not cut once they ride together.
        let run_rows = if is_mixed { usize::MAX } else { plan.run_rows.min(self.config.max_rows).max(1) };
        let padding = if rows <= run_rows && !is_mixed { self.padding(number, rows) } else { 0 };
        let predicted = self.predict_all(number, work, padding, run_rows);
        self.note(plan, predicted);
        let key = BatchKey { group: number, number: self.ends.add(now + predicted.unwrap_or_default()) };
        Decision::Run(Formed { items, rows, work, padding, run_rows, predicted, deadline, closed_by, key })
    }
}

fn earlier(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

#[cfg(test)]
mod tests;
