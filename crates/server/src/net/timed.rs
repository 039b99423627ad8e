//! A stream that gives up on peers that send too slowly, stay idle too long, or do not read their answers.
//!
//! hyper's own header timeout makes and drops a timer for every request; this one keeps a single timer per connection
//! and looks at the clock only when something stalls, so that a busy connection pays nothing.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::discard::Discard;
use super::gone::Watched;

/// The slowest reading of an answer that still counts as progress, in bytes per second.
const SLOWEST_READER: u64 = 1024;

/// Bytes that are read at once over HTTP/1. hyper offers twice as much whenever a read fills its buffer, and keeps that while the
/// connection idles; bodies are put together elsewhere.
const ROOM: u64 = 16 << 10;
/// Bytes that are handed on at once on a connection whose client sends bodies that nobody reads. They fit the least that hyper
/// offers.
const PIECE: usize = 8 << 10;

const UNREAD: &str = "the client does not read its answer";
/// How many bytes an HTTP/2 client must take for that to count as progress. Less is pings and the like.
const PROGRESS: u64 = 16 << 10;

/// What the requests of one connection tell its stream.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// What waits for the client of an HTTP/2 connection to let it come, by its flow control.
    offered: AtomicUsize,
    /// How often such a wait has ended.
    taken: AtomicU64,
    /// Bytes wait for the client to read.
    stalled: AtomicBool,
    /// The connection was idle for too long; whoever drives it should close it in good order.
    idle: AtomicBool,
    /// The length of a body that nobody reads, until the stream has taken note of it.
    unread: AtomicU64,
}

impl Activity {
    /// A request has come.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has been answered or given up.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Something waits for the client to take it.
    pub(super) fn offer(&self) {
        self.offered.fetch_add(1, Ordering::Relaxed);
    }

    /// It has been taken, or will not be.
    pub(super) fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.offered.fetch_sub(1, Ordering::Relaxed);
    }

    /// Nobody reads the body of the request at work, which is so long: whoever asks for what has not come yet may get zeros.
    pub(super) fn set_unread(&self, length: u64) {
        self.unread.store(length, Ordering::Relaxed);
    }

    fn is_offering(&self) -> bool {
        self.offered.load(Ordering::Relaxed) > 0
    }

    /// No request is being answered and no answer waits to be read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_resting() && !self.is_offering() && !self.stalled.load(Ordering::Relaxed)
    }

    /// No request is being answered.
    fn is_resting(&self) -> bool {
        let (begun, ended) = self.counts();
        begun == ended
    }

    /// How many requests have begun and ended.
    fn counts(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }

    pub(crate) fn is_idle_for_too_long(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }
}

/// How long each kind of waiting may last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) header: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// What the read timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The next request; the number is of whatever has happened so far, so that each idling has its own.
    Idle(u64),
    /// The rest of the headers that follow so many begun requests.
    Headers(u64),
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    stream: S,
    /// Bytes that were read to find out the protocol, not yet handed on.
    prefix: Vec<u8>,
    is_http2: bool,
    patience: Patience,
    activity: Arc<Activity>,
    /// The number of requests begun when bytes last arrived; headers are incomplete where none has begun since.
    bytes_after: Option<u64>,
    read_timer: Option<(Waiting, Pin<Box<Sleep>>)>,
    /// Whether the read timer has been polled, so that it will wake the connection's task.
    is_registered: bool,
    /// Runs while an HTTP/2 client has something to take; the number is of what it had taken when it was armed.
    take_timer: Option<(u64, Pin<Box<Sleep>>)>,
    write_timer: Option<Stall>,
    /// Bytes that were read since reading last found nothing while no request was under way.
    handed_on: u64,
    /// How much of a body that nobody reads is still to be handed on; from the first such body on.
    discard: Option<u64>,
    /// How much of that has been taken from the stream.
    taken: u64,
    /// How often writing went on after a stall.
    resumed: u64,
    /// Bytes written.
    written: u64,
}

#[derive(Debug)]
struct Stall {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    progress: u64,
    begun: u64,
    waiting: bool,
}

impl<S> Timed<S> {
    pub(crate) fn new(stream: S, prefix: Vec<u8>, is_http2: bool, patience: Patience, activity: Arc<Activity>) -> Self {
        let bytes_after = (!prefix.is_empty()).then_some(0);
        Self {
            stream,
            prefix,
            is_http2,
            patience,
            activity,
            bytes_after,
            read_timer: None,
            is_registered: false,
            take_timer: None,
            handed_on: 0,
            discard: None,
            taken: 0,
            write_timer: None,
            resumed: 0,
            written: 0,
        }
    }

    /// Whether an HTTP/2 client lets what it has asked for come. It may leave its socket readable and yet open no window.
    fn check_taking(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.is_http2 || !self.activity.is_offering() {
            return Ok(());
        }
        let progress = self.written / PROGRESS + self.activity.taken.load(Ordering::Relaxed);
        let limit = self.patience.write;
        let (armed, timer) =
            self.take_timer.get_or_insert_with(|| (progress, Box::pin(sleep_until(Instant::now() + limit))));
        while timer.as_mut().poll(context).is_ready() {
            if *armed == progress {
                return Err(io::Error::new(io::ErrorKind::TimedOut, UNREAD));
            }
            // As with idling: set anew only when it has run out, so that it costs nothing while answers are taken.
            *armed = progress;
            timer.as_mut().reset(Instant::now() + limit);
        }
        Ok(())
    }

