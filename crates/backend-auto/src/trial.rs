//! Lets engines answer the same requests, compares what they say and times them, in turns, within a budget.
//!
//! The most trusted engine that runs at all is the reference. Who differs from it, fails or panics is dropped. Times are the
//! shortest of several runs: whatever else happens on the machine only ever makes a run longer.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{
    Batch, EngineOutcome, EngineTrial, ModelSource, PartOutputs, RunTime, Signature, Tensor, TensorList,
};

use crate::AutoConfig;
use crate::compare::{Comparison, Precision, is_float, numbers};
use crate::data::{Attempt, Data, Fill, ROWS, Spread};
use crate::load::Loaded;
use crate::runner::{Runner, Trouble};
use crate::terms::Terms;

/// How often a run is timed at most, and at least where the budget allows.
const MOST_RUNS: usize = 15;
const LEAST_RUNS: usize = 3;
/// Bytes of the answers that are kept to compare with; row counts that would make them more are left out.
const MOST_BYTES: usize = 64 << 20;
/// Open axes are made larger while a run takes less than this part of the budget.
const QUICK: u32 = 20;
/// The part of the budget that finding out whether requests are taken may take, after the first.
const TAKING: u32 = 10;
/// The share of the budget that one row count may take once it has been timed [`LEAST_RUNS`] times.
const SHARE: u32 = 8;

/// An engine in the trial.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) trial: EngineTrial,
    /// `None` once it is dropped.
    pub(crate) runner: Option<Runner>,
    /// Whether it joins rows of different requests; `None` where it did not load.
    joins: Option<bool>,
    /// Why rows may not be joined, where it found that out.
    mixing: Option<String>,
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
        let joins = Some(signature.is_batched());
        let mixing = loaded.model.facts().properties.remove("not batched");
        Self { trial, runner: terms.map(|terms| Runner::new(loaded.model, terms)), joins, mixing }
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
        Self { trial, runner: None, joins: None, mixing: None }
    }

    pub(crate) fn drop_for(&mut self, reason: String) {
        self.trial.outcome = EngineOutcome::Dropped(reason);
        self.runner = None;
    }

    pub(crate) fn is_dropped(&self) -> bool {
        matches!(self.trial.outcome, EngineOutcome::Dropped(_))
    }
}

/// What engines are held to: the signature, the requests and the answers of the most trusted one.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) name: String,
    signature: Signature,
    data: Data,
    comparison: Comparison,
    /// Answers by rows, and for one row by the number of the request.
    answers: Vec<((usize, usize), PartOutputs)>,
}

