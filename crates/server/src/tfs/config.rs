//! TensorFlow Serving's configuration files: which models (`model_config_list`), and how to batch.
//!
//! Both are accepted unchanged, so that an installation can move over with its files. The batching file may also be
//! the JSON of the same names. Fields that have no meaning here are accepted and listed, so that a log line can say so.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use millrace_core::nearest;
use millrace_registry::BatchOverrides;
use millrace_registry::text_format::{self, Field, Message, Value};
use serde::Deserialize;

use crate::config::error::ConfigError;

/// One `config { … }` of a `model_config_list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedConfig {
    pub(crate) name: String,
    pub(crate) base_path: PathBuf,
    pub(crate) versions: Versions,
    pub(crate) labels: Vec<(String, u64)>,
    /// Where it stands, for errors found later.
    pub(crate) offset: usize,
}

/// TF Serving's version policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Versions {
    /// The highest so many.
    Latest(usize),
    /// All.
    All,
    /// Exactly these.
    Specific(Vec<u64>),
}

/// Reads a model configuration file.
pub(crate) fn models(path: &Path, text: &str) -> Result<Vec<ListedConfig>, ConfigError> {
    let file = File { path, text };
    let message = file.parse()?;
    let mut listed: Vec<ListedConfig> = Vec::new();
    for field in file.known(&message, &["model_config_list"])? {
        for field in file.known(file.message(field)?, &["config"])? {
            let config = file.model(field)?;
            if listed.iter().any(|other| other.name == config.name) {
                let name = &config.name;
                return Err(
                    file.error(field.offset, format!("Illegal to list model {name} multiple times in config list"))
                );
            }
            listed.push(config);
        }
    }
    if listed.is_empty() {
        return Err(file.error(0, "no `model_config_list { config { … } }` in it"));
    }
    Ok(listed)
}

