//! Graphs and their nodes.

use std::fmt;

use crate::attribute::Attribute;
use crate::error::shown;
use crate::model::canonical;
use crate::tensor::Tensor;
use crate::value::ValueInfo;
use crate::wire::{Fields, Value, bodies, text, utf8};

/// A graph: nodes, constants, inputs and outputs.
#[derive(Debug, Clone, Copy)]
pub struct Graph<'a> {
    body: &'a [u8],
}

impl<'a> Graph<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The graph's name.
    pub fn name(&self) -> &'a str {
        text(self.body, 2)
    }

    /// The nodes, in the file's order.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        bodies(self.body, 1).map(Node::new)
    }

    /// The constants. Sparse ones are left out; see [`Graph::n_sparse`].
    pub fn initializers(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        bodies(self.body, 5).map(Tensor::new)
    }

    /// How many sparse constants there are.
    pub fn n_sparse(&self) -> usize {
        bodies(self.body, 15).count()
    }

    /// The inputs. In old files the constants stand among them.
    pub fn inputs(&self) -> impl Iterator<Item = ValueInfo<'a>> + use<'a> {
        bodies(self.body, 11).map(ValueInfo::new)
    }

    /// The outputs.
    pub fn outputs(&self) -> impl Iterator<Item = ValueInfo<'a>> + use<'a> {
        bodies(self.body, 12).map(ValueInfo::new)
    }

    /// Types and shapes that the exporter noted for values in between. Hints, perhaps wrong.
    pub fn values(&self) -> impl Iterator<Item = ValueInfo<'a>> + use<'a> {
        bodies(self.body, 13).map(ValueInfo::new)
    }

    /// Calls `visit` with each node, those of graphs inside attributes included.
    pub fn for_each_node(&self, visit: &mut dyn FnMut(Node<'a>)) {
        for node in self.nodes() {
            visit(node);
            for attribute in node.attributes() {
                attribute.graphs().for_each(|graph| graph.for_each_node(visit));
            }
        }
    }
}

/// One use of an operator.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    body: &'a [u8],
    name: &'a str,
    op_type: &'a str,
    domain: &'a str,
}

impl<'a> Node<'a> {
    fn new(body: &'a [u8]) -> Self {
        let mut node = Self { body, name: "", op_type: "", domain: canonical("") };
        for field in Fields::new(body) {
            match (field.number, field.value) {
                (3, Value::Bytes(bytes)) => node.name = utf8(bytes),
                (4, Value::Bytes(bytes)) => node.op_type = utf8(bytes),
                (7, Value::Bytes(bytes)) => node.domain = canonical(utf8(bytes)),
                _ => {}
            }
        }
        node
    }

    /// The node's name; often empty.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The operator.
    pub fn op_type(&self) -> &'a str {
        self.op_type
    }

    /// The operator's domain; `ai.onnx` for the standard one, however the file spells it.
    pub fn domain(&self) -> &'a str {
        self.domain
    }

    /// The names of the values that it reads; empty where an optional one is left out.
    pub fn inputs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        bodies(self.body, 1).map(utf8)
    }

    /// The names of the values that it writes; empty where an optional one is left out.
    pub fn outputs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        bodies(self.body, 2).map(utf8)
    }

    /// The attributes, in the file's order. Where a name stands twice, both are here.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        bodies(self.body, 5).map(Attribute::new)
    }
}

/// Written as ``node `scaler` (Scaler)``; a node without a name goes by its first output.
impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { self.outputs().next().unwrap_or_default() } else { self.name };
        write!(f, "node `{}` ({})", shown(name), shown(self.op_type))
    }
}
