//! What every face pipeline does with a request: checks it, takes its pictures one by one through their stages, several at a
//! time, and gives up all of them when one fails.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use millrace_core::{
    Compute, InferRequest, InferResponse, InputError, LoadError, PipelineSource, Reason, Refusal, RequestContext,
    Signature, Stages, Tensor, TensorError, TensorList, on_compute,
};
use millrace_vision::{DecodeError, Limits, Rgb8, decode, size};
use smallvec::SmallVec;

use crate::budget::{Full, PictureBudget, Room};
use crate::clock;
use crate::networks::{Cast, Network, Role};
use crate::options::PictureOptions;

/// How many pictures of one request are worked on at once. More would gain nothing: the networks are busy by then.
const MOST_AT_ONCE: usize = 16;
/// When a caller should come back who found too many others waiting for room.
const RETRY: Duration = Duration::from_secs(1);

/// What all face pipelines have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) cast: Cast,
    compute: Arc<dyn Compute>,
    options: PictureOptions,
    budget: PictureBudget,
}

impl Common {
    pub(crate) fn new(
        source: &PipelineSource,
        roles: &[&'static Role],
        options: PictureOptions,
        budget: &PictureBudget,
    ) -> Result<Self, LoadError> {
        let cast = Cast::new(source, roles)?;
        Ok(Self { cast, compute: Arc::clone(&source.compute), options, budget: budget.clone() })
    }

    /// The request's pictures, if it fits the signature, which has one input of BYTES.
    pub(crate) fn admit(self: &Arc<Self>, signature: &Signature, request: &InferRequest) -> Result<Pictures, Refusal> {
        let owner = self.cast.owner();
        let rows = signature.check(&request.inputs).map_err(|error| error.refusal(owner))?.rows;
        let input = &signature.inputs()[0].name;
        let most = self.options.max_instances;
        if rows > most {
            let text = format!("model `{owner}`: input `{input}`: {rows} pictures are more than the limit of {most}");
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        let context = request.context.nested()?;
        let tensor = request.inputs[0].clone();
        Ok(Pictures { common: Arc::clone(self), input: Arc::clone(input), tensor, context, queued: clock::now() })
    }

    fn full(&self, full: Full) -> Refusal {
        let text = format!("model `{}`: {full}", self.cast.owner());
        Refusal::new(Reason::QueueFull, text).with_retry_after(RETRY)
    }

    fn unexpected(&self, error: &TensorError) -> Refusal {
        let text = format!("model `{}`: the server failed on this request", self.cast.owner());
        let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error.clone());
        Refusal::new(Reason::BackendBroken, text).with_cause(cause)
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        on_compute(&*self.compute, work).await.map_err(|refusal| {
            let message = format!("model `{}`: {refusal}", self.cast.owner());
            refusal.reworded(message)
        })
    }
}

/// The pictures of one request.
pub(crate) struct Pictures {
    common: Arc<Common>,
    input: Arc<str>,
    tensor: Tensor,
    /// The context of the inner calls.
    pub(crate) context: RequestContext,
    queued: Instant,
}

impl Pictures {
    /// Takes each picture through `stages` and gives `answer` all that came of them, in the order of the pictures.
    pub(crate) async fn each<T, F, A>(
        self,
        stages: impl Fn(Picture) -> F + Send,
        answer: A,
    ) -> Result<InferResponse, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send,
        A: FnOnce(Vec<T>) -> Result<TensorList, TensorError> + Send + 'static,
    {
        let sizes = self.sizes().await?;
        let rows = sizes.len();
        let (this, stages) = (&self, &stages);
        // One picture of a request waits for room at a time, so that a request of many does not stand before others.
        let admitted = stream::iter(sizes.into_iter().enumerate()).then(|(index, pixels)| {
            let common = Arc::clone(&this.common);
            async move {
                let room = common.budget.room(pixels).await.map_err(|full| common.full(full))?;
                Ok::<_, Refusal>((index, room))
            }
        });
        let pictures = admitted.map(|admitted| {
            let taken = admitted.map(|(index, room)| (index, clock::now(), stages(this.picture(index, room))));
            async move {
                let (index, started, done) = taken?;
                Ok::<_, Refusal>((index, started, done.await?))
            }
        });
        let mut done: Vec<_> = pictures.buffer_unordered(MOST_AT_ONCE).try_collect().await?;
        done.sort_unstable_by_key(|(index, ..)| *index);
        let started = done.iter().map(|(_, started, _)| *started).min().unwrap_or(self.queued);
        let done = done.into_iter().map(|(.., done)| done).collect();
        let outputs =
            self.common.compute(move || answer(done)).await?.map_err(|error| self.common.unexpected(&error))?;
        let (queued, finished) = (self.queued, clock::now());
        let stages = Stages { queued, formed: started, started, batch_rows: rows, ..Stages::immediate(finished) };
        Ok(InferResponse { outputs, stages })
    }

