//! Models whose inputs callers give in another form than the network takes them: `[inputs.NAME]` in a `model.toml`, and
//! text.
//!
//! How an instance is turned is the adapter's business, or the text processor's. Here it is seen to that this happens on
//! compute threads, piece by piece, within limits, and that what comes out enters the model's own queue: one request as
//! one request, so that its place in line, its deadline and its refusal are those of the whole.

mod declared;
mod density;
mod form;
mod pieces;
mod turn;

use std::sync::Arc;

use millrace_batching::BatchQueue;
use millrace_core::{
    InferFuture, InferRequest, InputAdapter, ModelName, Progress, Reason, Refusal, Signature, Signatures, Tensor,
    TextProcessor, VersionStatistics, Wanted,
};

use crate::clock;
use crate::counts::Counts;
use crate::lease::Lease;

pub(crate) use form::Form;
pub(crate) use turn::Turner;

/// Where the network's own signature stands; before it stands the one of the form.
const TENSORS_INDEX: usize = 1;

/// The adapter of each input, in the network's order; none where callers give what the network takes.
pub(crate) type Adapters = Vec<Option<Arc<dyn InputAdapter>>>;

/// A model with such inputs, behind its queue.
#[derive(Debug)]
pub(crate) struct Adapted {
    queue: BatchQueue,
    signatures: Arc<Signatures>,
    turner: Arc<Turner>,
    /// What never came as far as the queue.
    counts: Counts,
}

impl Adapted {
    pub(crate) fn new(queue: BatchQueue, signatures: Arc<Signatures>, turner: Turner) -> Self {
        Self { queue, signatures, turner: Arc::new(turner), counts: Counts::default() }
    }

    pub(crate) fn queue(&self) -> &BatchQueue {
        &self.queue
    }

    /// What turns text into tokens, where text is the form.
    pub(crate) fn text(&self) -> Option<&Arc<dyn TextProcessor>> {
        self.turner.form().text()
    }

    /// The most tokens in one run, where text is the form.
    pub(crate) fn max_batch_tokens(&self) -> Option<usize> {
        self.text().map(|_| self.turner.max_batch_tokens())
    }

    /// The queue's counts, and those of requests that did not reach it.
    pub(crate) fn statistics(&self) -> VersionStatistics {
        let (mut sum, before) = (self.queue.statistics(), self.counts.read());
        sum.failed.count += before.failed.count;
        sum.failed.time += before.failed.time;
        sum.refused += before.refused;
        sum
    }

    /// Turns the inputs, then asks the queue. What `hold` gives is let go with the answer.
    pub(crate) fn infer(
        &self,
        request: InferRequest,
        model: &ModelName,
        hold: impl FnOnce() -> Arc<Lease>,
    ) -> InferFuture {
        if request.signature == TENSORS_INDEX {
            return self.queue.infer(InferRequest { signature: 0, ..request });
        }
        let (wanted, rows) = match self.check(&request, model) {
            Ok(checked) => checked,
            Err(refusal) => {
                self.counts.refuse();
                return InferFuture::refused(refusal.with_progress(Progress::Door));
            }
        };
        // What the queue would refuse whatever it is turned into is not turned at all. It counts that itself.
        let expected = match self.queue.knock(&request.context, self.work(&request.inputs, rows)) {
            Ok(expected) => expected,
            Err(refusal) => return InferFuture::refused(refusal),
        };
        let begun = self.counts.begin(0);
        let (turner, queue, lease) = (Arc::clone(&self.turner), self.queue.clone(), hold());
        InferFuture::boxed(async move {
            let _lease = lease;
            let InferRequest { inputs, context, .. } = &request;
            match turner.inputs(inputs, context.deadline).await {
                Ok((inputs, rooms)) => {
                    begun.hand_on();
                    drop(expected);
                    let answer = queue.infer(InferRequest { inputs, wanted, ..request });
                    // The queue counts their bytes from here on.
                    drop(rooms);
                    answer.await
                }
                Err(refusal) => {
                    let refused = Err(refusal.with_progress(Progress::Door));
                    begun.end(&refused);
                    refused
                }
            }
        })
    }

    /// About how much work a request will be, in the queue's units.
    fn work(&self, given: &[Tensor], rows: usize) -> usize {
        let is_mixed = self.signatures.get(TENSORS_INDEX).is_some_and(Signature::is_mixed);
        if is_mixed { self.turner.tokens(given, rows) } else { rows }
    }

    /// What can be said without looking into the instances. Gives the outputs wanted, as the network numbers them, and how many
    /// rows there are.
    fn check(&self, request: &InferRequest, model: &ModelName) -> Result<(Wanted, usize), Refusal> {
        let unknown = || {
            let text = format!("model `{model}` has no signature number {}", request.signature);
            Refusal::new(Reason::SignatureUnknown, text)
        };
        let signature = self.signatures.get(request.signature).ok_or_else(unknown)?;
        let admission = signature.check(&request.inputs).map_err(|error| error.refusal(model))?;
        let wanted = self.turner.form().wanted(request.wanted.clone()).map_err(|unknown| {
            Refusal::new(Reason::InvalidInput, format!("model `{model}` has no output number {unknown}"))
        })?;
        self.turner.admit(&request.inputs, admission.rows)?;
        if request.context.deadline.is_some_and(|deadline| deadline <= clock::now()) {
            return Err(turn::late(model));
        }
        Ok((wanted, admission.rows))
    }
}
