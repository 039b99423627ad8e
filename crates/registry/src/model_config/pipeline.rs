//! `kind = "pipeline"` in a `model.toml`: which pipeline, over which models.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use millrace_core::OwnedModelRef;

use super::{ModelConfig, PipelineConfig, policy, read_aliases};
use crate::files::Fingerprint;
use crate::toml_reader::{ModelConfigError, Table, Value};

/// Keys that only a pipeline has.
pub(super) const OWN: [&str; 2] = ["pipeline", "models"];
/// Keys that only a model of its own has.
const FOREIGN: [&str; 6] = ["backend", "batching", "warmup", "limits", "inputs", "text"];

/// Reads the whole of a pipeline's `model.toml`. `base` is what another file says.
pub(super) fn read(root: Table<'_>, kind: Value<'_>, base: &ModelConfig) -> Result<ModelConfig, ModelConfigError> {
    root.without(&FOREIGN, "a pipeline has no network of its own; this belongs to the models that it asks")?;
    if *base != ModelConfig::default() {
        return Err(
            kind.error("a pipeline has no network, but the folder's config.pbtxt describes one; keep one of the two")
        );
    }
    let name = root.get("pipeline").ok_or_else(|| kind.error("which one? `pipeline = \"…\"` is missing"))?;
    let mut config = ModelConfig::default();
    if let Some(versions) = root.get("versions") {
        config.versions = Some(policy(versions)?);
    }
    if let Some(aliases) = root.get("aliases") {
        config.aliases = read_aliases(aliases.table()?)?;
    }
    if let Some(options) = root.get("options") {
        let read = |(key, value): (&str, Value<'_>)| Ok((key.to_owned(), value.written()?));
        config.options = options.table()?.entries().map(read).collect::<Result<_, ModelConfigError>>()?;
    }
    let models = root.get("models").map(|models| models.table().and_then(roles)).transpose()?.unwrap_or_default();
    config.pipeline = Some(PipelineConfig { name: name.str()?.to_owned(), models });
    Ok(config)
}

fn roles(table: Table<'_>) -> Result<BTreeMap<String, OwnedModelRef>, ModelConfigError> {
    let read = |(role, value): (&str, Value<'_>)| {
        let model = value.str()?.parse().map_err(|error| value.error(format!("{error}")))?;
        Ok((role.to_owned(), model))
    };
    table.entries().map(read).collect()
}

impl ModelConfig {
    /// What a pipeline is made of, as versions of other models are told by their files; `None` where it is no pipeline.
    pub(crate) fn definition(&self) -> Option<Fingerprint> {
        let PipelineConfig { name, models } = self.pipeline.as_ref()?;
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        for (role, model) in models {
            (role, model.to_string()).hash(&mut hasher);
        }
        self.options.hash(&mut hasher);
        let contents = hasher.finish();
        Some(Fingerprint { contents, changes: contents })
    }
}
