//! Declared inputs: turned on compute threads, then asked as any other request.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use millrace_core::{InferRequest, ModelRef, Reason, Refusal, Servable, Strings, Tensor, VersionState};
use millrace_testkit::{FakeAdapterFactory, FakeBackend, FakePipelineFactory, Gate, Misbehaviour};
use pollster::block_on;

use crate::repository::{Repository, Served, ask, begin_with, context, name, start_all};

/// `m`, which multiplies by 3 and takes its numbers as text.
fn numbers(more: &str) -> Repository {
    let repository = Repository::new();
    repository.version("m", 3).file("m/model.toml", &format!("{more}\n[inputs.x]\nkind = \"number\"\n"));
    repository
}

fn texts(texts: &[&str]) -> Tensor {
    let strings: Strings = texts.iter().map(|text| text.as_bytes()).collect();
    Tensor::from_strings(&[texts.len()], strings).unwrap()
}

fn ask_texts(servable: &dyn Servable, numbers: &[&str]) -> Result<Vec<f32>, Refusal> {
    let answer = block_on(servable.infer(InferRequest::new(vec![texts(numbers)], context())))?;
    Ok(answer.outputs[0].elements::<f32>().unwrap().into_owned())
}

fn m(served: &Served) -> std::sync::Arc<dyn Servable> {
    served.resolve(&ModelRef::new("m")).unwrap()
}

