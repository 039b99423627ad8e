//! What goes in and what comes out of a servable.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::{Reason, Refusal, TensorList};

/// Who asks, for fairness: an API key's or a connection's number. Callers take turns within a priority class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CallerId(pub u64);

/// A priority class; lower numbers go first. The default is the middle, so that both directions are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(pub u8);

impl Default for Priority {
    fn default() -> Self {
        Self(128)
    }
}

/// The protocol a request came by, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A call from the same process: an embedder or a pipeline.
    Local,
    /// TensorFlow Serving's REST API, KServe's v1 included.
    TfsRest,
    /// TensorFlow Serving's gRPC API.
    TfsGrpc,
    /// The Open Inference Protocol v2 over REST.
    OipRest,
    /// The Open Inference Protocol v2 over gRPC.
    OipGrpc,
    /// TorchServe's inference API over REST.
    TorchServeRest,
    /// TorchServe's inference API over gRPC.
    TorchServeGrpc,
    /// The general endpoints: `/predict` and its relatives.
    General,
    /// The routes that a hosting platform prescribes: SageMaker's and Vertex AI's.
    Platform,
    /// The routes of text models: embeddings, labels, ranks.
    Text,
}

impl Protocol {
    /// Every protocol, in declaration order.
    pub const ALL: [Self; 10] = [
        Self::Local,
        Self::TfsRest,
        Self::TfsGrpc,
        Self::OipRest,
        Self::OipGrpc,
        Self::TorchServeRest,
        Self::TorchServeGrpc,
        Self::General,
        Self::Platform,
        Self::Text,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::TfsRest => "tfs_rest",
            Self::TfsGrpc => "tfs_grpc",
            Self::OipRest => "oip_rest",
            Self::OipGrpc => "oip_grpc",
            Self::TorchServeRest => "torchserve_rest",
            Self::TorchServeGrpc => "torchserve_grpc",
            Self::General => "general",
            Self::Platform => "platform",
            Self::Text => "text",
        }
    }
}

/// What travels with a request whatever model it goes to. A pipeline hands its own on to its inner calls.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// When the request's first bytes were read.
    pub received: Instant,
    /// When an answer stops being of use, if ever.
    pub deadline: Option<Instant>,
    /// The priority class.
    pub priority: Priority,
    /// Who asks.
    pub caller: CallerId,
    /// How the request came.
    pub protocol: Protocol,
    /// How many pipelines this request is nested in; at most [`RequestContext::DEEPEST`].
    pub depth: u8,
    /// Whether the thread that polls the answer lends itself to a short run, which saves waking a compute thread. Only for
    /// callers that poll the answer as soon as they have it: until then nobody may be at work on it.
    pub lends_thread: bool,
}

impl RequestContext {
    /// The deepest nesting of pipelines.
    pub const DEEPEST: u8 = 8;

    /// A local call received `now`, without a deadline.
    pub fn new(now: Instant) -> Self {
        Self {
            received: now,
            deadline: None,
            priority: Priority::default(),
            caller: CallerId::default(),
            protocol: Protocol::Local,
            depth: 0,
            lends_thread: false,
        }
    }

    /// The same with a deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The context of a pipeline's inner call: the same deadline, priority and caller, one level deeper. An inner call
    /// borrows no thread, because a pipeline may have several of them on their way.
    ///
    /// # Errors
    /// `InvalidInput`, when pipelines ask one another too deeply: most likely in a circle.
    pub fn nested(&self) -> Result<Self, Refusal> {
        if self.depth >= Self::DEEPEST {
            let text = format!("pipelines are nested more than {} deep: do they ask one another?", Self::DEEPEST);
            return Err(Refusal::new(Reason::InvalidInput, text));
        }
        Ok(Self { depth: self.depth + 1, lends_thread: false, protocol: Protocol::Local, ..*self })
    }
}

/// Which outputs the caller wants, by position in the signature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// All, in the signature's order.
    #[default]
    All,
    /// These, in this order.
    Only(SmallVec<[usize; 4]>),
}

impl Wanted {
    /// Whether output `index` is wanted.
    pub fn includes(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(indices) => indices.contains(&index),
        }
    }
}

/// One request to a resolved version.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// The position of the signature in the servable's [`Signatures`](crate::Signatures); 0 is `serving_default`.
    pub signature: usize,
    /// The inputs in the order of the signature.
    pub inputs: TensorList,
    /// The outputs wanted.
    pub wanted: Wanted,
    /// Deadline, priority, caller.
    pub context: RequestContext,
}

impl InferRequest {
    /// A request for all outputs. `inputs` stand in the order of the signature ([`Signature::arrange`] sorts named ones).
    ///
    /// [`Signature::arrange`]: crate::Signature::arrange
    pub fn new(inputs: impl Into<TensorList>, context: RequestContext) -> Self {
        Self { signature: 0, inputs: inputs.into(), wanted: Wanted::All, context }
    }
}

/// The answer to one request.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// The wanted outputs, in the order wanted.
    pub outputs: TensorList,
    /// When the request passed each stage.
    pub stages: Stages,
}

/// Why a batch closed: why it was not larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// More rows do not fit or do not pay.
    Full,
    /// Everything of the group that was queued is in it.
    Drained,
    /// The time to wait for more was over.
    Timeout,
    /// More rows would not be done by the earliest deadline.
    Deadline,
    /// Its item does not share a run.
    Alone,
}

impl ClosedBy {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::Full, Self::Drained, Self::Timeout, Self::Deadline, Self::Alone];

    /// A stable name, for metrics and for those who ask about their request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Drained => "drained",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Alone => "alone",
        }
    }
}

/// When a request passed each stage, and in what company. Neighbouring stages share an instant, so the parts add up to
/// the whole.
#[derive(Debug, Clone, Copy)]
pub struct Stages {
    /// Entered the queue.
    pub queued: Instant,
    /// Left it as part of a batch.
    pub formed: Instant,
    /// The backend began.
    pub started: Instant,
    /// The backend ended.
    pub finished: Instant,
    /// Rows in the batch it rode in, this request's own included.
    pub batch_rows: usize,
    /// Rows of nobody that ran with them, to reach a size that the engine is prepared for.
    pub padding: usize,
    /// Requests in the batch, this one included; the pieces of a divided request count as one each.
    pub requests: usize,
    /// Rows that waited already when it was queued.
    pub ahead: usize,
    /// Why the batch was not larger; `None` where there was no batch.
    pub closed_by: Option<ClosedBy>,
}

impl Stages {
    /// All stages at one instant: an answer that no queue and no backend was needed for.
    pub fn immediate(now: Instant) -> Self {
        Self {
            queued: now,
            formed: now,
            started: now,
            finished: now,
            batch_rows: 1,
            padding: 0,
            requests: 1,
            ahead: 0,
            closed_by: None,
        }
    }

    /// Time in the queue.
    pub fn queue(&self) -> Duration {
        self.formed.saturating_duration_since(self.queued)
    }

    /// Time in the backend.
    pub fn compute(&self) -> Duration {
        self.finished.saturating_duration_since(self.started)
    }
}
