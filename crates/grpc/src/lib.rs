//! The gRPC front-end: the Open Inference Protocol, TensorFlow Serving's and TorchServe's services, health and
//! reflection, over the traits of `millrace-core`.
//!
//! [`grpc_service`] gives a tower service over HTTP/2 requests. There is no listener here and no knowledge of what is
//! behind the traits: sockets, windows and connections are the server's, models the registry's.
//!
//! Messages are cut from the body, bounded and read here, not by a gRPC library: nothing is set aside on the word of a
//! length, large tensors are slices of what was received, and they leave without a copy.
//!
//! The clock is tokio's: run the service inside a tokio runtime with time enabled.

#![forbid(unsafe_code)]

mod body;
mod call;
mod coding;
mod config;
mod exchange;
mod failure;
mod frame;
mod head;
mod health;
mod knock;
mod oip;
mod outline;
mod receive;
mod reflection;
mod reply;
mod service;
mod stream;
mod tfs;
mod torchserve;
mod wire;

pub use body::GrpcBody;
pub use config::GrpcConfig;
pub use failure::{refusal_response, refusal_trailers};
pub use service::{GrpcParts, GrpcService, ServiceFuture, grpc_service, is_grpc};
