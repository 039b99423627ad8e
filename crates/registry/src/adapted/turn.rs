//! Turning the inputs of one request: instance by instance on compute threads, a few at once, within a budget of bytes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use millrace_batching::{BatchConfig, Oversized};
use millrace_core::{
    Compute, Dim, InputAdapter, InputError, ModelName, Reason, Refusal, Tensor, TensorList, contained, on_compute,
};

use super::Adapters;
use crate::clock;

/// How many instances of one request are at work at once. A large request must not fill the threads that others need.
const AT_ONCE: usize = 4;
/// When a refused caller should come back.
const RETRY: Duration = Duration::from_secs(1);

/// Turns the inputs of requests to one version.
#[derive(Debug)]
pub(crate) struct Turner {
    adapters: Adapters,
    compute: Arc<dyn Compute>,
    model: ModelName,
    /// The most rows of a request, where larger ones are refused.
    most_rows: Option<usize>,
    /// The most bytes that turned inputs may have which are not in the queue yet: as many as the queue takes.
    most_bytes: usize,
    bytes: AtomicUsize,
}

/// Bytes that a request holds. They are free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    turner: Arc<Turner>,
    bytes: usize,
}

/// One instance on its way.
type Piece<'t> = Pin<Box<dyn Future<Output = Result<Tensor, Refusal>> + Send + 't>>;

impl Turner {
    pub(crate) fn new(adapters: Adapters, compute: Arc<dyn Compute>, model: ModelName, config: &BatchConfig) -> Self {
        let most_rows = (config.oversized == Oversized::Refuse).then_some(config.max_batch_size.get());
        let bytes = AtomicUsize::new(0);
        Self { adapters, compute, model, most_rows, most_bytes: config.max_queue_bytes, bytes }
    }

    /// Refuses what the queue or an adapter would, before any of it costs anything.
    pub(crate) fn admit(&self, given: &[Tensor], rows: usize) -> Result<(), Refusal> {
        if let Some(most) = self.most_rows
            && rows > most
        {
            // TensorFlow Serving's words: its clients look for them.
            let text = format!("Task size {rows} is larger than maximum input batch size {most}");
            return Err(Refusal::new(Reason::InvalidInput, text));
        }
        for (tensor, adapter) in given.iter().zip(&self.adapters) {
            let Some(adapter) = adapter else { continue };
            // Foreign code.
            contained(|| adapter.admit(tensor))?.map_err(|error| error.refusal(&self.model))?;
        }
        Ok(())
    }

    /// The network's inputs for what was `given`, and the room that they take.
    pub(crate) async fn inputs(
        self: &Arc<Self>,
        given: &[Tensor],
        deadline: Option<Instant>,
    ) -> Result<(TensorList, Vec<Room>), Refusal> {
        let (mut inputs, mut rooms) = (TensorList::new(), Vec::new());
        for (tensor, adapter) in given.iter().zip(&self.adapters) {
            let Some(adapter) = adapter else {
                inputs.push(tensor.clone());
                continue;
            };
            let (turned, room) = self.input(tensor, adapter, deadline).await?;
            inputs.push(turned);
            rooms.push(room);
        }
        Ok((inputs, rooms))
    }

    async fn input(
        self: &Arc<Self>,
        given: &Tensor,
        adapter: &Arc<dyn InputAdapter>,
        deadline: Option<Instant>,
    ) -> Result<(Tensor, Room), Refusal> {
        // An input whose first axis is no number of instances goes as a whole.
        let rows = match adapter.spec().shape.first() {
            Some(Dim::Symbol(_)) => given.shape().rows().unwrap_or(1),
            _ => 1,
        };
        let piece = |row: usize| -> Piece<'_> {
            let tensor = if rows > 1 { given.rows(row..row + 1) } else { given.clone() };
            Box::pin(self.piece(tensor, row, Arc::clone(adapter), deadline))
        };
        let first = piece(0).await?;
        // The first tells how large the others will be.
        let room = self.room(first.n_bytes().saturating_mul(rows))?;
        if rows == 1 {
            return Ok((first, room));
        }
        let mut pieces = vec![first];
        let mut rest = (1..rows).map(&piece);
        let mut under_way: VecDeque<(Piece<'_>, Option<Result<Tensor, Refusal>>)> = VecDeque::new();
        poll_fn(|context| {
            loop {
                under_way.extend(rest.by_ref().take(AT_ONCE - under_way.len()).map(|piece| (piece, None)));
                for (piece, result) in under_way.iter_mut().filter(|(_, result)| result.is_none()) {
                    if let Poll::Ready(ready) = piece.as_mut().poll(context) {
                        *result = Some(ready);
                    }
                }
                // In order, so that of several bad instances the first one is named.
                match under_way.pop_front() {
                    Some((_, Some(Ok(tensor)))) => pieces.push(tensor),
                    Some((_, Some(Err(refusal)))) => return Poll::Ready(Err(refusal)),
                    Some(waiting) => {
                        under_way.push_front(waiting);
                        return Poll::Pending;
                    }
                    None => return Poll::Ready(Ok(())),
                }
            }
        })
        .await?;
        let joined = on_compute(&*self.compute, move || Tensor::concat(&pieces)).await?;
        let joined = joined.map_err(|error| self.broken(&format!("instances of different sizes: {error}")))?;
        Ok((joined, room))
    }

    /// Turns one instance, on a compute thread.
    async fn piece(
        &self,
        given: Tensor,
        row: usize,
        adapter: Arc<dyn InputAdapter>,
        deadline: Option<Instant>,
    ) -> Result<Tensor, Refusal> {
        let rows = given.shape().rows();
        let model = self.model.clone();
        let turned = on_compute(&*self.compute, move || {
            if deadline.is_some_and(|deadline| deadline <= clock::now()) {
                return Err(late(&model));
            }
            adapter.adapt(&given).map_err(|error| counted_from(row, error).refusal(&model))
        });
        let turned = turned.await??;
        if turned.shape().rows() == rows {
            Ok(turned)
        } else {
            Err(self.broken("another number of rows than it was given"))
        }
    }

    /// Takes `bytes` of the budget.
    fn room(self: &Arc<Self>, bytes: usize) -> Result<Room, Refusal> {
        let (model, most) = (&self.model, self.most_bytes);
        if bytes > most {
            let text = format!("a request of {bytes} bytes to model `{model}` does not fit its queue of {most}");
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Room { turner: Arc::clone(self), bytes }),
            Err(held) => {
                let text = format!("the inputs of model `{model}` are full: {held} bytes, the limit is {most}");
                Err(Refusal::new(Reason::QueueFull, text).with_retry_after(RETRY))
            }
        }
    }

    fn broken(&self, what: &str) -> Refusal {
        let text = format!("an input of model `{}` could not be prepared", self.model);
        let cause: Box<dyn std::error::Error + Send + Sync> = format!("the adapter gave {what}").into();
        Refusal::new(Reason::BackendBroken, text).with_cause(cause)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.turner.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The error of an instance that was turned alone, in terms of the whole request.
fn counted_from(row: usize, error: InputError) -> InputError {
    match error {
        InputError::Instance { input, index, detail } => InputError::Instance { input, index: index + row, detail },
        other => other,
    }
}

/// The refusal of a request that nobody waits for any more.
pub(crate) fn late(model: &ModelName) -> Refusal {
    Refusal::new(Reason::Late, format!("model `{model}`: the deadline passed before the request ran"))
}
