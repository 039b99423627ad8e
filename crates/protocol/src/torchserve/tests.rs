//! Orders over a catalog and a control that tests write, and the tables.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use millrace_core::{
    Alias, Catalog, Code, Control, ControlFuture, ModelName, ModelRef, ModelStatus, QueueStatus, Reason, Refusal,
    RegisterFuture, Registered, Registration, RequestContext, Resolver, Servable, VersionChoice, VersionFailure,
    VersionState, VersionStatus,
};
use parking_lot::Mutex;

use super::{
    Done, Failure, Page, Register, Scale, VersionView, describe, describe_text, health_text, kind, list, register,
    resolve, rest_status, scale, set_default, unregister,
};

/// The future's output; it is one that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// What is loaded, and the orders given; each is refused where a reason is set.
#[derive(Debug, Default)]
struct World {
    models: Vec<ModelStatus>,
    orders: Mutex<Vec<String>>,
    reason: Option<Reason>,
}

impl World {
    fn of(models: impl IntoIterator<Item = ModelStatus>) -> Self {
        Self { models: models.into_iter().collect(), ..Self::default() }
    }

    fn refusing(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::of([model("m", &[1], Some(1))]) }
    }

    fn answer<T: Send + 'static>(
        &self,
        order: String,
        good: T,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>> {
        self.orders.lock().push(order);
        Box::pin(ready(self.reason.map_or(Ok(good), |reason| Err(Refusal::new(reason, "because")))))
    }
}

impl Catalog for World {
    fn models(&self) -> Vec<ModelStatus> {
        self.models.clone()
    }
    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.models.iter().find(|model| model.name.as_str() == name).cloned()
    }
    fn is_ready(&self) -> bool {
        true
    }
}

impl Control for World {
    fn load(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.answer(format!("load {model} {version:?}"), ())
    }
    fn unload(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.answer(format!("unload {model} {version:?}"), ())
    }
    fn set_alias(&self, model: &ModelName, alias: &Alias, version: u64) -> ControlFuture {
        self.answer(format!("alias {model} {alias} {version}"), ())
    }
    fn remove_alias(&self, model: &ModelName, alias: &Alias) -> ControlFuture {
        self.answer(format!("no alias {model} {alias}"), ())
    }
    fn rescan(&self) -> ControlFuture {
        self.answer("rescan".to_owned(), ())
    }
    fn scale(&self, model: &ModelName, version: Option<u64>, executors: usize) -> ControlFuture {
        self.answer(format!("scale {model} {version:?} {executors}"), ())
    }
    fn register(&self, registration: Registration) -> RegisterFuture {
        let name = registration.name.clone().unwrap_or_else(|| registration.path.parse().unwrap());
        self.answer(format!("register {registration:?}"), Registered { model: name, version: 2 })
    }
}

/// Knows the models of its world, and refuses every one of them with `reason`, if any.
impl Resolver for World {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        let reason = match (self.model(model.name), self.reason, model.version) {
            (None, ..) => Reason::ModelUnknown,
            (Some(_), Some(reason), _) => reason,
            (Some(_), None, VersionChoice::Label(_)) => Reason::LabelUnknown,
            (Some(_), None, VersionChoice::Default | VersionChoice::Number(_)) => Reason::VersionUnknown,
        };
        Err(Refusal::new(reason, "because"))
    }
}

fn model(name: &str, versions: &[u64], default: Option<u64>) -> ModelStatus {
    let mut status = ModelStatus::new(name.parse().unwrap());
    status.versions = versions.iter().map(|version| VersionStatus::new(*version, VersionState::Available)).collect();
    status.default_version = default;
    status
}

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>) -> (u16, &'static str, String) {
    let failure = result.unwrap_err();
    (failure.rest_status(), failure.kind(), failure.to_string())
}

#[test]
fn every_reason_is_an_error_status_with_a_type_and_only_our_own_faults_are_500() {
    for reason in Reason::ALL {
        let status = rest_status(reason);
        assert!((400..=599).contains(&status) && kind(reason).ends_with("Exception"), "{}", reason.name());
        let ours = matches!(reason, Reason::BackendFailed | Reason::BackendBroken | Reason::NotSaved);
        assert_eq!(status == 500, ours, "{}", reason.name());
    }
    assert_eq!(Failure::from(Refusal::new(Reason::LabelUnknown, "x")).code(), Code::NotFound);
}

