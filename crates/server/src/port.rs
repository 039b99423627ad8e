//! What answers behind every listener: the front-ends, told by which roles the listener has.
//!
//! Sockets are `net`'s, protocols the front-ends'; here is only who gets a request, and what is said to requests that
//! the server cuts off.

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use millrace_core::CallerId;
use millrace_http::{ConnectionContext, HttpService, ResponseBody, Roles};

use crate::net::Answer;

/// One listener's answers.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) http: HttpService,
    pub(crate) roles: Roles,
}

/// The protocol of a request, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tongue {
    Http,
}

impl Answer for Port {
    type Body = ResponseBody;
    type Tongue = Tongue;

    fn tongue(_request: &Request<Incoming>) -> Tongue {
        Tongue::Http
    }

    async fn answer(&self, request: Request<Incoming>, caller: CallerId) -> Response<ResponseBody> {
        self.http.answer(request, ConnectionContext { caller, roles: self.roles }).await
    }

    fn cut(tongue: Tongue) -> Response<ResponseBody> {
        match tongue {
            Tongue::Http => {
                let body = r#"{"error": "the server is shutting down and did not finish this request in time"}"#;
                let mut response = Response::new(ResponseBody::new(body));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                response
            }
        }
    }

    fn last_words(tongue: Tongue) -> Option<HeaderMap> {
        match tongue {
            Tongue::Http => None,
        }
    }
}
