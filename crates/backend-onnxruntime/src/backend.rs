//! From files to a loaded model: find the file, check it, let the engine read it, describe what came out.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    Backend, DType, LoadError, LoadErrorKind, Model, ModelFacts, ModelSource, Quoted, Verdict, guarded,
};
use millrace_onnx::{Facts, OnnxError};
use ort::{Error, ErrorCode};

use crate::instance::words;
use crate::library::{Availability, Found, OnnxRuntimeConfig, search};
use crate::model::{Loaded, OnnxRuntimeModel, Recipe, digest};
use crate::options::Options;
use crate::probe;
use crate::session::{Runner, providers};
use crate::signature::{self, FirstAxes, Read};
use crate::{constants, external};

/// The engine: ONNX through the ONNX Runtime library of this machine.
#[derive(Debug, Clone)]
pub struct OnnxRuntimeBackend {
    found: Found,
}

impl OnnxRuntimeBackend {
    /// Looks for the library; loads nothing.
    pub fn new(config: &OnnxRuntimeConfig) -> Self {
        Self { found: search(config) }
    }

    /// What is known about the library, without loading it.
    pub fn availability(&self) -> Availability {
        self.found.availability()
    }

    /// The same after loading the library, where that has not happened yet.
    pub fn connect(&self) -> Availability {
        match guarded(|| self.found.load()) {
            Ok(Ok(_)) => self.found.availability(),
            Ok(Err(why)) => Availability::Absent(why),
            Err(panicked) => Availability::Absent(panicked.to_string()),
        }
    }

    /// The engine's environment, for programs that make sessions of their own beside ours: a process can have only one.
    ///
    /// # Errors
    /// Why there is no library, in words.
    pub fn environment(&self) -> Result<ort::environment::Environment, String> {
        self.found.load().map(|library| library.environment.clone())
    }
}

impl Default for OnnxRuntimeBackend {
    fn default() -> Self {
        Self::new(&OnnxRuntimeConfig::default())
    }
}

