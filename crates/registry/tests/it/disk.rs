//! What happens on disk while serving: copies that are not finished, broken files, removals, odd names.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Backend, Catalog, LoadError, Model, ModelSource, Reason, VersionState};
use millrace_registry::RegistryConfig;
use millrace_testkit::{FakeBackend, Gate};
use parking_lot::Mutex;
use pollster::block_on;

use crate::repository::{Repository, Served, ask, start};

/// Follows the disk as a server does, with short times.
fn short(repository: &Repository) -> RegistryConfig {
    let mut config = repository.config();
    config.watch = true;
    config.poll_interval = Duration::from_millis(20);
    config.quiet_period = Duration::from_millis(20);
    config
}

#[test]
fn new_models_and_versions_are_found_without_being_asked() {
    let repository = Repository::new();
    let mut config = short(repository.version("m", 1));
    // Far apart, so that only the watch can be what finds the changes in time.
    config.poll_interval = Duration::from_secs(3600);
    let served = start(config, FakeBackend::default());
    repository.version("m", 2);
    served.until("the swap", || served.default_of("m") == Ok(2) && served.available("m") == [2]);
    repository.version("new", 1);
    served.until("the new model", || served.default_of("new") == Ok(1));
    repository.remove("new");
    served.until("the removal", || served.default_of("new") == Err(Reason::ModelUnknown));
}

/// Row 59: a version that comes in eight slow writes.
#[test]
fn a_half_copied_version_does_not_serve_until_it_is_complete() {
    let repository = Repository::new();
    repository.version("m", 1);
    let gate = Gate::opened();
    let mut config = short(&repository);
    config.retry.first = Duration::from_secs(60);
    let served = start(config, FakeBackend::default().load_gate(gate.clone()));
    let whole = FakeBackend::file(2.0, 0.0);
    let parts: Vec<&[u8]> = whole.trim_end().as_bytes().chunks(3).collect();
    assert_eq!(parts.len(), 8);
    fs::create_dir(repository.path().join("m/2")).unwrap();
    let mut file = fs::File::create(repository.path().join("m/2/model.fake")).unwrap();
    for (written, part) in parts.iter().enumerate() {
        // Every part is there for long enough to be taken for the whole, and is found wanting.
        file.write_all(part).unwrap();
        gate.wait_for(2 + written);
        if written + 1 < parts.len() {
            // A load that began in the middle of a write is followed by another one: what is seen must be seen at once.
            served.until("a failed load", || served.available("m") == [1] && has_failed(&served, 2, "model.fake: "));
            served.until("no version 2", || served.version_of("m", 2) == Err(Reason::VersionUnknown));
            assert_eq!(served.default_of("m"), Ok(1));
        }
    }
    served.until("the complete version", || served.default_of("m") == Ok(2));
}

/// Whether `version` has failed with a message that begins like this.
fn has_failed(served: &Served, version: u64, begins: &str) -> bool {
    let status = served.0.model("m").unwrap();
    let found = status.versions.into_iter().find(|status| status.version == version);
    let failure = found.filter(|status| status.state == VersionState::End).and_then(|status| status.failure);
    failure.is_some_and(|failure| failure.message.starts_with(begins))
}

/// A backend during whose first load the file changes: the copy was still going on.
#[derive(Debug)]
struct Meddler {
    inner: FakeBackend,
    meddle: Mutex<Option<(std::path::PathBuf, String)>>,
}

impl Backend for Meddler {
    fn name(&self) -> &'static str {
        "meddler"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        self.inner.recognises(source)
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let model = self.inner.load(source);
        if let Some((path, text)) = self.meddle.lock().take() {
            fs::write(path, text).unwrap();
        }
        model
    }
}

#[test]
fn a_version_whose_files_change_while_it_loads_is_not_published_as_it_was() {
    let repository = Repository::new();
    // What loads first would multiply by 7; what lies there in the end is right.
    repository.version_with("m", 3, &FakeBackend::file(7.0, 0.0));
    let path = repository.path().join("m/3/model.fake");
    let backend =
        Meddler { inner: FakeBackend::default(), meddle: Mutex::new(Some((path, FakeBackend::file(3.0, 0.0) + "\n"))) };
    // The meddler's text is not whole either: it ends in an empty line, which the engine refuses.
    let served = start(repository.config(), backend);
    assert_eq!(served.default_of("m").unwrap_err(), Reason::Loading);
    served.rescan();
    assert!(served.failure("m", 3).contains("cut off"), "{}", served.failure("m", 3));
    repository.version("m", 3);
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(3));
}

/// Row 60.
#[test]
fn a_broken_newer_version_leaves_the_old_one_serving_and_a_good_one_replaces_it() {
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    repository.version_with("m", 2, "scale = 2\n");
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.available("m"), [1]);
    assert_eq!(served.failure("m", 2), "model.fake: the file is cut off");
    assert!(!served.failure("m", 2).contains('/'), "no path is shown");
    repository.version("m", 2);
    served.rescan();
    assert_eq!(served.available("m"), [2]);
}

