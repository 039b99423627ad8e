//! Pipelines: found, made after their models, asked, counted, drained.

use std::sync::Arc;
use std::thread;

use millrace_core::{Catalog, Code, ModelRef, Reason, VersionState};
use millrace_registry::{ListedModel, ModelSet, RegistryConfig};
use millrace_testkit::{FakeAdapterFactory, FakeBackend, FakePipelineFactory, Gate, Misbehaviour};
use pollster::block_on;

use crate::repository::{Repository, Served, ask, begin_with, name, start, start_all};

/// The `model.toml` of a pipeline over two models.
fn over(first: &str, second: &str) -> String {
    format!("kind = \"pipeline\"\npipeline = \"fake\"\n[models]\nfirst = \"{first}\"\nsecond = \"{second}\"\n")
}

/// `p` over `a`, which multiplies by 3, and `b`, which multiplies by 2.
fn both() -> Repository {
    let repository = Repository::new();
    repository.version("a", 3).version("b", 2).file("p/model.toml", &over("a", "b"));
    repository
}

fn answer(served: &Served, model: &str, x: f32) -> Result<f32, Reason> {
    let servable = served.resolve(&ModelRef::new(model)).map_err(|refusal| refusal.reason())?;
    ask(&servable, x).map_err(|refusal| refusal.reason())
}

#[track_caller]
fn gives(served: &Served, model: &str, x: f32, expected: f32) {
    assert_eq!(answer(served, model, x).map(f32::to_bits), Ok(expected.to_bits()), "{model}");
}

#[test]
fn a_pipeline_without_version_folders_is_version_one_and_asks_its_models() {
    let repository = both();
    let served = start_all(repository.config());
    gives(&served, "p", 5.0, 30.0);
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    assert_eq!((lease.model().as_str(), lease.version()), ("p", 1));
    let status = served.status("p", 1);
    assert_eq!((status.state, status.backend.as_deref()), (VersionState::Available, Some("fake")));
    assert_eq!(status.signatures.unwrap().get(0).unwrap().outputs()[0].to_string(), "y FP32[N]");
    assert_eq!((status.executors, status.max_batch_size, status.memory_bytes), (None, 0, 0));
    assert!(status.load_time.is_some() && status.loaded_at.is_some());
    assert!(served.0.warnings().is_empty(), "{:?}", served.0.warnings());
}

#[test]
fn version_folders_and_aliases_are_those_of_any_model() {
    let repository = both();
    repository.file("p/3/about.txt", "").file("p/7/about.txt", "");
    repository.file("p/model.toml", &format!("versions = \"all\"\naliases = {{ stable = 3 }}\n{}", over("a", "b")));
    let served = start_all(repository.config());
    assert_eq!(served.available("p"), [3, 7]);
    let stable = served.resolve(&ModelRef::with_label("p", "stable")).unwrap();
    assert_eq!((stable.version(), ask(&stable, 1.0).unwrap().to_bits()), (3, 6.0_f32.to_bits()));
}

#[test]
fn a_listed_pipeline_is_found_in_its_own_folder() {
    let repository = both();
    let listed = |model: &str| ListedModel::new(name(model), repository.path().join(model));
    let models = ModelSet::Listed(vec![listed("p"), listed("a"), listed("b")]);
    let served = start_all(RegistryConfig { models, ..repository.config() });
    gives(&served, "p", 1.0, 6.0);
}

#[test]
fn a_pipeline_is_made_once_its_models_have_come_and_not_before() {
    let repository = both();
    // Two in a row, the outer one first by name.
    repository.file("outer/model.toml", &over("p", "a"));
    let gate = Gate::closed();
    let backend = FakeBackend::default().load_gate(gate.clone());
    let factory = FakePipelineFactory::default();
    let served = begin_with(repository.config(), backend, factory.clone(), FakeAdapterFactory::default());
    gate.wait_for(1);
    served.until("the first picture", || served.names().len() == 4);
    assert_eq!(served.status("p", 1).state, VersionState::Start);
    assert_eq!(answer(&served, "p", 1.0), Err(Reason::Loading));
    assert!(!served.0.is_ready());
    gate.open();
    block_on(served.0.settled());
    gives(&served, "p", 1.0, 6.0);
    gives(&served, "outer", 1.0, 18.0);
    assert_eq!(factory.attempts(), 2, "each at the first attempt");
}