/// Reads a batching parameters file: text format, or JSON where the first character is `{`.
pub(crate) fn batching(path: &Path, text: &str) -> Result<BatchOverrides, ConfigError> {
    let file = File { path, text };
    let read = if text.trim_start().starts_with('{') { json(file)? } else { file.batching()? };
    if read.pad_variable_length_inputs == Some(true) {
        let message = "`pad_variable_length_inputs` is not supported: requests of different inner sizes are run apart";
        return Err(file.error(0, message));
    }
    let split = read.enable_large_batch_splitting == Some(true);
    let overrides = BatchOverrides {
        // With splitting, TF Serving bounds runs by the one and requests by the other; here requests are bounded by
        // the queue's limits alone.
        max_batch_size: read.max_execution_batch_size.filter(|_| split).or(read.max_batch_size),
        batch_timeout_micros: read.batch_timeout_micros,
        max_enqueued_batches: read.max_enqueued_batches,
        num_batch_threads: read.num_batch_threads,
        allowed_batch_sizes: read.allowed_batch_sizes,
        enable_large_batch_splitting: read.enable_large_batch_splitting,
        ..BatchOverrides::default()
    };
    overrides.check().map_err(|error| file.error(0, error.to_string()))?;
    Ok(overrides)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BatchingFile {
    max_batch_size: Option<NonZeroUsize>,
    batch_timeout_micros: Option<u64>,
    max_enqueued_batches: Option<NonZeroUsize>,
    num_batch_threads: Option<NonZeroUsize>,
    thread_pool_name: Option<String>,
    allowed_batch_sizes: Option<Vec<NonZeroUsize>>,
    pad_variable_length_inputs: Option<bool>,
    enable_large_batch_splitting: Option<bool>,
    max_execution_batch_size: Option<NonZeroUsize>,
}

fn json(file: File<'_>) -> Result<BatchingFile, ConfigError> {
    serde_json::from_str::<BatchingFile>(file.text).map_err(|error| {
        let lines = file.text.split_inclusive('\n').take(error.line().saturating_sub(1));
        let offset = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        file.error(offset, error.to_string())
    })
}

/// A file while it is read: for messages with line and column.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn error(self, offset: usize, message: impl Into<String>) -> ConfigError {
        ConfigError::in_file(self.path, self.text, Some(offset), message)
    }

    fn parse(self) -> Result<Message, ConfigError> {
        text_format::parse(self.text).map_err(|error| self.error(error.offset, error.message))
    }

    /// The fields of `message`, all of which must be among `names`.
    fn known<'m>(
        self,
        message: &'m Message,
        names: &[&str],
    ) -> Result<impl Iterator<Item = &'m Field> + use<'m>, ConfigError> {
        if let Some(field) = message.0.iter().find(|field| !names.contains(&field.name.as_str())) {
            let error = self.error(field.offset, format!("unknown field `{}`", field.name));
            return Err(error.suggest(nearest(&field.name, names.iter().copied())));
        }
        Ok(message.0.iter())
    }

    fn message(self, field: &Field) -> Result<&Message, ConfigError> {
        match &field.value {
            Value::Message(message) => Ok(message),
            Value::Text(_) | Value::Word(_) => {
                Err(self.error(field.offset, format!("`{}` wants `{{ … }}`", field.name)))
            }
        }
    }

    fn text(self, field: &Field) -> Result<&str, ConfigError> {
        match &field.value {
            Value::Text(text) => Ok(text),
            Value::Word(_) | Value::Message(_) => {
                Err(self.error(field.offset, format!("`{}` wants a quoted string", field.name)))
            }
        }
    }

    fn number<T: std::str::FromStr>(self, field: &Field) -> Result<T, ConfigError> {
        let number = match &field.value {
            Value::Word(word) => word.parse().ok(),
            Value::Text(_) | Value::Message(_) => None,
        };
        number.ok_or_else(|| self.error(field.offset, format!("`{}` wants a whole number in its range", field.name)))
    }

    fn flag(self, field: &Field) -> Result<bool, ConfigError> {
        match &field.value {
            Value::Word(word) if matches!(word.as_str(), "true" | "True" | "t" | "1") => Ok(true),
            Value::Word(word) if matches!(word.as_str(), "false" | "False" | "f" | "0") => Ok(false),
            _ => Err(self.error(field.offset, format!("`{}` wants true or false", field.name))),
        }
    }

    /// The one field `value` of a wrapper message; `None` where it is left out, which means the type's zero.
    fn wrapped(self, field: &Field) -> Result<Option<&Field>, ConfigError> {
        Ok(self.known(self.message(field)?, &["value"])?.last())
    }

    fn wrapped_number<T: std::str::FromStr>(self, field: &Field) -> Result<T, ConfigError> {
        match self.wrapped(field)? {
            Some(value) => self.number(value),
            None => Err(self.error(field.offset, format!("`{}` wants {{ value: … }}", field.name))),
        }
    }

    fn batching(self) -> Result<BatchingFile, ConfigError> {
        let message = self.parse()?;
        let mut file = BatchingFile::default();
        let names = [
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "num_batch_threads",
            "thread_pool_name",
            "allowed_batch_sizes",
            "pad_variable_length_inputs",
            "enable_large_batch_splitting",
            "max_execution_batch_size",
        ];
        for field in self.known(&message, &names)? {
            match field.name.as_str() {
                "max_batch_size" => file.max_batch_size = Some(self.wrapped_number(field)?),
                "batch_timeout_micros" => file.batch_timeout_micros = Some(self.wrapped_number(field)?),
                "max_enqueued_batches" => file.max_enqueued_batches = Some(self.wrapped_number(field)?),
                "num_batch_threads" => file.num_batch_threads = Some(self.wrapped_number(field)?),
                "max_execution_batch_size" => file.max_execution_batch_size = Some(self.wrapped_number(field)?),
                "allowed_batch_sizes" => file.allowed_batch_sizes.get_or_insert_default().push(self.number(field)?),
                "pad_variable_length_inputs" => file.pad_variable_length_inputs = Some(self.flag(field)?),
                "enable_large_batch_splitting" => {
                    file.enable_large_batch_splitting =
                        Some(self.wrapped(field)?.map_or(Ok(false), |value| self.flag(value))?);
                }
                _ => {
                    let name = self.wrapped(field)?.map(|value| self.text(value)).transpose()?;
                    file.thread_pool_name = name.map(str::to_owned);
                }
            }
        }
        Ok(file)
    }

    fn model(self, field: &Field) -> Result<ListedConfig, ConfigError> {
        let (mut name, mut base_path) = (String::new(), String::new());
        let (mut versions, mut labels) = (Versions::Latest(1), Vec::new());
        let names = [
            "name",
            "base_path",
            "model_platform",
            "model_type",
            "logging_config",
            "model_version_policy",
            "version_labels",
        ];
        for field in self.known(self.message(field)?, &names)? {
            match field.name.as_str() {
                "name" => self.text(field)?.clone_into(&mut name),
                "base_path" => self.text(field)?.clone_into(&mut base_path),
                "model_version_policy" => versions = self.policy(field)?,
                "version_labels" => labels.push(self.label(field)?),
                // The platform is found out from the files, and request logging is the log's business.
                _ => {}
            }
        }
        if name.is_empty() || base_path.is_empty() {
            return Err(self.error(field.offset, "a `config` wants a `name` and a `base_path`"));
        }
        Ok(ListedConfig { name, base_path: PathBuf::from(base_path), versions, labels, offset: field.offset })
    }

    fn policy(self, field: &Field) -> Result<Versions, ConfigError> {
        let mut policy = Versions::Latest(1);
        for choice in self.known(self.message(field)?, &["latest", "all", "specific"])? {
            let inner = self.message(choice)?;
            policy = match choice.name.as_str() {
                "latest" => {
                    let count =
                        self.known(inner, &["num_versions"])?.last().map_or(Ok(1), |count| self.number(count))?;
                    Versions::Latest(usize::max(count, 1))
                }
                "all" => Versions::All,
                _ => Versions::Specific(
                    self.known(inner, &["versions"])?.map(|version| self.number(version)).collect::<Result<_, _>>()?,
                ),
            };
        }
        Ok(policy)
    }

    fn label(self, field: &Field) -> Result<(String, u64), ConfigError> {
        let (mut key, mut version) = (None, 0);
        for part in self.known(self.message(field)?, &["key", "value"])? {
            match part.name.as_str() {
                "key" => key = Some(self.text(part)?.to_owned()),
                _ => version = self.number(part)?,
            }
        }
        key.map(|key| (key, version)).ok_or_else(|| self.error(field.offset, "a label wants a `key`"))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::{Path, PathBuf};

    use super::{Versions, batching, models};

    const MODELS: &str = r#"
        model_config_list {
          config {
            name: 'm'  base_path: '/models/m'  model_platform: 'tensorflow'
            model_version_policy { specific { versions: 42 versions: 43 } }
            version_labels { key: 'stable' value: 42 }
            version_labels { key: 'canary' value: 43 }
          }
          config: { name: "n" base_path: "/models/n" model_version_policy: { latest { num_versions: 0 } } },
          config { name: "o" base_path: "/models/o" model_version_policy { all {} } }
        }"#;

    #[test]
    fn a_model_config_file_reads_as_tf_serving_reads_it() {
        let models = models(Path::new("models.config"), MODELS).unwrap();
        assert_eq!(models[0].base_path, PathBuf::from("/models/m"));
        assert_eq!(models[0].versions, Versions::Specific(vec![42, 43]));
        assert_eq!(models[0].labels, [("stable".to_owned(), 42), ("canary".to_owned(), 43)]);
        assert_eq!(models[1].versions, Versions::Latest(1));
        assert_eq!(models[2].versions, Versions::All);
    }

    #[test]
    fn a_wrong_model_config_file_says_where() {
        let check = |text: &str, expected: &str| {
            let error = models(Path::new("models.config"), text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "model_config_list {\n  config { name: 'm' base_pth: '/m' }\n}",
            "models.config:2:22: unknown field `base_pth`; did you mean `base_path`?",
        );
        check(
            "model_config_list { config { name: 'm' base_path: '/a' } config { name: 'm' base_path: '/b' } }",
            "Illegal to list model m multiple times",
        );
        check("model_config_list { config { name: 'm' base_path: 7 } }", "quoted string");
        check("model_config_list { config { name: 'm' } }", "base_path");
        check("", "model_config_list");
    }

    #[test]
    fn a_batching_file_reads_as_text_and_as_json() {
        let text = "max_batch_size { value: 32 } batch_timeout_micros { value: 5000 }
                    max_enqueued_batches { value: 100 } num_batch_threads { value: 8 } thread_pool_name { value: 'p' }";
        let json =
            r#"{"max_batch_size":32,"batch_timeout_micros":5000,"max_enqueued_batches":100,"num_batch_threads":8}"#;
        let from_text = batching(Path::new("b"), text).unwrap();
        assert_eq!(from_text, batching(Path::new("b"), json).unwrap());
        assert_eq!(from_text.max_batch_size, NonZeroUsize::new(32));
        assert_eq!(from_text.batch_timeout_micros, Some(5_000));
        assert_eq!(from_text.max_enqueued_batches, NonZeroUsize::new(100));
        assert_eq!(from_text.num_batch_threads, NonZeroUsize::new(8));
    }

    #[test]
    fn allowed_batch_sizes_must_end_at_the_largest_batch() {
        assert!(batching(Path::new("b"), "max_batch_size { value: 8 } allowed_batch_sizes: [1, 8]").is_ok());
        assert!(
            batching(Path::new("b"), "max_batch_size { value: 8 } allowed_batch_sizes: 1 allowed_batch_sizes: 4")
                .is_err()
        );
        assert!(batching(Path::new("b"), "max_batch_size { value: 8 } allowed_batch_sizes: [8, 4, 8]").is_err());
        let split = "max_batch_size { value: 64 } enable_large_batch_splitting { value: true }
                     max_execution_batch_size { value: 8 } allowed_batch_sizes: [4, 8]";
        assert!(batching(Path::new("b"), split).is_ok());
    }

    #[test]
    fn a_wrong_batching_file_says_where() {
        let error = batching(Path::new("b.json"), "{\n  \"max_batch_sise\": 3}").unwrap_err().to_string();
        assert!(error.starts_with("b.json:2:"), "{error}");
        let error = batching(Path::new("b.txt"), "max_batch_sise { value: 3 }").unwrap_err().to_string();
        assert!(error.contains("did you mean `max_batch_size`"), "{error}");
    }
}
