//! The way of an inference call whose message names its model and holds its inputs: limits, message, version, inputs,
//! model, answer.
//!
//! A protocol brings a [`Codec`], which reads messages and writes answers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use millrace_core::{
    InferRequest, InferResponse, Place, Protocol, Reason, Refusal, RequestContext, Resolver, Servable, Signature,
    Tensor, TensorList, Wanted, contained, on_compute,
};
use millrace_protocol::front::metrics::{Answered, Status};
use millrace_protocol::front::{Answering, Budget, Record, Share, now};
use tokio::time::timeout_at;

use crate::body::GrpcBody;
use crate::call::{Arrived, Call, RequestBody, late};
use crate::failure::Failure;
use crate::knock::naming;
use crate::receive::Message;
use crate::reply::Reply;
use crate::service::Shared;

/// How a protocol reads the messages of inference calls and writes answers. A small value; it goes along to a compute
/// thread where the work is long.
pub(crate) trait Codec: Clone + Send + Sync + 'static {
    /// What writing the answer needs to know of the request.
    type Reply: Send + Sync + 'static;

    /// The protocol, for metrics and contexts.
    const PROTOCOL: Protocol;

    /// The last of the fields that name the model and its version; they stand first in the message by all writers.
    const NAMING: u32;

    /// Whether the request named the version and not the model alone, for the metrics that tell.
    fn names_version(&self, _reply: &Self::Reply) -> bool {
        false
    }

    /// Finds the version that the message asks for.
    ///
    /// # Errors
    /// A [`Failure`] in the protocol's words.
    fn resolve(
        &self,
        message: &Bytes,
        resolver: &dyn Resolver,
        context: &RequestContext,
    ) -> Result<Arc<dyn Servable>, Failure>;

    /// Reads a message for `servable`, within `room`.
    ///
    /// # Errors
    /// [`Unread`].
    fn decode(
        &self,
        servable: &dyn Servable,
        message: &Bytes,
        room: &mut Room<'_>,
    ) -> Result<Question<Self::Reply>, Unread>;

    /// About how many bytes writing these outputs will read and write: long work goes to a compute thread.
    fn weight(&self, outputs: &[Tensor]) -> usize;

    /// Writes the answer.
    ///
    /// # Errors
    /// A [`Refusal`] where the outputs have no form in this protocol or are larger than allowed.
    fn encode(&self, servable: &dyn Servable, reply: &Self::Reply, response: &InferResponse) -> Result<Reply, Refusal>;

    /// A refusal in the protocol's codes and words.
    fn failure(refusal: Refusal) -> Failure;
}

/// What a message asks.
#[derive(Debug)]
pub(crate) struct Question<R> {
    /// The position of the signature.
    pub(crate) signature: usize,
    /// In the order of the signature.
    pub(crate) inputs: TensorList,
    pub(crate) wanted: Wanted,
    /// Rows, for the metrics.
    pub(crate) examples: usize,
    pub(crate) reply: R,
}

/// Why a message is not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is more work than this thread should do.
    Long,
    /// It is wrong.
    Refused(Failure),
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// Bytes. Less than that is not counted when it is made.
const SMALL: usize = 64 << 10;

/// What reading one message may cost.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    /// Bytes to be read and written on this thread.
    work: usize,
    /// Bytes of tensors that are not parts of the message.
    made: usize,
    /// What all requests share.
    budget: &'a Arc<Budget>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// For one request.
    Request,
    /// For all requests together.
    Everyone,
}

impl<'a> Room<'a> {
    /// Room for tensors of `made` bytes that are not parts of the message, out of `budget`.
    pub(crate) fn new(work: usize, made: usize, budget: &'a Arc<Budget>) -> Self {
        Self { work, made, budget }
    }

    /// Whether so much work may be done here; it is then taken as done.
    #[must_use]
    pub(crate) fn spend(&mut self, work: usize) -> bool {
        self.work.checked_sub(work).inspect(|left| self.work = *left).is_some()
    }

    /// Room for a tensor of `bytes` bytes that is no part of the message. Where there is something to count, the share
    /// must live as long as the tensor.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(crate) fn make(&mut self, bytes: usize) -> Result<Option<Share>, NoRoom> {
        self.made = self.made.checked_sub(bytes).ok_or(NoRoom::Request)?;
        if bytes < SMALL {
            return Ok(None);
        }
        let mut share = Share::new(self.budget);
        if share.grow(bytes) { Ok(Some(share)) } else { Err(NoRoom::Everyone) }
    }
}

/// Bytes that count until their last handle is dropped.
pub(crate) fn counted(bytes: Vec<u8>, share: Option<Share>) -> Bytes {
    struct Counted(Vec<u8>, #[expect(dead_code, reason = "held for its drop")] Share);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    match share {
        Some(share) => Bytes::from_owner(Counted(bytes, share)),
        None => Bytes::from(bytes),
    }
}