#[test]
fn callers_give_the_declared_form_and_find_the_network_s_under_its_own_name() {
    let repository = numbers("");
    let served = start_all(repository.config());
    let lease = m(&served);
    let signatures: Vec<_> =
        lease.signatures().iter().map(|(name, one)| format!("{name}: {}", one.inputs()[0])).collect();
    assert_eq!(signatures, ["serving_default: x BYTES[N]", "tensors: x FP32[N]"]);
    assert!(lease.signatures().get(0).unwrap().is_batched());
    assert_eq!(ask_texts(&*lease, &["1.5"]).unwrap(), [4.5]);
    let many: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let expected: Vec<f32> = (0_u8..50).map(|number| f32::from(number) * 3.0).collect();
    assert_eq!(ask_texts(&*lease, &many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(), expected);

    let plain = Tensor::from_vec(&[1], vec![2.0_f32]).unwrap();
    let request = InferRequest { signature: 1, ..InferRequest::new(vec![plain], context()) };
    let answer = block_on(lease.infer(request)).unwrap();
    assert_eq!(answer.outputs[0].elements::<f32>().unwrap(), [6.0].as_slice());

    let status = served.status("m", 3);
    assert_eq!((status.backend.as_deref(), status.state), (Some("fake"), VersionState::Available));
    assert!(status.queue.capacity > 0 && status.max_batch_size > 0);
    served.until("the counts", || served.status("m", 3).statistics.answered.count == 3);
    assert_eq!(served.status("m", 3).statistics.rows, 52);
}

#[test]
fn options_reach_the_adapter() {
    let repository = Repository::new();
    repository.version("m", 3).file("m/model.toml", "[inputs.x]\nkind = \"number\"\nplus = 0.5\n");
    assert_eq!(ask_texts(&*m(&start_all(repository.config())), &["1"]).unwrap(), [4.5]);
}

#[test]
fn a_wrong_instance_is_named_by_its_place_in_the_request() {
    let repository = numbers("");
    let served = start_all(repository.config());
    let lease = m(&served);
    let refused = |numbers: &[&str]| {
        let refusal = ask_texts(&*lease, numbers).unwrap_err();
        (refusal.reason(), refusal.message().to_owned())
    };
    let expected = |index: usize| format!("model `m`: input `x`, instance {index}: expected a number");
    assert_eq!(refused(&["x"]), (Reason::InvalidInput, expected(0)));
    assert_eq!(refused(&["1", "2", "3", "x", "5", "6", "y"]), (Reason::InvalidInput, expected(3)));
    let wrong = Tensor::from_vec(&[1], vec![1.0_f32]).unwrap();
    let refusal = block_on(lease.infer(InferRequest::new(vec![wrong], context()))).unwrap_err();
    assert!(refusal.message().contains("expected BYTES, got FP32"), "{}", refusal.message());
    let unknown = InferRequest { signature: 2, ..InferRequest::new(vec![texts(&["1"])], context()) };
    assert_eq!(block_on(lease.infer(unknown)).unwrap_err().reason(), Reason::SignatureUnknown);
    let statistics = served.status("m", 3).statistics;
    assert_eq!((statistics.refused, statistics.answered.count, statistics.failed.count), (4, 0, 0));
}

#[test]
fn an_adapter_that_panics_or_breaks_its_contract_costs_one_request() {
    let repository = numbers("");
    let served = start_all(repository.config());
    let lease = m(&served);
    for bad in [&["panic"][..], &["twice"], &["1", "2", "twice"]] {
        assert_eq!(ask_texts(&*lease, bad).unwrap_err().reason(), Reason::BackendBroken, "{bad:?}");
    }
    assert_eq!(ask_texts(&*lease, &["1"]).unwrap(), [3.0]);
    assert_eq!(served.status("m", 3).statistics.failed.count, 3);
}

#[test]
fn limits_hold_before_anything_is_turned() {
    let gate = Gate::closed();
    let repository = numbers("[batching]\nmax_batch_size = 2");
    repository.version("few", 3).file("few/model.toml", "[inputs.x]\nkind = \"number\"\nmost = 3\n");
    let adapter = FakeAdapterFactory::default().gate(gate.clone());
    let served = begin_with(repository.config(), FakeBackend::default(), FakePipelineFactory::default(), adapter);
    block_on(served.0.settled());
    let refusal = ask_texts(&*m(&served), &["1", "2", "3"]).unwrap_err();
    assert_eq!(refusal.message(), "Task size 3 is larger than maximum input batch size 2");
    let few = served.resolve(&ModelRef::new("few")).unwrap();
    let refusal = ask_texts(&*few, &["1", "2", "3", "4"]).unwrap_err();
    assert_eq!(refusal.message(), "model `few`: input `x`, instance 3: one instance too many");
    let past = InferRequest::new(vec![texts(&["1"])], context().with_deadline(context().received));
    assert_eq!(block_on(few.infer(past)).unwrap_err().reason(), Reason::Late);
    assert_eq!(gate.arrived(), 0);
}

#[test]
fn turned_inputs_that_are_not_in_the_queue_yet_have_a_budget() {
    let repository = numbers("");
    let mut config = repository.config();
    config.batching.max_queue_bytes = 8;
    let served = start_all(config);
    let lease = m(&served);
    assert_eq!(ask_texts(&*lease, &["1", "2"]).unwrap(), [3.0, 6.0]);
    let refusal = ask_texts(&*lease, &["1", "2", "3"]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooLarge);
    assert_eq!(refusal.message(), "a request of 12 bytes to model `m` does not fit its queue of 8");
    // The room of requests that were answered is free again.
    assert_eq!(ask_texts(&*lease, &["1", "2"]).unwrap(), [3.0, 6.0]);
}

#[test]
fn work_whose_caller_left_or_is_late_is_not_begun() {
    let gate = Gate::closed();
    let repository = numbers("");
    let adapter = FakeAdapterFactory::default().gate(gate.clone());
    let mut config = repository.config();
    config.load_threads = std::num::NonZeroUsize::MIN;
    let served = begin_with(config, FakeBackend::default(), FakePipelineFactory::default(), adapter);
    block_on(served.0.settled());
    let lease = m(&served);
    let request = || InferRequest::new(vec![texts(&["1", "2", "3", "4", "5", "6"])], context());
    let mut left = lease.infer(request());
    let mut waker = Context::from_waker(Waker::noop());
    assert!(Future::poll(Pin::new(&mut left), &mut waker).is_pending());
    gate.wait_for(1);
    drop(left);
    let deadline = context().received + Duration::from_millis(20);
    let mut late = InferRequest::new(vec![texts(&["1", "2"])], context());
    late.context.deadline = Some(deadline);
    let waiter = thread::spawn({
        let lease = lease.clone();
        move || block_on(lease.infer(late)).map(|_| ()).map_err(|refusal| refusal.reason())
    });
    served.until("the deadline", || context().received > deadline);
    gate.open();
    assert_eq!(waiter.join().unwrap(), Err(Reason::Late));
    // The first instance of the one that left had begun, and maybe the first of the late one; nothing else was turned.
    assert!(gate.arrived() <= 2, "{}", gate.arrived());
    assert_eq!(ask_texts(&*lease, &["1"]).unwrap(), [3.0]);
    let statistics = served.status("m", 3).statistics;
    assert_eq!(statistics.failed.count + statistics.refused, 2, "left and late");
}

#[test]
fn unloading_waits_for_what_is_being_turned() {
    let gate = Gate::closed();
    let repository = numbers("");
    let adapter = FakeAdapterFactory::default().gate(gate.clone());
    let served = begin_with(repository.config(), FakeBackend::default(), FakePipelineFactory::default(), adapter);
    block_on(served.0.settled());
    let future = m(&served).infer(InferRequest::new(vec![texts(&["1"])], context()));
    let waiter = thread::spawn(move || block_on(future).map(|answer| answer.outputs[0].clone()));
    gate.wait_for(1);
    let registry = served.0.clone();
    let unloading = thread::spawn(move || block_on(millrace_core::Control::unload(&registry, &name("m"), None)));
    served.until("draining", || served.status("m", 3).state == VersionState::Unloading);
    gate.open();
    assert_eq!(waiter.join().unwrap().unwrap().elements::<f32>().unwrap(), [3.0].as_slice());
    unloading.join().unwrap().unwrap();
    assert_eq!(served.status("m", 3).state, VersionState::End);
}

#[test]
fn what_the_run_refuses_is_refused_and_counted_once() {
    let repository = numbers("");
    let served = start_all(repository.config());
    let lease = m(&served);
    let refusal = ask_texts(&*lease, &[&Misbehaviour::Fail.value().to_string()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::BackendFailed);
    served.until("the count", || served.status("m", 3).statistics.failed.count == 1);
    assert_eq!(served.status("m", 3).statistics.refused, 0);
    served.scale("m", None, 0).unwrap();
    assert_eq!(ask_texts(&*lease, &["1"]).unwrap_err().reason(), Reason::NotReady);
}

#[test]
fn what_does_not_fit_the_network_fails_the_load_and_names_it() {
    let repository = Repository::new();
    for (model, input) in [
        ("absent", "[inputs.pixels]\nkind = \"number\""),
        ("kind", "[inputs.x]\nkind = \"image\""),
        ("option", "[inputs.x]\nkind = \"number\"\nplus = \"much\""),
        ("axes", "[inputs.x]\nkind = \"number\"\naxes = false"),
    ] {
        repository.version(model, 1).file(&format!("{model}/model.toml"), input);
    }
    let served = start_all(repository.config());
    let failure = |model: &str| served.failure(model, 1);
    assert_eq!(failure("absent"), "model.toml: [inputs.pixels]: unknown input `pixels`; expected: x");
    assert_eq!(failure("kind"), "model.toml: there is no kind of input `image`; expected one of number");
    assert_eq!(failure("option"), "model.toml: [inputs.x]: `plus`: much is no number");
    let axes = failure("axes");
    assert!(axes.contains("takes x BYTES[]") && axes.contains("the network's x FP32[N]"), "{axes}");
}

#[test]
fn a_pipeline_asks_a_model_in_the_form_that_it_declares() {
    let repository = numbers("");
    repository.version("a", 2);
    let toml = "kind = \"pipeline\"\npipeline = \"fake\"\n[models]\nfirst = \"a\"\nsecond = \"m\"\n";
    repository.file("p/model.toml", toml);
    let served = start_all(repository.config());
    let lease = served.resolve(&ModelRef::new("p")).unwrap();
    let refusal = ask(&lease, 1.0).unwrap_err();
    assert!(refusal.message().contains("expected BYTES, got FP32"), "{}", refusal.message());
}
