//! The words and the seams of millrace.
//!
//! Every other crate speaks in these types: [`Tensor`]s with a [`DType`] and a [`Shape`], [`Signature`]s with
//! symbolic dimensions, [`InferRequest`] in, [`InferResponse`] or [`Refusal`] out. The traits are the places where
//! parts meet: [`Backend`] → [`Model`] → [`Instance`] below, [`Resolver`] → [`Servable`] above, [`Catalog`] and
//! [`Control`] beside them, [`Compute`] for CPU work. [`PipelineFactory`] and [`InputAdapterFactory`] make servables that build
//! on other models, or that take their inputs in another form.
//!
//! What is absent on purpose: I/O, clocks, threads, async runtimes and serialisation. Instants are handed in.

#![forbid(unsafe_code)]

mod adapter;
mod backend;
mod batch;
mod catalog;
mod cell;
mod choice;
mod compute;
mod dim;
mod dtype;
mod future;
mod name;
mod offload;
mod options;
mod pipeline;
mod quote;
mod reason;
mod request;
mod servable;
mod shape;
mod signature;
mod source;
mod spelling;
mod tensor;
mod text;
mod trial;

pub use adapter::{InputAdapter, InputAdapterFactory};
pub use backend::{Backend, Instance, LoadError, LoadErrorKind, Model, ModelFacts, Prepared, RunContext, RunError};
pub use batch::{Batch, BatchOutputs, ContractError, Part, PartOutputs};
pub use catalog::{
    Catalog, Control, ControlFuture, ModelStatus, QueueStatus, RegisterFuture, Registered, Registration, RunStatistics,
    Total, VersionFailure, VersionState, VersionStatistics, VersionStatus, WantedModel, WantedVersions,
};
pub use choice::{EngineChoice, EngineOutcome, EngineRange, EngineTrial, OutputDifference, RunTime};
pub use compute::{Compute, Job};
pub use dim::{Dim, DimExpr, DimExprError};
pub use dtype::{DType, Element, UnknownDType};
pub use future::{InferFuture, InferResult, InferStream, Leader, Slot};
pub use name::{Alias, ModelName, ModelRef, ModelRefError, NameError, OwnedModelRef, VersionChoice};
pub use offload::{Panicked, contained, guarded, on_compute};
pub use options::{OptionReader, own_options};
pub use pipeline::{PipelineFactory, PipelineSource};
pub use quote::Quoted;
pub use reason::{Code, Progress, Reason, Refusal};
pub use request::{
    CallerId, ClosedBy, InferRequest, InferResponse, Priority, Protocol, RequestContext, Stages, Wanted,
};
pub use servable::{Place, Resolver, Servable};
pub use shape::{MAX_RANK, Shape, ShapeError};
pub use signature::{
    Admission, Group, InputError, SERVING_DEFAULT, Signature, SignatureError, Signatures, TENSORS, TensorSpec,
};
pub use source::{MemoryFiles, ModelFiles, ModelSource, Samples};
pub use spelling::nearest;
pub use tensor::{Strings, Tensor, TensorError, TensorList};
pub use text::{
    EncodeOptions, Encoding, TextFactory, TextFacts, TextInput, TextProcessor, TextTask, Token, Truncation,
    is_short_text,
};
pub use trial::{Trial, Verdict};
