//! Trace and log settings, and shared memory: what there is can be read, and nothing of it can be changed from outside.
//!
//! Requests are not traced by this protocol's means, log lines go where the operator said and no client may name a file,
//! and no client's memory is mapped. An order that changes nothing is carried out; any other is refused and not ignored.

use millrace_core::Refusal;
use tracing::level_filters::LevelFilter;

use super::parameter::{Parameter, wrong_type};
use super::words::{invalid, unsupported};
use crate::tfs::Bare;

/// Every trace setting and its only value, in the order of Triton's answers. `trace_level` is a list on the wire.
pub const TRACE_SETTINGS: [(&str, &str); 6] = [
    ("trace_file", ""),
    ("trace_level", "OFF"),
    ("trace_rate", "1000"),
    ("trace_count", "-1"),
    ("log_frequency", "0"),
    ("trace_mode", "triton"),
];

/// Checks an order to set trace setting `name` to `values`; none of them means to reset it.
///
/// # Errors
/// `InvalidInput` for a name that is no setting, `Unsupported` for any other value than it has.
pub fn check_trace_setting(name: &str, values: &[&str]) -> Result<(), Refusal> {
    let known = TRACE_SETTINGS.iter().find(|(known, _)| *known == name);
    let (name, value) = known.ok_or_else(|| invalid(format!("unknown trace setting '{}'", Bare(name))))?;
    if values.is_empty() || values == [*value] {
        return Ok(());
    }
    Err(unsupported(format!("tracing is not supported: trace setting '{name}' cannot be changed")))
}

/// The log settings as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether lines of level info are written.
    pub info: bool,
    /// Whether warnings are.
    pub warning: bool,
    /// Whether errors are.
    pub error: bool,
    /// 0, or more where debugging lines are written.
    pub verbose_level: u32,
}

impl LogSettings {
    /// Those of this process.
    pub fn current() -> Self {
        let level = LevelFilter::current();
        let verbose_level = u32::from(level >= LevelFilter::DEBUG) + u32::from(level >= LevelFilter::TRACE);
        let is_written = |wanted: LevelFilter| level >= wanted;
        Self {
            info: is_written(LevelFilter::INFO),
            warning: is_written(LevelFilter::WARN),
            error: is_written(LevelFilter::ERROR),
            verbose_level,
        }
    }

    /// Every setting and its value, in the order of Triton's answers.
    pub fn values(&self) -> [(&'static str, Parameter<'static>); 6] {
        [
            ("log_file", Parameter::String("".into())),
            ("log_info", Parameter::Bool(self.info)),
            ("log_warning", Parameter::Bool(self.warning)),
            ("log_error", Parameter::Bool(self.error)),
            ("log_verbose_level", Parameter::Int(self.verbose_level.into())),
            ("log_format", Parameter::String("ISO8601".into())),
        ]
    }

    /// Checks an order to set `name` to `value`.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is no setting or a value of another type, `Unsupported` for any other value than it
    /// has.
    pub fn check(&self, name: &str, value: &Parameter<'_>) -> Result<(), Refusal> {
        let known = self.values().into_iter().find(|(known, _)| *known == name);
        let (name, current) = known.ok_or_else(|| invalid(format!("unknown log setting '{}'", Bare(name))))?;
        let is_same = match (&current, value) {
            (Parameter::Int(current), value) => match value.unsigned() {
                Some(value) => u64::try_from(*current) == Ok(value),
                None => return Err(wrong_type(name, "an unsigned integer")),
            },
            (Parameter::Bool(current), Parameter::Bool(value)) => current == value,
            (Parameter::Bool(_), _) => return Err(wrong_type(name, "a boolean")),
            (Parameter::String(current), Parameter::String(value)) => current == value,
            (_, _) => return Err(wrong_type(name, "a string")),
        };
        if is_same {
            return Ok(());
        }
        Err(unsupported(format!(
            "log setting '{name}' cannot be changed by request; the server's configuration has it"
        )))
    }
}

/// The refusal of every order about shared memory.
pub fn no_shared_memory() -> Refusal {
    unsupported("shared memory is not supported by this server; send the tensor in the request".to_owned())
}

#[cfg(test)]
mod tests {
    use millrace_core::Reason;

    use super::{LogSettings, TRACE_SETTINGS, check_trace_setting};
    use crate::oip::Parameter;

    const SETTINGS: LogSettings = LogSettings { info: true, warning: true, error: true, verbose_level: 0 };

    #[test]
    fn what_is_already_so_can_be_ordered() {
        for (name, value) in TRACE_SETTINGS {
            check_trace_setting(name, &[]).unwrap();
            check_trace_setting(name, &[value]).unwrap();
        }
        for (name, value) in SETTINGS.values() {
            SETTINGS.check(name, &value).unwrap();
        }
    }

    #[test]
    fn no_file_is_named_and_no_level_changed_from_outside() {
        let trace = |name: &str, value: &str| check_trace_setting(name, &[value]).unwrap_err().reason();
        assert_eq!(trace("trace_file", "/tmp/x"), Reason::Unsupported);
        assert_eq!(trace("trace_level", "TIMESTAMPS"), Reason::Unsupported);
        assert_eq!(trace("nope", ""), Reason::InvalidInput);
        let log = |name: &str, value: Parameter<'_>| SETTINGS.check(name, &value).unwrap_err().reason();
        assert_eq!(log("log_file", Parameter::String("/tmp/x".into())), Reason::Unsupported);
        assert_eq!(log("log_info", Parameter::Bool(false)), Reason::Unsupported);
        assert_eq!(log("log_verbose_level", Parameter::Int(3)), Reason::Unsupported);
        assert_eq!(log("log_info", Parameter::Int(1)), Reason::InvalidInput);
        assert_eq!(log("log_verbose_level", Parameter::Int(-1)), Reason::InvalidInput);
        assert_eq!(log("log_file", Parameter::Bool(true)), Reason::InvalidInput);
        assert_eq!(log("nope", Parameter::Int(1)), Reason::InvalidInput);
    }
}