/// How many examples a request holds, in the words of TensorFlow Serving's metrics: its rows, or 1 where it has none.
pub(crate) fn examples(signature: &Signature, inputs: &[Tensor]) -> usize {
    let sizes = inputs.first().map(Tensor::shape).filter(|_| signature.is_batched());
    sizes.and_then(|sizes| sizes.first().copied()).unwrap_or(1)
}

/// A request that was answered.
pub(crate) struct Done {
    pub(crate) reply: Reply,
    pub(crate) encoded: Instant,
    pub(crate) times: Answered,
}

/// Answers a call of one message with one message, and records how that went.
///
/// # Errors
/// A [`Failure`] for the caller, recorded, not yet logged.
pub(crate) async fn exchange<C: Codec, B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    codec: &C,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    let mut record = Record::new(&shared.parts.front, C::PROTOCOL, call.received);
    record.inquire(call.head.inquiry(shared.parts.config.server_timing));
    let result = pin!(async {
        shared.check_serving().map_err(C::failure)?;
        let limit = shared.parts.config.max_message_bytes;
        let knock = |start: &[u8]| knock::<C>(shared, call, codec, &mut record, start);
        let arrived = pin!(shared.message(call, body, limit, knock)).await.map_err(C::failure)?;
        pin!(infer(shared, call, codec, arrived, &mut record)).await
    })
    .await;
    conclude(shared, record, result).map(|reply| reply.into_response(call.head))
}

/// Announces a request of which the first bytes are there.
#[cold]
fn knock<C: Codec>(
    shared: &Shared,
    call: Call<'_>,
    codec: &C,
    record: &mut Record<'_>,
    start: &[u8],
) -> Result<Option<Place>, Refusal> {
    let Some(naming) = naming(start, C::NAMING) else { return Ok(None) };
    let naming = Bytes::copy_from_slice(naming);
    let find = |context: &RequestContext| codec.resolve(&naming, &*shared.parts.resolver, context).ok();
    shared.knock(call, C::PROTOCOL, record, find).map(Some)
}

/// Answers one message of a stream as if it were a call of its own, and records how that went.
///
/// # Errors
/// A [`Failure`] for the caller, recorded, not yet logged.
pub(crate) async fn exchange_one<C: Codec>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    codec: &C,
    message: Message,
) -> Result<Reply, Failure> {
    let parts = &shared.parts;
    let mut record = Record::new(&parts.front, C::PROTOCOL, call.received);
    let result = async {
        shared.check_serving().map_err(C::failure)?;
        let (sent, limit) = (message.len(), parts.config.max_message_bytes);
        let bytes = message.unpack(limit, &parts.front, &*parts.compute).await.map_err(C::failure)?;
        infer(shared, call, codec, Arrived { bytes, sent, at: now() }, &mut record).await
    };
    let result = result.await;
    conclude(shared, record, result)
}

/// Records how a request ended, and tells it what it asked about itself and was not told yet.
pub(crate) fn conclude(
    shared: &Shared,
    mut record: Record<'_>,
    result: Result<Done, Failure>,
) -> Result<Reply, Failure> {
    match result {
        Ok(mut done) => {
            if let Some(account) = record.take_account() {
                let mut told = HeaderMap::new();
                account.tell(done.encoded, &*shared.parts.catalog, |name, text| put(&mut told, name, text));
                done.reply = done.reply.telling(told);
            }
            let answered = Answered { response_bytes: done.reply.len(), ..done.times };
            record.answered(done.encoded, answered);
            Ok(done.reply)
        }
        Err(failure) => Err(refused(shared, record, failure)),
    }
}

/// The same for one that was refused.
pub(crate) fn refused(shared: &Shared, mut record: Record<'_>, mut failure: Failure) -> Failure {
    if let Some(account) = record.take_account() {
        let mut told = HeaderMap::new();
        let put = |name, text| put(&mut told, name, text);
        account.tell_refused(failure.refusal(), now(), &*shared.parts.catalog, put);
        failure = failure.telling(told);
    }
    record.refused(Status::Grpc(Some(failure.code())), failure.code(), failure.refusal().reason());
    failure
}

/// Puts a part of an account where the caller reads it.
#[cold]
fn put(headers: &mut HeaderMap, name: &'static str, text: String) {
    let value = HeaderValue::try_from(text).expect("an account is printable ASCII");
    headers.insert(HeaderName::from_static(name), value);
}

