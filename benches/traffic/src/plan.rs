//! What to ask, how often, and for how long.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The whole plan: all streams run at once through the same pieces of time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Of the server.
    pub(crate) address: SocketAddr,
    /// One after the other; each is summed up by itself.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) streams: Vec<Stream>,
    /// Of the arrivals.
    #[serde(default)]
    pub(crate) seed: u64,
    /// How long answers are waited for after the last piece.
    #[serde(default = "ten")]
    pub(crate) grace_seconds: f64,
}

/// A stretch of time in which rates stay the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) seconds: f64,
}

/// Requests of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) path: String,
    /// The file that holds the body of each request.
    pub(crate) body: PathBuf,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) load: Load,
    /// The most requests at once; those that are due and find none free wait, and their latency counts that. Over HTTP/1.1
    /// it is also the number of connections.
    pub(crate) in_flight: usize,
    /// So many HTTP/2 connections in place of HTTP/1.1 ones.
    pub(crate) http2: Option<usize>,
    /// An answer later than this counts as late, and a request that cannot be sent before is given up.
    pub(crate) deadline_ms: Option<f64>,
    /// The header that says how many milliseconds are left, where the server is to know.
    pub(crate) deadline_header: Option<String>,
    /// Whether a refused request is asked once more, when the answer said that it may be (`Retry-After`).
    #[serde(default)]
    pub(crate) obeys_retry_after: bool,
}

/// How often to ask, for each piece.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// Arrivals per second, independent of each other (a Poisson process).
    Rates(Vec<f64>),
    /// Callers who each ask again as soon as they are answered.
    Callers(Vec<usize>),
}

impl Plan {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_time = |time: f64| time.is_finite() && time >= 0.0;
        if !self.pieces.iter().all(|piece| is_time(piece.seconds)) || !is_time(self.grace_seconds) {
            return Err("times must be numbers of seconds, not negative".to_owned());
        }
        for stream in &self.streams {
            if !stream.deadline_ms.is_none_or(is_time) {
                return Err(format!("stream `{}`: the deadline is no time", stream.name));
            }
            if let Load::Callers(callers) = &stream.load
                && callers.iter().any(|callers| *callers > stream.in_flight)
            {
                return Err(format!("stream `{}`: more callers than may be in flight", stream.name));
            }
            let given = match &stream.load {
                Load::Rates(rates) => rates.len(),
                Load::Callers(callers) => callers.len(),
            };
            if given != self.pieces.len() {
                let (name, pieces) = (&stream.name, self.pieces.len());
                return Err(format!("stream `{name}`: {given} loads for {pieces} pieces"));
            }
            if stream.in_flight == 0 || stream.http2 == Some(0) {
                return Err(format!("stream `{}`: it needs a connection", stream.name));
            }
            if stream.obeys_retry_after && matches!(stream.load, Load::Callers(_)) {
                return Err(format!("stream `{}`: only arrivals by rate are asked again later", stream.name));
            }
        }
        Ok(())
    }
}

fn ten() -> f64 {
    10.0
}
