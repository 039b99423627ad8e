//! Predictions, as a codec of the common exchange: JSON or raw bytes in, JSON out, as over REST.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use http::Response;
use millrace_core::{
    InferResponse, Protocol, Reason, Refusal, RequestContext, Resolver, Servable, Signature, Tensor, Wanted,
};
use millrace_json::{DEFAULT_MAX_DEPTH, PlainBody, decode_fields, encode_plain_within};
use millrace_proto::google::rpc::Status;
use millrace_proto::org::pytorch::serve::grpc::inference::PredictionResponse;
use millrace_protocol::front::now;
use millrace_protocol::torchserve::resolve;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::failure;
use super::request::Prediction;
use crate::body::GrpcBody;
use crate::call::{Call, RequestBody};
use crate::config::GrpcConfig;
use crate::exchange::{Codec, Question, Room, Unread, examples, exchange_one};
use crate::failure::Failure;
use crate::head::Head;
use crate::receive::Message;
use crate::reply::{Reply, begin};
use crate::service::Shared;
use crate::stream::{Answers, Plan, serve};

/// Reads and writes prediction messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct PredictCodec {
    max_answer: usize,
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(super) struct Asked {
    signature: usize,
    sequence: Option<Box<str>>,
    names_version: bool,
}

impl PredictCodec {
    pub(super) fn new(config: &GrpcConfig) -> Self {
        Self { max_answer: config.max_answer_bytes }
    }
}

impl Codec for PredictCodec {
    type Reply = Asked;

    const PROTOCOL: Protocol = Protocol::TorchServeGrpc;

    /// Its version.
    const NAMING: u32 = 2;

    fn names_version(&self, reply: &Asked) -> bool {
        reply.names_version
    }

    fn resolve(
        &self,
        message: &Bytes,
        resolver: &dyn Resolver,
        context: &RequestContext,
    ) -> Result<Arc<dyn Servable>, Failure> {
        let request = Prediction::read(message).map_err(|error| failure(error.refusal()))?;
        if request.model.is_empty() {
            return Err(failure(Refusal::new(Reason::InvalidInput, "Parameter model_name is required.")));
        }
        Ok(resolve(resolver, request.model, Some(request.version), context)?)
    }

    fn decode(&self, servable: &dyn Servable, message: &Bytes, room: &mut Room<'_>) -> Result<Question<Asked>, Unread> {
        if !room.spend(message.len()) {
            return Err(Unread::Long);
        }
        let request = Prediction::read(message).map_err(|error| failure(error.refusal()))?;
        let (signatures, fields) = (servable.signatures(), request.fields(message));
        let PlainBody { signature: index, inputs } = decode_fields(&fields, signatures, DEFAULT_MAX_DEPTH)
            .map_err(|error| failure(error.refusal(servable.model())))?;
        let signature = signatures.get(index);
        let examples = signature.map_or(1, |signature: &Signature| examples(signature, &inputs));
        let names_version = !request.version.is_empty();
        let reply = Asked { signature: index, sequence: request.sequence.map(Box::from), names_version };
        Ok(Question { signature: index, inputs, wanted: Wanted::All, examples, reply })
    }

    fn weight(&self, outputs: &[Tensor]) -> usize {
        // Text is about four times the size of its tensors, and lists of nothing are text too.
        let lists = |tensor: &Tensor| tensor.shape().iter().take_while(|size| **size > 0).product();
        let bytes = |tensor: &Tensor| if tensor.n_bytes() == 0 { lists(tensor) } else { tensor.n_bytes() };
        outputs.iter().map(bytes).fold(0, usize::saturating_add).saturating_mul(4)
    }

    fn encode(&self, servable: &dyn Servable, asked: &Asked, response: &InferResponse) -> Result<Reply, Refusal> {
        let signature = servable.signatures().get(asked.signature).ok_or_else(|| {
            Refusal::new(Reason::BackendBroken, format!("model `{}` changed its signatures", servable.model()))
        })?;
        let text = encode_plain_within(signature, &response.outputs, (b"", b""), self.max_answer)
            .map_err(|error| error.refusal(servable.model()))?;
        write(text, asked.sequence.as_deref())
    }

    fn failure(refusal: Refusal) -> Failure {
        failure(refusal)
    }
}

/// A `PredictionResponse` around `text`, which is not copied.
fn write(text: Vec<u8>, sequence: Option<&str>) -> Result<Reply, Refusal> {
    let field_len = |length: usize| 1 + encoded_len_varint(length as u64) + length;
    let text_len = if text.is_empty() { 0 } else { field_len(text.len()) };
    let length = text_len + sequence.map_or(0, |sequence| field_len(sequence.len()));
    let mut buffer = begin(length, length - text.len())?;
    if text_len > 0 {
        buffer.put_u8(1 << 3 | 2);
        encode_varint(text.len() as u64, &mut buffer);
    }
    let head = Bytes::from(std::mem::take(&mut buffer));
    if let Some(sequence) = sequence {
        buffer.put_u8(2 << 3 | 2);
        encode_varint(sequence.len() as u64, &mut buffer);
        buffer.put_slice(sequence.as_bytes());
    }
    let pieces = [head, Bytes::from(text), Bytes::from(buffer)].into_iter().filter(|piece| !piece.is_empty());
    Ok(Reply::from_pieces(pieces.collect()))
}

/// Answers the requests of a stream, one after the other: nothing in an answer says which of a sequence's requests it is
/// for. A request that fails is answered with a status, and the stream goes on.
pub(super) fn stream<B: RequestBody>(shared: &Arc<Shared>, call: Call<'_>, body: B) -> Response<GrpcBody> {
    let max_message_bytes = shared.parts.config.max_message_bytes;
    let asker = Arc::new(Asker { shared: Arc::clone(shared), head: call.head.clone(), connection: call.connection });
    let work = move |message: Message, answers: Answers| Arc::clone(&asker).answer(message, answers);
    serve(shared, call, body, Plan { max_message_bytes, at_once: 1, failure, work })
}

/// What the requests of one stream share.
struct Asker {
    shared: Arc<Shared>,
    head: Head,
    connection: millrace_protocol::front::ConnectionContext,
}

impl Asker {
    /// Answers one request.
    async fn answer(self: Arc<Self>, message: Message, answers: Answers) -> Result<(), Failure> {
        let shared = &self.shared;
        // The call's own deadline is the stream's, and kept there.
        let head = Head { timeout: None, ..self.head.clone() };
        let call = Call { head: &head, connection: self.connection, received: now() };
        let codec = PredictCodec::new(&shared.parts.config);
        let reply = match exchange_one(shared, call, &codec, message).await {
            Ok(reply) => reply,
            Err(failed) => {
                shared.log(&failed, &self.head);
                refused(&failed)?
            }
        };
        // Nobody listens any more where this fails.
        let _gone = answers.send(reply).await;
        Ok(())
    }
}

/// The answer that says why a request failed.
fn refused(failed: &Failure) -> Result<Reply, Failure> {
    let status = Status {
        code: i32::from(failed.code().number()),
        message: failed.refusal().message().to_owned(),
        details: Vec::new(),
    };
    Reply::new(&PredictionResponse { status: Some(status), ..PredictionResponse::default() }).map_err(failure)
}
