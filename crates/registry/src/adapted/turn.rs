//! Turning the inputs of one request: piece by piece on compute threads, a few at once, within a budget of bytes; short texts at
//! once.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use millrace_batching::{BatchConfig, Oversized};
use millrace_core::{
    Compute, Dim, InputError, ModelName, Reason, Refusal, Strings, Tensor, TensorList, contained, is_short_text,
    on_compute,
};

use super::density::Density;
use super::form::Form;
use super::pieces::Worker;
use crate::clock;

/// How many pieces of one request are at work at once. A large request must not fill the threads that others need.
const AT_ONCE: usize = 4;
/// When a refused caller should come back.
const RETRY: Duration = Duration::from_secs(1);

/// Turns the inputs of requests to one version.
#[derive(Debug)]
pub(crate) struct Turner {
    form: Form,
    compute: Arc<dyn Compute>,
    model: ModelName,
    /// The most rows of a request, where larger ones are refused.
    most_rows: Option<usize>,
    /// The most tokens of one run.
    max_batch_tokens: usize,
    /// The most bytes that turned inputs may have which are not in the queue yet: as many as the queue takes.
    most_bytes: usize,
    bytes: AtomicUsize,
    density: Density,
}

/// Bytes that a request holds. They are free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    turner: Arc<Turner>,
    bytes: usize,
}

/// One piece on its way.
type Piece<'t> = Pin<Box<dyn Future<Output = Result<TensorList, Refusal>> + Send + 't>>;

impl Turner {
    pub(crate) fn new(form: Form, compute: Arc<dyn Compute>, model: ModelName, config: &BatchConfig) -> Self {
        let most_rows = (config.oversized == Oversized::Refuse).then_some(config.max_batch_size.get());
        let bytes = AtomicUsize::new(0);
        let max_batch_tokens = config.max_batch_tokens.get();
        Self {
            form,
            compute,
            model,
            most_rows,
            max_batch_tokens,
            most_bytes: config.max_queue_bytes,
            bytes,
            density: Density::default(),
        }
    }

    pub(crate) fn max_batch_tokens(&self) -> usize {
        self.max_batch_tokens
    }

    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// About how many tokens the texts of `rows` rows will be, as far as earlier ones tell.
    pub(crate) fn tokens(&self, given: &[Tensor], rows: usize) -> usize {
        let most = self.form.text().map_or(usize::MAX, |text| text.facts().max_tokens.saturating_mul(rows));
        self.density.tokens(texts(given).1, most)
    }

    /// Refuses what the queue or the form would, before any of it costs anything.
    pub(crate) fn admit(&self, given: &[Tensor], rows: usize) -> Result<(), Refusal> {
        if let Some(most) = self.most_rows
            && rows > most
        {
            // TensorFlow Serving's words: its clients look for them.
            let text = format!("Task size {rows} is larger than maximum input batch size {most}");
            return Err(Refusal::new(Reason::InvalidInput, text));
        }
        // Foreign code.
        let admitted = contained(|| match &self.form {
            Form::Inputs(adapters) => {
                let mut pairs = given.iter().zip(adapters);
                pairs.try_for_each(|(tensor, adapter)| adapter.as_ref().map_or(Ok(()), |adapter| adapter.admit(tensor)))
            }
            Form::Text(processor) => processor.admit(given),
        });
        admitted?.map_err(|error| error.refusal(&self.model))
    }

    /// The network's inputs for what was `given`, and the room that they take.
    pub(crate) async fn inputs(
        self: &Arc<Self>,
        given: &[Tensor],
        deadline: Option<Instant>,
    ) -> Result<(TensorList, Vec<Room>), Refusal> {
        let adapters = match &self.form {
            Form::Inputs(adapters) => adapters,
            Form::Text(processor) => {
                let rows = given.first().and_then(|tensor| tensor.shape().rows()).unwrap_or(1);
                let (inputs, room) = self.turned(given, rows, &Worker::Text(Arc::clone(processor)), deadline).await?;
                return Ok((inputs, vec![room]));
            }
        };
        let (mut inputs, mut rooms) = (TensorList::new(), Vec::new());
        for (tensor, adapter) in given.iter().zip(adapters) {
            let Some(adapter) = adapter else {
                inputs.push(tensor.clone());
                continue;
            };
            // An input whose first axis is no number of instances goes as a whole.
            let rows = match adapter.spec().shape.first() {
                Some(Dim::Symbol(_)) => tensor.shape().rows().unwrap_or(1),
                _ => 1,
            };
            let worker = Worker::Input(Arc::clone(adapter));
            let (turned, room) = self.turned(std::slice::from_ref(tensor), rows, &worker, deadline).await?;
            inputs.extend(turned);
            rooms.push(room);
        }
        Ok((inputs, rooms))
    }

