//! A request's own parameters: the known ones checked and typed, the reserved ones refused, the rest let through.
//!
//! No model here takes parameters, so what is not known is checked for its kind by the reader and then ignored.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use millrace_core::{Priority, Reason, Refusal};

use super::failure::Failure;
use super::words::invalid;
use crate::tfs::Bare;

/// The one reserved parameter that a gRPC request may carry.
pub const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// The parameter of a gRPC request that asks for the stages, and of its answer that tells them, where Triton's clients find
/// them.
pub const TIMING_PARAMETER: &str = "millrace_timing";
/// The same for the whole account.
pub const EXPLAIN_PARAMETER: &str = "millrace_explain";

/// A parameter's value, as either wire form has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits 64 bits with a sign.
    Int(i64),
    /// A larger whole number.
    Uint(u64),
    /// Any other number.
    Double(f64),
    /// Text.
    String(Cow<'a, str>),
}

impl Parameter<'_> {
    /// The value where it is a whole number that is not negative, whichever type carries it.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Uint(number) => Some(*number),
            Self::Bool(_) | Self::Double(_) | Self::String(_) => None,
        }
    }

    /// The value where it is `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Int(_) | Self::Uint(_) | Self::Double(_) | Self::String(_) => None,
        }
    }

    /// The same of the parameter `name`, which is nothing else.
    ///
    /// # Errors
    /// `InvalidInput` for any other value.
    pub fn switch(&self, name: &str) -> Result<bool, Refusal> {
        self.bool().ok_or_else(|| wrong_type(name, "a boolean"))
    }
}

/// What the known parameters of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// The priority class: 1 is the highest, 0 the default.
    pub priority: Priority,
    /// How long the request may wait in the queue, if it said so.
    pub queue_timeout: Option<Duration>,
    /// Whether outputs come back in binary form where the request lists none.
    pub binary_outputs: bool,
    /// Whether a stream wants an empty last answer from a model that ends without one.
    pub empty_final_response: bool,
    /// Whether that last one may be asked for at all.
    is_grpc: bool,
}

impl Parameters {
    /// None yet, of a REST request.
    pub fn rest() -> Self {
        Self {
            priority: Priority::default(),
            queue_timeout: None,
            binary_outputs: false,
            empty_final_response: false,
            is_grpc: false,
        }
    }

    /// None yet, of a gRPC request.
    pub fn grpc() -> Self {
        Self { is_grpc: true, ..Self::rest() }
    }

    /// Those of a whole request. `self` says by which protocol it came.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn read<'a>(mut self, parameters: impl IntoIterator<Item = (&'a str, Parameter<'a>)>) -> Result<Self, Refusal> {
        for (name, value) in parameters {
            self.set(name, &value)?;
        }
        Ok(self)
    }

    /// Takes one parameter in.
    ///
    /// # Errors
    /// `InvalidInput` for a known parameter of another type, or a reserved name.
    pub fn set(&mut self, name: &str, value: &Parameter<'_>) -> Result<(), Refusal> {
        let unsigned = || value.unsigned().ok_or_else(|| wrong_type(name, "an unsigned integer"));
        let bool = || value.switch(name);
        match name {
            "priority" => {
                self.priority = match unsigned()? {
                    0 => Priority::default(),
                    level => Priority(u8::try_from(level).unwrap_or(u8::MAX)),
                };
            }
            "timeout" => self.queue_timeout = Some(unsigned()?).filter(|n| *n > 0).map(Duration::from_micros),
            "binary_data_output" => self.binary_outputs = bool()?,
            // No model here keeps state between requests, so there is nothing to correlate.
            "sequence_id" if value.unsigned().is_none() && !matches!(value, Parameter::String(_)) => {
                return Err(wrong_type(name, "an unsigned integer or a string"));
            }
            "sequence_start" | "sequence_end" => drop(bool()?),
            EMPTY_FINAL_RESPONSE if self.is_grpc => self.empty_final_response = bool()?,
            reserved if reserved.starts_with("triton_") => {
                let name = Bare(reserved);
                return Err(invalid(format!(
                    "parameter keys starting with 'triton_' are reserved for the server, got '{name}'"
                )));
            }
            _ => {}
        }
        Ok(())
    }

    /// When waiting in the queue stops being of use: `latest`, or earlier if the request said so.
    pub fn queue_deadline(&self, received: Instant, latest: Instant) -> Instant {
        let own = self.queue_timeout.and_then(|timeout| received.checked_add(timeout));
        own.map_or(latest, |own| own.min(latest))
    }

    /// The failure that `refusal` is for this request; see [`Failure::of_timeout`].
    pub fn failure(&self, refusal: Refusal) -> Failure {
        if self.queue_timeout.is_some() && refusal.reason() == Reason::Late {
            return Failure::of_timeout(refusal);
        }
        refusal.into()
    }
}

