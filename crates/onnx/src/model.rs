//! The file as a whole.

use crate::check::check;
use crate::error::OnnxError;
use crate::facts::Facts;
use crate::graph::Graph;
use crate::wire::{bodies, body, number, signed, text};

/// A checked ONNX file, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    body: &'a [u8],
    graph: Graph<'a>,
}

impl<'a> Model<'a> {
    /// Checks `file` and takes it for a model.
    ///
    /// # Errors
    /// [`OnnxError`] when it is empty, damaged, nested too deep or holds no graph.
    pub fn parse(file: &'a [u8]) -> Result<Self, OnnxError> {
        check(file)?;
        let graph = body(file, 7).ok_or_else(|| OnnxError::damaged("the model", "it holds no graph"))?;
        Ok(Self { body: file, graph: Graph::new(graph) })
    }

    /// The graph.
    pub fn graph(&self) -> Graph<'a> {
        self.graph
    }

    /// The version of the file format.
    pub fn ir_version(&self) -> i64 {
        number(self.body, 1).map_or(0, signed)
    }

    /// The program that wrote the file.
    pub fn producer_name(&self) -> &'a str {
        text(self.body, 2)
    }

    /// Its version.
    pub fn producer_version(&self) -> &'a str {
        text(self.body, 3)
    }

    /// Operator sets by domain. The standard one is called `ai.onnx`, however the file spells it.
    pub fn opsets(&self) -> impl Iterator<Item = (&'a str, i64)> + use<'a> {
        bodies(self.body, 8).map(|set| (canonical(text(set, 1)), number(set, 2).map_or(0, signed)))
    }

    /// The version of the operator set `domain`, if the file imports it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let domain = canonical(domain);
        self.opsets().filter(|(name, _)| *name == domain).map(|(_, version)| version).last()
    }

    /// Keys and values that the exporter or the user noted down.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        bodies(self.body, 14).map(|entry| (text(entry, 1), text(entry, 2)))
    }

    /// How many functions (operators made of others) the model brings along.
    pub fn n_functions(&self) -> usize {
        bodies(self.body, 25).count()
    }

    /// What can be said about the model without running it.
    pub fn facts(&self) -> Facts {
        Facts::of(self)
    }
}

/// The standard domain has two spellings.
pub(crate) fn canonical(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}
