//! `model.toml`: what a model says about itself, in typed form. Triton's `config.pbtxt` has the same form; see `triton`.
//!
//! Only reading and judging the text is done here. Which versions that means is decided in `desired`; whether there is a
//! pipeline or an input of a kind that is named, in `loader`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use millrace_core::{Alias, DType, OwnedModelRef};
use toml::de::DeTable;

use crate::toml_reader::{ModelConfigError, Table, Value};
use crate::{BatchOverrides, Declared, units};

/// Which of the versions on disk are wanted. TensorFlow Serving's policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// So many of the highest.
    Latest(NonZeroUsize),
    /// Every one.
    All,
    /// These, as far as they are there.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    /// The highest version alone.
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

/// A model's `model.toml`, every key of it optional:
///
/// | key | default | meaning |
/// |---|---|---|
/// | `kind` | `"model"` | what the folder holds: a `"model"`, or a `"pipeline"` over other models |
/// | `backend` | `"auto"` | the engine's name, or whichever serves it best |
/// | `versions` | `{ latest = 1 }` | `"all"`, `{ latest = 2 }` or `[1, 3]` |
/// | `[aliases]` | none | `stable = 1`: names for versions; `default` decides which answers where none is asked for |
/// | `[batching]` | the server's | see [`BatchOverrides`] for each key |
/// | `[warmup] enabled` | `true` | whether a version runs before it serves |
/// | `[warmup] rows` | `[1, 8]` | the batch sizes to run |
/// | `[warmup] runs` | `1` | how often each |
/// | `[limits] memory` | none | the most that loading one version may take, such as `"512MiB"` |
/// | `[options]` | none | passed to the engine as it stands: strings, numbers, true or false |
/// | `[options.ENGINE]` | none | the same for one engine among several |
/// | `[inputs.NAME] kind` | | in which form callers give the input `NAME`; the other keys are that form's options |
/// | `[text] enabled` | where the files are a text model's | whether callers give text in place of token ids; the other keys are options of how |
/// | `pipeline` | | which pipeline it is; only with `kind = "pipeline"`, as the next |
/// | `[models]` | | `role = "model"`: the pipeline's models; also `"model:3"` for a version, `"model@stable"` for an alias |
///
/// A pipeline has `versions`, `[aliases]` and `[options]` besides; what an engine would need to know is an error there.
/// Durations are written `"20ms"` or `"5s"`. An unknown key is an error with line, column and a suggestion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelConfig {
    /// The engine's name; `None` is `"auto"`.
    pub backend: Option<String>,
    /// The versions wanted; `None` where the file does not say.
    pub versions: Option<VersionPolicy>,
    /// Names for versions.
    pub aliases: BTreeMap<Alias, u64>,
    /// What goes before the server's batching.
    pub batching: BatchOverrides,
    /// Runs before serving.
    pub warmup: WarmupConfig,
    /// The most bytes that loading one version may take; `None` where the file does not say.
    pub memory_limit: Option<u64>,
    /// The engine's own options.
    pub options: BTreeMap<String, String>,
    /// The model's file in each version's folder (Triton's `default_model_filename`); `None` lets the engine find it.
    pub model_file: Option<String>,
    /// What the model must take and give (Triton's `input`, `output` and `max_batch_size`).
    pub declared: Option<Declared>,
    /// The inputs that callers give in another form than the network takes them, by name.
    pub inputs: BTreeMap<String, InputConfig>,
    /// Whether and how callers give text.
    pub text: TextConfig,
    /// What pipeline it is, if it is one.
    pub pipeline: Option<PipelineConfig>,
}

/// In which form callers give one input: `[inputs.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputConfig {
    /// The name of the form, such as `image`.
    pub kind: String,
    /// Its options: strings without quotes, the rest as TOML writes it.
    pub options: BTreeMap<String, String>,
}

/// Whether callers give text in place of token ids, and how: `[text]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextConfig {
    /// Whether they do; `None` leaves it to the files.
    pub enabled: Option<bool>,
    /// The other keys: strings without quotes, the rest as TOML writes it.
    pub options: BTreeMap<String, String>,
}

/// A pipeline over other models: `kind = "pipeline"`. Its options are [`ModelConfig::options`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Which pipeline.
    pub name: String,
    /// Its models by role.
    pub models: BTreeMap<String, OwnedModelRef>,
}

/// Runs made with invented inputs before a version serves, so that its first caller does not pay for first-time work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupConfig {
    /// Whether to run at all.
    pub enabled: bool,
    /// The batch sizes; a model that is not batched runs with one row whatever stands here.
    pub rows: Vec<NonZeroUsize>,
    /// How often each.
    pub runs: NonZeroUsize,
    /// Requests to run in place of those with invented inputs (Triton's `model_warmup`).
    pub requests: Vec<WarmupRequest>,
}

