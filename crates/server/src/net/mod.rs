//! Sockets: binding, accepting, and serving HTTP/1.1 and h2c on each connection within time and size limits.
//!
//! What a request means is `millrace-http`'s; this module hands it requests and carries answers back.

mod accept;
mod bind;
mod connection;
mod phase;
mod timed;

pub(crate) use accept::Acceptor;
pub use bind::BindError;
pub(crate) use bind::bind;
pub(crate) use connection::Answer;
pub(crate) use phase::{Open, Phase, Phases};

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
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}
