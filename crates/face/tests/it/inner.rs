//! The pipelines and the models they ask: what is passed on, what comes back, what happens when a model misbehaves.

use std::time::Duration;

use millrace_core::{
    CallerId, DType, Dim, Priority, Protocol, Reason, Refusal, RequestContext, Signature, Signatures, Tensor,
    TensorSpec,
};
use millrace_face::PictureBudget;
use parking_lot::{Condvar, Mutex};

use crate::harness::{World, answered, ask, astronaut, counts, now, request, roles, wait};

/// Levels of the astronaut's pyramid.
const LEVELS: usize = 10;

#[test]
fn one_request_a_stage_with_the_context_of_the_caller() {
    let world = World::new();
    let mut question = request(&[astronaut()]);
    let deadline = now() + Duration::from_secs(600);
    question.context.deadline = Some(deadline);
    question.context.caller = CallerId(7);
    question.context.priority = Priority(3);
    question.context.protocol = Protocol::TfsRest;
    question.context.lends_thread = true;
    let response = wait(world.pipeline("face_pipeline").infer(question)).unwrap();
    assert_eq!(counts(&response), [1]);
    assert_eq!(world.rows("mtcnn_pnet"), [1; LEVELS]);
    assert_eq!(world.rows("mtcnn_rnet"), [153]);
    assert_eq!(world.rows("mtcnn_onet"), [9]);
    assert_eq!(world.rows("face_embedding"), [1]);
    for question in world.questions() {
        let RequestContext { deadline: passed_on, caller, priority, protocol, depth, lends_thread, .. } =
            question.context;
        assert_eq!((passed_on, caller, priority), (Some(deadline), CallerId(7), Priority(3)));
        assert_eq!((protocol, depth, lends_thread), (Protocol::Local, 1, false));
    }
    let stages = response.stages;
    assert!(stages.queued <= stages.started && stages.started < stages.finished);
    assert_eq!(stages.batch_rows, 1);
}

#[test]
fn pipelines_that_are_nested_too_deeply_are_refused() {
    let world = World::new();
    let mut question = request(&[astronaut()]);
    question.context.depth = RequestContext::DEEPEST;
    let refusal = wait(world.pipeline("face_detection").infer(question)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    assert!(world.questions().is_empty());
}

#[test]
fn crops_of_several_callers_ride_together() {
    let world = World::new();
    let (gate, _queue) = world.hold("mtcnn_rnet");
    let pipeline = world.pipeline("face_detection");
    std::thread::scope(|scope| {
        let call = || scope.spawn(|| ask(&pipeline, &[astronaut()]).unwrap());
        let first = call();
        // Two that were queued before a thread came for them would ride together already.
        gate.wait_for(1);
        let others = [call(), call(), call()];
        world.wait_for("mtcnn_rnet", 4);
        gate.open();
        for caller in std::iter::once(first).chain(others) {
            assert_eq!(counts(&caller.join().unwrap()), [1]);
        }
    });
    let rnet = world.questions().into_iter().filter(|question| question.model == "mtcnn_rnet");
    let mut batches: Vec<_> = rnet.map(|question| (question.rows, question.batch_rows)).collect();
    batches.sort_unstable();
    // The first ran alone and was held; the other three were queued by then, and went together.
    assert_eq!(batches, [(153, Some(153)), (153, Some(459)), (153, Some(459)), (153, Some(459))]);
}

#[test]
fn who_leaves_takes_the_inner_requests_along() {
    let world = World::new();
    let (gate, queue) = world.hold("mtcnn_rnet");
    let pipeline = world.pipeline("face_detection");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&pipeline, &[astronaut()]).unwrap());
        world.wait_for("mtcnn_rnet", 1);
        let second = poll_until(pipeline.infer(request(&[astronaut()])), || world.rows("mtcnn_rnet").len() == 2);
        drop(second);
        gate.open();
        assert_eq!(counts(&first.join().unwrap()), [1]);
    });
    let third = ask(&pipeline, &[astronaut()]).unwrap();
    assert_eq!(counts(&third), [1]);
    assert_eq!(queue.statistics().all_runs().count, 2, "of three questions, one was taken back");
    assert_eq!(world.rows("mtcnn_onet").len(), 2);
}

