//! A stream whose writing waits for one turn of the scheduler, so that the answers of many requests leave together.
//!
//! On HTTP/2 every request is a task of its own. The first one to be answered wakes the connection, which tokio runs
//! before the other requests that are ready: without this each answer would cost a system call. The turn costs less than
//! a microsecond where there is nothing else to do.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    /// Whether it waits at all.
    is_patient: bool,
    /// Whether what is to be written has waited.
    has_waited: bool,
}

impl<S> Gathered<S> {
    /// Writing waits where `is_patient`.
    pub(super) fn new(stream: S, is_patient: bool) -> Self {
        Self { stream, is_patient, has_waited: false }
    }

    /// Ready once the other tasks that are ready have had their turn since the last flush.
    fn poll_turn(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.has_waited || !self.is_patient {
            return Poll::Ready(());
        }
        self.has_waited = true;
        // A task that wakes itself goes to the end of the queue.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(context));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(context));
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_waited = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::io::{AsyncWrite, duplex};

    use super::Gathered;

    #[test]
    fn writing_waits_one_turn_after_each_flush_and_only_where_it_should() {
        for is_patient in [true, false] {
            let (_client, end) = duplex(100);
            let mut stream = pin!(Gathered::new(end, is_patient));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..2 {
                if is_patient {
                    assert!(stream.as_mut().poll_write(&mut context, b"ab").is_pending());
                }
                for _ in 0..2 {
                    assert!(matches!(stream.as_mut().poll_write(&mut context, b"ab"), Poll::Ready(Ok(2))));
                }
                assert!(stream.as_mut().poll_flush(&mut context).is_ready());
            }
        }
    }
}
