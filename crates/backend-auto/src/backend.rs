//! The engine over engines: from files to the model of whoever won.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{
    Backend, EngineChoice, EngineOutcome, EngineRange, EngineTrial, LoadError, LoadErrorKind, Model, ModelSource,
};

use crate::AutoConfig;
use crate::decide::decide;
use crate::load::{Loaded, load, none_loaded};
use crate::memory::{self, Key, Memory};
use crate::served::{Alone, Shared};
use crate::trial::{Entry, Found, Reference, Trial};

/// Serves each model with the fastest engine that gives the right answer here.
#[derive(Debug)]
pub struct AutoBackend {
    engines: Vec<Arc<dyn Backend>>,
    config: AutoConfig,
    memory: Option<Memory>,
}

impl AutoBackend {
    /// A choice among `engines`, the most trusted first: where answers differ, the first one's are right.
    pub fn new(engines: Vec<Arc<dyn Backend>>, config: AutoConfig) -> Self {
        let memory = config.folder.clone().map(Memory::new);
        Self { engines, config, memory }
    }
}

impl Backend for AutoBackend {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        self.engines.iter().any(|engine| engine.recognises(source))
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let engines: Vec<&dyn Backend> =
            self.engines.iter().map(|engine| &**engine).filter(|engine| engine.recognises(source)).collect();
        Load { auto: self, source, names: self.engines.iter().map(|engine| engine.name()).collect(), engines }.run()
    }
}

/// One version being loaded.
struct Load<'a> {
    auto: &'a AutoBackend,
    source: &'a ModelSource,
    /// Of all engines.
    names: Vec<&'static str>,
    /// Those that recognise the files, in order of trust.
    engines: Vec<&'a dyn Backend>,
}

/// What loading with every engine gave.
#[derive(Default)]
struct Attempts {
    entries: Vec<Entry>,
    failures: Vec<(&'static str, LoadError)>,
}

impl Load<'_> {
    fn run(&self) -> Result<Arc<dyn Model>, LoadError> {
        if let [_] | [] = self.engines.as_slice() {
            return self.several();
        }
        let known = self.auto.memory.as_ref().and_then(|memory| Some((memory, self.key()?)));
        let Some((memory, key)) = known else { return self.several() };
        if let Some((choice, recorded)) = memory.recall(self.source, &key) {
            let (model, version) = (&self.source.model, self.source.version);
            match self.again(choice) {
                // Only a model's signature says what recorded requests are.
                Ok(model) if memory::recorded(self.source, model.signature()) == recorded => return Ok(model),
                Ok(_) => tracing::debug!(%model, version, "the recorded requests are others; measuring again"),
                Err(error) => {
                    tracing::info!(%model, version, %error, "the remembered choice of engines does not load; measuring again");
                }
            }
        }
        let model = self.several()?;
        // What was not compared is not worth remembering: it takes no time to find out again.
        if let Some(choice) = model.facts().choice
            && choice.engines.iter().any(|engine| !engine.times.is_empty())
        {
            memory.keep(self.source, key, memory::recorded(self.source, model.signature()), &choice);
        }
        Ok(model)
    }

    /// What a choice made now holds for; `None` where a file cannot be read, which whoever loads it will tell.
    fn key(&self) -> Option<Key> {
        Some(Key {
            machine: self.auto.config.machine.clone(),
            engines: self.engines.iter().map(|engine| engine.name().to_owned()).collect(),
            rows: self.auto.config.rows.clone(),
            options: self.source.options.clone(),
            budget_nanos: memory::nanos(self.auto.config.budget),
            files: memory::digests(self.source)?,
        })
    }

    /// Loads the winners of an earlier trial and nothing else.
    fn again(&self, choice: EngineChoice) -> Result<Arc<dyn Model>, LoadError> {
        let mut winners = Vec::new();
        let mut models = Vec::new();
        let mut left = self.source.memory_budget;
        for engine in &self.engines {
            if choice.ranges.iter().any(|range| *range.engine == *engine.name()) {
                let loaded = self.load(*engine, left)?;
                left = left.saturating_sub(loaded.model.memory_bytes());
                winners.push(loaded.name);
                models.push(loaded.model);
            }
        }
        serve(choice, &winners, models).map_err(|text| LoadError::new(LoadErrorKind::Engine, text))
    }

