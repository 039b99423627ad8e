//! What a registry makes models of.

use std::sync::Arc;

use millrace_core::{Backend, InputAdapterFactory, LoadError, PipelineFactory, Signature, Signatures};

use crate::{ModelConfig, adapted};

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

impl Parts {
    /// What a model takes and gives whose `model.toml` says `config` and whose network has the signature `network`: where
    /// inputs are declared, their form as `serving_default` and the network's own as `tensors`.
    ///
    /// # Errors
    /// [`LoadError`] for an input that the network does not have, a form that is not known or does not fit.
    pub fn signatures(&self, network: Signature, config: &ModelConfig) -> Result<Signatures, LoadError> {
        let adapters = adapted::adapters(&network, &config.inputs, &self.adapters)?;
        Ok(match adapted::declared(&network, &adapters)? {
            Some(declared) => adapted::signatures(declared, network),
            None => Signatures::single(network),
        })
    }
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
