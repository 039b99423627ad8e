//! A model's folder whose `model.toml` makes it more than its network: a pipeline together with the models that it asks, or
//! a model with declared inputs. A registry that has these and no others loads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use millrace_batching::ComputePool;
use millrace_core::{Catalog as _, ModelName, ModelStatus, OwnedModelRef, VersionChoice, VersionStatus};
use millrace_registry::{ListedModel, ModelConfig, ModelSet, Registry, RegistryConfig, VersionPolicy};

use super::table::problems;
use super::{Failure, offline};
use crate::log::error_chain;
use crate::parts::{Choosing, built_in};

/// The file that says what a folder is.
const FILE: &str = "model.toml";

/// A folder and what its `model.toml` says.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) folder: PathBuf,
    pub(super) name: ModelName,
    pub(super) config: ModelConfig,
}

/// It and everything that it asks, loaded.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) name: ModelName,
    /// The version that answers.
    pub(super) version: VersionStatus,
    pub(super) registry: Registry,
    pub(super) pool: ComputePool,
}

/// What `path` says about itself where that is more than a network: `None` for a file, a version's folder, and a folder
/// whose `model.toml` changes nothing about what is asked and answered.
///
/// # Errors
/// A `model.toml` that cannot be read, and why.
pub(super) fn described(path: &Path) -> Result<Option<Described>, Failure> {
    let path = offline::meant(path);
    // Names come from folders, also for `.` and `models/fraud/`. What is not there is said where it is looked for again.
    let Ok(folder) = fs::canonicalize(&path) else { return Ok(None) };
    let Some(config) = read(&folder)? else { return Ok(None) };
    if config.pipeline.is_none() && config.inputs.is_empty() {
        return Ok(None);
    }
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.parse().map_err(|error| Failure::misused(format!("{}: {error}", path.display())))?;
    Ok(Some(Described { folder, name, config }))
}

/// What the `model.toml` of the folder that `path` means says; the default for a file, for a version's folder, and where
/// there is none.
///
/// # Errors
/// A `model.toml` that cannot be read, and why.
pub(super) fn config(path: &Path) -> Result<ModelConfig, Failure> {
    Ok(read(&offline::meant(path))?.unwrap_or_default())
}

/// The `model.toml` of a model's folder, if there is one.
fn read(folder: &Path) -> Result<Option<ModelConfig>, Failure> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let wrong = |error| Failure::failed(format!("{}: {error}", folder.display()));
            ModelConfig::parse(&text).map(Some).map_err(wrong)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Failure::misused(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Loads it with every model that it asks, directly or through others. Those lie beside it.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(super) fn load(described: &Described, choosing: &Choosing) -> Result<Together, Failure> {
    let mut config = RegistryConfig::new(ModelSet::Listed(listed(described)?));
    config.watch = false;
    let pool = offline::pool();
    let registry = Registry::start(config, built_in(choosing.clone()), pool.clone())
        .map_err(|error| Failure::misused(error_chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::failed)?;
    runtime.block_on(registry.settled());
    let serves = |model: ModelStatus| {
        let version = model.default_version?;
        model.versions.into_iter().find(|status| status.version == version)
    };
    match registry.model(described.name.as_str()).and_then(serves) {
        Some(version) => Ok(Together { name: described.name.clone(), version, registry, pool }),
        None => {
            let problems = problems(&registry.models());
            Err(Failure::failed(format!("{} does not load: {}", described.name, problems.join("; "))))
        }
    }
}

/// Which models that takes.
fn listed(described: &Described) -> Result<Vec<ListedModel>, Failure> {
    let mut found = BTreeMap::from([(described.name.clone(), described.folder.clone())]);
    // Versions that are asked for by number are loaded whichever they are.
    let mut by_number: BTreeSet<ModelName> = BTreeSet::new();
    let mut rest: Vec<OwnedModelRef> = inner(&described.config);
    while let Some(model) = rest.pop() {
        if matches!(model.borrowed().version, VersionChoice::Number(_)) {
            by_number.insert(model.name().clone());
        }
        if found.contains_key(model.name()) {
            continue;
        }
        let folder = described.folder.with_file_name(model.name().as_str());
        if let Some(config) = read(&folder)? {
            rest.extend(inner(&config));
        }
        found.insert(model.name().clone(), folder);
    }
    let model = |(name, folder): (ModelName, PathBuf)| {
        let policy = if by_number.contains(&name) { VersionPolicy::All } else { VersionPolicy::default() };
        ListedModel { policy, ..ListedModel::new(name, folder) }
    };
    Ok(found.into_iter().map(model).collect())
}

fn inner(config: &ModelConfig) -> Vec<OwnedModelRef> {
    config.pipeline.iter().flat_map(|pipeline| pipeline.models.values()).cloned().collect()
}
