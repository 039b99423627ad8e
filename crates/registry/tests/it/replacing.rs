//! The whole set of models, replaced by one order.

use std::collections::BTreeMap;

use millrace_core::{Catalog, Control, ModelRef, Reason, Registration, WantedModel, WantedVersions};
use millrace_testkit::{FakeBackend, Gate};
use pollster::block_on;

use crate::repository::{Repository, Served, alias, ask, name, start};

fn begin(repository: &Repository) -> Served {
    start(repository.with_store(), FakeBackend::default())
}

/// `model`, from the folder of that name in the repository.
fn wanted(repository: &Repository, model: &str, versions: WantedVersions) -> WantedModel {
    let base_path = repository.path().join(model).to_str().unwrap().to_owned();
    WantedModel { name: name(model), base_path, versions, aliases: BTreeMap::new() }
}

fn latest(repository: &Repository, model: &str) -> WantedModel {
    wanted(repository, model, WantedVersions::Latest(1))
}

#[test]
fn a_new_set_takes_the_place_of_the_old_one_and_survives_a_restart() {
    let repository = Repository::new();
    repository.version("a", 1).version("a", 2).version("b", 1).version("c", 1);
    repository.stored("new/7/model.fake", &FakeBackend::file(7.0, 0.0));
    repository.stored("extra/1/model.fake", &FakeBackend::file(1.0, 0.0));
    {
        let served = begin(&repository);
        served.register(Registration::new("extra")).unwrap();
        served.unload("b", None).unwrap();
        let base_path = repository.store().join("new").to_str().unwrap().to_owned();
        let new = WantedModel { base_path, ..latest(&repository, "new") };
        served.replace([wanted(&repository, "a", WantedVersions::All), latest(&repository, "b"), new]).unwrap();
        served.until("the unloads", || served.names() == ["a", "b", "new"]);
        assert_eq!(served.available("a"), [1, 2]);
        assert_eq!(served.default_of("new"), Ok(7));
        assert_eq!(served.default_of("b"), Ok(1), "what was ordered before is gone");
        assert_eq!(served.default_of("c"), Err(Reason::ModelUnknown));
        assert_eq!(served.load("c", None), Err(Reason::ModelUnknown));
        assert_eq!(served.overrides("b"), ["one of the set that was ordered in place of the configured one"]);
    }
    let served = begin(&repository);
    assert_eq!(served.names(), ["a", "b", "new"]);
    assert_eq!(served.available("a"), [1, 2]);
    served.replace([latest(&repository, "c")]).unwrap();
    assert_eq!((served.default_of("c"), served.default_of("a")), (Ok(1), Err(Reason::ModelUnknown)));
    served.replace(vec![]).unwrap();
    assert_eq!(served.default_of("c"), Err(Reason::ModelUnknown));
    served.until("the last unload", || served.names().is_empty());
}

#[test]
fn what_stays_wanted_serves_all_the_while() {
    let repository = Repository::new();
    repository.version("a", 1).version("b", 1).version("b", 2);
    let gate = Gate::opened();
    let served = start(repository.with_store(), FakeBackend::default().load_gate(gate.clone()));
    let before = gate.arrived();
    gate.close();
    let set = vec![latest(&repository, "a"), wanted(&repository, "b", WantedVersions::Specific(vec![1]))];
    let replace = served.0.replace(set);
    gate.wait_for(before + 1);
    assert_eq!((served.default_of("a"), served.default_of("b")), (Ok(1), Ok(2)));
    gate.open();
    block_on(replace).unwrap();
    assert_eq!((served.default_of("a"), served.default_of("b")), (Ok(1), Ok(1)));
    assert_eq!(gate.arrived(), before + 1, "only what was new was loaded");
}

