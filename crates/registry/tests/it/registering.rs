//! Models that an operator adds from a store, and takes out again.

use std::fs;
use std::time::Duration;

use millrace_core::{Catalog, Control, ModelRef, Reason, Registration, VersionState};
use millrace_testkit::{FakeBackend, Gate};
use pollster::block_on;

use crate::repository::{Repository, Served, name, start};

fn fake(scale: f32) -> String {
    FakeBackend::file(scale, 0.0)
}

fn begin(repository: &Repository) -> Served {
    start(repository.with_store(), FakeBackend::default())
}

/// A registration under this name.
fn called(model: &str, path: &str) -> Registration {
    Registration { name: Some(name(model)), ..Registration::new(path) }
}

fn versioned(model: &str, path: &str, version: u64) -> Registration {
    Registration { version: Some(version), ..called(model, path) }
}

#[test]
fn a_model_comes_from_a_folder_a_version_or_a_file_of_a_store() {
    let repository = Repository::new();
    repository.stored("fraud/3/model.fake", &fake(3.0)).stored("flat/model.fake", &fake(1.0));
    repository.stored("zoo/cat.fake", &fake(1.0)).stored("zoo/dog.fake", &fake(1.0)).version("own", 1);
    let served = begin(&repository);
    assert_eq!(served.names(), ["own"]);
    assert_eq!(served.register(Registration::new("fraud")).unwrap(), ("fraud".to_owned(), 3));
    assert_eq!(served.default_of("fraud"), Ok(3));
    assert_eq!(served.register(Registration::new("flat")).unwrap(), ("flat".to_owned(), 1));
    assert_eq!(served.register(Registration::new("zoo/cat.fake")).unwrap(), ("cat".to_owned(), 1));
    assert_eq!(served.default_of("cat"), Ok(1));
    assert_eq!(served.names(), ["cat", "flat", "fraud", "own"]);
    assert_eq!(served.0.model("cat").unwrap().path, "zoo/cat.fake");
    assert_eq!(served.0.model("fraud").unwrap().path, "fraud/3");
    assert_eq!(served.0.model("own").unwrap().path, "own");
    assert_eq!(served.overrides("cat"), ["version 1 registered by order", "version 1 loaded by order"]);
}

#[test]
fn a_name_and_version_can_be_taken_once() {
    let repository = Repository::new();
    repository.stored("a/1/model.fake", &fake(1.0)).stored("b/1/model.fake", &fake(1.0)).version("own", 1);
    let served = begin(&repository);
    served.register(Registration::new("a")).unwrap();
    assert_eq!(served.register(Registration::new("a")), Err(Reason::Exists));
    assert_eq!(served.register(called("a", "b")), Err(Reason::Exists));
    assert_eq!(served.register(called("own", "b")), Err(Reason::Exists));
    assert_eq!(served.register(Registration::new("own")), Err(Reason::Exists));
    // The same files may serve under two names.
    served.register(called("again", "a")).unwrap();
    assert_eq!(served.default_of("again"), Ok(1));
}

#[test]
fn the_first_version_is_the_default_and_stays_it_where_that_is_asked_for() {
    let repository = Repository::new();
    for version in 1..=3_u8 {
        repository.stored(&format!("m{version}/model.fake"), &fake(f32::from(version)));
    }
    let served = begin(&repository);
    let keeping = |version: u64| Registration { keep_default: true, ..versioned("m", &format!("m{version}"), version) };
    served.register(keeping(2)).unwrap();
    served.register(keeping(3)).unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
    assert_eq!(served.version_of("m", 3), Ok(3));
    assert_eq!(served.available("m"), [2, 3]);
    served.set_alias("m", "default", 3).unwrap();
    served.register(keeping(1)).unwrap();
    assert_eq!(served.default_of("m"), Ok(3));
    // Without it the highest answers, as elsewhere.
    served.register(versioned("n", "m1", 1)).unwrap();
    served.register(versioned("n", "m2", 2)).unwrap();
    assert_eq!(served.default_of("n"), Ok(2));
}

