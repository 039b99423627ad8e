//! What the choice is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Available, Clock};

/// How engines are tried.
#[derive(Debug, Clone)]
pub struct AutoConfig {
    /// How long trying may take in all, apart from loading. An engine that has begun a run is left to end it. Default: 2 s.
    pub budget: Duration,
    /// The row counts to time, ascending; those that the budget leaves no room for are left out. Default: 1, 4, 16, 64.
    pub rows: Vec<usize>,
    /// Where to remember what was measured; made when it is first written to. Default: nowhere.
    pub folder: Option<PathBuf>,
    /// What the measured times hold for besides the files: the processor, the versions of the engines. What was
    /// remembered under another text is measured again. Default: empty.
    pub machine: String,
    /// Whether an engine is timed that has no rival, for who wants to see the times. Default: no.
    pub times_alone: bool,
    /// What tells how much memory is free, for versions that nobody gave a memory budget.
    pub available: Available,
    /// What tells the time.
    pub clock: Clock,
}

impl Default for AutoConfig {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(2),
            rows: vec![1, 4, 16, 64],
            folder: None,
            machine: String::new(),
            times_alone: false,
            available: Available::default(),
            clock: Clock::default(),
        }
    }
}