    /// Nothing to read: decides whether waiting on is allowed.
    fn read_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_taking(context)?;
        let (begun, ended) = self.activity.counts();
        // A client that still takes its answer is not idle, however long that takes.
        let resting = self.activity.is_quiet();
        // HTTP/2 peers also send pings and window updates, which no request follows: only idling is timed there.
        let headers = resting && !self.is_http2 && self.bytes_after == Some(begun);
        let wanted = if headers { Waiting::Headers(begun) } else { Waiting::Idle(begun + ended + self.resumed) };
        let limit = if headers { self.patience.header } else { self.patience.idle };
        let (armed, timer) =
            self.read_timer.get_or_insert_with(|| (wanted, Box::pin(sleep_until(Instant::now() + limit))));
        // Armed also while a request is answered: hyper may not read again once it has been.
        if *armed != wanted || !resting {
            // A timer armed for an earlier idling is left to run out and only then set anew: idling lasts at most twice
            // its limit, and no request pays for setting a timer. It knows the waker: one task drives a connection.
            let idling = matches!((*armed, wanted), (Waiting::Idle(_), Waiting::Idle(_)));
            if idling && self.is_registered && !timer.is_elapsed() {
                return Poll::Pending;
            }
            timer.as_mut().reset(Instant::now() + limit);
            *armed = wanted;
        }
        self.is_registered = true;
        ready!(timer.as_mut().poll(context));
        if !resting {
            // Only a limit of zero gets here.
            return Poll::Pending;
        }
        if self.is_http2 {
            if !self.activity.idle.swap(true, Ordering::Relaxed) {
                // The driver sends GOAWAY; it looks at the flag after this poll.
                context.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let what = if headers { "the request's headers took too long" } else { "idle for too long" };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// Nothing can be written: decides whether waiting on is allowed.
    fn write_stalled(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        let limit = self.patience.write;
        let now = Instant::now();
        self.activity.stalled.store(true, Ordering::Relaxed);
        let stall = self.write_timer.get_or_insert_with(|| Stall {
            timer: Box::pin(sleep_until(now + limit)),
            since: now,
            progress: 0,
            begun,
            waiting: true,
        });
        if !stall.waiting {
            // A reader that takes a byte now and then must not hold an answer for ever.
            let elapsed = now.saturating_duration_since(stall.since);
            let fast = Duration::from_millis(stall.progress.saturating_mul(1000) / SLOWEST_READER) >= elapsed;
            if fast || stall.begun != begun {
                stall.timer.as_mut().reset(now + limit);
                (stall.since, stall.progress, stall.begun) = (now, 0, begun);
            }
            stall.waiting = true;
        }
        match stall.timer.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, UNREAD)),
            Poll::Pending => Ok(()),
        }
    }

    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        n: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match poll {
            Poll::Pending => match self.write_stalled(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            Poll::Ready(result) => {
                let written = result.as_ref().map_or(0, n) as u64;
                self.written += written;
                if let (Some(stall), Ok(_)) = (&mut self.write_timer, &result) {
                    stall.progress += written;
                    self.resumed += u64::from(stall.waiting);
                    stall.waiting = false;
                    self.activity.stalled.store(false, Ordering::Relaxed);
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<S: Discard + Unpin> Timed<S> {
    /// Reads where bodies were not read before: of what nobody reads zeros are handed on, and of what follows little at once, for
    /// it may be such a body again. hyper would offer more room with each full read.
    fn poll_discard(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>, left: u64) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(PIECE);
        if left == 0 {
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut read = ReadBuf::uninit(&mut piece[..room]);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            buffer.put_slice(read.filled());
            return Poll::Ready(Ok(()));
        }
        if self.taken == 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            self.taken = ready!(Pin::new(&mut self.stream).poll_discard(context, most))? as u64;
        }
        let piece = usize::try_from(self.taken).unwrap_or(usize::MAX).min(room);
        buffer.put_slice(&[0; PIECE][..piece]);
        self.taken -= piece as u64;
        self.discard = Some(left - piece as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: Discard + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix[..n]);
            this.prefix.drain(..n);
            this.handed_on += n as u64;
            return Poll::Ready(Ok(()));
        }
        let unread = this.activity.unread.load(Ordering::Relaxed);
        if unread > 0 {
            // hyper holds at most what it got since it last waited for a request. The rest of the body is still to come.
            this.discard = Some(unread.saturating_sub(this.handed_on));
            if unread >= this.handed_on {
                // All that it got is of this request.
                this.handed_on = 0;
            }
            this.activity.set_unread(0);
        }
        let before = buffer.filled().len();
        let is_real = this.discard.is_none_or(|left| left == 0);
        let read = match this.discard {
            Some(left) if left > 0 || this.activity.is_resting() => this.poll_discard(context, buffer, left),
            _ if this.is_http2 => Pin::new(&mut this.stream).poll_read(context, buffer),
            _ => Pin::new(&mut (&mut this.stream).take(ROOM)).poll_read(context, buffer),
        };
        match read {
            Poll::Pending => {
                // While a request is under way, hyper may have put the first of its body aside and read on.
                if this.activity.is_resting() {
                    this.handed_on = 0;
                }
                this.read_stalled(context)
            }
            ready @ Poll::Ready(_) => {
                this.handed_on += if is_real { (buffer.filled().len() - before) as u64 } else { 0 };
                // Bytes that arrive while a request is answered are its body, or a request that nobody waits for yet.
                if this.activity.is_resting() {
                    this.bytes_after = Some(this.activity.begun.load(Ordering::Relaxed));
                }
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Watched + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, poll, |n| *n)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, poll, |n| *n)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper asks for it at the end of each turn, also where there is nothing to send.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_http2
            && !self.activity.is_resting()
            && let Poll::Ready(error) = self.stream.poll_gone(context)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
