//! What real folders say is read; what none says is refused with the key, what was given and what would be right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::*;

fn config(value: &Value) -> Result<Config, HuggingFaceError> {
    Config::parse(value.to_string().as_bytes())
}

/// `base` with the keys of `change` put over it; `null` takes a key away.
fn with(base: &Value, change: &Value) -> Value {
    let mut whole = base.clone();
    for (key, value) in change.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

fn bert() -> Value {
    json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": 384,
        "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "num_attention_heads": 12,
        "num_hidden_layers": 6, "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
        "vocab_size": 30522, "torch_dtype": "float32",
    })
}

/// The text of the error that `bert` with `change` gives, at once or when its sizes are asked for.
fn refused(change: &Value) -> String {
    match config(&with(&bert(), change)).and_then(|config| config.text()) {
        Ok(read) => panic!("{change} was read as {read:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_bert_folder_says_its_sizes() {
    let config = config(&bert()).unwrap();
    assert_eq!((config.model_type(), config.head()), ("bert", Head::None));
    assert_eq!(config.precision(), Some(Precision::Fp32));
    let text = config.text().unwrap().unwrap();
    assert_eq!((text.vocab_size, text.hidden_size, text.layers, text.heads), (30522, 384, 6, 12));
    assert_eq!((text.intermediate_size, text.head_size(), text.max_tokens()), (1536, 32, 512));
    assert_eq!((text.activation, text.pad_token_id, text.layer_norm_eps), (Activation::Gelu, 0, 1e-12));
    assert!(text.has_token_types());
    assert!(config.vit().unwrap().is_none() && config.resnet().unwrap().is_none());
}

#[test]
fn distilbert_has_names_of_its_own() {
    let config = config(&json!({
        "model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "activation": "relu",
        "max_position_embeddings": 40, "vocab_size": 99, "architectures": ["DistilBertForSequenceClassification"],
        "id2label": {"1": "good", "0": "bad"}, "problem_type": "multi_label_classification", "dtype": "bfloat16",
    }))
    .unwrap();
    assert_eq!((config.head(), config.labels()), (Head::Sequence, &["bad".to_owned(), "good".to_owned()][..]));
    assert_eq!(config.problem_type(), Some(ProblemType::MultiLabel));
    assert_eq!(config.precision(), Some(Precision::Bf16));
    let text = config.text().unwrap().unwrap();
    assert_eq!((text.hidden_size, text.layers, text.heads, text.intermediate_size), (32, 2, 4, 64));
    assert_eq!((text.type_vocab_size, text.activation, text.max_tokens()), (0, Activation::Relu, 40));
    assert!(!text.has_token_types());
}

#[test]
fn robertas_positions_begin_behind_the_padding_token() {
    for model_type in ["roberta", "xlm-roberta", "camembert"] {
        let change = json!({"model_type": model_type, "pad_token_id": null, "max_position_embeddings": 514});
        let text = config(&with(&bert(), &change)).unwrap().text().unwrap().unwrap();
        assert_eq!((text.pad_token_id, text.first_position(), text.max_tokens()), (1, 2, 512));
        assert!(text.family.is_roberta() && !text.has_token_types());
    }
    assert!(
        refused(&json!({"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 1}))
            .contains("`max_position_embeddings` is 2; expected more than 2")
    );
}

#[test]
fn an_unknown_family_is_not_an_error_and_still_says_what_all_say() {
    let config = config(&json!({"model_type": "mpnet", "max_position_embeddings": 514, "vocab_size": 7})).unwrap();
    assert_eq!(config.text().unwrap(), None);
    assert_eq!((config.max_tokens().unwrap(), config.vocab_size().unwrap()), (Some(514), Some(7)));
    let unlimited = Config::parse(br#"{"model_type": "xlnet", "max_position_embeddings": -1}"#).unwrap();
    assert_eq!((unlimited.max_tokens().unwrap(), unlimited.labels().len()), (None, 2));
}

#[test]
fn a_wrong_key_is_named_with_what_was_given_and_what_would_be_right() {
    let cases = [
        (json!({"model_type": null}), "config.json: `model_type` is missing; expected the name of the architecture"),
        (
            json!({"hidden_size": null}),
            "config.json: `hidden_size` is missing; expected a whole number from 1 to 65536",
        ),
        (json!({"hidden_size": "384"}), "`hidden_size` is \"384\"; expected a whole number"),
        (json!({"hidden_size": 0}), "`hidden_size` is 0; expected a whole number"),
        (json!({"hidden_size": 1e18}), "`hidden_size` is 1e+18; expected a whole number"),
        (json!({"hidden_size": -1}), "`hidden_size` is -1; expected"),
        (json!({"num_hidden_layers": 2000}), "`num_hidden_layers` is 2000; expected a whole number from 1 to 1024"),
        (
            json!({"num_attention_heads": 7}),
            "`num_attention_heads` is 7; expected a divisor of `hidden_size`, which is 384",
        ),
        (json!({"layer_norm_eps": "x"}), "`layer_norm_eps` is \"x\"; expected a number from 0 to 1"),
        (json!({"hidden_act": "magic"}), "`hidden_act` is \"magic\", which is not supported; known: gelu, "),
        (json!({"hidden_act": 3}), "`hidden_act` is 3; expected a string"),
        (
            json!({"position_embedding_type": "relative_key"}),
            "`position_embedding_type` is \"relative_key\", which is not",
        ),
        (json!({"is_decoder": true}), "`is_decoder` is true, which is not supported; known: false"),
        (json!({"pad_token_id": 30522}), "`pad_token_id` is 30522; expected less than `vocab_size`, 30522"),
        (json!({"architectures": [1]}), "`architectures` is a list of 1; expected a list of names"),
        (json!({"id2label": {"0": "a", "2": "b"}}), "`id2label` is an object of 2; expected the numbers 0, 1, 2"),
        (json!({"id2label": {"0": "a"}, "num_labels": 3}), "`id2label` is an object of 1; expected 3 labels"),
        (json!({"problem_type": "riddle"}), "`problem_type` is \"riddle\", which is not supported"),
    ];
    for (change, expected) in cases {
        let text = refused(&change);
        assert!(text.contains(expected), "{change}: {text}");
    }
    assert_eq!(Config::parse(b"[1]").unwrap_err().to_string(), "config.json: expected an object, got a list of 1");
    assert!(Config::parse(b"{").unwrap_err().to_string().starts_with("config.json: EOF"));
    let large = vec![b' '; MAX_FILE_BYTES + 1];
    assert!(matches!(Config::parse(&large), Err(HuggingFaceError::TooLarge { .. })));
}

#[test]
fn labels_come_from_any_of_three_places() {
    let labels = |change: Value| config(&with(&bert(), &change)).unwrap().labels().join(",");
    assert_eq!(labels(json!({"num_labels": 3})), "LABEL_0,LABEL_1,LABEL_2");
    assert_eq!(labels(json!({"label2id": {"b": 1, "a": 0}})), "a,b");
    assert_eq!(labels(json!({"id2label": {"0": "x"}, "label2id": {"b": 1, "a": 0}})), "x");
    assert_eq!(labels(json!({"id2label": {"0": 5, "1": 6}})), "5,6");
    assert_eq!(labels(json!({})), "LABEL_0,LABEL_1");
}

#[test]
fn pictures_have_sizes_too() {
    let vit = json!({
        "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": [32, 48], "patch_size": 16, "qkv_bias": false, "architectures": ["ViTForImageClassification"],
    });
    let read = config(&vit).unwrap();
    assert_eq!(read.head(), Head::Image);
    let read = read.vit().unwrap().unwrap();
    assert_eq!((read.image_size, read.patch_size, read.n_patches(), read.channels), ((32, 48), (16, 16), 6, 3));
    assert!(!read.qkv_bias && read.pooler_size == 32 && read.pooler_activation == Activation::Tanh);
    let fault = |change| config(&with(&vit, &change)).unwrap().vit().unwrap_err().to_string();
    assert!(fault(json!({"patch_size": 64})).contains("`image_size` is a list of 2; expected at least one patch"));
    assert!(fault(json!({"image_size": [1, 2, 3]})).contains("`image_size` is a list of 3; expected"));
    assert!(fault(json!({"image_size": null})).contains("`image_size` is missing"));

    let resnet = json!({
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "layer_type": "basic",
    });
    let read = config(&resnet).unwrap().resnet().unwrap().unwrap();
    assert_eq!((read.layer, &read.depths[..], read.activation), (ResnetLayer::Basic, &[1, 2][..], Activation::Relu));
    let fault = |change| config(&with(&resnet, &change)).unwrap().resnet().unwrap_err().to_string();
    assert!(
        fault(json!({"depths": [1]})).contains("`depths` is a list of 1; expected as many numbers as `hidden_sizes`")
    );
    assert!(fault(json!({"layer_type": "odd"})).contains("known: basic, bottleneck"));
    assert!(fault(json!({"layer_type": "bottleneck", "hidden_sizes": [6, 8]})).contains("multiples of 4"));
}

/// The modules that a folder of these files has.
fn modules(files: &[(&str, Value)]) -> Result<SentenceModules, HuggingFaceError> {
    let files: BTreeMap<&str, Vec<u8>> =
        files.iter().map(|(name, value)| (*name, value.to_string().into_bytes())).collect();
    SentenceModules::read(|name| Ok(files.get(name).cloned()))
}

fn module(path: &str, class: &str) -> Value {
    json!({"idx": 0, "name": "0", "path": path, "type": format!("sentence_transformers.models.{class}")})
}

#[test]
fn modules_are_read_in_order() {
    let list = json!([
        module("", "Transformer"),
        module("1_Pooling", "Pooling"),
        module("2_Dense", "Dense"),
        {"idx": 3, "path": "3_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
    ]);
    let read = modules(&[
        ("modules.json", list),
        ("1_Pooling/config.json", json!({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})),
        ("2_Dense/config.json", json!({"in_features": 8, "out_features": 3, "bias": false, "activation_function": "torch.nn.modules.linear.Identity"})),
    ])
    .unwrap();
    let pooling = read.pooling_or(Some(PoolingMode::Max));
    assert_eq!((pooling.to_string(), pooling.includes_prompt), ("cls+mean".to_owned(), true));
    let dense = Dense {
        folder: "2_Dense".to_owned(),
        inputs: 8,
        outputs: 3,
        has_bias: false,
        activation: Activation::Identity,
    };
    assert_eq!(read.steps, [SentenceStep::Dense(dense), SentenceStep::Normalize]);
    assert!(read.is_normalised());
    assert_eq!(read.dimension(&pooling, 4).unwrap(), 3);
    assert!(read.dimension(&pooling, 5).unwrap_err().to_string().contains("`Pooling` is 4; expected 5 numbers"));
}

#[test]
fn every_pooling_has_a_word_and_an_older_key() {
    for (word, mode) in PoolingMode::WORDS {
        assert_eq!(mode.name(), word);
        let newer = Pooling::parse("p", json!({"pooling_mode": word, "embedding_dimension": 2}).to_string().as_bytes())
            .unwrap();
        assert_eq!((newer.modes, newer.dimension), (vec![mode], Some(2)));
    }
    let keys = [
        ("cls_token", PoolingMode::Cls),
        ("max_tokens", PoolingMode::Max),
        ("mean_tokens", PoolingMode::Mean),
        ("mean_sqrt_len_tokens", PoolingMode::MeanSqrtLen),
        ("weightedmean_tokens", PoolingMode::WeightedMean),
        ("lasttoken", PoolingMode::LastToken),
    ];
    for (key, mode) in keys {
        let older = Pooling::parse("p", json!({format!("pooling_mode_{key}"): true}).to_string().as_bytes()).unwrap();
        assert_eq!(older.modes, [mode]);
    }
    let both = json!({"pooling_mode": ["max", "cls"], "pooling_mode_mean_tokens": true, "include_prompt": false});
    let both = Pooling::parse("p", both.to_string().as_bytes()).unwrap();
    assert_eq!((both.to_string(), both.includes_prompt), ("max+cls".to_owned(), false));
    assert!(Pooling::parse("p", br#"{"pooling_mode": "best"}"#).unwrap_err().is_unsupported());
    assert!(Pooling::parse("p", br#"{"pooling_mode": []}"#).unwrap_err().to_string().contains("one word or a list"));
}

#[test]
fn a_folder_without_modules_takes_the_mean_or_what_its_pooling_says() {
    let none = modules(&[]).unwrap();
    assert_eq!(none.pooling_or(None).modes, [PoolingMode::Mean]);
    assert_eq!(none.pooling_or(Some(PoolingMode::Cls)).modes, [PoolingMode::Cls]);
    let only = modules(&[("1_Pooling/config.json", json!({"pooling_mode_cls_token": true}))]).unwrap();
    assert_eq!(only.pooling_or(Some(PoolingMode::Max)).modes, [PoolingMode::Cls]);
}

#[test]
fn modules_that_do_not_fit_are_refused() {
    let pooling = ("1_Pooling/config.json", json!({"word_embedding_dimension": 4}));
    let dense = |value| ("2_Dense/config.json", value);
    let chain =
        |class: &str| json!([module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Dense", class)]);
    let text = |files: &[(&str, Value)]| modules(files).unwrap_err().to_string();
    assert!(text(&[("modules.json", json!([]))]).contains("0 modules; expected 1 to 32"));
    assert!(text(&[("modules.json", json!({}))]).contains("expected a list of modules"));
    assert!(text(&[("modules.json", json!([module("", "BoW")]))]).contains("known: Transformer as the first module"));
    assert!(
        text(&[("modules.json", chain("LSTM")), pooling.clone()])
            .contains("which is not supported; known: Transformer,")
    );
    assert_eq!(
        text(&[("modules.json", chain("Dense")), pooling.clone()]),
        "2_Dense/config.json is missing, but modules.json names it"
    );
    let wide = json!({"in_features": 5, "out_features": 3});
    assert!(
        text(&[("modules.json", chain("Dense")), pooling.clone(), dense(wide)]).contains("`2_Dense` is 5; expected 4")
    );
    let residual = json!({"in_features": 4, "out_features": 4, "use_residual": true});
    assert!(
        text(&[("modules.json", chain("Dense")), pooling.clone(), dense(residual)]).contains("`use_residual` is true")
    );
    let strange = json!({"in_features": 4, "out_features": 4, "activation_function": "os.system"});
    assert!(
        text(&[("modules.json", chain("Dense")), pooling, dense(strange)])
            .contains("`activation_function` is \"os.system\"")
    );
    let early = json!([module("", "Transformer"), module("2", "Normalize")]);
    assert!(text(&[("modules.json", early)]).contains("expected a Pooling in front of it"));
    let error = SentenceModules::read(|_| Err::<Option<Vec<u8>>, _>(std::io::ErrorKind::PermissionDenied.into()));
    assert_eq!(error.unwrap_err().to_string(), "modules.json cannot be read");
}

#[test]
fn lengths_and_prompts_are_read() {
    let read = TokenizerConfig::parse(br#"{"model_max_length": 512, "truncation_side": "left"}"#).unwrap();
    assert_eq!((read.max_length, read.truncation_side, read.padding_side), (Some(512), Side::Left, Side::Right));
    for unlimited in ["1000000000000000019884624838656", "1e30", "null"] {
        let text = format!("{{\"model_max_length\": {unlimited}}}");
        assert_eq!(TokenizerConfig::parse(text.as_bytes()).unwrap().max_length, None, "{unlimited}");
    }
    assert!(TokenizerConfig::parse(br#"{"model_max_length": 0}"#).is_err());
    let sentence = SentenceBert::parse(br#"{"max_seq_length": 256, "do_lower_case": true}"#).unwrap();
    assert_eq!(sentence, SentenceBert { max_length: Some(256), is_lower_cased: true });
    let prompts = br#"{"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}"#;
    let prompts = Prompts::parse(prompts).unwrap();
    assert_eq!((prompts.texts["query"].as_str(), prompts.default.as_deref()), ("query: ", Some("query")));
    let error = Prompts::parse(br#"{"prompts": {}, "default_prompt_name": "q"}"#).unwrap_err().to_string();
    assert!(error.contains("`default_prompt_name` is \"q\"; expected one of the names"), "{error}");
}

#[test]
fn pictures_are_prepared_as_their_file_says() {
    let read = ImageProcessor::parse(
        br#"{"size": {"height": 30, "width": 40}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}"#,
    )
    .unwrap();
    assert_eq!(read.resize, Some(ImageSize::Exact { height: 30, width: 40 }));
    assert_eq!((read.resample, read.crop, read.rescale), (2, None, Some(1.0 / 255.0)));
    let read = ImageProcessor::parse(
        br#"{"size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": 224, "do_normalize": false}"#,
    )
    .unwrap();
    assert_eq!((read.resize, read.crop, read.normalise), (Some(ImageSize::ShortestEdge(256)), Some((224, 224)), None));
    let error = ImageProcessor::parse(br#"{"image_std": [0, 1, 1]}"#).unwrap_err().to_string();
    assert!(error.contains("`image_std` is a list of 3; expected"), "{error}");
    let error = ImageProcessor::parse(br#"{"size": {"height": 3}}"#).unwrap_err().to_string();
    assert!(error.contains("`size`: `width` is missing"), "{error}");
}

#[test]
fn an_index_says_which_file_has_a_weight() {
    let index =
        ShardIndex::parse("i", br#"{"metadata": {}, "weight_map": {"b": "two", "a": "one", "c": "two"}}"#).unwrap();
    assert_eq!(index.files(), ["one", "two"]);
    assert_eq!((index.file_of("c"), index.file_of("d")), (Some("two"), None));
    assert_eq!(index.weights().collect::<Vec<_>>(), [("a", "one"), ("b", "two"), ("c", "two")]);
    for bad in [r#"{}"#, r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#, r#"{"weight_map": {"a": "../x"}}"#] {
        assert!(ShardIndex::parse("i", bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Any JSON, with the keys that matter likely to stand in it.
fn any_json() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 24] = [
        "model_type",
        "architectures",
        "hidden_size",
        "dim",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "pad_token_id",
        "id2label",
        "label2id",
        "num_labels",
        "image_size",
        "patch_size",
        "depths",
        "hidden_sizes",
        "weight_map",
        "prompts",
        "pooling_mode",
        "type",
        "path",
        "size",
        "model_max_length",
        "dtype",
    ];
    let text = prop_oneof![
        prop::sample::select(vec!["bert", "roberta", "vit", "resnet", "mean", "Transformer", "a.Pooling", "0", "1"])
            .prop_map(str::to_owned),
        any::<String>(),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        (0_u64..600).prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text.clone().prop_map(Value::from)];
    leaf.prop_recursive(3, 48, 8, move |inner| {
        let key = prop_oneof![4 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => text.clone()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..12).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every reader at once. What is read must also be usable.
fn read_all(bytes: &[u8]) {
    if let Ok(config) = Config::parse(bytes) {
        assert!(!config.labels().is_empty());
        if let Ok(Some(text)) = config.text() {
            assert!(text.max_tokens() > 0 && text.head_size() > 0 && text.pad_token_id < text.vocab_size);
        }
        if let Ok(Some(vit)) = config.vit() {
            assert!(vit.n_patches() > 0 && vit.head_size() > 0);
        }
        let _ = (config.resnet(), config.max_tokens(), config.vocab_size(), config.pad_token_id());
    }
    if let Ok(modules) = SentenceModules::read(|_| Ok(Some(bytes))) {
        let pooling = modules.pooling_or(None);
        assert!(!pooling.modes.is_empty());
        let _ = modules.dimension(&pooling, 8);
    }
    if let Ok(index) = ShardIndex::parse("i", bytes) {
        assert!(index.weights().all(|(weight, file)| index.file_of(weight) == Some(file)));
    }
    let _ = Pooling::parse("p", bytes);
    let _ = (TokenizerConfig::parse(bytes), SentenceBert::parse(bytes), Prompts::parse(bytes));
    let _ = ImageProcessor::parse(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_json_makes_a_reader_panic(value in any_json()) {
        read_all(value.to_string().as_bytes());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn a_bert_with_any_value_in_any_place_is_read_or_refused(key in 0..14_usize, value in any_json()) {
        let mut whole = bert();
        let name = whole.as_object().unwrap().keys().nth(key).cloned();
        if let Some(name) = name {
            whole[&name] = value;
        }
        read_all(whole.to_string().as_bytes());
    }
}
