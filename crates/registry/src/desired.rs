//! Which versions of a model are wanted: its policy, its aliases, an operator's orders and what lies on disk, in; a
//! set of numbers, out. Nothing else decides that.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::Alias;

use crate::VersionPolicy;

/// What an operator ordered for one model, beyond its configuration. Kept until ordered otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Overrides {
    /// The model as a whole was unloaded: only versions loaded by number serve.
    pub(crate) unloaded: bool,
    /// Versions ordered by number: loaded (true) or unloaded (false).
    pub(crate) versions: BTreeMap<u64, bool>,
    /// Aliases set, or removed (`None`).
    pub(crate) aliases: BTreeMap<Alias, Option<u64>>,
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
    let mut wanted: BTreeSet<u64> = match policy {
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
