//! GGUF files against `transformers` with the numbers that their blocks stand for.

use std::sync::Arc;

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend, LoadErrorKind, MemoryFiles, ModelSource};
use millrace_testkit::{
    Case,
    conformance::{self, Subject},
    fixture, fixture_source,
};

fn source(model: &str) -> ModelSource {
    fixture_source(&format!("gguf-models/{model}/1"))
}

fn subject(model: &str) -> Subject {
    let cases = Case::folder("cases/gguf").into_iter().filter(|case| case.model == model);
    cases.fold(Subject::new(source(model)), |subject, case| subject.case(case.inputs, case.outputs, case.tolerance))
}

#[test]
fn encoders_in_8_bits_and_in_mixed_kinds_conform() {
    conformance::run(&CandleBackend::default(), &[subject("bert_q8_0"), subject("bert_q4_mixed")], &[], &[]);
}

#[test]
fn blocks_stay_blocks_in_memory() {
    let load = |model: &str| CandleBackend::default().load(&source(model)).unwrap();
    let (small, large) = (load("bert_q4_mixed"), load("bert_q8_0"));
    let file = std::fs::metadata(fixture("gguf-models/bert_q8_0/1/model.gguf")).unwrap().len();
    assert!(large.memory_bytes() < file * 11 / 10, "{} bytes of a file of {file}", large.memory_bytes());
    let facts = small.facts();
    assert_eq!(facts.properties["pooling"], "cls");
    assert_eq!(
        facts.weight_types.keys().map(String::as_str).collect::<Vec<_>>(),
        ["BF16", "FP16", "FP32", "Q4_0", "Q5_1", "Q8_0"]
    );
}

#[test]
fn the_pooling_is_the_files_and_the_operators_where_they_say_none() {
    let load = |source: &ModelSource| CandleBackend::default().load(source);
    let mut said = source("bert_q4_mixed");
    said.options = [("pooling".to_owned(), "max".to_owned())].into();
    let error = load(&said).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Invalid);
    assert_eq!(error.to_string(), "option `pooling`: the model's own files say `cls`");

    // Under another key it is nobody's word.
    let mut content = said.files.read("model.gguf").unwrap().to_vec();
    let key = b"bert.pooling_type";
    let at = content.windows(key.len()).position(|bytes| bytes == key).unwrap();
    content[at..at + key.len()].copy_from_slice(b"bert.pooling_typo");
    let mut silent =
        ModelSource::new("m".parse().unwrap(), 1, Arc::new(MemoryFiles::default().with("m.gguf", content)));
    assert_eq!(load(&silent).unwrap().facts().properties["pooling"], "mean");
    silent.options = said.options;
    assert_eq!(load(&silent).unwrap().facts().properties["pooling"], "max");
}

#[test]
fn several_files_and_other_architectures_are_refused() {
    let content = std::fs::read(fixture("gguf-models/bert_q8_0/1/model.gguf")).unwrap();
    let load = |files: MemoryFiles| {
        let source = ModelSource::new("m".parse().unwrap(), 1, Arc::new(files));
        CandleBackend::default().load(&source).unwrap_err()
    };
    let two = load(MemoryFiles::default().with("a.gguf", content.clone()).with("b.gguf", content.clone()));
    assert_eq!(two.to_string(), "which model file? expected one .gguf file, got a.gguf, b.gguf");
    // The name of the architecture is as long as another one's.
    let at = content.windows(4).position(|bytes| bytes == b"bert").unwrap();
    let mut other = content;
    other[at..at + 4].copy_from_slice(b"mpt2");
    let error = load(MemoryFiles::default().with("a.gguf", other));
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
    assert_eq!(error.to_string(), "a.gguf: the architecture `mpt2` does not load here; expected bert");
}
