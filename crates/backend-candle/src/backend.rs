//! From files to a loaded model: which network it is, where it computes, and in which precision.

use std::sync::Arc;

use millrace_core::{Backend, LoadError, LoadErrorKind, Model, ModelSource, guarded};
use millrace_huggingface::{Config, HuggingFaceError};

use crate::architecture::Architecture;
use crate::device::{Place, spread};
use crate::options::Options;
use crate::weights::Weights;
use crate::{image, text};

const CONFIG: &str = "config.json";

/// The engine: Hugging Face folders and GGUF files through candle.
#[derive(Debug, Clone, Default)]
pub struct CandleBackend {}

/// What a network is made from.
#[derive(Debug)]
pub(crate) struct Loading<'a> {
    pub(crate) source: &'a ModelSource,
    pub(crate) options: Options,
    pub(crate) place: Place,
    pub(crate) config: Config,
    pub(crate) weights: Weights,
}

impl Backend for CandleBackend {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        let has = |fits: &dyn Fn(&str) -> bool| source.files.list().iter().any(|(name, _)| fits(name));
        has(&|name| name == CONFIG) && has(&|name| is_top(name, ".safetensors")) || has(&|name| is_top(name, ".gguf"))
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let panicked = |panicked| LoadError::new(LoadErrorKind::Engine, format!("{panicked}")).with_cause(panicked);
        guarded(|| load(source)).map_err(panicked)?
    }
}

fn is_top(name: &str, ending: &str) -> bool {
    name.ends_with(ending) && !name.contains('/')
}

fn load(source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    let options = Options::read(&source.options)?;
    spread(Place::open(&options.device)?, |place| load_at(source, &options, place))
}

fn load_at(source: &ModelSource, options: &Options, place: Place) -> Result<Arc<dyn Model>, LoadError> {
    if let Some(file) = gguf_file(source)? {
        return text::load_gguf(source, file, options, &place);
    }
    let config = source.files.read(CONFIG).map_err(|error| {
        LoadError::new(LoadErrorKind::Missing, format!("{CONFIG}: it cannot be read: {}", error.kind()))
            .with_cause(error)
    })?;
    let config = Config::parse(&config).map_err(|error| refused(&error))?;
    let architecture = Architecture::of(config.model_type())?;
    let weights = Weights::open(source, &place, options.precision)?;
    let loading = Loading { source, options: options.clone(), place, config, weights };
    match architecture {
        Architecture::Bert | Architecture::DistilBert | Architecture::Roberta => text::load(&loading),
        Architecture::Vit | Architecture::ResNet => image::load(architecture, &loading),
    }
}

/// The GGUF file, where the folder is one of that kind: safetensors win where both lie there.
fn gguf_file(source: &ModelSource) -> Result<Option<&str>, LoadError> {
    let names = || source.files.list().iter().map(|(name, _)| name.as_str());
    if names().any(|name| is_top(name, ".safetensors")) {
        return Ok(None);
    }
    let found: Vec<&str> = names().filter(|name| is_top(name, ".gguf")).collect();
    match found.as_slice() {
        [] => Ok(None),
        [file] => Ok(Some(file)),
        several => {
            let text = format!("which model file? expected one .gguf file, got {}", several.join(", "));
            Err(LoadError::new(LoadErrorKind::Invalid, text))
        }
    }
}

/// An error of reading a configuration as one of loading.
pub(crate) fn refused(error: &HuggingFaceError) -> LoadError {
    let kind = if error.is_unsupported() {
        LoadErrorKind::Unsupported
    } else if error.is_absent() {
        LoadErrorKind::Missing
    } else {
        LoadErrorKind::Invalid
    };
    LoadError::new(kind, error.to_string())
}
