//! Which versions load, and which one answers.

use std::sync::Arc;

use millrace_core::{Catalog, Code, ModelRef, Reason, VersionState};
use millrace_registry::{ListedModel, ModelSet, Registry, RegistryConfig, RegistryError, VersionPolicy};
use millrace_testkit::{FakeBackend, Gate};
use pollster::block_on;

use crate::repository::{Repository, ask, begin, name, start};

#[test]
fn the_latest_version_alone_serves_by_default() {
    let repository = Repository::new();
    let served = repository.version("m", 1).version("m", 2).version("m", 10).start();
    assert_eq!(served.available("m"), [10]);
    assert_eq!(served.default_of("m"), Ok(10));
    assert_eq!(served.version_of("m", 1), Err(Reason::VersionUnknown));
}

#[test]
fn model_toml_chooses_versions_and_aliases() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).version("m", 3);
    repository.file("m/model.toml", "versions = \"all\"\n[aliases]\nstable = 1\ndefault = 2");
    let served = repository.start();
    assert_eq!(served.available("m"), [1, 2, 3]);
    assert_eq!(served.default_of("m"), Ok(2));
    assert_eq!(served.label_of("m", "stable"), Ok(1));
    assert_eq!(served.label_of("m", "latest"), Ok(3));
    assert_eq!(served.label_of("m", "nonsense"), Err(Reason::LabelUnknown));
    assert_eq!(served.0.model("m").unwrap().default_version, Some(2));

    repository.file("m/model.toml", "versions = [1, 3]");
    served.rescan();
    assert_eq!(served.available("m"), [1, 3]);
    assert_eq!(served.default_of("m"), Ok(3));
    assert_eq!(served.label_of("m", "stable"), Err(Reason::LabelUnknown));
}

#[test]
fn a_default_alias_holds_its_version_while_newer_ones_come() {
    let repository = Repository::new();
    repository.version("m", 1).file("m/model.toml", "[aliases]\ndefault = 1");
    let served = repository.start();
    repository.version("m", 2);
    served.rescan();
    assert_eq!(served.available("m"), [1, 2]);
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.label_of("m", "latest"), Ok(2));
    repository.remove("m/1");
    served.rescan();
    assert_eq!(served.default_of("m"), Err(Reason::NotReady), "a pinned default is not replaced by another version");
    assert_eq!(served.version_of("m", 2), Ok(2));
}

#[test]
fn refusals_say_in_tensorflow_serving_s_words_what_is_not_there() {
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    let message = |model: ModelRef<'_>| served.resolve(&model).unwrap_err().message().to_owned();
    assert_eq!(message(ModelRef::new("a\nb")), "Servable not found for request: Latest(a\\nb)");
    assert_eq!(message(ModelRef::with_version("m", 7)), "Servable not found for request: Specific(m, 7)");
    assert_eq!(message(ModelRef::with_label("m", "x")), "Unrecognized servable version label: x");
    assert_eq!(served.default_of("other"), Err(Reason::ModelUnknown));
}

#[test]
fn a_model_that_is_still_loading_says_so_and_others_serve_meanwhile() {
    let repository = Repository::new();
    repository.version("slow", 1);
    let gate = Gate::closed();
    let served = begin(repository.config(), FakeBackend::default().load_gate(gate.clone()));
    assert_eq!(served.default_of("slow"), Err(Reason::Loading), "from the first moment on");
    gate.wait_for(1);
    assert_eq!(served.default_of("slow"), Err(Reason::Loading));
    assert_eq!(served.version_of("slow", 1), Err(Reason::Loading));
    assert_eq!(served.version_of("slow", 2), Err(Reason::VersionUnknown));
    assert_eq!(served.status("slow", 1).state, VersionState::Loading);
    assert!(!served.0.is_ready());
    gate.open();
    block_on(served.0.settled());
    assert_eq!(served.default_of("slow"), Ok(1));
}

#[test]
fn one_broken_model_fails_alone_and_its_status_says_why() {
    let repository = Repository::new();
    repository.version("good", 1).version_with("cut", 1, "scale = 2\n").version_with(
        "panics",
        1,
        "panic = boom\nend\n",
    );
    repository.file("odd/1/model.xyz", "what is this").version("typo", 1).file("typo/model.toml", "verisons = 1");
    repository.version("named", 1).file("named/model.toml", "backend = \"torch\"");
    let served = repository.start();
    assert_eq!(served.default_of("good"), Ok(1));
    assert_eq!(served.failure("cut", 1), "model.fake: the file is cut off");
    assert_eq!(served.failure("panics", 1), "the engine panicked while loading");
    assert_eq!(served.failure("odd", 1), "no backend (fake) recognises the files: `model.xyz`");
    assert_eq!(served.failure("named", 1), "there is no backend `torch`; expected one of fake");
    let typo = served.failure("typo", 1);
    assert!(typo.contains("line 1") && typo.contains("did you mean `versions`?"), "{typo}");
    assert_eq!(served.status("cut", 1).failure.unwrap().code, Code::FailedPrecondition);
    for model in ["cut", "panics", "odd", "typo", "named"] {
        assert_eq!(served.default_of(model), Err(Reason::NotReady), "{model}");
    }
}

