use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{
    Admission, Batch, Group, InputError, Model, ModelSource, Part, RunContext, RunError, Tensor, TensorList, Wanted,
};
use millrace_huggingface::Config;
use millrace_testkit::{Case, assert_close, fixture_source};

use super::folder;
use super::model::TextModel;
use crate::backend::Loading;
use crate::device::{Grouping, Place};
use crate::nn::Kernels;
use crate::options::{Options, Precision};
use crate::weights::Weights;

fn source(model: &str) -> ModelSource {
    fixture_source(&format!("text-models/{model}/1"))
}

/// The model with layers of one kind, on the CPU whatever they were made for.
fn load(model: &str, kernels: Kernels, grouping: Grouping, precision: Precision) -> Arc<dyn Model> {
    let source = source(model);
    let place = Place::cpu();
    let options = Options::read(&source.options).unwrap();
    let config = Config::parse(&source.files.read("config.json").unwrap()).unwrap();
    let weights = Weights::open(&source, &place, Some(precision)).unwrap();
    let loading = Loading { source: &source, options, place, config, weights };
    let network = folder(&loading, kernels).unwrap();
    Arc::new(TextModel::with(network, &loading.weights, &loading.place, grouping).unwrap())
}

fn own(model: &str) -> Arc<dyn Model> {
    load(model, Kernels::Own, Grouping::Equal, Precision::Fp32)
}

fn cases(model: &str) -> Vec<Case> {
    Case::folder("cases/text").into_iter().filter(|case| case.model == model).collect()
}

fn inputs(model: &dyn Model, case: &Case) -> TensorList {
    model.signature().arrange(case.inputs.iter().cloned()).unwrap()
}

fn part(inputs: TensorList) -> Part {
    let rows = inputs[0].shape().rows().unwrap();
    Part { inputs, rows }
}

/// The answers to all cases in one run, and what was computed.
fn answers(model: &dyn Model, cases: &[Case], context: &RunContext<'_>) -> (Vec<Vec<Option<Tensor>>>, usize) {
    let batch = Batch::new(cases.iter().map(|case| part(inputs(model, case))).collect(), 0);
    let mut instance = model.instance().unwrap();
    let outputs = instance.run(&batch, context).unwrap();
    let shares = batch.split(&outputs, model.signature()).unwrap();
    (shares.into_iter().map(|share| share.into_iter().collect()).collect(), instance.computed())
}

fn check(model: &str, kernels: Kernels, grouping: Grouping, precision: Precision, slack: f64) -> usize {
    let loaded = load(model, kernels, grouping, precision);
    let cases = cases(model);
    let (answers, computed) = answers(&*loaded, &cases, &RunContext::plain());
    for (case, answer) in cases.iter().zip(answers) {
        for (name, want) in &case.outputs {
            let got = answer[loaded.signature().output_index(name).unwrap()].clone().unwrap();
            assert_close(&got, want, case.tolerance * slack, &format!("{model} {name} {kernels:?} {grouping:?}"));
        }
    }
    computed
}

const MODELS: [&str; 6] =
    ["bert_mean", "bert_pooled", "bert_dense", "distilbert_labels", "roberta_mean", "xlm_roberta_ranker"];

/// What runs on cards, tried on the CPU: rows joined by length, and rows padded to the longest of their group.
#[test]
fn candles_operations_give_the_same_as_our_own() {
    let tokens = |model: &str| check(model, Kernels::Own, Grouping::Equal, Precision::Fp32, 1.0);
    for model in MODELS {
        let tokens = tokens(model);
        assert_eq!(check(model, Kernels::Candle, Grouping::Equal, Precision::Fp32, 1.0), tokens, "{model}");
        let padded = check(model, Kernels::Candle, Grouping::Similar(u64::MAX / 4), Precision::Fp32, 1.0);
        assert!(padded > tokens, "{model}: {padded} computed, {tokens} given");
        let between = check(model, Kernels::Candle, Grouping::Similar(100), Precision::Fp32, 1.0);
        assert!((tokens..padded).contains(&between), "{model}: {between} computed");
    }
}

/// As on a card, where all of a layer is computed in 16 bits.
#[test]
fn candles_operations_work_in_half_precision() {
    // Sums over a text's tokens have a larger error than the vectors; they are computed in FP32 from them anyhow.
    for model in MODELS.into_iter().filter(|model| *model != "bert_pooled") {
        check(model, Kernels::Candle, Grouping::Similar(u64::MAX / 4), Precision::Fp16, 4e3);
        check(model, Kernels::Candle, Grouping::Similar(u64::MAX / 4), Precision::Bf16, 3e4);
    }
}

