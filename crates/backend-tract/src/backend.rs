//! From files to a loaded model: find the file, check it, let the engine read it, describe what came out.

use std::sync::Arc;

use millrace_core::{
    Admission, Backend, Group, LoadError, LoadErrorKind, Model, ModelFacts, ModelSource, Signature, Verdict, guarded,
};
use tract_onnx::prelude::{Framework, InferenceModelExt, TypedModel};
use tract_onnx::tract_hir::infer::InferenceModel;

use crate::dims::Sizes;
use crate::model::{Loaded, TractModel};
use crate::options::Options;
use crate::plans::{Plans, flatten};
use crate::probe;
use crate::rewrite::rewrite;
use crate::scan::{self, FirstAxes, Scanned};
use crate::signature::signature;
use crate::tokens;

/// Limits of the engine. The defaults suit a server that loads files it did not write itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TractConfig {
    /// Plans for exact sizes that one model keeps beside its symbolic plan; at least 1.
    pub max_plans: usize,
    /// The most bytes of any one tensor, in the file or while a request runs.
    pub max_tensor_bytes: u64,
    /// The most nodes of a file, subgraphs included.
    pub max_nodes: usize,
    /// The deepest nesting of graphs inside operators such as `If`.
    pub max_subgraph_depth: usize,
}

impl Default for TractConfig {
    fn default() -> Self {
        Self { max_plans: 16, max_tensor_bytes: 4 << 30, max_nodes: 100_000, max_subgraph_depth: 16 }
    }
}

/// The engine: ONNX on the CPU.
#[derive(Debug, Clone, Default)]
pub struct TractBackend {
    config: TractConfig,
}

impl TractBackend {
    /// The engine with other limits than the default ones.
    pub fn new(config: TractConfig) -> Self {
        Self { config }
    }
}

impl Backend for TractBackend {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        model_file(source).is_ok()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let file = model_file(source)?;
        let outcome = guarded(|| load(file, source, &self.config));
        let loaded = outcome.map_err(|panicked| {
            LoadError::new(LoadErrorKind::Engine, format!("{file}: {panicked}")).with_cause(panicked)
        })?;
        Ok(Arc::new(TractModel(loaded?)))
    }
}

/// The one ONNX file of the version.
fn model_file(source: &ModelSource) -> Result<&str, LoadError> {
    let names: Vec<&str> = source.files.list().iter().map(|(name, _)| name.as_str()).collect();
    let found: Vec<&str> =
        names.iter().copied().filter(|name| name.ends_with(".onnx") && !name.contains('/')).collect();
    match found.as_slice() {
        [file] => Ok(file),
        [] => {
            let there = listed(&names);
            let text = format!("no model file: expected model.onnx in the version's folder, which holds {there}");
            Err(LoadError::new(LoadErrorKind::Missing, text))
        }
        several => several.iter().copied().find(|name| *name == "model.onnx").ok_or_else(|| {
            let text =
                format!("which model file? expected one .onnx file or one called model.onnx, got {}", listed(several));
            LoadError::new(LoadErrorKind::Invalid, text)
        }),
    }
}

fn listed(names: &[&str]) -> String {
    const MOST: usize = 5;
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > MOST => format!("{} and {} more", names[..MOST].join(", "), count - MOST),
        _ => names.join(", "),
    }
}

/// Loads `file`. Where all inputs leave their first axis unnamed, it is taken for one batch axis if the model then treats
/// rows apart, and else for one axis of its own per input.
fn load(file: &str, source: &ModelSource, config: &TractConfig) -> Result<Arc<Loaded>, LoadError> {
    let options = Options::read(&source.options)?;
    let scanned = scan::scan(file, source, config, FirstAxes::Shared)?;
    if !scanned.shares_first_axes {
        return assemble(file, scanned, config, options).map(|(loaded, _)| loaded);
    }
    match assemble(file, scanned, config, options) {
        Ok((loaded, Verdict::Independent)) => Ok(loaded),
        Ok(_) | Err(_) => {
            let scanned = scan::scan(file, source, config, FirstAxes::Apart)?;
            assemble(file, scanned, config, options).map(|(loaded, _)| loaded)
        }
    }
}

