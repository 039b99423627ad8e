//! Why a run gave no answer, what its callers are told, and how often the log hears of it.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{ContractError, LoadError, ModelName, Reason, Refusal, RunError};
use parking_lot::Mutex;

/// The shortest time between two warnings of one queue.
const QUIET: Duration = Duration::from_secs(1);

type Cause = Arc<dyn Error + Send + Sync>;

/// Why a run failed. Shared by all who rode in it until they are told apart.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Some values are wrong; the text is for the caller.
    Invalid(String),
    /// The backend said that it failed.
    Failed(Cause),
    /// The backend broke its contract.
    Contract(ContractError),
    /// Its outputs for the pieces of one request do not join.
    Unjoinable,
    /// It panicked, with this message.
    Panicked(String),
    /// It did not give an instance to run on.
    NoInstance(Arc<LoadError>),
    /// Everybody had gone.
    Cancelled,
}

/// A panic message as an error, for the log.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
struct Panic(String);

impl Failure {
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "with something that is not text".to_owned()))
    }

    /// What the callers are told. The cause is for the log only.
    pub(crate) fn refusal(&self, model: &ModelName) -> Refusal {
        let failed = "the backend failed on this request";
        let broken = "the backend broke down on this request";
        let contract = "the backend broke its contract: its outputs do not fit the batch";
        match self {
            Self::Invalid(message) => Refusal::new(Reason::InvalidInput, format!("model `{model}`: {message}")),
            Self::Failed(cause) => {
                Refusal::new(Reason::BackendFailed, format!("model `{model}`: {failed}")).with_cause(Arc::clone(cause))
            }
            Self::Contract(error) => {
                let cause: Cause = Arc::new(error.clone());
                Refusal::new(Reason::BackendBroken, format!("model `{model}`: {contract}")).with_cause(cause)
            }
            Self::Unjoinable => Refusal::new(Reason::BackendBroken, format!("model `{model}`: {contract}")),
            Self::Panicked(message) => {
                let cause: Cause = Arc::new(Panic(message.clone()));
                Refusal::new(Reason::BackendBroken, format!("model `{model}`: {broken}")).with_cause(cause)
            }
            Self::NoInstance(error) => {
                let cause: Cause = Arc::clone(error) as Cause;
                Refusal::new(Reason::BackendFailed, format!("model `{model}`: {failed}")).with_cause(cause)
            }
            Self::Cancelled => Refusal::new(Reason::Cancelled, "the request was cancelled"),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::InvalidInput(message) => Self::Invalid(message),
            RunError::Failed(cause) => match cause.downcast::<ContractError>() {
                Ok(contract) => Self::Contract(*contract),
                Err(cause) => Self::Failed(Arc::from(cause)),
            },
            RunError::Cancelled => Self::Cancelled,
        }
    }
}

impl From<ContractError> for Failure {
    fn from(error: ContractError) -> Self {
        Self::Contract(error)
    }
}

/// Lets one event through per second, and counts those in between.
#[derive(Debug, Default)]
pub(crate) struct Hush(Mutex<(Option<Instant>, u64)>);

impl Hush {
    /// How many events were held back since the last one that passed, if this one passes.
    pub(crate) fn passes(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.0.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::{ContractError, Reason, RunError};

    use super::{Failure, Hush};
    use crate::clock;

    #[test]
    fn callers_see_no_internals_and_the_log_does() {
        let secret = "/srv/models/x: assertion failed";
        let failures = [
            (Failure::from(RunError::Failed(secret.into())), Reason::BackendFailed),
            (Failure::panicked(&secret), Reason::BackendBroken),
        ];
        for (failure, reason) in failures {
            let refusal = failure.refusal(&"fraud".parse().unwrap());
            assert_eq!(refusal.reason(), reason);
            assert!(!refusal.message().contains("srv") && refusal.message().contains("`fraud`"));
            assert!(refusal.cause().unwrap().to_string().contains(secret));
        }
    }

    #[test]
    fn a_contract_error_stays_one_through_a_run_error() {
        let error = RunError::from(ContractError::Count { expected: 2, got: 1 });
        assert!(matches!(Failure::from(error), Failure::Contract(ContractError::Count { .. })));
    }

    #[test]
    fn a_flood_of_warnings_is_one_line_a_second() {
        let (hush, start) = (Hush::default(), clock::now());
        assert_eq!(hush.passes(start), Some(0));
        for _ in 0..5 {
            assert_eq!(hush.passes(start + Duration::from_millis(900)), None);
        }
        assert_eq!(hush.passes(start + Duration::from_millis(1000)), Some(5));
    }
}
