//! Taking bytes from a socket without looking at them.

use std::cell::RefCell;
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
/// Bytes that are taken at once: all that has come, as a rule, so that the peer is told once how much more it may send.
const MOST: usize = 1 << 20;

thread_local! {
    /// Room that the system is told of. Where nothing is put there it takes no memory.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(MOST));
}

/// A stream whose bytes can be taken without being looked at.
pub(super) trait Discard: AsyncRead {
    /// Takes up to `most` bytes. Returns how many there were; none at the stream's end.
    fn poll_discard(self: Pin<&mut Self>, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>>;
}

impl Discard for Stream {
    fn poll_discard(self: Pin<&mut Self>, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        with_room(most, |room| match self.get_mut() {
            Self::Tcp(stream) => discard_tcp(stream, context, room),
            Self::Unix(stream) => discard_read(stream, context, room),
        })
    }
}

/// Does `work` with this thread's room for up to `most` bytes.
fn with_room<T>(most: usize, work: impl FnOnce(&mut [MaybeUninit<u8>]) -> T) -> T {
    ROOM.with_borrow_mut(|room| {
        let room = room.spare_capacity_mut();
        let most = most.min(room.len());
        work(&mut room[..most])
    })
}

/// On Linux nothing is copied.
fn discard_tcp(stream: &TcpStream, context: &mut Context<'_>, room: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(context))?;
        let mut taken = 0;
        let all = stream.try_io(Interest::READABLE, || {
            taken = SockRef::from(stream).recv_with_flags(room, THROW_AWAY)?;
            // All that had come was less: the next to ask need not find that out from the system.
            if taken > 0 && taken < room.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match all {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken == 0 => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => return Poll::Ready(Ok(taken)),
        }
    }
}

fn discard_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &mut Context<'_>,
    room: &mut [MaybeUninit<u8>],
) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::uninit(room);
    ready!(Pin::new(stream).poll_read(context, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

/// A stream in memory has nothing to spare.
#[cfg(test)]
impl Discard for tokio::io::DuplexStream {
    fn poll_discard(self: Pin<&mut Self>, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        with_room(most, |room| discard_read(self.get_mut(), context, room))
    }
}
