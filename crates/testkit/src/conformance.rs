//! What every backend must do, whatever its engine. A backend's test file hands over a few subjects and is done:
//!
//! ```
//! # use millrace_core::{MemoryFiles, ModelSource, Tensor};
//! # use millrace_testkit::{FakeBackend, conformance::{self, Subject}};
//! # use std::sync::Arc;
//! let files = MemoryFiles::default().with("model.fake", FakeBackend::file(0.5, 2.0));
//! let source = ModelSource::new("half_plus_two".parse().unwrap(), 1, Arc::new(files));
//! let x = Tensor::from_vec(&[3], vec![1.0_f32, 2.0, 5.0]).unwrap();
//! let y = Tensor::from_vec(&[3], vec![2.5_f32, 3.0, 4.5]).unwrap();
//! let good = Subject::new(source).case([("x", x)], [("y", y)], 1e-6);
//! let bad = ModelSource::new("bad".parse().unwrap(), 1, Arc::new(MemoryFiles::default()));
//! conformance::run(&FakeBackend::default(), &[good], &[bad], &[]);
//! ```
//!
//! Every check has a name, such as `joined_rows_equal_lone_rows`; the last argument of [`run`] lists those that a backend
//! is known to fail. A listed check that passes is a failure too, so that the list never grows old.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use millrace_core::{
    Backend, Batch, BatchOutputs, Dim, Instance, LoadError, Model, ModelSource, Part, RunContext, RunError, Tensor,
    TensorList, Wanted,
};

use crate::assert_close;

/// A model that a backend must load, with questions and the answers of a reference.
#[derive(Debug, Clone)]
pub struct Subject {
    source: ModelSource,
    cases: Vec<Question>,
    invalid: Vec<Named>,
}

type Named = Vec<(String, Tensor)>;

#[derive(Debug, Clone)]
struct Question {
    inputs: Named,
    outputs: Named,
    tolerance: f64,
}

impl Subject {
    /// A model without questions yet.
    pub fn new(source: ModelSource) -> Self {
        Self { source, cases: Vec::new(), invalid: Vec::new() }
    }

    /// Adds a question and its answer, within `tolerance` as `fixtures/README.md` defines it.
    #[must_use]
    pub fn case<N: Into<String>>(
        mut self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
        outputs: impl IntoIterator<Item = (N, Tensor)>,
        tolerance: f64,
    ) -> Self {
        self.cases.push(Question { inputs: owned(inputs), outputs: owned(outputs), tolerance });
        self
    }

    /// Adds inputs that fit the signature and that a run must answer with [`RunError::InvalidInput`].
    #[must_use]
    pub fn invalid<N: Into<String>>(mut self, inputs: impl IntoIterator<Item = (N, Tensor)>) -> Self {
        self.invalid.push(owned(inputs));
        self
    }
}

fn owned<N: Into<String>>(named: impl IntoIterator<Item = (N, Tensor)>) -> Named {
    named.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect()
}

/// Runs every check on every subject, and loads every file in `bad`, which must fail without a panic.
///
/// # Panics
/// When a check fails that is not among `known_gaps`, or one passes that is.
pub fn run(backend: &dyn Backend, good: &[Subject], bad: &[ModelSource], known_gaps: &[&str]) {
    assert!(good.iter().any(|subject| !subject.cases.is_empty()), "a suite without a case checks nothing");
    for gap in known_gaps {
        assert!(CHECKS.iter().any(|(name, _)| name == gap) || *gap == BAD_FILES, "no check is called {gap}");
    }
    let mut failures = Vec::new();
    let mut judge = |name: &str, work: &dyn Fn()| {
        let failed = catch_unwind(AssertUnwindSafe(work)).is_err();
        if failed != known_gaps.contains(&name) {
            failures.push(if failed { name.to_owned() } else { format!("{name} (passes now; no gap any more)") });
        }
    };
    for (name, check) in CHECKS {
        judge(name, &|| good.iter().for_each(|subject| check(&Bench::new(backend, subject))));
    }
    judge(BAD_FILES, &|| bad.iter().for_each(|source| refuses(backend, source)));
    assert!(failures.is_empty(), "{} does not conform: {}", backend.name(), failures.join(", "));
}

