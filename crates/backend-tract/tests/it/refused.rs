//! Files that must not load.

use millrace_core::LoadErrorKind::{self, Forbidden, Invalid, Missing, TooLarge, Unsupported};

use crate::support::load;

#[track_caller]
fn refuses(version_dir: &str, kind: LoadErrorKind, words: &[&str]) {
    let Err(error) = load(version_dir) else { panic!("{version_dir} loaded") };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{version_dir}: {text}");
    for word in words {
        assert!(text.contains(word), "{version_dir}: `{word}` is not in: {text}");
    }
    assert!(!text.contains("/etc") && !text.contains("../") && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
}

#[test]
fn a_cut_file_is_refused() {
    refuses("bad-models/truncated/1", Invalid, &["model.onnx", "damaged"]);
}

#[test]
fn random_bytes_are_refused() {
    refuses("bad-models/garbage/1", Invalid, &["model.onnx", "not an ONNX model"]);
}

#[test]
fn an_empty_file_is_refused() {
    refuses("bad-models/empty/1", Invalid, &["model.onnx", "empty"]);
}

#[test]
fn a_model_under_another_extension_is_not_found_and_the_text_says_what_is_there() {
    refuses("bad-models/wrong_extension/1", Missing, &["expected model.onnx", "model.txt"]);
}

#[test]
fn external_data_outside_the_folder_is_forbidden() {
    refuses("bad-models/external_outside/1", Forbidden, &["external data", "initializer"]);
}

#[test]
fn external_data_at_an_absolute_path_is_forbidden() {
    refuses("bad-models/external_absolute/1", Forbidden, &["external data", "initializer"]);
}

#[test]
fn external_data_that_is_not_there_is_missing() {
    refuses("bad-models/external_missing/1", Missing, &["external data `weights.bin`"]);
}

#[test]
fn external_data_past_the_end_of_its_file_is_refused() {
    refuses("bad-models/external_short/1", Invalid, &["external data `weights.bin`", "48"]);
}

#[test]
fn an_unknown_operator_is_refused_by_name() {
    refuses("bad-models/unknown_op/1", Unsupported, &["mystery_node", "Frobnicate"]);
}

#[test]
fn an_operator_of_an_unknown_domain_is_refused_by_name() {
    refuses("bad-models/unknown_domain_op/1", Unsupported, &["mystery_node", "Scale", "com.example.private"]);
}

#[test]
fn an_initializer_with_too_little_data_is_refused() {
    refuses("bad-models/short_raw_data/1", Invalid, &["initializer `liar`", "16 bytes", "got 8"]);
}

#[test]
fn an_initializer_whose_sizes_overflow_is_refused() {
    refuses("bad-models/huge_initializer_dims/1", Invalid, &["initializer `", "does not fit in memory"]);
}

#[test]
fn an_initializer_of_negative_sizes_is_refused() {
    refuses("bad-models/negative_dims/1", Invalid, &["initializer `", "negative"]);
}

#[test]
fn a_constant_that_explodes_while_loading_is_refused() {
    refuses("bad-models/huge_constant/1", TooLarge, &["node `filler` (ConstantOfShape)", "17592186044416"]);
}

#[test]
fn an_input_too_large_for_any_memory_is_refused() {
    refuses("bad-models/huge_dims_input/1", TooLarge, &["`x`", "64 bits"]);
}

#[test]
fn a_cycle_is_refused_by_its_nodes() {
    refuses("bad-models/cyclic/1", Invalid, &["cycle", "first", "second"]);
}

#[test]
fn a_node_that_reads_what_nobody_writes_is_refused() {
    refuses("bad-models/missing_input/1", Invalid, &["reader_of_nowhere", "`nowhere`"]);
}

#[test]
fn a_value_written_twice_is_refused() {
    refuses("bad-models/duplicate_output/1", Invalid, &["`twice`", "writer_one", "writer_two"]);
}

#[test]
fn graphs_nested_two_hundred_deep_are_refused_without_a_stack_overflow() {
    refuses("bad-models/deep_subgraph/1", Unsupported, &["nested too deep"]);
}

#[test]
fn a_binary_forest_that_the_engine_gets_wrong_is_refused_with_the_reason() {
    refuses("extra/tree_binary/1", Unsupported, &["TreeEnsembleClassifier", "two classes", "first label"]);
}

#[test]
fn a_recurrent_net_with_a_symbolic_batch_is_refused_with_a_way_out() {
    refuses("extra/lstm_symbolic/1", Unsupported, &["LSTM", "fixed shape"]);
}