/// One request to warm a model up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupRequest {
    /// What it is called, for messages.
    pub name: String,
    /// Rows, where the inputs' sizes leave the batch axis out.
    pub rows: usize,
    /// How often to run it.
    pub runs: NonZeroUsize,
    /// All of the model's inputs.
    pub inputs: Vec<WarmupInput>,
}

/// One input of a [`WarmupRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupInput {
    /// Its name.
    pub name: String,
    /// Its type, where said.
    pub dtype: Option<DType>,
    /// Its sizes, with the batch axis or without.
    pub dims: Vec<usize>,
    /// Random values in place of zeros.
    pub is_random: bool,
}

impl Default for WarmupConfig {
    fn default() -> Self {
        let rows = [1, 8].into_iter().filter_map(NonZeroUsize::new).collect();
        Self { enabled: true, rows, runs: NonZeroUsize::MIN, requests: Vec::new() }
    }
}

impl ModelConfig {
    /// Reads the text of a `model.toml`.
    ///
    /// # Errors
    /// [`ModelConfigError`] with line and column: broken TOML, an unknown key, a value of the wrong kind or out of range,
    /// settings that contradict each other.
    pub fn parse(text: &str) -> Result<Self, ModelConfigError> {
        Self::parse_over(Self::default(), text)
    }

