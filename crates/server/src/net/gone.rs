//! Finding out that a client has gone while its request is answered, without reading what else it may have sent.
//!
//! hyper finds it out by reading on, and for what it might read it sets a buffer aside with every request, 8 KiB that the
//! request at work keeps it from using again. Looked at in this way, a quiet socket costs nothing.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;

use super::socket::Stream;

/// A stream that can be asked whether its peer is there.
pub(super) trait Watched {
    /// Ready once the peer has closed its end and nothing that it sent is left to read. Wakes the task then.
    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<io::Error>;
}

impl Watched for Stream {
    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let readable = match self {
                Self::Tcp(stream) => stream.poll_read_ready(context),
                Self::Unix(stream) => stream.poll_read_ready(context),
            };
            if let Err(error) = ready!(readable) {
                return Poll::Ready(error);
            }
            let mut byte = [MaybeUninit::uninit()];
            let peeked = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(&mut byte)),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(&mut byte)),
            };
            match peeked {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                // The next request, or the rest of this one. Whoever reads it will see what follows.
                Ok(_) => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(error),
            }
        }
    }
}

/// A stream in memory cannot be looked into.
#[cfg(test)]
impl Watched for tokio::io::DuplexStream {
    fn poll_gone(&self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::{Stream, Watched};

    async fn tcp() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Stream::Tcp(listener.accept().await.unwrap().0))
    }

    async fn is_gone(stream: &Stream) -> bool {
        poll_fn(|context| Poll::Ready(stream.poll_gone(context).is_ready())).await
    }

    async fn check(mut client: impl AsyncWrite + Unpin, mut stream: Stream) {
        assert!(!is_gone(&stream).await, "it only waits");
        client.write_all(b"ab").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        assert!(!is_gone(&stream).await, "what it sent is still to be read");
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b", "looking took nothing");
        assert!(!is_gone(&stream).await);
        let watch = tokio::spawn(async move { poll_fn(|context| stream.poll_gone(context)).await });
        tokio::task::yield_now().await;
        drop(client);
        watch.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_is_gone_once_it_has_closed_and_all_it_sent_was_read() {
        let (client, stream) = tcp().await;
        check(client, stream).await;
        let (client, stream) = UnixStream::pair().unwrap();
        check(client, Stream::Unix(stream)).await;
    }

    #[tokio::test]
    async fn a_peer_that_resets_is_gone() {
        let (client, stream) = tcp().await;
        socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        poll_fn(|context| stream.poll_gone(context)).await;
    }
}
