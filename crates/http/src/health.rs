//! Whether the process lives, is ready, and is well. Bodies are JSON: some clients parse them, all look at the status.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use millrace_core::Catalog;
use millrace_protocol::front::Readiness;

use crate::response::{Answer, json};

/// `GET /v2/health/live`: false tells an orchestrator to restart the process.
pub(crate) fn live(readiness: &Readiness) -> Answer {
    let live = readiness.is_live();
    json(status(live), if live { r#"{"live": true}"# } else { r#"{"live": false}"# })
}

/// `GET /v2/health/ready`: false tells a load balancer to send nothing.
pub(crate) fn ready(readiness: &Readiness, catalog: &dyn Catalog) -> Answer {
    let ready = readiness.is_live() && !readiness.is_draining() && catalog.is_ready();
    json(status(ready), if ready { r#"{"ready": true}"# } else { r#"{"ready": false}"# })
}

/// `GET /health`: as live, with the time, in seconds since 1970.
pub(crate) fn health(readiness: &Readiness) -> Answer {
    let live = readiness.is_live();
    let word = if live { "healthy" } else { "unhealthy" };
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    json(status(live), format!(r#"{{"status": "{word}", "timestamp": {timestamp:?}}}"#))
}

/// `GET /`, as KServe answers it: somebody is there.
pub(crate) fn alive() -> Answer {
    json(StatusCode::OK, r#"{"status": "alive"}"#)
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
