//! The service as clients see it: whole requests without a socket for what clients do not send, and real clients over
//! HTTP/2 for what they do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod account;
mod allocations;
mod deadlines;
mod frames;
mod harness;
mod health;
mod hostile;
mod knocking;
mod metrics;
mod oip;
mod orders;
mod properties;
mod ragged;
mod reflection;
mod stream;
mod tfs;
mod tfs_hostile;
mod tfs_models;
mod torchserve;