    /// Turns `rows` rows of `given`.
    async fn turned(
        self: &Arc<Self>,
        given: &[Tensor],
        rows: usize,
        worker: &Worker,
        deadline: Option<Instant>,
    ) -> Result<(TensorList, Room), Refusal> {
        let step = worker.rows();
        let piece = |start: usize| -> Piece<'_> {
            let end = rows.min(start + step);
            let own = |tensor: &Tensor| if rows > step { tensor.rows(start..end) } else { tensor.clone() };
            Box::pin(self.piece(given.iter().map(own).collect(), start, worker.clone(), deadline))
        };
        // The first tells how large the others will be, until one turns out larger.
        let needed = |piece: &TensorList| {
            let bytes: usize = piece.iter().map(Tensor::n_bytes).sum();
            let own = piece.first().and_then(|tensor| tensor.shape().rows()).unwrap_or(1).max(1);
            if rows > step { bytes.div_ceil(own).saturating_mul(rows) } else { bytes }
        };
        let first = piece(0).await?;
        let mut room = Room { turner: Arc::clone(self), bytes: 0 };
        room.reach(needed(&first))?;
        if rows <= step {
            return Ok((first, room));
        }
        let mut pieces = vec![first];
        let mut rest = (step..rows).step_by(step).map(&piece);
        let mut under_way: VecDeque<(Piece<'_>, Option<Result<TensorList, Refusal>>)> = VecDeque::new();
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
                    Some((_, Some(Ok(piece)))) => match room.reach(needed(&piece)) {
                        Ok(()) => pieces.push(piece),
                        Err(refusal) => return Poll::Ready(Err(refusal)),
                    },
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
        let worker = worker.clone();
        let joined = on_compute(&*self.compute, move || joined(&worker, &pieces)).await?;
        Ok((joined.map_err(|text| self.broken(&text))?, room))
    }

    /// Turns one piece, on a compute thread unless it is a short text.
    async fn piece(
        &self,
        given: TensorList,
        start: usize,
        worker: Worker,
        deadline: Option<Instant>,
    ) -> Result<TensorList, Refusal> {
        let rows = given.first().and_then(|tensor| tensor.shape().rows());
        let model = self.model.clone();
        let (texts, bytes) = texts(&given);
        let is_text = matches!(worker, Worker::Text(_));
        let is_short = is_text && is_short_text(texts, bytes);
        let turn = move || {
            if deadline.is_some_and(|deadline| deadline <= clock::now()) {
                return Err(late(&model));
            }
            worker.turn(&given).map_err(|error| counted_from(start, error).refusal(&model))
        };
        let turned = if is_short { contained(turn)?? } else { on_compute(&*self.compute, turn).await?? };
        if let Some(ids) = turned.first().filter(|_| is_text) {
            self.density.learn(ids.shape().n_elements(), bytes);
        }
        if turned.iter().all(|tensor| tensor.shape().rows() == rows) {
            Ok(turned)
        } else {
            Err(self.broken("another number of rows than it was given"))
        }
    }

    fn broken(&self, what: &str) -> Refusal {
        let text = format!("an input of model `{}` could not be prepared", self.model);
        let cause: Box<dyn std::error::Error + Send + Sync> = format!("the adapter gave {what}").into();
        Refusal::new(Reason::BackendBroken, text).with_cause(cause)
    }
}

/// How many texts are among `given`, and their bytes.
fn texts(given: &[Tensor]) -> (usize, usize) {
    let counted = |(texts, bytes), tensor: &Strings| (texts + tensor.len(), bytes + tensor.payload().len());
    given.iter().filter_map(Tensor::strings).fold((0, 0), counted)
}

/// Each tensor of the pieces as one.
fn joined(worker: &Worker, pieces: &[TensorList]) -> Result<TensorList, String> {
    let count = pieces.first().map_or(0, |piece| piece.len());
    let joined = |index: usize| {
        let own: Option<Vec<Tensor>> = pieces.iter().map(|piece| piece.get(index).cloned()).collect();
        let own = own.ok_or_else(|| "another number of tensors than before".to_owned())?;
        worker.join(&own).map_err(|error| format!("instances of different sizes: {error}"))
    };
    (0..count).map(joined).collect()
}

impl Room {
    /// Takes so much more of the budget that these are `bytes`.
    fn reach(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Turner { model, most_bytes: most, bytes: all, .. } = &*self.turner;
        if bytes > *most {
            let text = format!("a request of {bytes} bytes to model `{model}` does not fit its queue of {most}");
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        let Some(more) = bytes.checked_sub(self.bytes) else { return Ok(()) };
        let taken = |held: usize| held.checked_add(more).filter(|sum| sum <= most);
        match all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken) {
            Ok(_) => {
                self.bytes = bytes;
                Ok(())
            }
            Err(held) => {
                let text = format!("the inputs of model `{model}` are full: {held} bytes, the limit is {most}");
                Err(Refusal::new(Reason::QueueFull, text).with_retry_after(RETRY))
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.turner.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The error of an instance of the piece from row `start` on, in terms of the whole request.
fn counted_from(start: usize, error: InputError) -> InputError {
    match error {
        InputError::Instance { input, index, detail } => InputError::Instance { input, index: index + start, detail },
        other => other,
    }
}

/// The refusal of a request that nobody waits for any more.
pub(crate) fn late(model: &ModelName) -> Refusal {
    Refusal::new(Reason::Late, format!("model `{model}`: the deadline passed before the request ran"))
}
