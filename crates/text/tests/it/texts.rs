//! Texts are cut into the ids that `transformers` gives, whatever the tokenizer's kind, and what is too long or wrong is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{
    EncodeOptions, Encoding, InputError, MemoryFiles, ModelSource, Strings, Tensor, TextFactory, TextInput, TextTask,
    Truncation,
};
use millrace_text::TextSupport;

use crate::tools::{Silent, Written, network, network_of, open, opened, processor, rows, source};

const PLAIN: EncodeOptions<'static> =
    EncodeOptions { truncation: Truncation::Refuse, special_tokens: true, prompt: None };

const LONG: &str = "How much water does the mill need in autumn, when the river is slow?";

fn detail(error: InputError) -> String {
    match error {
        InputError::Instance { index, detail, .. } => format!("{index}: {detail}"),
        other => panic!("{other}"),
    }
}

#[test]
fn tokens_are_those_of_transformers_for_every_golden_text() {
    let mut seen = 0;
    for case in Written::all() {
        let processor = processor(&case.model);
        let encodings = processor.encode(&case.rows(), &PLAIN).unwrap();
        let tensors = processor.tensors(&encodings).unwrap();
        let got: Vec<Vec<Vec<i64>>> = tensors.iter().map(rows).collect();
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        assert_eq!(tensors.len(), case.inputs.len(), "{}", case.model);
        let masks = &case.inputs["attention_mask"];
        for (name, got) in names.iter().zip(&got) {
            for ((got, want), mask) in got.iter().zip(&case.inputs[*name]).zip(masks) {
                // Some cases are padded on the left, which is for the network's test.
                let want: Vec<i64> = want.iter().zip(mask).filter(|(_, mask)| **mask == 1).map(|(id, _)| *id).collect();
                assert_eq!(got[..want.len()], want, "{} {name} of {:?}", case.model, case.texts);
                seen += 1;
            }
        }
        let padded_right = masks.iter().all(|mask| mask.is_sorted_by(|left, right| left >= right));
        if padded_right && case.model != "bert_mean" {
            let want: Vec<_> = names[..tensors.len()].iter().map(|name| case.inputs[*name].clone()).collect();
            assert_eq!(got, want, "{}: padding", case.model);
        }
    }
    assert!(seen > 100, "only {seen} rows were compared");
}

#[test]
fn padding_and_lengths_of_the_file_are_not_used() {
    // Its tokenizer.json cuts to 16 tokens and fills up to 16.
    let processor = processor("bert_mean");
    let encodings = processor.encode(&[TextInput::Single("mill"), TextInput::Single(LONG)], &PLAIN).unwrap();
    assert_eq!(encodings.iter().map(|row| row.ids.len()).collect::<Vec<_>>(), [3, 30]);
}

