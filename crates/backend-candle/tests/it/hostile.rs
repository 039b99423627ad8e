//! Files that are damaged or made to harm: each is refused with a text that says what is wrong, and nothing panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend, LoadError, LoadErrorKind, MemoryFiles, ModelSource};
use millrace_testkit::fixture_source;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const FOLDER: &str = "text-models/bert_labels/1";

/// The files of the fixture, some of them replaced or, where there is nothing to replace them, left out.
fn source(changes: &[(&str, Option<Vec<u8>>)]) -> ModelSource {
    let plain = fixture_source(FOLDER);
    let mut files = MemoryFiles::default();
    for (name, _) in plain.files.list() {
        if !changes.iter().any(|(changed, _)| changed == name) {
            files = files.with(name.clone(), plain.files.read(name).unwrap());
        }
    }
    for (name, content) in changes {
        if let Some(content) = content {
            files = files.with((*name).to_owned(), content.clone());
        }
    }
    ModelSource::new(plain.model, 1, Arc::new(files))
}

fn refused(source: &ModelSource) -> LoadError {
    match CandleBackend::default().load(source) {
        Ok(_) => panic!("it loaded"),
        Err(error) => error,
    }
}

fn check(changes: &[(&str, Option<Vec<u8>>)], kind: LoadErrorKind, part: &str) {
    let error = refused(&source(changes));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

/// `config.json` with one key changed.
fn config(key: &str, value: &str) -> Vec<u8> {
    let plain = fixture_source(FOLDER).files.read("config.json").unwrap();
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&plain).unwrap();
    entries.insert(key.to_owned(), serde_json::Value::Null);
    serde_json::to_string(&entries)
        .unwrap()
        .replace(&format!("\"{key}\":null"), &format!("\"{key}\":{value}"))
        .into_bytes()
}

fn check_config(key: &str, value: &str, kind: LoadErrorKind, part: &str) {
    check(&[("config.json", Some(config(key, value)))], kind, part);
}

/// The fixture's tensors with one of them changed, or left out.
fn tensors(name: &str, shape: Option<&[usize]>) -> Vec<u8> {
    let plain = fixture_source(FOLDER).files.read("model.safetensors").unwrap();
    let tensors = SafeTensors::deserialize(&plain).unwrap();
    let other = vec![0; shape.unwrap_or_default().iter().product::<usize>() * 4];
    let mut all: Vec<(String, TensorView<'_>)> = tensors.tensors();
    let at = all.iter().position(|(known, _)| known == name).expect("the fixture has the tensor");
    match shape {
        None => drop(all.remove(at)),
        Some(shape) => all[at].1 = TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &other).unwrap(),
    }
    safetensors::serialize(all, None).unwrap()
}