#[test]
fn a_pipeline_whose_model_is_missing_says_which_and_comes_once_it_is_there() {
    let repository = Repository::new();
    repository.version("a", 3).file("p/model.toml", &over("a", "b"));
    repository.file("label/model.toml", &over("a", "b@stable")).file("number/model.toml", &over("a:9", "b"));
    let mut config = repository.config();
    // Whoever waits for the next attempt by the clock waits for ever.
    config.retry.first = std::time::Duration::from_secs(3600);
    config.retry.max = config.retry.first;
    let served = start_all(config);
    let failure = served.status("p", 1).failure.unwrap();
    assert_eq!(failure.code, Code::NotFound);
    assert_eq!(failure.message, "the model `b` does not serve: Servable not found for request: Latest(b)");
    assert_eq!(answer(&served, "p", 1.0), Err(Reason::NotReady));
    repository.version("b", 2);
    served.rescan();
    gives(&served, "p", 1.0, 6.0);
    assert_eq!(answer(&served, "label", 1.0), Err(Reason::NotReady));
    served.set_alias("b", "stable", 2).unwrap();
    served.until("the alias' pipeline", || answer(&served, "label", 1.0).is_ok());
    served.rescan();
    assert_eq!(answer(&served, "number", 1.0), Err(Reason::NotReady), "nothing that it asks has come");
}

#[test]
fn pipelines_that_ask_one_another_never_hang() {
    let repository = both();
    repository.file("x/model.toml", &over("y", "a")).file("y/model.toml", &over("x", "a"));
    repository.file("self/model.toml", &over("self", "a"));
    let served = start_all(repository.config());
    assert!(served.failure("x", 1).contains("the model `y` does not serve"));
    assert!(served.failure("y", 1).contains("the model `x` does not serve"));
    assert!(served.failure("self", 1).contains("the model `self` does not serve"));
    gives(&served, "p", 1.0, 6.0);

    // A circle that closes only when all of it serves: `a` becomes a pipeline over `p`, which asks `a`.
    repository.file("a/model.toml", &over("p", "b")).file("a/4/about.txt", "");
    served.rescan();
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    let refusal = ask(&lease, 1.0).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert!(refusal.message().contains("nested more than 8 deep"), "{}", refusal.message());
}

#[test]
fn what_is_wrong_with_a_pipeline_is_its_status_and_no_other_model_s() {
    let repository = both();
    let with = |options: &str| format!("{}[options]\n{options}\n", over("a", "b"));
    repository.file("fails/model.toml", &with("fail = \"not today\""));
    repository.file("panics/model.toml", &with("panic = \"boom\""));
    repository.file("odd/model.toml", &with("sizes = [1, 2]"));
    repository.file("other/model.toml", &over("a", "b").replace("fake", "face"));
    repository.file("broken/model.toml", "kind = \"pipeline\"\npipline = \"fake\"");
    repository.version("half", 1).file("half/model.toml", "pipeline = \"fake\"");
    let served = start_all(repository.config());
    assert_eq!(served.failure("fails", 1), "not today");
    assert_eq!(served.failure("panics", 1), "the engine panicked while loading");
    assert_eq!(served.failure("odd", 1), "model.toml: unknown option sizes = [1, 2]");
    assert_eq!(served.failure("other", 1), "model.toml: there is no pipeline `face`; expected one of fake");
    let broken = "model.toml, line 2, column 1: unknown key `pipline`; did you mean `pipeline`?";
    assert_eq!(served.failure("broken", 1), broken);
    assert!(served.failure("half", 1).contains("`kind = \"pipeline\"`"));
    gives(&served, "p", 1.0, 6.0);
    // Repaired, they come without a restart.
    repository.file("broken/model.toml", &over("a", "b"));
    served.rescan();
    gives(&served, "broken", 1.0, 6.0);
}

