//! What can be said about a model without running it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ML_DOMAIN;
use crate::graph::Graph;
use crate::model::Model;
use crate::tensor::{ElementType, Tensor};

/// What a model is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Operators and how often each stands in the file, graphs inside attributes included. Beyond some hundreds of
    /// different ones, the rest counts under [`Facts::REST`].
    pub operators: BTreeMap<String, usize>,
    /// All nodes.
    pub nodes: usize,
    /// Bytes of constants by element type: initializers, and tensors and lists of floats in attributes.
    pub weight_types: BTreeMap<&'static str, u64>,
    /// Whether some node is of the operator set `ai.onnx.ml`.
    pub has_ml: bool,
    /// The external files that the weights lie in, as far as their names stay in the model's folder.
    pub external_files: BTreeSet<String>,
    /// Who wrote the file, and versions, by name.
    pub properties: BTreeMap<String, String>,
}

impl Facts {
    /// The name under which operators count once there are too many different ones to list.
    pub const REST: &'static str = "(others)";

    /// Bytes of all constants.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_types.values().fold(0, |total, bytes| total.saturating_add(*bytes))
    }

    pub(crate) fn of(model: &Model<'_>) -> Self {
        let mut facts = Self::default();
        facts.take_graph(model.graph());
        let mut note = |name: String, text: &str| {
            if !text.is_empty() && facts.properties.len() < MOST {
                facts.properties.insert(name, text.chars().take(MOST).collect());
            }
        };
        note("producer".to_owned(), format!("{} {}", model.producer_name(), model.producer_version()).trim());
        note("ir version".to_owned(), &model.ir_version().to_string());
        for (domain, version) in model.opsets() {
            note(format!("opset {}", cut(domain)), &version.to_string());
        }
        facts
    }

    fn take_graph(&mut self, graph: Graph<'_>) {
        graph.initializers().for_each(|tensor| self.take_tensor(&tensor));
        for node in graph.nodes() {
            self.nodes += 1;
            self.has_ml |= node.domain() == ML_DOMAIN;
            let operator = cut(node.op_type());
            let is_new = !self.operators.contains_key(operator);
            let operator = if is_new && self.operators.len() >= MOST { Self::REST } else { operator };
            *self.operators.entry(operator.to_owned()).or_default() += 1;
            for attribute in node.attributes() {
                attribute.tensors().for_each(|tensor| self.take_tensor(&tensor));
                let floats = attribute.floats().count() as u64;
                if floats > 0 {
                    self.add(ElementType::Fp32, floats.saturating_mul(4));
                }
                attribute.graphs().for_each(|graph| self.take_graph(graph));
            }
        }
    }

    fn take_tensor(&mut self, tensor: &Tensor<'_>) {
        let bytes = match tensor.element_type() {
            ElementType::String => tensor.strings().map(|text| text.len() as u64).sum(),
            _ => tensor.n_bytes().unwrap_or(0),
        };
        self.add(tensor.element_type(), bytes);
        if let Ok(Some(external)) = tensor.external()
            && self.external_files.len() < MOST * 16
        {
            self.external_files.insert(external.location.to_owned());
        }
    }

    fn add(&mut self, element: ElementType, bytes: u64) {
        let total = self.weight_types.entry(element.name()).or_default();
        *total = total.saturating_add(bytes);
    }
}

/// The most different operators and properties, and the most characters of one, that are kept.
const MOST: usize = 512;

fn cut(name: &str) -> &str {
    name.char_indices().nth(MOST).map_or(name, |(end, _)| &name[..end])
}
