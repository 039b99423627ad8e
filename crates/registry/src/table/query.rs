//! What can be asked of a table: nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use millrace_core::{Alias, ModelName};

use super::{LoadId, Model, Phase, Progress, Table, Version};
use crate::desired::{Orders, Overrides};
use crate::scan::Place;

impl<L> Table<L> {
    /// When something is due without anybody asking: the next look at files that must hold still, and the next retry.
    pub(crate) fn due(&self) -> (Option<Instant>, Option<Instant>) {
        let unsteady = |model: &Model<L>| {
            let waiting = model.on_disk.values().filter(|on_disk| !on_disk.steady);
            waiting.map(|on_disk| on_disk.since + self.config.quiet_period).min()
        };
        (self.models.values().filter_map(unsteady).min(), self.next_retry)
    }

    /// Whether nothing is waiting to load or loading.
    pub(crate) fn is_settled(&self) -> bool {
        let busy = |version: &Version<L>| matches!(version.phase, Phase::Start | Phase::Loading(_));
        !self.models.values().any(|model| model.versions.values().any(busy))
    }

    /// How loading `version` of `model` stands.
    pub(crate) fn progress(&self, model: &ModelName, version: u64) -> Progress {
        let Some(model) = self.models.get(model) else { return Progress::Absent };
        match model.versions.get(&version) {
            Some(entry) => match (&entry.phase, &entry.failure) {
                (Phase::Start | Phase::Loading(_), _) => Progress::Pending,
                (Phase::Available(..), _) => Progress::Available,
                (Phase::End, Some(failure)) => Progress::Failed(failure.clone()),
                (Phase::Unloading(_) | Phase::End, _) => Progress::Absent,
            },
            None if model.on_disk.get(&version).is_some_and(|on_disk| !on_disk.steady) => Progress::Pending,
            None => Progress::Absent,
        }
    }

    /// The loads of `version` of `model`, or of all its versions, that are under way or draining.
    pub(crate) fn unfinished(&self, model: &ModelName, version: Option<u64>) -> BTreeSet<LoadId> {
        let meant = |name: &ModelName, number: u64| name == model && version.is_none_or(|version| version == number);
        let loading = self.loading.iter().filter(|(_, load)| meant(&load.model, load.version)).map(|(id, _)| *id);
        let draining = self.draining.iter().filter(|(_, load)| meant(&load.model, load.version)).map(|(id, _)| *id);
        loading.chain(draining).collect()
    }

    /// Whether `id` is neither under way nor draining.
    pub(crate) fn is_finished(&self, id: LoadId) -> bool {
        !self.loading.contains_key(&id) && !self.draining.contains_key(&id)
    }

    /// The versions of `model` that are wanted now, or `None` where there is no such model.
    pub(crate) fn wanted(&self, name: &ModelName) -> Option<BTreeSet<u64>> {
        let model = self.models.get(name).filter(|model| !model.gone)?;
        let none = Overrides::default();
        Some(model.wanted(self.config.listed.get(name), self.orders.get(name).unwrap_or(&none)))
    }

    /// A line for each version that a configuration names and the disk does not have. The others serve.
    pub(crate) fn missing(&self) -> Vec<String> {
        let none = Overrides::default();
        let models = self.models.iter().filter(|(_, model)| !model.gone);
        let missing = models.flat_map(|(name, model)| {
            let overrides = self.orders.get(name).unwrap_or(&none);
            let versions = model.missing(self.config.listed.get(name), overrides);
            versions.into_iter().map(move |version| (name, version))
        });
        missing.map(|(name, version)| format!("model `{name}`: version {version} is wanted and not on disk")).collect()
    }

    /// The orders that hold.
    pub(crate) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The aliases of `name` that hold.
    pub(crate) fn aliases(&self, name: &ModelName) -> BTreeMap<Alias, u64> {
        let none = Overrides::default();
        let overrides = self.orders.get(name).unwrap_or(&none);
        let model = self.models.get(name);
        model.map(|model| overrides.aliases(&model.aliases(self.config.listed.get(name)))).unwrap_or_default()
    }

    /// Whether `alias` of `name` stands in a configuration, whatever was ordered since.
    pub(crate) fn is_configured(&self, name: &ModelName, alias: &Alias) -> bool {
        let model = self.models.get(name);
        model.is_some_and(|model| model.aliases(self.config.listed.get(name)).contains_key(alias))
    }

    /// Whether `version` of `name` lies on disk.
    pub(crate) fn is_on_disk(&self, name: &ModelName, version: u64) -> bool {
        self.models.get(name).is_some_and(|model| model.on_disk.contains_key(&version))
    }

    /// Whether `version` of `model` lies in the model's own folder.
    pub(crate) fn is_own(&self, model: &ModelName, version: u64) -> bool {
        let on_disk = self.models.get(model).and_then(|model| model.on_disk.get(&version));
        on_disk.is_some_and(|on_disk| !on_disk.found.is_registered)
    }

    /// Where the files of each version of `model` lie.
    pub(crate) fn places(&self, model: &ModelName) -> BTreeMap<u64, Place> {
        let on_disk = self.models.get(model).into_iter().flat_map(|model| &model.on_disk);
        on_disk.map(|(version, on_disk)| (*version, on_disk.found.place.clone())).collect()
    }

    /// Whether `version` of `name` lies on disk or is remembered.
    pub(crate) fn knows(&self, name: &ModelName, version: u64) -> bool {
        let model = self.models.get(name);
        model.is_some_and(|model| model.on_disk.contains_key(&version) || model.versions.contains_key(&version))
    }

    /// The version that a request without a version gets, as far as one is set or available.
    pub(crate) fn default_version(&self, name: &ModelName) -> Option<u64> {
        let available = || {
            let versions = self.models.get(name)?.versions.iter().rev();
            versions
                .clone()
                .find(|(_, version)| matches!(version.phase, Phase::Available(..)))
                .map(|(number, _)| *number)
        };
        self.aliases(name).get(Alias::DEFAULT).copied().or_else(available)
    }

    /// What serves `version` of `model`.
    pub(crate) fn serving(&self, model: &ModelName, version: u64) -> Option<&L> {
        match &self.models.get(model)?.versions.get(&version)?.phase {
            Phase::Available(_, lease) => Some(lease),
            Phase::Start | Phase::Loading(_) | Phase::Unloading(_) | Phase::End => None,
        }
    }

    /// Whether `model` is one that asks others.
    pub(crate) fn is_pipeline(&self, model: &ModelName) -> bool {
        let config = self.models.get(model).and_then(|model| model.config.as_ref());
        config.is_some_and(|config| config.pipeline.is_some())
    }

    /// The model `name`.
    pub(crate) fn model(&self, name: &ModelName) -> Option<&Model<L>> {
        self.models.get(name)
    }
}
