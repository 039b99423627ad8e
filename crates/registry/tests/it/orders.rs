//! Orders: what they do, that they stay, and what happens when they cannot be kept.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use millrace_batching::PoolConfig;
use millrace_core::{Catalog, Control, ModelRef, Reason, Registration, VersionState, WantedModel, WantedVersions};
use millrace_testkit::{FakeBackend, Gate, Misbehaviour};
use pollster::block_on;

use crate::repository::{Repository, Served, alias, ask, begin, begin_on, context, name, start};

fn with_state(repository: &Repository) -> Served {
    let mut config = repository.config();
    config.state_dir = Some(repository.state().to_owned());
    start(config, FakeBackend::default())
}

fn overrides(served: &Served, model: &str) -> Vec<String> {
    served.0.model(model).unwrap().overrides
}

#[test]
fn versions_load_and_unload_by_order() {
    let repository = Repository::new();
    let served = repository.version("m", 1).version("m", 2).version("other", 1).start();
    served.load("m", 1).unwrap();
    assert_eq!(served.available("m"), [1, 2]);
    served.unload("m", 2).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.status("m", 2).state, VersionState::End);
    served.unload("m", None).unwrap();
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    assert_eq!(overrides(&served, "m"), ["unloaded by order"]);
    served.load("m", None).unwrap();
    assert_eq!(served.available("m"), [2]);
    assert_eq!(overrides(&served, "m"), Vec::<String>::new());
    assert_eq!(served.default_of("other"), Ok(1));
}

#[test]
fn unloading_the_newest_brings_the_one_before_it_back() {
    let repository = Repository::new();
    let served = repository.version("m", 1).version("m", 2).start();
    served.unload("m", 2).unwrap();
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(1));
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused_with_a_reason() {
    let repository = Repository::new();
    repository.version("m", 1).version_with("cut", 1, "x\n").version("typo", 1).file("typo/model.toml", "x = 1");
    let served = repository.start();
    assert_eq!(served.load("nobody", None), Err(Reason::ModelUnknown));
    assert_eq!(served.unload("nobody", None), Err(Reason::ModelUnknown));
    assert_eq!(served.load("m", 7), Err(Reason::VersionUnknown));
    assert_eq!(served.unload("m", 7), Err(Reason::VersionUnknown));
    assert_eq!(served.load("cut", None), Err(Reason::Conflict));
    assert_eq!(served.load("typo", None), Err(Reason::Conflict));
    assert_eq!(served.set_alias("nobody", "a", 1), Err(Reason::ModelUnknown));
    assert_eq!(served.set_alias("m", "latest", 1), Err(Reason::InvalidInput));
    assert_eq!(served.remove_alias("m", "a"), Err(Reason::LabelUnknown));
    let refusal = block_on(served.0.set_alias(&name("m"), &alias("a"), 7)).unwrap_err();
    let words = "Request to assign label to version 7 of model m, which is not currently available for inference";
    assert_eq!((refusal.reason(), refusal.message()), (Reason::Conflict, words));
    assert_eq!(overrides(&served, "m"), Vec::<String>::new());
}

#[test]
fn aliases_move_and_go() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).file("m/model.toml", "versions = \"all\"\n[aliases]\nstable = 1");
    let served = repository.start();
    served.set_alias("m", "stable", 2).unwrap();
    assert_eq!(served.label_of("m", "stable"), Ok(2));
    served.set_alias("m", "default", 1).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
    served.remove_alias("m", "default").unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
    served.remove_alias("m", "stable").unwrap();
    assert_eq!(served.label_of("m", "stable"), Err(Reason::LabelUnknown));
    assert_eq!(overrides(&served, "m"), ["alias `stable` removed by order"]);
}

#[test]
fn an_order_to_load_finds_what_was_just_copied() {
    let repository = Repository::new();
    let mut config = repository.config();
    config.quiet_period = Duration::from_secs(3600);
    repository.version("m", 1);
    let served = start(config, FakeBackend::default());
    repository.version("m", 2);
    served.load("m", 2).unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
}

#[test]
fn orders_survive_a_restart_and_are_shown() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).version("gone", 1);
    {
        let served = with_state(&repository);
        served.load("m", 1).unwrap();
        served.set_alias("m", "default", 1).unwrap();
        served.unload("gone", None).unwrap();
    }
    let served = with_state(&repository);
    assert_eq!(served.available("m"), [1, 2]);
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.default_of("gone"), Err(Reason::NotReady));
    assert_eq!(overrides(&served, "m"), ["version 1 loaded by order", "alias `default` set to version 1 by order"]);
    served.load("gone", None).unwrap();
    drop(served);
    assert_eq!(with_state(&repository).default_of("gone"), Ok(1));
}

#[test]
fn a_damaged_state_file_does_not_stop_the_start() {
    let repository = Repository::new();
    fs::write(repository.state().join("registry.json"), "{\"format\": 1, \"models\": {\"m\"").unwrap();
    let served = with_state(repository.version("m", 1));
    assert_eq!(served.default_of("m"), Ok(1));
    served.unload("m", None).unwrap();
    drop(served);
    assert_eq!(with_state(&repository).default_of("m"), Err(Reason::NotReady));
}

