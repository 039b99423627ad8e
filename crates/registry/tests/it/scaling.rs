//! How many runs of a version may go on at once, changed by order.

use millrace_core::{ModelRef, Reason, VersionState};
use millrace_testkit::FakeBackend;

use crate::repository::{Repository, ask, start};

#[test]
fn a_version_without_executors_stays_loaded_and_refuses() {
    let repository = Repository::new();
    let served = repository.version("m", 1).version("m", 2).version("other", 1).start();
    assert_eq!(served.status("m", 2).executors, None);
    served.scale("m", None, 0).unwrap();
    let lease = served.resolve(&ModelRef::new("m")).unwrap();
    let refusal = ask(&lease, 1.0).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    assert!(refusal.message().contains("has no worker to serve inference request"), "{}", refusal.message());
    let status = served.status("m", 2);
    assert_eq!((status.state, status.executors), (VersionState::Available, Some(0)));
    assert_eq!(served.default_of("other"), Ok(1));
    served.scale("m", 2, 3).unwrap();
    assert_eq!(served.default_of("m"), Ok(2));
    assert_eq!(served.status("m", 2).executors, Some(3));
}

#[test]
fn scaling_what_is_not_there_is_refused() {
    let repository = Repository::new();
    let served = repository.version("m", 1).start();
    assert_eq!(served.scale("nobody", None, 1), Err(Reason::ModelUnknown));
    assert_eq!(served.scale("m", 7, 1), Err(Reason::VersionUnknown));
    served.unload("m", None).unwrap();
    assert_eq!(served.scale("m", None, 1), Err(Reason::NotReady));
    assert_eq!(served.overrides("m"), ["unloaded by order"]);
}

#[test]
fn a_scale_is_kept_through_unloads_and_restarts() {
    let repository = Repository::new();
    repository.version("m", 1);
    {
        let served = start(repository.with_store(), FakeBackend::default());
        served.scale("m", 1, 0).unwrap();
        served.unload("m", 1).unwrap();
        served.load("m", 1).unwrap();
        assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    }
    let served = start(repository.with_store(), FakeBackend::default());
    assert_eq!(served.default_of("m"), Err(Reason::NotReady));
    assert_eq!(served.status("m", 1).executors, Some(0));
    assert_eq!(served.overrides("m"), ["version 1 loaded by order", "version 1 scaled to 0 executors by order"]);
    served.scale("m", 1, 2).unwrap();
    assert_eq!(served.default_of("m"), Ok(1));
}

#[test]
fn the_configured_number_is_where_it_begins() {
    let repository = Repository::new();
    repository.version("m", 1).file("m/model.toml", "[batching]\nnum_batch_threads = 1\nmax_batch_size = 16");
    let served = repository.start();
    let status = served.status("m", 1);
    assert_eq!((status.executors, status.max_batch_size, status.batch_delay), (Some(1), 16, None));
    assert!(status.loaded_at.is_some() && status.queue.capacity > 0);
}
