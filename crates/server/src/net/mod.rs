//! Sockets: binding, accepting, and serving HTTP/1.1 and h2c on each connection within time and size limits.
//!
//! What a request means is `millrace-http`'s; this module hands it requests and carries answers back.

mod accept;
mod address;
mod bind;
mod carried;
mod connection;
mod discard;
mod drive;
mod gathered;
mod gone;
mod phase;
mod rooms;
mod socket;
mod streams;
mod timed;
mod unread;

pub(crate) use accept::Acceptor;
pub use address::{Address, AddressError};
pub use bind::BindError;
pub(crate) use bind::{BindOptions, bind};
pub(crate) use connection::Answer;
pub(crate) use phase::{Open, Phase, Phases};
pub(crate) use socket::Listener;
pub(crate) use unread::RequestBody;

use std::time::Duration;

/// Limits of connections, whatever is asked on them.
///
/// | field | default | unit, meaning |
/// |---|---|---|
/// | `max_connections` | 10 000 | open connections per listener; one more is answered 503 and closed |
/// | `max_header_bytes` | 64 KiB | all headers of one HTTP/1 request; above it 431 |
/// | `max_headers` | 100 | headers of one HTTP/1 request; above it 431 |
/// | `max_streams` | 100 | concurrent requests on one HTTP/2 connection |
/// | `header_timeout` | 5 s | from the first byte of a request to the end of its headers |
/// | `max_age` | 10 min | of an HTTP/2 connection, give or take a tenth; then it takes no more requests |
/// | `age_grace` | 30 s | that requests in flight on it have after that |
/// | `idle_timeout` | 75 s | between two requests, and before the first; a connection closes after one to two of it |
/// | `write_timeout` | 30 s | without progress while the client does not read its answer |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections per listener.
    pub max_connections: usize,
    /// Bytes of all headers of one HTTP/1 request.
    pub max_header_bytes: usize,
    /// Headers of one HTTP/1 request.
    pub max_headers: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub max_streams: u32,
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Duration,
    /// How long an HTTP/2 connection takes requests, give or take a tenth, so that clients spread anew over servers that
    /// have come since. Zero: for ever.
    pub max_age: Duration,
    /// How long requests in flight may take after that.
    pub age_grace: Duration,
    /// Between two requests, and before the first.
    pub idle_timeout: Duration,
    /// Without progress while the client does not read its answer.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_header_bytes: 64 << 10,
            max_headers: 100,
            max_streams: 100,
            header_timeout: Duration::from_secs(5),
            max_age: Duration::from_secs(600),
            age_grace: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}
