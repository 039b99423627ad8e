//! Taking bytes from a socket without copying them.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::socket::Stream;

/// `MSG_TRUNC`: with it TCP on Linux gives how many bytes there were, throws them away and leaves the buffer as it is (tcp(7)).
/// Elsewhere they are read.
const THROW_AWAY: i32 = if cfg!(target_os = "linux") { 0x20 } else { 0 };
/// Bytes that are taken at once: few calls, and the zeros stay in the cache.
const PIECE: usize = 32 << 10;

/// A stream whose bytes can be taken without being looked at.
pub(super) trait Discard: AsyncRead {
    /// Takes up to `most` bytes and puts as many zeros into `buffer`.
    fn poll_discard(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>>;
}

impl Discard for Stream {
    fn poll_discard(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let room = most.min(buffer.remaining()).min(PIECE);
        let mut scratch = [MaybeUninit::uninit(); PIECE];
        let taken = match self.get_mut() {
            Self::Tcp(stream) => ready!(poll_discard(stream, context, &mut scratch[..room]))?,
            Self::Unix(stream) => {
                let mut read = ReadBuf::uninit(&mut scratch[..room]);
                ready!(Pin::new(stream).poll_read(context, &mut read))?;
                read.filled().len()
            }
        };
        buffer.initialize_unfilled_to(taken);
        buffer.advance(taken);
        Poll::Ready(Ok(()))
    }
}

/// Takes up to as many bytes as `scratch` has. On Linux they are not even copied there.
fn poll_discard(
    stream: &TcpStream,
    context: &mut Context<'_>,
    scratch: &mut [MaybeUninit<u8>],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(context))?;
        let taken =
            stream.try_io(Interest::READABLE, || SockRef::from(stream).recv_with_flags(&mut *scratch, THROW_AWAY));
        match taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return Poll::Ready(taken),
        }
    }
}

/// A stream in memory has nothing to spare.
#[cfg(test)]
impl Discard for tokio::io::DuplexStream {
    fn poll_discard(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; most.min(buffer.remaining())];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(self.poll_read(context, &mut read))?;
        let taken = read.filled().len();
        buffer.initialize_unfilled_to(taken);
        buffer.advance(taken);
        Poll::Ready(Ok(()))
    }
}
