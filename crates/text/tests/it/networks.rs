//! ONNX text networks take and give what every text model does, and no more padding is computed than pays.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_backend_tract::TractBackend;
use millrace_core::{
    Admission, Backend, Batch, BatchOutputs, DType, Group, LoadErrorKind, MemoryFiles, Model, ModelSource, Part,
    RunContext, RunError, Signature, Tensor, TensorList, TextTask, Wanted,
};
use millrace_testkit::conformance::{self, Subject};
use millrace_testkit::{Case, fixture_source};
use millrace_text::TextBackend;
use serde_json::json;

use crate::replay::Replay;
use crate::tools::{open, source};

fn cases(model: &str) -> Vec<Case> {
    Case::folder("cases/text").into_iter().filter(|case| case.model == model).collect()
}

fn tract() -> TextBackend {
    TextBackend::over(Arc::new(TractBackend::default()))
}

fn replayed(replay: &Replay, source: &ModelSource) -> Arc<dyn Model> {
    TextBackend::over(Arc::new(replay.clone())).load(source).unwrap()
}

fn ints(sizes: &[usize], numbers: Vec<i64>) -> Tensor {
    Tensor::from_vec(sizes, numbers).unwrap()
}

fn part(signature: &Signature, inputs: &[(String, Tensor)]) -> Part {
    let inputs = signature.arrange(inputs.iter().cloned()).unwrap();
    let rows = signature.check(&inputs).unwrap().rows;
    Part { inputs, rows }
}

fn ask(model: &dyn Model, parts: Vec<Part>) -> Result<(Batch, BatchOutputs, usize), RunError> {
    let mut instance = model.instance().unwrap();
    let batch = Batch::new(parts, 0);
    let outputs = instance.run(&batch, &RunContext::plain())?;
    Ok((batch, outputs, instance.computed()))
}

/// Asks for each case by itself, and compares with what it says.
fn answers(model: &dyn Model, cases: &[Case]) {
    let names: Vec<String> = model.signature().outputs().iter().map(|spec| spec.name.to_string()).collect();
    for case in cases {
        let (batch, outputs, _) = ask(model, vec![part(model.signature(), &case.inputs)]).unwrap();
        let shares = batch.split(&outputs, model.signature()).unwrap().remove(0);
        case.check(names.iter().map(String::as_str).zip(shares.iter().map(|share| share.as_ref().unwrap())));
    }
}

#[test]
fn conforms_over_tract() {
    let subject = |model: &str| {
        let mut subject = Subject::new(source(model));
        for case in cases(model) {
            subject = subject.case(case.inputs, case.outputs, case.tolerance);
        }
        let outside = [
            ("input_ids", ints(&[1, 3], vec![2, 261, 3])),
            ("attention_mask", ints(&[1, 3], vec![1; 3])),
            ("token_type_ids", ints(&[1, 3], vec![0; 3])),
        ];
        subject.invalid(outside)
    };
    let own = source("bert_two_forms");
    let mut damaged = MemoryFiles::default().with("model.onnx", b"nonsense".to_vec());
    let mut no_config = MemoryFiles::default().with("config.json", b"{".to_vec());
    for name in ["tokenizer.json", "model.onnx"] {
        let content = own.files.read(name).unwrap();
        damaged = if name == "model.onnx" { damaged } else { damaged.with(name, content.clone()) };
        no_config = no_config.with(name, content);
    }
    let bad = [damaged, no_config].map(|files| ModelSource::new("bad".parse().unwrap(), 1, Arc::new(files)));
    conformance::run(
        &tract(),
        &["bert_two_forms", "bert_two_forms_pooled", "bert_labels_two_forms"].map(subject),
        &bad,
        &[],
    );
}

#[test]
fn exported_networks_get_the_form_of_all_text_models() {
    let backend = tract();
    assert_eq!(backend.name(), "tract");
    let text = |model: &str| {
        let signature = backend.load(&source(model)).unwrap().signature().clone();
        let specs = signature.inputs().iter().chain(signature.outputs());
        (specs.map(ToString::to_string).collect::<Vec<_>>(), signature.is_mixed())
    };
    let tokens = ["input_ids", "attention_mask", "token_type_ids"].map(|name| format!("{name} INT64[batch,sequence]"));
    let (specs, is_mixed) = text("bert_two_forms");
    let outputs =
        ["sentence_embedding FP32[batch,32]", "pooled FP32[batch,32]", "last_hidden_state FP32[batch,sequence,32]"];
    assert_eq!((&specs[..3], &specs[3..], is_mixed), (&tokens[..], &outputs.map(str::to_owned)[..], true));
    assert_eq!(text("bert_two_forms_pooled").0, specs, "whatever the network itself makes of the tokens' vectors");
    assert_eq!(text("bert_labels_two_forms").0[3..], ["logits FP32[batch,3]"]);
    for (model, task) in [("bert_two_forms", TextTask::Embedding), ("bert_labels_two_forms", TextTask::Classification)]
    {
        let source = source(model);
        let network = backend.load(&source).unwrap().signature().clone();
        assert_eq!(open(&source, &network, &[]).unwrap().unwrap().facts().task, task);
        let said = backend.load(&source).unwrap().facts().properties.remove("pooling");
        assert_eq!(said.as_deref(), (task == TextTask::Embedding).then_some("mean"));
    }
}

