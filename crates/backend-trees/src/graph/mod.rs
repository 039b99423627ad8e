//! Pipelines in ONNX files: scalers, encoders, trees and what exporters put around them.
//!
//! A file is compiled once into a list of kernels over numbered values (`compile`); an instance keeps those values, so
//! that a run allocates little more than its outputs. While compiling, the shape of every value is followed as far as it
//! can be foretold, and with it whether rows keep to themselves: a model whose graph mixes rows is never batched.
//!
//! Results are those of ONNX Runtime, down to its reading of what the operators' specification leaves open.

mod compile;
mod constant;
mod fact;
mod kernel;
mod model;
mod node;
mod ops;
mod value;

use std::sync::Arc;

use millrace_core::{LoadError, LoadErrorKind, Model, ModelFacts, ModelSource};

/// Loads `bytes`, the content of the file `file` of `source`.
///
/// # Errors
/// [`LoadError`]; `Foreign` when it is a sound ONNX file without an operator of `ai.onnx.ml`.
pub(crate) fn load(file: &str, bytes: &[u8], source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    let model = compile::parse(file, bytes)?;
    let facts = model.facts();
    if !facts.has_ml {
        let text = format!("{file}: no node is of the operator set ai.onnx.ml: a network for another engine");
        return Err(LoadError::new(LoadErrorKind::Foreign, text));
    }
    let plan = compile::compile(file, &model, source)?;
    let mut properties = facts.properties.clone();
    properties.extend(plan.notes.iter().cloned());
    let trees: usize = plan.steps.iter().map(|step| step.kernel.n_trees()).sum();
    if trees > 0 {
        properties.insert("trees".to_owned(), trees.to_string());
    }
    let facts = ModelFacts {
        nodes: Some(facts.nodes),
        nodes_optimised: Some(plan.steps.len()),
        weight_bytes: Some(facts.weight_bytes()),
        weight_types: facts.weight_types.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
        operators: facts.operators,
        properties,
        ..ModelFacts::default()
    };
    Ok(Arc::new(model::Pipeline { plan: Arc::new(plan), facts }))
}
