//! Why a registry cannot start. What goes wrong later is a status of the model it happened to.

use std::path::PathBuf;

use millrace_core::{Code, ModelName};

/// Why [`Registry::start`](crate::Registry::start) refused. The messages are for the operator and name paths.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The repository is not a folder that can be read.
    #[error("cannot read the model repository {}", path.display())]
    Repository {
        /// The path as configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A model stands twice in the list.
    #[error("model `{0}` is listed twice")]
    Duplicate(ModelName),
    /// No backend was given, so that nothing could ever load.
    #[error("no backend: nothing could be loaded")]
    NoBackend,
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl RegistryError {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::Repository { .. } => Code::NotFound,
            Self::Duplicate(_) | Self::NoBackend => Code::InvalidArgument,
            Self::Thread(_) => Code::ResourceExhausted,
        }
    }
}
