//! The lifecycle of every version, as a plain state machine: what was seen on disk, ordered, loaded and drained, in;
//! what to load and what to let go, out.
//!
//! No clock, no threads, no files: instants are handed in, loading is done in `loader`, and `L` stands for whatever
//! serves a loaded version.

mod inner;
mod model;
mod query;
mod version;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{Code, ModelName, VersionFailure, VersionStatistics};

use crate::desired::{Orders, Overrides, Stored};
use crate::files::Fingerprint;
use crate::scan::{FoundVersion, Place, Scan};
use crate::{BatchOverrides, ModelConfig, RetryConfig};

pub(crate) use model::{Listed, Model};
pub(crate) use version::{Facts, Phase, Version};

use model::OnDisk;
use version::Retry;

/// How many ended versions of a model are remembered for its status.
const MOST_ENDED: usize = 16;

/// One load, from its beginning until the last request that used its result has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LoadId(u64);

/// What the table must be told at the start.
#[derive(Debug, Clone)]
pub(crate) struct TableConfig {
    pub(crate) quiet_period: Duration,
    pub(crate) retry: RetryConfig,
    pub(crate) memory_budget: Option<u64>,
    /// Policies and aliases that were given with the list of models.
    pub(crate) listed: BTreeMap<ModelName, Listed>,
}

/// Every model and version.
#[derive(Debug)]
pub(crate) struct Table<L> {
    config: TableConfig,
    models: BTreeMap<ModelName, Model<L>>,
    orders: Orders,
    queue: VecDeque<(ModelName, u64)>,
    loading: BTreeMap<LoadId, Loading>,
    draining: BTreeMap<LoadId, Draining>,
    last_id: u64,
    changed: BTreeSet<ModelName>,
    next_retry: Option<Instant>,
}

#[derive(Debug)]
struct Loading {
    model: ModelName,
    version: u64,
    /// The files that it reads, which may not be those on disk when it ends.
    fingerprint: Option<Fingerprint>,
    /// Whether it is a pipeline of which a model has changed since: if it fails, that may be why.
    is_overtaken: bool,
}

#[derive(Debug)]
struct Draining {
    model: ModelName,
    version: u64,
    memory: u64,
}

/// A version to load.
#[derive(Debug, Clone)]
pub(crate) struct LoadOrder {
    pub(crate) id: LoadId,
    pub(crate) model: ModelName,
    pub(crate) version: u64,
    pub(crate) place: Place,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) config: Arc<ModelConfig>,
    /// What was ordered about its batching.
    pub(crate) batching: BatchOverrides,
    /// The most bytes it may take.
    pub(crate) memory: u64,
}

/// How a load ended.
#[derive(Debug)]
pub(crate) enum LoadOutcome<L> {
    Ready(L, Facts),
    Failed(VersionFailure),
    /// The files changed meanwhile: neither good nor bad, to be looked at again once they hold still.
    Changed,
}

/// What an order to load has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    Available,
    Failed(VersionFailure),
    /// Not wanted any more, or not there.
    Absent,
}

impl<L> Table<L> {
    pub(crate) fn new(config: TableConfig, orders: Orders) -> Self {
        Self {
            config,
            models: BTreeMap::new(),
            orders,
            queue: VecDeque::new(),
            loading: BTreeMap::new(),
            draining: BTreeMap::new(),
            last_id: 0,
            changed: BTreeSet::new(),
            next_retry: None,
        }
    }

