//! The suite itself: it must pass a sound backend and fail a broken one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use millrace_core::{MemoryFiles, ModelSource, Tensor};

use super::{Subject, run};
use crate::{FakeBackend, Misbehaviour};

fn source(text: &str) -> ModelSource {
    let files = MemoryFiles::default().with("model.fake", text.to_owned());
    ModelSource::new("subject".parse().unwrap(), 1, Arc::new(files))
}

fn tensor(elements: &[f32]) -> Tensor {
    Tensor::from_vec(&[elements.len()], elements.to_vec()).unwrap()
}

fn subject(answer: &[f32]) -> Subject {
    let question = [("x", tensor(&[1.0, 2.0, 5.0]))];
    Subject::new(source(&FakeBackend::file(0.5, 2.0))).case(question, [("y", tensor(answer))], 1e-6)
}

const RIGHT: [f32; 3] = [2.5, 3.0, 4.5];

/// What the suite says about these subjects, or `None` where they pass.
fn verdict(good: &Subject, bad: &[ModelSource], gaps: &[&str]) -> Option<String> {
    let suite = || run(&FakeBackend::default(), std::slice::from_ref(good), bad, gaps);
    let payload = catch_unwind(AssertUnwindSafe(suite)).err()?;
    Some(payload.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn a_sound_backend_conforms() {
    let good = subject(&RIGHT).invalid([("x", tensor(&[Misbehaviour::InvalidInput.value()]))]);
    assert_eq!(verdict(&good, &[source("scale = 1\n")], &[]), None);
}

#[test]
fn a_wrong_answer_is_found_by_name() {
    let text = verdict(&subject(&[2.5, 3.0, 4.6]), &[], &[]).unwrap();
    assert!(text.contains("answers_are_right") && text.contains("joined_rows_equal_lone_rows"), "{text}");
}

#[test]
fn an_invalid_input_that_fails_otherwise_is_found() {
    for misbehaviour in [Misbehaviour::Fail, Misbehaviour::WrongDType] {
        let good = subject(&RIGHT).invalid([("x", tensor(&[misbehaviour.value()]))]);
        let text = verdict(&good, &[], &[]).unwrap();
        assert_eq!(text, "fake does not conform: a_run_after_an_error_works");
        assert_eq!(verdict(&good, &[], &["a_run_after_an_error_works"]), None, "a known gap is let pass");
    }
}

#[test]
fn a_bad_file_that_loads_or_panics_is_found() {
    for text in [FakeBackend::file(1.0, 0.0), "panic = as asked\nend\n".to_owned()] {
        let verdict = verdict(&subject(&RIGHT), &[source(&text)], &[]).unwrap();
        assert_eq!(verdict, "fake does not conform: bad_files_are_refused");
    }
}

#[test]
fn a_gap_that_has_closed_must_leave_the_list() {
    let text = verdict(&subject(&RIGHT), &[], &["padding_changes_nothing"]).unwrap();
    assert!(text.contains("padding_changes_nothing (passes now"), "{text}");
}