#[test]
fn other_networks_are_left_as_they_are() {
    let own = fixture_source("models/fraud/1");
    let plain = TractBackend::default().load(&own).unwrap();
    assert_eq!(tract().load(&own).unwrap().signature(), plain.signature());
    let tokenizer = source("bert_mean").files.read("tokenizer.json").unwrap();
    let onnx = own.files.read("model.onnx").unwrap();
    let files = MemoryFiles::default().with("tokenizer.json", tokenizer).with("model.onnx", onnx);
    let mut beside = ModelSource::new(own.model, 1, Arc::new(files));
    assert_eq!(tract().load(&beside).unwrap().signature(), plain.signature());
    beside.options = [("pooling".to_owned(), "cls".to_owned())].into();
    let error = tract().load(&beside).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Invalid);
    assert!(error.to_string().contains("no text network"), "{error}");
}

#[test]
fn tokens_are_pooled_and_projected_as_the_folders_say() {
    // Three poolings, a linear layer, with and without length 1: what `sentence-transformers` gives for the same vectors.
    for model in
        ["bert_mean", "bert_cls", "bert_dense", "bert_pooled", "bert_masked_lm", "roberta_mean", "distilbert_mean"]
    {
        let mut replay = Replay::of(model);
        if !model.starts_with("bert") {
            replay.inputs.pop();
        }
        let loaded = replayed(&replay, &source(model));
        answers(&*loaded, &cases(model));
    }
}

#[test]
fn exporters_names_and_types_make_no_difference() {
    let source = source("bert_mean");
    let mut replay = Replay::of("bert_mean");
    replay.inputs =
        vec![("attention_mask", DType::Int32), ("token_type_ids", DType::Int32), ("input_ids", DType::Int32)];
    replay.outputs = vec!["pooler_output", "odd_hidden_name"];
    answers(&*replayed(&replay, &source), &cases("bert_mean"));
}

/// The fixture `model` with no files but these.
fn only(model: &str, names: &[&str]) -> ModelSource {
    let own = source(model);
    let with = |files: MemoryFiles, name: &&str| files.with(*name, own.files.read(name).unwrap());
    let files = names.iter().fold(MemoryFiles::default(), with);
    ModelSource::new(own.model, 1, Arc::new(files))
}

fn outputs(model: &dyn Model) -> Vec<String> {
    model.signature().outputs().iter().map(ToString::to_string).collect()
}

#[test]
fn a_network_that_pools_is_believed_where_nothing_else_says_how() {
    let mut replay = Replay::of("bert_mean");
    // It takes the first token.
    replay.outputs = vec!["token_embeddings", "sentence_embedding"];
    let mut bare = only("bert_mean", &["config.json", "tokenizer.json"]);
    let model = replayed(&replay, &bare);
    let (sentence, tokens) = ("sentence_embedding FP32[batch,32]", "last_hidden_state FP32[batch,sequence,32]");
    assert_eq!(outputs(&*model), [sentence, tokens]);
    let case = &cases("bert_mean")[0];
    let (_, given, _) = ask(&*model, vec![part(model.signature(), &case.inputs)]).unwrap();
    let (embedding, hidden) = (given.0[0].clone().unwrap(), given.0[1].clone().unwrap());
    assert_eq!(embedding.elements::<f32>().unwrap()[..], hidden.elements::<f32>().unwrap()[..32]);

    // The folder says the mean, and length 1: what other engines give for it.
    let model = replayed(&replay, &source("bert_mean"));
    assert_eq!(outputs(&*model), [sentence, "pooled FP32[batch,32]", tokens]);
    answers(&*model, &cases("bert_mean"));
    // So does the option, without the length.
    bare.options = [("pooling".to_owned(), "mean".to_owned())].into();
    let model = replayed(&replay, &bare);
    assert_eq!(outputs(&*model), [sentence, tokens]);
    let (_, given, _) = ask(&*model, vec![part(model.signature(), &case.inputs)]).unwrap();
    let pooled = &case.outputs.iter().find(|(name, _)| name == "pooled").unwrap().1;
    let (got, want) = (given.0[0].clone().unwrap(), pooled.elements::<f32>().unwrap());
    for (got, want) in got.elements::<f32>().unwrap().iter().zip(want.iter()) {
        assert!((got - want).abs() < 1e-5, "{got} for {want}");
    }
}

