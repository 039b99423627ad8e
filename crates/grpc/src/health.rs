//! gRPC's health protocol: the server as a whole, and each service by its name.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use millrace_core::{Quoted, Reason, Refusal};
use millrace_proto::grpc::health::v1::health_check_response::ServingStatus;
use millrace_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use crate::body::{GrpcBody, ok_trailers};
use crate::call::{Call, RequestBody, late};
use crate::failure::Failure;
use crate::reply::{Reply, answer as begin};
use crate::service::{Shared, unknown_method};
use crate::{oip, reflection, tfs, torchserve};

/// The service's full name.
pub(crate) const SERVICE: &str = "grpc.health.v1.Health";

/// Every service there is; reflection lists the same.
pub(crate) const SERVICES: [&str; 8] = [
    SERVICE,
    reflection::V1,
    reflection::V1_ALPHA,
    oip::SERVICE,
    torchserve::INFERENCE,
    torchserve::MANAGEMENT,
    tfs::MODEL,
    tfs::PREDICTION,
];

/// How often a watched status is looked at. Nobody tells when it changes: it is put together from several places.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Answers `Check` and `Watch`.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) async fn answer<B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    method: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    match method {
        "Check" => {
            let request: HealthCheckRequest = shared.request(call, body).await?;
            let status = status(shared, &request.service).ok_or_else(|| {
                // The code of a name that is not there, in words of its own.
                Refusal::new(Reason::ModelUnknown, format!("unknown service {}", Quoted(&request.service)))
            })?;
            Ok(shared.reply(call, &message(status)).await?)
        }
        "Watch" => {
            let request: HealthCheckRequest = shared.request(call, body).await?;
            Ok(begin(GrpcBody::stream(Watch::new(shared, call, request.service)), call.head))
        }
        _ => Err(unknown_method(&format!("/{SERVICE}/{method}"))),
    }
}

/// The status of the service called `name`, or of the server where it is empty; `None` where there is none.
fn status(shared: &Shared, name: &str) -> Option<ServingStatus> {
    let parts = &shared.parts;
    if !name.is_empty() && !SERVICES.contains(&name) {
        return None;
    }
    let readiness = &parts.readiness;
    let serves = readiness.is_live() && !readiness.is_draining() && parts.catalog.is_ready();
    Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn message(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The answer to `Watch`: the status now, and again whenever it is another.
struct Watch {
    shared: Arc<Shared>,
    service: String,
    last: Option<ServingStatus>,
    look: Interval,
    expiry: Option<(Pin<Box<Sleep>>, Instant, Instant)>,
    ended: bool,
}

impl Watch {
    fn new(shared: &Arc<Shared>, call: Call<'_>, service: String) -> Self {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let expiry = call.deadline();
        let expiry = expiry.map(|at| (Box::pin(tokio::time::sleep_until(at.into())), at, call.received));
        Self { shared: Arc::clone(shared), service, last: None, look, expiry, ended: false }
    }

    /// The next status to be told, or how the call ends.
    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, HeaderMap>> {
        loop {
            let status = status(&self.shared, &self.service).unwrap_or(ServingStatus::ServiceUnknown);
            if self.last != Some(status) {
                self.last = Some(status);
                let piece = Reply::new(&message(status)).map(|reply| reply.into_pieces().into_iter().next());
                return Poll::Ready(Ok(piece.ok().flatten().unwrap_or_default()));
            }
            if self.shared.parts.readiness.is_refusing() {
                return Poll::Ready(Err(ok_trailers()));
            }
            if let Some((sleep, at, received)) = &mut self.expiry
                && sleep.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Err(Failure::from(late(*at, *received)).trailers()));
            }
            ready!(self.look.poll_tick(context));
        }
    }
}

impl Body for Watch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.poll_change(context)) {
            Ok(piece) => Frame::data(piece),
            Err(trailers) => {
                self.ended = true;
                Frame::trailers(trailers)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}
