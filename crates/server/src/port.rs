//! What answers behind every listener: the front-ends, told by which roles the listener has.
//!
//! Sockets are `net`'s, protocols the front-ends'; here is only who gets a request, and what is said to requests that
//! the server cuts off.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, DATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use httpdate::HttpDate;
use hyper::body::{Body, Frame, SizeHint};
use millrace_core::{CallerId, Reason, Refusal};
use millrace_grpc::{GrpcBody, GrpcService, is_grpc, refusal_response, refusal_trailers};
use millrace_http::{ConnectionContext, HttpService, ResponseBody, Roles};

use crate::net::{Answer, RequestBody};

/// One listener's answers.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) http: HttpService,
    pub(crate) grpc: GrpcService,
    pub(crate) roles: Roles,
}

/// The protocol of a request, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tongue {
    Http,
    Grpc,
}

impl Answer for Port {
    type Body = PortBody;
    type Tongue = Tongue;

    fn tongue(parts: &Parts) -> Tongue {
        // The version first: it is what HTTP/1 requests, the many, are told by without a look at their headers.
        let is_grpc = parts.version == Version::HTTP_2 && is_grpc(&parts.headers);
        if is_grpc { Tongue::Grpc } else { Tongue::Http }
    }

    async fn answer(&self, tongue: Tongue, parts: &Parts, body: RequestBody, caller: CallerId) -> Response<PortBody> {
        let connection = ConnectionContext { caller, roles: self.roles };
        match tongue {
            Tongue::Http => {
                let mut response = pin!(self.http.answer_parts(parts, body, connection)).await.map(PortBody::Http);
                let now = HttpDate::from(SystemTime::now());
                response.headers_mut().insert(DATE, HeaderValue::try_from(now.to_string()).expect("a date is ASCII"));
                response
            }
            // Without a date, as from gRPC's own servers: nobody reads it, and it costs a tenth of a microsecond.
            Tongue::Grpc => pin!(self.grpc.answer_parts(parts, body, connection)).await.map(PortBody::Grpc),
        }
    }

    async fn answer_http1(&self, parts: &Parts, body: RequestBody, caller: CallerId) -> Response<PortBody> {
        let connection = ConnectionContext { caller, roles: self.roles };
        pin!(self.http.answer_parts(parts, body, connection)).await.map(PortBody::Http)
    }

    fn cut(tongue: Tongue) -> Response<PortBody> {
        match tongue {
            Tongue::Http => {
                let body = format!("{{\"error\": \"{CUT}\"}}");
                let mut response = Response::new(PortBody::Http(ResponseBody::new(body)));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                response
            }
            Tongue::Grpc => refusal_response(&cut_off()).map(PortBody::Grpc),
        }
    }

    fn last_words(tongue: Tongue) -> Option<HeaderMap> {
        match tongue {
            Tongue::Http => None,
            Tongue::Grpc => Some(refusal_trailers(&cut_off())),
        }
    }
}

/// What a request is told that the server does not finish.
const CUT: &str = "the server is shutting down and did not finish this request in time";

fn cut_off() -> Refusal {
    Refusal::new(Reason::Draining, CUT)
}

/// The body of either front-end.
#[derive(Debug)]
pub(crate) enum PortBody {
    Http(ResponseBody),
    Grpc(GrpcBody),
}

impl Body for PortBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Http(body) => Pin::new(body).poll_frame(context),
            Self::Grpc(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(body) => body.is_end_stream(),
            Self::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http(body) => body.size_hint(),
            Self::Grpc(body) => body.size_hint(),
        }
    }
}
