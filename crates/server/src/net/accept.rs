//! Accepting connections: one loop per address that survives running out of file descriptors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use millrace_core::CallerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::ConnectionLimits;
use super::connection::{Answer, serve};
use super::phase::{Entered, Open, Phase, Phases};
use super::socket::{Listener, Stream};
use crate::names;

/// How long accepting pauses after a failure: twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many connections over the limit are told so at a time; more are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long telling them may take.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
    content-type: application/json\r\ncontent-length: 32\r\n\r\n{\"error\":\"too many connections\"}";

/// Connection numbers are unique in the process: they are callers' identities, whatever listener they came by.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Accepts on one socket and serves what it accepts.
#[derive(Debug)]
pub(crate) struct Acceptor<A> {
    pub(crate) listener: Listener,
    /// `data`, `admin` or `metrics`: for logs and metrics.
    pub(crate) role: &'static str,
    pub(crate) answer: A,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) phases: Phases,
    /// Connections accepted while serving; draining waits for these.
    pub(crate) open: Open,
    /// Connections accepted while finishing: they are told to go elsewhere.
    pub(crate) late: Open,
}

impl<A: Answer> Acceptor<A> {
    /// Runs until the phase is [`Phase::Gone`], closes the listener, and lets go of `accepting`.
    pub(crate) async fn run(self, accepting: Entered) {
        self.accept().await;
        drop(self.listener);
        drop(accepting);
    }

    async fn accept(&self) {
        let meters = Meters::new(self.role);
        let (mine, refusals) = (Open::default(), Open::default());
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.phases.reached(Phase::Gone) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    pause = FIRST_PAUSE;
                    self.take(stream, &meters, &mine, &refusals);
                }
                // The client left between its SYN and our accept; the next one may be fine.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    meters.errors.increment(1);
                    if pause == FIRST_PAUSE {
                        tracing::warn!(listener = self.role, %error, "cannot accept connections; trying again");
                    }
                    // The listener stays readable, so trying again at once would spin.
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn take(&self, stream: Stream, meters: &Meters, mine: &Open, refusals: &Open) {
        if mine.count() >= self.limits.max_connections {
            meters.refused.increment(1);
            if refusals.count() < MAX_REFUSALS {
                let entered = refusals.enter();
                tokio::spawn(async move {
                    // A peer that does not take the refusal loses nothing by being cut off.
                    let _ = timeout(REFUSAL_TIME, refuse(stream)).await;
                    drop(entered);
                });
            }
            return;
        }
        let finishing = self.phases.has_reached(Phase::Finishing);
        let entered = if finishing { self.late.enter() } else { self.open.enter() };
        let caller = CallerId(CONNECTIONS.fetch_add(1, Ordering::Relaxed));
        let connection = serve(stream, caller, self.answer.clone(), Arc::clone(&self.limits), self.phases.clone());
        meters.open.increment(1);
        let guard = Guard { gauge: meters.open.clone(), _entered: (entered, mine.enter()) };
        tokio::spawn(async move {
            connection.await;
            drop(guard);
        });
    }
}

/// What is undone when a connection closes, also by a panic.
struct Guard {
    gauge: Gauge,
    _entered: (Entered, Entered),
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.decrement(1);
    }
}

struct Meters {
    open: Gauge,
    refused: Counter,
    errors: Counter,
}

impl Meters {
    fn new(role: &'static str) -> Self {
        Self {
            open: metrics::gauge!(names::CONNECTIONS, "listener" => role),
            refused: metrics::counter!(names::CONNECTIONS_REFUSED, "listener" => role),
            errors: metrics::counter!(names::ACCEPT_ERRORS, "listener" => role),
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Says 503 and closes in good order: what the client has sent is read, for closing over unread bytes would reset the
/// connection and take the answer with it.
async fn refuse(mut stream: Stream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