/// From a checked file to a model, and whether its rows are known to be independent.
fn assemble(
    file: &str,
    scanned: Scanned,
    config: &TractConfig,
    options: Options,
) -> Result<(Arc<Loaded>, Verdict), LoadError> {
    let model = typed(file, &scanned).map_err(|error| explained(file, error, &scanned))?;
    let (signature, mixing) = signature(&model, &scanned).map_err(|error| named(file, error))?;
    let loaded = Arc::new(finish(file, &model, signature, mixing, scanned.facts.clone(), config)?);
    if !loaded.signature.is_batched() || !options.check_rows {
        return Ok((loaded, Verdict::Unknown));
    }
    match probe::rows(&loaded) {
        Verdict::Mixing(why) => {
            let signature = loaded.signature.clone().unbatched();
            let loaded = finish(file, &model, signature, Some(why.clone()), scanned.facts, config)?;
            Ok((Arc::new(loaded), Verdict::Mixing(why)))
        }
        verdict @ (Verdict::Independent | Verdict::Unknown) => Ok((loaded, verdict)),
    }
}

/// Makes plans and checks for `model` as `signature` describes it.
fn finish(
    file: &str,
    model: &TypedModel,
    signature: Signature,
    mixing: Option<String>,
    mut facts: ModelFacts,
    config: &TractConfig,
) -> Result<Loaded, LoadError> {
    let sizes = Sizes::new(model, &signature, config.max_tensor_bytes);
    if signature.symbols().is_empty() {
        // Rows are all that varies, so a model that cannot run one of them can run nothing.
        sizes
            .check(&Admission { rows: 1, group: Group::default() })
            .map_err(|error| LoadError::new(LoadErrorKind::TooLarge, format!("{file}: no request can run: {error}")))?;
    }
    let lookups = tokens::lookups(model);
    let plans = Plans::new(rewritten(model), &signature, config.max_plans).map_err(|error| named(file, error))?;
    facts.nodes_optimised = plans.symbolic().map(|plan| plan.model().nodes().len());
    if let Some(mixing) = mixing {
        facts.properties.insert("not batched".to_owned(), mixing);
    }
    if plans.symbolic().is_none() {
        let text = "the engine has no symbolic plan for this model: each new size is planned when it first comes";
        facts.properties.insert("fixed plans only".to_owned(), text.to_owned());
    }
    Ok(Loaded { signature, plans, sizes, lookups, facts })
}

/// The model with faster operators in place of some of the engine's, or as it is where the engine cannot follow that.
fn rewritten(model: &TypedModel) -> TypedModel {
    let attempt = guarded(|| {
        let mut model = model.clone();
        rewrite(&mut model).map(|()| model)
    });
    flatten(attempt, "rewriting the graph").unwrap_or_else(|error| {
        tracing::warn!(%error, "the model runs as the engine reads it");
        model.clone()
    })
}

/// Lets the engine read the graph and infer every type. Shapes noted in the file are hints of its exporter that may be
/// wrong or may name other symbols than the inputs do, so a second attempt leaves them out.
fn typed(file: &str, scanned: &Scanned) -> Result<TypedModel, LoadError> {
    let attempt = |ignore_hints: bool| {
        let outcome = guarded(|| {
            let engine = tract_onnx::onnx().with_ignore_value_info(ignore_hints);
            let model: InferenceModel = engine.model_for_proto_model(&scanned.proto)?;
            model.into_typed()?.into_decluttered()
        });
        flatten(outcome, &format!("{file}: reading the graph"))
    };
    attempt(false).or_else(|first| attempt(true).map_err(|_| first))
}

fn named(file: &str, error: LoadError) -> LoadError {
    LoadError::new(error.kind(), format!("{file}: {error}")).with_cause(error)
}

/// Adds what is known about a failure that the engine words badly.
fn explained(file: &str, error: LoadError, scanned: &Scanned) -> LoadError {
    let recurrent = ["LSTM", "GRU", "RNN"].into_iter().find(|op| scanned.facts.operators.contains_key(*op));
    match recurrent {
        Some(operator) if scanned.is_symbolic => {
            let text = format!(
                "{file}: the engine does not run {operator} with a symbolic axis; give every input a fixed shape ({error})"
            );
            LoadError::new(LoadErrorKind::Unsupported, text).with_cause(error)
        }
        _ => error,
    }
}