/// What `transformers` 4 and 5 give with `truncation=True`: model, side, room, texts, ids.
#[test]
fn texts_that_are_too_long_lose_what_transformers_takes_from_them() {
    use Truncation::{Left, Right};
    let turns = "The wheel turns.";
    let single = TextInput::Single(LONG);
    let cases: [(&str, Truncation, &str, TextInput<'_>, &[u32]); 14] = [
        ("bert_labels", Right, "12", single, &[2, 58, 21, 28, 251, 257, 92, 54, 204, 81, 87, 3]),
        ("bert_labels", Left, "12", single, &[2, 46, 88, 20, 81, 91, 183, 67, 132, 28, 50, 3]),
        (
            "bert_labels",
            Right,
            "16",
            TextInput::Pair(LONG, turns),
            &[2, 58, 21, 28, 251, 257, 92, 54, 204, 81, 3, 81, 86, 105, 47, 3],
        ),
        ("bert_labels", Left, "11", TextInput::Pair(turns, LONG), &[2, 81, 86, 105, 47, 3, 67, 132, 28, 50, 3]),
        (
            "bert_labels",
            Left,
            "17",
            TextInput::Pair(LONG, LONG),
            &[2, 81, 91, 183, 67, 132, 28, 50, 3, 81, 91, 183, 67, 132, 28, 50, 3],
        ),
        ("roberta_labels", Right, "12", single, &[0, 43, 82, 90, 272, 88, 326, 319, 286, 331, 262, 2]),
        ("roberta_labels", Left, "12", single, &[0, 15, 280, 81, 262, 306, 295, 269, 310, 90, 34, 2]),
        (
            "roberta_labels",
            Right,
            "16",
            TextInput::Pair(LONG, turns),
            &[0, 43, 82, 90, 272, 88, 326, 319, 286, 2, 2, 321, 300, 317, 17, 2],
        ),
        ("roberta_labels", Right, "11", TextInput::Pair(turns, LONG), &[0, 321, 300, 317, 2, 2, 43, 82, 90, 272, 2]),
        (
            "roberta_labels",
            Right,
            "17",
            TextInput::Pair(LONG, LONG),
            &[0, 43, 82, 90, 272, 88, 326, 2, 2, 43, 82, 90, 272, 88, 326, 319, 2],
        ),
        ("xlm_roberta_ranker", Right, "12", single, &[0, 66, 17, 37, 44, 157, 42, 26, 31, 114, 246, 2]),
        ("xlm_roberta_ranker", Left, "12", single, &[0, 4, 89, 36, 78, 94, 156, 130, 184, 44, 11, 2]),
        (
            "xlm_roberta_ranker",
            Left,
            "16",
            TextInput::Pair(LONG, turns),
            &[0, 36, 78, 94, 156, 130, 184, 44, 11, 2, 2, 239, 85, 113, 5, 2],
        ),
        ("xlm_roberta_ranker", Left, "11", TextInput::Pair(turns, LONG), &[0, 85, 113, 5, 2, 2, 130, 184, 44, 11, 2]),
    ];
    for (model, truncation, most, text, want) in cases {
        let processor = opened(model, &[("max_tokens", most)]).unwrap().unwrap();
        let got = processor.encode(&[text], &EncodeOptions { truncation, ..PLAIN }).unwrap();
        assert_eq!(got[0].ids, want, "{model} {truncation:?} {most}");
        let refused = processor.encode(&[TextInput::Single("mill"), text], &PLAIN);
        assert!(detail(refused.unwrap_err()).starts_with(&format!("1: expected at most {most} tokens, got ")));
    }
}

#[test]
fn the_operators_word_decides_what_becomes_of_long_texts() {
    let given = [Tensor::from_strings(&[2], [LONG, "mill"].iter().collect::<Strings>()).unwrap()];
    let refusing = opened("bert_mean", &[]).unwrap().unwrap();
    assert_eq!(refusing.facts().max_tokens, 24, "the least of what the files say");
    assert_eq!(refusing.facts().truncation, Truncation::Refuse);
    assert_eq!(detail(refusing.process(&given).unwrap_err()), "0: expected at most 24 tokens, got 30");
    for (word, last) in [("right", 3), ("left", 3)] {
        let cutting = opened("bert_mean", &[("truncation", word), ("max_tokens", "12")]).unwrap().unwrap();
        let ids = rows(&cutting.process(&given).unwrap()[0]);
        assert_eq!((ids[0].len(), ids[0][0], ids[0][11]), (12, 2, last));
        assert_eq!(ids[0][1], if word == "right" { 58 } else { 46 });
    }
}

#[test]
fn text_goes_in_and_the_networks_inputs_come_out() {
    let processor = processor("bert_mean");
    let facts = processor.facts();
    assert_eq!((facts.task, facts.dimension, facts.pooling.as_str()), (TextTask::Embedding, 32, "mean"));
    assert_eq!((facts.model_type.as_str(), facts.precision.as_str()), ("bert", "FP32"));
    assert_eq!(processor.inputs().iter().map(ToString::to_string).collect::<Vec<_>>(), ["text BYTES[batch]"]);
    assert_eq!(processor.outputs(), [0]);
    let given = [Tensor::from_strings(&[2], ["The wheel turns.", "mill"].iter().collect::<Strings>()).unwrap()];
    let tensors = processor.process(&given).unwrap();
    assert_eq!(rows(&tensors[0]), [[2, 81, 86, 105, 47, 3], [2, 87, 3, 0, 0, 0]]);
    assert_eq!(rows(&tensors[1]), [[1; 6], [1, 1, 1, 0, 0, 0]]);
    assert_eq!(rows(&tensors[2]), [[0; 6]; 2]);
    network_of("bert_mean").check(&tensors).unwrap();
    let wrong = [Tensor::from_strings(&[2], ["ok".as_bytes(), b"a\xff"].iter().collect::<Strings>()).unwrap()];
    assert_eq!(detail(processor.process(&wrong).unwrap_err()), "1: expected UTF-8, but byte 1 is not");
}

#[test]
fn a_ranking_takes_a_query_and_a_text_and_a_classification_has_labels() {
    let ranker = processor("xlm_roberta_ranker");
    assert_eq!(ranker.facts().task, TextTask::Ranking);
    let names: Vec<String> = ranker.inputs().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["query BYTES[batch]", "text BYTES[batch]"]);
    let strings = |text: &str| Tensor::from_strings(&[1], std::iter::once(text).collect()).unwrap();
    let tensors = ranker.process(&[strings("What is rye flour?"), strings("Rye flour is dark.")]).unwrap();
    let want = [0, 240, 136, 156, 254, 84, 11, 2, 2, 66, 3, 45, 28, 84, 156, 246, 24, 39, 33, 5, 2];
    assert_eq!(rows(&tensors[0]), [want]);
    assert_eq!(tensors.len(), 2, "this family has no token types");

    let labels = processor("bert_multi_label");
    assert_eq!(labels.facts().task, TextTask::Classification);
    assert!(labels.facts().is_multi_label && labels.facts().pooling.is_empty());
    let config =
        millrace_huggingface::Config::parse(&source("bert_multi_label").files.read("config.json").unwrap()).unwrap();
    let names: Vec<&str> = labels.facts().labels.iter().map(|label| &**label).collect();
    assert_eq!(names, config.labels());
}

