//! Text: one line for each model, so that a failure names it.

use millrace_backend_candle::CandleBackend;
use millrace_testkit::conformance;

use crate::support::TEXT;

/// What weights of 11 bits may do to the outputs; those of 8 bits, eight times as much.
const FP16: f64 = 1000.0;
const BF16: f64 = 8000.0;

/// The models that have a test of their own below.
const TESTED: &[&str] = &[
    "bert_bf16",
    "bert_cls",
    "bert_dense",
    "bert_fp16",
    "bert_labels",
    "bert_labels_two_forms",
    "bert_masked_lm",
    "bert_mean",
    "bert_multi_label",
    "bert_pooled",
    "bert_sharded",
    "bert_two_forms",
    "bert_two_forms_pooled",
    "distilbert_labels",
    "distilbert_mean",
    "roberta_labels",
    "roberta_mean",
    "xlm_roberta_mean",
    "xlm_roberta_ranker",
];

#[test]
fn every_model_has_a_test() {
    assert_eq!(TEXT.all(), TESTED);
}

#[test]
fn every_model_conforms() {
    let subjects: Vec<_> = TESTED.iter().map(|model| TEXT.subject(model)).collect();
    let bad: Vec<_> =
        ["bert_mean", "distilbert_labels", "roberta_mean"].iter().flat_map(|model| TEXT.damaged(model)).collect();
    conformance::run(&CandleBackend::default(), &subjects, &bad, &[]);
}

#[test]
fn bert_with_mean_pooling() {
    TEXT.check("bert_mean");
}

#[test]
fn bert_with_the_first_token() {
    TEXT.check("bert_cls");
}

#[test]
fn bert_with_every_kind_of_pooling() {
    TEXT.check("bert_pooled");
}

#[test]
fn bert_with_a_dense_module() {
    TEXT.check("bert_dense");
}

#[test]
fn bert_in_the_oldest_names() {
    TEXT.check("bert_masked_lm");
}

#[test]
fn bert_in_half_precision_files() {
    TEXT.check("bert_fp16");
    TEXT.check("bert_bf16");
}

#[test]
fn bert_in_several_files() {
    TEXT.check("bert_sharded");
}

#[test]
fn bert_beside_its_onnx_form() {
    TEXT.check("bert_two_forms");
    TEXT.check("bert_two_forms_pooled");
    TEXT.check("bert_labels_two_forms");
}

#[test]
fn bert_with_labels() {
    TEXT.check("bert_labels");
    TEXT.check("bert_multi_label");
}

#[test]
fn distilbert() {
    TEXT.check("distilbert_mean");
    TEXT.check("distilbert_labels");
}

#[test]
fn roberta() {
    TEXT.check("roberta_mean");
    TEXT.check("roberta_labels");
}

#[test]
fn xlm_roberta() {
    TEXT.check("xlm_roberta_mean");
}

#[test]
fn xlm_roberta_as_a_ranker() {
    TEXT.check("xlm_roberta_ranker");
}

#[test]
fn every_family_in_half_precision() {
    for model in ["bert_pooled", "bert_labels", "distilbert_mean", "roberta_mean", "xlm_roberta_ranker"] {
        TEXT.check_with(model, &[("precision", "FP16")], FP16);
        TEXT.check_with(model, &[("precision", "BF16")], BF16);
    }
}