#[test]
fn a_failed_load_is_tried_again_by_itself() {
    let repository = Repository::new();
    repository.version_with("m", 1, "memory = 100\nend\n").version_with("other", 1, "memory = 950\nend\n");
    let mut config = repository.config();
    config.memory_budget = Some(1000);
    config.load_threads = std::num::NonZeroUsize::MIN;
    config.retry = millrace_registry::RetryConfig { first: Duration::from_millis(5), max: Duration::from_millis(20) };
    let served = start(config, FakeBackend::default());
    assert!(served.failure("other", 1).contains("900 are left"));
    served.unload("m", None).unwrap();
    served.until("the retry", || served.status("other", 1).state == VersionState::Available);
}

/// Row 62.
#[test]
fn a_version_removed_on_disk_finishes_its_requests_and_the_next_best_takes_over() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2);
    let served = repository.start();
    let lease = served.resolve(&millrace_core::ModelRef::new("m")).unwrap();
    repository.remove("m/2");
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(ask(&lease, 10.0).unwrap().to_bits(), 20.0_f32.to_bits(), "what was leased stays good");
    repository.remove("m");
    served.rescan();
    assert_eq!(served.default_of("m"), Err(Reason::ModelUnknown));
}

#[test]
fn a_removed_version_serves_until_the_next_best_is_loaded() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2);
    let gate = Gate::opened();
    let served = start(repository.config(), FakeBackend::default().load_gate(gate.clone()));
    gate.close();
    repository.remove("m/2");
    let rescan = millrace_core::Control::rescan(&served.0);
    gate.wait_for(2);
    assert_eq!(served.default_of("m"), Ok(2));
    gate.open();
    block_on(rescan).unwrap();
    assert_eq!(served.available("m"), [1]);
}

#[test]
fn a_repository_that_cannot_be_read_takes_nothing_away() {
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    let aside = repository.path().with_extension("aside");
    fs::rename(repository.path(), &aside).unwrap();
    let refusal = block_on(millrace_core::Control::rescan(&served.0)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    assert_eq!(served.default_of("m"), Ok(1));
    fs::rename(&aside, repository.path()).unwrap();
    served.rescan();
    assert_eq!(served.default_of("m"), Ok(1));
}

/// Row 61.
#[test]
fn odd_names_are_ignored_with_one_warning_each_and_the_model_serves() {
    let repository = Repository::new();
    repository.version("m", 1).file("m/2", "a file").file("m/01x/model.fake", "").file("m/README.md", "");
    repository.file(&format!("m/{}/model.fake", "9".repeat(24)), "");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("model.fake"), FakeBackend::file(9.0, 0.0)).unwrap();
    symlink(outside.path(), repository.path().join("m/9")).unwrap();
    symlink("8", repository.path().join("m/8")).unwrap();
    let served = repository.start();
    assert_eq!(served.default_of("m"), Ok(1));
    assert_eq!(served.0.warnings().len(), 5, "{:#?}", served.0.warnings());
    served.rescan();
    assert_eq!(served.0.warnings().len(), 5);
    assert_eq!(served.0.model("m").unwrap().versions.len(), 1);
}

/// Row 63, as far as the file system goes: what a backend asks for beyond its directory is not there.
#[test]
fn files_outside_the_version_are_not_there() {
    #[derive(Debug)]
    struct Curious;
    impl Backend for Curious {
        fn name(&self) -> &'static str {
            "curious"
        }
        fn recognises(&self, _source: &ModelSource) -> bool {
            true
        }
        fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
            for name in ["../secret", "../1/../secret", "/etc/passwd", "linked", "up/secret", "", ".", ".."] {
                let found = source.files.read(name);
                assert!(found.is_err(), "{name} was found");
            }
            FakeBackend::default().load(source)
        }
    }
    let repository = Repository::new();
    repository.version("m", 1).file("m/secret", "secret");
    symlink("../secret", repository.path().join("m/1/linked")).unwrap();
    symlink("..", repository.path().join("m/1/up")).unwrap();
    let served = start(repository.config(), Curious);
    assert_eq!(served.default_of("m"), Ok(1));
}

#[test]
fn polling_alone_finds_changes_too() {
    let repository = Repository::new();
    let base = repository.path().join("late");
    let mut config = short(repository.version("unused", 1));
    // A folder that is not there yet cannot be watched.
    let listed = millrace_registry::ListedModel::new(crate::repository::name("late"), base);
    config.models = millrace_registry::ModelSet::Listed(vec![listed]);
    let served = start(config, FakeBackend::default());
    assert_eq!(served.default_of("late"), Err(Reason::NotReady));
    repository.version("late", 1);
    served.until("the first version", || served.default_of("late") == Ok(1));
}
