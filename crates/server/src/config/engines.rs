//! What is said about engines, and what that means where nothing is said.

use std::path::PathBuf;
use std::time::Duration;

use super::environment::{self, Environment};
use super::error::ConfigError;
use super::raw::RawEngines;

/// The engines, and how one is chosen among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginesConfig {
    /// The library file of ONNX Runtime, for programs built with it. Default: `ORT_DYLIB_PATH`, or the usual places.
    pub onnxruntime_library: Option<PathBuf>,
    /// How long trying engines on one version may take, apart from loading. Default: 2 s.
    pub budget: Duration,
    /// Whether what was measured is remembered in the state directory. Default: yes.
    pub remember: bool,
}

impl Default for EnginesConfig {
    fn default() -> Self {
        Self { onnxruntime_library: None, budget: Duration::from_secs(2), remember: true }
    }
}

impl EnginesConfig {
    /// What was written, over the defaults.
    pub(crate) fn from_raw(raw: RawEngines) -> Self {
        let default = Self::default();
        Self {
            onnxruntime_library: raw.onnxruntime_library,
            budget: raw.budget.map_or(default.budget, |span| span.0),
            remember: raw.remember.unwrap_or(default.remember),
        }
    }

    /// For commands that read no file.
    pub(crate) fn of_environment(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self::from_raw(environment::read(environment)?.engines))
    }
}
