//! The table of loaded models: which versions lie on disk, which of them are wanted, which serve.
//!
//! [`Registry`] reads a repository, loads and warms versions on threads of its own, answers [`Resolver`] with leases,
//! and takes orders as [`Control`]. Batching is `millrace-batching`'s, engines are behind [`Backend`], and what a
//! request looks like on the wire is the front-ends'.
//!
//! [`Backend`]: millrace_core::Backend
//! [`Control`]: millrace_core::Control
//! [`Resolver`]: millrace_core::Resolver

mod adapted;
mod batch_overrides;
mod clock;
mod config;
mod counts;
mod desired;
mod error;
mod files;
mod heap;
mod lease;
mod loader;
mod manager;
mod metrics;
mod model_config;
mod parts;
mod pipeline;
mod registry;
mod reply;
mod rooted;
mod scan;
mod snapshot;
mod state;
mod store;
mod table;
pub mod text_format;
mod toml_reader;
mod triton;
mod units;
mod warmup;
mod watch;

pub use batch_overrides::{BatchOverrides, BatchOverridesError};
pub use config::{ListedModel, ModelSet, RegistryConfig, RetryConfig};
pub use error::RegistryError;
pub use metrics::{
    ENGINE_CHOSEN, ENGINE_TRIAL_SECONDS, LOAD_FAILURES, LOAD_SECONDS, MEMORY_BYTES, VERSIONS, describe_metrics,
};
pub use model_config::{
    InputConfig, ModelConfig, PipelineConfig, TextConfig, VersionPolicy, WarmupConfig, WarmupInput, WarmupRequest,
};
pub use parts::Parts;
pub use registry::Registry;
pub use toml_reader::ModelConfigError;
pub use triton::{Declared, DeclaredTensor};
