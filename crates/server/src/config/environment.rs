//! `MILLRACE_SECTION__KEY` variables, typed like the file's keys. The environment arrives as a map.

use std::collections::BTreeMap;

use millrace_core::nearest;
use serde::Deserialize;

use super::error::{ConfigError, Place};
use super::raw::Raw;

/// The environment as a lookup; tests pass their own.
pub type Environment = BTreeMap<String, String>;

const PREFIX: &str = "MILLRACE_";
/// Names the configuration file, where no flag does.
pub(crate) const CONFIG: &str = "MILLRACE_CONFIG";

/// What the environment says, and refuses every `MILLRACE_` variable that names no key.
pub(crate) fn read(environment: &Environment) -> Result<Raw, ConfigError> {
    let mut raw = Raw::default();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name != CONFIG) else { continue };
        let (section, key) = find(rest).ok_or_else(|| unknown(name, rest))?;
        raw = typed(name, section, key, value)?.over(raw);
    }
    Ok(raw)
}

fn find(rest: &str) -> Option<(&'static str, &'static str)> {
    let (section, key) = rest.split_once("__")?;
    let (known, keys) = Raw::KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(section))?;
    keys.iter().find(|known| known.eq_ignore_ascii_case(key)).map(|key| (*known, *key))
}

fn unknown(name: &str, rest: &str) -> ConfigError {
    let names = all();
    let suggestion = nearest(rest, names.iter().map(String::as_str)).map(|known| format!("{PREFIX}{known}"));
    let message = "names no configuration key (the form is MILLRACE_SECTION__KEY, with two underscores between them)";
    ConfigError::new(Place::Environment(name.escape_default().to_string()), message).suggest(suggestion)
}

fn all() -> Vec<String> {
    let names = Raw::KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}__{key}")));
    names.map(|name| name.to_ascii_uppercase()).collect()
}

/// One variable as a configuration with one key. The text is tried as a TOML value (numbers, booleans, lists), then as
/// it stands (paths, names, durations), so that nobody has to quote twice.
fn typed(name: &str, section: &str, key: &str, value: &str) -> Result<Raw, ConfigError> {
    let with = |value: toml::Value| {
        let keys = toml::Table::from_iter([(key.to_owned(), value)]);
        Raw::deserialize(toml::Table::from_iter([(section.to_owned(), toml::Value::Table(keys))]))
    };
    let plain = match with(toml::Value::String(value.to_owned())) {
        Ok(raw) => return Ok(raw),
        Err(error) => error,
    };
    let parsed = value.parse::<toml::Value>().ok().filter(|value| !value.is_str());
    let error = match parsed.map(with) {
        Some(Ok(raw)) => return Ok(raw),
        Some(Err(error)) => error,
        None => plain,
    };
    Err(ConfigError::new(Place::Environment(name.to_owned()), error.message().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{Environment, read};

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_value_reads_from_a_variable() {
        let raw = read(&environment(&[
            ("MILLRACE_SERVER__LISTEN", "127.0.0.1:9000"),
            ("MILLRACE_SERVER__COMPAT", "tfs,triton"),
            ("MILLRACE_SERVER__ADMIN", "[\"127.0.0.1:1\", \"unix:/a\"]"),
            ("MILLRACE_LIMITS__MAX_CONNECTIONS", "7"),
            ("MILLRACE_LIMITS__MAX_BODY_BYTES", "1MiB"),
            ("MILLRACE_REGISTRY__WATCH", "false"),
            ("MILLRACE_REGISTRY__REPOSITORY", "/srv/models"),
            ("MILLRACE_BATCHING__ALLOWED_BATCH_SIZES", "[1, 8, 32]"),
            ("MILLRACE_SERVER__DRAIN_DELAY", "5s"),
            ("PATH", "/bin"),
        ]))
        .unwrap();
        assert_eq!(raw.server.listen.unwrap().0, ["127.0.0.1:9000"]);
        assert_eq!(raw.server.compat.unwrap().0.len(), 2);
        assert_eq!(raw.server.admin.unwrap().0, ["127.0.0.1:1", "unix:/a"]);
        assert_eq!(raw.limits.max_connections, NonZeroUsize::new(7));
        assert_eq!(raw.limits.max_body_bytes.unwrap().0, 1 << 20);
        assert_eq!(raw.registry.watch, Some(false));
        assert_eq!(raw.registry.repository, Some(PathBuf::from("/srv/models")));
        assert_eq!(raw.batching.allowed_batch_sizes.unwrap().len(), 3);
        assert_eq!(raw.server.drain_delay.unwrap().0, Duration::from_secs(5));
    }

    #[test]
    fn an_unknown_variable_is_an_error_with_a_suggestion() {
        let error = read(&environment(&[("MILLRACE_SERVER__LISTN", "x")])).unwrap_err().to_string();
        assert!(
            error.contains("MILLRACE_SERVER__LISTN") && error.contains("did you mean `MILLRACE_SERVER__LISTEN`"),
            "{error}"
        );
        assert!(read(&environment(&[("MILLRACE_LISTEN", "x")])).is_err());
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_variable() {
        let error = read(&environment(&[("MILLRACE_LIMITS__MAX_CONNECTIONS", "many")])).unwrap_err().to_string();
        assert!(error.contains("MILLRACE_LIMITS__MAX_CONNECTIONS"), "{error}");
        assert!(read(&environment(&[("MILLRACE_REGISTRY__WATCH", "true\n[server]")])).is_err());
    }
}
