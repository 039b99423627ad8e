//! Lets engines answer the same requests, compares what they say and times them, in turns, within a budget.
//!
//! The most trusted engine that runs at all is the reference. Who differs from it, fails or panics is dropped. Times are the
//! shortest of several runs: whatever else happens on the machine only ever makes a run longer.

use std::cell::Cell;
use std::time::Duration;

use millrace_core::{
    Batch, EngineOutcome, EngineTrial, ModelSource, PartOutputs, RunTime, Signature, Tensor, TensorList,
};

use crate::AutoConfig;
use crate::compare::{Comparison, Precision};
use crate::data::{Data, Fill, ROWS, Spread};
use crate::load::Loaded;
use crate::runner::{Runner, Trouble};
use crate::terms::Terms;

/// How often a run is timed at most, and at least where the budget allows.
const MOST_RUNS: usize = 15;
const LEAST_RUNS: usize = 3;
/// The share of the budget that one row count may take once it has been timed [`LEAST_RUNS`] times.
const SHARE: u32 = 8;

/// An engine in the trial.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) trial: EngineTrial,
    /// `None` once it is dropped.
    pub(crate) runner: Option<Runner>,
}

impl Entry {
    /// A loaded engine that has not run yet.
    pub(crate) fn new(loaded: Loaded) -> Self {
        let signature = loaded.model.signature();
        // An engine always agrees with itself.
        let terms = Terms::agree(signature, signature).ok();
        let trial = EngineTrial {
            engine: loaded.name.into(),
            outcome: EngineOutcome::Slower,
            load_time: loaded.load_time,
            memory_bytes: loaded.model.memory_bytes(),
            times: Vec::new(),
            difference: None,
        };
        Self { trial, runner: terms.map(|terms| Runner::new(loaded.model, terms)) }
    }

    /// An engine that did not load.
    pub(crate) fn failed(engine: &str, reason: String) -> Self {
        let trial = EngineTrial {
            engine: engine.into(),
            outcome: EngineOutcome::Dropped(reason),
            load_time: Duration::ZERO,
            memory_bytes: 0,
            times: Vec::new(),
            difference: None,
        };
        Self { trial, runner: None }
    }

    pub(crate) fn drop_for(&mut self, reason: String) {
        self.trial.outcome = EngineOutcome::Dropped(reason);
        self.runner = None;
    }

    fn signature(&self) -> Option<&Signature> {
        self.runner.as_ref().map(|runner| runner.model.signature())
    }
}

/// What engines are held to: the signature, the requests and the answers of the most trusted one.
#[derive(Debug)]
pub(crate) struct Reference {
    name: String,
    signature: Signature,
    data: Data,
    comparison: Comparison,
    /// Answers by rows, and for one row by the number of the request.
    answers: Vec<((usize, usize), PartOutputs)>,
}

impl Reference {
    /// Whether the rows of an answer to `rows` rows are as they were when each ran alone.
    fn rows_alone(&self, answer: &PartOutputs, rows: usize) -> Result<(), String> {
        if rows == 1 || !self.signature.is_batched() {
            return Ok(());
        }
        for ((_, request), alone) in self.answers.iter().filter(|((rows, _), _)| *rows == 1) {
            if *request < rows {
                let own = |output: &Option<Tensor>| output.as_ref().map(|tensor| tensor.rows(*request..request + 1));
                let row: PartOutputs = answer.iter().map(own).collect();
                self.comparison.compare(&self.signature, alone, &row)?;
            }
        }
        Ok(())
    }
}

/// How the search for a reference ended.
#[derive(Debug)]
pub(crate) enum Found {
    Reference(Box<Reference>),
    /// The most trusted engine takes none of the data, which proves nothing: entry so and so serves untried.
    Untried(usize),
    /// Every engine was dropped.
    Nobody,
}

/// The trial of one version.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) config: &'a AutoConfig,
    pub(crate) source: &'a ModelSource,
}

