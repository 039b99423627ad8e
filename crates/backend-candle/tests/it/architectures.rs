//! The table of what loads: in the code, in the docs and among the fixtures it is the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use millrace_backend_candle::{ARCHITECTURES, CandleBackend};
use millrace_core::{Backend, MemoryFiles, ModelSource};
use millrace_testkit::{fixture, fixture_source};

/// The rows of the table in `docs/candle.md`: `model_type`, classes, what goes in.
fn documented() -> Vec<(String, Vec<String>, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/candle.md")).unwrap();
    let table = text.split("## Architectures").nth(1).expect("the section").split("\n## ").next().unwrap().to_owned();
    let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        (bare(cells[0]), cells[1].split(',').map(bare).collect(), bare(cells[2]))
    };
    table.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

#[test]
fn the_docs_list_what_the_code_loads() {
    let listed: Vec<_> = ARCHITECTURES
        .iter()
        .map(|info| {
            let classes = info.classes.iter().map(|class| (*class).to_owned()).collect();
            (info.model_type.to_owned(), classes, info.input.to_owned())
        })
        .collect();
    assert_eq!(documented(), listed);
}

/// The `model_type` and the class of every model among the fixtures.
fn of_fixtures() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for folder in ["text-models", "vision-models"] {
        for entry in fs::read_dir(fixture(folder)).unwrap() {
            let config = fs::read_to_string(entry.unwrap().path().join("1/config.json")).unwrap();
            let config = millrace_huggingface::Config::parse(config.as_bytes()).unwrap();
            for class in config.architectures() {
                found.insert((config.model_type().to_owned(), class.clone()));
            }
        }
    }
    found
}

/// Each family's golden tests are in `tests/golden`; CamemBERT is RoBERTa by another name, and is tried below.
#[test]
fn every_family_has_a_fixture_and_every_fixture_is_listed() {
    let fixtures = of_fixtures();
    for info in ARCHITECTURES.iter().filter(|info| info.model_type != "camembert") {
        assert!(fixtures.iter().any(|(model_type, _)| model_type == info.model_type), "{}", info.model_type);
    }
    for (model_type, class) in fixtures {
        let info = ARCHITECTURES.iter().find(|info| info.model_type == model_type);
        assert!(info.is_some_and(|info| info.classes.contains(&class.as_str())), "{model_type}: {class}");
    }
}

#[test]
fn camembert_is_roberta_by_another_name() {
    let plain = fixture_source("text-models/roberta_labels/1");
    let mut files = MemoryFiles::default();
    for (name, _) in plain.files.list() {
        let mut content = plain.files.read(name).unwrap().to_vec();
        if name == "config.json" {
            let text = String::from_utf8(content).unwrap();
            content = text.replace("\"roberta\"", "\"camembert\"").replace("RobertaFor", "CamembertFor").into_bytes();
        }
        files = files.with(name.clone(), content);
    }
    let source = ModelSource::new(plain.model.clone(), 1, Arc::new(files));
    let (plain, other) =
        (CandleBackend::default().load(&plain).unwrap(), CandleBackend::default().load(&source).unwrap());
    assert_eq!(plain.signature(), other.signature());
    assert_eq!(plain.memory_bytes(), other.memory_bytes());
    assert_eq!(other.facts().properties["architecture"], "CamembertForSequenceClassification");
}
