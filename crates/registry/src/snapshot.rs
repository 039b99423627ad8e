//! What readers see: an immutable picture of every model, replaced as a whole. Reading it takes no lock and allocates
//! nothing, whatever is being loaded meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_core::{
    Alias, Code, EngineChoice, ModelName, ModelRef, ModelStatus, Quoted, Reason, Refusal, Servable, VersionChoice,
    VersionFailure, VersionState, VersionStatus,
};
use rapidhash::fast::RandomState;

use crate::desired::Overrides;
use crate::lease::Lease;
use crate::reply::shut_down;
use crate::table::{Phase, Table, Version};

/// Every model.
#[derive(Debug, Default, Clone)]
pub(crate) struct Snapshot {
    models: HashMap<ModelName, Arc<ModelView>, RandomState>,
    /// Nothing is resolved any more.
    closed: bool,
}

/// One model.
#[derive(Debug)]
pub(crate) struct ModelView {
    status: ModelStatus,
    /// Those that serve, ascending.
    available: Vec<(u64, Arc<Lease>)>,
    /// The version behind the alias `default`, where that is set.
    pinned: Option<u64>,
    /// Its folder is gone: what is left only drains.
    gone: bool,
}

impl Snapshot {
    /// Nothing is there, and nothing will be.
    pub(crate) fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Replaces or removes the view of `name`.
    pub(crate) fn set(&mut self, name: &ModelName, view: Option<ModelView>) {
        match view {
            Some(view) => drop(self.models.insert(name.clone(), Arc::new(view))),
            None => drop(self.models.remove(name)),
        }
    }

    /// The view of `name`.
    pub(crate) fn view(&self, name: &ModelName) -> Option<&ModelView> {
        self.models.get(name).map(|view| &**view)
    }

    /// The version that `wanted` means now.
    pub(crate) fn resolve(&self, wanted: &ModelRef<'_>) -> Result<Arc<dyn Servable>, Refusal> {
        match self.models.get(wanted.name) {
            Some(model) => match model.find(wanted.version) {
                Some(lease) => Ok(Arc::clone(lease) as Arc<dyn Servable>),
                None => Err(model.refusal(wanted)),
            },
            None if self.closed => Err(shut_down()),
            None => Err(Refusal::new(Reason::ModelUnknown, not_found(wanted))),
        }
    }

    /// Every model, by name.
    pub(crate) fn statuses(&self) -> Vec<ModelStatus> {
        let mut statuses: Vec<ModelStatus> = self.models.values().map(|model| model.status()).collect();
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }

    /// One model.
    pub(crate) fn status(&self, name: &str) -> Option<ModelStatus> {
        self.models.get(name).map(|model| model.status())
    }
}

impl ModelView {
    /// The view of `name` in `table`.
    pub(crate) fn of(name: &ModelName, table: &Table<Arc<Lease>>) -> Option<Self> {
        let model = table.model(name)?;
        let aliases = table.aliases(name);
        let pinned = aliases.get(Alias::DEFAULT).copied();
        let mut available = Vec::new();
        let mut versions = BTreeMap::new();
        for (&number, version) in model.versions() {
            if let Phase::Available(_, lease) = &version.phase {
                available.push((number, Arc::clone(lease)));
            }
            versions.insert(number, row(number, version));
        }
        let failure = model.config_error().map(|message| {
            // The text has the place in the file; what to do about it is plain.
            VersionFailure { code: Code::FailedPrecondition, message: message.to_string() }
        });
        for number in model.waiting() {
            let state = if failure.is_some() { VersionState::End } else { VersionState::Start };
            versions.insert(number, VersionStatus { failure: failure.clone(), ..VersionStatus::new(number, state) });
        }
        // What an operator unloaded is told from what was never there, also after a restart.
        let none = Overrides::default();
        let orders = table.orders().get(name).unwrap_or(&none);
        for number in model.on_disk().filter(|number| orders.forbids(*number)) {
            versions.entry(number).or_insert_with(|| VersionStatus::new(number, VersionState::End));
        }
        let default_version = match pinned {
            Some(pinned) => available.iter().any(|(number, _)| *number == pinned).then_some(pinned),
            None => available.last().map(|(number, _)| *number),
        };
        let status = ModelStatus {
            versions: versions.into_values().collect(),
            aliases,
            default_version,
            path: model.path().to_owned(),
            overrides: orders.in_words(),
            ..ModelStatus::new(name.clone())
        };
        Some(Self { status, available, pinned, gone: model.is_gone() })
    }

    /// How many versions are in `state`.
    pub(crate) fn count(&self, state: VersionState) -> u32 {
        let versions = self.status.versions.iter().filter(|version| version.state == state);
        u32::try_from(versions.count()).unwrap_or(u32::MAX)
    }

    /// Versions and the memory they hold.
    pub(crate) fn memory(&self) -> impl Iterator<Item = (u64, u64)> {
        self.status.versions.iter().map(|version| (version.version, version.memory_bytes))
    }