#[test]
fn a_registry_without_pipelines_says_so() {
    let repository = both();
    let served = start(repository.config(), FakeBackend::default());
    let expected = "model.toml: there is no pipeline `fake`; this program was built without any";
    assert_eq!(served.failure("p", 1), expected);
}

#[test]
fn a_pipeline_outlives_its_models_and_hands_on_their_refusal() {
    let repository = both();
    let served = start_all(repository.config());
    served.unload("b", None).unwrap();
    assert_eq!(answer(&served, "p", 1.0), Err(Reason::NotReady));
    assert_eq!(served.available("p"), [1]);
    served.load("b", None).unwrap();
    gives(&served, "p", 1.0, 6.0);
}

#[test]
fn a_new_version_of_an_inner_model_is_asked_without_touching_the_pipeline() {
    let repository = both();
    let served = start_all(repository.config());
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    repository.version("a", 5);
    served.rescan();
    assert_eq!(ask(&lease, 1.0).unwrap().to_bits(), 10.0_f32.to_bits());
}

#[test]
fn a_changed_definition_counts_once_the_pipeline_is_loaded_again() {
    let repository = both();
    let served = start_all(repository.config());
    repository.file("p/model.toml", &over("b", "b"));
    served.rescan();
    gives(&served, "p", 1.0, 6.0);
    served.unload("p", None).unwrap();
    served.load("p", None).unwrap();
    gives(&served, "p", 1.0, 4.0);
    // What it lies in may change as it likes.
    repository.file("p/notes.txt", "");
    served.rescan();
    gives(&served, "p", 1.0, 4.0);
    repository.remove("p");
    served.rescan();
    assert_eq!(answer(&served, "p", 1.0), Err(Reason::ModelUnknown));
}

