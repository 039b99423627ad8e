//! A damaged tokenizer is refused with a text; it neither panics nor takes memory.

use std::sync::Arc;

use millrace_core::{LoadErrorKind, MemoryFiles, ModelFiles, ModelSource};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::tools::{network_of, open, source};

/// What becomes of the tokenizer `content` in a folder that has nothing else: opened, and if it opens, used.
fn used(content: Vec<u8>) -> Result<(), String> {
    let files = MemoryFiles::default().with("tokenizer.json", content);
    let source = ModelSource::new("m".parse().unwrap(), 1, Arc::new(files));
    let processor = open(&source, &network_of("bert_mean"), &[]).map_err(|error| error.to_string())?.unwrap();
    let options = millrace_core::EncodeOptions {
        truncation: millrace_core::Truncation::Right,
        special_tokens: true,
        prompt: None,
    };
    for text in ["", "The mill, by the river: 水車 😀", "a\u{0}b [CLS] <s>"] {
        let input = millrace_core::TextInput::Single(text);
        let _ = processor.encode(&[input], &options).map(|rows| processor.decode(&rows[0].ids, true));
        let _ = processor.tokens(text, true);
    }
    Ok(())
}

fn own(model: &str) -> Value {
    serde_json::from_slice(&source(model).files.read("tokenizer.json").unwrap()).unwrap()
}

#[test]
fn damaged_tokenizers_are_refused_by_name() {
    for content in ["", "{", "[]", "{}", r#"{"version": "1.0"}"#, r#"{"model": {"type": "Magic"}}"#] {
        let text = used(content.as_bytes().to_vec()).unwrap_err();
        assert!(text.starts_with("tokenizer.json: ") && text.len() > 20, "{content}: {text}");
    }
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert!(used(deep.into_bytes()).unwrap_err().starts_with("tokenizer.json: "));
}

#[test]
fn a_tokenizer_that_does_more_than_putting_tokens_around_is_refused() {
    let mut twice = own("bert_mean");
    twice["post_processor"]["single"] = json!([
        {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 1}},
    ]);
    let text = used(twice.to_string().into_bytes()).unwrap_err();
    assert!(text.contains("does not put tokens around a text"), "{text}");
}

#[test]
fn sizes_are_bounded_before_anything_is_read() {
    #[derive(Debug)]
    struct Huge([(String, u64); 1]);
    impl ModelFiles for Huge {
        fn list(&self) -> &[(String, u64)] {
            &self.0
        }
        fn read(&self, _: &str) -> std::io::Result<bytes::Bytes> {
            panic!("it must not be read");
        }
    }
    let network = network_of("bert_mean");
    let mut source =
        ModelSource::new("m".parse().unwrap(), 1, Arc::new(Huge([("tokenizer.json".to_owned(), 1 << 40)])));
    let error = open(&source, &network, &[]).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge);
    source.files = Arc::new(Huge([("tokenizer.json".to_owned(), 1 << 20)]));
    source.memory_budget = 1 << 20;
    let error = open(&source, &network, &[]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("may be taken")), (LoadErrorKind::TooLarge, true));
}

/// Puts `value` in place of the part that `path` leads to: at each step one of what is there.
fn changed(part: &mut Value, path: &[usize], value: Value) {
    let Some((step, rest)) = path.split_first() else { return *part = value };
    match part {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(step % map.len()).unwrap().clone();
            changed(&mut map[&key], rest, value);
        }
        Value::Array(items) if !items.is_empty() => {
            let at = step % items.len();
            changed(&mut items[at], rest, value);
        }
        leaf => *leaf = value,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u32..400).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!("(a+)+$")),
        Just(json!([["[CLS]", 4_000_000_000_u32]])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_tokenizer_changed_in_one_place_is_used_or_refused(
        model in prop::sample::select(vec!["bert_mean", "roberta_mean", "xlm_roberta_mean"]),
        path in prop::collection::vec(0_usize..400, 1..6),
        value in any_value(),
    ) {
        let mut tokenizer = own(model);
        changed(&mut tokenizer, &path, value);
        let _ = used(tokenizer.to_string().into_bytes());
    }

    #[test]
    fn a_tokenizer_cut_short_is_refused(share in 0.0_f64..1.0) {
        let whole = own("roberta_mean").to_string().into_bytes();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let end = (whole.len() as f64 * share) as usize;
        prop_assert!(used(whole[..end].to_vec()).is_err());
    }
}