    /// Takes over what lies on disk. With `trusted`, versions count at once instead of after the quiet period: at the
    /// start, when nothing serves that a too early load could replace.
    pub(crate) fn scanned(&mut self, scan: Scan, trusted: bool, now: Instant) {
        for (name, model) in &mut self.models {
            if !scan.models.contains_key(name) && !scan.unreadable.contains(name) {
                if !model.gone {
                    self.changed.insert(name.clone());
                }
                model.gone = true;
                model.on_disk.clear();
            }
        }
        let mut changed_configs = Vec::new();
        for (name, found) in scan.models {
            let model = self.models.entry(name.clone()).or_insert_with(|| {
                self.changed.insert(name.clone());
                Model::default()
            });
            if std::mem::take(&mut model.gone) || model.path != found.path {
                self.changed.insert(name.clone());
            }
            (model.path, model.is_registered) = (found.path, found.is_registered);
            match found.config {
                Ok(config) => {
                    if model.config.as_ref() != Some(&config) || model.config_error.is_some() {
                        self.changed.insert(name.clone());
                        changed_configs.push(name.clone());
                        // What failed under the old configuration may work under this one.
                        model.versions.values_mut().for_each(|version| version.retry = None);
                    }
                    model.config = Some(config);
                    model.config_error = None;
                }
                Err(message) => {
                    if model.config_error.as_ref() != Some(&message) {
                        tracing::warn!(model = %name, "{message}");
                        self.changed.insert(name.clone());
                    }
                    model.config_error = Some(message);
                }
            }
            let definition = model.config.as_ref().and_then(|config| config.definition());
            let mut before = std::mem::take(&mut model.on_disk);
            for (version, mut found) in found.versions {
                found.fingerprint = definition.or(found.fingerprint);
                let seen = before.remove(&version);
                if let Some(seen) = &seen
                    && model.is_available(version)
                    && seen.found.contents() != found.contents()
                {
                    let rule =
                        "a version's files never change; put changed ones into a new version, or unload and load it";
                    tracing::warn!(model = %name, version, "the files of a version that serves have changed: {rule}");
                }
                let seen = seen.filter(|seen| seen.found == found);
                let since = seen.as_ref().map_or(now, |seen| seen.since);
                let held = seen.is_some_and(|seen| {
                    seen.steady || now.saturating_duration_since(since) >= self.config.quiet_period
                });
                model.on_disk.insert(version, OnDisk { found, since, steady: trusted || held });
            }
        }
        // Aliases may have moved.
        changed_configs.iter().for_each(|name| self.wake_pipelines(name));
    }

    /// Takes the files of `version` of `model`, or of all its versions, as complete: an operator said so.
    pub(crate) fn trust(&mut self, model: &ModelName, version: Option<u64>) {
        if let Some(model) = self.models.get_mut(model) {
            let meant =
                model.on_disk.iter_mut().filter(|(number, _)| version.is_none_or(|version| version == **number));
            meant.for_each(|(_, on_disk)| on_disk.steady = true);
        }
    }

    /// Brings what is wanted and what is there nearer to each other. Gives what nobody should reach any more.
    #[must_use]
    pub(crate) fn reconcile(&mut self, now: Instant) -> Vec<L> {
        let mut released = Vec::new();
        let none = Overrides::default();
        self.next_retry = None;
        for (name, model) in &mut self.models {
            let overrides = self.orders.get(name).unwrap_or(&none);
            let wanted = model.wanted(self.config.listed.get(name), overrides);
            for &version in wanted.iter().rev() {
                let found = model.on_disk.get(&version).map(|on_disk| &on_disk.found);
                let fingerprint = found.and_then(|found| found.fingerprint);
                let entry = model.versions.entry(version).or_insert_with(Version::new);
                if found.is_some_and(|found| entry.lay_elsewhere(&found.place)) {
                    // The same number in another folder is another version.
                    released.extend(entry.retire(&mut self.draining, name, version));
                    self.changed.insert(name.clone());
                }
                if entry.should_start(fingerprint, now) {
                    entry.enter(Phase::Start, name, version);
                    self.changed.insert(name.clone());
                    self.queue.push_back((name.clone(), version));
                } else if let Some(at) = entry.retry_at() {
                    self.next_retry = Some(self.next_retry.map_or(at, |next| next.min(at)));
                }
            }
            let incomplete = wanted.iter().any(|version| !model.is_available(*version));
            let mut left_over = Vec::new();
            for (&version, entry) in model.versions.iter_mut().filter(|(version, _)| !wanted.contains(version)) {
                match entry.phase {
                    Phase::Start => left_over.push(version),
                    // The old version serves until every new one can.
                    Phase::Available(..) if incomplete && !overrides.forbids(version) => {}
                    Phase::Available(..) => {
                        released.extend(entry.retire(&mut self.draining, name, version));
                        self.changed.insert(name.clone());
                    }
                    Phase::End if !model.on_disk.contains_key(&version) => left_over.push(version),
                    Phase::Loading(_) | Phase::Unloading(_) | Phase::End => {}
                }
            }
            let ended = |(version, entry): (&u64, &Version<L>)| {
                (matches!(entry.phase, Phase::End) && !wanted.contains(version)).then_some(*version)
            };
            left_over.extend(model.versions.iter().filter_map(ended).rev().skip(MOST_ENDED));
            for version in left_over {
                model.versions.remove(&version);
                self.changed.insert(name.clone());
            }
        }
        let changed = &mut self.changed;
        self.models.retain(|name, model| {
            let keep = !model.gone || model.versions.values().any(|version| !matches!(version.phase, Phase::End));
            if !keep {
                changed.insert(name.clone());
            }
            keep
        });
        released
    }

