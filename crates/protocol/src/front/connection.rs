//! What a listener tells a front-end about the connection that a request came by.

use millrace_core::CallerId;

/// What a listener is for. Health and metrics answer on every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Inference, metadata and status, by every protocol.
    pub inference: bool,
    /// Orders: the admin routes and TorchServe's management API; with them what `repository` allows.
    pub management: bool,
    /// The orders that clients of TensorFlow Serving and Triton send to the port they infer on: reload-config, and to load
    /// and unload models.
    pub repository: bool,
}

impl Roles {
    /// For clients.
    pub const DATA: Self = Self { inference: true, management: false, repository: false };
    /// For operators.
    pub const ADMIN: Self = Self { inference: false, management: true, repository: true };
    /// For scrapers: health and metrics alone.
    pub const METRICS: Self = Self { inference: false, management: false, repository: false };

    /// What either is for: an address that was given twice is one listener with both roles.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            inference: self.inference || other.inference,
            management: self.management || other.management,
            repository: self.repository || other.repository,
        }
    }
}

/// What a listener knows about the connection that a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionContext {
    /// Who asks, for fairness.
    pub caller: CallerId,
    /// What may be asked here.
    pub roles: Roles,
}

impl Default for ConnectionContext {
    /// Nobody in particular, on a listener for clients.
    fn default() -> Self {
        Self { caller: CallerId::default(), roles: Roles::DATA }
    }
}