    /// Loads with every engine, and tries them where several could.
    fn several(&self) -> Result<Arc<dyn Model>, LoadError> {
        let clock = &self.auto.config.clock;
        let start = clock.now();
        let Some(Attempts { mut entries, failures }) = self.all_at_once() else { return self.in_turn(start) };
        let loaded: Vec<usize> = alive(&entries);
        match loaded.as_slice() {
            [] => return Err(none_loaded(failures)),
            [only] => {
                let reason = if entries.len() == 1 {
                    "the only engine here that takes the files"
                } else {
                    "the only engine here that loads them"
                };
                let only = *only;
                if self.auto.config.times_alone {
                    self.compare_and_time(&mut entries);
                    // Nothing was compared, so that nothing is concluded.
                    if entries[only].runner.is_none() {
                        return self.untried(entries, only, reason, Duration::ZERO);
                    }
                }
                return self.finish(entries, &[(1, only)], reason.to_owned(), Duration::ZERO);
            }
            _ => {}
        }
        let first_load = entries[loaded[0]].trial.load_time;
        match self.compare_and_time(&mut entries) {
            Some(Untried { entry, reason }) => {
                let took = clock.since(start).saturating_sub(first_load);
                self.untried(entries, entry, reason, took)
            }
            None => {
                let took = clock.since(start).saturating_sub(first_load);
                self.decided(entries, took, false)
            }
        }
    }

    /// Loads with every engine; `None` where they do not fit into memory together.
    fn all_at_once(&self) -> Option<Attempts> {
        // An engine holds about what the files hold.
        let files: u64 = self.source.files.list().iter().map(|(_, size)| *size).sum();
        let together = self.together();
        let mut held = 0_u64;
        let mut attempts = Attempts::default();
        for engine in &self.engines {
            let left = if held > 0 { together.saturating_sub(held) } else { self.source.memory_budget };
            if held > 0 && left < files {
                return None;
            }
            match self.load(*engine, left) {
                Ok(loaded) => {
                    held = held.saturating_add(loaded.model.memory_bytes().max(1));
                    attempts.entries.push(Entry::new(loaded));
                }
                Err(error) if held > 0 && error.kind() == LoadErrorKind::TooLarge => return None,
                Err(error) => attempts.fail(engine.name(), error),
            }
        }
        Some(attempts)
    }

    /// Bytes that all engines may take together: what the version may, or where nobody said, half of what is free.
    fn together(&self) -> u64 {
        match self.source.memory_budget {
            u64::MAX => self.auto.config.available.bytes().map_or(u64::MAX, |bytes| bytes / 2),
            budget => budget,
        }
    }

    /// Loads and tries one engine after the other, so that only one is in memory at a time.
    fn in_turn(&self, start: Duration) -> Result<Arc<dyn Model>, LoadError> {
        let config = &self.auto.config;
        let trial = Trial { config, source: self.source };
        let share = config.budget / u32::try_from(self.engines.len()).unwrap_or(1).max(1);
        let mut attempts = Attempts::default();
        let mut reference: Option<Box<Reference>> = None;
        for engine in &self.engines {
            let loaded = match self.load(*engine, self.source.memory_budget) {
                Ok(loaded) => loaded,
                Err(error) => {
                    attempts.fail(engine.name(), error);
                    continue;
                }
            };
            attempts.entries.push(Entry::new(loaded));
            // What this engine knows about rows holds for those before it, and theirs for it.
            Trial::same_batching(&mut attempts.entries);
            let is_dropped =
                |name: &str| attempts.entries.iter().any(|entry| *entry.trial.engine == *name && entry.is_dropped());
            reference = reference.filter(|reference| !is_dropped(&reference.name));
            let last = attempts.entries.len() - 1;
            let entry = &mut attempts.entries[last..];
            let deadline = config.clock.now().saturating_add(share);
            if reference.is_none() && entry[0].runner.is_some() {
                match trial.reference(entry) {
                    Found::Reference(found) => reference = Some(found),
                    Found::Untried(_) => {
                        return self.untried(attempts.entries, last, UNTRIED, config.clock.since(start));
                    }
                    Found::Nobody => {}
                }
            }
            if let Some(reference) = &mut reference {
                trial.measure(entry, reference, deadline);
            }
            entry[0].runner = None;
        }
        let took = config.clock.since(start);
        match (&reference, Trial::most_trusted(&attempts.entries)) {
            (None, None) => Err(none_loaded(attempts.failures)),
            (None, Some(first)) => self.untried(attempts.entries, first, RUNS_NOWHERE, took),
            (Some(_), _) => self.decided(attempts.entries, took, true),
        }
    }

