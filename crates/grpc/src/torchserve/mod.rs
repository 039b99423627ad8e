//! TorchServe's services.

use std::sync::Arc;

use http::Response;

use crate::body::GrpcBody;
use crate::call::{Call, RequestBody};
use crate::failure::Failure;
use crate::service::{Shared, unknown_method};

pub(crate) const INFERENCE: &str = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
pub(crate) const MANAGEMENT: &str = "org.pytorch.serve.grpc.management.ManagementAPIsService";

/// Answers `method` of `service`.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
#[expect(clippy::unused_async, reason = "its methods are being written")]
pub(crate) async fn answer<B: RequestBody>(
    _shared: &Arc<Shared>,
    _call: Call<'_>,
    (service, method): (&str, &str),
    _body: B,
) -> Result<Response<GrpcBody>, Failure> {
    Err(unknown_method(&format!("/{service}/{method}")))
}
