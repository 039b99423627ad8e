//! The check of an ONNX file before the engine sees it.
//!
//! The engine trusts the file: it multiplies sizes without a check, folds constants of any size, maps files that the
//! model names, and panics on a name that is not there. Here the file is read within bounds, checked, and put into a
//! form that leaves nothing to trust: external data is read in, element lists become raw bytes, numbers of fewer bits
//! become `f32`, axes without a name get one. Whether the model computes what its author meant is not looked at.

mod constants;
mod graph;
mod inputs;
mod integers;
mod precision;
mod tensors;
mod trees;
mod wire;

use std::collections::BTreeMap;

use millrace_core::{LoadError, LoadErrorKind, ModelFacts, ModelSource};
use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

pub(crate) use precision::Halves;

use crate::backend::TractConfig;

/// A file that may enter the engine.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) proto: ModelProto,
    /// The graph's inputs and outputs by name, in order; constants that stand among the inputs are left out.
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    /// Whether some input axis is symbolic.
    pub(crate) is_symbolic: bool,
    /// Whether several inputs got one name for their unnamed first axes.
    pub(crate) shares_first_axes: bool,
    /// The first node whose operator mixes the rows of a batch, in words.
    pub(crate) mixing: Option<String>,
    /// Inputs and outputs that the engine sees as `f32` and requests do not.
    pub(crate) halves: Halves,
    /// What the file says, not what was made of it.
    pub(crate) facts: ModelFacts,
}

/// What to take the first axes of several inputs for, where none of them has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstAxes {
    /// One axis, along which rows lie.
    Shared,
    /// One axis for each input.
    Apart,
}

/// What the checks share.
#[derive(Debug)]
struct Checker<'a> {
    file: &'a str,
    source: &'a ModelSource,
    config: &'a TractConfig,
}

impl Checker<'_> {
    fn error(&self, kind: LoadErrorKind, text: impl std::fmt::Display) -> LoadError {
        LoadError::new(kind, format!("{}: {text}", self.file))
    }

    fn invalid(&self, text: impl std::fmt::Display) -> LoadError {
        self.error(LoadErrorKind::Invalid, text)
    }

    fn unsupported(&self, text: impl std::fmt::Display) -> LoadError {
        self.error(LoadErrorKind::Unsupported, text)
    }

    fn too_large(&self, text: impl std::fmt::Display) -> LoadError {
        self.error(LoadErrorKind::TooLarge, text)
    }

    /// The most bytes that one tensor of the file may take.
    fn max_tensor_bytes(&self) -> u64 {
        self.config.max_tensor_bytes.min(self.source.memory_budget)
    }
}

/// A node as messages name it.
fn called(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
    format!("node `{name}` ({})", node.op_type)
}

/// Reads and checks `file`.
///
/// # Errors
/// [`LoadError`] naming the file and the node, initializer or input at fault.
pub(crate) fn scan(
    file: &str,
    source: &ModelSource,
    config: &TractConfig,
    first_axes: FirstAxes,
) -> Result<Scanned, LoadError> {
    let checker = Checker { file, source, config };
    let mut proto = read(&checker)?;
    let Some(mut graph) = proto.graph.take() else {
        return Err(checker.invalid("it holds no graph; expected an ONNX model"));
    };
    graph::check(&checker, &proto, &graph)?;
    tensors::settle(&checker, &mut graph)?;
    let (weight_types, facts) = (tensors::weights(&graph), facts(&proto, &graph));
    let facts = ModelFacts { weight_bytes: Some(weight_types.values().sum()), weight_types, ..facts };
    let halves = precision::settle(&checker, &mut graph)?;
    integers::settle(&checker, &mut graph)?;
    constants::check(&checker, &graph)?;
    trees::check(&checker, &graph)?;
    let named = inputs::settle(&checker, &mut graph, first_axes)?;
    let mut mixing = None;
    graph::for_each_node(&graph, &mut |node| {
        // Its scale comes from all elements at once. The engine keeps it as one operator, with no axis to look at.
        if node.op_type == "DynamicQuantizeLinear" && mixing.is_none() {
            mixing = Some(format!("{} works across the rows of a batch", called(node)));
        }
    });
    let outputs = graph.output.iter().map(|output| output.name.clone()).collect();
    proto.graph = Some(graph);
    let (inputs, is_symbolic, shares_first_axes) = (named.names, named.is_symbolic, named.shares_first_axes);
    Ok(Scanned { proto, inputs, outputs, is_symbolic, shares_first_axes, mixing, halves, facts })
}

fn read(checker: &Checker<'_>) -> Result<ModelProto, LoadError> {
    let (file, source) = (checker.file, checker.source);
    let size = source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
    if size > source.memory_budget {
        return Err(checker.too_large(format_args!("{size} bytes; the memory budget is {}", source.memory_budget)));
    }
    let bytes = source.files.read(file).map_err(|error| {
        checker.error(LoadErrorKind::Missing, format_args!("it cannot be read: {}", error.kind())).with_cause(error)
    })?;
    if bytes.is_empty() {
        return Err(checker.invalid("the file is empty; expected an ONNX model"));
    }
    let decoded = wire::decoded_bytes(&bytes)
        .ok_or_else(|| checker.invalid(format_args!("not an ONNX model, or damaged ({} bytes)", bytes.len())))?;
    if decoded > source.memory_budget {
        let budget = source.memory_budget;
        return Err(
            checker.too_large(format_args!("reading it takes about {decoded} bytes; the memory budget is {budget}"))
        );
    }
    ModelProto::decode(bytes.clone()).map_err(|error| {
        if error.to_string().contains("recursion limit") {
            return checker.unsupported("graphs nested too deep inside one another").with_cause(error);
        }
        checker.invalid(format_args!("not an ONNX model, or damaged ({} bytes)", bytes.len())).with_cause(error)
    })
}

fn facts(proto: &ModelProto, graph: &GraphProto) -> ModelFacts {
    let mut operators = BTreeMap::new();
    let mut nodes = 0;
    graph::for_each_node(graph, &mut |node| {
        *operators.entry(node.op_type.clone()).or_insert(0) += 1;
        nodes += 1;
    });
    let mut properties = BTreeMap::new();
    let mut note = |name: &str, text: String| {
        if !text.is_empty() && text != "0" {
            properties.insert(name.to_owned(), text);
        }
    };
    note("producer", format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned());
    note("ir version", proto.ir_version.to_string());
    for import in &proto.opset_import {
        let domain = if import.domain.is_empty() { "ai.onnx" } else { &import.domain };
        note(&format!("opset {domain}"), import.version.to_string());
    }
    ModelFacts { operators, nodes: Some(nodes), properties, ..ModelFacts::default() }
}