#[test]
fn every_request_to_a_pipeline_is_counted_however_it_ends() {
    let repository = both();
    let gate = Gate::opened();
    let factory = FakePipelineFactory::default().gate(gate.clone());
    let served = begin_with(repository.config(), FakeBackend::default(), factory, FakeAdapterFactory::default());
    block_on(served.0.settled());
    gives(&served, "p", 1.0, 6.0);
    gives(&served, "p", 2.0, 12.0);
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    assert_eq!(ask(&lease, Misbehaviour::Fail.value()).unwrap_err().reason(), Reason::BackendFailed);
    let panicked = ask(&lease, Misbehaviour::Panic.value()).unwrap_err();
    assert_eq!(panicked.reason(), Reason::BackendBroken);
    let wrong = millrace_core::Tensor::from_vec(&[1], vec![1_i32]).unwrap();
    let request = millrace_core::InferRequest::new(vec![wrong], crate::repository::context());
    assert_eq!(block_on(lease.infer(request)).unwrap_err().reason(), Reason::InvalidInput);

    gate.close();
    let arrived = gate.arrived();
    let asked = lease.clone();
    let x = millrace_core::Tensor::from_vec(&[1], vec![1.0_f32]).unwrap();
    let mut left = asked.infer(millrace_core::InferRequest::new(vec![x], crate::repository::context()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(std::pin::Pin::new(&mut left), &mut context).is_pending());
    gate.wait_for(arrived + 1);
    drop(left);
    gate.open();

    let statistics = served.status("p", 1).statistics;
    assert_eq!((statistics.answered.count, statistics.rows), (2, 2));
    assert!(!statistics.answered.time.is_zero() && statistics.last_answer.is_some());
    assert_eq!(statistics.failed.count, 3, "failed, panicked, left");
    assert_eq!(statistics.refused, 1);
    assert_eq!((statistics.runs.len(), statistics.queue.count), (0, 2));
    // They rode in the inner models' own queues.
    served.until("the inner counts", || served.status("b", 2).statistics.answered.count == 2);
}

#[test]
fn unloading_a_pipeline_waits_for_its_requests_and_they_end_well() {
    let repository = both();
    let gate = Gate::closed();
    let factory = FakePipelineFactory::default().gate(gate.clone());
    let served = begin_with(repository.config(), FakeBackend::default(), factory, FakeAdapterFactory::default());
    block_on(served.0.settled());
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    let x = millrace_core::Tensor::from_vec(&[1], vec![1.0_f32]).unwrap();
    let future = lease.infer(millrace_core::InferRequest::new(vec![x], crate::repository::context()));
    // The answer alone keeps it.
    drop(lease);
    let waiter = thread::spawn(move || block_on(future).map(|answer| answer.outputs[0].elements::<f32>().unwrap()[0]));
    gate.wait_for(1);
    let registry = served.0.clone();
    let unloading = thread::spawn(move || {
        block_on(millrace_core::Control::unload(&registry, &name("p"), None)).map_err(|refusal| refusal.reason())
    });
    served.until("draining", || served.status("p", 1).state == VersionState::Unloading);
    assert_eq!(answer(&served, "p", 1.0), Err(Reason::NotReady));
    gate.open();
    assert_eq!(waiter.join().unwrap().unwrap().to_bits(), 6.0_f32.to_bits());
    unloading.join().unwrap().unwrap();
    assert_eq!(served.status("p", 1).statistics.answered.count, 1, "counts stay after the end");
}

#[test]
fn shutting_down_does_not_wait_for_a_pipeline_and_its_inner_calls_are_refused() {
    let repository = both();
    let gate = Gate::closed();
    let factory = FakePipelineFactory::default().gate(gate.clone());
    let served = begin_with(repository.config(), FakeBackend::default(), factory, FakeAdapterFactory::default());
    block_on(served.0.settled());
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    let waiter = thread::spawn(move || ask(&lease, 1.0).map_err(|refusal| refusal.reason()));
    gate.wait_for(1);
    served.0.shutdown();
    gate.open();
    assert_eq!(waiter.join().unwrap(), Err(Reason::Draining));
}

#[test]
fn a_pipeline_keeps_nothing_of_a_registry_alive() {
    let repository = both();
    let served = start_all(repository.config());
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    let inner = Arc::downgrade(&served.resolve(&ModelRef::new("a")).unwrap());
    drop(served);
    assert!(inner.upgrade().is_none(), "a lease on the pipeline must not hold its models");
    assert_eq!(ask(&lease, 1.0).unwrap_err().reason(), Reason::Draining);
}

#[test]
fn a_pipeline_cannot_be_scaled() {
    let repository = both();
    let served = start_all(repository.config());
    assert_eq!(served.scale("p", None, 2), Err(Reason::Unsupported));
    assert_eq!(served.overrides("p"), [] as [String; 0]);
    gives(&served, "p", 1.0, 6.0);
}

#[test]
fn a_pipeline_can_be_registered_from_a_store() {
    let repository = both();
    repository.stored("zoo/model.toml", &over("a", "b"));
    let served = start_all(repository.with_store());
    assert_eq!(served.register(millrace_core::Registration::new("zoo")), Ok(("zoo".to_owned(), 1)));
    gives(&served, "zoo", 1.0, 6.0);
}

#[test]
fn what_failed_is_asked_again_when_its_definition_changes() {
    let repository = both();
    repository.file("p/model.toml", &over("a", "nobody"));
    let mut config = repository.config();
    config.retry.first = std::time::Duration::from_secs(3600);
    let served = start_all(config);
    assert!(served.failure("p", 1).contains("nobody"));
    repository.file("p/model.toml", &over("a", "b"));
    served.rescan();
    gives(&served, "p", 1.0, 6.0);
    assert!(served.0.models().iter().all(|model| model.is_ready()));
}