    /// The same over what another file says: every key that stands in `text` goes before it.
    pub(crate) fn parse_over(base: Self, text: &str) -> Result<Self, ModelConfigError> {
        let document = DeTable::parse(text).map_err(|error| Table::unreadable(text, &error))?;
        let root = Table::root(text, document.get_ref());
        root.only(&KEYS)?;
        if let Some(kind) = root.get("kind") {
            match kind.str()? {
                "model" => {}
                "pipeline" => return pipeline::read(root, kind, &base),
                _ => return Err(kind.error("expected \"model\" or \"pipeline\"")),
            }
        }
        root.without(&pipeline::OWN, "only a pipeline has this: `kind = \"pipeline\"`")?;
        let mut config = base;
        if let Some(backend) = root.get("backend") {
            config.backend = Some(backend.str()?).filter(|name| *name != "auto").map(str::to_owned);
        }
        if let Some(versions) = root.get("versions") {
            config.versions = Some(policy(versions)?);
        }
        if let Some(aliases) = root.get("aliases") {
            config.aliases.extend(read_aliases(aliases.table()?)?);
        }
        if let Some(batching) = root.get("batching") {
            config.batching = read_batching(batching)?.over(&config.batching);
        }
        if let Some(warmup) = root.get("warmup") {
            config.warmup = read_warmup(warmup.table()?, config.warmup)?;
        }
        if let Some(limits) = root.get("limits") {
            let limits = limits.table()?;
            limits.only(&["memory"])?;
            config.memory_limit = limits.get("memory").map(size).transpose()?;
        }
        if let Some(options) = root.get("options") {
            config.options = read_options(options.table()?)?;
        }
        if let Some(inputs) = root.get("inputs") {
            let read = |(name, value): (&str, Value<'_>)| Ok((name.to_owned(), input(value)?));
            config.inputs = inputs.table()?.entries().map(read).collect::<Result<_, ModelConfigError>>()?;
        }
        if let Some(text) = root.get("text") {
            config.text = read_text(text.table()?)?;
            if config.text.enabled != Some(false) && !config.inputs.is_empty() {
                return Err(text.error("the inputs are declared by [inputs] already; keep one of the two"));
            }
        }
        Ok(config)
    }
}

/// Every key at the top.
const KEYS: [&str; 12] = [
    "kind", "backend", "versions", "aliases", "batching", "warmup", "limits", "options", "inputs", "text", "pipeline",
    "models",
];

/// Options by name; those of a table in them belong to the engine that it is named after, and are called `engine.option`.
fn read_options(table: Table<'_>) -> Result<BTreeMap<String, String>, ModelConfigError> {
    let mut options = BTreeMap::new();
    for (key, value) in table.entries() {
        if value.is_table() {
            for (inner, value) in value.table()?.entries() {
                options.insert(format!("{key}.{inner}"), value.written()?);
            }
        } else {
            options.insert(key.to_owned(), value.written()?);
        }
    }
    Ok(options)
}

fn input(value: Value<'_>) -> Result<InputConfig, ModelConfigError> {
    let table = value.table()?;
    let kind = table.get("kind").ok_or_else(|| value.error("`kind` is missing, such as kind = \"image\""))?;
    let others = table.entries().filter(|(key, _)| *key != "kind");
    let options = others.map(|(key, value)| Ok((key.to_owned(), value.written()?)));
    Ok(InputConfig { kind: kind.str()?.to_owned(), options: options.collect::<Result<_, ModelConfigError>>()? })
}

fn read_text(table: Table<'_>) -> Result<TextConfig, ModelConfigError> {
    let enabled = table.get("enabled").map(Value::bool).transpose()?;
    let others = table.entries().filter(|(key, _)| *key != "enabled");
    let options = others.map(|(key, value)| Ok((key.to_owned(), value.written()?)));
    Ok(TextConfig { enabled, options: options.collect::<Result<_, ModelConfigError>>()? })
}

fn policy(value: Value<'_>) -> Result<VersionPolicy, ModelConfigError> {
    let expected = "expected \"all\", { latest = 2 } or a list such as [1, 3]";
    if value.is_list() {
        return value.list(Value::u64).map(VersionPolicy::Specific);
    }
    if value.is_table() {
        let table = value.table()?;
        table.only(&["latest"])?;
        let latest = table.get("latest").ok_or_else(|| value.error(expected))?;
        return latest.count().map(VersionPolicy::Latest);
    }
    match value.as_str() {
        Some("all") => Ok(VersionPolicy::All),
        _ => Err(value.error(expected)),
    }
}

fn read_aliases(table: Table<'_>) -> Result<BTreeMap<Alias, u64>, ModelConfigError> {
    let mut aliases = BTreeMap::new();
    for (name, value) in table.entries() {
        let alias: Alias = name.parse().map_err(|error| value.error(format!("{error}")))?;
        if alias.as_str() == Alias::LATEST {
            return Err(value.error("this alias is reserved: it always means the highest available version"));
        }
        aliases.insert(alias, value.u64()?);
    }
    Ok(aliases)
}

fn read_batching(value: Value<'_>) -> Result<BatchOverrides, ModelConfigError> {
    let table = value.table()?;
    table.only(&[
        "enabled",
        "max_batch_size",
        "max_batch_tokens",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "allowed_batch_sizes",
        "preferred_batch_size",
        "max_queue_delay_microseconds",
        "latency_goal",
        "enable_large_batch_splitting",
    ])?;
    let duration = |value: Value<'_>| units::duration(value.str()?).map_err(|error| value.error(error.to_string()));
    let batching = BatchOverrides {
        enabled: table.get("enabled").map(Value::bool).transpose()?,
        max_batch_size: table.get("max_batch_size").map(Value::count).transpose()?,
        max_batch_tokens: table.get("max_batch_tokens").map(Value::count).transpose()?,
        batch_timeout_micros: table.get("batch_timeout_micros").map(Value::u64).transpose()?,
        max_enqueued_batches: table.get("max_enqueued_batches").map(Value::count).transpose()?,
        num_batch_threads: table.get("num_batch_threads").map(Value::count).transpose()?,
        allowed_batch_sizes: table.get("allowed_batch_sizes").map(|list| list.list(Value::count)).transpose()?,
        preferred_batch_size: table.get("preferred_batch_size").map(|list| list.list(Value::count)).transpose()?,
        max_queue_delay_microseconds: table.get("max_queue_delay_microseconds").map(Value::u64).transpose()?,
        latency_goal: table.get("latency_goal").map(duration).transpose()?,
        enable_large_batch_splitting: table.get("enable_large_batch_splitting").map(Value::bool).transpose()?,
    };
    batching.check().map_err(|error| value.error(error.to_string()))?;
    Ok(batching)
}

fn read_warmup(table: Table<'_>, mut warmup: WarmupConfig) -> Result<WarmupConfig, ModelConfigError> {
    table.only(&["enabled", "rows", "runs"])?;
    if let Some(enabled) = table.get("enabled") {
        warmup.enabled = enabled.bool()?;
    }
    if let Some(rows) = table.get("rows") {
        warmup.rows = rows.list(Value::count)?;
        warmup.requests.clear();
    }
    if let Some(runs) = table.get("runs") {
        warmup.runs = runs.count()?;
    }
    Ok(warmup)
}

fn size(value: Value<'_>) -> Result<u64, ModelConfigError> {
    match value.as_str() {
        Some(text) => units::bytes(text).map_err(|error| value.error(error.to_string())),
        None => value.u64(),
    }
}

mod pipeline;
#[cfg(test)]
mod tests;