const BAD_FILES: &str = "bad_files_are_refused";

/// A check panics where it fails.
type Check = fn(&Bench<'_>);

const CHECKS: &[(&str, Check)] = &[
    ("the_files_are_recognised", recognised),
    ("answers_are_right", answers),
    ("outputs_keep_the_signature", outputs_fit),
    ("joined_rows_equal_lone_rows", joined),
    ("requests_of_different_sizes_ride_together", mixed),
    ("padding_changes_nothing", padding),
    ("the_same_input_gives_the_same_bits", repeatable),
    ("prepared_sizes_answer_alike", prepared),
    ("instances_run_side_by_side", side_by_side),
    ("only_wanted_outputs_are_needed", wanted),
    ("a_run_after_an_error_works", after_an_error),
];

/// A loaded subject.
struct Bench<'a> {
    backend: &'a dyn Backend,
    subject: &'a Subject,
    model: Arc<dyn Model>,
}

impl<'a> Bench<'a> {
    fn new(backend: &'a dyn Backend, subject: &'a Subject) -> Self {
        let name = &subject.source.model;
        let model = backend.load(&subject.source).unwrap_or_else(|error| panic!("{name} does not load: {error}"));
        Self { backend, subject, model }
    }

    fn instance(&self) -> Box<dyn Instance> {
        self.model.instance().unwrap_or_else(|error| panic!("{}: no instance: {error}", self.subject.source.model))
    }

    /// The inputs in order and how many rows they have, checked as a server checks them.
    fn part(&self, inputs: &Named) -> Part {
        let signature = self.model.signature();
        let inputs = signature.arrange(inputs.iter().cloned()).expect("the inputs are the signature's");
        let admission = signature.check(&inputs).expect("the inputs fit the signature");
        self.model.admit(&admission).expect("the inputs fit the model");
        if signature.is_mixed() {
            self.model.weigh(&inputs, &admission).expect("the values fit the model");
        }
        Part { inputs, rows: admission.rows }
    }

    /// Compares one request's outputs with the reference.
    fn compare(&self, question: &Question, outputs: &[Option<Tensor>], how: &str) {
        let specs = self.model.signature().outputs();
        for (name, want) in &question.outputs {
            let index = specs.iter().position(|spec| *spec.name == **name).expect("the signature has the output");
            let got = outputs[index].as_ref().unwrap_or_else(|| panic!("{how}: output {name} is missing"));
            assert_close(got, want, question.tolerance, &format!("{} {name}, {how}", self.subject.source.model));
        }
    }
}

fn ask(instance: &mut dyn Instance, parts: Vec<Part>, padding: usize) -> (Batch, Result<BatchOutputs, RunError>) {
    let batch = Batch::new(parts, padding);
    let outcome = instance.run(&batch, &RunContext::plain());
    (batch, outcome)
}

/// Runs `parts` as one batch and gives each its outputs.
fn shares(
    bench: &Bench<'_>,
    instance: &mut dyn Instance,
    parts: Vec<Part>,
    padding: usize,
) -> Vec<Vec<Option<Tensor>>> {
    let (batch, outcome) = ask(instance, parts, padding);
    let outputs = outcome.unwrap_or_else(|error| panic!("{}: the run failed: {error:?}", bench.subject.source.model));
    let shares = batch.split(&outputs, bench.model.signature()).expect("the outputs keep the contract");
    shares.into_iter().map(|share| share.into_iter().collect()).collect()
}

fn recognised(bench: &Bench<'_>) {
    assert!(bench.backend.recognises(&bench.subject.source), "{} is not recognised", bench.subject.source.model);
}

fn answers(bench: &Bench<'_>) {
    let mut instance = bench.instance();
    for question in &bench.subject.cases {
        let answer = shares(bench, &mut *instance, vec![bench.part(&question.inputs)], 0);
        bench.compare(question, &answer[0], "alone");
    }
}

