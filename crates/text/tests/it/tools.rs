//! What the tests share: fixtures, the networks that stand behind them, and questions with their texts.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use millrace_core::{
    DType, Dim, Instance, LoadError, LoadErrorKind, Model, ModelFacts, ModelSource, Signature, Tensor, TensorSpec,
    TextFactory, TextInput, TextProcessor,
};
use millrace_testkit::{fixture, fixture_source};
use millrace_text::TextSupport;
use serde_json::Value;

/// The files of a text fixture.
pub(crate) fn source(model: &str) -> ModelSource {
    fixture_source(&format!("text-models/{model}/1"))
}

/// A text network's signature with `output` \[batch, width\].
pub(crate) fn network(has_types: bool, output: &str, width: usize) -> Signature {
    let symbol = |name: &str| Dim::Symbol(Arc::from(name));
    let axes = || vec![symbol("batch"), symbol("sequence")];
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    let inputs = names[..2 + usize::from(has_types)].iter().map(|name| TensorSpec::new(name, DType::Int64, axes()));
    let outputs = vec![TensorSpec::new(output, DType::Fp32, vec![symbol("batch"), Dim::Fixed(width)])];
    Signature::new(inputs.collect(), outputs).unwrap().mixed("sequence").unwrap()
}

/// The network of a fixture, by its name.
pub(crate) fn network_of(model: &str) -> Signature {
    let (output, width) = match model {
        name if name.contains("labels") || name.contains("multi_label") => ("logits", labels(name)),
        name if name.contains("ranker") => ("logits", 1),
        _ => ("sentence_embedding", 32),
    };
    network(model.starts_with("bert"), output, width)
}

fn labels(model: &str) -> usize {
    let config = fs::read(fixture(&format!("text-models/{model}/1/config.json"))).unwrap();
    serde_json::from_slice::<Value>(&config).unwrap()["id2label"].as_object().unwrap().len()
}

/// What `TextSupport` makes of a fixture with these options of `[text]`.
pub(crate) fn opened(model: &str, options: &[(&str, &str)]) -> Result<Option<Arc<dyn TextProcessor>>, LoadError> {
    open(&source(model), &network_of(model), options)
}

/// A network of which only the signature is known.
#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) signature: Signature,
    /// What it says about its pooling.
    pub(crate) pooling: Option<String>,
}

impl Model for Silent {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn facts(&self) -> ModelFacts {
        let said = self.pooling.iter().map(|said| (ModelFacts::POOLING.to_owned(), said.clone()));
        ModelFacts { properties: said.collect(), ..ModelFacts::default() }
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Err(LoadError::new(LoadErrorKind::Engine, "it is only looked at"))
    }
}

pub(crate) fn open(
    source: &ModelSource,
    network: &Signature,
    options: &[(&str, &str)],
) -> Result<Option<Arc<dyn TextProcessor>>, LoadError> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    TextSupport.open(source, &Silent { signature: network.clone(), pooling: None }, &options)
}

/// The processor of a fixture, with room for every text of its cases.
pub(crate) fn processor(model: &str) -> Arc<dyn TextProcessor> {
    opened(model, &[("max_tokens", "64")]).unwrap().unwrap()
}

/// A golden case that says which texts its ids were cut from.
pub(crate) struct Written {
    pub(crate) model: String,
    pub(crate) texts: Vec<(String, Option<String>)>,
    pub(crate) inputs: BTreeMap<String, Vec<Vec<i64>>>,
}

impl Written {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let folder = fs::read_dir(fixture("cases/text")).unwrap();
        let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let cases = paths.iter().flat_map(|path| {
            let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            file["cases"].as_array().unwrap().clone()
        });
        cases.filter(|case| case["texts"].is_array()).map(|case| Self::of(&case)).collect()
    }

    fn of(case: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let row = |value: &Value| match value {
            Value::Array(pair) => (text(&pair[0]), Some(text(&pair[1]))),
            single => (text(single), None),
        };
        let matrix = |value: &Value| {
            let width = usize::try_from(value["shape"][1].as_u64().unwrap()).unwrap();
            let cells: Vec<i64> = value["data"].as_array().unwrap().iter().map(|cell| cell.as_i64().unwrap()).collect();
            cells.chunks(width).map(<[i64]>::to_vec).collect()
        };
        let inputs = case["inputs"].as_object().unwrap();
        Self {
            model: text(&case["model"]),
            texts: case["texts"].as_array().unwrap().iter().map(row).collect(),
            inputs: inputs.iter().map(|(name, value)| (name.clone(), matrix(value))).collect(),
        }
    }

    pub(crate) fn rows(&self) -> Vec<TextInput<'_>> {
        let rows = self.texts.iter().map(|(first, second)| match second {
            Some(second) => TextInput::Pair(first, second),
            None => TextInput::Single(first),
        });
        rows.collect()
    }
}

/// The rows of an INT64 matrix.
pub(crate) fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    let width = tensor.shape()[1];
    tensor.elements::<i64>().unwrap().chunks(width).map(<[i64]>::to_vec).collect()
}