    /// Compares and times all that are loaded; tells where nothing could be concluded.
    fn compare_and_time(&self, entries: &mut [Entry]) -> Option<Untried> {
        let config = &self.auto.config;
        let trial = Trial { config, source: self.source };
        Trial::same_batching(entries);
        let first = Trial::most_trusted(entries)?;
        let deadline = config.clock.now().saturating_add(config.budget);
        match trial.reference(entries) {
            Found::Reference(mut reference) => {
                trial.measure(entries, &mut reference, deadline);
                None
            }
            Found::Untried(entry) => Some(Untried { entry, reason: UNTRIED }),
            Found::Nobody => Some(Untried { entry: first, reason: RUNS_NOWHERE }),
        }
    }

    /// Serves the engine of `entry`, whatever the others might have done.
    fn untried(
        &self,
        mut entries: Vec<Entry>,
        entry: usize,
        reason: &str,
        took: Duration,
    ) -> Result<Arc<dyn Model>, LoadError> {
        for (index, other) in entries.iter_mut().enumerate() {
            if index != entry && other.runner.is_some() {
                other.drop_for("it could not be compared".to_owned());
            }
        }
        self.finish(entries, &[(1, entry)], reason.to_owned(), took)
    }

    /// Chooses by the times. After `in_turn` no engine is loaded any more, and only one will be.
    fn decided(&self, entries: Vec<Entry>, took: Duration, in_turn: bool) -> Result<Arc<dyn Model>, LoadError> {
        let fit: Vec<usize> = (0..entries.len())
            .filter(|index| !matches!(entries[*index].trial.outcome, EngineOutcome::Dropped(_)))
            .collect();
        let rows: Vec<usize> =
            match fit.iter().map(|index| &entries[*index].trial.times).min_by_key(|times| times.len()) {
                Some(times) => times.iter().map(|time| time.rows).collect(),
                None => {
                    let told = |entry: &Entry| match &entry.trial.outcome {
                        EngineOutcome::Dropped(reason) => Some(format!("{}: {reason}", entry.trial.engine)),
                        EngineOutcome::Chosen | EngineOutcome::Slower => None,
                    };
                    let texts: Vec<String> = entries.iter().filter_map(told).collect();
                    let text = format!("no engine gives an answer that can be relied on: {}", texts.join("; "));
                    return Err(LoadError::new(LoadErrorKind::Engine, text));
                }
            };
        if rows.is_empty() {
            let reason = "the budget left no time to compare; the most trusted engine serves".to_owned();
            return self.finish(entries, &[(1, fit[0])], reason, took);
        }
        let times: Vec<Vec<Duration>> = fit
            .iter()
            .map(|index| entries[*index].trial.times.iter().take(rows.len()).map(|time| time.time).collect())
            .collect();
        let ranges = |one_only: bool| -> Vec<(usize, usize)> {
            decide(&rows, &times, one_only).into_iter().map(|(from, index)| (from, fit[index])).collect()
        };
        let mut chosen = ranges(in_turn);
        if chosen.len() > 1 && !serve_together(&entries, &chosen) {
            chosen = ranges(true);
        }
        let reason = why(&entries, &fit, &rows, &chosen);
        self.finish(entries, &chosen, reason, took)
    }

    /// Puts the engines of `ranges` behind one model and lets the others go.
    fn finish(
        &self,
        entries: Vec<Entry>,
        ranges: &[(usize, usize)],
        reason: String,
        took: Duration,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let range = |(rows_from, index): &(usize, usize)| EngineRange {
            rows_from: *rows_from,
            engine: Arc::clone(&entries[*index].trial.engine),
        };
        let mut choice =
            EngineChoice { ranges: ranges.iter().map(range).collect(), reason, took, ..EngineChoice::default() };
        let (mut winners, mut models) = (Vec::new(), Vec::new());
        for (index, entry) in entries.into_iter().enumerate() {
            let Entry { mut trial, runner, .. } = entry;
            if ranges.iter().any(|(_, winner)| *winner == index) {
                trial.outcome = EngineOutcome::Chosen;
                models.push(match runner {
                    Some(runner) => runner.model,
                    None => self.load_named(&trial)?.model,
                });
                winners.push(self.names.iter().copied().find(|name| **name == *trial.engine).unwrap_or_default());
            }
            choice.engines.push(trial);
        }
        serve(choice, &winners, models).map_err(|text| LoadError::new(LoadErrorKind::Engine, text))
    }

