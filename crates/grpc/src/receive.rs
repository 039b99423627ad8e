//! Reads a request's messages within bounds of size, time, rate and frame count.
//!
//! A message is handed on once it is whole; until then its bytes count against what all requests share. Between the
//! messages of a stream any time may pass.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use millrace_core::{Compute, Place, Reason, Refusal, on_compute};
use millrace_protocol::front::{Budget, Front, Share, now};
use tokio::time::Sleep;

use crate::coding::{Coding, Unpacked};
use crate::config::GrpcConfig;
use crate::frame::{Assembler, FrameError};

/// Frames that any message may have; beyond it their average size must reach [`SMALL_FRAME`].
const FREE_FRAMES: usize = 4096;
/// Bytes. A message cut finer than this costs more work per byte than any client needs.
const SMALL_FRAME: usize = 32;

/// Bytes. Of longer messages the first are looked at before the rest is read; shorter ones come in a frame or two.
const LONG_MESSAGE: usize = 32 << 10;
/// After so many frames nothing is looked for any more. Most clients fill the first; one that is short of window may not.
const FIRST_FRAMES: usize = 8;

/// A whole message as it was sent.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Bytes,
    coding: Option<Coding>,
}

/// The messages of one request.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    assembler: Assembler,
    coding: Option<Coding>,
    time: Duration,
    rate: u64,
    budget: Arc<Budget>,
    /// Of the message at work.
    share: Option<Share>,
    received: usize,
    frames: usize,
    /// Whether its first bytes were enough.
    is_known: bool,
    /// When its time began; on a stream, with its first byte.
    began: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    asked: bool,
    ended: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// The messages in `body`, none of which may be longer than `limit` bytes. With `began` the first message's time runs
    /// already.
    pub(crate) fn new(
        body: B,
        coding: Option<Coding>,
        limit: usize,
        began: Option<Instant>,
        (front, config): (&Front, &GrpcConfig),
    ) -> Self {
        Self {
            body,
            assembler: Assembler::new(limit),
            coding,
            time: config.message_timeout,
            rate: config.min_message_rate,
            budget: Arc::clone(&front.receiving),
            share: None,
            received: 0,
            frames: 0,
            is_known: false,
            began,
            timer: None,
            asked: false,
            ended: false,
        }
    }

    /// The only message of a request. Where it is long and does not come at once, `knock` is shown what is there until that
    /// is enough for it; the place that it then gives is kept until all is there.
    ///
    /// # Errors
    /// That of `knock`, those of [`poll_next`](Self::poll_next), and `InvalidInput` when there is none or a second one.
    pub(crate) async fn only(
        &mut self,
        mut knock: impl FnMut(&[u8]) -> Result<Option<Place>, Refusal>,
    ) -> Result<Message, Refusal> {
        let mut place = None;
        let mut show = |start: &[u8]| {
            place = knock(start)?;
            Ok(place.is_some())
        };
        let message = poll_fn(|context| self.poll(context, &mut show)).await;
        let message = message.unwrap_or_else(|| Err(invalid("the request holds no message")))?;
        if self.assembler.has_more() { Err(invalid("the request holds more than one message")) } else { Ok(message) }
    }

    /// The next message, or `None` after the last.
    ///
    /// # Errors
    /// A [`Refusal`] after which nothing more comes: `InvalidInput`, `TooLarge`, `Late` or `QueueFull`.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Refusal>>> {
        self.poll(context, &mut |_| Ok(true))
    }

    fn poll(&mut self, context: &mut Context<'_>, show: Show<'_>) -> Poll<Option<Result<Message, Refusal>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let result = ready!(self.poll_message(context, show)).transpose();
        self.ended = !matches!(result, Some(Ok(_)));
        Poll::Ready(result)
    }

    fn poll_message(&mut self, context: &mut Context<'_>, show: Show<'_>) -> Poll<Result<Option<Message>, Refusal>> {
        loop {
            match self.assembler.next() {
                Ok(None) => {
                    if self.began.is_none() && self.assembler.is_amid() {
                        self.began = Some(now());
                    }
                    if let Some(start) = self.assembler.start_of_long(LONG_MESSAGE)
                        && !self.is_known
                        && self.frames <= FIRST_FRAMES
                    {
                        self.is_known = show(start)?;
                    }
                }
                Ok(Some(whole)) => {
                    if whole.is_packed && self.coding.is_none() {
                        return Poll::Ready(Err(invalid("a message is compressed, but no grpc-encoding says how")));
                    }
                    let bytes = match self.share.take() {
                        Some(share) => Bytes::from_owner(Counted { bytes: whole.bytes, _share: share }),
                        None => whole.bytes,
                    };
                    (self.received, self.frames, self.began, self.asked) = (0, 0, None, false);
                    return Poll::Ready(Ok(Some(Message { bytes, coding: self.coding.filter(|_| whole.is_packed) })));
                }
                Err(error) => return Poll::Ready(Err(frame_error(error))),
            }
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_overdue(context));
                    return Poll::Ready(Err(too_slow()));
                }
            };
            let Some(frame) = frame else {
                let cut = self.assembler.is_amid().then(|| invalid("the request ends within a message"));
                return Poll::Ready(cut.map_or(Ok(None), Err));
            };
            // Trailers carry nothing that we use, but they count like any other frame.
            let data = frame.map_err(|cause| broken(cause.into()))?.into_data().unwrap_or_default();
            self.take_in(data)?;
        }
    }

    fn take_in(&mut self, data: Bytes) -> Result<(), Refusal> {
        self.received = self.received.saturating_add(data.len());
        self.frames += 1;
        if self.frames > FREE_FRAMES && self.received / SMALL_FRAME < self.frames {
            let text = format!(
                "a message exceeds the frame limit: more than {FREE_FRAMES} frames, on average below {SMALL_FRAME} bytes"
            );
            return Err(invalid(text));
        }
        // A message that is whole with its first frame is never counted: it waits for nobody, so a hundred clients cannot
        // hold a hundred of them, and the plain path touches nothing that connections share.
        let is_whole = self.body.is_end_stream() || (!self.assembler.is_amid() && holds_message(&data));
        if self.share.is_none() && !is_whole {
            self.share = Some(Share::new(&self.budget));
        }
        if let Some(share) = &mut self.share
            && !share.grow(data.len())
        {
            let limit = self.budget.total();
            let text = format!("the requests that are arriving have reached their common limit of {limit} bytes");
            return Err(Refusal::new(Reason::QueueFull, text));
        }
        self.assembler.push(data);
        Ok(())
    }

    /// Ready once the message at work has had its time. Arms the timer late: the body is read within the same task, so the
    /// first question often has to wait and the bytes are there at the second.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(began) = self.began else { return Poll::Pending };
        if !self.asked {
            self.asked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let millis = (self.received as u64).saturating_mul(1000).checked_div(self.rate).unwrap_or(0);
        let limit = began + self.time.saturating_add(Duration::from_millis(millis)).min(FOREVER);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(limit.into())));
        loop {
            if timer.deadline().into_std() < limit {
                timer.as_mut().reset(limit.into());
            }
            ready!(timer.as_mut().poll(context));
            if timer.deadline().into_std() >= limit {
                return Poll::Ready(());
            }
        }
    }
}

