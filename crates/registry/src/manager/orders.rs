//! What each order of an operator changes, and what it then waits for.
//!
//! An order is first saved and then carried out: what cannot be kept is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use millrace_core::{Alias, ModelName, Reason, Refusal, Registered, Registration, WantedModel, WantedVersions};

use super::{Goal, Manager, Order};
use crate::desired::{Orders, Overrides};
use crate::table::Progress;
use crate::{VersionPolicy, clock, store};

impl Manager {
    /// Carries an order out and says what to wait for, if anything.
    pub(super) fn order(&mut self, order: Order) -> Result<Option<Goal>, Refusal> {
        match order {
            Order::Load(model, version) => self.load(model, version).map(Some),
            Order::Unload(model, version) => self.unload(&model, version).map(Some),
            Order::SetAlias(model, alias, version) => self.set_alias(&model, alias, version).map(|()| None),
            Order::RemoveAlias(model, alias) => self.remove_alias(&model, &alias).map(|()| None),
            Order::Scale(model, version, executors) => self.scale(&model, version, executors).map(|()| None),
            Order::Register(registration) => self.register(&registration).map(Some),
            Order::Unregister(model, version) => self.unregister(&model, version).map(Some),
            Order::Replace(models) => self.replace(models).map(Some),
            Order::Rescan => {
                self.scan_now()?;
                Ok(Some(Goal::Settled(self.table.due().0)))
            }
        }
    }

    fn load(&mut self, model: ModelName, version: Option<u64>) -> Result<Goal, Refusal> {
        // What was just copied counts: the operator says that it is complete.
        self.scan_now()?;
        self.known(&model)?;
        if let Some(message) = self.table.model(&model).and_then(|model| model.config_error()) {
            return Err(Refusal::new(Reason::Conflict, message.to_string()));
        }
        if let Some(version) = version
            && !self.table.is_on_disk(&model, version)
        {
            return Err(no_version(&model, version));
        }
        self.change(&model, |overrides| overrides.with_load(version))?;
        self.table.trust(&model, version);
        self.table.retry_now(&model, version);
        self.released.extend(self.table.give_up(&model, version, |lease| lease.is_quarantined()));
        let targets = match version {
            Some(version) => BTreeSet::from([version]),
            None => self.table.wanted(&model).unwrap_or_default(),
        };
        if targets.is_empty() {
            return Err(Refusal::new(Reason::NotReady, format!("model `{model}` has no version that could be loaded")));
        }
        Ok(Goal::Loaded(model, targets))
    }

    fn unload(&mut self, model: &ModelName, version: Option<u64>) -> Result<Goal, Refusal> {
        self.known(model)?;
        if let Some(version) = version
            && !self.table.knows(model, version)
        {
            return Err(no_version(model, version));
        }
        self.change(model, |overrides| overrides.with_unload(version))?;
        self.released.extend(self.table.reconcile(clock::now()));
        Ok(Goal::Finished(self.table.unfinished(model, version)))
    }

    fn set_alias(&mut self, model: &ModelName, alias: Alias, version: u64) -> Result<(), Refusal> {
        self.known(model)?;
        self.may_point(model, &alias, version)?;
        self.change(model, |mut overrides| {
            overrides.aliases.insert(alias, Some(version));
            overrides
        })
    }

    fn remove_alias(&mut self, model: &ModelName, alias: &Alias) -> Result<(), Refusal> {
        self.known(model)?;
        if !self.table.aliases(model).contains_key(alias) {
            return Err(Refusal::new(Reason::LabelUnknown, format!("Unrecognized servable version label: {alias}")));
        }
        let configured = self.table.is_configured(model, alias);
        self.change(model, |mut overrides| {
            if configured {
                overrides.aliases.insert(alias.clone(), None);
            } else {
                overrides.aliases.remove(alias);
            }
            overrides
        })
    }