#[test]
fn a_folder_without_weights_or_configuration_says_so() {
    check(&[("model.safetensors", None)], LoadErrorKind::Missing, "expected model.safetensors");
    check(&[("config.json", None)], LoadErrorKind::Missing, "config.json: it cannot be read");
    let nothing = ModelSource::new("m".parse().unwrap(), 1, Arc::new(MemoryFiles::default()));
    assert!(!CandleBackend::default().recognises(&nothing));
    assert_eq!(refused(&nothing).kind(), LoadErrorKind::Missing);
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let name = "bert.encoder.layer.1.attention.self.key.weight";
    check(
        &[("model.safetensors", Some(tensors(name, None)))],
        LoadErrorKind::Invalid,
        &format!("the weights have no tensor `{name}`; expected one of shape [32, 32]"),
    );
    check(
        &[("model.safetensors", Some(tensors(name, Some(&[32, 31]))))],
        LoadErrorKind::Invalid,
        &format!("model.safetensors: tensor `{name}`: expected shape [32, 32], got [32, 31]"),
    );
    check(
        &[("model.safetensors", Some(tensors("classifier.weight", Some(&[2, 32]))))],
        LoadErrorKind::Invalid,
        "tensor `classifier.weight`: expected shape [3, 32], got [2, 32]",
    );
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_allocated() {
    for key in ["num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"] {
        for value in ["1000000000000", "0", "-1", "1e400", "1.5", "\"32\"", "NaN"] {
            let error = refused(&source(&[("config.json", Some(config(key, value)))]));
            assert_eq!(error.kind(), LoadErrorKind::Invalid, "{key} = {value}: {error}");
        }
    }
    // Possible, but not what the weights are.
    check_config("num_hidden_layers", "1000", LoadErrorKind::Invalid, "no tensor `bert.encoder.layer.2.");
    check_config("vocab_size", "16000000", LoadErrorKind::Invalid, "expected shape [16000000, 32]");
    check_config("num_attention_heads", "5", LoadErrorKind::Invalid, "num_attention_heads");
    for value in ["NaN", "Infinity", "-1", "1e999", "\"small\""] {
        let error = refused(&source(&[("config.json", Some(config("layer_norm_eps", value)))]));
        assert_eq!(error.kind(), LoadErrorKind::Invalid, "{value}: {error}");
    }
}

#[test]
fn what_does_not_load_is_named_with_what_does() {
    check_config(
        "model_type",
        "\"llama\"",
        LoadErrorKind::Unsupported,
        "model_type `llama` does not load here; expected one of bert, distilbert, roberta, xlm-roberta, camembert, vit, resnet",
    );
    check_config("position_embedding_type", "\"relative_key\"", LoadErrorKind::Unsupported, "relative_key");
    check_config("hidden_act", "\"mish\"", LoadErrorKind::Unsupported, "mish");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for (key, value, part) in [
        ("precision", "INT8", "option `precision`: expected one of \"FP32\", \"FP16\", \"BF16\", got `INT8`"),
        ("precison", "FP16", "did you mean `precision`?"),
        ("pooling", "sum", "option `pooling`"),
        ("pooling", "mean", "the model classifies"),
    ] {
        let mut source = source(&[]);
        source.options.insert(key.to_owned(), value.to_owned());
        let error = refused(&source);
        assert_eq!(error.kind(), LoadErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_budget_that_is_too_small_is_an_answer() {
    let mut source = source(&[]);
    for budget in [0, 1000, 200_000] {
        source.memory_budget = budget;
        assert_eq!(refused(&source).kind(), LoadErrorKind::TooLarge, "{budget}");
    }
    source.memory_budget = 300_000;
    CandleBackend::default().load(&source).unwrap();
}

/// Bytes that the safetensors file `name` of `source` needs while it loads, where its numbers are in FP32: those of the file, and
/// of the tensors made from it.
fn needed(source: &ModelSource, name: &str) -> u64 {
    let content = source.files.read(name).unwrap();
    let header = u64::from_le_bytes(content[..8].try_into().unwrap());
    2 * content.len() as u64 - 8 - header
}

#[test]
fn the_weights_of_all_modules_count_together() {
    let mut source = fixture_source("text-models/bert_dense/1");
    let all = needed(&source, "model.safetensors") + needed(&source, "2_Dense/model.safetensors");
    source.memory_budget = all - 1;
    let error = refused(&source);
    assert_eq!(error.kind(), LoadErrorKind::TooLarge);
    assert!(error.to_string().contains(&format!("{all} while they load, ")), "{error}");
    assert!(error.to_string().contains("for the model's other weights"), "{error}");
    source.memory_budget = all;
    CandleBackend::default().load(&source).unwrap();
}

#[test]
fn layers_beyond_those_of_the_configuration_are_left_out_and_told() {
    let load = |count: &str| {
        CandleBackend::default().load(&source(&[("config.json", Some(config("num_hidden_layers", count)))]))
    };
    let (whole, short) = (load("2").unwrap(), load("1").unwrap());
    assert_eq!(whole.facts().properties["layers"], "2");
    assert_eq!(short.facts().properties["layers"], "1, the first of 2");
    assert!(short.memory_bytes() < whole.memory_bytes());
    assert!(load("3").unwrap_err().to_string().contains("encoder.layer.2."));
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let whole = fixture_source(FOLDER).files.read("model.safetensors").unwrap();
    let gguf = fixture_source("gguf-models/bert_q8_0/1").files.read("model.gguf").unwrap();
    for end in (0..whole.len()).step_by(997) {
        let error = refused(&source(&[("model.safetensors", Some(whole[..end].to_vec()))]));
        assert_eq!(error.kind(), LoadErrorKind::Invalid, "{end}: {error}");
    }
    for end in (0..gguf.len()).step_by(97) {
        let files = MemoryFiles::default().with("model.gguf", gguf[..end].to_vec());
        let error = refused(&ModelSource::new("m".parse().unwrap(), 1, Arc::new(files)));
        assert_eq!(error.kind(), LoadErrorKind::Invalid, "{end}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever bytes change in a configuration or a header: a model or an error, and no panic, which would be an error of
    /// the engine.
    #[test]
    fn changed_bytes_do_no_harm(
        file in 0_usize..3, changes in proptest::collection::vec((0_usize..4000, any::<u8>()), 1..6),
    ) {
        let (folder, name) = [(FOLDER, "config.json"), (FOLDER, "model.safetensors"), ("gguf-models/bert_q8_0/1", "model.gguf")][file];
        let plain = fixture_source(folder);
        let mut content = plain.files.read(name).unwrap().to_vec();
        for (at, byte) in changes {
            let at = at % content.len();
            content[at] = byte;
        }
        let source = if file == 2 {
            ModelSource::new(plain.model, 1, Arc::new(MemoryFiles::default().with(name, content)))
        } else {
            source(&[(name, Some(content))])
        };
        if let Err(error) = CandleBackend::default().load(&source) {
            prop_assert_ne!(error.kind(), LoadErrorKind::Engine, "{}", error);
        }
    }
}