#[test]
fn what_cannot_be_resolved_reads_as_torchserve_says_it() {
    let context = RequestContext::new(crate::front::now());
    let world = World::of([model("m", &[1], Some(1))]);
    let ask = |world: &World, name: &str, version| refused(resolve(world, name, version, &context));
    assert_eq!(ask(&world, "nope", None), (404, "ModelNotFoundException", "Model not found: nope".to_owned()));
    for version in ["9", "9.0", "stable", "1.0.0"] {
        let message = format!("Model version: {version} does not exist for model: m");
        assert_eq!(ask(&world, "m", Some(version)), (404, "ModelVersionNotFoundException", message));
    }
    for reason in [Reason::NotReady, Reason::Loading] {
        let (status, kind, message) = ask(&World::refusing(reason), "m", None);
        assert_eq!((status, kind), (503, "ServiceUnavailableException"));
        assert!(message.starts_with("Model \"m\" has no worker to serve inference request."), "{message}");
        let (.., message) = ask(&World::refusing(reason), "m", Some("1.0"));
        assert!(message.starts_with("Model \"m\" Version 1.0\" has no worker"), "{message}");
    }
    let (.., message) = ask(&world, "a\r\nb\u{1b}", None);
    assert_eq!(message, "Model not found: a\\r\\nb\\u{1b}");
}

#[test]
fn a_page_has_at_most_100_entries_and_says_where_the_next_begins() {
    let names = (0..150).map(|number| format!("m{number:03}"));
    let world = World::of(names.map(|name| model(&name, &[1], Some(1))));
    let page = |pairs: &[(&str, &str)]| {
        let page = list(&world, Page::read(pairs.iter().copied()).unwrap());
        (page.models.len(), page.models.first().map(|model| model.model_name.clone()), page.next_page_token)
    };
    assert_eq!(page(&[]), (100, Some("m000".to_owned()), Some(100)));
    assert_eq!(page(&[("next_page_token", "100")]), (50, Some("m100".to_owned()), None));
    assert_eq!(page(&[("limit", "50"), ("next_page_token", "100")]), (50, Some("m100".to_owned()), None));
    assert_eq!(page(&[("limit", "2"), ("next_page_token", "1")]), (2, Some("m001".to_owned()), Some(3)));
    assert_eq!(page(&[("limit", "0")]), (0, None, None));
    assert_eq!(page(&[("limit", "101")]).0, 100);
    assert_eq!(page(&[("limit", "-1"), ("next_page_token", "-5")]), (100, Some("m000".to_owned()), Some(100)));
    assert_eq!(page(&[("next_page_token", "9223372036854775807")]), (0, None, None));
    assert_eq!(refused(Page::read([("limit", "x")])).0, 400);
}

#[test]
fn unloaded_versions_are_gone_and_failed_ones_are_shown() {
    let mut gone = model("gone", &[1], None);
    gone.versions[0].state = VersionState::End;
    let mut failed = model("failed", &[1, 2], None);
    failed.versions[0].state = VersionState::End;
    failed.versions[1].state = VersionState::End;
    failed.versions[1].failure = Some(VersionFailure { code: Code::Internal, message: "broken".to_owned() });
    let world = World::of([gone, failed]);
    let names: Vec<_> = list(&world, Page::default()).models.into_iter().map(|model| model.model_name).collect();
    assert_eq!(names, ["failed"]);
    assert_eq!(refused(describe(&world, "gone", None)).1, "ModelNotFoundException");
    assert_eq!(refused(describe(&world, "failed", Some("1.0"))).1, "ModelVersionNotFoundException");
    let shown = describe(&world, "failed", None).unwrap();
    assert_eq!((shown.len(), &*shown[0].model_version, shown[0].workers[0].is_ready), (1, "2.0", false));
}