    /// Versions that are loaded and how their engines were chosen among several.
    pub(crate) fn choices(&self) -> impl Iterator<Item = (u64, &EngineChoice)> {
        let loaded = self.status.versions.iter().filter(|version| version.state == VersionState::Available);
        loaded.filter_map(|version| Some((version.version, version.choice.as_deref()?)))
    }

    fn find(&self, choice: VersionChoice<'_>) -> Option<&Arc<Lease>> {
        match choice {
            VersionChoice::Default => match self.pinned {
                Some(pinned) => self.available(pinned),
                None => self.highest(),
            },
            VersionChoice::Number(number) => self.available(number),
            VersionChoice::Label(Alias::LATEST) => self.highest(),
            VersionChoice::Label(label) => self.available(*self.status.aliases.get(label)?),
        }
    }

    fn highest(&self) -> Option<&Arc<Lease>> {
        self.available.last().map(|(_, lease)| lease)
    }

    fn available(&self, version: u64) -> Option<&Arc<Lease>> {
        let index = self.available.binary_search_by_key(&version, |(number, _)| *number).ok()?;
        Some(&self.available[index].1)
    }

    fn status(&self) -> ModelStatus {
        let mut status = self.status.clone();
        for (number, lease) in &self.available {
            if let Some(version) = status.versions.iter_mut().find(|version| version.version == *number) {
                version.statistics = lease.statistics();
                version.executors = lease.executors();
                version.queue = lease.waiting();
                if lease.is_quarantined() {
                    let message = "a run hung, and the version refuses requests until it is loaded again".to_owned();
                    version.failure = Some(VersionFailure { code: Code::Internal, message });
                }
            }
        }
        status
    }

    /// Why `wanted` cannot be had of this model.
    fn refusal(&self, wanted: &ModelRef<'_>) -> Refusal {
        let loads = |version: Option<u64>| {
            let meant = |status: &&VersionStatus| version.is_none_or(|version| version == status.version);
            let starting = |status: &VersionStatus| matches!(status.state, VersionState::Start | VersionState::Loading);
            self.status.versions.iter().filter(meant).any(starting)
        };
        let not_ready = |text: &str| Refusal::new(Reason::NotReady, format!("{}: {text}", not_found(wanted)));
        let loading = || Refusal::new(Reason::Loading, format!("{}: it is still loading", not_found(wanted)));
        if self.gone {
            return Refusal::new(Reason::ModelUnknown, not_found(wanted));
        }
        match (wanted.version, self.pinned) {
            (VersionChoice::Default, Some(pinned)) if loads(Some(pinned)) => loading(),
            (VersionChoice::Default, Some(pinned)) => {
                not_ready(&format!("alias `default` points at version {pinned}, which is not available"))
            }
            (VersionChoice::Default, None) | (VersionChoice::Label(Alias::LATEST), _) if loads(None) => loading(),
            (VersionChoice::Default, None) | (VersionChoice::Label(Alias::LATEST), _) => {
                not_ready("no version is available")
            }
            (VersionChoice::Number(number), _) if loads(Some(number)) => loading(),
            (VersionChoice::Number(_), _) => Refusal::new(Reason::VersionUnknown, not_found(wanted)),
            (VersionChoice::Label(label), _) => {
                let version = self.status.aliases.get(label).copied();
                if version.is_some_and(|version| loads(Some(version))) {
                    return loading();
                }
                Refusal::new(Reason::LabelUnknown, format!("Unrecognized servable version label: {}", plain(label)))
            }
        }
    }
}

fn row(number: u64, version: &Version<Arc<Lease>>) -> VersionStatus {
    let facts = version.facts.as_ref();
    VersionStatus {
        failure: version.failure.clone(),
        backend: facts.map(|facts| Arc::clone(&facts.backend)),
        choice: facts.and_then(|facts| facts.choice.clone()),
        signatures: facts.map(|facts| Arc::clone(&facts.signatures)),
        load_time: facts.map(|facts| facts.load_time),
        loaded_at: facts.map(|facts| facts.loaded_at),
        max_batch_size: facts.map_or(0, |facts| facts.max_batch_size),
        batch_delay: facts.and_then(|facts| facts.batch_delay),
        memory_bytes: facts.map_or(0, |facts| facts.memory),
        statistics: version.statistics.clone(),
        ..VersionStatus::new(number, version.phase.state())
    }
}

/// TensorFlow Serving's words.
fn not_found(wanted: &ModelRef<'_>) -> String {
    let name = plain(wanted.name);
    match wanted.version {
        VersionChoice::Number(version) => format!("Servable not found for request: Specific({name}, {version})"),
        VersionChoice::Default | VersionChoice::Label(_) => format!("Servable not found for request: Latest({name})"),
    }
}

/// Foreign text, escaped, without the quotes that TensorFlow Serving's messages do not have.
fn plain(text: &str) -> String {
    let quoted = Quoted(text).to_string();
    quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or(&quoted).to_owned()
}
