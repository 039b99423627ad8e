//! `model.safetensors.index.json`: which of several files has which weight.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::HuggingFaceError;
use crate::fields::Fields;

/// Which file has which weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    files: Vec<String>,
    weights: BTreeMap<String, usize>,
}

impl ShardIndex {
    /// Reads the content of an index.
    ///
    /// # Errors
    /// No JSON object; no `weight_map`; a file's name that leads out of the folder.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(file, bytes)?;
        let key = "weight_map";
        let expected = "an object that gives each weight its file";
        let map = fields.object(key)?.ok_or_else(|| fields.missing(key, expected))?;
        if map.is_empty() {
            return Err(fields.wrong(key, expected));
        }
        let names: Option<Vec<(&String, &str)>> =
            map.iter().map(|(weight, shard)| Some((weight, shard.as_str()?))).collect();
        let names = names.ok_or_else(|| fields.wrong(key, expected))?;
        let leads_out = |name: &str| name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with("..");
        if names.iter().any(|(_, shard)| leads_out(shard)) {
            return Err(fields.wrong(key, "names of files beside the index"));
        }
        let files: Vec<&str> = names.iter().map(|(_, shard)| *shard).collect::<BTreeSet<_>>().into_iter().collect();
        let place = |shard: &str| files.binary_search(&shard).unwrap_or(0);
        let weights = names.iter().map(|(weight, shard)| ((*weight).clone(), place(shard))).collect();
        Ok(Self { files: files.into_iter().map(str::to_owned).collect(), weights })
    }

    /// The files, ascending.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The file that has `weight`.
    pub fn file_of(&self, weight: &str) -> Option<&str> {
        self.weights.get(weight).and_then(|index| self.files.get(*index)).map(String::as_str)
    }

    /// All weights, ascending, each with its file.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.weights.iter().map(|(weight, index)| (weight.as_str(), self.files[*index].as_str()))
    }
}