#[test]
fn only_what_is_wanted_is_computed_and_the_last_layer_only_for_tokens_that_are_looked_at() {
    for (model, index) in [("bert_mean", 0), ("bert_mean", 1), ("bert_mean", 2), ("bert_cls", 0), ("roberta_labels", 0)]
    {
        for kernels in [Kernels::Own, Kernels::Candle] {
            let loaded = load(model, kernels, Grouping::Similar(1000), Precision::Fp32);
            let cases = cases(model);
            let (all, _) = answers(&*loaded, &cases, &RunContext::plain());
            let only = Wanted::Only([index].as_slice().into());
            let context = RunContext { wanted: &only, ..RunContext::plain() };
            let (some, _) = answers(&*loaded, &cases, &context);
            for ((all, some), case) in all.iter().zip(&some).zip(&cases) {
                let given: Vec<usize> = (0..some.len()).filter(|index| some[*index].is_some()).collect();
                assert_eq!(given, [index], "{model}");
                let (all, some) = (all[index].as_ref().unwrap(), some[index].as_ref().unwrap());
                assert_close(some, all, case.tolerance, model);
            }
        }
    }
}

/// Columns of padding on either side change no bit: they are not computed.
#[test]
fn padding_inside_a_request_makes_no_difference() {
    for model in ["bert_mean", "distilbert_mean", "roberta_mean"] {
        let loaded = own(model);
        let (pad, positions_count_from_tokens) = if model == "roberta_mean" { (1, true) } else { (0, false) };
        let bare = [vec![5_i64, 9, 30, 31, 8], vec![1; 5], vec![0; 5]];
        let padded = |before: usize, after: usize| {
            let fill = |count: usize, value: i64| vec![value; count];
            let column = |index: usize| {
                let value = if index == 0 { pad } else { 0 };
                let row = [fill(before, value), bare[index].clone(), fill(after, value)].concat();
                Tensor::from_vec(&[1, row.len()], row).unwrap()
            };
            let inputs: TensorList = (0..loaded.signature().inputs().len()).map(column).collect();
            let batch = Batch::new(vec![part(inputs)], 0);
            let mut instance = loaded.instance().unwrap();
            let outputs = instance.run(&batch, &RunContext::plain()).unwrap();
            assert_eq!(instance.computed(), 5);
            outputs.0[0].clone().unwrap()
        };
        assert_eq!(padded(0, 0).bytes(), padded(0, 20).bytes(), "{model}");
        // Where a column is a position, another column is another text.
        let is_same = padded(0, 0).bytes() == padded(7, 3).bytes();
        assert_eq!(is_same, positions_count_from_tokens, "{model}");
    }
}

#[test]
fn several_threads_give_the_same_bits() {
    let loaded = own("bert_mean");
    let cases = cases("bert_mean");
    let bits = |threads: usize| {
        let (answers, _) = answers(&*loaded, &cases, &RunContext { threads, ..RunContext::plain() });
        answers.into_iter().flatten().map(|tensor| tensor.unwrap().bytes().cloned()).collect::<Vec<_>>()
    };
    assert_eq!(bits(1), bits(3));
}

#[test]
fn a_run_that_nobody_waits_for_stops_between_layers() {
    let loaded = own("bert_mean");
    let case = &cases("bert_mean")[0];
    for most in 0..3 {
        let asked = AtomicUsize::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::Relaxed) >= most;
        let context = RunContext { cancelled: &cancelled, ..RunContext::plain() };
        let batch = Batch::new(vec![part(inputs(&*loaded, case))], 0);
        let outcome = loaded.instance().unwrap().run(&batch, &context);
        assert!(matches!(outcome, Err(RunError::Cancelled)), "after {most}");
        assert_eq!(asked.into_inner(), most + 1);
    }
}

