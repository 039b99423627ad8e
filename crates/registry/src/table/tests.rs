use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{Code, ModelName, Signatures, VersionFailure, VersionState, VersionStatistics};
use proptest::prelude::*;

use super::{Facts, LoadId, LoadOrder, LoadOutcome, Phase, Progress, Table, TableConfig};
use crate::desired::{Orders, Overrides, wanted};
use crate::files::Fingerprint;
use crate::scan::{FoundModel, FoundVersion, Place, Scan};
use crate::{ModelConfig, RetryConfig, VersionPolicy};

const QUIET: Duration = Duration::from_secs(1);

/// A table of one model `m` whose leases are the numbers of their versions, on a clock of its own.
struct Bench {
    table: Table<u64>,
    now: Instant,
    /// Version to what its files look like.
    disk: BTreeMap<u64, u64>,
    /// The same for versions that were registered from elsewhere.
    store: BTreeMap<u64, u64>,
    /// The folder that the model's own versions lie in.
    folder: u64,
    /// Which folder what serves or loads was read from.
    read_from: BTreeMap<LoadId, String>,
    policy: VersionPolicy,
    overrides: Overrides,
    loads: Vec<LoadOrder>,
    /// Loads whose lease was given back and has not been freed.
    leased: Vec<(LoadId, u64)>,
    available_ids: BTreeMap<u64, LoadId>,
}

impl Bench {
    fn new(policy: VersionPolicy, budget: Option<u64>) -> Self {
        let config = TableConfig {
            quiet_period: QUIET,
            retry: RetryConfig::default(),
            memory_budget: budget,
            listed: BTreeMap::new(),
        };
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
        let now = Instant::now();
        Self {
            table: Table::new(config, Orders::default()),
            now,
            disk: BTreeMap::new(),
            store: BTreeMap::new(),
            folder: 0,
            read_from: BTreeMap::new(),
            policy,
            overrides: Overrides::default(),
            loads: Vec::new(),
            leased: Vec::new(),
            available_ids: BTreeMap::new(),
        }
    }

    fn name() -> ModelName {
        "m".parse().unwrap()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.advance();
    }

    /// Where `version` lies now: in the store, or in the model's own folder.
    fn place(&self, version: u64) -> Place {
        let below = if self.store.contains_key(&version) {
            format!("store/{version}")
        } else {
            format!("{}/{version}", self.folder)
        };
        Place { root: Arc::from(Path::new("/")), below, file: None }
    }

    fn present(&self) -> BTreeMap<u64, u64> {
        let mut present = self.disk.clone();
        present.extend(&self.store);
        present
    }

    fn scan(&mut self, trusted: bool) {
        self.look(trusted);
        self.advance();
    }

    fn look(&mut self, trusted: bool) {
        let found = |(&version, &look): (&u64, &u64)| {
            let fingerprint = Some(Fingerprint { contents: look, changes: look });
            let is_registered = self.store.contains_key(&version);
            (version, FoundVersion { place: self.place(version), fingerprint, is_registered })
        };
        let config = ModelConfig { versions: Some(self.policy.clone()), ..ModelConfig::default() };
        let versions = self.present().iter().map(found).collect();
        let (path, config) = ("m".to_owned(), Ok(Arc::new(config)));
        let model = FoundModel { config, versions, path, is_registered: false };
        let scan = Scan { models: [(Self::name(), model)].into(), ..Scan::default() };
        self.table.scanned(scan, trusted, self.now);
    }

    /// Where each version that serves was read from.
    fn read_from_by_version(&self) -> BTreeMap<u64, String> {
        self.available_ids.iter().map(|(version, id)| (*version, self.read_from[id].clone())).collect()
    }

    /// Registers `version` from the store, or loads it where the model has it by itself, as an order does.
    fn register(&mut self, version: u64) {
        self.look(false);
        if matches!(self.table.progress(&Self::name(), version), Progress::Available | Progress::Pending) {
            // Such an order is refused: the version is taken.
            return self.advance();
        }
        if !self.disk.contains_key(&version) {
            self.store.entry(version).or_insert(0);
        }
        self.set(|overrides| overrides.with_load(Some(version)));
        self.look(false);
        self.table.trust(&Self::name(), Some(version));
        self.table.retry_now(&Self::name(), Some(version));
        self.advance();
    }

    /// Takes a registration back.
    fn unregister(&mut self, version: u64) {
        let is_own = self.store.remove(&version).is_none();
        self.set(|overrides| {
            let overrides = overrides.without(version);
            if is_own { overrides.with_unload(Some(version)) } else { overrides }
        });
        let withdrawn = self.table.withdraw(&Self::name(), version);
        self.give_back(withdrawn);
        self.advance();
    }