impl Trial<'_> {
    /// Drops every engine whose rows are joined although another knows that they may not be, or that does not join rows
    /// which another does.
    pub(crate) fn same_batching(entries: &mut [Entry]) {
        let knows = |entry: &Entry| {
            let runner = entry.runner.as_ref()?;
            let facts = runner.model.facts();
            facts.properties.get("not batched").map(|why| (entry.trial.engine.clone(), why.clone()))
        };
        let mixing = entries.iter().find_map(knows);
        let joins = |entry: &Entry| entry.signature().map(Signature::is_batched);
        let somebody_joins =
            entries.iter().find(|entry| joins(entry) == Some(true)).map(|entry| entry.trial.engine.clone());
        for entry in entries {
            match (joins(entry), &mixing, &somebody_joins) {
                (Some(true), Some((engine, why)), _) => {
                    entry.drop_for(format!("it would join rows that {engine} found to depend on each other: {why}"));
                }
                (Some(false), None, Some(engine)) => {
                    entry.drop_for(format!("it does not join rows of different requests, which {engine} does"));
                }
                _ => {}
            }
        }
    }

    /// Finds the most trusted engine that runs, and what it runs on. Those before it are dropped.
    pub(crate) fn reference(&self, entries: &mut [Entry]) -> Found {
        let operators = |entry: &Entry| entry.runner.as_ref().map(|runner| runner.model.facts());
        let facts: Vec<_> = entries.iter().filter_map(operators).collect();
        let grows_trees =
            facts.iter().flat_map(|facts| facts.operators.keys()).any(|name| name.contains("TreeEnsemble"));
        let spread = if grows_trees { Spread::Wide } else { Spread::Narrow };
        for (index, entry) in entries.iter_mut().enumerate() {
            let Some(runner) = &mut entry.runner else { continue };
            let signature = runner.model.signature().clone();
            match self.data(runner, &signature, spread) {
                Ok(data) => {
                    let comparison = Comparison::new(Precision::of(&facts), &signature);
                    let name = entry.trial.engine.to_string();
                    let reference = Reference { name, signature, data, comparison, answers: Vec::new() };
                    return Found::Reference(Box::new(reference));
                }
                Err(Trouble::Invalid(text)) => {
                    tracing::debug!(model = %self.source.model, engine = %entry.trial.engine, text, "no invented input is taken");
                    return Found::Untried(index);
                }
                Err(trouble) => entry.drop_for(trouble.text()),
            }
        }
        Found::Nobody
    }

    /// The first data that `runner` runs on.
    fn data(&self, runner: &mut Runner, signature: &Signature, spread: Spread) -> Result<Data, Trouble> {
        let recorded =
            self.source.samples.as_ref().and_then(|samples| Data::recorded(signature, samples.inputs(signature)));
        let mut trouble = Trouble::Invalid("no input of a reasonable size fits".to_owned());
        if let Some(data) = recorded {
            match self.takes(runner, signature, &data) {
                Ok(()) => return Ok(data),
                Err(other) => trouble = other,
            }
        }
        for fill in Fill::ALL {
            let refused = Cell::new(None);
            let admits = |inputs: &TensorList| match signature.check(inputs) {
                Ok(admission) => runner.admit(&admission).map_err(|trouble| refused.set(Some(trouble))).is_ok(),
                Err(_) => false,
            };
            let Some(data) = Data::invented(signature, fill, spread, ROWS, admits) else {
                trouble = refused.take().unwrap_or(trouble);
                continue;
            };
            match self.takes(runner, signature, &data) {
                Ok(()) => return Ok(data),
                Err(other) => trouble = other,
            }
        }
        Err(trouble)
    }

    /// Whether `runner` runs on `data`: on its first request, and where that was quick, on all.
    fn takes(&self, runner: &mut Runner, signature: &Signature, data: &Data) -> Result<(), Trouble> {
        for (index, inputs) in data.all().iter().enumerate() {
            let admission = signature.check(inputs).map_err(|error| Trouble::Invalid(error.to_string()))?;
            runner.admit(&admission)?;
            let start = self.config.clock.now();
            runner.answer(inputs, admission.rows)?;
            if index == 0 && self.config.clock.since(start) > self.config.budget / 100 {
                break;
            }
        }
        Ok(())
    }

    /// Compares every engine with `reference` and times it, until `deadline`.
    pub(crate) fn measure(&self, entries: &mut [Entry], reference: &mut Reference, deadline: Duration) {
        for entry in entries.iter_mut() {
            let Some(runner) = &mut entry.runner else { continue };
            match Terms::agree(&reference.signature, runner.model.signature()) {
                Ok(terms) => runner.terms = terms,
                Err(text) => entry.drop_for(format!("{text} ({})", reference.name)),
            }
        }
        let is_batched = reference.signature.is_batched();
        let counts: Vec<usize> = if is_batched { self.config.rows.clone() } else { vec![1] };
        // Rows and time of the last count: one run of each engine.
        let mut last: Option<(usize, Duration)> = None;
        for rows in counts {
            let clock = &self.config.clock;
            if let Some((fewer, took)) = last {
                let factor = u32::try_from(rows.div_ceil(fewer)).unwrap_or(u32::MAX);
                let runs = u32::try_from(LEAST_RUNS + 1).unwrap_or(u32::MAX);
                if clock.now().saturating_add(took.saturating_mul(factor).saturating_mul(runs)) > deadline {
                    break;
                }
            }
            let Some(inputs) = reference.data.inputs(rows) else { break };
            let mut first = vec![Duration::ZERO; entries.len()];
            for (entry, first) in entries.iter_mut().zip(&mut first) {
                let start = clock.now();
                self.check(entry, reference, (rows, 0), &inputs, rows);
                *first = clock.since(start);
            }
            if rows == 1 && clock.now() < deadline {
                self.check_others(entries, reference, deadline);
            }
            if entries.iter().filter(|entry| entry.runner.is_some()).count() == 0 {
                break;
            }
            let batch = Batch::single(inputs, if is_batched { rows } else { 1 });
            last = Some((rows, self.rounds(entries, &batch, rows, &first, deadline)));
        }
    }

    /// Compares one answer. The first engine that is asked for it sets what is expected.
    fn check(
        &self,
        entry: &mut Entry,
        reference: &mut Reference,
        key: (usize, usize),
        inputs: &TensorList,
        rows: usize,
    ) {
        let Some(runner) = &mut entry.runner else { return };
        let answer = reference.signature.check(inputs).map_err(|error| Trouble::Invalid(error.to_string()));
        let answer = answer.and_then(|admission| {
            runner.admit(&admission)?;
            runner.prepare(&admission.group, rows);
            runner.answer(inputs, admission.rows)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => {
                let text = trouble.text();
                self.warn(entry, &text);
                return entry.drop_for(text);
            }
        };
        let Some((_, expected)) = reference.answers.iter().find(|(known, _)| *known == key) else {
            reference.comparison.learn(&answer);
            if let Err(text) = reference.rows_alone(&answer, rows) {
                let text = format!("rows that share a run change one another's answers: {text}");
                self.warn(entry, &text);
                return entry.drop_for(text);
            }
            reference.answers.push((key, answer));
            return;
        };
        match reference.comparison.compare(&reference.signature, expected, &answer) {
            Ok(difference) => {
                let before = entry.trial.difference.take();
                let larger = |one: &millrace_core::OutputDifference| {
                    before.as_ref().is_none_or(|before| one.largest > before.largest)
                };
                entry.trial.difference = difference.filter(larger).or(before);
            }
            Err(text) => {
                let noun = if rows == 1 { "row" } else { "rows" };
                let text = format!("{text} (by {}, with {rows} {noun})", reference.name);
                self.warn(entry, &text);
                entry.drop_for(text);
            }
        }
    }

    fn warn(&self, entry: &Entry, text: &str) {
        tracing::warn!(
            model = %self.source.model, version = self.source.version, engine = %entry.trial.engine,
            "the engine is not used for this model: {text}"
        );
    }

    /// Compares the other requests, one by one.
    fn check_others(&self, entries: &mut [Entry], reference: &mut Reference, deadline: Duration) {
        let others: Vec<TensorList> = reference.data.all().iter().skip(1).cloned().collect();
        for (index, inputs) in others.iter().enumerate() {
            // One more is always compared, so that no engine passes that gives the same answer to everything.
            if index > 0 && self.config.clock.now().saturating_add(self.config.budget / 2) > deadline {
                break;
            }
            for entry in entries.iter_mut() {
                self.check(entry, reference, (1, index + 1), inputs, 1);
            }
        }
    }

    /// Times `batch` with each engine in turns; gives the sum of one run of each.
    fn rounds(
        &self,
        entries: &mut [Entry],
        batch: &Batch,
        rows: usize,
        first: &[Duration],
        deadline: Duration,
    ) -> Duration {
        let clock = &self.config.clock;
        let start = clock.now();
        let mut best: Vec<Option<Duration>> = vec![None; entries.len()];
        for round in 0..MOST_RUNS {
            let enough = round >= LEAST_RUNS && clock.since(start) > self.config.budget / SHARE;
            if enough || (round > 0 && clock.now() > deadline) || (round == 0 && clock.now() >= deadline) {
                break;
            }
            for turn in 0..entries.len() {
                // Whoever runs second finds caches warmed or spoilt by the first, so each goes first half of the time.
                let index = if round % 2 == 0 { turn } else { entries.len() - 1 - turn };
                let entry = &mut entries[index];
                let Some(runner) = &mut entry.runner else { continue };
                match runner.time(batch, clock) {
                    Ok(time) => best[index] = Some(best[index].map_or(time, |before| before.min(time))),
                    Err(trouble) => {
                        let text = trouble.text();
                        self.warn(entry, &text);
                        entry.drop_for(text);
                    }
                }
            }
        }
        let mut sum = Duration::ZERO;
        for ((entry, best), first) in entries.iter_mut().zip(best).zip(first) {
            if entry.runner.is_some() {
                // No time was left for a second run; the first counts, with whatever it did for the first time.
                let time = best.unwrap_or(*first);
                entry.trial.times.push(RunTime { rows, time });
                sum = sum.saturating_add(time);
            }
        }
        sum
    }
}