impl Backend for OnnxRuntimeBackend {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    /// False as well where there is no library, so that nobody tries in vain.
    fn recognises(&self, source: &ModelSource) -> bool {
        model_file(source).is_ok() && !matches!(self.availability(), Availability::Absent(_))
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let file = model_file(source)?;
        let loaded = guarded(|| load(&self.found, file, source)).map_err(|panicked| {
            LoadError::new(LoadErrorKind::Engine, format!("{file}: {panicked}")).with_cause(panicked)
        })?;
        Ok(Arc::new(OnnxRuntimeModel(loaded?)))
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
            let there = listed(several);
            let text = format!("which model file? expected one .onnx file or one called model.onnx, got {there}");
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

fn load(found: &Found, file: &str, source: &ModelSource) -> Result<Arc<Loaded>, LoadError> {
    let options = Options::read(&source.options)?;
    let library = found.load().map_err(|why| {
        let text = format!("the engine onnxruntime cannot run here: {why}");
        LoadError::new(LoadErrorKind::Unsupported, text)
    })?;
    let providers = providers(&options, &library.providers)?;
    let bytes = read(file, source)?;
    let model = millrace_onnx::Model::parse(&bytes).map_err(|error| refused(file, &error))?;
    let facts = model.facts();
    let made = constants::check(file, &model, source)?;
    let session_bytes = session_bytes(file, bytes.len() as u64, facts.weight_bytes().saturating_add(made), source)?;
    let external = external::files(file, &bytes, &model, source)?;
    let digest = digest(&bytes, &external);
    let (file, source) = (file.to_owned(), source.clone());
    let recipe = Recipe { library, options, providers, file, source, session_bytes, digest };
    let runner = session(&recipe, &bytes, &external)?;
    let (read, apart) = describe(&recipe, &runner, &model)?;
    let facts = told(&recipe, facts, apart);
    Ok(Arc::new(Loaded::new(read.signature, facts, runner, recipe)))
}

fn read(file: &str, source: &ModelSource) -> Result<Bytes, LoadError> {
    let size = source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
    if size > source.memory_budget {
        let text = format!("{file}: {size} bytes; the memory budget is {}", source.memory_budget);
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    source.files.read(file).map_err(|error| {
        let text = format!("{file}: it cannot be read: {}", error.kind());
        LoadError::new(LoadErrorKind::Missing, text).with_cause(error)
    })
}

/// Bytes that a session takes, about: measured on networks of 14 to 102 MB it is 1.2 times the weights, of which the
/// engine keeps a packed form, and what it keeps for values in between.
///
/// # Errors
/// [`LoadError`] when that is more than the budget.
fn session_bytes(file: &str, file_bytes: u64, constants: u64, source: &ModelSource) -> Result<u64, LoadError> {
    const BASE: u64 = 1 << 20;
    let weights = constants.max(file_bytes);
    let bytes = weights.saturating_add(weights / 4).saturating_add(BASE);
    if bytes > source.memory_budget {
        let budget = source.memory_budget;
        let text = format!("{file}: it would take about {bytes} bytes; the memory budget is {budget}");
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    Ok(bytes)
}

fn session(recipe: &Recipe, bytes: &[u8], external: &[(CString, Bytes)]) -> Result<Runner, LoadError> {
    recipe.make(bytes, external, 1).map_err(|error| {
        let (kind, text) = explained(&error);
        LoadError::new(kind, format!("{}: {text}", recipe.file)).with_cause(error)
    })
}

/// What an error of the engine means for a file that could be read.
fn explained(error: &Error) -> (LoadErrorKind, String) {
    let text = words(error.message());
    let says = |words: &str| text.contains(words);
    let is_unknown = says("not a registered function") || says("No Op registered") || says("No opset import");
    let kind = match error.code() {
        ErrorCode::NotImplemented => LoadErrorKind::Unsupported,
        _ if is_unknown || says("Could not find an implementation") => LoadErrorKind::Unsupported,
        _ if says("Failed to allocate memory") || says("bad_alloc") => LoadErrorKind::TooLarge,
        ErrorCode::EngineError | ErrorCode::ExecutionProviderFailure => LoadErrorKind::Engine,
        _ => LoadErrorKind::Invalid,
    };
    (kind, text)
}

/// The signature, and why the rows of a batch are kept apart where the shapes look as if they might run together.
fn describe(
    recipe: &Recipe,
    runner: &Runner,
    model: &millrace_onnx::Model<'_>,
) -> Result<(Read, Option<Apart>), LoadError> {
    let named = |error: LoadError| LoadError::new(error.kind(), format!("{}: {error}", recipe.file)).with_cause(error);
    let (session, graph) = (&runner.session, model.graph());
    let unknown = signature::of_unknown_rank(session, graph);
    let mut ranks = HashMap::new();
    if !unknown.is_empty() {
        let read = signature::read(session, graph, &ranks, FirstAxes::Apart).map_err(named)?;
        ranks = probe::ranks(runner, &read.signature);
        if let Some(name) = unknown.iter().find(|name| !ranks.contains_key(*name)) {
            let text =
                format!("output {} has no shape, and no invented input fits the model to find its rank", Quoted(name));
            return Err(named(LoadError::new(LoadErrorKind::Unsupported, text)));
        }
    }
    let read = signature::read(session, graph, &ranks, FirstAxes::Batch).map_err(named)?;
    if !read.signature.is_batched() {
        let apart = signature::read(session, graph, &ranks, FirstAxes::Apart).map_err(named)?;
        return Ok((apart, None));
    }
    let verdict = match mixing(model) {
        Some(why) => Verdict::Mixing(why),
        None if recipe.options.check_rows => probe::rows(runner, &read.signature, is_coarse(model, &read)),
        None => Verdict::Independent,
    };
    let why = match verdict {
        Verdict::Independent => return Ok((read, None)),
        Verdict::Mixing(why) => Apart { property: "not batched", why },
        // Shapes alone are no proof, and the graph is not looked at, so rows stay apart; but nothing is known against them.
        Verdict::Unknown => Apart {
            property: "rows untried",
            why: "no invented input fits the model, so it is not batched (option `check_rows`)".to_owned(),
        },
    };
    if read.is_guess {
        let apart = signature::read(session, graph, &ranks, FirstAxes::Apart).map_err(named)?;
        return Ok((Read { signature: apart.signature.unbatched(), ..apart }, Some(why)));
    }
    Ok((Read { signature: read.signature.unbatched(), ..read }, Some(why)))
}

/// Why rows are kept apart although the shapes look as if they might run together.
struct Apart {
    /// The fact that tells it: `not batched` where rows are known to depend on each other. That holds for other engines too.
    property: &'static str,
    why: String,
}

/// The first node whose operator works on all rows at once in a way that a trial of two rows may not show.
fn mixing(model: &millrace_onnx::Model<'_>) -> Option<String> {
    let mut found = None;
    model.graph().for_each_node(&mut |node| {
        // Its scale comes from all elements: other rows move the answer by less than a trial can tell from rounding.
        if node.op_type().starts_with("DynamicQuantize") && found.is_none() {
            found = Some(format!("{node} works across the rows of a batch"));
        }
    });
    found
}

/// Where numbers are rounded to 256 steps, or to halves, a last bit may become a whole step.
fn is_coarse(model: &millrace_onnx::Model<'_>, read: &Read) -> bool {
    let mut is_quantised = false;
    model.graph().for_each_node(&mut |node| is_quantised |= node.op_type().contains("Quantize"));
    is_quantised || read.signature.outputs().iter().any(|spec| matches!(spec.dtype, DType::Fp16 | DType::Bf16))
}

fn told(recipe: &Recipe, facts: Facts, apart: Option<Apart>) -> ModelFacts {
    let weight_bytes = facts.weight_bytes();
    let mut properties = facts.properties;
    properties.insert("library".to_owned(), format!("onnxruntime {}", recipe.library.version));
    let providers: Vec<&str> = recipe.providers.iter().map(|provider| provider.name()).collect();
    properties.insert("execution providers".to_owned(), providers.join(", "));
    if let Some(Apart { property, why }) = apart {
        properties.insert(property.to_owned(), why);
    }
    ModelFacts {
        operators: facts.operators,
        nodes: Some(facts.nodes),
        weight_bytes: Some(weight_bytes),
        weight_types: facts.weight_types.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
        properties,
        ..ModelFacts::default()
    }
}

/// The reader's error as one of loading `file`.
pub(crate) fn refused(file: &str, error: &OnnxError) -> LoadError {
    let kind = match error {
        OnnxError::Damaged { .. } | OnnxError::Invalid { .. } => LoadErrorKind::Invalid,
        OnnxError::Unsupported { .. } => LoadErrorKind::Unsupported,
        OnnxError::Outside { .. } => LoadErrorKind::Forbidden,
        OnnxError::Unreadable { .. } => LoadErrorKind::Missing,
    };
    let text = match error {
        // The name of a place that is none of the model's business stays out of the answer.
        OnnxError::Outside { place, .. } => {
            format!("{file}: external data of the initializer: {place} leads out of the folder")
        }
        _ => format!("{file}: {error}"),
    };
    LoadError::new(kind, text)
}