#[test]
fn registered_models_survive_a_restart_and_unregistering_forgets_them() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0)).stored("m/2/model.fake", &fake(2.0));
    {
        let served = begin(&repository);
        served.register(versioned("m", "m", 1)).unwrap();
        served.register(Registration { executors: Some(0), ..versioned("m", "m", 2) }).unwrap();
    }
    {
        let served = begin(&repository);
        assert_eq!(served.available("m"), [1, 2]);
        assert_eq!(served.version_of("m", 2), Err(Reason::NotReady), "it has no executors");
        served.unregister("m", 2).unwrap();
        assert_eq!(served.available("m"), [1]);
        assert_eq!(served.unregister("m", 2), Err(Reason::VersionUnknown));
        served.rescan();
        assert_eq!(served.default_of("m"), Ok(1));
    }
    let served = begin(&repository);
    assert_eq!(served.available("m"), [1]);
    served.set_alias("m", "stable", 1).unwrap();
    served.unregister("m", None).unwrap();
    assert_eq!(served.default_of("m"), Err(Reason::ModelUnknown));
    assert_eq!(served.unregister("m", None), Err(Reason::ModelUnknown));
    served.rescan();
    assert_eq!(served.names(), Vec::<String>::new());
    // Nothing that was said about it is left.
    served.register(versioned("m", "m", 2)).unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
    assert_eq!(served.overrides("m"), ["version 2 registered by order", "version 2 loaded by order"]);
}

#[test]
fn an_unload_keeps_a_registration_and_a_load_brings_it_back() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0));
    let served = begin(&repository);
    served.register(Registration::new("m")).unwrap();
    served.unload("m", None).unwrap();
    let status = served.status("m", 1);
    assert_eq!((status.state, status.failure), (VersionState::End, None));
    served.load("m", None).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
    served.unload("m", 1).unwrap();
    served.register(Registration::new("m")).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
}

#[test]
fn a_model_of_the_repository_is_registered_by_loading_it() {
    let repository = Repository::new();
    let served = start(repository.version("m", 1).version("m", 2).with_store(), FakeBackend::default());
    assert_eq!(served.register(Registration::new("m/1")).unwrap(), ("m".to_owned(), 1));
    assert_eq!(served.available("m"), [1, 2]);
    served.unregister("m", 1).unwrap();
    assert_eq!(served.available("m"), [2]);
    assert_eq!(served.status("m", 1).state, VersionState::End);
    served.unregister("m", None).unwrap();
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    served.register(Registration::new("m")).unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
}

#[test]
fn a_registered_version_joins_a_model_of_the_repository() {
    let repository = Repository::new();
    repository.version("m", 1).stored("next/model.fake", &fake(5.0));
    let served = begin(&repository);
    served.register(versioned("m", "next", 5)).unwrap();
    assert_eq!((served.default_of("m"), served.available("m")), (Ok(5), vec![5]));
    served.unregister("m", 5).unwrap();
    assert_eq!(served.version_of("m", 5), Err(Reason::VersionUnknown));
    served.rescan();
    assert_eq!((served.default_of("m"), served.available("m")), (Ok(1), vec![1]));
}

#[test]
fn a_version_that_comes_to_lie_in_the_repository_does_not_replace_a_registered_one() {
    let repository = Repository::new();
    repository.version("m", 1).stored("next/model.fake", &fake(2.0));
    let served = begin(&repository);
    served.register(versioned("m", "next", 2)).unwrap();
    repository.version_with("m", 2, "fail = it is the repository's\nend\n");
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(2));
    assert!(served.0.warnings()[0].contains("registered"), "{:?}", served.0.warnings());
    served.unregister("m", 2).unwrap();
    served.rescan();
    assert_eq!(served.failure("m", 2), "it is the repository's");
}