#[test]
fn ids_of_callers_are_checked_and_get_the_special_tokens() {
    let processor = processor("bert_mean");
    let row = |ids: &[u32], special_tokens| {
        processor.encode(&[TextInput::Ids(ids)], &EncodeOptions { special_tokens, ..PLAIN })
    };
    let encoding = |ids: &[u32]| vec![Encoding { ids: ids.to_vec(), type_ids: vec![0; ids.len()] }];
    assert_eq!(row(&[81, 86], true).unwrap(), encoding(&[2, 81, 86, 3]));
    assert_eq!(row(&[81, 86], false).unwrap(), encoding(&[81, 86]));
    assert_eq!(detail(row(&[81, 261], true).unwrap_err()), "0: expected token ids below 261, got 261");
    assert_eq!(detail(row(&[], false).unwrap_err()), "0: it has no tokens");
    assert_eq!(detail(row(&[9; 65], false).unwrap_err()), "0: expected at most 64 tokens, got 65");
    let cut = EncodeOptions { truncation: Truncation::Left, special_tokens: false, prompt: None };
    let ids: Vec<u32> = (5..80).collect();
    assert_eq!(processor.encode(&[TextInput::Ids(&ids)], &cut).unwrap()[0].ids, ids[11..]);
}

#[test]
fn prompts_are_put_before_texts() {
    let processor = processor("bert_mean");
    assert_eq!(processor.facts().prompts["document"], "bread and ");
    assert_eq!(processor.facts().default_prompt, None);
    let with = |text: TextInput<'_>| {
        processor
            .encode(&[text], &EncodeOptions { prompt: Some("bread and "), ..PLAIN })
            .map(|mut rows| rows.remove(0).ids)
    };
    let whole = processor.encode(&[TextInput::Single("bread and mill")], &PLAIN).unwrap().remove(0).ids;
    assert_eq!(with(TextInput::Single("mill")).unwrap(), whole);
    assert_eq!(with(TextInput::Ids(&[2, 87, 3])).unwrap(), whole, "ids are put back into text");
    assert!(detail(with(TextInput::Pair("a", "b")).unwrap_err()).contains("cannot be put before two texts"));

    let named = opened("bert_mean", &[("default_prompt", "document")]).unwrap().unwrap();
    let given = [Tensor::from_strings(&[1], std::iter::once("mill").collect()).unwrap()];
    let ids: Vec<i64> = whole.iter().map(|id| i64::from(*id)).collect();
    assert_eq!(rows(&named.process(&given).unwrap()[0]), [ids]);
}

