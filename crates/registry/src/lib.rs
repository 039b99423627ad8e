//! The table of loaded models: which versions lie on disk, which of them are wanted, which serve.
#![forbid(unsafe_code)]

mod batch_overrides;
mod config;
mod error;
mod model_config;
mod toml_reader;
mod units;

pub use batch_overrides::{BatchOverrides, BatchOverridesError};
pub use config::{ListedModel, ModelSet, RegistryConfig, RetryConfig};
pub use error::RegistryError;
pub use model_config::{ModelConfig, VersionPolicy, WarmupConfig};
pub use toml_reader::ModelConfigError;