/// Row 78.
#[test]
fn an_order_that_cannot_be_saved_is_not_carried_out() {
    let repository = Repository::new();
    let served = with_state(repository.version("m", 1).version("m", 2));
    // Whoever runs the tests may write anywhere, so that a folder in the way stands in for a full or read-only disk.
    let in_the_way = repository.state().join("registry.json.new");
    fs::create_dir(&in_the_way).unwrap();
    assert_eq!(served.unload("m", None), Err(Reason::NotSaved));
    assert_eq!(served.load("m", 1), Err(Reason::NotSaved));
    assert_eq!(served.set_alias("m", "a", 2), Err(Reason::NotSaved));
    assert_eq!(served.available("m"), [2]);
    assert_eq!(overrides(&served, "m"), Vec::<String>::new());
    fs::remove_dir(&in_the_way).unwrap();
    served.set_alias("m", "a", 2).unwrap();
    drop(served);
    let served = with_state(&repository);
    assert_eq!(served.label_of("m", "a"), Ok(2));
    assert_eq!(overrides(&served, "m"), ["alias `a` set to version 2 by order"]);
}

#[test]
fn an_unload_ends_when_the_last_request_has() {
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    let unload = served.0.unload(&name("m"), None);
    let waiting = thread::spawn(move || block_on(unload));
    // Orders are carried out in turn: once a later one has ended, the unload has begun.
    served.rescan();
    assert_eq!(served.status("m", 1).state, VersionState::Unloading);
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    assert!(!waiting.is_finished());
    assert_eq!(ask(&lease, 10.0).unwrap().to_bits(), 10.0_f32.to_bits());
    drop(lease);
    waiting.join().unwrap().unwrap();
    assert_eq!(served.status("m", 1).state, VersionState::End);
}

#[test]
fn an_unload_during_a_load_wins() {
    let repository = Repository::new();
    repository.version("m", 1);
    let gate = Gate::opened();
    let served = start(repository.config(), FakeBackend::default().load_gate(gate.clone()));
    served.unload("m", None).unwrap();
    gate.close();
    let load = served.0.load(&name("m"), None);
    gate.wait_for(2);
    let unload = served.0.unload(&name("m"), None);
    gate.open();
    assert_eq!(block_on(load).unwrap_err().reason(), Reason::VersionUnknown);
    block_on(unload).unwrap();
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    assert_eq!(served.available("m"), Vec::<u64>::new());
}

/// Row 57: twelve threads load, unload, ask and list at once.
#[test]
fn races_end_in_what_the_last_order_said() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).version("calm", 1).file("m/model.toml", "versions = \"all\"");
    let served = Arc::new(repository.start());
    let stop = Arc::new(AtomicBool::new(false));
    let mut askers = Vec::new();
    for _ in 0..4 {
        let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
        askers.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for model in [ModelRef::new("m"), ModelRef::with_version("m", 1)] {
                    if let Err(reason) = served.answers(&model) {
                        let allowed = [Reason::NotReady, Reason::Loading, Reason::VersionUnknown];
                        assert!(allowed.contains(&reason), "{reason:?}");
                    }
                }
                assert_eq!(served.default_of("calm"), Ok(1), "another model is disturbed");
                assert_eq!(served.0.models().len(), 2);
            }
        }));
    }
    let orderers: Vec<_> = (0..8_u64)
        .map(|number| {
            let served = Arc::clone(&served);
            thread::spawn(move || {
                for round in 0..20 {
                    let version = [None, Some(1), Some(2)][usize::try_from((number + round) % 3).unwrap()];
                    let order = if (number + round) % 2 == 0 {
                        served.0.load(&name("m"), version)
                    } else {
                        served.0.unload(&name("m"), version)
                    };
                    if let Err(refusal) = block_on(order) {
                        assert_eq!(refusal.reason(), Reason::VersionUnknown, "{refusal}");
                    }
                }
            })
        })
        .collect();
    orderers.into_iter().for_each(|thread| thread.join().unwrap());
    stop.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|thread| thread.join().unwrap());

    served.unload("m", None).unwrap();
    assert_eq!(served.available("m"), Vec::<u64>::new());
    served.load("m", None).unwrap();
    assert_eq!(served.available("m"), [1, 2]);
}

