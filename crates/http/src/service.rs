//! The data port's service: from a request to its route, and from the route's result to the finished answer.
//!
//! What the TensorFlow Serving routes do is in `tfs`; paths are read in `route`.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode, request};
use http_body::Body;
use millrace_core::{CallerId, Catalog, Compute, Reason, Refusal, Resolver};
use millrace_protocol::tfs::Bare;
use tower_service::Service;

use crate::budget::Budget;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::head::{Head, REQUEST_ID};
use crate::log::FailureLog;
use crate::metrics::{Refusals, Table};
use crate::readiness::{MetricsText, Readiness};
use crate::response::{self, Answer, ResponseBody};
use crate::route::{Route, route};
use crate::{health, tfs};

/// What the data port's service is made of.
#[derive(Debug, Clone)]
pub struct HttpParts {
    /// Finds the version that answers.
    pub resolver: Arc<dyn Resolver>,
    /// Says what is loaded.
    pub catalog: Arc<dyn Catalog>,
    /// Takes decoding and encoding that is too long for an I/O thread.
    pub compute: Arc<dyn Compute>,
    /// What the health routes report.
    pub readiness: Readiness,
    /// Renders the metrics page.
    pub metrics_text: MetricsText,
    /// Limits and switches.
    pub config: HttpConfig,
}

/// What a listener knows about the connection that a request came by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionContext {
    /// Who asks, for fairness.
    pub caller: CallerId,
}

/// Makes the data port's service. Its metric handles belong to the recorder that is installed when they are first used.
pub fn http_service(parts: HttpParts) -> HttpService {
    let config = &parts.config;
    let table = Table::new(config.max_metric_series);
    let receiving = Budget::new(config.max_receiving_bytes.max(config.max_body_bytes));
    let unsent = Budget::new(config.max_unsent_bytes.max(config.max_answer_bytes as u64));
    HttpService(Arc::new(Shared {
        parts,
        table,
        receiving,
        unsent,
        refusals: Refusals::default(),
        log: FailureLog::new(),
    }))
}

/// The data port's service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct HttpService(Arc<Shared>);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) parts: HttpParts,
    pub(crate) table: Table,
    pub(crate) receiving: Arc<Budget>,
    pub(crate) unsent: Arc<Budget>,
    pub(crate) refusals: Refusals,
    pub(crate) log: FailureLog,
}

impl HttpService {
    /// Answers one request. Dropping the future cancels it.
    pub async fn answer<B>(&self, request: Request<B>, connection: ConnectionContext) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let shared = &*self.0;
        let (parts, body) = request.into_parts();
        let head = Head::read(&parts.headers);
        let mut answer = match route(parts.uri.path()) {
            Route::Infer(target, verb) if parts.method == Method::POST => {
                let asked = tfs::Asked { target: &target, verb, head: &head, caller: connection.caller };
                match tfs::infer(shared, asked, body).await {
                    Ok(answer) => answer,
                    Err(failure) => shared.log.refuse(&failure, parts.version, head.request_id),
                }
            }
            other => shared.answer_without_body(other, &parts, &head),
        };
        shared.finish(&mut answer, &head);
        answer
    }
}

impl Shared {
    /// The routes that read nothing but the head.
    fn answer_without_body(&self, route: Route<'_>, parts: &request::Parts, head: &Head<'_>) -> Answer {
        let get = parts.method == Method::GET;
        let readable = get || parts.method == Method::HEAD;
        let result = match route {
            Route::Infer(..) | Route::Status(_) | Route::Metadata(_) | Route::List | Route::Malformed
                if parts.method == Method::OPTIONS && self.parts.config.cors =>
            {
                return preflight(head);
            }
            Route::Status(target) if get => tfs::status(&*self.parts.catalog, &target),
            Route::Metadata(target) if get => tfs::metadata(&*self.parts.resolver, &target),
            Route::List if get => Ok(tfs::list(&*self.parts.catalog)),
            Route::Infer(..) | Route::Status(_) | Route::Metadata(_) | Route::List | Route::Malformed => {
                Err(malformed(parts))
            }
            Route::Metrics | Route::Health | Route::Live | Route::Ready if !readable => {
                return response::method_not_allowed("GET, HEAD");
            }
            Route::Metrics => return response::prometheus(self.parts.metrics_text.render()),
            Route::Health => return health::health(&self.parts.readiness),
            Route::Live => return health::live(&self.parts.readiness),
            Route::Ready => return health::ready(&self.parts.readiness, &*self.parts.catalog),
            Route::Unknown => return response::text(StatusCode::NOT_FOUND, "not found\n"),
        };
        result.unwrap_or_else(|failure| self.log.refuse(&failure, parts.version, head.request_id))
    }

    /// What every answer carries.
    fn finish(&self, answer: &mut Answer, head: &Head<'_>) {
        if let Some(id) = head.request_id {
            answer.headers_mut().insert(REQUEST_ID, id.clone());
        }
        if self.parts.config.cors {
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
        }
    }
}

/// A path or method below `/v1/` that is none of TensorFlow Serving's.
fn malformed(parts: &request::Parts) -> Failure {
    let (method, path) = (Bare(parts.method.as_str()), Bare(parts.uri.path()));
    Refusal::new(Reason::InvalidInput, format!("Malformed request: {method} {path}")).into()
}

/// The answer to a browser that asks whether it may ask.
fn preflight(head: &Head<'_>) -> Answer {
    let origin = head.origin.map(HeaderValue::as_bytes).map(String::from_utf8_lossy).unwrap_or_default();
    let known = origin.contains("http://") || origin.contains("https://");
    response::empty(if known { StatusCode::OK } else { StatusCode::BAD_REQUEST })
}

/// The future of the tower services.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + 'static>>;

/// For tower's stacks. The caller is taken from the request's extensions, where a [`ConnectionContext`] may stand.
impl<B> Service<Request<B>> for HttpService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ServiceFuture;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ServiceFuture {
        let service = self.clone();
        let connection = request.extensions().get::<ConnectionContext>().copied().unwrap_or_default();
        Box::pin(async move { Ok(service.answer(request, connection).await) })
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}
