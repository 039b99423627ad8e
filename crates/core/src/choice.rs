//! The words of a choice among engines: which one serves which row counts of a version, what was measured, and why.
//!
//! Only words: who tries engines and decides is a [`Backend`](crate::Backend) over backends. Whatever shows a version
//! shows these.

use std::sync::Arc;
use std::time::Duration;

/// Which engines serve a version, and what they were chosen by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineChoice {
    /// From which row count on which engine runs, ascending; the first from 1 on. Never empty.
    pub ranges: Vec<EngineRange>,
    /// Every engine that was asked for, in order of trust.
    pub engines: Vec<EngineTrial>,
    /// Why, in a line of words.
    pub reason: String,
    /// How long trying took, loading of further engines included; zero where nothing was tried.
    pub took: Duration,
    /// Whether this was measured at an earlier load of the same files on the same machine.
    pub is_remembered: bool,
}

/// One engine's share of the row counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRange {
    /// The smallest row count of a run that it takes.
    pub rows_from: usize,
    /// The engine's name.
    pub engine: Arc<str>,
}

/// What trying one engine gave.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineTrial {
    /// The engine's name.
    pub engine: Arc<str>,
    /// What became of it.
    pub outcome: EngineOutcome,
    /// How long loading took.
    pub load_time: Duration,
    /// Bytes of memory that it held while it was tried.
    pub memory_bytes: u64,
    /// The time of one run by its rows, ascending.
    pub times: Vec<RunTime>,
    /// Its largest difference to the engine that others were compared with; `None` for that one, and where nothing was
    /// compared.
    pub difference: Option<OutputDifference>,
}

/// What became of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineOutcome {
    /// It serves some row counts.
    Chosen,
    /// It would serve as well; another is faster, or as fast and trusted more.
    Slower,
    /// It does not serve, for this reason.
    Dropped(String),
}

/// The time of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTime {
    /// Rows of the run.
    pub rows: usize,
    /// The shortest of several runs.
    pub time: Duration,
}

/// The largest difference between two engines' outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputDifference {
    /// The output's name.
    pub output: Arc<str>,
    /// The absolute difference.
    pub largest: f64,
    /// The largest absolute value of that output as expected.
    pub scale: f64,
}

impl EngineChoice {
    /// The names of the engines that serve, joined by `+` in the order of their row counts: `onnxruntime+tract`.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for range in &self.ranges {
            if !names.contains(&&*range.engine) {
                names.push(&range.engine);
            }
        }
        names.join("+")
    }

    /// The engine that runs a batch of `rows` rows.
    pub fn engine(&self, rows: usize) -> Option<&str> {
        let taken = self.ranges.iter().take_while(|range| range.rows_from <= rows.max(1));
        taken.last().map(|range| &*range.engine)
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineChoice, EngineRange};

    #[test]
    fn a_choice_names_each_engine_once_and_knows_whose_a_row_count_is() {
        let range = |rows_from, engine: &str| EngineRange { rows_from, engine: engine.into() };
        let ranges = vec![range(1, "tract"), range(4, "onnxruntime"), range(64, "tract")];
        let choice = EngineChoice { ranges, ..EngineChoice::default() };
        assert_eq!(choice.names(), "tract+onnxruntime");
        let engines = [0, 1, 3, 4, 63, 64, 1000].map(|rows| choice.engine(rows).unwrap());
        assert_eq!(engines, ["tract", "tract", "tract", "onnxruntime", "onnxruntime", "tract", "tract"]);
        assert_eq!(EngineChoice::default().engine(1), None);
    }
}