    /// The next version to load, when a loader is free.
    pub(crate) fn next_load(&mut self) -> Option<LoadOrder> {
        while let Some((name, version)) = self.pop() {
            let memory = self.memory_left();
            let Some(model) = self.models.get_mut(&name) else { continue };
            let Some(config) = model.config.clone() else { continue };
            let Some(on_disk) = model.on_disk.get(&version) else { continue };
            let Some(entry) = model.versions.get_mut(&version) else { continue };
            if !matches!(entry.phase, Phase::Start) {
                continue;
            }
            self.last_id += 1;
            let id = LoadId(self.last_id);
            entry.enter(Phase::Loading(id), &name, version);
            let FoundVersion { place, fingerprint, .. } = on_disk.found.clone();
            entry.place = Some(place.clone());
            let loading = Loading { model: name.clone(), version, fingerprint, is_overtaken: false };
            self.loading.insert(id, loading);
            self.changed.insert(name.clone());
            let memory = memory.min(config.memory_limit.unwrap_or(u64::MAX));
            let stored = self.orders.get(&name).and_then(|overrides| overrides.stored.get(&version));
            let batching = stored.map(Stored::batching).unwrap_or_default();
            return Some(LoadOrder { id, model: name, version, place, fingerprint, config, batching, memory });
        }
        None
    }

    /// Takes the result of a load. Gives it back when nobody wants it any more.
    #[must_use]
    pub(crate) fn loaded(&mut self, id: LoadId, outcome: LoadOutcome<L>, now: Instant) -> Option<L> {
        let Loading { model: name, version: number, fingerprint, is_overtaken } = self.loading.remove(&id)?;
        self.changed.insert(name.clone());
        let left = self.memory_left();
        let retry = self.config.retry;
        let none = Overrides::default();
        let overrides = self.orders.get(&name).unwrap_or(&none);
        let is_wanted = self
            .models
            .get(&name)
            .is_some_and(|model| model.wanted(self.config.listed.get(&name), overrides).contains(&number));
        let model = self.models.get_mut(&name)?;
        let limit = model.config.as_ref().and_then(|config| config.memory_limit).unwrap_or(u64::MAX);
        let version =
            model.versions.get_mut(&number).filter(|version| matches!(version.phase, Phase::Loading(own) if own == id));
        let Some(version) = version else { return outcome.into_lease() };
        if model.on_disk.get(&number).is_some_and(|on_disk| version.lay_elsewhere(&on_disk.found.place)) {
            // It lies elsewhere since: whatever this load came to, it was of another version.
            model.versions.remove(&number);
            return outcome.into_lease();
        }
        if let Some(definition) = model.config.as_ref().and_then(|config| config.definition())
            && fingerprint != Some(definition)
        {
            // A pipeline is not what it was when its making began.
            model.versions.remove(&number);
            return outcome.into_lease();
        }
        let (lease, failure) = match outcome {
            LoadOutcome::Ready(lease, facts) if is_wanted => match too_large(&facts, left, limit) {
                None => {
                    version.failure = None;
                    version.retry = None;
                    version.facts = Some(facts);
                    version.enter(Phase::Available(id, lease), &name, number);
                    self.wake_pipelines(&name);
                    return None;
                }
                Some(failure) => (Some((lease, facts.memory)), Some(failure)),
            },
            LoadOutcome::Ready(lease, facts) => (Some((lease, facts.memory)), None),
            LoadOutcome::Failed(failure) => (None, Some(failure)),
            LoadOutcome::Changed => {
                tracing::info!(model = %name, version = number, "the files changed while loading; waiting until they hold still");
                if let Some(on_disk) = model.on_disk.get_mut(&number) {
                    (on_disk.since, on_disk.steady) = (now, false);
                }
                model.versions.remove(&number);
                return None;
            }
        };
        if let Some(failure) = failure {
            let failures = version.retry.map_or(0, |retry| retry.failures).saturating_add(1);
            let wait = retry.wait(failures);
            let message = &failure.message;
            // Once for each thing that is wrong, not once for each retry.
            if version.failure.as_ref() != Some(&failure) {
                tracing::warn!(model = %name, version = number, "the version failed to load: {message}");
            }
            version.retry = (!is_overtaken).then_some(Retry { failures, at: now + wait, fingerprint });
            version.failure = Some(failure);
        }
        version.enter(Phase::End, &name, number);
        let (lease, memory) = lease?;
        self.draining.insert(id, Draining { model: name, version: number, memory });
        Some(lease)
    }

