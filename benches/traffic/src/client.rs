//! Connections to the server, and what is sent over them.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::plan::Stream;

/// HTTP/2: bytes that may be on their way to us, so that the generator is not what slows the server down.
const WINDOW: u32 = 8 << 20;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// gRPC's `Retry-After`.
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// gRPC's code for that.
const UNKNOWN: u16 = 2;

/// A request that is asked again and again.
#[derive(Debug)]
pub(crate) struct Question {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    is_http2: bool,
    /// Where the milliseconds that are left are told.
    deadline: Option<HeaderName>,
}

impl Question {
    /// # Errors
    /// A body that cannot be read, or a path or header that cannot be sent.
    pub(crate) fn new(address: SocketAddr, stream: &Stream) -> Result<Self, Box<dyn Error>> {
        let path = stream.body.display();
        let body = std::fs::read(&stream.body).map_err(|error| format!("{path}: {error}"))?;
        let uri = if stream.http2.is_some() { format!("http://{address}{}", stream.path) } else { stream.path.clone() };
        let mut headers = HeaderMap::new();
        if stream.http2.is_none() {
            headers.insert(HOST, HeaderValue::from_str(&address.to_string())?);
        }
        for (name, value) in &stream.headers {
            headers.insert(name.parse::<HeaderName>()?, value.parse()?);
        }
        let deadline = stream.deadline_header.as_deref().map(str::parse).transpose()?;
        Ok(Self { uri: uri.parse()?, headers, body: Bytes::from(body), is_http2: stream.http2.is_some(), deadline })
    }

    fn request(&self, left: Duration) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(name) = &self.deadline {
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            // gRPC wants a unit, and no more than eight digits.
            let text = format!("{}m", left.min(99_999_999));
            let value = if *name == GRPC_TIMEOUT { HeaderValue::from_str(&text).ok() } else { Some(left.into()) };
            request.headers_mut().extend(value.map(|value| (name.clone(), value)));
        }
        *request.version_mut() = if self.is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        request
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Of HTTP, or what gRPC says where that is not 0.
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
}

/// An open connection, or one's share of it.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// # Errors
    /// There is no server, or it does not speak the protocol.
    pub(crate) async fn open(address: SocketAddr, is_http2: bool) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
            let (sender, connection) = builder.handshake(io).await?;
            tokio::task::spawn_local(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::task::spawn_local(connection);
        Ok(Self::Http1(sender))
    }

    /// Whether the server has closed it, as it may after an answer.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another share, where several can use the connection at once.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Asks, and tells that so much time is `left` where the question is to tell that.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn ask(&mut self, question: &Question, left: Duration) -> Result<Answer, hyper::Error> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(question.request(left)).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(question.request(left)).await?
            }
        };
        let (parts, mut body) = response.into_parts();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = body.frame().await {
            if let Ok(end) = frame?.into_trailers() {
                trailers = end;
            }
        }
        let number = |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let told = |name: &HeaderName| trailers.get(name).or_else(|| parts.headers.get(name)).and_then(number);
        let grpc = told(&GRPC_STATUS).map(|code| u16::try_from(code).unwrap_or(UNKNOWN));
        let pushback = told(&GRPC_PUSHBACK).map(Duration::from_millis);
        let wait = parts.headers.get(RETRY_AFTER).and_then(number).map(Duration::from_secs).or(pushback);
        let is_grpc =
            parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        // An answer of gRPC that does not say how it went is none.
        let grpc = if is_grpc { grpc.or(Some(UNKNOWN)) } else { None };
        let status = grpc.filter(|code| *code > 0).unwrap_or_else(|| parts.status.as_u16());
        Ok(Answer { status, retry_after: wait })
    }
}