#[test]
fn what_does_not_load_is_not_registered() {
    let repository = Repository::new();
    repository.stored("bad/1/model.fake", "fail = no such engine\nend\n").stored("good/model.fake", &fake(1.0));
    let served = begin(&repository);
    let keeping = |registration: Registration| Registration { keep_default: true, ..registration };
    assert_eq!(served.register(keeping(Registration::new("bad"))), Err(Reason::Unsupported));
    assert_eq!(served.names(), Vec::<String>::new());
    served.register(keeping(called("m", "good"))).unwrap();
    assert_eq!(served.register(keeping(versioned("m", "bad/1", 1))), Err(Reason::Exists));
    assert_eq!(served.register(keeping(called("bad", "bad"))), Err(Reason::Unsupported));
    served.rescan();
    assert_eq!(served.names(), ["m"]);
    let before = served.overrides("m");
    repository.stored("worse/2/model.fake", "x");
    assert_eq!(served.register(keeping(called("m", "worse"))), Err(Reason::Conflict));
    assert_eq!(served.overrides("m"), before);
    drop(served);
    assert_eq!(begin(&repository).names(), ["m"]);
}

#[test]
fn paths_that_lead_elsewhere_are_refused_and_change_nothing() {
    let repository = Repository::new();
    repository.version("m", 1).file("../elsewhere/1/model.fake", &fake(1.0));
    let served = begin(&repository);
    for path in ["../elsewhere", "/etc", "http://127.0.0.1:1/m.mar", "file:///etc/passwd", ""] {
        assert_eq!(served.register(Registration::new(path)), Err(Reason::InvalidInput), "{path:?}");
    }
    let refusal = block_on(served.0.register(Registration::new("nowhere.mar"))).unwrap_err();
    assert_eq!((refusal.reason(), refusal.message()), (Reason::ModelUnknown, "Model not found at: `nowhere.mar`"));
    let none = Registration { max_batch_size: Some(0), ..Registration::new("m") };
    served.unload("m", None).unwrap();
    assert_eq!(served.register(none), Err(Reason::InvalidInput));
    assert_eq!(served.names(), ["m"]);
}

#[test]
fn the_batch_of_a_registration_goes_before_every_configuration() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0)).stored("m/model.toml", "[batching]\nmax_batch_size = 64");
    let mut config = repository.with_store();
    config.batching_overrides.max_batch_size = std::num::NonZeroUsize::new(32);
    let served = start(config, FakeBackend::default());
    let delay = Duration::from_millis(3);
    let registration =
        Registration { max_batch_size: Some(4), batch_delay: Some(delay), executors: Some(2), ..called("m", "m") };
    served.register(registration).unwrap();
    let status = served.status("m", 1);
    assert_eq!((status.max_batch_size, status.batch_delay, status.executors), (4, Some(delay), Some(2)));
}

#[test]
fn a_store_that_is_configured_no_longer_gives_nothing_and_says_so() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0)).version("own", 1);
    begin(&repository).register(Registration::new("m")).unwrap();
    let mut config = repository.with_store();
    config.stores.clear();
    let served = start(config, FakeBackend::default());
    assert_eq!(served.names(), ["own"]);
    assert!(served.0.warnings()[0].contains("no place that is configured now"), "{:?}", served.0.warnings());
    drop(served);
    assert_eq!(begin(&repository).names(), ["m", "own"], "the order still holds");
}

/// Row 78 for registrations.
#[test]
fn a_registration_that_cannot_be_saved_is_not_carried_out() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0)).version("own", 1);
    let served = begin(&repository);
    let in_the_way = repository.state().join("registry.json.new");
    fs::create_dir(&in_the_way).unwrap();
    assert_eq!(served.register(Registration::new("m")), Err(Reason::NotSaved));
    assert_eq!(served.scale("own", 1, 0), Err(Reason::NotSaved));
    assert_eq!(served.replace(vec![]), Err(Reason::NotSaved));
    assert_eq!((served.names(), served.default_of("own")), (vec!["own".to_owned()], Ok(1)));
    fs::remove_dir(&in_the_way).unwrap();
    served.register(Registration::new("m")).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
}

