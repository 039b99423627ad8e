//! Many threads on one session, and several threads in one run.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use millrace_core::{Backend, Dim, Model, ModelFiles, ModelSource, RunContext, Tensor, TensorList, TensorSpec};
use millrace_testkit::{Case, fixture_source};

use crate::support::{arranged, by_name, engine, loaded, run_with};

#[test]
fn eight_threads_run_one_model_at_once() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/digits/1");
    let cases: Vec<Case> = Case::models().into_iter().filter(|case| case.model == "digits").collect();
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for seat in 0..8 {
            let (model, cases, barrier) = (&model, &cases, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for turn in 0..50 {
                    let case = &cases[(seat + turn) % cases.len()];
                    let (inputs, _) = arranged(&**model, &case.inputs);
                    let threads = 1 + turn % 3;
                    let context = RunContext { threads, ..RunContext::plain() };
                    let answer = run_with(&**model, &[inputs], &context).unwrap();
                    case.check(by_name(&**model, &answer[0]));
                }
            });
        }
    });
}

#[test]
fn a_lone_row_with_several_threads_gets_a_session_of_them_and_the_same_answer() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/digits/1");
    assert!(model.uses_threads());
    let before = model.memory_bytes();
    let (row, alone) = lone_row(&*model);
    assert_eq!(threads_of_lone_rows(&*model, &row, &alone), "2");
    let context = RunContext { threads: 2, ..RunContext::plain() };
    for _ in 0..5 {
        same(&run_with(&*model, std::slice::from_ref(&row), &context).unwrap()[0], &alone);
    }
    assert_eq!(model.memory_bytes(), before, "it was counted from the start");
}

#[test]
fn a_second_session_counts_from_the_start_where_the_budget_holds_two() {
    let Some(engine) = engine() else { return };
    let mut source = fixture_source("models/digits/1");
    let both = engine.load(&source).unwrap().memory_bytes();
    source.memory_budget = both;
    assert_eq!(engine.load(&source).unwrap().memory_bytes(), both);
    source.memory_budget = both - 1;
    let model = engine.load(&source).unwrap();
    assert_eq!(model.memory_bytes(), both / 2);
    let (row, alone) = lone_row(&*model);
    let context = RunContext { threads: 2, ..RunContext::plain() };
    same(&run_with(&*model, std::slice::from_ref(&row), &context).unwrap()[0], &alone);
}

/// Files of which one is another from the second time on that it is read, of the same length.
#[derive(Debug)]
struct Changing {
    first: Arc<dyn ModelFiles>,
    name: &'static str,
    is_read: AtomicBool,
}

impl ModelFiles for Changing {
    fn list(&self) -> &[(String, u64)] {
        self.first.list()
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        let content = self.first.read(name)?;
        if name != self.name || !self.is_read.swap(true, Ordering::Relaxed) {
            return Ok(content);
        }
        // Somewhere in the weights, as another training would leave them: it loads as well.
        let mut other = content.to_vec();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        Ok(other.into())
    }
}

#[test]
fn a_second_session_is_never_of_other_files_than_the_first() {
    let Some(engine) = engine() else { return };
    for (fixture, name) in [("models/digits/1", "model.onnx"), ("extra/external_inside/1", "weights.bin")] {
        let source = fixture_source(fixture);
        let files = Changing { first: source.files, name, is_read: AtomicBool::new(false) };
        let model = engine.load(&ModelSource { files: Arc::new(files), ..source }).unwrap();
        let (row, alone) = lone_row(&*model);
        let why = threads_of_lone_rows(&*model, &row, &alone);
        assert_eq!(why, "1: model.onnx: not the content that was loaded", "{fixture}");
    }
}

/// One row of numbers that the model takes, and the answer to it.
fn lone_row(model: &dyn Model) -> (TensorList, TensorList) {
    let signature = model.signature();
    let small = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) if axis > 0 => *size,
        _ => 1,
    };
    let input = |spec: &TensorSpec| {
        let sizes: Vec<usize> = spec.shape.iter().enumerate().map(small).collect();
        let count: usize = sizes.iter().product();
        Tensor::from_vec(&sizes, (0..17_u8).cycle().take(count).map(f32::from).collect()).expect("a tensor")
    };
    let row: TensorList = signature.inputs().iter().map(input).collect();
    let alone = run_with(model, std::slice::from_ref(&row), &RunContext::plain()).expect("the row fits");
    (row, alone.into_iter().next().expect("one answer"))
}

/// What the facts say once the session of two threads was made beside the runs, or not; each of them is right,
/// whichever session it meets.
fn threads_of_lone_rows(model: &dyn Model, row: &TensorList, alone: &[Tensor]) -> String {
    let context = RunContext { threads: 2, ..RunContext::plain() };
    let started = clock();
    while clock() - started < Duration::from_secs(30) {
        same(&run_with(model, std::slice::from_ref(row), &context).expect("the row fits")[0], alone);
        if let Some(threads) = model.facts().properties.get("threads of a lone row") {
            return threads.clone();
        }
    }
    panic!("nothing was heard of a session of two threads");
}

fn same(a: &[Tensor], b: &[Tensor]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        millrace_testkit::assert_close(a, b, 1e-5, "with more threads");
    }
}

#[expect(clippy::disallowed_methods, reason = "the test gives up after some real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}