/// Polls on this thread, whenever it is woken, until `is_enough`.
fn poll_until(mut future: millrace_core::InferFuture, is_enough: impl Fn() -> bool) -> millrace_core::InferFuture {
    use std::future::Future;
    use std::pin::Pin;
    pollster::block_on(std::future::poll_fn(|context| {
        let poll = Pin::new(&mut future).poll(context);
        assert!(poll.is_pending(), "{poll:?}");
        if is_enough() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }));
    future
}

#[test]
fn what_comes_too_late_asks_nobody() {
    let world = World::new();
    let mut question = request(&[astronaut()]);
    question.context.deadline = Some(now());
    let refusal = wait(world.pipeline("face_pipeline").infer(question)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::Late);
    assert!(refusal.message().starts_with("model `face_pipeline`: "), "{refusal}");
    assert!(world.questions().is_empty());
}

#[test]
fn a_deadline_that_passes_meanwhile_ends_the_request() {
    let world = World::new();
    let pipeline = world.pipeline("face_detection");
    // One window on each level, and it is a face.
    world.fake("mtcnn_pnet", |_| {
        let plane = |planes: usize, value: f32| Tensor::from_vec(&[1, planes, 1, 1], vec![value; planes]).unwrap();
        answered([plane(2, 1.0), plane(4, 0.0)])
    });
    // The second network answers, but only after the deadline.
    world.fake("mtcnn_rnet", |request| {
        let (never, deadline) = (Condvar::new(), request.context.deadline.unwrap());
        assert!(never.wait_until(&mut Mutex::new(()).lock(), deadline).timed_out());
        let rows = request.inputs[0].shape()[0];
        answered([rows_of(1.0, rows, 2), rows_of(0.0, rows, 4)])
    });
    let mut question = request(&[astronaut()]);
    question.context.deadline = Some(now() + Duration::from_millis(500));
    let refusal = wait(pipeline.infer(question)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::Late);
    assert_eq!(refusal.message(), "model `face_detection`: the deadline passed before the request was done");
    assert_eq!(world.rows("mtcnn_onet"), [0; 0]);
}

#[test]
fn pictures_wait_for_room() {
    let world = World::new();
    // Room for one pixel: whoever has it is alone.
    let budget = PictureBudget::new(1);
    let pipeline = world.build_within(&budget, "face_detection", &roles("face_detection"), &[]).unwrap();
    let response = ask(&pipeline, &[astronaut(), astronaut(), astronaut()]).unwrap();
    assert_eq!(counts(&response), [1, 1, 1]);
    let asked: Vec<_> = world.questions().into_iter().map(|question| question.model).collect();
    let one: Vec<_> = [vec!["mtcnn_pnet"; LEVELS], vec!["mtcnn_rnet", "mtcnn_onet"]].concat();
    assert_eq!(asked, one.repeat(3));
    assert!(format!("{budget:?}").starts_with("PictureBudget(1 of 1 "), "{budget:?}");
}

#[test]
fn the_refusal_of_an_inner_model_keeps_its_reason_and_when_to_come_back() {
    let world = World::new();
    let pipeline = world.pipeline("face_detection");
    world.fake("mtcnn_rnet", |_| {
        let refusal = Refusal::new(Reason::QueueFull, "model `mtcnn_rnet`: the queue is full");
        Err(refusal.with_retry_after(Duration::from_secs(2)))
    });
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::QueueFull, Some(Duration::from_secs(2))));
    assert_eq!(refusal.message(), "model `face_detection`: the inner model `mtcnn_rnet`: the queue is full");
}

#[test]
fn what_an_inner_model_cannot_take_is_said_of_its_picture() {
    let world = World::new();
    let pipeline = world.pipeline("face_detection");
    world.fake("mtcnn_pnet", |_| Err(Refusal::new(Reason::InvalidInput, "model `mtcnn_pnet`: too wide")));
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::InvalidInput);
    let text = "model `face_detection`: input `image`, instance 0: the inner model `mtcnn_pnet`: too wide";
    assert_eq!(refusal.message(), text);
}

