//! Options about devices, through the engine's front door: right answers wherever `auto` leads, and errors that say what is missing.
//!
//! None of this needs a card. Where there is one, and the engine is built with CUDA, `auto` is about it.

#![cfg(test)]

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend, Batch, LoadError, LoadErrorKind, Model, ModelSource, Part, RunContext};
use millrace_testkit::{Case, assert_close, fixture_source};
use std::sync::Arc;

const MODEL: &str = "bert_mean";

fn source(options: &[(&str, &str)]) -> ModelSource {
    let mut source = fixture_source(&format!("text-models/{MODEL}/1"));
    source.options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    source
}

fn load(options: &[(&str, &str)]) -> Result<Arc<dyn Model>, LoadError> {
    CandleBackend::default().load(&source(options))
}

/// All cases of the model in one run of a new instance.
fn check(model: &dyn Model) {
    let cases: Vec<Case> = Case::folder("cases/text").into_iter().filter(|case| case.model == MODEL).collect();
    assert!(!cases.is_empty());
    let part = |case: &Case| {
        let inputs = model.signature().arrange(case.inputs.iter().cloned()).unwrap();
        let admission = model.signature().check(&inputs).unwrap();
        Part { inputs, rows: admission.rows }
    };
    let batch = Batch::new(cases.iter().map(part).collect(), 0);
    let outputs = model.instance().unwrap().run(&batch, &RunContext::plain()).unwrap();
    for (case, answer) in cases.iter().zip(batch.split(&outputs, model.signature()).unwrap()) {
        for (name, want) in &case.outputs {
            let index = model.signature().output_index(name).unwrap();
            assert_close(answer[index].as_ref().unwrap(), want, case.tolerance, name);
        }
    }
}

#[test]
fn auto_loads_somewhere_and_answers_right() {
    for options in [&[][..], &[("device", "auto")], &[("device", "auto"), ("streams", "2"), ("device_memory", "2GiB")]]
    {
        let model = load(options).unwrap();
        check(&*model);
        // The second instance may be on another stream.
        check(&*model);
    }
}

#[test]
fn the_cpu_is_the_cpu() {
    let model = load(&[("device", "cpu")]).unwrap();
    assert_eq!(model.facts().properties["device"], "cpu");
    check(&*model);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_card_for_an_engine_without_cuda_is_an_error_that_says_what_to_build() {
    for device in ["cuda", "cuda:1"] {
        let error = load(&[("device", device)]).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "option `device`: this program was built without CUDA; `cargo xtask build-cuda` builds one with it"
        );
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_card_that_nobody_has_is_an_error_that_says_what_is_missing() {
    let error = load(&[("device", "cuda:63")]).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("libcuda.so.1") || text.contains("sees no card"), "{text}");
}

#[test]
fn wrong_options_are_named_before_anything_is_read() {
    for (options, word) in [
        (&[("device", "gpu")][..], "`device`"),
        (&[("device", "cpu"), ("streams", "2")], "`streams`"),
        (&[("device_memory", "lots")], "`device_memory`"),
        (&[("stream", "2")], "did you mean `streams`?"),
    ] {
        let error = load(options).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::Invalid);
        assert!(error.to_string().contains(word), "{error}");
    }
}
