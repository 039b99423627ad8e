//! What the front-ends share: how a request's model reference becomes a servable, in which words that fails, one table
//! per protocol from [`Reason`](millrace_core::Reason) to status, and in [`front`] what is done with any request.
//!
//! No wire format lives here: JSON field names belong to the HTTP front-end, protobuf to the gRPC one. Statuses are
//! plain numbers, so that this crate needs no HTTP types.

#![forbid(unsafe_code)]

pub mod front;
pub mod oip;
pub mod plain;
pub mod tfs;
pub mod time;
pub mod torchserve;
