//! One load against one rule, in virtual time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::rules::{Decider, Key, Next};
use crate::{Cost, Process, Random, Request, Rule};

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

impl Play {
    /// `load` times what the engine can do at best within the goal, for so many seconds, but at most `most` requests. Answers
    /// are of use for eight times as long as a lone row takes, or for 5 ms.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    pub fn at_load(cost: Cost, process: Process, load: f64, seconds: f64, most: usize) -> Self {
        let goal = (8.0 * cost.plain(1)).max(0.005);
        let rate = load * cost.capacity(goal / 2.0);
        Self { cost, process, rate, count: ((rate * seconds) as usize).min(most), goal, seed: 11 }
    }
}

/// What came of it, over the requests that count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Answers in time, per second.
    pub goodput: f64,
    /// The same as a share of the requests.
    pub share: f64,
    /// Requests refused at the door, as a share.
    pub refused: f64,
    /// Admitted requests that got no answer in time, as a share of all.
    pub late: f64,
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

/// What became of a request. Seconds since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    /// When it last came: later than at first where it was refused and came again.
    pub came: f64,
    /// How often it was refused at the door.
    pub refusals: u32,
    /// When its run began, if it did.
    pub started: Option<f64>,
    /// When it was answered, if it was.
    pub answered: Option<f64>,
}

impl Fate {
    /// Seconds from when it last came to the answer.
    pub fn latency(&self) -> Option<f64> {
        self.answered.map(|answered| answered - self.came)
    }

    /// Whether it was answered while the answer was of use.
    pub fn is_in_time(&self, request: &Request) -> bool {
        self.latency().is_some_and(|latency| latency <= request.within * (1.0 + 1e-9))
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
    /// How often a refused request comes again.
    most_refusals: u32,
    fates: Vec<Fate>,
    rows: Vec<usize>,
}

impl Stage {
    fn new(cost: Cost, count: usize, length: f64, seed: u64) -> Self {
        Self {
            events: BinaryHeap::new(),
            serial: 0,
            idle: cost.workers,
            random: Random::new(seed ^ 0xC057),
            cost,
            length,
            asked: f64::NEG_INFINITY,
            most_refusals: 0,
            fates: vec![Fate { came: 0.0, refusals: 0, started: None, answered: None }; count],
            rows: Vec::new(),
        }
    }

    fn at(&mut self, time: f64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse(At(time, self.serial, event)));
    }

    fn arrives(&mut self, decider: &mut dyn Decider, id: usize, request: &Request, now: f64) {
        self.fates[id].came = now;
        if let Err(wait) = decider.push(id, request, now) {
            self.fates[id].refusals += 1;
            if self.fates[id].refusals <= self.most_refusals {
                self.at(now + wait, Event::Arrival(id));
            }
        }
    }

    /// Whether nothing else happens in this instant. A worker that idles finds all of a burst: to wake it takes longer than to
    /// queue what has come.
    fn is_settled(&self, now: f64) -> bool {
        self.events.peek().is_none_or(|Reverse(At(next, ..))| *next > now)
    }

    /// Idle workers take what the rule gives them.
    fn work(&mut self, decider: &mut dyn Decider, now: f64) {
        while self.idle > 0 {
            match decider.take(now) {
                Next::Run { ids, runs, key } => {
                    self.idle -= 1;
                    ids.iter().for_each(|id| self.fates[*id].started = Some(now));
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
        ids.iter().for_each(|id| self.fates[*id].answered = Some(now));
    }
}

/// Plays `play` under `rule`.
pub fn play(play: &Play, rule: Rule) -> Outcome {
    let Play { cost, process, rate, count, goal, seed } = *play;
    let requests = process.requests(rate, count, goal, &mut Random::new(seed));
    let stage = run(&requests, cost, rule, goal, 0, seed);
    outcome(&requests, &stage)
}

/// Plays `requests`, ascending, each of which comes again up to `most_refusals` times when it was told to. `goal` is what a
/// rule that takes one figure for all is told.
pub fn play_all(requests: &[Request], cost: Cost, rule: Rule, goal: f64, most_refusals: u32) -> Vec<Fate> {
    run(requests, cost, rule, goal, most_refusals, 13).fates
}

fn run(requests: &[Request], cost: Cost, rule: Rule, goal: f64, most_refusals: u32, seed: u64) -> Stage {
    let length = requests.last().map_or(0.0, |request| request.at);
    let mut stage = Stage { most_refusals, ..Stage::new(cost, requests.len(), length, seed) };
    let mut decider = rule.start(cost.workers, goal, move |rows| cost.plain(rows));
    for (id, request) in requests.iter().enumerate() {
        stage.at(request.at, Event::Arrival(id));
    }
    while let Some(Reverse(At(now, _, event))) = stage.events.pop() {
        match event {
            Event::Arrival(id) => stage.arrives(&mut *decider, id, &requests[id], now),
            Event::Done { ids, runs, key } => stage.done(&mut *decider, now, &ids, &runs, key),
            Event::Ask => {}
        }
        if stage.is_settled(now) {
            stage.work(&mut *decider, now);
        }
    }
    stage
}

fn outcome(requests: &[Request], stage: &Stage) -> Outcome {
    let first = requests.len() / 10;
    let span = stage.length - requests.get(first).map_or(0.0, |request| request.at);
    let mut latencies = Vec::new();
    let (mut good, mut refused, mut wait) = (0_usize, 0_usize, 0.0);
    for (request, fate) in requests.iter().zip(&stage.fates).skip(first) {
        good += usize::from(fate.is_in_time(request));
        refused += usize::from(fate.refusals > 0);
        if let (Some(latency), Some(started)) = (fate.latency(), fate.started) {
            latencies.push(latency);
            wait += started - fate.came;
        }
    }
    let counted = (requests.len() - first).max(1) as f64;
    let (share, refused) = (good as f64 / counted, refused as f64 / counted);
    Outcome {
        goodput: good as f64 / span,
        share,
        refused,
        late: (1.0 - share - refused).max(0.0),
        wait: wait / latencies.len().max(1) as f64,
        p99: p99(latencies),
        rows: stage.rows.iter().sum::<usize>() as f64 / stage.rows.len().max(1) as f64,
    }
}

/// What 99 of 100 stay below; zero of nothing.
pub(crate) fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or(0.0)
}

/// Plays `clients` that each ask again as soon as they are answered, until `count` requests were made. `goodput` is all
/// answers per second.
pub fn closed_loop(cost: Cost, rule: Rule, clients: usize, count: usize, goal: f64) -> Outcome {
    let mut stage = Stage::new(cost, count, f64::INFINITY, 7);
    let mut decider = rule.start(cost.workers, goal, move |rows| cost.plain(rows));
    let mut requests = vec![Request::new(0.0, goal); count];
    let mut next = clients.min(count);
    (0..next).for_each(|id| stage.at(0.0, Event::Arrival(id)));
    while let Some(Reverse(At(now, _, event))) = stage.events.pop() {
        match event {
            Event::Arrival(id) => stage.arrives(&mut *decider, id, &requests[id], now),
            Event::Done { ids, runs, key } => {
                stage.done(&mut *decider, now, &ids, &runs, key);
                for _ in ids {
                    if next < count {
                        requests[next].at = now;
                        stage.at(now, Event::Arrival(next));
                        next += 1;
                    }
                }
            }
            Event::Ask => {}
        }
        if stage.is_settled(now) {
            stage.work(&mut *decider, now);
        }
    }
    stage.length = stage.fates.iter().filter_map(|fate| fate.answered).fold(0.0, f64::max);
    outcome(&requests, &stage)
}