    /// The pictures' pixels by their headers: rubbish and what is too large is refused before any work is done.
    async fn sizes(&self) -> Result<Vec<usize>, Refusal> {
        let (tensor, limits) = (self.tensor.clone(), self.limits());
        let sizes = self.common.compute(move || {
            let files = tensor.strings().into_iter().flat_map(|strings| strings.iter()).enumerate();
            files
                .map(|(index, file)| match size(file, &limits) {
                    Ok((width, height)) => Ok(width * height),
                    Err(error) => Err((index, error)),
                })
                .collect::<Result<Vec<_>, _>>()
        });
        sizes.await?.map_err(|(index, error)| self.undecodable(index, &error))
    }

    fn limits(&self) -> Limits {
        let PictureOptions { max_pixels, max_bytes, .. } = self.common.options;
        Limits { max_pixels, max_bytes, ..Limits::default() }
    }

    fn undecodable(&self, index: usize, error: &DecodeError) -> Refusal {
        undecodable(&self.common, &self.input, index, error)
    }

    fn picture(&self, index: usize, room: Room) -> Picture {
        Picture {
            common: Arc::clone(&self.common),
            input: Arc::clone(&self.input),
            tensor: self.tensor.clone(),
            limits: self.limits(),
            context: self.context,
            index,
            room: Some(room),
        }
    }
}

fn undecodable(common: &Common, input: &Arc<str>, index: usize, error: &DecodeError) -> Refusal {
    let owner = common.cast.owner();
    let instance = InputError::Instance { input: Arc::clone(input), index, detail: error.to_string() };
    let refusal = instance.refusal(owner);
    match error {
        DecodeError::TooManyPixels { .. } | DecodeError::TooWide { .. } | DecodeError::TooLong { .. } => {
            Refusal::new(Reason::TooLarge, refusal.message().to_owned())
        }
        _ => refusal,
    }
}

/// One picture of a request, on its way through the stages.
pub(crate) struct Picture {
    common: Arc<Common>,
    input: Arc<str>,
    tensor: Tensor,
    limits: Limits,
    context: RequestContext,
    index: usize,
    room: Option<Room>,
}

impl Picture {
    /// Decodes it and does `work` with its pixels, on a compute thread.
    pub(crate) async fn decoded<T: Send + 'static>(
        &self,
        work: impl FnOnce(Rgb8) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tensor, limits, index) = (self.tensor.clone(), self.limits, self.index);
        let decoded = self.compute(move || {
            let file = tensor.strings().and_then(|strings| strings.get(index)).unwrap_or_default();
            decode(file, &limits).map(work)
        });
        decoded.await?.map_err(|error| undecodable(&self.common, &self.input, index, &error))
    }

    /// Does `work` on a compute thread, unless it is too late for that.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.in_time()?;
        self.common.compute(work).await
    }

    /// Asks an inner model, unless it is too late for that.
    pub(crate) async fn ask(&self, network: &Network, input: Tensor) -> Result<SmallVec<[Tensor; 4]>, Refusal> {
        self.in_time()?;
        let room = self.common.budget.question(input.n_bytes()).await.map_err(|full| self.common.full(full))?;
        self.in_time()?;
        let answer = network.ask(input, self.context).await;
        drop(room);
        answer.map_err(|refusal| self.common.cast.reworded(network.model(), Some((&self.input, self.index)), &refusal))
    }

    /// The refusal for an inner model whose numbers make no sense.
    pub(crate) fn nonsense(&self, network: &Network, what: &str) -> Refusal {
        self.common.cast.reworded(network.model(), None, &Refusal::new(Reason::BackendFailed, what.to_owned()))
    }

    /// The refusal for tensors that cannot be, which no request explains.
    pub(crate) fn unexpected(&self, error: &TensorError) -> Refusal {
        self.common.unexpected(error)
    }

    /// Nothing of the picture's size is held any more: the next one may come.
    pub(crate) fn leave_room(&mut self) {
        self.room = None;
    }

    fn in_time(&self) -> Result<(), Refusal> {
        match self.context.deadline {
            Some(deadline) if deadline <= clock::now() => {
                let text =
                    format!("model `{}`: the deadline passed before the request was done", self.common.cast.owner());
                Err(Refusal::new(Reason::Late, text))
            }
            _ => Ok(()),
        }
    }
}