#[test]
fn a_set_that_is_wrong_is_refused_as_a_whole() {
    let repository = Repository::new();
    repository.version("a", 1).version("b", 1).file("../elsewhere/1/model.fake", &FakeBackend::file(1.0, 0.0));
    let served = begin(&repository);
    let at = |base_path: &str| WantedModel { base_path: base_path.to_owned(), ..latest(&repository, "b") };
    let elsewhere = repository.path().join("../elsewhere").canonicalize().unwrap();
    let labelled =
        |version: u64| WantedModel { aliases: [(alias("stable"), version)].into(), ..latest(&repository, "b") };
    for (wrong, reason) in [
        (latest(&repository, "a"), Reason::InvalidInput),
        (at("models/b"), Reason::InvalidInput),
        (at("s3://bucket/b"), Reason::InvalidInput),
        (at("/etc"), Reason::Forbidden),
        (at(elsewhere.to_str().unwrap()), Reason::Forbidden),
        (at(repository.path().join("b/../../elsewhere").to_str().unwrap()), Reason::InvalidInput),
        (at(repository.path().join("absent").to_str().unwrap()), Reason::InvalidInput),
        (labelled(2), Reason::Conflict),
        (WantedModel { aliases: [(alias("latest"), 1)].into(), ..latest(&repository, "b") }, Reason::InvalidInput),
    ] {
        assert_eq!(served.replace([latest(&repository, "a"), wrong.clone()]), Err(reason), "{wrong:?}");
        assert_eq!(served.names(), ["a", "b"]);
        assert_eq!(served.overrides("a"), Vec::<String>::new());
    }
    let refusal = block_on(served.0.replace(vec![latest(&repository, "a"), latest(&repository, "a")])).unwrap_err();
    assert_eq!(refusal.message(), "Illegal to list model a multiple times in config list");
    served.replace([labelled(1)]).unwrap();
    assert_eq!(served.label_of("b", "stable"), Ok(1));
}

#[test]
fn the_set_says_more_than_the_models_own_files() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).file("m/model.toml", "versions = [1]");
    let served = begin(&repository);
    assert_eq!(served.available("m"), [1]);
    served.replace([wanted(&repository, "m", WantedVersions::Latest(0))]).unwrap();
    assert_eq!(served.available("m"), [2]);
}

#[test]
fn a_set_with_something_that_does_not_load_says_so_and_serves_the_rest() {
    let repository = Repository::new();
    repository.version("a", 1).version("b", 1).version_with("cut", 1, "x\n").file("none/model.toml", "");
    let served = begin(&repository);
    assert_eq!(served.replace([latest(&repository, "a"), latest(&repository, "cut")]), Err(Reason::Conflict));
    served.until("the unloads", || served.names() == ["a", "cut"]);
    assert_eq!(served.default_of("a"), Ok(1));
    assert_eq!(served.replace([latest(&repository, "b"), latest(&repository, "none")]), Err(Reason::NotReady));
    assert_eq!(served.default_of("b"), Ok(1));
}

/// The same number in another folder is another version.
#[test]
fn a_model_that_moves_to_another_folder_loads_from_there() {
    let repository = Repository::new();
    repository.version_with("m", 1, &FakeBackend::file(5.0, 0.0)).version("n", 1);
    let served = begin(&repository);
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    assert_eq!(ask(&lease, 10.0).unwrap().to_bits(), 50.0_f32.to_bits());
    drop(lease);
    let base_path = repository.path().join("n").to_str().unwrap().to_owned();
    served.replace([WantedModel { base_path, ..latest(&repository, "m") }]).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.0.model("m").unwrap().path, "n");
}

#[test]
fn models_are_registered_beside_a_set() {
    let repository = Repository::new();
    repository.version("a", 1).version("b", 1).stored("m/1/model.fake", &FakeBackend::file(1.0, 0.0));
    let served = begin(&repository);
    served.replace([latest(&repository, "a")]).unwrap();
    served.register(Registration::new("m")).unwrap();
    served.register(Registration::new("b")).unwrap();
    served.until("the unloads", || served.names() == ["a", "b", "m"]);
    drop(served);
    assert_eq!(begin(&repository).names(), ["a", "b", "m"]);
}