#[test]
fn an_option_that_would_not_be_heeded_is_refused() {
    let mut replay = Replay::of("bert_mean");
    let refused = |replay: &Replay, mut source: ModelSource| {
        source.options = [("pooling".to_owned(), "cls".to_owned())].into();
        let error = TextBackend::over(Arc::new(replay.clone())).load(&source).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::Invalid);
        error.to_string()
    };
    assert_eq!(refused(&replay, source("bert_mean")), "option `pooling`: the model's own files say `mean`");
    replay.outputs = vec!["sentence_embedding"];
    let alone = refused(&replay, only("bert_mean", &["config.json", "tokenizer.json"]));
    assert!(alone.starts_with("option `pooling`: the network pools by itself"), "{alone}");
    replay.outputs = vec!["logits"];
    let labels = refused(&replay, only("bert_labels", &["config.json", "tokenizer.json"]));
    assert_eq!(labels, "option `pooling`: the model classifies, and pools nothing");
}

#[test]
fn the_option_decides_where_the_folder_does_not() {
    let mut bare = only("bert_cls", &["config.json", "tokenizer.json"]);
    bare.options = [("pooling".to_owned(), "cls".to_owned())].into();
    let replay = Replay::of("bert_cls");
    answers(&*replayed(&replay, &bare), &cases("bert_cls"));
    bare.options = [("pooling".to_owned(), "best".to_owned())].into();
    let error = TextBackend::over(Arc::new(replay)).load(&bare).unwrap_err().to_string();
    assert!(error.starts_with("option `pooling`: expected one of \"cls\", \"max\""), "{error}");
}

/// Requests of one row each, cut out of the golden rows, so that the batch has all lengths.
fn of_all_lengths(signature: &Signature) -> (Vec<Part>, usize) {
    let mut parts = Vec::new();
    for case in cases("bert_mean") {
        let whole = part(signature, &case.inputs);
        for row in 0..whole.rows {
            let inputs: TensorList = whole.inputs.iter().map(|tensor| tensor.rows(row..row + 1)).collect();
            parts.push(Part { inputs, rows: 1 });
        }
    }
    let tokens =
        parts.iter().map(|part| part.inputs[1].elements::<i64>().unwrap().iter().filter(|one| **one == 1).count());
    let tokens = tokens.sum();
    (parts, tokens)
}

#[test]
fn padding_is_computed_only_where_it_pays() {
    let replay = Replay::of("bert_mean");
    let model = replayed(&replay, &source("bert_mean"));
    let (parts, tokens) = of_all_lengths(model.signature());
    let longest = parts.iter().map(|part| part.inputs[0].shape()[1]).max().unwrap();
    let rows = parts.len();
    let (batch, outputs, computed) = ask(&*model, parts).unwrap();
    assert!(
        computed >= tokens && computed * 4 < rows * longest * 3,
        "{computed} of {tokens}, {rows} rows of {longest}"
    );
    let runs = replay.runs.load(Ordering::SeqCst);
    assert!(runs > 1 && runs < rows, "{runs} runs for {rows} rows");
    let shares = batch.split(&outputs, model.signature()).unwrap();
    for (share, part) in shares.iter().zip(batch.parts()) {
        let lone = ask(&*model, vec![part.clone()]).unwrap().1;
        assert_eq!(share.as_slice(), lone.0.as_slice(), "a row's answer does not hang on who rides along");
    }
}

#[test]
fn runs_are_no_larger_than_the_engine_takes() {
    let mut replay = Replay::of("bert_mean");
    replay.most = 64;
    let model = replayed(&replay, &source("bert_mean"));
    let (mut parts, _) = of_all_lengths(model.signature());
    // Ten rows of one length, which would be one run.
    parts = std::iter::repeat_n(parts[2].clone(), 10).collect();
    let (batch, outputs, _) = ask(&*model, parts).unwrap();
    assert!(replay.runs.load(Ordering::SeqCst) >= 5);
    batch.split(&outputs, model.signature()).unwrap();
}