    fn known(&self, model: &ModelName) -> Result<(), Refusal> {
        match self.table.wanted(model) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Reason::ModelUnknown, format!("Could not find any versions of model {model}"))),
        }
    }

    /// Changes the orders for `model`, first on disk and then here.
    fn change(&mut self, model: &ModelName, change: impl FnOnce(Overrides) -> Overrides) -> Result<(), Refusal> {
        let before = self.table.orders();
        let changed = change(before.get(model).cloned().unwrap_or_default());
        let orders = before.clone().with(model, changed);
        self.save(orders)
    }

    /// Makes `orders` hold, first on disk and then here.
    fn save(&mut self, orders: Orders) -> Result<(), Refusal> {
        let before = self.table.orders();
        if orders == *before {
            return Ok(());
        }
        if let Some(state) = &self.state
            && let Err(error) = state.save(&orders)
        {
            // The new file may be in place although its directory could not be synced; the old one then goes back.
            // Should that fail too, the disk has the last word at the next start, with a whole file in any case.
            let _ = state.save(before);
            tracing::error!("the order cannot be saved and is not carried out: {error}");
            let text = "the order could not be saved, so it was not carried out; the server's log says why";
            return Err(Refusal::new(Reason::NotSaved, text)
                .with_cause(Arc::new(error) as Arc<dyn std::error::Error + Send + Sync>));
        }
        self.table.set_orders(orders);
        Ok(())
    }

    fn scale(&mut self, model: &ModelName, version: Option<u64>, executors: usize) -> Result<(), Refusal> {
        self.known(model)?;
        let none_available = || {
            let text = format!("model {model} has no default version that could be scaled; name a version");
            Refusal::new(Reason::NotReady, text)
        };
        let version = version.or_else(|| self.table.default_version(model)).ok_or_else(none_available)?;
        if !self.table.knows(model, version) {
            return Err(no_version(model, version));
        }
        if self.table.is_pipeline(model) {
            let text = format!("model {model} is a pipeline and runs nothing itself; scale the models that it asks");
            return Err(Refusal::new(Reason::Unsupported, text));
        }
        self.change(model, |mut overrides| {
            overrides.executors.insert(version, executors);
            overrides
        })?;
        if let Some(lease) = self.table.serving(model, version) {
            lease.scale(executors);
        }
        Ok(())
    }

    fn register(&mut self, registration: &Registration) -> Result<Goal, Refusal> {
        let found = store::find(&self.scanner.allowed(), registration)?;
        // What was just copied counts, and what the repository has by itself is told from what is new.
        self.scan_now()?;
        let (model, version) = (found.name.clone(), found.version);
        let lies_at = self.table.places(&model).remove(&version);
        let is_there = lies_at.as_ref() == Some(&found.place);
        let serves = matches!(self.table.progress(&model, version), Progress::Available | Progress::Pending);
        if serves || (lies_at.is_some() && !is_there) {
            let text = format!("Model version {version} is already registered for model {model}");
            return Err(Refusal::new(Reason::Exists, text));
        }
        let default_now = self.table.default_version(&model);
        let is_pinned = self.table.aliases(&model).contains_key(Alias::DEFAULT);
        let stored = found.stored(registration)?;
        let before = self.table.orders().get(&model).cloned().unwrap_or_default();
        let default: Option<Alias> = Alias::DEFAULT.parse().ok().filter(|_| registration.keep_default && !is_pinned);
        self.change(&model, |overrides| {
            let mut overrides = overrides.with_load(Some(version));
            let says_more = stored.max_batch_size.is_some() || stored.batch_delay.is_some();
            if !is_there || says_more {
                overrides.stored.insert(version, stored);
            }
            if let Some(executors) = registration.executors {
                overrides.executors.insert(version, executors);
            }
            if let Some(default) = default {
                overrides.aliases.insert(default, Some(default_now.unwrap_or(version)));
            }
            overrides
        })?;
        let goal = Goal::Registered(Registered { model: model.clone(), version }, Box::new(before));
        if let Err(refusal) = self.scan_now() {
            if let Goal::Registered(registered, before) = &goal {
                self.undo(registered, before);
            }
            return Err(refusal);
        }
        self.table.trust(&model, Some(version));
        self.table.retry_now(&model, Some(version));
        Ok(goal)
    }

    /// Takes back what registering a version said about it.
    pub(super) fn undo(&mut self, registered: &Registered, before: &Overrides) {
        let Registered { model, version } = registered;
        if self.change(model, |overrides| overrides.restored(before, *version)).is_err() {
            // The log says so. The version stays registered and is tried again, as any that fails.
            return;
        }
        if !before.stored.contains_key(version) {
            self.released.extend(self.table.withdraw(model, *version));
        }
    }

    fn unregister(&mut self, model: &ModelName, version: Option<u64>) -> Result<Goal, Refusal> {
        self.known(model)?;
        if let Some(version) = version
            && !self.table.knows(model, version)
        {
            return Err(no_version(model, version));
        }
        let is_registered = self.table.model(model).is_some_and(|model| model.is_registered());
        let stored = self.table.orders().get(model).map(|overrides| overrides.stored.clone()).unwrap_or_default();
        let meant: Vec<u64> = match version {
            Some(version) => vec![version],
            None => stored.keys().copied().collect(),
        };
        let is_last = is_registered && stored.keys().all(|number| meant.contains(number));
        let unloads = match version {
            Some(version) => self.table.is_own(model, version),
            None => !is_registered,
        };
        self.change(model, |overrides| {
            if is_last {
                return Overrides::default();
            }
            let mut overrides = meant.iter().fold(overrides, |overrides, number| overrides.without(*number));
            if version.is_none() {
                // Else whatever is registered next would be refused in favour of a version that is gone.
                overrides.aliases.retain(|alias, target| alias.as_str() != Alias::DEFAULT || target.is_none());
            }
            if unloads { overrides.with_unload(version) } else { overrides }
        })?;
        let withdrawn = meant.iter().filter_map(|number| self.table.withdraw(model, *number));
        self.released.extend(withdrawn);
        self.released.extend(self.table.reconcile(clock::now()));
        Ok(Goal::Finished(self.table.unfinished(model, version)))
    }

    fn replace(&mut self, models: Vec<WantedModel>) -> Result<Goal, Refusal> {
        let mut orders = Orders { is_whole: true, ..Orders::default() };
        let allowed = self.scanner.allowed();
        for wanted in models {
            let WantedModel { name, base_path, versions, aliases } = wanted;
            if orders.models.contains_key(&name) {
                let text = format!("Illegal to list model {name} multiple times in config list");
                return Err(Refusal::new(Reason::InvalidInput, text));
            }
            let base = store::locate(&allowed, &name, &base_path)?;
            for (alias, version) in &aliases {
                self.may_point(&name, alias, *version)?;
            }
            let policy = match versions {
                WantedVersions::Latest(count) => {
                    let count = usize::try_from(count).ok().and_then(NonZeroUsize::new);
                    VersionPolicy::Latest(count.unwrap_or(NonZeroUsize::MIN))
                }
                WantedVersions::All => VersionPolicy::All,
                WantedVersions::Specific(versions) => VersionPolicy::Specific(versions),
            };
            let overrides = Overrides {
                base: Some(base),
                policy: Some(policy),
                aliases: aliases.into_iter().map(|(alias, version)| (alias, Some(version))).collect(),
                ..Overrides::default()
            };
            orders.models.insert(name, overrides);
        }
        let names: Vec<ModelName> = orders.models.keys().cloned().collect();
        let before = self.table.orders().clone();
        self.save(orders)?;
        if let Err(refusal) = self.scan_now() {
            // Nothing was taken over: the set that held goes on to hold.
            drop(self.save(before));
            return Err(refusal);
        }
        let (mut targets, mut refusal) = (BTreeMap::new(), None);
        for name in names {
            self.table.trust(&name, None);
            self.table.retry_now(&name, None);
            if let Some(message) = self.table.model(&name).and_then(|model| model.config_error()) {
                refusal.get_or_insert_with(|| Refusal::new(Reason::Conflict, message.to_string()));
                continue;
            }
            let wanted = self.table.wanted(&name).unwrap_or_default();
            if wanted.is_empty() {
                let text = format!("model `{name}` has no version that could be loaded");
                refusal.get_or_insert_with(|| Refusal::new(Reason::NotReady, text));
            }
            targets.insert(name, wanted);
        }
        Ok(Goal::Replaced(targets, refusal))
    }

    /// Refuses an alias that must not be set to `version` of `model` now.
    fn may_point(&self, model: &ModelName, alias: &Alias, version: u64) -> Result<(), Refusal> {
        if alias.as_str() == Alias::LATEST {
            let text = "alias `latest` is reserved: it always means the highest available version";
            return Err(Refusal::new(Reason::InvalidInput, text));
        }
        if self.table.progress(model, version) != Progress::Available {
            // TensorFlow Serving's words.
            let text = format!(
                "Request to assign label to version {version} of model {model}, which is not currently available for \
                 inference"
            );
            return Err(Refusal::new(Reason::Conflict, text));
        }
        Ok(())
    }
}

fn no_version(model: &ModelName, version: u64) -> Refusal {
    Refusal::new(Reason::VersionUnknown, format!("Could not find version {version} of model {model}"))
}
