//! What every front-end does with a request, whatever its bytes: count it, bound what it holds, keep its CPU work off
//! the I/O threads and its panics inside, log why it failed.
//!
//! [`Front`] is what the front-ends of one server share; each gets a clone. The clock is tokio's.

pub mod account;
mod answering;
mod budget;
mod clock;
mod connection;
mod log;
pub mod metrics;
mod readiness;
mod record;

use std::ops::Deref;
use std::sync::Arc;

pub use answering::Answering;
pub use budget::{Budget, Share};
pub use clock::now;
pub use connection::{ConnectionContext, Roles};
pub use log::{FailureLog, Weight};
pub use readiness::{MetricsText, Readiness};
pub use record::Record;

use metrics::{Refusals, Table};

/// What the front-ends of one server hold together.
///
/// | field | default | unit, meaning |
/// |---|---|---|
/// | `max_receiving_bytes` | 1 GiB | all request bodies that are arriving or wait to be decoded |
/// | `max_unsent_bytes` | 1 GiB | all large answers that clients have not taken yet |
/// | `max_metric_series` | 1000 | versions that get metrics of their own; further ones share `other` |
/// | `hostname` | `localhost` | this machine's name, a label of TorchServe's metrics |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontConfig {
    /// The bytes of all request bodies together that are arriving or wait to be decoded. Should be no less than the
    /// largest body: a single one must fit.
    pub max_receiving_bytes: u64,
    /// The bytes of all large answers together that are written and not yet taken. Should be no less than the largest.
    pub max_unsent_bytes: u64,
    /// How many (model, version) pairs get metrics of their own.
    pub max_metric_series: usize,
    /// This machine's name, a label of TorchServe's metrics.
    pub hostname: String,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            max_receiving_bytes: 1 << 30,
            max_unsent_bytes: 1 << 30,
            max_metric_series: 1000,
            hostname: "localhost".to_owned(),
        }
    }
}

/// What the front-ends of one server share. Cheap to clone; all clones are one. Its metric handles belong to the
/// recorder that is installed when they are first used.
#[derive(Debug, Clone)]
pub struct Front(Arc<Shared>);

/// The parts of a [`Front`].
#[derive(Debug)]
pub struct Shared {
    /// The metric handles of each version.
    pub table: Table,
    /// The counters of refusals.
    pub refusals: Refusals,
    /// The log of failures.
    pub log: FailureLog,
    /// Bytes of bodies that are arriving.
    pub receiving: Arc<Budget>,
    /// Bytes of answers that are not yet taken.
    pub unsent: Arc<Budget>,
}

impl Front {
    /// Puts one together.
    pub fn new(config: &FrontConfig) -> Self {
        Self(Arc::new(Shared {
            table: Table::new(config.max_metric_series, &config.hostname),
            refusals: Refusals::default(),
            log: FailureLog::new(),
            receiving: Budget::new(config.max_receiving_bytes),
            unsent: Budget::new(config.max_unsent_bytes),
        }))
    }
}

impl Default for Front {
    fn default() -> Self {
        Self::new(&FrontConfig::default())
    }
}

impl Deref for Front {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
