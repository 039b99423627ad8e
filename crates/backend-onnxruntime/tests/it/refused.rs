//! Files and libraries that must not load.

use std::path::PathBuf;

use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend, OnnxRuntimeConfig};
use millrace_core::Backend;
use millrace_core::LoadErrorKind::{Forbidden, Invalid, Missing, TooLarge, Unsupported};
use millrace_testkit::fixture_source;

use crate::support::{engine, refuses};

#[test]
fn a_cut_file_is_refused() {
    refuses("bad-models/truncated/1", &[Invalid], &["model.onnx"]);
}

#[test]
fn random_bytes_are_refused() {
    refuses("bad-models/garbage/1", &[Invalid], &["model.onnx", "expected an ONNX model"]);
}

#[test]
fn an_empty_file_is_refused() {
    refuses("bad-models/empty/1", &[Invalid], &["model.onnx", "empty"]);
}

#[test]
fn a_model_under_another_extension_is_not_found_and_the_text_says_what_is_there() {
    refuses("bad-models/wrong_extension/1", &[Missing], &["expected model.onnx", "model.txt"]);
}

#[test]
fn external_data_outside_the_folder_is_forbidden() {
    refuses("bad-models/external_outside/1", &[Forbidden], &["external data"]);
}

#[test]
fn external_data_at_an_absolute_path_is_forbidden() {
    refuses("bad-models/external_absolute/1", &[Forbidden], &["external data"]);
}

#[test]
fn external_data_that_is_not_there_is_missing() {
    refuses("bad-models/external_missing/1", &[Missing], &["external data", "`weights.bin`"]);
}

#[test]
fn external_data_past_the_end_of_its_file_is_refused() {
    refuses("bad-models/external_short/1", &[Invalid], &["external data", "`weights.bin`", "48"]);
}

#[test]
fn an_unknown_operator_is_refused_by_name() {
    refuses("bad-models/unknown_op/1", &[Unsupported], &["Frobnicate"]);
}

#[test]
fn an_operator_of_an_unknown_domain_is_refused_by_name() {
    refuses("bad-models/unknown_domain_op/1", &[Unsupported], &["com.example.private"]);
}

#[test]
fn an_initializer_with_too_little_data_is_refused() {
    refuses("bad-models/short_raw_data/1", &[Invalid], &["initializer `liar`", "16 bytes", "got 8"]);
}

#[test]
fn an_initializer_whose_sizes_overflow_is_refused() {
    refuses("bad-models/huge_initializer_dims/1", &[Invalid], &["too many elements"]);
}

#[test]
fn an_initializer_of_negative_sizes_is_refused() {
    refuses("bad-models/negative_dims/1", &[Invalid], &["negative"]);
}

#[test]
fn a_constant_that_explodes_while_loading_is_refused() {
    refuses("bad-models/huge_constant/1", &[TooLarge], &["node `filler` (ConstantOfShape)", "17592186044416"]);
}

#[test]
fn an_input_too_large_for_any_memory_is_refused() {
    refuses("bad-models/huge_dims_input/1", &[TooLarge], &["`x`", "64 bits"]);
}

#[test]
fn broken_graphs_are_refused() {
    for broken in ["cyclic", "missing_input", "duplicate_output"] {
        refuses(&format!("bad-models/{broken}/1"), &[Invalid], &["model.onnx"]);
    }
}

#[test]
fn graphs_nested_two_hundred_deep_are_refused_without_a_stack_overflow() {
    refuses("bad-models/deep_subgraph/1", &[Unsupported], &["nested deeper"]);
}

#[test]
fn a_model_larger_than_the_budget_is_refused() {
    let Some(engine) = engine() else { return };
    let mut source = fixture_source("models/digits/1");
    source.memory_budget = 10_000;
    let error = engine.load(&source).unwrap_err();
    assert_eq!(error.kind(), TooLarge, "{error}");
    assert!(error.to_string().contains("the memory budget is 10000"), "{error}");
}

#[test]
fn options_that_the_library_cannot_follow_are_refused_and_fallbacks_work() {
    let Some(engine) = engine() else { return };
    let mut source = fixture_source("models/fraud/1");
    source.options.insert("execution_providers".to_owned(), "[\"openvino\"]".to_owned());
    if let Availability::Loaded { providers, .. } = engine.connect()
        && !providers.contains(&"OpenVINOExecutionProvider".to_owned())
    {
        let error = engine.load(&source).unwrap_err();
        assert_eq!(error.kind(), Unsupported);
        let text = error.to_string();
        assert!(text.contains("no openvino") && text.contains("CPUExecutionProvider"), "{text}");
        source.options.insert("execution_providers".to_owned(), "[\"openvino\", \"cpu\"]".to_owned());
        let model = engine.load(&source).unwrap();
        assert_eq!(model.facts().properties["execution providers"], "cpu");
    }
    source.options.insert("spin".to_owned(), "true".to_owned());
    assert!(engine.load(&source).unwrap_err().to_string().contains("unknown option `spin`"));
}

#[test]
fn a_second_library_in_one_process_is_refused_with_the_name_of_the_first() {
    if engine().is_none() {
        return;
    }
    let second = OnnxRuntimeBackend::new(&OnnxRuntimeConfig { library: Some(PathBuf::from("/other/library.so")) });
    let error = second.load(&fixture_source("models/fraud/1")).unwrap_err();
    assert_eq!(error.kind(), Unsupported);
    assert!(error.to_string().contains("cannot be loaded beside"), "{error}");
}
