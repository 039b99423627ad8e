//! The service: from a request to the family of its route, and from what that gives to the finished answer.
//!
//! What each family does is in the folder of its name.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use millrace_core::{Catalog, Compute, Control, Resolver};
use millrace_protocol::front::{ConnectionContext, Front, MetricsText, Readiness, Roles, Weight};
use tower_service::Service;

use crate::config::HttpConfig;
use crate::error::Failure;
use crate::exchange::Asked;
use crate::head::{Head, REQUEST_ID};
use crate::response::{self, Answer, ResponseBody};
use crate::route::{Family, family};
use crate::{admin, general, health, oip, openapi, platform, text, tfs, torchserve};

/// What the service is made of.
#[derive(Debug, Clone)]
pub struct HttpParts {
    /// Finds the version that answers.
    pub resolver: Arc<dyn Resolver>,
    /// Says what is loaded.
    pub catalog: Arc<dyn Catalog>,
    /// Takes orders, on listeners that are for them. Without it they are refused everywhere.
    pub control: Option<Arc<dyn Control>>,
    /// Takes decoding and encoding that is too long for an I/O thread.
    pub compute: Arc<dyn Compute>,
    /// What the health routes report.
    pub readiness: Readiness,
    /// Renders the metrics page.
    pub metrics_text: MetricsText,
    /// What it shares with the other front-ends of the server.
    pub front: Front,
    /// Limits and switches.
    pub config: HttpConfig,
}

/// Makes the service. Its metric handles belong to the recorder that is installed when they are first used.
pub fn http_service(parts: HttpParts) -> HttpService {
    let front = parts.front.clone();
    HttpService(Arc::new(Shared { parts, front }))
}

/// The HTTP front-end's service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct HttpService(Arc<Shared>);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) parts: HttpParts,
    pub(crate) front: Front,
}

impl HttpService {
    /// Answers one request. Dropping the future cancels it, but takes no order back.
    pub async fn answer<B>(&self, request: Request<B>, connection: ConnectionContext) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        pin!(self.answer_parts(&parts, body, connection)).await
    }

    /// The same for a request in parts: whoever holds the head already spares its room in this future.
    pub async fn answer_parts<B>(&self, parts: &Parts, body: B, connection: ConnectionContext) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let shared = &*self.0;
        let head = Head::read(&parts.headers);
        let asked = Asked { parts, head: &head, connection };
        let result = match shared.family(parts.uri.path(), connection.roles) {
            Family::Tfs(rest) => pin!(tfs::answer(shared, asked, rest, body)).await,
            Family::Oip(rest) => pin!(oip::answer(shared, asked, rest, body)).await,
            // Boxed, so that the futures of the families above stay small.
            Family::Admin(rest) => Box::pin(admin::answer(shared, asked, rest, body)).await,
            Family::Platform(route) => Box::pin(platform::answer(shared, asked, route, body)).await,
            Family::TorchServe => Ok(Box::pin(torchserve::answer(shared, asked, body)).await),
            Family::Management => Ok(Box::pin(torchserve::manage(shared, asked, body)).await),
            Family::General(route) => Box::pin(general::answer(shared, asked, route, body)).await,
            Family::Text(route) => Box::pin(text::answer(shared, asked, route, body)).await,
            other => Ok(shared.plain(&other, &asked)),
        };
        let mut answer = result.unwrap_or_else(|failure| shared.refuse(&failure, &asked));
        shared.finish(&mut answer, &head);
        answer
    }
}

impl Shared {
    /// The family of `path`; what a platform prescribes goes before all others.
    fn family<'a>(&self, path: &'a str, roles: Roles) -> Family<'a> {
        let platform = platform::route(path, &self.parts.config).filter(|_| roles.inference);
        platform.map_or_else(|| family(path, roles), Family::Platform)
    }

    /// The routes that read nothing but the head.
    fn plain(&self, family: &Family<'_>, asked: &Asked<'_>) -> Answer {
        let method = &asked.parts.method;
        let readable = matches!(*method, Method::GET | Method::HEAD);
        match family {
            Family::Root if *method == Method::OPTIONS => torchserve::identified(self, openapi::torchserve_inference()),
            Family::Metrics
            | Family::Health
            | Family::Live
            | Family::Ready
            | Family::Root
            | Family::OpenApi
            | Family::Docs
                if !readable =>
            {
                response::method_not_allowed("GET, HEAD")
            }
            Family::Metrics => {
                let page = self.parts.metrics_text.render();
                response::prometheus(torchserve::only_named(page, asked.parts.uri.query()))
            }
            Family::Health => health::health(&self.parts.readiness),
            Family::Live => health::live(&self.parts.readiness),
            Family::Ready => health::ready(&self.parts.readiness, &*self.parts.catalog),
            Family::Root => health::alive(),
            Family::OpenApi => openapi::document(self),
            Family::Docs => openapi::page(),
            Family::Tfs(_)
            | Family::Oip(_)
            | Family::Admin(_)
            | Family::Platform(_)
            | Family::TorchServe
            | Family::Management
            | Family::General(_)
            | Family::Text(_)
            | Family::Unknown => torchserve::not_found(self, asked),
        }
    }

    /// The answer to a failed request, logged. Where the server is at fault and the client sent no id, both the line and
    /// the answer get one, so that the two can be brought together.
    pub(crate) fn refuse(&self, failure: &Failure, asked: &Asked<'_>) -> Answer {
        let mut answer = failure.answer(asked.parts.version);
        let status = failure.status().as_u16();
        // The one status of the client's that stands for what happens here: a model that failed, on the text routes.
        let is_dependency = failure.status() == StatusCode::FAILED_DEPENDENCY;
        let weight = if is_dependency { Weight::of(failure.code()) } else { Weight::of_http(status) };
        let is_ours = failure.status().is_server_error() || is_dependency && weight == Weight::Fault;
        let is_anonymous = asked.head.request_id.is_none() && is_ours;
        // In TorchServe's form, whatever the protocol: nobody else asks for one.
        let made = is_anonymous.then(|| torchserve::new_uuid(self));
        let id = made
            .as_deref()
            .map_or_else(|| asked.head.request_id.map_or(&b""[..], HeaderValue::as_bytes), str::as_bytes);
        self.front.log.write(weight, &status, failure.refusal(), id);
        if let Some(id) = made.and_then(|id| HeaderValue::from_str(&id).ok()) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer
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

/// The future of the tower services.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + 'static>>;

/// For tower's stacks. Caller and roles are taken from the request's extensions, where a [`ConnectionContext`] may stand.
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