/// From a whole message to a whole answer, before the deadline.
///
/// What is rare or long waits in a box of its own, so that the future of a short call stays small.
async fn infer<C: Codec>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    codec: &C,
    arrived: Arrived,
    record: &mut Record<'_>,
) -> Result<Done, Failure> {
    record.carried(arrived.sent);
    let at = arrived.at;
    if let Some(account) = record.account() {
        account.arrived(at);
    }
    let (context, deadline) = call.context(C::PROTOCOL, at, shared.parts.config.request_timeout);
    let servable = codec.resolve(&arrived.bytes, &*shared.parts.resolver, &context)?;
    record.found(&*servable);
    let (answering, decoded, examples, reply) = {
        let question = match decode_here(shared, codec, &*servable, &arrived.bytes) {
            Ok(question) => question,
            Err(Unread::Refused(failure)) => return Err(failure),
            Err(Unread::Long) => {
                let reading = decode_elsewhere(shared, codec, &servable, arrived.bytes);
                Box::pin(before::<C, _>(deadline, context.received, reading)).await?
            }
        };
        let decoded = now();
        let Question { signature, inputs, wanted, examples, reply } = question;
        let request = InferRequest { signature, inputs, wanted, context };
        if let Some(account) = record.account() {
            account.asked(&*servable, &request, examples, decoded);
        }
        (contained(|| servable.infer(request)).map_err(C::failure)?, decoded, examples, reply)
    };
    let response = Answering::new(answering, deadline).await;
    let response = response.unwrap_or_else(|| Err(late(deadline, context.received))).map_err(C::failure)?;
    let answered = now();
    let (queue, compute) = (response.stages.queue(), response.stages.compute());
    if let Some(account) = record.account() {
        account.ran(response.stages, answered);
    }
    let names_version = codec.names_version(&reply);
    let reply = if codec.weight(&response.outputs) <= shared.parts.config.offload_bytes {
        contained(|| codec.encode(&*servable, &reply, &response)).and_then(|reply| reply).map_err(C::failure)?
    } else {
        let codec = codec.clone();
        let encode = move || codec.encode(&*servable, &reply, &response);
        let encoding = async { on_compute(&*shared.parts.compute, encode).await?.map_err(C::failure) };
        Box::pin(before::<C, _>(deadline, context.received, encoding)).await?
    };
    let reply = shared.finish(call.head, reply).await.map_err(C::failure)?;
    let encoded = now();
    let times = Answered {
        decode: decoded.saturating_duration_since(at),
        encode: encoded.saturating_duration_since(answered),
        queue,
        compute,
        examples,
        names_version,
        ..Answered::default()
    };
    Ok(Done { reply, encoded, times })
}

/// Reads the message where that is little work.
fn decode_here<C: Codec>(
    shared: &Shared,
    codec: &C,
    servable: &dyn Servable,
    message: &Bytes,
) -> Result<Question<C::Reply>, Unread> {
    let config = &shared.parts.config;
    let mut here = Room::new(config.offload_bytes, config.max_message_bytes, &shared.parts.front.receiving);
    contained(|| codec.decode(servable, message, &mut here))
        .unwrap_or_else(|refusal| Err(Unread::Refused(C::failure(refusal))))
}

/// Reads the message on a compute thread.
async fn decode_elsewhere<C: Codec>(
    shared: &Shared,
    codec: &C,
    servable: &Arc<dyn Servable>,
    message: Bytes,
) -> Result<Question<C::Reply>, Failure> {
    let (budget, most) = (Arc::clone(&shared.parts.front.receiving), shared.parts.config.max_message_bytes);
    let (codec, lease) = (codec.clone(), Arc::clone(servable));
    let read = on_compute(&*shared.parts.compute, move || {
        codec.decode(&*lease, &message, &mut Room::new(usize::MAX, most, &budget))
    });
    match read.await.map_err(C::failure)? {
        Ok(question) => Ok(question),
        Err(Unread::Refused(failure)) => Err(failure),
        Err(Unread::Long) => Err(C::failure(Refusal::new(Reason::TooLarge, "the message is too much work to read"))),
    }
}

/// Waits for `work` until `deadline`.
async fn before<C: Codec, T>(
    deadline: Instant,
    received: Instant,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(C::failure(late(deadline, received))))
}

impl Shared {
    /// Refuses new inference while the server shuts down.
    pub(crate) fn check_serving(&self) -> Result<(), Refusal> {
        if self.parts.readiness.is_refusing() {
            return Err(Refusal::new(Reason::Draining, "the server is shutting down"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millrace_protocol::front::Budget;

    use super::{NoRoom, Room, counted};

    #[test]
    fn room_is_for_one_request_and_for_all_together() {
        let budget = Budget::new(150_000);
        let mut room = Room::new(10, 200_000, &budget);
        assert!(room.spend(6) && room.spend(4) && !room.spend(1));
        assert!(room.make(1000).unwrap().is_none());
        let share = room.make(100_000).unwrap();
        let bytes = counted(vec![0; 100_000], share);
        assert_eq!(room.make(99_001).unwrap_err(), NoRoom::Request);
        assert_eq!(room.make(70_000).unwrap_err(), NoRoom::Everyone);
        let part = bytes.slice(..1);
        drop(bytes);
        assert_eq!(budget.taken(), 100_000);
        drop(part);
        assert_eq!(budget.taken(), 0);
    }
}
