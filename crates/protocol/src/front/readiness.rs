//! Whether this process is alive, ready and still taking requests. Who flips it is the server's affair.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The state that health routes report. Cheap to clone; all clones are one.
///
/// It only goes forward: serving → draining (not ready, requests still answered) → refusing (new requests get 503).
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    phase: AtomicU8,
    liveness: Arc<dyn Fn() -> bool + Send + Sync>,
}

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const REFUSING: u8 = 2;

impl Readiness {
    /// Serving, and alive as long as `liveness` says so: a compute pool that has lost its threads says no. It is
    /// called for every liveness probe and must not block.
    pub fn new(liveness: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self(Arc::new(Inner { phase: AtomicU8::new(SERVING), liveness }))
    }

    /// From now on the server is not ready, so that load balancers look elsewhere. Requests are still answered.
    pub fn begin_drain(&self) {
        self.0.phase.fetch_max(DRAINING, Ordering::Release);
    }

    /// From now on new requests are refused with 503 and their connections closed; health and metrics still answer.
    pub fn refuse_new(&self) {
        self.0.phase.fetch_max(REFUSING, Ordering::Release);
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) >= DRAINING
    }

    /// Whether new requests are refused.
    pub fn is_refusing(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) >= REFUSING
    }

    /// Whether the process can still do its work at all.
    pub fn is_live(&self) -> bool {
        (self.0.liveness)()
    }
}

impl Default for Readiness {
    /// Always alive.
    fn default() -> Self {
        Self::new(Arc::new(|| true))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("draining", &self.is_draining()).field("live", &self.is_live()).finish()
    }
}

/// Renders the metrics page. The exporter is the server's.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> String + Send + Sync>);

impl MetricsText {
    /// The page is whatever `render` gives: Prometheus text.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }

    /// The page as it is now.
    pub fn render(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsText")
    }
}