pub(super) fn wrong_type(name: &str, expected: &str) -> Refusal {
    invalid(format!("parameter '{}' must be {expected}", Bare(name)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use millrace_core::{Code, Priority, Reason, Refusal};

    use super::{EMPTY_FINAL_RESPONSE, Parameter, Parameters};

    fn text(value: &str) -> Parameter<'_> {
        Parameter::String(value.into())
    }

    #[test]
    fn known_parameters_are_typed_and_others_let_through() {
        let given = [
            ("priority", Parameter::Int(1)),
            ("timeout", Parameter::Uint(1500)),
            ("binary_data_output", Parameter::Bool(true)),
            ("sequence_id", text("abc")),
            ("sequence_start", Parameter::Bool(true)),
            ("temperature", Parameter::Double(0.5)),
        ];
        let read = Parameters::rest().read(given).unwrap();
        assert_eq!((read.priority, read.binary_outputs), (Priority(1), true));
        assert_eq!(read.queue_timeout, Some(Duration::from_micros(1500)));
    }

    #[test]
    fn zero_means_the_default_and_large_priorities_the_lowest_class() {
        let set = |name, value| Parameters::rest().read([(name, value)]).unwrap();
        assert_eq!(set("priority", Parameter::Int(0)).priority, Priority::default());
        assert_eq!(set("priority", Parameter::Uint(u64::MAX)).priority, Priority(255));
        assert_eq!(set("timeout", Parameter::Int(0)).queue_timeout, None);
    }

    #[test]
    fn a_known_parameter_of_another_type_is_refused() {
        let cases = [
            ("priority", text("1")),
            ("priority", Parameter::Int(-1)),
            ("priority", Parameter::Double(1.0)),
            ("timeout", Parameter::Bool(true)),
            ("timeout", Parameter::Int(-5)),
            ("binary_data_output", Parameter::Int(1)),
            ("sequence_id", Parameter::Double(1.0)),
            ("sequence_end", text("true")),
        ];
        for (name, value) in cases {
            let refusal = Parameters::grpc().read([(name, value.clone())]).unwrap_err();
            assert_eq!(refusal.reason(), Reason::InvalidInput, "{name}: {value:?}");
            assert!(refusal.message().contains(name), "{refusal}");
        }
    }

    #[test]
    fn reserved_names_are_refused_but_for_one_over_grpc() {
        assert!(Parameters::rest().read([("triton_x", Parameter::Int(1))]).is_err());
        assert!(Parameters::grpc().read([("triton_x", Parameter::Int(1))]).is_err());
        assert!(Parameters::rest().read([(EMPTY_FINAL_RESPONSE, Parameter::Bool(true))]).is_err());
        assert!(Parameters::grpc().read([(EMPTY_FINAL_RESPONSE, Parameter::Int(1))]).is_err());
        assert!(Parameters::grpc().read([(EMPTY_FINAL_RESPONSE, Parameter::Bool(true))]).unwrap().empty_final_response);
    }

    #[test]
    fn being_late_by_its_own_timeout_is_unavailable_and_else_a_deadline() {
        let late = || Refusal::new(Reason::Late, "late");
        let own = Parameters::rest().read([("timeout", Parameter::Int(10))]).unwrap();
        assert_eq!((own.failure(late()).code(), own.failure(late()).http_status()), (Code::Unavailable, 503));
        assert_eq!(Parameters::rest().failure(late()).code(), Code::DeadlineExceeded);
        let other = Refusal::new(Reason::InvalidInput, "no");
        assert_eq!(own.failure(other).http_status(), 400);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do, and there is no other way to one")]
    fn a_timeout_only_ever_makes_the_deadline_earlier() {
        let received = Instant::now();
        let latest = received + Duration::from_secs(30);
        let cases =
            [(0, 30_000_000), (1, 1), (29_000_000, 29_000_000), (31_000_000, 30_000_000), (u64::MAX, 30_000_000)];
        for (timeout, wanted) in cases {
            let read = Parameters::rest().read([("timeout", Parameter::Uint(timeout))]).unwrap();
            assert_eq!(read.queue_deadline(received, latest), received + Duration::from_micros(wanted), "{timeout}");
        }
    }
}
