//! One load against one rule, in virtual time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::rules::{Decider, Key, Next};
use crate::{Cost, Process, Random, Rule};

/// The load and what is asked of the answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Play {
    /// The engine.
    pub cost: Cost,
    /// When requests come.
    pub process: Process,
    /// Requests per second.
    pub rate: f64,
    /// How many requests come. The first tenth is not counted: there is something to learn.
    pub count: usize,
    /// Seconds within which an answer is of use.
    pub goal: f64,
    /// The numbers drawn.
    pub seed: u64,
}

/// What came of it, over the requests that count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Answers in time, per second.
    pub goodput: f64,
    /// The same as a share of the requests.
    pub share: f64,
    /// Seconds from arrival to the beginning of the run, in the mean over answered requests.
    pub wait: f64,
    /// Seconds from arrival to answer that 99 of 100 answered requests stay below.
    pub p99: f64,
    /// Rows in a run, in the mean.
    pub rows: f64,
}

#[derive(Debug, PartialEq)]
enum Event {
    /// A worker has ended a batch.
    Done {
        ids: Vec<usize>,
        runs: Vec<(usize, f64)>,
        key: Key,
    },
    Arrival(usize),
    /// A rule wanted to be asked again.
    Ask,
}

#[derive(Debug, PartialEq)]
struct At(f64, u64, Event);

impl Eq for At {}

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The events to come, and what has been.
struct Stage {
    events: BinaryHeap<Reverse<At>>,
    serial: u64,
    idle: usize,
    random: Random,
    cost: Cost,
    length: f64,
    /// The earliest question that is under way.
    asked: f64,
    started: Vec<f64>,
    answered: Vec<f64>,
    rows: Vec<usize>,
}

impl Stage {
    fn at(&mut self, time: f64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse(At(time, self.serial, event)));
    }

    /// Idle workers take what the rule gives them.
    fn work(&mut self, decider: &mut dyn Decider, now: f64) {
        while self.idle > 0 {
            match decider.take(now) {
                Next::Run { ids, runs, key } => {
                    self.idle -= 1;
                    ids.iter().for_each(|id| self.started[*id] = now);
                    let progress = now / self.length;
                    let timed = |rows: usize, random: &mut Random| (rows, self.cost.run(rows, progress, random));
                    let runs: Vec<_> = runs.into_iter().map(|rows| timed(rows, &mut self.random)).collect();
                    let end = now + runs.iter().map(|(_, took)| took).sum::<f64>();
                    self.at(end, Event::Done { ids, runs, key });
                }
                Next::Ask(at) => {
                    if at > now && (self.asked <= now || at < self.asked) {
                        self.asked = at;
                        self.at(at, Event::Ask);
                    }
                    return;
                }
                Next::Nothing => return,
            }
        }
    }

    fn done(&mut self, decider: &mut dyn Decider, now: f64, ids: &[usize], runs: &[(usize, f64)], key: Key) {
        self.idle += 1;
        for (rows, took) in runs {
            decider.ran(*rows, *took);
            self.rows.push(*rows);
        }
        decider.ended(key);
        ids.iter().for_each(|id| self.answered[*id] = now);
    }
}

fn stage(cost: Cost, count: usize, length: f64, seed: u64) -> Stage {
    Stage {
        events: BinaryHeap::new(),
        serial: 0,
        idle: cost.workers,
        random: Random::new(seed ^ 0xC057),
        cost,
        length,
        asked: f64::NEG_INFINITY,
        started: vec![f64::NAN; count],
        answered: vec![f64::INFINITY; count],
        rows: Vec::new(),
    }
}

/// Plays `play` under `rule`.
pub fn play(play: &Play, rule: Rule) -> Outcome {
    let Play { cost, process, rate, count, goal, seed } = *play;
    let times = process.times(rate, count, &mut Random::new(seed));
    let length = times.last().copied().unwrap_or(0.0);
    let mut stage = stage(cost, count, length, seed);
    let mut decider = rule.start(cost.workers, goal, move |rows| cost.plain(rows));
    for (id, time) in times.iter().enumerate() {
        stage.at(*time, Event::Arrival(id));
    }
    while let Some(Reverse(At(now, _, event))) = stage.events.pop() {
        match event {
            Event::Arrival(id) => {
                decider.push(id, now);
            }
            Event::Done { ids, runs, key } => stage.done(&mut *decider, now, &ids, &runs, key),
            Event::Ask => {}
        }
        stage.work(&mut *decider, now);
    }
    outcome(&times, &stage, goal)
}

fn outcome(times: &[f64], stage: &Stage, goal: f64) -> Outcome {
    let first = times.len() / 10;
    let span = stage.length - times.get(first).copied().unwrap_or(0.0);
    let mut latencies = Vec::new();
    let (mut good, mut wait) = (0_usize, 0.0);
    for (id, came) in times.iter().enumerate().skip(first) {
        let latency = stage.answered[id] - came;
        if latency.is_finite() {
            latencies.push(latency);
            wait += stage.started[id] - came;
            good += usize::from(latency <= goal * (1.0 + 1e-9));
        }
    }
    latencies.sort_by(f64::total_cmp);
    let answered = latencies.len().max(1) as f64;
    Outcome {
        goodput: good as f64 / span,
        share: good as f64 / (times.len() - first).max(1) as f64,
        wait: wait / answered,
        p99: latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(0.0),
        rows: stage.rows.iter().sum::<usize>() as f64 / stage.rows.len().max(1) as f64,
    }
}

/// Plays `clients` that each ask again as soon as they are answered, until `count` requests were made. `goodput` is all
/// answers per second.
pub fn closed_loop(cost: Cost, rule: Rule, clients: usize, count: usize, goal: f64) -> Outcome {
    let mut stage = stage(cost, count, f64::INFINITY, 7);
    let mut decider = rule.start(cost.workers, goal, move |rows| cost.plain(rows));
    let mut times = vec![0.0; count];
    let mut next = clients.min(count);
    (0..next).for_each(|id| stage.at(0.0, Event::Arrival(id)));
    while let Some(Reverse(At(now, _, event))) = stage.events.pop() {
        match event {
            Event::Arrival(id) => {
                decider.push(id, now);
            }
            Event::Done { ids, runs, key } => {
                stage.done(&mut *decider, now, &ids, &runs, key);
                for _ in ids {
                    if next < count {
                        times[next] = now;
                        stage.at(now, Event::Arrival(next));
                        next += 1;
                    }
                }
            }
            Event::Ask => {}
        }
        stage.work(&mut *decider, now);
    }
    stage.length = stage.answered.iter().copied().filter(|time| time.is_finite()).fold(0.0, f64::max);
    outcome(&times, &stage, goal)
}
