//! Which versions of a model are wanted: its policy, its aliases, an operator's orders and what lies on disk, in; a
//! set of numbers, out. Nothing else decides that.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use millrace_core::{Alias, ModelName};

use crate::scan::Place;
use crate::{BatchOverrides, VersionPolicy};

/// Everything that was ordered and holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Orders {
    /// Whether the models with a [`base`](Overrides::base) are all that is wanted, whatever the configuration says.
    pub(crate) is_whole: bool,
    pub(crate) models: BTreeMap<ModelName, Overrides>,
}

impl Orders {
    /// The orders for `model`.
    pub(crate) fn get(&self, model: &ModelName) -> Option<&Overrides> {
        self.models.get(model)
    }

    /// The same with other orders for `model`.
    #[must_use]
    pub(crate) fn with(mut self, model: &ModelName, overrides: Overrides) -> Self {
        if overrides.is_empty() {
            self.models.remove(model);
        } else {
            self.models.insert(model.clone(), overrides);
        }
        self
    }
}

/// A version that an operator registered, wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) place: Place,
    /// The folder whose `model.toml` or `config.pbtxt` counts, below the same root.
    pub(crate) config: Option<String>,
    /// The most rows of one run, where the order said so.
    pub(crate) max_batch_size: Option<NonZeroUsize>,
    /// How long a batch waits for company, where the order said so.
    pub(crate) batch_delay: Option<Duration>,
}

impl Stored {
    /// What the order said about batching. It goes before every configuration.
    pub(crate) fn batching(&self) -> BatchOverrides {
        BatchOverrides {
            max_batch_size: self.max_batch_size,
            // TorchServe's batch size bounds a run, never a request.
            enable_large_batch_splitting: self.max_batch_size.map(|_| true),
            batch_timeout_micros: self.batch_delay.map(|delay| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
            ..BatchOverrides::default()
        }
    }
}

/// What an operator ordered for one model, beyond its configuration. Kept until ordered otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Overrides {
    /// The model as a whole was unloaded: only versions loaded by number serve.
    pub(crate) unloaded: bool,
    /// Versions ordered by number: loaded (true) or unloaded (false).
    pub(crate) versions: BTreeMap<u64, bool>,
    /// Aliases set, or removed (`None`).
    pub(crate) aliases: BTreeMap<Alias, Option<u64>>,
    /// Where the versions lie, for a model of a set that replaced the configured one.
    pub(crate) base: Option<Place>,
    /// The policy of that set. It goes before every configured one.
    pub(crate) policy: Option<VersionPolicy>,
    /// How many runs of a version may go on at once.
    pub(crate) executors: BTreeMap<u64, usize>,
    /// Versions that were registered, beside those that the model's folder has.
    pub(crate) stored: BTreeMap<u64, Stored>,
}

impl Overrides {
    /// Whether nothing was ordered.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// After an order to load one version, or everything that the policy wants.
    #[must_use]
    pub(crate) fn with_load(mut self, version: Option<u64>) -> Self {
        match version {
            Some(version) => drop(self.versions.insert(version, true)),
            None => {
                self.unloaded = false;
                self.versions.retain(|_, loaded| *loaded);
            }
        }
        self
    }

    /// After an order to unload one version, or all.
    #[must_use]
    pub(crate) fn with_unload(mut self, version: Option<u64>) -> Self {
        match version {
            Some(version) => drop(self.versions.insert(version, false)),
            None => {
                self.unloaded = true;
                self.versions.clear();
            }
        }
        self
    }

    /// After an order to forget one version: as if nothing had ever been said about it.
    #[must_use]
    pub(crate) fn without(mut self, version: u64) -> Self {
        self.versions.remove(&version);
        self.executors.remove(&version);
        self.stored.remove(&version);
        self.aliases.retain(|_, target| *target != Some(version));
        self
    }

    /// After an order about one version that came to nothing: what was said about that version `before`, and about which
    /// version is the default.
    #[must_use]
    pub(crate) fn restored(mut self, before: &Self, version: u64) -> Self {
        fn put_back<K: Ord + Clone, V: Clone>(to: &mut BTreeMap<K, V>, from: &BTreeMap<K, V>, key: &K) {
            match from.get(key) {
                Some(value) => drop(to.insert(key.clone(), value.clone())),
                None => drop(to.remove(key)),
            }
        }
        put_back(&mut self.versions, &before.versions, &version);
        put_back(&mut self.executors, &before.executors, &version);
        put_back(&mut self.stored, &before.stored, &version);
        if let Ok(default) = Alias::DEFAULT.parse() {
            put_back(&mut self.aliases, &before.aliases, &default);
        }
        self
    }

    /// Whether an operator unloaded `version`.
    pub(crate) fn forbids(&self, version: u64) -> bool {
        match self.versions.get(&version) {
            Some(loaded) => !loaded,
            None => self.unloaded,
        }
    }

    /// The aliases that hold: the `configured` ones as the orders changed them.
    pub(crate) fn aliases(&self, configured: &BTreeMap<Alias, u64>) -> BTreeMap<Alias, u64> {
        let mut aliases = configured.clone();
        for (alias, version) in &self.aliases {
            match version {
                Some(version) => aliases.insert(alias.clone(), *version),
                None => aliases.remove(alias),
            };
        }
        aliases
    }

    /// One line for each order.
    pub(crate) fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.base.is_some() {
            words.push("one of the set that was ordered in place of the configured one".to_owned());
        }
        for version in self.stored.keys() {
            words.push(format!("version {version} registered by order"));
        }
        if self.unloaded {
            words.push("unloaded by order".to_owned());
        }
        for (version, loaded) in &self.versions {
            words.push(format!("version {version} {} by order", if *loaded { "loaded" } else { "unloaded" }));
        }
        for (alias, version) in &self.aliases {
            words.push(match version {
                Some(version) => format!("alias `{alias}` set to version {version} by order"),
                None => format!("alias `{alias}` removed by order"),
            });
        }
        for (version, executors) in &self.executors {
            words.push(format!("version {version} scaled to {executors} executors by order"));
        }
        words
    }
}

/// The versions wanted out of those `present` on disk.
///
/// The policy chooses among the versions that nobody unloaded, so that unloading a bad newest version brings the one
/// before it back. A version that an alias points at is wanted too: an alias such as `default = 2` is there to hold a
/// version while newer ones come, and must not lose it to the policy.
pub(crate) fn wanted(
    policy: &VersionPolicy,
    aliases: &BTreeMap<Alias, u64>,
    overrides: &Overrides,
    present: &BTreeSet<u64>,
) -> BTreeSet<u64> {
    let allowed: BTreeSet<u64> = present.iter().copied().filter(|version| !overrides.forbids(*version)).collect();
    if overrides.unloaded {
        return allowed;
    }
    let mut wanted: BTreeSet<u64> = match overrides.policy.as_ref().unwrap_or(policy) {
        VersionPolicy::Latest(count) => allowed.iter().rev().take(count.get()).copied().collect(),
        VersionPolicy::All => allowed.clone(),
        VersionPolicy::Specific(versions) => versions.iter().copied().filter(|v| allowed.contains(v)).collect(),
    };
    let ordered = overrides.versions.iter().filter(|(_, loaded)| **loaded).map(|(version, _)| version);
    wanted.extend(aliases.values().chain(ordered).filter(|version| allowed.contains(version)));
    wanted
}

#[cfg(test)]
mod tests;
