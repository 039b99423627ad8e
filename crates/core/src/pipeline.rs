//! The seam to pipelines: servables that answer by asking other models.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Compute, LoadError, ModelName, OwnedModelRef, Resolver, Servable};

/// Makes pipelines of one kind: what `kind = "pipeline"` and `pipeline = "…"` in a `model.toml` name.
///
/// The pipeline is a [`Servable`] that resolves its inner models anew for each request, through the resolver it was given,
/// and hands them the request's context, one level deeper ([`RequestContext::nested`](crate::RequestContext::nested)). Its
/// CPU work runs through [`Compute`], which never waits for an inner call.
pub trait PipelineFactory: fmt::Debug + Send + Sync + 'static {
    /// The kind's name, as `model.toml`, metrics and tables show it.
    fn name(&self) -> &'static str;

    /// Makes a pipeline. Resolves its inner models once, to see that they fit. Called on a loader thread.
    ///
    /// # Errors
    /// [`LoadError`] with a text for the operator: `Missing` for an inner model that does not serve (it is tried again when
    /// models have changed), `Invalid` for one that does not fit, for a role that is missing and for options.
    fn build(&self, source: PipelineSource) -> Result<Arc<dyn Servable>, LoadError>;
}

/// What a pipeline is made of.
#[derive(Debug, Clone)]
pub struct PipelineSource {
    /// The pipeline's own name as a model.
    pub model: ModelName,
    /// Its version.
    pub version: u64,
    /// The inner models by role: `[models]` in `model.toml`.
    pub models: BTreeMap<String, OwnedModelRef>,
    /// The pipeline's own options: `[options]` in `model.toml`. Strings stand without quotes, the rest as TOML writes it.
    pub options: BTreeMap<String, String>,
    /// Finds the inner models.
    pub resolver: Arc<dyn Resolver>,
    /// Runs CPU work.
    pub compute: Arc<dyn Compute>,
}