/// Far enough away, and still an instant.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Looks at the first bytes of a long message. Gives whether they were enough.
type Show<'a> = &'a mut dyn FnMut(&[u8]) -> Result<bool, Refusal>;

/// Whether the first frame of a message holds all of it.
fn holds_message(data: &[u8]) -> bool {
    match data {
        [_, a, b, c, d, rest @ ..] => {
            usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).is_ok_and(|length| rest.len() >= length)
        }
        _ => false,
    }
}

/// Bytes that count as arriving until their last handle is dropped.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Message {
    /// Whether it was sent compressed.
    pub(crate) fn is_packed(&self) -> bool {
        self.coding.is_some()
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The message itself. Unpacks it where it was packed, on a compute thread: its size says nothing about the work.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidInput` or `QueueFull`, or the compute pool's.
    pub(crate) async fn unpack(self, limit: usize, front: &Front, compute: &dyn Compute) -> Result<Bytes, Refusal> {
        let Some(coding) = self.coding else { return Ok(self.bytes) };
        let packed = self.bytes;
        match Box::pin(on_compute(compute, move || coding.unpack(&packed, limit))).await? {
            Unpacked::Bytes(bytes) => front.receiving.hold(Bytes::from(bytes)).ok_or_else(|| {
                let limit = front.receiving.total();
                let text = format!("the requests that are arriving have reached their common limit of {limit} bytes");
                Refusal::new(Reason::QueueFull, text)
            }),
            Unpacked::TooLarge => {
                let text = format!("the decompressed message is larger than the limit of {limit} bytes");
                Err(Refusal::new(Reason::TooLarge, text))
            }
            Unpacked::Broken => Err(invalid(format!("the {} message is damaged or cut", coding.name()))),
        }
    }
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::InvalidInput, text)
}

fn frame_error(error: FrameError) -> Refusal {
    let reason = match error {
        FrameError::Flag(_) => Reason::InvalidInput,
        FrameError::TooLarge { .. } => Reason::TooLarge,
    };
    Refusal::new(reason, error.to_string())
}

fn too_slow() -> Refusal {
    Refusal::new(Reason::Late, "deadline exceeded: the message did not arrive in time")
}

fn broken(cause: Box<dyn Error + Send + Sync>) -> Refusal {
    invalid("the request is broken or was cut off").with_cause(cause)
}
