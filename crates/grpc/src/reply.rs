//! One message of an answer, ready to be sent, and the answer around it.

use std::error::Error;

use bytes::{BufMut, Bytes};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use millrace_core::{Compute, Reason, Refusal, on_compute};
use millrace_protocol::front::Front;
use prost::Message;

use crate::body::{GrpcBody, Pieces};
use crate::coding::Coding;
use crate::config::GrpcConfig;
use crate::frame::PREFIX;
use crate::head::{Head, REQUEST_ID};

pub(crate) const CONTENT_TYPE: HeaderName = header::CONTENT_TYPE;
/// The content type of every answer.
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Bytes. Smaller answers are no burden even if every connection holds one.
const SMALL_ANSWER: usize = 64 << 10;

/// A message with its prefix.
#[derive(Debug)]
pub(crate) struct Reply {
    pieces: Pieces,
    bytes: usize,
    /// What the answer tells about its request beside.
    told: Option<Box<HeaderMap>>,
}

impl Reply {
    /// A message as protobuf.
    ///
    /// # Errors
    /// `TooLarge` when it does not fit the four bytes of its length.
    pub(crate) fn new(message: &impl Message) -> Result<Self, Refusal> {
        let length = message.encoded_len();
        let mut buffer = begin(length, length)?;
        message.encode_raw(&mut buffer);
        Ok(Self::from_pieces([Bytes::from(buffer)].into_iter().collect()))
    }

    /// No message at all: nothing is sent.
    pub(crate) fn nothing() -> Self {
        Self { pieces: Pieces::new(), bytes: 0, told: None }
    }

    /// From pieces, the first of which was begun by [`begin`].
    pub(crate) fn from_pieces(pieces: Pieces) -> Self {
        let bytes = pieces.iter().map(Bytes::len).sum();
        Self { pieces, bytes, told: None }
    }

    /// Bytes on the wire, the prefix included.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The pieces in order.
    pub(crate) fn into_pieces(self) -> Pieces {
        self.pieces
    }

    /// The same packed, where the client wants that and it is worth it, and counted as unsent until the client has taken
    /// it.
    ///
    /// # Errors
    /// `TooLarge` above the limit; `QueueFull` where clients have not taken too many answers.
    pub(crate) async fn finish(
        self,
        coding: Option<Coding>,
        front: &Front,
        compute: &dyn Compute,
        config: &GrpcConfig,
    ) -> Result<Self, Refusal> {
        if self.bytes > config.max_answer_bytes.saturating_add(PREFIX) {
            let limit = config.max_answer_bytes;
            return Err(Refusal::new(
                Reason::TooLarge,
                format!("the answer is larger than the limit of {limit} bytes"),
            ));
        }
        let packing = coding.filter(|_| config.compress_min_bytes.is_some_and(|least| self.bytes >= least));
        let mut reply = match packing {
            None => self,
            Some(coding) if self.bytes <= config.offload_bytes => self.packed(coding)?,
            Some(coding) => Box::pin(on_compute(compute, move || self.packed(coding))).await??,
        };
        if reply.bytes < SMALL_ANSWER {
            return Ok(reply);
        }
        let budget = &front.unsent;
        let held =
            std::mem::take(&mut reply.pieces).into_iter().map(|piece| budget.hold(piece)).collect::<Option<Pieces>>();
        let pieces = held.ok_or_else(|| {
            let limit = budget.total();
            Refusal::new(
                Reason::QueueFull,
                format!("answers that clients have not taken yet have reached their common limit of {limit} bytes"),
            )
        })?;
        Ok(Self { pieces, ..reply })
    }

    fn packed(self, coding: Coding) -> Result<Self, Refusal> {
        let parts =
            self.pieces.iter().enumerate().map(|(index, piece)| if index == 0 { &piece[PREFIX..] } else { piece });
        let packed = coding.pack(parts).map_err(|error| {
            let cause: Box<dyn Error + Send + Sync> = error.into();
            Refusal::new(Reason::BackendBroken, "the answer could not be compressed").with_cause(cause)
        })?;
        let mut buffer = Vec::with_capacity(PREFIX + packed.len());
        buffer.put_u8(1);
        buffer.put_u32(length_of(packed.len())?);
        buffer.extend_from_slice(&packed);
        Ok(Self::from_pieces([Bytes::from(buffer)].into_iter().collect()))
    }

    /// The same with what the call asked about itself, for its head.
    pub(crate) fn telling(mut self, told: HeaderMap) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// The whole answer to a call that wants one message.
    pub(crate) fn into_response(self, head: &Head) -> Response<GrpcBody> {
        let mut response = answer(GrpcBody::message(self.pieces), head);
        if let Some(told) = self.told {
            response.headers_mut().extend(*told);
        }
        response
    }
}

/// An answer that begins well.
pub(crate) fn answer(body: GrpcBody, head: &Head) -> Response<GrpcBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    // Messages that are not packed say so one by one.
    if let Some(coding) = head.reply_coding {
        headers.insert(ENCODING, HeaderValue::from_static(coding.name()));
    }
    if let Some(id) = &head.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    response
}

/// A buffer that begins with the prefix of a message of `length` bytes, with room for `room` more.
///
/// # Errors
/// `TooLarge` when the length does not fit its four bytes.
pub(crate) fn begin(length: usize, room: usize) -> Result<Vec<u8>, Refusal> {
    let mut buffer = Vec::with_capacity(PREFIX + room);
    buffer.put_u8(0);
    buffer.put_u32(length_of(length)?);
    Ok(buffer)
}

fn length_of(length: usize) -> Result<u32, Refusal> {
    u32::try_from(length).map_err(|_| Refusal::new(Reason::TooLarge, "the answer is larger than 4 GiB"))
}