#[test]
fn tokens_have_places_in_bytes_and_go_back_into_text() {
    let processor = processor("bert_mean");
    let text = "Größe: mill";
    let tokens = processor.tokens(text, true).unwrap();
    assert!(tokens[0].is_special && tokens[0].text == "[CLS]" && tokens[0].span.is_none());
    let last = tokens[tokens.len() - 2].clone();
    assert_eq!((&text[last.span.unwrap().0..last.span.unwrap().1], last.text.as_str()), ("mill", "mill"));
    assert!(processor.tokens(text, false).unwrap().iter().all(|token| !token.is_special));
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(processor.decode(&[2, 87, 3], true).unwrap(), "mill");
    assert_eq!(processor.decode(&[2, 87, 3], false).unwrap(), "[CLS] mill [SEP]");
    assert!(!processor.decode(&ids, true).unwrap().is_empty());
    assert_eq!(
        detail(processor.decode(&[2, 999], true).unwrap_err()),
        "0: no token has the id 999; the ids end at 261"
    );
}

#[test]
fn absurdly_long_texts_cost_little() {
    let processor = processor("bert_mean");
    let text = "mill ".repeat(1 << 20);
    let error = detail(processor.encode(&[TextInput::Single(&text)], &PLAIN).unwrap_err());
    assert_eq!(error, "0: expected at most 16000 characters, got 5242880");
    for truncation in [Truncation::Left, Truncation::Right] {
        let rows = processor.encode(&[TextInput::Single(&text)], &EncodeOptions { truncation, ..PLAIN }).unwrap();
        assert_eq!((rows[0].ids.len(), rows[0].ids[5]), (64, 87));
    }
    assert!(processor.tokens(&text, true).is_err());

    // Ids that become text again likewise.
    let ids = vec![87; 1 << 20];
    let many = "0: expected at most 16000 token ids, got 1048576";
    assert_eq!(detail(processor.decode(&ids, true).unwrap_err()), many);
    let prompted = EncodeOptions { prompt: Some("bread "), ..PLAIN };
    assert_eq!(detail(processor.encode(&[TextInput::Ids(&ids)], &prompted).unwrap_err()), many);
    for truncation in [Truncation::Left, Truncation::Right] {
        let rows = processor.encode(&[TextInput::Ids(&ids)], &EncodeOptions { truncation, ..prompted }).unwrap();
        assert_eq!((rows[0].ids.len(), rows[0].ids[5]), (64, 87));
    }
}

#[test]
fn the_pooling_is_told_by_who_pools() {
    let of_gguf = millrace_testkit::fixture_source("gguf-models/bert_q4_mixed/1");
    let tokenizer = source("bert_mean").files.read("tokenizer.json").unwrap();
    let files = MemoryFiles::default()
        .with("model.gguf", of_gguf.files.read("model.gguf").unwrap())
        .with("tokenizer.json", tokenizer);
    let gguf = ModelSource::new(of_gguf.model, 1, Arc::new(files));
    let network = network_of("bert_mean");
    let pooling = |own: Option<&str>, source: &ModelSource| {
        let model = Silent { signature: network.clone(), pooling: own.map(str::to_owned) };
        let processor = TextSupport.open(source, &model, &BTreeMap::default()).unwrap().unwrap();
        processor.facts().pooling.clone()
    };
    assert_eq!(pooling(Some("cls"), &gguf), "cls");
    assert_eq!(pooling(None, &gguf), "", "a network that pools and does not say how");
    assert_eq!(pooling(None, &source("bert_mean")), "mean");
}

