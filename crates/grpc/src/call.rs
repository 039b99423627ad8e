//! What every method does with a call: read its message, heed its deadline, answer with one message.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use millrace_core::{Place, Priority, Protocol, Reason, Refusal, RequestContext};
use millrace_protocol::front::{ConnectionContext, now};
use prost::Message;
use tokio::time::timeout_at;

use crate::body::GrpcBody;
use crate::head::Head;
use crate::receive::Messages;
use crate::reply::Reply;
use crate::service::Shared;

/// Bytes of a message that carries no tensors. Its reader may need some ten times as much memory.
pub(crate) const SMALL_MESSAGE: usize = 4 << 20;

/// The bodies of requests.
pub(crate) trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static
{
}

impl<B> RequestBody for B where B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

/// A call as its head puts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) head: &'a Head,
    pub(crate) connection: ConnectionContext,
    /// When its head was read.
    pub(crate) received: Instant,
}

/// A whole request message.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// As protobuf.
    pub(crate) bytes: Bytes,
    /// Bytes on the wire.
    pub(crate) sent: usize,
    /// When it was whole; the head's time where it came with that, which spares a look at the clock.
    pub(crate) at: Instant,
}

impl Call<'_> {
    /// When the client stops waiting, if it said so.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.head.timeout.and_then(|timeout| self.received.checked_add(timeout))
    }

    /// The context of an inference whose message arrived `at`, and which is given at most `limit`. The client's own
    /// deadline counts from its first byte; ours from its last, for a large message may rightly take long.
    pub(crate) fn context(&self, protocol: Protocol, at: Instant, limit: Duration) -> (RequestContext, Instant) {
        let ours = at + limit;
        let deadline = self.deadline().map_or(ours, |theirs| theirs.min(ours));
        let context = RequestContext {
            received: self.received,
            deadline: Some(deadline),
            priority: Priority::default(),
            caller: self.connection.caller,
            protocol,
            depth: 0,
            lends_thread: true,
        };
        (context, deadline)
    }
}

impl Shared {
    /// The only message of a call, unpacked, no longer than `limit` bytes as sent or unpacked. Of a long one `knock` is
    /// shown the first bytes ([`Messages::only`]).
    ///
    /// # Errors
    /// A [`Refusal`]: limits, time, broken bytes, or that of `knock`.
    pub(crate) async fn message<B: RequestBody>(
        &self,
        call: Call<'_>,
        body: B,
        limit: usize,
        knock: impl FnMut(&[u8]) -> Result<Option<Place>, Refusal>,
    ) -> Result<Arrived, Refusal> {
        let (front, config) = (&self.parts.front, &self.parts.config);
        let body = pin!(body);
        let mut messages = Messages::new(body, call.head.coding, limit, Some(call.received), (front, config));
        let arrival = pin!(async {
            let mut has_waited = false;
            let message = {
                let mut only = pin!(messages.only(knock));
                let poll = poll_fn(|context| {
                    let message = only.as_mut().poll(context);
                    has_waited |= message.is_pending();
                    message
                });
                poll.await?
            };
            let (sent, is_packed) = (message.len(), message.is_packed());
            let bytes = pin!(message.unpack(limit, front, &*self.parts.compute)).await?;
            Ok(Arrived { bytes, sent, at: if has_waited || is_packed { now() } else { call.received } })
        });
        match call.deadline() {
            None => arrival.await,
            // In a box, for the room that its timer takes.
            deadline => Box::pin(within(deadline, call.received, arrival)).await,
        }
    }

    /// The only message of a call that carries no tensors, read.
    ///
    /// # Errors
    /// As for [`message`](Self::message), and `InvalidInput` where it is no such message.
    pub(crate) async fn request<M: Message + Default, B: RequestBody>(
        &self,
        call: Call<'_>,
        body: B,
    ) -> Result<M, Refusal> {
        let limit = SMALL_MESSAGE.min(self.parts.config.max_message_bytes);
        let arrived = self.message(call, body, limit, |_| Ok(Some(Place::default()))).await?;
        decode(arrived.bytes)
    }

    /// The answer that is `message`.
    ///
    /// # Errors
    /// A [`Refusal`] where it is too large.
    pub(crate) async fn reply(&self, call: Call<'_>, message: &impl Message) -> Result<Response<GrpcBody>, Refusal> {
        Ok(self.finish(call.head, Reply::new(message)?).await?.into_response(call.head))
    }

    /// `reply` as the client wants it.
    ///
    /// # Errors
    /// A [`Refusal`] where it is too large, or too much is waiting to be taken.
    pub(crate) async fn finish(&self, head: &Head, reply: Reply) -> Result<Reply, Refusal> {
        let parts = &self.parts;
        reply.finish(head.reply_coding, &parts.front, &*parts.compute, &parts.config).await
    }
}

/// Reads a message.
///
/// # Errors
/// `InvalidInput` where the bytes are none.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Refusal> {
    M::decode(bytes)
        .map_err(|error| Refusal::new(Reason::InvalidInput, format!("the message cannot be decoded: {error}")))
}

/// Waits for `future`, but not beyond the deadline. A large one should be pinned where it is: what is handed in by value
/// takes its room twice in the caller's future.
///
/// # Errors
/// Its own, or `Late`.
pub(crate) async fn within<T, E: From<Refusal>>(
    deadline: Option<Instant>,
    received: Instant,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(deadline) = deadline else { return future.await };
    // Late before it began: a client that gives no time at all gets no work done.
    if deadline <= now() {
        return Err(late(deadline, received).into());
    }
    timeout_at(deadline.into(), future).await.unwrap_or_else(|_| Err(late(deadline, received).into()))
}

/// The refusal of a call that has had its time.
pub(crate) fn late(deadline: Instant, received: Instant) -> Refusal {
    let waited = deadline.saturating_duration_since(received).as_millis();
    Refusal::new(Reason::Late, format!("deadline exceeded: no answer within {waited} ms"))
}