#[test]
fn an_inner_model_that_went_away_is_not_the_callers_mistake() {
    let world = World::new();
    let pipeline = world.pipeline("face_pipeline");
    world.remove("face_embedding");
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    let text = "model `face_pipeline`: the inner model `face_embedding`: model `face_embedding` is unknown";
    assert_eq!(refusal.message(), text);
    assert!(world.questions().is_empty(), "all models are found before any is asked");
}

#[test]
fn an_inner_model_that_was_replaced_by_another_is_not_asked() {
    let world = World::new();
    let pipeline = world.pipeline("face_recognition");
    let rows = || Dim::Symbol("N".into());
    let input = TensorSpec::new("input", DType::Fp32, [rows(), Dim::Fixed(3), Dim::Fixed(150), Dim::Fixed(150)]);
    let output = TensorSpec::new("embedding", DType::Fp32, [rows(), Dim::Fixed(512)]);
    let signature = Signature::new(vec![input], vec![output]).unwrap();
    world.fake_with("face_embedding", Signatures::single(signature), |_| panic!("asked"));
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotReady);
    let text = "model `face_recognition`: the inner model `face_embedding`: version 1 does not fit the role `embedding`: \
                expected an output embedding FP32[N,128], it is embedding FP32[N,512]";
    assert_eq!(refusal.message(), text);
}

/// Answers of a network with these rows of `value`.
fn rows_of(value: f32, rows: usize, width: usize) -> Tensor {
    Tensor::from_vec(&[rows, width], vec![value; rows * width]).unwrap()
}

#[test]
fn numbers_that_are_none_are_no_faces() {
    let world = World::new();
    world.fake("mtcnn_rnet", |request| {
        let rows = request.inputs[0].shape()[0];
        answered([rows_of(f32::NAN, rows, 2), rows_of(f32::NAN, rows, 4)])
    });
    assert_eq!(counts(&ask(&world.pipeline("face_pipeline"), &[astronaut()]).unwrap()), [0]);
    // Faces without a place: their crops hold no pixels.
    world.fake("mtcnn_rnet", |request| {
        let rows = request.inputs[0].shape()[0];
        answered([rows_of(1.0, rows, 2), rows_of(f32::NAN, rows, 4)])
    });
    assert_eq!(counts(&ask(&world.pipeline("face_pipeline"), &[astronaut()]).unwrap()), [0]);
}

#[test]
fn answers_that_make_no_sense_are_the_models_fault() {
    let world = World::new();
    let pipeline = world.pipeline("face_pipeline");
    world.fake("face_embedding", |_| answered([rows_of(0.0, 1, 128)]));
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::BackendFailed);
    assert!(refusal.message().ends_with("`face_embedding`: its answer for a face has no length"), "{refusal}");

    world.fake("mtcnn_onet", |request| {
        let rows = request.inputs[0].shape()[0];
        answered([rows_of(1.0, rows, 2), rows_of(0.0, rows, 4), rows_of(f32::NAN, rows, 10)])
    });
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::BackendFailed);
    assert!(refusal.message().contains("`mtcnn_onet`: the landmarks"), "{refusal}");

    world.fake("mtcnn_onet", |_| answered([rows_of(1.0, 1, 2), rows_of(0.0, 1, 4), rows_of(0.5, 1, 10)]));
    let refusal = ask(&pipeline, &[astronaut()]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::BackendBroken);
    assert!(refusal.message().contains("its answer does not fit the role `onet`"), "{refusal}");
}

#[test]
fn candidates_have_a_limit() {
    let world = World::new();
    let options = [("max_candidates", "5")];
    let pipeline = world.build("face_detection", &roles("face_detection"), &options).unwrap();
    ask(&pipeline, &[astronaut()]).unwrap();
    let [rows] = world.rows("mtcnn_rnet")[..] else { panic!("one request for all crops") };
    assert!((1..=5).contains(&rows), "{rows}");
}
