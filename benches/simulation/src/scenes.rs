//! What one caller may notice of another: urgent requests beside bulk, a greedy caller, overload and what comes after it.

use millrace_core::{CallerId, Priority};

use crate::play::p99;
use crate::{Cost, Fate, Process, Random, Request, Rule, play_all};

/// Seconds that callers wait who set no deadline.
const PATIENT: f64 = 30.0;

/// Urgent requests at a tenth of what the engine can do, by themselves and beside half as much bulk again as it can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Urgency {
    /// Seconds that 99 of 100 urgent requests stay below when they have the engine to themselves.
    pub alone: f64,
    /// The same beside the bulk.
    pub beside: f64,
    /// Seconds that one bulk batch may take: `latency_goal`, or one row where that is longer.
    pub batch: f64,
    /// Answers of both kinds while the bulk lasts, as a share of what the engine can do.
    pub throughput: f64,
}

impl Urgency {
    /// Plays both on `cost` with a `latency_goal` of so many seconds.
    pub fn play(cost: Cost, latency_goal: f64) -> Self {
        let capacity = cost.capacity(latency_goal);
        let few = of_caller(1, 0.1 * capacity, 3000, PATIENT);
        let few: Vec<_> = few.into_iter().map(|request| Request { priority: Priority(0), ..request }).collect();
        let both = together(&few, &of_caller(2, 1.5 * capacity, 45_000, PATIENT));
        let rule = Rule::Goal(latency_goal);
        let fates = play_all(&both, cost, rule, PATIENT, 0);
        let last = both.last().map_or(0.0, |request| request.at);
        let answers = fates.iter().filter(|fate| fate.answered.is_some_and(|at| at <= last)).count();
        Self {
            alone: p99_of(&few, 1, cost, rule, PATIENT),
            beside: p99_among(&both, &fates, 1),
            batch: latency_goal.max(cost.plain(1)),
            throughput: answers as f64 / last / capacity,
        }
    }

    /// Seconds by which the bulk delays urgent requests beyond the batch that may be running when they come.
    pub fn excess(&self) -> f64 {
        self.beside - self.alone - self.batch
    }
}

/// Two callers, each with three tenths of what the engine can do; then one asks ten times as much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fairness {
    /// Seconds that 99 of 100 requests of the modest caller stay below while both are.
    pub before: f64,
    /// The same beside the greedy one.
    pub beside: f64,
    /// Seconds that one batch may take.
    pub batch: f64,
}

impl Fairness {
    /// Plays both on `cost`.
    pub fn play(cost: Cost) -> Self {
        let batch = 4.0 * cost.plain(1);
        let capacity = cost.capacity(batch);
        let modest = of_caller(1, 0.3 * capacity, 3000, PATIENT);
        let p99_beside = |rate: f64, count: usize| {
            let both = together(&modest, &of_caller(2, rate * capacity, count, PATIENT));
            p99_of(&both, 1, cost, Rule::Goal(batch), PATIENT)
        };
        Self { before: p99_beside(0.3, 3000), beside: p99_beside(3.0, 30_000), batch }
    }

    /// The same with nothing set: a batch takes as long as pays by `cost`.
    pub fn play_unset(cost: Cost) -> Self {
        let row = |rows: usize| cost.plain(rows) / rows as f64;
        let cheapest = (1..=1024).map(row).fold(f64::INFINITY, f64::min);
        let best = (1..=1024).find(|rows| row(*rows) <= 1.03 * cheapest).unwrap_or(1);
        let batch = cost.plain(best);
        let capacity = cost.capacity(batch);
        // What one waits for when two modest ones share the engine is no burden of the greedy one's.
        let modest = of_caller(1, 0.1 * capacity, 3000, PATIENT);
        let before = p99_of(&modest, 1, cost, Rule::Auto, PATIENT);
        let both = together(&modest, &of_caller(2, capacity, 30_000, PATIENT));
        Self { before, beside: p99_of(&both, 1, cost, Rule::Auto, PATIENT), batch }
    }

    /// How many times as long the modest caller waits beside the greedy one, one running batch aside.
    pub fn ratio(&self) -> f64 {
        (self.beside - self.batch) / self.before
    }
}

