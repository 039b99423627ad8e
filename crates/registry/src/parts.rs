//! What a registry makes models of.

use std::sync::Arc;

use millrace_core::{
    Backend, InputAdapterFactory, LoadError, Model, ModelSource, PipelineFactory, Signatures, TextFactory,
    TextProcessor,
};

use crate::ModelConfig;
use crate::adapted::Form;

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
    /// What recognises models that take text.
    pub text: Option<Arc<dyn TextFactory>>,
}

impl Parts {
    /// What a model takes and gives whose files are `source`, whose `model.toml` says `config` and whose network is
    /// `network`: where callers give something else than the network takes, that as `serving_default` and the
    /// network's own as `tensors`. With it comes what turns text into tokens, where text it is.
    ///
    /// # Errors
    /// [`LoadError`] for an input that the network does not have, a form that is not known or does not fit, and a tokenizer
    /// that cannot be used.
    pub fn signatures(
        &self,
        source: &ModelSource,
        network: &dyn Model,
        config: &ModelConfig,
    ) -> Result<(Signatures, Option<Arc<dyn TextProcessor>>), LoadError> {
        Ok(match Form::find(self, source, network, config)? {
            Some(form) => (form.signatures(network.signature())?, form.text().cloned()),
            None => (Signatures::single(network.signature().clone()), None),
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