/// Dtype, rank and every size that the signature foretells.
fn outputs_fit(bench: &Bench<'_>) {
    let signature = bench.model.signature();
    let mut instance = bench.instance();
    for question in &bench.subject.cases {
        let part = bench.part(&question.inputs);
        let admission = signature.check(&part.inputs).expect("checked before");
        let answer = shares(bench, &mut *instance, vec![part], 0).remove(0);
        assert_eq!(answer.len(), signature.outputs().len());
        for (spec, tensor) in signature.outputs().iter().zip(&answer) {
            let tensor = tensor.as_ref().expect("all outputs are wanted");
            assert_eq!(tensor.dtype(), spec.dtype, "output {}", spec.name);
            assert_eq!(tensor.shape().len(), spec.shape.len(), "output {}: rank", spec.name);
            if let Some(shape) = signature.output_shape(spec, &admission).expect("the sizes fit") {
                assert_eq!(*tensor.shape(), shape, "output {}", spec.name);
            }
            let fixed = spec.shape.iter().zip(tensor.shape().iter());
            fixed.for_each(|(dim, &size)| assert!(!matches!(dim, Dim::Fixed(known) if *known != size), "{spec}"));
        }
    }
}

/// A batch of several requests answers each as if it were alone; rows taken apart and joined again are the whole.
fn joined(bench: &Bench<'_>) {
    if !bench.model.signature().is_batched() {
        return;
    }
    let mut instance = bench.instance();
    for question in &bench.subject.cases {
        let whole = bench.part(&question.inputs);
        let row =
            |row: usize| Part { inputs: whole.inputs.iter().map(|input| input.rows(row..row + 1)).collect(), rows: 1 };
        let rows: Vec<Part> = (0..whole.rows).map(row).collect();
        let mut parts = vec![whole.clone()];
        parts.extend(rows);
        parts.push(whole.clone());
        let answers = shares(bench, &mut *instance, parts, 0);
        bench.compare(question, &answers[0], "first of several");
        bench.compare(question, answers.last().expect("there are several"), "last of several");
        let lone = &answers[1..=whole.rows];
        let rejoined: Vec<Option<Tensor>> = (0..answers[0].len())
            .map(|output| {
                let pieces: Vec<Tensor> = lone.iter().filter_map(|answer| answer[output].clone()).collect();
                Some(Tensor::concat(&pieces).expect("rows of one output join"))
            })
            .collect();
        bench.compare(question, &rejoined, "row by row");
    }
}

/// Of a model that says so: all cases in one batch, and the instance accounts for what it computed.
fn mixed(bench: &Bench<'_>) {
    let signature = bench.model.signature();
    if !signature.is_mixed() {
        return;
    }
    let mut instance = bench.instance();
    let parts: Vec<Part> = bench.subject.cases.iter().map(|question| bench.part(&question.inputs)).collect();
    let weight = |part: &Part| {
        let admission = signature.check(&part.inputs).expect("checked before");
        bench.model.weigh(&part.inputs, &admission).expect("weighed before")
    };
    let given: usize = parts.iter().map(weight).sum();
    let answers = shares(bench, &mut *instance, parts, 0);
    for (question, answer) in bench.subject.cases.iter().zip(&answers) {
        bench.compare(question, answer, "among others of all sizes");
    }
    let computed = instance.computed();
    assert!(computed == 0 || computed >= given, "{computed} units computed, {given} given");
}

fn padding(bench: &Bench<'_>) {
    // Rows of padding are for models whose rows are all alike.
    if !bench.model.signature().is_batched() || bench.model.signature().is_mixed() {
        return;
    }
    let mut instance = bench.instance();
    for question in &bench.subject.cases {
        let answers = shares(bench, &mut *instance, vec![bench.part(&question.inputs)], 3);
        bench.compare(question, &answers[0], "with padding");
    }
}

