//! What the front-ends share: how a request's model reference becomes a servable, in which words that fails, and one
//! table per protocol from [`Reason`](millrace_core::Reason) to status.
//!
//! No wire format lives here: JSON field names belong to the HTTP front-end, protobuf to the gRPC one. Statuses are
//! plain numbers, so that this crate needs no HTTP types.

#![forbid(unsafe_code)]

pub mod plain;
pub mod tfs;