#[test]
fn describe_shows_the_default_version_one_or_all() {
    let world = World::of([model("m", &[1, 2, 3], Some(2))]);
    let versions = |version| {
        let views = describe(&world, "m", version).unwrap();
        views.into_iter().map(|view| view.model_version).collect::<Vec<_>>()
    };
    assert_eq!(versions(None), ["2.0"]);
    assert_eq!(versions(Some("3.0")), ["3.0"]);
    assert_eq!(versions(Some("all")), ["1.0", "2.0", "3.0"]);
    assert_eq!(refused(describe(&world, "m", Some("4.0"))).0, 404);
    assert_eq!(refused(describe(&world, "n", Some("all"))).1, "ModelNotFoundException");
}

#[test]
fn a_description_has_the_keys_that_clients_read() {
    let mut status = model("m", &[1], Some(1));
    let version = &mut status.versions[0];
    version.executors = Some(1);
    version.loaded_at = Some(UNIX_EPOCH);
    version.max_batch_size = 8;
    version.batch_delay = Some(Duration::from_millis(5));
    version.queue = QueueStatus { waiting: 3, capacity: 10 };
    version.backend = Some(Arc::from("tract"));
    let text = describe_text(&[VersionView::new(&status, &status.versions[0])]);
    for expected in [
        "\"modelName\": \"m\"",
        "\"modelVersion\": \"1.0\"",
        "\"modelUrl\": \"m\"",
        "\"engine\": \"tract\"",
        "\"runtime\": ",
        "\"minWorkers\": 1",
        "\"maxWorkers\": 1",
        "\"batchSize\": 8",
        "\"maxBatchDelay\": 5",
        "\"loadedAtStartup\": true",
        "\"id\": \"9000\"",
        "\"startTime\": \"1970-01-01T00:00:00.000Z\"",
        "\"status\": \"READY\"",
        "\"gpu\": false",
        "\"remainingCapacity\": 7",
        "\"pendingRequests\": 3",
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    assert_eq!(describe_text(&[]), "[]\n");
    assert_ne!(health_text(true), health_text(false));
}

#[test]
fn parameters_are_read_or_refused() {
    let read = |pairs: &[(&str, &str)]| Register::read(pairs.iter().copied());
    let plain =
        read(&[("url", "m"), ("handler", "image_classifier"), ("response_timeout", "1"), ("odd", "x")]).unwrap();
    let expected = Register {
        url: "m".to_owned(),
        model_name: None,
        batch_size: None,
        max_batch_delay: None,
        initial_workers: 0,
        synchronous: true,
    };
    assert_eq!(plain, expected);
    let full = read(&[
        ("url", "a/b"),
        ("model_name", "n"),
        ("batch_size", "4"),
        ("max_batch_delay", "250"),
        ("initial_workers", "2"),
        ("synchronous", "False"),
    ]);
    let registration = full.unwrap().registration();
    assert_eq!((registration.executors, registration.max_batch_size), (Some(2), Some(4)));
    assert_eq!((registration.batch_delay, registration.keep_default), (Some(Duration::from_millis(250)), true));
    assert_eq!(refused(read(&[])).2, "Parameter url is required.");
    for bad in [
        [("url", "m"), ("model_name", "../x")],
        [("url", "m"), ("batch_size", "0")],
        [("url", "m"), ("initial_workers", "-1")],
        [("url", "m"), ("max_batch_delay", "soon")],
        [("url", "m"), ("synchronous", "1")],
        [("url", ""), ("model_name", "m")],
    ] {
        assert_eq!(refused(read(&bad)).0, 400, "{bad:?}");
    }
    let scale = |pairs: &[(&str, &str)]| Scale::read(pairs.iter().copied());
    assert_eq!(scale(&[]).unwrap(), Scale { min_worker: 1, max_worker: 1, synchronous: false });
    assert_eq!(scale(&[("min_worker", "0")]).unwrap(), Scale { min_worker: 0, max_worker: 0, synchronous: false });
    let message = refused(scale(&[("min_worker", "2"), ("max_worker", "1")])).2;
    assert_eq!(message, "max_worker cannot be less than min_worker.");
    assert_eq!(refused(scale(&[("max_worker", "0")])).0, 400, "below the default minimum of 1");
    assert_eq!(refused(scale(&[("min_worker", "-1")])).0, 400);
}

#[test]
fn registering_says_what_came_of_it() {
    let order = |workers: &str, synchronous: &str| {
        Register::read([("url", "m"), ("initial_workers", workers), ("synchronous", synchronous)]).unwrap()
    };
    let world = World::default();
    let done = now(register(&world, &order("0", "false"))).unwrap();
    assert_eq!(done.rest_status, 200);
    let expected = "Model \"m\" Version: 2.0 registered with 0 initial workers. \
                    Use scale workers API to add workers for the model.";
    assert_eq!(done.status, expected);
    let done = now(register(&world, &order("3", "true"))).unwrap();
    assert_eq!((done.rest_status, &*done.status), (200, "Model \"m\" Version: 2.0 registered with 3 initial workers"));
    assert_eq!(now(register(&world, &order("3", "false"))).unwrap(), Done::in_progress());
    let failed = |reason| refused(now(register(&World::refusing(reason), &order("1", "true"))));
    assert_eq!(failed(Reason::ModelUnknown), (404, "ModelNotFoundException", "Model not found at: m".to_owned()));
    assert_eq!(failed(Reason::Exists), (409, "ConflictStatusException", "because".to_owned()));
    assert_eq!(failed(Reason::InvalidInput).0, 400);
}

#[test]
fn scaling_bounds_the_version_that_is_meant() {
    let world = World::of([model("m", &[1, 2], Some(1))]);
    let order = |synchronous| Scale { min_worker: 2, max_worker: 4, synchronous };
    let done = now(scale(&world, &world, "m", None, order(true))).unwrap();
    assert_eq!((done.rest_status, &*done.status), (200, "Workers scaled to 2 for model: m"));
    let done = now(scale(&world, &world, "m", Some("2"), order(true))).unwrap();
    assert_eq!(done.status, "Workers scaled to 2 for model: m, version: 2.0");
    assert_eq!(now(scale(&world, &world, "m", None, order(false))).unwrap(), Done::in_progress());
    assert_eq!(*world.orders.lock(), ["scale m Some(1) 4", "scale m Some(2) 4", "scale m Some(1) 4"]);
    assert_eq!(refused(now(scale(&world, &world, "m", Some("7.0"), order(true)))).1, "ModelVersionNotFoundException");
    assert_eq!(refused(now(scale(&world, &world, "n", None, order(false)))).0, 404);
    assert_eq!(world.orders.lock().len(), 3);
}

#[test]
fn the_default_version_is_an_alias() {
    let world = World::of([model("m", &[1, 2], Some(1))]);
    let done = now(set_default(&world, &world, "m", "2.0")).unwrap();
    assert_eq!(done.status, "Default version successfully updated for model \"m\" to \"2.0\"");
    assert_eq!(*world.orders.lock(), ["alias m default 2"]);
    let (status, kind, message) = refused(now(set_default(&world, &world, "m", "9.0")));
    assert_eq!((status, kind), (404, "ModelVersionNotFoundException"));
    assert_eq!(message, "Model version 9.0 does not exist for model m");
    assert_eq!(refused(now(set_default(&world, &world, "n", "1.0"))).1, "ModelNotFoundException");
}

#[test]
fn the_default_version_is_the_last_to_go() {
    let world = World::of([model("m", &[1, 2], Some(1)), model("single", &[7], Some(7))]);
    for version in [None, Some("1.0")] {
        let (status, kind, message) = refused(now(unregister(&world, &world, "m", version)));
        assert_eq!((status, kind), (403, "InvalidModelVersionException"));
        assert_eq!(message, "Cannot remove default version for model m");
    }
    assert_eq!(now(unregister(&world, &world, "m", Some("2"))).unwrap().status, "Model \"m\" unregistered");
    assert_eq!(now(unregister(&world, &world, "single", None)).unwrap().rest_status, 200);
    assert_eq!(*world.orders.lock(), ["unload m Some(2)", "unload single None"]);
    assert_eq!(refused(now(unregister(&world, &world, "m", Some("3.0")))).1, "ModelVersionNotFoundException");
    assert_eq!(refused(now(unregister(&world, &world, "n", None))).1, "ModelNotFoundException");
}