/// Nothing of one run is left in the next, on the same instance.
fn repeatable(bench: &Bench<'_>) {
    let mut instance = bench.instance();
    let mut once = |question: &Question| shares(bench, &mut *instance, vec![bench.part(&question.inputs)], 0).remove(0);
    let first: Vec<Vec<Option<Tensor>>> = bench.subject.cases.iter().map(&mut once).collect();
    for (question, first) in bench.subject.cases.iter().zip(&first).rev() {
        assert!(same_bits(first, &once(question)), "{}: the second run differs", bench.subject.source.model);
        assert!(same_bits(first, &once(question)), "{}: the third run differs", bench.subject.source.model);
    }
}

fn same_bits(left: &[Option<Tensor>], right: &[Option<Tensor>]) -> bool {
    let bits = |tensor: &Option<Tensor>| {
        tensor.as_ref().map(|tensor| (tensor.shape().clone(), tensor.bytes().cloned(), tensor.strings().cloned()))
    };
    left.iter().map(bits).eq(right.iter().map(bits))
}

fn prepared(bench: &Bench<'_>) {
    let signature = bench.model.signature();
    for question in &bench.subject.cases {
        let part = bench.part(&question.inputs);
        let admission = signature.check(&part.inputs).expect("checked before");
        bench.model.prepare(&admission.group, admission.rows).expect("it can be prepared");
        let answer = shares(bench, &mut *bench.instance(), vec![part], 0);
        bench.compare(question, &answer[0], "prepared");
    }
}

fn side_by_side(bench: &Bench<'_>) {
    const THREADS: usize = 4;
    const TIMES: usize = 8;
    thread::scope(|scope| {
        let work = || {
            let mut instance = bench.instance();
            for question in bench.subject.cases.iter().cycle().take(bench.subject.cases.len() * TIMES) {
                let answer = shares(bench, &mut *instance, vec![bench.part(&question.inputs)], 0);
                bench.compare(question, &answer[0], "beside other threads");
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("the thread's checks hold"));
    });
}

fn wanted(bench: &Bench<'_>) {
    let mut instance = bench.instance();
    for question in &bench.subject.cases {
        for index in 0..bench.model.signature().outputs().len() {
            let part = bench.part(&question.inputs);
            let batch = Batch::new(vec![part], 0);
            let only = Wanted::Only([index].as_slice().into());
            let context = RunContext { wanted: &only, ..RunContext::plain() };
            let outputs = instance.run(&batch, &context).expect("the run works");
            let shares = batch.split(&outputs, bench.model.signature()).expect("the outputs keep the contract");
            assert!(shares[0][index].is_some(), "the wanted output {index} is missing");
        }
    }
}

fn after_an_error(bench: &Bench<'_>) {
    let mut instance = bench.instance();
    for invalid in &bench.subject.invalid {
        let signature = bench.model.signature();
        let inputs: TensorList = signature.arrange(invalid.iter().cloned()).expect("the inputs are the signature's");
        let rows = signature.check(&inputs).expect("the inputs fit the signature").rows;
        let (_, outcome) = ask(&mut *instance, vec![Part { inputs, rows }], 0);
        match outcome {
            Err(RunError::InvalidInput(text)) => assert!(!text.is_empty(), "the caller must learn what was wrong"),
            Err(other) => panic!("{}: expected InvalidInput, got {other:?}", bench.subject.source.model),
            Ok(_) => panic!("{}: an invalid input was answered", bench.subject.source.model),
        }
        for question in &bench.subject.cases {
            let answer = shares(bench, &mut *instance, vec![bench.part(&question.inputs)], 0);
            bench.compare(question, &answer[0], "after an error");
        }
    }
}

fn refuses(backend: &dyn Backend, source: &ModelSource) {
    let error: LoadError = match backend.load(source) {
        Ok(_) => panic!("{} {} loaded", source.model, source.version),
        Err(error) => error,
    };
    assert!(!error.to_string().is_empty(), "{}: the operator must learn what was wrong", source.model);
}

#[cfg(test)]
mod tests;