    fn load(&self, engine: &dyn Backend, memory: u64) -> Result<Loaded, LoadError> {
        load(engine, self.source, memory, &self.names, &self.auto.config.clock)
    }

    /// Loads again what was let go.
    fn load_named(&self, trial: &EngineTrial) -> Result<Loaded, LoadError> {
        let engine = self.engines.iter().find(|engine| *engine.name() == *trial.engine);
        let engine = engine.ok_or_else(|| LoadError::new(LoadErrorKind::Engine, "the engine has gone"))?;
        self.load(*engine, self.source.memory_budget)
    }
}

const UNTRIED: &str =
    "no invented input fits the model, so that nothing could be compared; the most trusted engine serves";

/// What runs nowhere may be meant to: warming up says so, or an operator who turned that off knows better.
const RUNS_NOWHERE: &str = "no engine runs it on invented inputs; the most trusted one serves";

/// Nothing could be concluded, and why.
struct Untried {
    entry: usize,
    reason: &'static str,
}

impl Attempts {
    fn fail(&mut self, engine: &'static str, error: LoadError) {
        if error.kind() != LoadErrorKind::Foreign {
            tracing::debug!(engine, %error, "the engine does not load the files");
            self.entries.push(Entry::failed(engine, error.to_string()));
        }
        self.failures.push((engine, error));
    }
}

/// Which entries are loaded.
fn alive(entries: &[Entry]) -> Vec<usize> {
    (0..entries.len()).filter(|index| entries[*index].runner.is_some()).collect()
}

/// Whether the signatures of the winners let them share.
fn serve_together(entries: &[Entry], ranges: &[(usize, usize)]) -> bool {
    let model = |index: &usize| entries[*index].runner.as_ref().map(|runner| Arc::clone(&runner.model));
    let mut winners: Vec<usize> = ranges.iter().map(|(_, index)| *index).collect();
    winners.sort_unstable();
    winners.dedup();
    let models: Option<Vec<_>> = winners.iter().map(model).collect();
    models.is_some_and(|models| Shared::new(vec![(1, 0)], models, EngineChoice::default()).is_ok())
}

/// The model of `winners`, in order of trust.
fn serve(choice: EngineChoice, winners: &[&str], mut models: Vec<Arc<dyn Model>>) -> Result<Arc<dyn Model>, String> {
    if models.len() == 1
        && let Some(model) = models.pop()
    {
        return Ok(Arc::new(Alone::new(model, choice)));
    }
    let way = |range: &EngineRange| {
        let index = winners.iter().position(|winner| **winner == *range.engine);
        index.map(|index| (range.rows_from, index)).ok_or_else(|| format!("there is no engine {}", range.engine))
    };
    let ranges = choice.ranges.iter().map(way).collect::<Result<Vec<_>, String>>()?;
    Ok(Arc::new(Shared::new(ranges, models, choice)?))
}

/// The choice in words: at the first and last row counts, the winner's time and that of the best other engine.
fn why(entries: &[Entry], fit: &[usize], rows: &[usize], ranges: &[(usize, usize)]) -> String {
    if let [only] = fit {
        let others = entries.iter().enumerate().filter(|(index, _)| index != only).count();
        return if others == 0 {
            "the only engine here that takes the files".to_owned()
        } else {
            "the only engine here whose answers can be relied on".to_owned()
        };
    }
    let time = |index: usize, column: usize| entries[index].trial.times[column].time;
    let mut columns = vec![0, rows.len() - 1];
    columns.dedup();
    let mut parts = Vec::new();
    for column in columns {
        let winner =
            ranges.iter().take_while(|(from, _)| *from <= rows[column]).last().map_or(fit[0], |(_, index)| *index);
        let Some(other) = fit.iter().copied().filter(|index| *index != winner).min_by_key(|index| time(*index, column))
        else {
            continue;
        };
        let name = |index: usize| &entries[index].trial.engine;
        let noun = if rows[column] == 1 { "row" } else { "rows" };
        parts.push(format!(
            "{} {noun}: {} {}, {} {}",
            rows[column],
            name(winner),
            short(time(winner, column)),
            name(other),
            short(time(other, column))
        ));
    }
    parts.join("; ")
}

/// A time with three digits: `3.42 µs`, `12.1 ms`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        _ if seconds < 1e-3 => (seconds * 1e6, "µs"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}