#[test]
fn empty_texts_have_their_special_tokens() {
    for model in ["bert_mean", "roberta_mean", "xlm_roberta_mean"] {
        let rows = processor(model).encode(&[TextInput::Single("")], &PLAIN).unwrap();
        assert_eq!(rows[0].ids.len(), 2, "{model}");
    }
}

/// `bert_mean` with `file` in place of its own; an empty one takes the file away.
fn changed(file: &str, content: &str) -> ModelSource {
    let own = source("bert_mean");
    let mut files = MemoryFiles::default();
    for (name, _) in own.files.list() {
        if name != file {
            files = files.with(name.clone(), own.files.read(name).unwrap());
        }
    }
    let files = if content.is_empty() { files } else { files.with(file, content.to_owned()) };
    ModelSource::new(own.model, 1, Arc::new(files))
}

#[test]
fn what_is_no_text_model_is_left_alone() {
    let network = network_of("bert_mean");
    assert!(open(&changed("tokenizer.json", ""), &network, &[]).unwrap().is_none());
    let other = millrace_core::Signature::new(network.inputs().to_vec(), network.outputs().to_vec()).unwrap();
    assert!(open(&source("bert_mean"), &other, &[]).unwrap().is_none(), "a network whose rows must be of one length");
    let unknown = crate::tools::network(true, "scores", 32);
    assert!(open(&source("bert_mean"), &unknown, &[]).unwrap().is_none());
}

#[test]
fn files_that_contradict_the_network_are_refused() {
    let text = |file: &str, content: &str, network: &millrace_core::Signature| {
        open(&changed(file, content), network, &[]).unwrap_err().to_string()
    };
    let embedding = network_of("bert_mean");
    let config = r#"{"model_type": "bert", "vocab_size": 200, "pad_token_id": 0}"#;
    let small = format!(
        "{}, {}",
        &config[..config.len() - 1],
        r#""hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8, "max_position_embeddings": 64}"#
    );
    assert_eq!(
        text("config.json", &small, &embedding),
        "tokenizer.json has token ids up to 260, but the network knows only 200 tokens (`vocab_size` in config.json)"
    );
    assert!(
        text("config.json", &config.replace("200", "261"), &embedding)
            .contains("config.json: `hidden_size` is missing")
    );
    assert!(text("tokenizer_config.json", "[]", &embedding).contains("tokenizer_config.json: expected an object"));
    assert!(text("config_sentence_transformers.json", "{\"prompts\": 3}", &embedding).contains("`prompts` is 3"));
    let labels = network(true, "logits", 5);
    let error = open(&source("bert_labels"), &labels, &[]).unwrap_err().to_string();
    assert!(error.starts_with("config.json has 3 labels, but the network gives 5 numbers"), "{error}");
}

#[test]
fn wrong_options_are_refused_with_what_would_be_right() {
    let text = |options: &[(&str, &str)]| opened("bert_mean", options).unwrap_err().to_string();
    assert_eq!(text(&[("max_token", "3")]), "unknown option `max_token`; did you mean `max_tokens`?");
    assert!(text(&[("max_tokens", "65")]).starts_with("option `max_tokens`: expected at most 64"));
    assert_eq!(text(&[("max_tokens", "2")]), "2 special tokens stand around each text, and it may have only 2");
    assert!(text(&[("truncation", "up")]).contains("expected one of \"refuse\", \"right\", \"left\", got `up`"));
    assert!(
        text(&[("default_prompt", "x")]).contains("expected one of the model's prompts (document, query), got `x`")
    );
}
