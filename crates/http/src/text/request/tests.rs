use bytes::Bytes;
use proptest::prelude::*;

use super::{Limits, Members, Row, Rows};

const LIMITS: Limits = Limits { depth: 8, texts: 4 };

fn rows(body: &'static str) -> Result<Vec<Row>, String> {
    let body = Bytes::from_static(body.as_bytes());
    let ask = Members::of(&body, LIMITS).and_then(|members| members.embed());
    match ask.map_err(|problem| problem.refusal().message().to_owned())?.rows {
        Rows::Each(rows) => Ok(rows),
        Rows::Against { .. } => panic!("one text with others"),
    }
}

#[test]
fn texts_and_ids_are_told_apart_by_their_first_element() {
    assert_eq!(rows(r#"{"inputs": "a\u0062"}"#), Ok(vec![Row::Text("ab".to_owned())]));
    assert_eq!(rows(r#"{"inputs": [ 1, 2,3,4,5 ]}"#), Ok(vec![Row::Ids(vec![1, 2, 3, 4, 5])]));
    assert_eq!(
        rows(r#"{"inputs": [ [4294967295], "b"]}"#),
        Ok(vec![Row::Ids(vec![u32::MAX]), Row::Text("b".to_owned())])
    );
    assert!(rows(r#"{"inputs": [ [4294967296]]}"#).unwrap_err().contains("2^32"));
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&Bytes::from(body));
    }

    #[test]
    fn any_value_of_any_key_is_a_request_or_an_error(
        keys in prop::collection::vec((prop::sample::select(&KEYS[..]), prop::sample::select(&VALUES[..])), 1..5)
    ) {
        let members: Vec<String> = keys.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        read_all(&Bytes::from(format!("{{{}}}", members.join(", "))));
    }
}

const KEYS: [&str; 12] = [
    "inputs",
    "input",
    "ids",
    "query",
    "texts",
    "parameters",
    "truncate",
    "dimensions",
    "model",
    "prompt_name",
    "encoding_format",
    "normalize",
];

const VALUES: [&str; 16] = [
    "null",
    "true",
    "\"\"",
    "\"a\"",
    "[]",
    "[[]]",
    "[\"a\"]",
    "[\"a\", 1]",
    "[1, 2]",
    "[[1], \"a\"]",
    "[[\"a\", \"b\"]]",
    "{}",
    "{\"source_sentence\": \"a\", \"sentences\": [\"b\"]}",
    "-1",
    "1e999",
    "[[[[[[[[[[1]]]]]]]]]]",
];

/// No route panics on `body`.
fn read_all(body: &Bytes) {
    let Ok(members) = Members::of(body, LIMITS) else { return };
    let asks = [
        members.openai(),
        members.embed(),
        members.embed_all(),
        members.similarity(),
        members.rerank(),
        members.predict(),
    ];
    for ask in asks.into_iter().flatten() {
        let n_rows = ask.rows.len();
        assert!((1..=LIMITS.texts).contains(&n_rows), "{n_rows}");
        assert!((0..n_rows).all(|index| ask.rows.get(index).is_some()));
    }
    drop((members.tokenize(), members.decode()));
}
