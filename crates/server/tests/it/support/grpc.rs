//! A small gRPC client over HTTP/2: messages that any client would send, and bytes that none would.
//!
//! It owns a thread that drives its connection, so that tests stay plain functions.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Request};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// The status codes that the tests speak of.
pub(crate) mod code {
    pub(crate) const OK: u32 = 0;
    pub(crate) const INVALID_ARGUMENT: u32 = 3;
    pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
    pub(crate) const NOT_FOUND: u32 = 5;
    pub(crate) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(crate) const FAILED_PRECONDITION: u32 = 9;
    pub(crate) const UNIMPLEMENTED: u32 = 12;
    pub(crate) const INTERNAL: u32 = 13;
    pub(crate) const UNAVAILABLE: u32 = 14;
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection.
#[derive(Debug)]
pub(crate) struct Grpc {
    runtime: Runtime,
    sender: SendRequest<Body>,
    address: SocketAddr,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The status code, or `None` where the call ended without one: by a reset, or by plain HTTP.
    pub(crate) code: Option<u32>,
    /// The status message, with its percent signs decoded.
    pub(crate) message: String,
    /// The HTTP status, or 0 where there was no answer at all.
    pub(crate) http: u16,
    /// The messages that came before the end, without their frames.
    pub(crate) messages: Vec<Bytes>,
    /// What came before them.
    pub(crate) head: Box<HeaderMap>,
}

impl Ended {
    /// The one message of a call that went well.
    #[track_caller]
    pub(crate) fn ok<M: Message + Default>(&self) -> M {
        assert_eq!(self.code, Some(code::OK), "{}", self.message);
        assert_eq!(self.messages.len(), 1);
        M::decode(self.messages[0].clone()).expect("the answer is of the type")
    }

    /// The call was refused with this code, and its message has `text` in it.
    #[track_caller]
    pub(crate) fn refuses(&self, code: u32, text: &str) {
        assert_eq!(self.code, Some(code), "{}", self.message);
        assert!(self.message.contains(text), "`{}` lacks `{text}`", self.message);
    }
}

/// A message in its frame, not compressed.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("messages are small"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// A call that is under way; dropping it resets its stream.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    grpc: &'a Grpc,
    task: JoinHandle<Ended>,
}

impl Call<'_> {
    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let ended = self.grpc.runtime.block_on(async { timeout(PATIENCE, &mut self.task).await });
        ended.expect("the call ends").expect("the task does not panic")
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Grpc {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("the server accepts");
            stream.set_nodelay(true).expect("the option is known");
            let io = TokioIo::new(stream);
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (sender, connection) =
                builder.adaptive_window(true).handshake(io).await.expect("the server shakes hands");
            // How it ends is seen by the calls on it.
            tokio::spawn(async { drop(connection.await) });
            sender
        });
        Self { runtime, sender, address }
    }

    /// One message, one answer.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str, message: &impl Message) -> Ended {
        self.send(path, &[], framed(&message.encode_to_vec())).wait()
    }

    /// Any bytes as the body, and headers beside the usual ones or in their place.
    pub(crate) fn send(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Call<'_> {
        self.begin(path, headers, Full::new(body).boxed())
    }

    fn begin(&self, path: &str, headers: &[(&str, &str)], body: Body) -> Call<'_> {
        let request = self.request(path, headers, body);
        let mut sender = self.sender.clone();
        let task = self.runtime.spawn(async move {
            match sender.send_request(request).await {
                Err(error) => Ended {
                    code: None,
                    message: error.to_string(),
                    http: 0,
                    messages: Vec::new(),
                    head: Box::default(),
                },
                Ok(response) => {
                    let (head, mut body) = response.into_parts();
                    let mut reader = Reader::default();
                    let trailers = reader.read(&mut body).await;
                    let mut ended = ended(trailers.as_ref().unwrap_or(&head.headers), head.status.as_u16());
                    (ended.messages, ended.head) = (reader.messages, Box::new(head.headers));
                    ended
                }
            }
        });
        Call { grpc: self, task }
    }

    fn request(&self, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
        let mut request = Request::post(format!("http://{}{path}", self.address)).body(body).expect("a sound path");
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
            let name = HeaderName::try_from(*name).expect("a sound name");
            request.headers_mut().insert(name, value.parse().expect("a sound value"));
        }
        request
    }

    /// A call with as many messages either way as one likes.
    #[track_caller]
    pub(crate) fn open(&self, path: &str, headers: &[(&str, &str)]) -> Stream<'_> {
        let (sender, body) = Channel::new(64);
        let request = self.request(path, headers, body.boxed());
        let mut requests = self.sender.clone();
        let answering = self.runtime.spawn(async move { requests.send_request(request).await });
        Stream { grpc: self, sender: Some(sender), answering: Some(answering), body: None, reader: Reader::default() }
    }
}

/// A call with messages both ways; dropping it resets its stream.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    grpc: &'a Grpc,
    sender: Option<Sender<Bytes>>,
    answering: Option<JoinHandle<hyper::Result<http::Response<Incoming>>>>,
    body: Option<(Incoming, HeaderMap)>,
    reader: Reader,
}

impl Stream<'_> {
    #[track_caller]
    pub(crate) fn send(&mut self, message: &impl Message) {
        let frame = framed(&message.encode_to_vec());
        let sender = self.sender.as_mut().expect("it was not closed");
        self.grpc.runtime.block_on(sender.send_data(frame)).expect("the server takes messages");
    }

    /// No more messages will follow.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }

    /// The next message, or how the call ended.
    #[track_caller]
    pub(crate) fn next<M: Message + Default>(&mut self) -> Result<M, Ended> {
        let Self { grpc, answering, body, reader, .. } = self;
        let next = async {
            if let Some(answering) = answering.take() {
                let response = answering.await.expect("the task does not panic").expect("the server answers");
                let (head, incoming) = response.into_parts();
                *body = Some((incoming, head.headers));
            }
            let (body, headers) = body.as_mut().expect("it was just put there");
            match reader.next(body).await {
                Some(message) => Ok(message),
                None => Err(ended(reader.trailers.as_ref().unwrap_or(headers), 200)),
            }
        };
        let next = grpc.runtime.block_on(async { timeout(PATIENCE, next).await }).expect("something comes");
        next.map(|message| M::decode(message).expect("the answer is of the type"))
    }
}

/// Takes messages out of a body.
#[derive(Debug, Default)]
struct Reader {
    buffer: BytesMut,
    messages: Vec<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reader {
    /// Reads to the end, and gives the trailers.
    async fn read(&mut self, body: &mut Incoming) -> Option<HeaderMap> {
        while let Some(message) = self.next(body).await {
            self.messages.push(message);
        }
        self.trailers.take()
    }

    async fn next(&mut self, body: &mut Incoming) -> Option<Bytes> {
        loop {
            if let [flag, a, b, c, d, rest @ ..] = &self.buffer[..] {
                assert_eq!(*flag, 0, "nobody asked for compression");
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    return Some(self.buffer.split_to(5 + length).freeze().slice(5..));
                }
            }
            match body.frame().await.and_then(Result::ok).map(Frame::into_data)? {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }
}

fn ended(headers: &HeaderMap, http: u16) -> Ended {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().expect("it is text"));
    let code = text("grpc-status").map(|value| value.parse().expect("the status is a number"));
    let message = percent_encoding::percent_decode_str(text("grpc-message").unwrap_or_default());
    Ended { code, message: message.decode_utf8_lossy().into_owned(), http, messages: Vec::new(), head: Box::default() }
}
