//! Pipelines as the registry serves them: how they are made, how they find their models, and what is counted of them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use millrace_core::{
    Compute, InferFuture, InferRequest, InferResult, LoadError, LoadErrorKind, ModelRef, PipelineFactory,
    PipelineSource, Progress, Quoted, Refusal, RequestContext, Resolver, Servable, Signature, contained,
};

use crate::PipelineConfig;
use crate::counts::Counts;
use crate::lease::Lease;
use crate::registry::Shared;
use crate::reply::shut_down;
use crate::table::LoadOrder;

/// Finds a pipeline's models in the registry. It keeps nothing alive: the registry holds the pipeline, not the other
/// way round.
#[derive(Debug, Clone)]
pub(crate) struct Inner(pub(crate) Weak<Shared>);

impl Resolver for Inner {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        self.0.upgrade().ok_or_else(shut_down)?.snapshot.load().resolve(model)
    }
}

/// A pipeline that serves.
#[derive(Debug)]
pub(crate) struct Pipeline {
    servable: Arc<dyn Servable>,
    counts: Counts,
}

impl Pipeline {
    pub(crate) fn new(servable: Arc<dyn Servable>) -> Self {
        Self { servable, counts: Counts::default() }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Asks it. Its panics are one request's refusal. `lease` is let go with the answer.
    pub(crate) fn infer(&self, request: InferRequest, lease: Arc<Lease>) -> InferFuture {
        let signature = self.servable.signatures().get(request.signature);
        let is_batched = signature.is_some_and(Signature::is_batched);
        let rows = request.inputs.first().filter(|_| is_batched).and_then(|input| input.shape().rows());
        let begun = self.counts.begin(rows.unwrap_or(1));
        // Now and not when first polled: callers may have several answers on their way.
        let asked = contained(|| self.servable.infer(request));
        InferFuture::boxed(async move {
            let _lease = lease;
            let result = match asked {
                Ok(mut future) => poll_fn(|context| polled(&mut future, context)).await,
                Err(refusal) => Err(refusal),
            };
            // What it asked of other models are parts of its own run, whatever became of them.
            let at = begun.at();
            begun.end(&result);
            let progress = Progress::Run { queued: at, formed: at, started: at };
            result.map_err(|refusal| refusal.with_progress(progress))
        })
    }
}

/// Polls foreign code.
fn polled(future: &mut InferFuture, context: &mut Context<'_>) -> Poll<InferResult> {
    contained(|| Pin::new(future).poll(context)).unwrap_or_else(|refusal| Poll::Ready(Err(refusal)))
}

/// Has the factory that `config` names make its pipeline.
///
/// # Errors
/// The factory's own, and `Unsupported` where there is no such factory.
pub(crate) fn build(
    factories: &[Arc<dyn PipelineFactory>],
    config: &PipelineConfig,
    order: &LoadOrder,
    resolver: &Inner,
    compute: Arc<dyn Compute>,
) -> Result<(&'static str, Arc<dyn Servable>), LoadError> {
    let factory = factories.iter().find(|factory| factory.name() == config.name).ok_or_else(|| {
        let names: Vec<&str> = factories.iter().map(|factory| factory.name()).collect();
        unknown("pipeline", &config.name, &names)
    })?;
    let source = PipelineSource {
        model: order.model.clone(),
        version: order.version,
        models: config.models.clone(),
        options: order.config.options.clone(),
        resolver: Arc::new(resolver.clone()),
        compute,
    };
    let servable = factory.build(source).map_err(|error| match error.kind() {
        // Roles, options, a model that does not fit its role: the file is where that is put right.
        LoadErrorKind::Invalid => {
            LoadError::new(LoadErrorKind::Invalid, format!("model.toml: {error}")).with_cause(error)
        }
        _ => error,
    })?;
    Ok((factory.name(), servable))
}

/// The error for a name in a `model.toml` that means nothing here.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> LoadError {
    let name = Quoted(name);
    let text = if known.is_empty() {
        format!("model.toml: there is no {what} {name}; this program was built without any")
    } else {
        format!("model.toml: there is no {what} {name}; expected one of {}", known.join(", "))
    };
    LoadError::new(LoadErrorKind::Unsupported, text)
}
