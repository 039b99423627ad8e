//! The service: from a request to its method, and from the method's result to the finished answer.
//!
//! What the methods do is in the modules of their protocols.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use millrace_core::{Catalog, Code, Compute, Control, Quoted, Reason, Refusal, Resolver};
use millrace_protocol::front::{ConnectionContext, Front, Readiness, Weight, now};
use tower_service::Service;

use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, within};
use crate::coding::ACCEPTED;
use crate::config::GrpcConfig;
use crate::failure::{self, Failure};
use crate::head::{self, Head, REQUEST_ID};
use crate::{health, oip, reflection, tfs, torchserve};

/// What the service is made of.
#[derive(Debug, Clone)]
pub struct GrpcParts {
    /// Finds the version that answers.
    pub resolver: Arc<dyn Resolver>,
    /// Says what is loaded.
    pub catalog: Arc<dyn Catalog>,
    /// Takes orders, on listeners where they are allowed. `None` refuses them everywhere.
    pub control: Option<Arc<dyn Control>>,
    /// Takes conversions that are too long for an I/O thread.
    pub compute: Arc<dyn Compute>,
    /// What the health methods report.
    pub readiness: Readiness,
    /// What the front-ends of one server share.
    pub front: Front,
    /// Limits and switches.
    pub config: GrpcConfig,
}

/// Makes the service.
pub fn grpc_service(parts: GrpcParts) -> GrpcService {
    GrpcService(Arc::new(Shared { parts }))
}

/// Whether a request with these headers is for this service, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    head::is_grpc(headers)
}

/// The gRPC service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct GrpcService(Arc<Shared>);

/// What all calls share.
pub(crate) struct Shared {
    pub(crate) parts: GrpcParts,
}

impl GrpcService {
    /// Answers one call. Dropping the future, or the answer's body, cancels it.
    pub async fn answer<B>(&self, request: Request<B>, connection: ConnectionContext) -> Response<GrpcBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        pin!(self.answer_parts(&parts, body, connection)).await
    }

    /// The same for a call in parts: whoever holds the head already spares its room in this future.
    pub async fn answer_parts<B>(&self, parts: &Parts, body: B, connection: ConnectionContext) -> Response<GrpcBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let shared = &self.0;
        if parts.method != Method::POST {
            return no_call(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !head::is_grpc(&parts.headers) {
            return no_call(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let received = now();
        let head = match Head::read(&parts.headers) {
            Ok(head) => head,
            Err(refusal) => return shared.refuse(&refusal.into(), &Head::default()),
        };
        let call = Call { head: &head, connection, received };
        let result = pin!(dispatch(shared, call, parts.uri.path(), body)).await;
        result.unwrap_or_else(|failure| shared.refuse(&failure, &head))
    }
}

/// Finds the service by the path and hands the call to its module. Inference methods keep their deadlines themselves, as
/// they count how they ended.
async fn dispatch<B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    path: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or((path, ""));
    let (deadline, received) = (call.deadline(), call.received);
    match service {
        oip::SERVICE => pin!(oip::answer(shared, call, method, body)).await,
        tfs::PREDICTION | tfs::MODEL => pin!(tfs::answer(shared, call, (service, method), body)).await,
        torchserve::INFERENCE | torchserve::MANAGEMENT => {
            pin!(torchserve::answer(shared, call, (service, method), body)).await
        }
        health::SERVICE => within(deadline, received, Box::pin(health::answer(shared, call, method, body))).await,
        reflection::V1 | reflection::V1_ALPHA => reflection::answer(shared, call, service, method, body),
        _ => Err(unknown_method(path)),
    }
}

/// The failure for a path that is no method of ours.
pub(crate) fn unknown_method(path: &str) -> Failure {
    Refusal::new(Reason::Unsupported, format!("unknown service or method {}", Quoted(path))).into()
}

impl Shared {
    /// Logs `failure` and gives its answer.
    pub(crate) fn refuse(&self, failure: &Failure, head: &Head) -> Response<GrpcBody> {
        let mut trailers = failure.trailers();
        if let Some(id) = self.log(failure, head) {
            trailers.insert(REQUEST_ID, id);
        }
        if failure.code() == Code::Unimplemented {
            // What a client wants to know whose compression is not understood.
            trailers.insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
        }
        failure::response(trailers)
    }

    /// Logs `failure`. Gives the request's id: the client's own, or a new one where the server is at fault.
    pub(crate) fn log(&self, failure: &Failure, head: &Head) -> Option<HeaderValue> {
        let weight = Weight::of(failure.code());
        let log = &self.parts.front.log;
        let fresh = || HeaderValue::from_str(&log.new_id()).ok().filter(|_| weight == Weight::Fault);
        let id = head.request_id.clone().or_else(fresh);
        let bytes = id.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        log.write(weight, &failure.code().name(), failure.refusal(), bytes);
        id
    }
}

/// The answer to a request that is no gRPC call at all.
fn no_call(status: StatusCode) -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody::empty());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The future of the tower service.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<Response<GrpcBody>, Infallible>> + Send + 'static>>;

/// For tower's stacks. The caller is taken from the request's extensions, where a [`ConnectionContext`] may stand.
impl<B> Service<Request<B>> for GrpcService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<GrpcBody>;
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

impl fmt::Debug for GrpcService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcService").field("parts", &self.0.parts).finish()
    }
}