/// Row 57 for the other orders: twelve threads register, unregister, scale, replace, ask and list at once.
#[test]
fn races_of_every_order_end_in_what_the_last_one_said() {
    let repository = Repository::new();
    repository.version("calm", 1).version("m", 1).version("m", 2);
    repository.stored("m/3/model.fake", &FakeBackend::file(3.0, 0.0));
    let served = Arc::new(start(repository.with_store(), FakeBackend::default()));
    let wanted = |model: &str, versions: WantedVersions| {
        let base_path = repository.path().join(model).to_str().unwrap().to_owned();
        WantedModel { name: name(model), base_path, versions, aliases: BTreeMap::new() }
    };
    let sets = [
        vec![wanted("calm", WantedVersions::All), wanted("m", WantedVersions::All)],
        vec![wanted("calm", WantedVersions::All), wanted("m", WantedVersions::Specific(vec![1]))],
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let mut askers = Vec::new();
    for _ in 0..4 {
        let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
        askers.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for model in [ModelRef::new("m"), ModelRef::with_version("m", 1), ModelRef::with_version("m", 3)] {
                    if let Err(reason) = served.answers(&model) {
                        let allowed = [Reason::NotReady, Reason::Loading, Reason::VersionUnknown, Reason::Draining];
                        assert!(allowed.contains(&reason), "{reason:?}");
                    }
                }
                assert_eq!(served.default_of("calm"), Ok(1), "another model is disturbed");
                assert!(served.0.models().len() >= 2);
            }
        }));
    }
    let orderers: Vec<_> = (0..8_usize)
        .map(|number| {
            let (served, sets) = (Arc::clone(&served), sets.clone());
            thread::spawn(move || {
                for round in 0..20 {
                    let m = name("m");
                    let result = match (number + round) % 7 {
                        0 => block_on(served.0.register(Registration {
                            version: Some(3),
                            keep_default: round % 2 == 0,
                            ..Registration::new("m")
                        }))
                        .map(|_| ()),
                        1 => block_on(served.0.unregister(&m, Some(3))),
                        2 => block_on(served.0.scale(&m, None, round % 3)),
                        3 => block_on(served.0.replace(sets[round % 2].clone())),
                        4 => block_on(served.0.load(&m, None)),
                        5 => block_on(served.0.unload(&m, Some(1))),
                        _ => block_on(served.0.unregister(&m, Some(2))),
                    };
                    if let Err(refusal) = result {
                        let allowed = [Reason::Conflict, Reason::Exists, Reason::VersionUnknown, Reason::NotReady];
                        assert!(allowed.contains(&refusal.reason()), "{refusal}");
                    }
                }
            })
        })
        .collect();
    orderers.into_iter().for_each(|thread| thread.join().unwrap());
    stop.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|thread| thread.join().unwrap());

    served.replace(sets[0].clone()).unwrap();
    assert_eq!(served.available("m"), [1, 2]);
    served.register(Registration { version: Some(3), ..Registration::new("m") }).unwrap_err();
    served.register(Registration::new("m/2")).unwrap_err();
    assert_eq!(served.default_of("m"), Ok(2));
    drop(served);
    let served = start(repository.with_store(), FakeBackend::default());
    assert_eq!(served.available("m"), [1, 2], "the last order lasts");
}

#[test]
fn after_a_shutdown_everything_is_refused_and_leases_stay_good() {
    let repository = Repository::new();
    let served = repository.version("m", 2).start();
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    served.0.shutdown();
    assert_eq!(served.default_of("m"), Err(Reason::Draining));
    assert_eq!(served.load("m", None), Err(Reason::Draining));
    assert_eq!(ask(&lease, 10.0).unwrap().to_bits(), 20.0_f32.to_bits());
    served.0.shutdown();
}

/// Row 76: nothing waits for a load that does not end.
#[test]
fn a_shutdown_during_a_load_does_not_hang() {
    let repository = Repository::new();
    repository.version("m", 1);
    let gate = Gate::closed();
    let served = begin(repository.config(), FakeBackend::default().load_gate(gate.clone()));
    gate.wait_for(1);
    let settled = served.0.settled();
    let load = served.0.load(&name("m"), None);
    served.0.shutdown();
    assert_eq!(block_on(load).unwrap_err().reason(), Reason::Draining);
    block_on(settled);
    assert!(!served.0.is_ready());
    gate.open();
    let _ = context();
}

/// Row 69, as far as the registry goes.
#[test]
fn a_version_whose_run_hung_says_so_and_loads_again_by_order() {
    let repository = Repository::new();
    repository.version("m", 1);
    let hang = Gate::closed();
    let short = Duration::from_millis(100);
    let pool = PoolConfig { hang_grace: short, hang_unknown: short, hang_factor: 1, ..PoolConfig::default() };
    let served = begin_on(pool, repository.config(), FakeBackend::default().hang(hang.clone()));
    block_on(served.0.settled());
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    let hung = thread::spawn(move || ask(&lease, Misbehaviour::Hang.value()).map_err(|refusal| refusal.reason()));
    served.until("the quarantine", || served.status("m", 1).failure.is_some());
    assert!(served.status("m", 1).failure.unwrap().message.contains("hung"));
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    served.load("m", 1).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.status("m", 1).failure, None);
    hang.open();
    assert!(hung.join().unwrap().is_err());
}

#[test]
fn a_registry_whose_thread_panicked_says_so_and_goes_on_serving() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the embedder's panics");
        }
    }
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    assert!(served.0.is_alive());
    let mut order = served.0.rescan();
    let waker = Waker::from(Arc::new(Bomb));
    // The answer may be there already; then nobody is woken, and the next order tries again.
    while order.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        order = served.0.rescan();
    }
    let begun = context().received;
    while served.0.is_alive() {
        assert!(context().received - begun < Duration::from_secs(60), "the thread lives on");
        thread::yield_now();
    }
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.load("m", 1), Err(Reason::Draining), "orders are refused and do not hang");
}