/// Row 77 for registrations: whatever the moment at which the process dies, the next one finds the whole order or none of
/// it.
#[test]
fn a_kill_around_a_registration_leaves_all_or_nothing_of_it() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0)).stored("m/2/model.fake", "fail = never\nend\n");
    let gate = Gate::opened();
    let served = start(repository.with_store(), FakeBackend::default().load_gate(gate.clone()));
    // What a process that is killed now leaves behind, as the next one finds it.
    let after_a_kill = || {
        let left = tempfile::tempdir().unwrap();
        if let Ok(state) = fs::read(repository.state().join("registry.json")) {
            fs::write(left.path().join("registry.json"), state).unwrap();
        }
        let config =
            millrace_registry::RegistryConfig { state_dir: Some(left.path().to_owned()), ..repository.with_store() };
        let next = start(config, FakeBackend::default());
        let models = next.0.models();
        models
            .into_iter()
            .map(|model| (model.name.to_string(), model.default_version, model.overrides))
            .collect::<Vec<_>>()
    };
    assert_eq!(after_a_kill(), []);
    gate.close();
    let before = gate.arrived();
    let register = served.0.register(Registration { keep_default: true, executors: Some(3), ..versioned("m", "m", 1) });
    gate.wait_for(before + 1);
    let whole = after_a_kill();
    assert_eq!((whole.len(), whole[0].1), (1, Some(1)));
    let words =
        ["version 1 registered", "version 1 loaded", "alias `default` set to version 1", "scaled to 3 executors"];
    assert!(words.iter().all(|words| whole[0].2.iter().any(|line| line.contains(words))), "{whole:?}");
    gate.open();
    block_on(register).unwrap();
    assert_eq!(after_a_kill(), whole);
    // One that fails leaves what was there before it.
    gate.close();
    let before = gate.arrived();
    let register = served.0.register(versioned("m", "m", 2));
    gate.wait_for(before + 1);
    assert_eq!(after_a_kill()[0].1, Some(1), "the version that cannot load keeps nobody from serving");
    gate.open();
    assert_eq!(block_on(register).unwrap_err().reason(), Reason::Unsupported);
    assert_eq!(after_a_kill(), whole);
    served.unregister("m", None).unwrap();
    assert_eq!(after_a_kill(), []);
}

#[test]
fn an_unregister_during_the_load_wins() {
    let repository = Repository::new();
    repository.stored("m/1/model.fake", &fake(1.0));
    let gate = Gate::closed();
    let served = start(repository.with_store(), FakeBackend::default().load_gate(gate.clone()));
    let register = served.0.register(Registration::new("m"));
    gate.wait_for(1);
    let unregister = served.0.unregister(&name("m"), None);
    gate.open();
    assert_eq!(block_on(register).unwrap_err().reason(), Reason::VersionUnknown);
    block_on(unregister).unwrap();
    assert_eq!(served.resolve(&ModelRef::new("m")).unwrap_err().reason(), Reason::ModelUnknown);
    assert_eq!(served.names(), Vec::<String>::new());
}

#[test]
fn a_default_that_was_ordered_goes_with_the_model() {
    let repository = Repository::new();
    let served = start(
        repository.version("m", 1).version("m", 2).file("m/model.toml", "versions = \"all\"").with_store(),
        FakeBackend::default(),
    );
    served.set_alias("m", "default", 1).unwrap();
    served.unregister("m", 2).unwrap();
    served.unregister("m", None).unwrap();
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    let again = Registration { keep_default: true, ..Registration::new("m") };
    assert_eq!(served.register(again).unwrap(), ("m".to_owned(), 2));
    assert_eq!(served.default_of("m"), Ok(2), "the first version that is there again");
}
