//! The harness: a server on port 0, a repository in a temporary folder, and a client that speaks raw HTTP/1.1.

mod client;
pub(crate) mod frames;
pub(crate) mod grpc;
pub(crate) mod json;
mod process;
mod repository;
mod server;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Reply};
pub(crate) use grpc::Grpc;
pub(crate) use process::{HALF_PLUS_TWO, Process, millrace, output, serve};
pub(crate) use repository::Repository;
pub(crate) use server::{DOUBLE, TestServer, prediction};

/// How long anything may take before a test calls it hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The real clock: these tests are about real sockets.
#[expect(clippy::disallowed_methods, reason = "the whole server is under test, real time included")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