/// The fault that `ids`, `mask` and `types` of one row are refused for, the same before the queue and in a run.
fn fault(model: &dyn Model, ids: &[i64], mask: &[i64], types: &[i64]) -> String {
    let rows = [ids, mask, types];
    let tensor = |row: &&[i64]| Tensor::from_vec(&[1, row.len()], row.to_vec()).unwrap();
    let inputs: TensorList = rows[..model.signature().inputs().len()].iter().map(tensor).collect();
    let admission = model.signature().check(&inputs).unwrap();
    let error: InputError = model.weigh(&inputs, &admission).unwrap_err();
    let batch = Batch::new(vec![part(inputs)], 0);
    match model.instance().unwrap().run(&batch, &RunContext::plain()) {
        Err(RunError::InvalidInput(text)) => assert_eq!(text, error.to_string()),
        other => panic!("expected InvalidInput, got {other:?}"),
    }
    error.to_string()
}

#[test]
fn values_that_the_model_has_no_vector_for_are_refused_by_name() {
    let bert = own("bert_mean");
    let of = |ids: &[i64], mask: &[i64], types: &[i64]| fault(&*bert, ids, mask, types);
    assert_eq!(
        of(&[1, 261], &[1, 1], &[0, 0]),
        "input `input_ids`, instance 0: column 1 is 261; the vocabulary has ids from 0 to 260"
    );
    assert!(of(&[-1], &[1], &[0]).contains("column 0 is -1"));
    assert!(of(&[i64::MAX], &[1], &[0]).contains("the vocabulary has"));
    assert!(of(&[i64::from(u32::MAX) + 6], &[1], &[0]).contains("the vocabulary has"));
    assert_eq!(of(&[1, 1], &[1, 2], &[0, 0]), "input `attention_mask`, instance 0: column 1 is 2; expected 0 or 1");
    assert_eq!(of(&[1, 1], &[0, 0], &[0, 0]), "input `attention_mask`, instance 0: it has no 1");
    assert_eq!(of(&[1, 1], &[1, 1], &[0, 2]), "input `token_type_ids`, instance 0: column 1 is 2; expected 0 to 1");
    let long = vec![1; 65];
    assert_eq!(of(&long, &long, &long), "input `input_ids`, instance 0: it is longer than 64 tokens");
    let roberta = own("roberta_mean");
    let most = roberta.facts().properties["most tokens"].parse::<usize>().unwrap();
    let (ids, ones) = (vec![5; most + 1], vec![1; most + 1]);
    let text = fault(&*roberta, &ids, &ones, &[]);
    assert_eq!(text, format!("input `input_ids`, instance 0: it is longer than {most} tokens"));
    assert_eq!(fault(&*roberta, &[], &[], &[]), "input `input_ids`, instance 0: it has no tokens");
}

/// What nobody looks at is not checked, and a request weighs what it has tokens.
#[test]
fn a_request_weighs_its_tokens() {
    let bert = own("bert_mean");
    let tensor = |row: Vec<i64>| Tensor::from_vec(&[2, row.len() / 2], row).unwrap();
    let inputs: TensorList = [vec![1, -5, 3, 4, 5, 9999], vec![1, 0, 1, 1, 1, 0], vec![0, 77, 1, 1, 0, -1]]
        .map(tensor)
        .into_iter()
        .collect();
    let admission = bert.signature().check(&inputs).unwrap();
    assert_eq!(bert.weigh(&inputs, &admission).unwrap(), 4);
}

#[test]
fn facts_say_what_was_loaded() {
    let facts = load("bert_fp16", Kernels::Own, Grouping::Equal, Precision::Fp16).facts();
    let property = |name: &str| facts.properties[name].clone();
    assert_eq!(property("architecture"), "BertModel");
    assert_eq!(property("precision"), "FP16 weights, FP32 arithmetic");
    assert_eq!(property("pooling"), "mean");
    assert_eq!(property("device"), "cpu");
    assert_eq!(facts.weight_types.keys().collect::<Vec<_>>(), ["FP16"]);
    let half = load("bert_mean", Kernels::Own, Grouping::Equal, Precision::Fp16).memory_bytes();
    let full = own("bert_mean").memory_bytes();
    assert!(half < full * 6 / 10, "{half} of {full} bytes");
}

#[test]
fn a_request_has_no_more_columns_than_the_model_has_positions() {
    for (model, most) in [("bert_mean", 64), ("roberta_mean", 64)] {
        let loaded = own(model);
        let admit = |columns: usize| loaded.admit(&Admission { rows: 1, group: Group([columns].as_slice().into()) });
        assert!(admit(most).is_ok(), "{model}");
        let text = admit(1 << 20).unwrap_err().to_string();
        assert!(text.contains("it has 1048576 columns, padding included; expected at most 6"), "{model}: {text}");
    }
}