    /// The last user of a load has gone and its memory is free.
    pub(crate) fn drained(&mut self, id: LoadId, statistics: VersionStatistics) {
        let Some(Draining { model: name, version: number, .. }) = self.draining.remove(&id) else { return };
        let version = self.models.get_mut(&name).and_then(|model| model.versions.get_mut(&number));
        if let Some(version) = version
            && matches!(version.phase, Phase::Unloading(own) if own == id)
        {
            version.statistics = statistics;
            version.facts = None;
            version.enter(Phase::End, &name, number);
        }
        self.changed.insert(name);
    }

    /// Failed versions of `model` are tried again now, without waiting for their turn.
    pub(crate) fn retry_now(&mut self, model: &ModelName, version: Option<u64>) {
        if let Some(model) = self.models.get_mut(model) {
            let meant =
                model.versions.iter_mut().filter(|(number, _)| version.is_none_or(|version| version == **number));
            meant.for_each(|(_, entry)| entry.retry = None);
        }
    }

    /// Lets go of those versions of `model` that serve and are `broken`, so that they load again. Gives their leases.
    #[must_use]
    pub(crate) fn give_up(&mut self, model: &ModelName, version: Option<u64>, broken: impl Fn(&L) -> bool) -> Vec<L> {
        let Some(entry) = self.models.get_mut(model) else { return Vec::new() };
        let meant = entry.versions.iter_mut().filter(|(number, _)| version.is_none_or(|version| version == **number));
        let broken = meant.filter(|(_, entry)| matches!(&entry.phase, Phase::Available(_, lease) if broken(lease)));
        let released: Vec<L> =
            broken.filter_map(|(number, entry)| entry.retire(&mut self.draining, model, *number)).collect();
        if !released.is_empty() {
            self.changed.insert(model.clone());
        }
        released
    }

    /// Forgets the files of `version` of `model`, whose registration was withdrawn, if it was there only by that. Gives its
    /// lease: it serves nobody new, whatever may take its place.
    #[must_use]
    pub(crate) fn withdraw(&mut self, name: &ModelName, version: u64) -> Option<L> {
        let is_own = self.is_own(name, version);
        let model = self.models.get_mut(name).filter(|_| !is_own)?;
        model.on_disk.remove(&version);
        model.gone |= model.is_registered && model.on_disk.is_empty();
        self.changed.insert(name.clone());
        model.versions.get_mut(&version)?.retire(&mut self.draining, name, version)
    }

    /// Replaces the orders.
    pub(crate) fn set_orders(&mut self, orders: Orders) {
        let none = Overrides::default();
        let names = self.orders.models.keys().chain(orders.models.keys());
        let of = |orders: &'_ Orders, name: &ModelName| orders.get(name).unwrap_or(&none).clone();
        let changed: Vec<ModelName> =
            names.filter(|name| of(&self.orders, name) != of(&orders, name)).cloned().collect();
        self.orders = orders;
        changed.iter().for_each(|name| self.wake_pipelines(name));
        self.changed.extend(changed);
    }

    /// The models that changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<ModelName> {
        std::mem::take(&mut self.changed)
    }

    /// Ends everything: gives every lease, and nothing is wanted any more.
    pub(crate) fn clear(&mut self) -> Vec<L> {
        let models = std::mem::take(&mut self.models);
        let versions = models.into_values().flat_map(|model| model.versions.into_values());
        versions
            .filter_map(|version| if let Phase::Available(_, lease) = version.phase { Some(lease) } else { None })
            .collect()
    }

    fn memory_left(&self) -> u64 {
        let Some(budget) = self.config.memory_budget else { return u64::MAX };
        let loaded = self.models.values().flat_map(|model| model.versions.values());
        let held = |version: &Version<L>| match (&version.phase, &version.facts) {
            (Phase::Available(..), Some(facts)) => facts.memory,
            _ => 0,
        };
        let draining: u64 = self.draining.values().map(|load| load.memory).sum();
        budget.saturating_sub(loaded.map(held).sum::<u64>().saturating_add(draining))
    }
}

fn too_large(facts: &Facts, left: u64, limit: u64) -> Option<VersionFailure> {
    let need = facts.memory;
    let message = if need > limit {
        format!("the model holds {need} bytes of memory; its own limit is {limit}")
    } else if need > left {
        format!("the model holds {need} bytes of memory; of the budget for all models {left} are left")
    } else {
        return None;
    };
    Some(VersionFailure { code: Code::ResourceExhausted, message })
}

impl<L> LoadOutcome<L> {
    fn into_lease(self) -> Option<L> {
        match self {
            Self::Ready(lease, _) => Some(lease),
            Self::Failed(_) | Self::Changed => None,
        }
    }
}

#[cfg(test)]
mod tests;