#[test]
fn a_broken_model_toml_keeps_what_it_said_before() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2).file("m/model.toml", "versions = \"all\"");
    let served = repository.start();
    repository.file("m/model.toml", "versions = \"al");
    served.rescan();
    assert_eq!(served.available("m"), [1, 2]);
    repository.file("m/model.toml", "");
    served.rescan();
    assert_eq!(served.available("m"), [2]);
}

#[test]
fn listed_models_keep_their_policy_and_labels_unless_model_toml_says_otherwise() {
    let repository = Repository::new();
    repository.version("a", 1).version("a", 2).version("b", 1).version("b", 2).version("unlisted", 1);
    repository.file("b/model.toml", "versions = { latest = 1 }");
    let listed = |model: &str| {
        let mut listed = ListedModel::new(name(model), repository.path().join(model));
        listed.policy = VersionPolicy::All;
        listed.aliases = [("stable".parse().unwrap(), 1)].into();
        listed
    };
    let config = RegistryConfig { models: ModelSet::Listed(vec![listed("a"), listed("b")]), ..repository.config() };
    let served = start(config, FakeBackend::default());
    assert_eq!(served.available("a"), [1, 2]);
    assert_eq!(served.label_of("a", "stable"), Ok(1));
    // What an alias points at is kept too.
    assert_eq!(served.available("b"), [1, 2]);
    assert_eq!(served.default_of("unlisted"), Err(Reason::ModelUnknown));
    let names: Vec<_> = served.0.models().iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_registry_that_could_never_serve_does_not_start() {
    let repository = Repository::new();
    let pool = || millrace_batching::ComputePool::new(millrace_batching::PoolConfig::default());
    let start = |config, backends: Vec<Arc<FakeBackend>>| Registry::start(config, backends, pool()).unwrap_err();
    let backend = || vec![Arc::new(FakeBackend::default())];
    let missing = RegistryConfig::repository(repository.path().join("nowhere"));
    assert!(matches!(start(missing, backend()), RegistryError::Repository { .. }));
    assert!(matches!(start(repository.config(), Vec::new()), RegistryError::NoBackend));
    let twice = vec![ListedModel::new(name("a"), "/a"), ListedModel::new(name("a"), "/b")];
    assert!(matches!(start(RegistryConfig::new(ModelSet::Listed(twice)), backend()), RegistryError::Duplicate(_)));
}

#[test]
fn the_memory_budget_refuses_what_does_not_fit_and_says_the_numbers() {
    let repository = Repository::new();
    let file = |bytes: u32| format!("memory = {bytes}\nend\n");
    repository.version_with("a", 1, &file(600)).version_with("b", 1, &file(600));
    repository.version_with("own", 1, &file(50)).file("own/model.toml", "[limits]\nmemory = 49");
    let mut config = repository.config();
    config.memory_budget = Some(1000);
    config.load_threads = std::num::NonZeroUsize::MIN;
    let served = start(config, FakeBackend::default());
    assert_eq!(served.status("a", 1).memory_bytes, 600);
    assert_eq!(
        served.failure("b", 1),
        "the model holds 600 bytes of memory; of the budget for all models 400 are left"
    );
    assert_eq!(served.failure("own", 1), "the model holds 50 bytes of memory; its own limit is 49");
    assert_eq!(served.load("b", None), Err(Reason::TooLarge));
    served.unload("a", None).unwrap();
    served.load("b", None).unwrap();
    assert_eq!(served.status("b", 1).memory_bytes, 600);
}

#[test]
fn statistics_and_facts_are_in_the_status() {
    let repository = Repository::new();
    let served = repository.version("m", 3).start();
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    assert_eq!(ask(&lease, 2.0).unwrap().to_bits(), 6.0_f32.to_bits());
    // Counted after the answer is given, so that counting delays nobody.
    served.until("the count", || served.status("m", 3).statistics.answered.count == 1);
    let status = served.status("m", 3);
    assert_eq!((status.state, status.backend.as_deref()), (VersionState::Available, Some("fake")));
    assert_eq!(status.statistics.rows, 1);
    assert_eq!(status.signatures.unwrap().get(0).unwrap().inputs()[0].to_string(), "x FP32[N]");
    assert!(status.load_time.is_some());
}

#[test]
fn a_version_that_is_named_and_missing_is_a_warning_and_the_others_serve() {
    let repository = Repository::new();
    let served = repository.version("m", 1).version("m", 2).file("m/model.toml", "versions = [1, 9]").start();
    assert_eq!(served.available("m"), [1]);
    assert_eq!(served.0.warnings(), ["model `m`: version 9 is wanted and not on disk"]);
}
