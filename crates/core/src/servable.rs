//! The seam between whoever asks and whatever answers.

use std::fmt;
use std::sync::Arc;

use crate::{
    InferFuture, InferRequest, InferStream, ModelName, ModelRef, Refusal, RequestContext, Signatures, TextProcessor,
};

/// Finds the version that answers a request. The registry is one; each layer (rollout, cache, limits) wraps one.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// The version that `model` means now. Never blocks.
    ///
    /// The answer is a lease: it pins that one version from decoding to the answer, and draining waits for it.
    ///
    /// # Errors
    /// A [`Refusal`]: `ModelUnknown`, `VersionUnknown`, `LabelUnknown`, `NotReady`, `Loading` or `Draining`.
    fn resolve(&self, model: &ModelRef<'_>, context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal>;
}

/// One version of one model, ready to answer: a model behind its batch queue, a pipeline, or a layer around either.
pub trait Servable: fmt::Debug + Send + Sync {
    /// The model's name.
    fn model(&self) -> &ModelName;

    /// The version.
    fn version(&self) -> u64;

    /// What it takes and gives.
    fn signatures(&self) -> &Signatures;

    /// Announces a request whose body is still to be read. The place is dropped once [`Servable::infer`] is called, or when
    /// nothing comes of it. By default everybody is let in here; whoever is may be refused all the same.
    ///
    /// # Errors
    /// A [`Refusal`] that the body would not change, however small it were: it need not be read. It counts as one.
    fn knock(&self, _context: &RequestContext) -> Result<Place, Refusal> {
        Ok(Place::default())
    }

    /// Answers a request. Checks the inputs itself; never blocks. Dropping the future cancels.
    fn infer(&self, request: InferRequest) -> InferFuture;

    /// Answers with a sequence; by default of exactly one.
    fn infer_stream(&self, request: InferRequest) -> InferStream {
        InferStream::once(self.infer(request))
    }

    /// The most tokens in one run, where runs are bounded by tokens.
    fn max_batch_tokens(&self) -> Option<usize> {
        None
    }

    /// What turns text into the token ids of its signature [`TENSORS`](crate::TENSORS), where it is a text model.
    fn text(&self) -> Option<Arc<dyn TextProcessor>> {
        None
    }
}

/// What is kept for a request whose body is still to come, until this is dropped.
#[derive(Default)]
pub struct Place(Option<Box<dyn Send + Sync>>);

impl Place {
    /// Keeps `kept`.
    pub fn new(kept: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(kept)))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("is_kept", &self.0.is_some()).finish()
    }
}