/// A second of too much, beside a steady load of three tenths before and after. Refused callers come again once, as told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overload {
    /// Answers in time during that second, as a share of what the engine can do.
    pub goodput: f64,
    /// Seconds that 99 of 100 answered requests stay below, as a share of what they had.
    pub p99: f64,
    /// Of all who were turned away, the share that had been let in first and waited for nothing.
    pub given_up: f64,
    /// Of those who came again, the share that was answered in time.
    pub obeying: f64,
    /// Seconds after the crush until 9 of 10 newcomers are answered in time, in every half second from then on.
    pub recovery: f64,
}

impl Overload {
    /// Plays a crush of `times` what `cost` can do.
    pub fn play(cost: Cost, times: f64) -> Self {
        let goal = (8.0 * cost.plain(1)).max(0.005);
        let capacity = cost.capacity(goal / 2.0);
        let (begin, end) = (2.0, 3.0);
        let length = 5.0 + 2.5 * times;
        let steady = of_caller(1, 0.3 * capacity, count(0.3 * capacity * length), goal);
        let mut crush = of_caller(2, times * capacity, count(times * capacity * (end - begin)), goal);
        crush.iter_mut().for_each(|request| request.at += begin);
        let requests = together(&steady, &crush);
        let fates = play_all(&requests, cost, Rule::Auto, goal, 1);
        let all = || requests.iter().zip(&fates);
        let during = all().filter(|(request, fate)| (begin..end).contains(&fate.came) && fate.is_in_time(request));
        let again: Vec<_> = all().filter(|(_, fate)| fate.refusals > 0).collect();
        let given_up = fates.iter().filter(|fate| fate.answered.is_none() && fate.refusals < 2).count();
        let turned_away = given_up + fates.iter().map(|fate| fate.refusals as usize).sum::<usize>();
        let good = again.iter().filter(|(request, fate)| fate.is_in_time(request)).count();
        Self {
            goodput: during.count() as f64 / capacity / (end - begin),
            p99: p99(fates.iter().filter_map(Fate::latency).collect()) / goal,
            given_up: given_up as f64 / turned_away.max(1) as f64,
            obeying: if again.is_empty() { 1.0 } else { good as f64 / again.len() as f64 },
            recovery: recovery(&requests, &fates, end),
        }
    }
}

/// Seconds from `end` until newcomers are served as if nothing had been.
fn recovery(requests: &[Request], fates: &[Fate], end: f64) -> f64 {
    let last = requests.last().map_or(end, |request| request.at);
    let is_bad = |from: f64| {
        let fresh = requests.iter().zip(fates).filter(|(request, _)| (from..from + 0.5).contains(&request.at));
        let fresh: Vec<bool> = fresh.map(|(request, fate)| fate.refusals == 0 && fate.is_in_time(request)).collect();
        10 * fresh.iter().filter(|good| **good).count() < 9 * fresh.len()
    };
    let halves = count((last - end) * 2.0);
    let last_bad = (0..halves).rev().find(|half| is_bad(end + *half as f64 / 2.0));
    last_bad.map_or(0.0, |half| (half + 1) as f64 / 2.0)
}

fn of_caller(caller: u64, rate: f64, count: usize, within: f64) -> Vec<Request> {
    let requests = Process::Poisson.requests(rate, count, within, &mut Random::new(caller));
    requests.into_iter().map(|request| Request { caller: CallerId(caller), ..request }).collect()
}

fn together(left: &[Request], right: &[Request]) -> Vec<Request> {
    let mut both = [left, right].concat();
    both.sort_by(|left, right| left.at.total_cmp(&right.at));
    both
}

/// What 99 of 100 requests of `caller` stay below, the first tenth aside.
fn p99_of(requests: &[Request], caller: u64, cost: Cost, rule: Rule, goal: f64) -> f64 {
    p99_among(requests, &play_all(requests, cost, rule, goal, 0), caller)
}

fn p99_among(requests: &[Request], fates: &[Fate], caller: u64) -> f64 {
    let counted = requests.iter().zip(fates).skip(requests.len() / 10);
    let own = counted.filter(|(request, _)| request.caller == CallerId(caller));
    p99(own.map(|(_, fate)| fate.latency().unwrap_or(f64::INFINITY)).collect())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
fn count(requests: f64) -> usize {
    requests as usize
}
