//! What a registry makes models of.

use std::sync::Arc;

use millrace_core::{Backend, InputAdapterFactory, PipelineFactory};

/// Everything that a `model.toml` may name. Of several of one name the first counts.
///
/// A list of engines alone will do: `Registry::start(config, vec![Arc::new(backend)], pool)`.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Engines, in the order in which they are asked whether they recognise a model's files.
    pub backends: Vec<Arc<dyn Backend>>,
    /// What `kind = "pipeline"` can mean.
    pub pipelines: Vec<Arc<dyn PipelineFactory>>,
    /// What `[inputs.NAME]` can mean.
    pub adapters: Vec<Arc<dyn InputAdapterFactory>>,
}

impl From<Vec<Arc<dyn Backend>>> for Parts {
    fn from(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self { backends, ..Self::default() }
    }
}

impl<B: Backend> From<Vec<Arc<B>>> for Parts {
    fn from(backends: Vec<Arc<B>>) -> Self {
        backends.into_iter().map(|backend| backend as Arc<dyn Backend>).collect::<Vec<_>>().into()
    }
}
