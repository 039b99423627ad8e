//! One version's place in its life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millrace_core::{EngineChoice, ModelName, Signatures, VersionFailure, VersionState, VersionStatistics};

use super::{Draining, LoadId};
use crate::files::Fingerprint;
use crate::scan::Place;

/// One version that is or was wanted.
#[derive(Debug)]
pub(crate) struct Version<L> {
    pub(crate) phase: Phase<L>,
    pub(crate) failure: Option<VersionFailure>,
    pub(super) retry: Option<Retry>,
    /// Where the files lay that were loaded last, or are being loaded.
    pub(super) place: Option<Place>,
    /// What the last good load gave.
    pub(crate) facts: Option<Facts>,
    /// Counts of the last load that has ended.
    pub(crate) statistics: VersionStatistics,
}

/// Where a version stands.
#[derive(Debug)]
pub(crate) enum Phase<L> {
    Start,
    Loading(LoadId),
    Available(LoadId, L),
    Unloading(LoadId),
    End,
}

impl<L> Phase<L> {
    pub(crate) fn state(&self) -> VersionState {
        match self {
            Self::Start => VersionState::Start,
            Self::Loading(_) => VersionState::Loading,
            Self::Available(..) => VersionState::Available,
            Self::Unloading(_) => VersionState::Unloading,
            Self::End => VersionState::End,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) failures: u32,
    pub(super) at: Instant,
    /// The files that failed; others are tried at once.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// What is known about a loaded version.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) backend: Arc<str>,
    /// How its engine was chosen among several.
    pub(crate) choice: Option<Arc<EngineChoice>>,
    pub(crate) signatures: Arc<Signatures>,
    pub(crate) memory: u64,
    pub(crate) load_time: Duration,
    pub(crate) loaded_at: SystemTime,
    /// The most rows of one run; 0 where it is not batched.
    pub(crate) max_batch_size: usize,
    /// How long a batch waits for company, where somebody said so.
    pub(crate) batch_delay: Option<Duration>,
}

impl<L> Version<L> {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::End,
            failure: None,
            retry: None,
            place: None,
            facts: None,
            statistics: VersionStatistics::default(),
        }
    }

    /// Whether what was loaded last, or is being loaded, lay somewhere else than at `place`.
    pub(super) fn lay_elsewhere(&self, place: &Place) -> bool {
        self.place.as_ref().is_some_and(|loaded| loaded != place)
    }

    pub(super) fn should_start(&self, fingerprint: Option<Fingerprint>, now: Instant) -> bool {
        match (&self.phase, &self.retry) {
            (Phase::Start | Phase::Loading(_) | Phase::Available(..), _) => false,
            (Phase::End, Some(retry)) => now >= retry.at || fingerprint != retry.fingerprint,
            (Phase::Unloading(_) | Phase::End, _) => true,
        }
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry.filter(|_| matches!(self.phase, Phase::End)).map(|retry| retry.at)
    }

    /// Stops serving, if it does; gives the lease, which drains from now on.
    pub(super) fn retire(
        &mut self,
        draining: &mut BTreeMap<LoadId, Draining>,
        model: &ModelName,
        version: u64,
    ) -> Option<L> {
        let Phase::Available(id, _) = self.phase else { return None };
        let memory = self.facts.as_ref().map_or(0, |facts| facts.memory);
        draining.insert(id, Draining { model: model.clone(), version, memory });
        match self.enter(Phase::Unloading(id), model, version) {
            Phase::Available(_, lease) => Some(lease),
            Phase::Start | Phase::Loading(_) | Phase::Unloading(_) | Phase::End => None,
        }
    }

    /// Enters `phase` and gives the one before it.
    pub(super) fn enter(&mut self, phase: Phase<L>, model: &ModelName, version: u64) -> Phase<L> {
        let before = std::mem::replace(&mut self.phase, phase);
        let (from, to) = (before.state().name(), self.phase.state().name());
        // Who runs a server reads of what serves and what ended; the steps between are for who looks for a fault.
        match (&before, &self.phase) {
            (_, Phase::Available(..)) => {
                let backend = self.facts.as_ref().map(|facts| &*facts.backend);
                let load_time = self.facts.as_ref().map(|facts| tracing::field::debug(facts.load_time));
                let choice = self.facts.as_ref().and_then(|facts| facts.choice.as_deref());
                let why = choice.map(|choice| &*choice.reason);
                tracing::info!(%model, version, backend, why, load_time, "the version is available");
            }
            (Phase::Unloading(_), Phase::End) => tracing::info!(%model, version, "the version is unloaded"),
            _ => tracing::debug!(%model, version, from, to, "the version changed its state"),
        }
        before
    }
}