impl Reference {
    /// Bytes of all answers that are kept, once there is one more to `rows` rows.
    fn bytes(&self, rows: usize) -> usize {
        let bytes = |answer: &PartOutputs| answer.iter().flatten().map(Tensor::n_bytes).sum::<usize>();
        let kept: usize = self.answers.iter().map(|(_, answer)| bytes(answer)).sum();
        let known = self.answers.iter().any(|((known, request), _)| (*known, *request) == (rows, 0) && rows > 1);
        let row = self.answers.last().map_or(0, |((rows, _), answer)| bytes(answer).div_ceil(*rows));
        if known { kept } else { kept.saturating_add(row.saturating_mul(rows)) }
    }

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

/// Data, and the answers to the first of its requests.
struct Tried {
    data: Data,
    answers: Vec<PartOutputs>,
}

/// The answer to one request.
fn one(runner: &mut Runner, signature: &Signature, inputs: &TensorList) -> Result<PartOutputs, Trouble> {
    let admission = signature.check(inputs).map_err(|error| Trouble::Invalid(error.to_string()))?;
    runner.admit(inputs, &admission)?;
    runner.answer(inputs, admission.rows)
}

/// Whether answers could show that another engine is wrong: most numbers of each output are numbers, and those of some
/// output are not all the same.
fn is_telling(answers: &[PartOutputs]) -> bool {
    let outputs = answers.first().map_or(0, |answer| answer.len());
    let (mut any, mut varies) = (false, false);
    for index in 0..outputs {
        let own = answers.iter().filter_map(|answer| answer.get(index)?.as_ref());
        let values: Vec<f64> = own.filter(|tensor| is_float(tensor.dtype())).filter_map(numbers).flatten().collect();
        if values.is_empty() {
            continue;
        }
        let finite = values.iter().filter(|value| value.is_finite()).count();
        if finite * 2 < values.len() {
            return false;
        }
        any = true;
        varies |= values.len() == 1 || values.iter().any(|value| *value != values[0]);
    }
    varies || !any
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
    /// which another does. An engine that is not loaded any more has its say as well.
    pub(crate) fn same_batching(entries: &mut [Entry]) {
        let named = |entry: &Entry| entry.mixing.clone().map(|why| (Arc::clone(&entry.trial.engine), why));
        let mixing = entries.iter().find_map(named);
        let joins = |entry: &&Entry| entry.joins == Some(true) && !entry.is_dropped();
        let somebody_joins = entries.iter().find(joins).map(|entry| Arc::clone(&entry.trial.engine));
        for entry in entries {
            match (entry.joins, &mixing, &somebody_joins) {
                (Some(true), Some((engine, why)), _) => {
                    entry.drop_for(format!("it would join rows that {engine} found to depend on each other: {why}"));
                }
                (Some(false), None, Some(engine)) if !entry.is_dropped() => {
                    entry.drop_for(format!("it does not join rows of different requests, which {engine} does"));
                }
                _ => {}
            }
        }
    }

    /// The most trusted engine that could serve without a trial: none whose rows are joined although they may not be.
    pub(crate) fn most_trusted(entries: &[Entry]) -> Option<usize> {
        let is_mixing = entries.iter().any(|entry| entry.mixing.is_some());
        entries.iter().position(|entry| entry.joins.is_some_and(|joins| !(joins && is_mixing)))
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
                Ok(Tried { data, answers }) => {
                    let mut comparison = Comparison::new(Precision::of(&facts), &signature);
                    answers.iter().for_each(|answer| comparison.learn(answer));
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

    /// The first data that `runner` runs on and that tells something, and its answers to it. Data to which it gives no
    /// numbers, or always the same, is taken only where all is so: every engine would be right.
    fn data(&self, runner: &mut Runner, signature: &Signature, spread: Spread) -> Result<Tried, Trouble> {
        let clock = &self.config.clock;
        let recorded =
            self.source.samples.as_ref().and_then(|samples| Data::recorded(signature, samples.inputs(signature)));
        let mut trouble = Trouble::Invalid("no input of a reasonable size fits".to_owned());
        if let Some(data) = recorded {
            match self.takes(runner, signature, &data, Vec::new()) {
                Ok(answers) => return Ok(Tried { data, answers }),
                Err(other) => trouble = other,
            }
        }
        let mut dull = None;
        for fill in Fill::ALL {
            let grown = Data::grown(signature, fill, spread, ROWS, |data| {
                let start = clock.now();
                let result = match data.all().first() {
                    Some(inputs) => one(runner, signature, inputs),
                    None => Err(Trouble::Invalid("there is no request".to_owned())),
                };
                Attempt { result, is_quick: clock.since(start) < self.config.budget / QUICK }
            });
            let tried = match grown {
                Ok((data, first)) => {
                    self.takes(runner, signature, &data, vec![first]).map(|answers| Tried { data, answers })
                }
                Err(Some(other)) => Err(other),
                Err(None) => continue,
            };
            match tried {
                Ok(tried) if is_telling(&tried.answers) => return Ok(tried),
                Ok(tried) => dull = dull.or(Some(tried)),
                Err(other) => trouble = other,
            }
        }
        dull.ok_or(trouble)
    }

    /// The answers of `runner` to `data`: `answers` to its first requests, and to the others as far as time allows.
    fn takes(
        &self,
        runner: &mut Runner,
        signature: &Signature,
        data: &Data,
        mut answers: Vec<PartOutputs>,
    ) -> Result<Vec<PartOutputs>, Trouble> {
        let start = self.config.clock.now();
        for inputs in &data.all()[answers.len()..] {
            if !answers.is_empty() && self.config.clock.since(start) >= self.config.budget / TAKING {
                break;
            }
            answers.push(one(runner, signature, inputs)?);
        }
        Ok(answers)
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
            if rows > 1 && reference.bytes(rows) > MOST_BYTES {
                break;
            }
            let Some(inputs) = reference.data.inputs(rows) else { break };
            let mut first = vec![Duration::ZERO; entries.len()];
            for (entry, first) in entries.iter_mut().zip(&mut first) {
                let start = clock.now();
                self.check(entry, reference, (rows, 0), &inputs, rows);
                *first = clock.since(start);
            }
            if rows == 1 {
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
            runner.admit(inputs, &admission)?;
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
            let is_late = self.config.clock.now().saturating_add(self.config.budget / 2) > deadline;
            if index > 0 && (is_late || reference.bytes(1) > MOST_BYTES) {
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

#[cfg(test)]
mod tests;