    /// Replaces everything that was ordered by a policy over the versions in another folder.
    fn replace(&mut self, policy: VersionPolicy, folder: u64) {
        self.folder = folder;
        self.store.clear();
        self.set(|_| Overrides { policy: Some(policy), ..Overrides::default() });
        self.look(false);
        self.table.trust(&Self::name(), None);
        self.advance();
    }

    fn order(&mut self, change: impl FnOnce(Overrides) -> Overrides) {
        self.set(change);
        self.advance();
    }

    fn set(&mut self, change: impl FnOnce(Overrides) -> Overrides) {
        self.overrides = change(std::mem::take(&mut self.overrides));
        self.table.set_orders(Orders::default().with(&Self::name(), self.overrides.clone()));
    }

    fn give_back(&mut self, versions: impl IntoIterator<Item = u64>) {
        for version in versions {
            self.leased.push((self.available_ids.remove(&version).unwrap(), version));
        }
    }

    fn advance(&mut self) {
        let released = self.table.reconcile(self.now);
        self.give_back(released);
        while let Some(load) = self.table.next_load() {
            self.read_from.insert(load.id, load.place.below.clone());
            self.loads.push(load);
        }
    }

    /// Ends the load of `version` that is under way.
    fn finish(&mut self, version: u64, how: How) {
        let index = self.loads.iter().position(|load| load.version == version).expect("it is loading");
        self.finish_load(index, how);
    }

    /// Ends that load under way, whether or not anybody wants it still.
    fn finish_load(&mut self, index: usize, how: How) {
        let load = self.loads.remove(index);
        let version = load.version;
        let outcome = match how {
            How::Good(memory) => LoadOutcome::Ready(version, facts(memory)),
            How::Bad => LoadOutcome::Failed(VersionFailure { code: Code::Internal, message: "bad".to_owned() }),
            How::Changed => LoadOutcome::Changed,
        };
        match self.table.loaded(load.id, outcome, self.now) {
            Some(lease) => self.leased.push((load.id, lease)),
            None if matches!(how, How::Good(_)) => drop(self.available_ids.insert(version, load.id)),
            None => {}
        }
        self.advance();
    }

    fn free_all(&mut self) {
        for (id, _) in std::mem::take(&mut self.leased) {
            self.table.drained(id, VersionStatistics::default());
        }
        self.advance();
    }

    fn in_state(&self, state: VersionState) -> BTreeSet<u64> {
        let Some(model) = self.table.model(&Self::name()) else { return BTreeSet::new() };
        let versions = model.versions().iter().filter(|(_, version)| version.phase.state() == state);
        versions.map(|(number, _)| *number).collect()
    }

    fn available(&self) -> Vec<u64> {
        self.in_state(VersionState::Available).into_iter().collect()
    }

