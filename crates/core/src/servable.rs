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
