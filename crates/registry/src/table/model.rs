//! One model: what lies on disk of it, what its configuration says, and its versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use millrace_core::Alias;

use super::version::{Phase, Version};
use crate::desired::{Overrides, wanted};
use crate::scan::FoundVersion;
use crate::{ModelConfig, VersionPolicy};

/// The policy and aliases that were given with the list of models.
pub(crate) type Listed = (VersionPolicy, BTreeMap<Alias, u64>);

/// One model.
#[derive(Debug)]
pub(crate) struct Model<L> {
    /// The last `model.toml` that could be read.
    pub(super) config: Option<Arc<ModelConfig>>,
    /// Why the present one cannot.
    pub(super) config_error: Option<Arc<str>>,
    pub(super) on_disk: BTreeMap<u64, OnDisk>,
    pub(super) versions: BTreeMap<u64, Version<L>>,
    pub(super) gone: bool,
    /// Its folder or file below the repository or a store.
    pub(super) path: String,
    /// Whether it is there only because versions of it were registered.
    pub(super) is_registered: bool,
}

#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) found: FoundVersion,
    /// When it was first seen as it is now.
    pub(super) since: Instant,
    /// Whether it has been seen like that for long enough.
    pub(super) steady: bool,
}

impl<L> Default for Model<L> {
    fn default() -> Self {
        Self {
            config: None,
            config_error: None,
            on_disk: BTreeMap::new(),
            versions: BTreeMap::new(),
            gone: false,
            path: String::new(),
            is_registered: false,
        }
    }
}

impl<L> Model<L> {
    /// Why its `model.toml` cannot be read, if so.
    pub(crate) fn config_error(&self) -> Option<&Arc<str>> {
        self.config_error.as_ref()
    }

    /// Whether it is no longer on disk.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Its folder or file below the repository or a store.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is there only because versions of it were registered.
    pub(crate) fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// The versions on disk.
    pub(crate) fn on_disk(&self) -> impl Iterator<Item = u64> {
        self.on_disk.keys().copied()
    }

    /// The versions that are or were wanted.
    pub(crate) fn versions(&self) -> &BTreeMap<u64, Version<L>> {
        &self.versions
    }

    /// Versions on disk that wait until their files hold still, or that no `model.toml` explains.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        let known = |version: &u64| self.versions.contains_key(version);
        let waits = |on_disk: &OnDisk| !on_disk.steady || self.config.is_none();
        self.on_disk
            .iter()
            .filter(move |(version, on_disk)| !known(version) && waits(on_disk))
            .map(|(version, _)| *version)
    }

    pub(super) fn is_available(&self, version: u64) -> bool {
        matches!(self.versions.get(&version), Some(Version { phase: Phase::Available(..), .. }))
    }

    pub(super) fn aliases(&self, listed: Option<&Listed>) -> BTreeMap<Alias, u64> {
        let mut aliases = listed.map(|(_, aliases)| aliases.clone()).unwrap_or_default();
        if let Some(config) = &self.config {
            aliases.extend(config.aliases.clone());
        }
        aliases
    }

    pub(super) fn wanted(&self, listed: Option<&Listed>, overrides: &Overrides) -> BTreeSet<u64> {
        let Some(config) = &self.config else { return BTreeSet::new() };
        let aliases = overrides.aliases(&self.aliases(listed));
        // A version in use counts whatever happens to its files: its contents were read long ago.
        let in_use = |version: &u64| {
            let phase = self.versions.get(version).map(|version| &version.phase);
            matches!(phase, Some(Phase::Loading(_) | Phase::Available(..)))
        };
        let present = self.on_disk.iter().filter(|(version, on_disk)| on_disk.steady || in_use(version));
        let present: BTreeSet<u64> = present.map(|(version, _)| *version).collect();
        let default = VersionPolicy::default();
        let policy = config.versions.as_ref().or_else(|| listed.map(|(policy, _)| policy)).unwrap_or(&default);
        wanted(policy, &aliases, overrides, &present)
    }

    /// The versions that a configuration names one by one and that are not on disk.
    pub(super) fn missing(&self, listed: Option<&Listed>, overrides: &Overrides) -> Vec<u64> {
        let configured = self.config.as_ref().and_then(|config| config.versions.as_ref());
        let policy = overrides.policy.as_ref().or(configured).or_else(|| listed.map(|(policy, _)| policy));
        let Some(VersionPolicy::Specific(versions)) = policy else { return Vec::new() };
        versions.iter().copied().filter(|version| !self.on_disk.contains_key(version)).collect()
    }
}