    fn loading(&self) -> Vec<u64> {
        self.in_state(VersionState::Loading).into_iter().collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum How {
    Good(u64),
    Bad,
    Changed,
}

fn facts(memory: u64) -> Facts {
    let signature = millrace_testkit::FakeModel::builder().build().as_model().signature().clone();
    let signatures = Arc::new(Signatures::single(signature));
    Facts {
        choice: None,
        backend: Arc::from("fake"),
        signatures,
        memory,
        load_time: Duration::ZERO,
        loaded_at: std::time::UNIX_EPOCH,
        max_batch_size: 0,
        batch_delay: None,
    }
}

fn latest() -> VersionPolicy {
    VersionPolicy::default()
}

/// A bench on which version 1 serves.
fn serving_one() -> Bench {
    let mut bench = Bench::new(latest(), None);
    bench.disk.insert(1, 0);
    bench.scan(true);
    bench.finish(1, How::Good(0));
    bench
}

#[test]
fn the_old_version_serves_until_the_new_one_can() {
    let mut bench = serving_one();
    bench.disk.insert(2, 0);
    bench.scan(true);
    assert_eq!((bench.available(), bench.loading()), (vec![1], vec![2]));
    bench.finish(2, How::Bad);
    assert_eq!(bench.available(), [1]);
    bench.pass(1);
    bench.finish(2, How::Good(0));
    assert_eq!(bench.available(), [2]);
    assert_eq!(bench.in_state(VersionState::Unloading), [1].into());
    bench.free_all();
    assert_eq!(bench.in_state(VersionState::End), [1].into());
}

#[test]
fn a_version_counts_once_it_has_held_still() {
    let mut bench = serving_one();
    for look in 0..3 {
        bench.disk.insert(2, look);
        bench.pass(1);
        bench.scan(false);
        assert!(bench.loading().is_empty(), "look {look}");
        assert_eq!(bench.table.due().0, Some(bench.now + QUIET));
    }
    bench.scan(false);
    assert!(bench.loading().is_empty(), "no time has passed between two looks");
    bench.pass(1);
    bench.scan(false);
    assert_eq!(bench.loading(), [2]);
    assert_eq!(bench.table.due().0, None);
}

#[test]
fn failed_loads_wait_longer_each_time_but_changed_files_do_not_wait() {
    let mut bench = serving_one();
    bench.disk.insert(2, 0);
    bench.scan(true);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench.finish(2, How::Bad);
        assert_eq!(bench.table.due().1, Some(bench.now + Duration::from_secs(wait)));
        bench.pass(wait - 1);
        assert!(bench.loading().is_empty(), "before {wait} s");
        bench.pass(1);
        assert_eq!(bench.loading(), [2]);
    }
    bench.finish(2, How::Bad);
    bench.disk.insert(2, 1);
    bench.scan(false);
    bench.pass(1);
    bench.scan(false);
    assert_eq!(bench.loading(), [2]);
}

/// The files changed after they were read and before the failure was told: the change must not pass for what failed.
#[test]
fn a_change_during_a_failing_load_is_not_missed() {
    let mut bench = serving_one();
    bench.disk.insert(2, 0);
    bench.scan(true);
    bench.disk.insert(2, 1);
    bench.scan(false);
    bench.finish(2, How::Bad);
    bench.pass(1);
    bench.scan(false);
    assert_eq!(bench.loading(), [2]);
}

#[test]
fn files_that_change_while_loading_must_hold_still_again() {
    let mut bench = Bench::new(latest(), None);
    bench.disk.insert(1, 0);
    bench.scan(true);
    bench.finish(1, How::Changed);
    assert!(bench.table.is_settled(), "it is not known when they will");
    assert_eq!(bench.table.progress(&Bench::name(), 1), Progress::Pending);
    bench.scan(false);
    assert!(bench.loading().is_empty());
    bench.pass(1);
    bench.scan(false);
    assert_eq!(bench.loading(), [1]);
}

#[test]
fn an_unload_holds_against_a_load_under_way() {
    let mut bench = serving_one();
    bench.disk.insert(2, 0);
    bench.scan(true);
    bench.order(|overrides| overrides.with_unload(None));
    assert!(bench.available().is_empty());
    assert_eq!(bench.table.unfinished(&Bench::name(), None).len(), 2);
    bench.finish(2, How::Good(0));
    assert!(bench.available().is_empty());
    bench.free_all();
    assert!(bench.table.unfinished(&Bench::name(), None).is_empty());
}

#[test]
fn memory_counts_until_the_last_request_has_ended() {
    let mut bench = Bench::new(latest(), Some(100));
    bench.disk.insert(1, 0);
    bench.scan(true);
    bench.finish(1, How::Good(60));
    bench.order(|overrides| overrides.with_unload(Some(1)));
    bench.disk.insert(2, 0);
    bench.scan(true);
    assert_eq!(bench.loads[0].memory, 40);
    bench.finish(2, How::Good(60));
    assert!(
        matches!(bench.table.progress(&Bench::name(), 2), Progress::Failed(failure) if failure.message.contains("40 are left"))
    );
    bench.free_all();
    bench.pass(1);
    bench.finish(2, How::Good(60));
    assert_eq!(bench.available(), [2]);
}

#[test]
fn only_so_many_ended_versions_are_remembered() {
    let mut bench = serving_one();
    for version in 2..100 {
        bench.disk.insert(version, 0);
        bench.scan(true);
        bench.finish(version, How::Good(0));
        bench.free_all();
    }
    assert_eq!(bench.available(), [99]);
    assert_eq!(bench.in_state(VersionState::End).len(), super::MOST_ENDED);
    bench.disk.retain(|version, _| *version == 99);
    bench.scan(false);
    assert!(bench.in_state(VersionState::End).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Appear(u64),
    Change(u64),
    Vanish(u64),
    Scan,
    Pass(u64),
    Load(Option<u64>),
    Unload(Option<u64>),
    Finish(usize, How),
    Free,
    Register(u64),
    Unregister(u64),
    Replace(VersionPolicy, u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let version = || 1..5_u64;
    let how = prop_oneof![3 => Just(How::Good(1)), 1 => Just(How::Bad), 1 => Just(How::Changed)];
    prop_oneof![
        2 => version().prop_map(Step::Appear),
        1 => version().prop_map(Step::Change),
        1 => version().prop_map(Step::Vanish),
        4 => Just(Step::Scan),
        3 => (0..3_u64).prop_map(Step::Pass),
        1 => prop::option::of(version()).prop_map(Step::Load),
        1 => prop::option::of(version()).prop_map(Step::Unload),
        5 => (0..4_usize, how).prop_map(|(index, how)| Step::Finish(index, how)),
        1 => Just(Step::Free),
        1 => version().prop_map(Step::Register),
        1 => version().prop_map(Step::Unregister),
        1 => (policies(), 0..2_u64).prop_map(|(policy, folder)| Step::Replace(policy, folder)),
    ]
}

fn policies() -> impl Strategy<Value = VersionPolicy> {
    prop_oneof![
        Just(VersionPolicy::All),
        Just(latest()),
        Just(VersionPolicy::Latest(std::num::NonZeroUsize::new(2).unwrap())),
        Just(VersionPolicy::Specific(vec![1, 3])),
    ]
}

proptest! {
    /// Whatever happens in whatever order: what serves was loaded and not forbidden, nothing that serves stops before
    /// its successor can, no lease is lost or given back twice, and once the world holds still, exactly what is wanted
    /// serves.
    #[test]
    fn the_table_ends_where_a_plain_model_says(policy in policies(), steps in prop::collection::vec(steps(), 1..80)) {
        let mut bench = Bench::new(policy, None);
        bench.scan(true);
        for step in steps {
            let before = bench.available();
            let mut forbidding = false;
            let before_places = bench.read_from_by_version();
            match step.clone() {
                Step::Appear(version) => drop(bench.disk.entry(version).or_insert(0)),
                Step::Change(version) => *bench.disk.entry(version).or_insert(0) += 1,
                Step::Vanish(version) => drop(bench.disk.remove(&version)),
                Step::Scan => bench.scan(false),
                Step::Pass(seconds) => bench.pass(seconds),
                Step::Load(version) => bench.order(|overrides| overrides.with_load(version)),
                Step::Unload(version) => {
                    forbidding = true;
                    bench.order(|overrides| overrides.with_unload(version));
                }
                Step::Finish(index, how) => {
                    if index < bench.loads.len() {
                        bench.finish_load(index, how);
                    }
                }
                Step::Free => bench.free_all(),
                Step::Register(version) => bench.register(version),
                Step::Unregister(version) => {
                    forbidding = true;
                    bench.unregister(version);
                }
                Step::Replace(policy, folder) => bench.replace(policy, folder),
            }
            let available = bench.available();
            let wanted_now = bench.table.wanted(&Bench::name()).unwrap_or_default();
            let places = bench.table.places(&Bench::name());
            let lies_at = |version: &u64| places.get(version).map(|place| place.below.clone());
            let moved = before_places.iter().any(|(version, place)| lies_at(version).is_some_and(|now| now != *place));
            for version in &available {
                prop_assert!(!bench.overrides.forbids(*version), "{version} serves although it was unloaded");
                prop_assert!(bench.available_ids.contains_key(version), "{version} serves and was never loaded");
            }
            prop_assert_eq!(available.len(), bench.available_ids.len(), "a lease was lost");
            let someone_wanted = bench.table.wanted(&Bench::name()).is_some_and(|wanted| !wanted.is_empty());
            for (version, id) in &bench.available_ids {
                // One that is not wanted any more may serve until those that are can.
                let is_old = !wanted_now.contains(version);
                let is_sound = is_old || lies_at(version).is_none_or(|place| bench.read_from[id] == place);
                prop_assert!(is_sound, "{version} serves from where it no longer lies");
            }
            // A version of the same number from elsewhere takes the place of the one that serves by way of a gap.
            if !before.is_empty() && someone_wanted && !forbidding && !moved {
                prop_assert!(!available.is_empty(), "nothing serves after {step:?}");
            }
            for (id, _) in &bench.leased {
                prop_assert!(!bench.available_ids.values().any(|serving| serving == id), "a serving lease was let go");
            }
        }
        // The world holds still, and everything loads.
        for _ in 0..20 {
            bench.scan(false);
            while !bench.loads.is_empty() {
                bench.finish_load(0, How::Good(1));
            }
            bench.free_all();
            bench.pass(60);
        }
        let present = bench.present().into_keys().collect();
        let expected = wanted(&bench.policy, &BTreeMap::new(), &bench.overrides, &present);
        prop_assert_eq!(bench.available(), expected.into_iter().collect::<Vec<_>>());
        prop_assert!(bench.table.is_settled());
        prop_assert!(bench.table.unfinished(&Bench::name(), None).is_empty());
    }
}

#[test]
fn phases_have_tensorflow_serving_s_names() {
    let names = [
        Phase::Start,
        Phase::Loading(LoadId(1)),
        Phase::Available(LoadId(1), ()),
        Phase::Unloading(LoadId(1)),
        Phase::End,
    ];
    assert_eq!(names.map(|phase| phase.state().name()), ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]);
}
