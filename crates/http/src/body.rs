//! Reads a request's body within bounds of size, time, rate and frame count. Decompressing comes later.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use millrace_core::{Code, Reason, Refusal};
use millrace_protocol::front::{Budget, Share};
use tokio::time::Sleep;

use crate::error::Failure;

/// Frames that any body may have; beyond it their average size must reach [`SMALL_FRAME`].
const FREE_FRAMES: usize = 4096;
/// Bytes. A body cut finer than this costs more work per byte than any client needs.
const SMALL_FRAME: usize = 32;
/// Bytes set aside on the word of a `Content-Length`; more is only taken as it arrives.
const TRUSTED: usize = 1 << 20;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Most bytes.
    pub(crate) bytes: u64,
    /// Time that any body may take.
    pub(crate) time: Duration,
    /// Bytes per second that buy more time; 0 buys none.
    pub(crate) rate: u64,
    /// When its time began.
    pub(crate) started: Instant,
    /// When the client stops waiting, if it said so.
    pub(crate) until: Option<Instant>,
    /// What this body shares with all others, if anything. A body that is whole with its first frame is never counted: it
    /// waits for nobody, so a hundred clients cannot hold a hundred of them, and the plain path touches nothing that
    /// connections share.
    pub(crate) budget: Option<&'a Arc<Budget>>,
}

/// A whole body. It counts against the budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    bytes: Bytes,
    _share: Option<Share>,
}

impl Received {
    /// The bytes, which no longer count against the budget.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Bytes that count against no budget.
impl From<Bytes> for Received {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, _share: None }
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Refuses a body whose declared length is over the limit, without reading any of it.
///
/// # Errors
/// A [`Failure`] with 413 that closes the connection.
pub(crate) fn check_length(declared: Option<u64>, body: &impl Body, limit: u64) -> Result<(), Failure> {
    let length = declared.unwrap_or(0).max(body.size_hint().lower());
    if length > limit { Err(too_large(limit)) } else { Ok(()) }
}

/// The whole body. One that arrives as a single frame is not copied.
///
/// # Errors
/// A [`Failure`] with 400, 408, 413, 503 or 504; each closes the connection, for the rest of the body may still come.
pub(crate) async fn read<B>(body: B, bounds: Bounds<'_>) -> Result<Received, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let mut timer = None;
    let mut asked = false;
    let mut first = Bytes::new();
    let mut joined: Vec<u8> = Vec::new();
    let mut received = 0_usize;
    let mut frames = 0_usize;
    let mut share: Option<Share> = None;
    loop {
        let next = poll_fn(|context| match body.as_mut().poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => {
                let allowed = allowance(bounds, received);
                let until = bounds.until.filter(|until| *until < bounds.started + allowed);
                ready!(overdue(&mut timer, &mut asked, context, until.unwrap_or(bounds.started + allowed)));
                Poll::Ready(Err(if until.is_some() { too_late() } else { too_slow(allowed) }))
            }
        });
        let Some(frame) = next.await? else { break };
        let frame = frame.map_err(|cause| broken(cause.into()))?;
        // Trailers carry nothing that we use, but they count like any other frame.
        let data = frame.into_data().unwrap_or_default();
        frames += 1;
        received = received.saturating_add(data.len());
        if received as u64 > bounds.bytes {
            return Err(too_large(bounds.bytes));
        }
        if frames > FREE_FRAMES && received / SMALL_FRAME < frames {
            return Err(too_fine());
        }
        let is_last = body.is_end_stream();
        if share.is_none() && !is_last {
            share = bounds.budget.map(Share::new);
        }
        if let Some(share) = &mut share
            && !share.grow(data.len())
        {
            return Err(no_room(bounds.budget));
        }
        if frames == 1 {
            first = data;
        } else {
            if joined.is_empty() {
                let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
                joined.reserve(received.saturating_add(expected.min(TRUSTED)));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
        if is_last {
            break;
        }
    }
    let bytes = if joined.is_empty() { first } else { Bytes::from(joined) };
    Ok(Received { bytes, _share: share })
}

/// How long a body of which `received` bytes are there may have taken.
fn allowance(bounds: Bounds<'_>, received: usize) -> Duration {
    let millis = (received as u64).saturating_mul(1000).checked_div(bounds.rate).unwrap_or(0);
    bounds.time.saturating_add(Duration::from_millis(millis))
}

/// Ready once `limit`, which may move on while waiting, has passed. Arms the timer late.
///
/// hyper reads the body only once it was asked for, within the same task: the first question always has to wait, and
/// the bytes are nearly always there at the second. So the first wait asks again at once, and only the second one sets
/// a timer, which most requests then never pay for.
fn overdue(
    timer: &mut Option<Pin<Box<Sleep>>>,
    asked: &mut bool,
    context: &mut Context<'_>,
    limit: Instant,
) -> Poll<()> {
    if !*asked {
        *asked = true;
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(limit.into())));
    loop {
        ready!(timer.as_mut().poll(context));
        if timer.deadline().into_std() >= limit {
            return Poll::Ready(());
        }
        timer.as_mut().reset(limit.into());
    }
}

fn too_large(limit: u64) -> Failure {
    let text = format!("the request body is larger than the limit of {limit} bytes");
    Failure::from(Refusal::new(Reason::TooLarge, text)).closing()
}

fn no_room(budget: Option<&Arc<Budget>>) -> Failure {
    let limit = budget.map_or(0, |budget| budget.total());
    let text = format!("the request bodies that are arriving have reached their common limit of {limit} bytes");
    Failure::from(Refusal::new(Reason::QueueFull, text)).closing()
}

fn too_fine() -> Failure {
    let text = format!(
        "the request body exceeds the chunk limit: more than {FREE_FRAMES} chunks, on average below {SMALL_FRAME} bytes"
    );
    Failure::from(Refusal::new(Reason::InvalidInput, text)).closing()
}

fn too_slow(allowed: Duration) -> Failure {
    let text = format!("the request body did not arrive within {:.1} s", allowed.as_secs_f64());
    Failure::with_status(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, Refusal::new(Reason::Late, text))
        .closing()
}

fn too_late() -> Failure {
    let text = "deadline exceeded: the request body did not arrive within the client's own limit";
    Failure::from(Refusal::new(Reason::Late, text)).closing()
}

fn broken(cause: Box<dyn Error + Send + Sync>) -> Failure {
    let refusal = Refusal::new(Reason::InvalidInput, "the request body is broken or was cut off");
    Failure::from(refusal.with_cause(cause)).closing()
}

#[cfg(test)]
mod tests;