#[test]
fn only_what_is_wanted_is_made() {
    let model = replayed(&Replay::of("bert_mean"), &source("bert_mean"));
    let batch = Batch::new(vec![part(model.signature(), &cases("bert_mean")[1].inputs)], 0);
    for index in 0..3 {
        let wanted = Wanted::Only([index].as_slice().into());
        let context = RunContext { wanted: &wanted, ..RunContext::plain() };
        let outputs = model.instance().unwrap().run(&batch, &context).unwrap();
        let there: Vec<bool> = outputs.0.iter().map(Option::is_some).collect();
        assert_eq!(there, [index == 0, index == 1, index == 2]);
    }
    let context = RunContext { cancelled: &|| true, ..RunContext::plain() };
    assert!(matches!(model.instance().unwrap().run(&batch, &context), Err(RunError::Cancelled)));
}

#[test]
fn requests_are_weighed_in_tokens_and_checked() {
    let model = replayed(&Replay::of("bert_mean"), &source("bert_mean"));
    let weigh = |ids: Vec<i64>, mask: Vec<i64>, types: Vec<i64>| {
        let sizes = [1, ids.len()];
        let inputs = [ints(&sizes, ids), ints(&sizes, mask), ints(&sizes, types)];
        let admission = model.signature().check(&inputs).unwrap();
        model.weigh(&inputs, &admission).map_err(|error| error.to_string())
    };
    assert_eq!(
        weigh(vec![2, 5, 3, -7], vec![1, 0, 1, 0], vec![0, 0, 1, 99]),
        Ok(2),
        "behind the last token nobody looks"
    );
    let text =
        |ids: &[i64], mask: &[i64], types: &[i64]| weigh(ids.to_vec(), mask.to_vec(), types.to_vec()).unwrap_err();
    assert_eq!(
        text(&[2, 261], &[1, 1], &[0, 0]),
        "input `input_ids`, instance 0: 261 is out of range; expected 0 to 260"
    );
    assert_eq!(
        text(&[2, -1], &[1, 1], &[0, 0]),
        "input `input_ids`, instance 0: -1 is out of range; expected 0 to 260"
    );
    assert_eq!(text(&[2, 5], &[1, 2], &[0, 0]), "input `attention_mask`, instance 0: expected 0 and 1, got 2");
    assert!(text(&[2, 5], &[0, 0], &[0, 0]).contains("expected at least one 1"));
    assert_eq!(
        text(&[2, 5], &[1, 1], &[0, 2]),
        "input `token_type_ids`, instance 0: 2 is out of range; expected 0 to 1"
    );
    assert!(text(&[2; 65], &[1; 65], &[0; 65]).contains("expected at most 64 tokens, got 65"));
    // Columns that only hold padding cost nothing to run, but vectors of tokens have a place for each.
    let wide = |columns: usize| model.admit(&Admission { rows: 1, group: Group([columns].as_slice().into()) });
    assert!(wide(64).is_ok());
    assert!(
        wide(65).unwrap_err().to_string().contains("expected at most 64 tokens in a row, padding included, got 65")
    );
}

#[test]
fn a_folders_damaged_layers_are_refused() {
    let own = source("bert_dense");
    let changed = |name: &str, content: Option<Vec<u8>>| {
        let mut files = MemoryFiles::default();
        for (known, _) in own.files.list().iter().filter(|(known, _)| known != name) {
            files = files.with(known.clone(), own.files.read(known).unwrap());
        }
        let files = match content {
            Some(content) => files.with(name, content),
            None => files,
        };
        let source = ModelSource::new(own.model.clone(), 1, Arc::new(files));
        TextBackend::over(Arc::new(Replay::of("bert_dense"))).load(&source).unwrap_err().to_string()
    };
    let mut within = own.clone();
    let bytes = own.files.list().iter().find(|(name, _)| name == "2_Dense/model.safetensors").unwrap().1;
    // The file, and twice 16 × 33 numbers.
    let needed = bytes + 2 * 4 * 16 * 33;
    within.memory_budget = needed;
    let load = |source: &ModelSource| TextBackend::over(Arc::new(Replay::of("bert_dense"))).load(source);
    load(&within).unwrap();
    within.memory_budget = needed - 1;
    let error = load(&within).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge);
    assert!(error.to_string().contains(&format!("{needed} bytes are needed while it loads, 0 of them")), "{error}");
    let weights = "2_Dense/model.safetensors";
    assert!(changed(weights, None).starts_with("2_Dense/model.safetensors: is missing"));
    assert!(changed(weights, Some(b"nonsense".to_vec())).starts_with("2_Dense/model.safetensors: "));
    let wide = json!({"in_features": 32, "out_features": 7, "bias": true, "activation_function": "torch.nn.modules.linear.Identity"});
    assert!(changed("2_Dense/config.json", Some(wide.to_string().into_bytes())).contains("`linear.weight` has shape"));
}
