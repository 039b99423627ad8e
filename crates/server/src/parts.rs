//! What the program was built with: engines, pipelines and forms of input, each behind a feature.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_backend_auto::{AutoBackend, AutoConfig};
use millrace_core::{Backend, InputAdapterFactory, PipelineFactory, TextFactory};
use millrace_registry::Parts;

use crate::config::engines::EnginesConfig;

/// How an engine is chosen where a model does not name one.
#[derive(Debug, Clone)]
pub(crate) struct Choosing {
    pub(crate) engines: EnginesConfig,
    /// Where to remember what was measured.
    pub(crate) folder: Option<PathBuf>,
    /// Whether a lone engine is timed too.
    pub(crate) times_alone: bool,
}

impl Choosing {
    /// Measuring at every load.
    pub(crate) fn afresh(engines: &EnginesConfig) -> Self {
        Self { engines: engines.clone(), folder: None, times_alone: false }
    }

    /// Remembering in the state directory `state`, where there is one and `engines` does not say otherwise.
    pub(crate) fn remembering(engines: &EnginesConfig, state: Option<PathBuf>) -> Self {
        let folder = state.filter(|_| engines.remember).map(|state| state.join("engines"));
        Self { folder, ..Self::afresh(engines) }
    }
}

/// Everything that the program was built with. The choice among engines comes first, so that it serves whatever names no
/// engine.
pub(crate) fn built_in(choosing: Choosing) -> Parts {
    let engines = engines(&choosing.engines);
    let mut backends = chooser(choosing, &engines);
    backends.extend(engines);
    Parts { backends, pipelines: pipelines(), adapters: adapters(), text: text() }
}

/// In order of trust. candle reads the weights that an author published, which an ONNX file beside them was made from; ONNX
/// Runtime is what everybody else compares ONNX files with; the forests are exact where they run at all; tract runs more
/// than it was tried with.
fn engines(config: &EnginesConfig) -> Vec<Arc<dyn Backend>> {
    let _ = config;
    vec![
        #[cfg(feature = "candle")]
        Arc::new(millrace_backend_candle::CandleBackend::default()),
        #[cfg(feature = "onnxruntime")]
        exported(onnxruntime(config)),
        #[cfg(feature = "trees")]
        Arc::new(millrace_backend_trees::TreesBackend::default()),
        #[cfg(feature = "tract")]
        exported(millrace_backend_tract::TractBackend::default()),
    ]
}

/// An engine that runs networks as they were exported. Around it text models are as they are with any other engine.
#[cfg(all(feature = "text", any(feature = "tract", feature = "onnxruntime")))]
fn exported(engine: impl Backend) -> Arc<dyn Backend> {
    Arc::new(millrace_text::TextBackend::over(Arc::new(engine)))
}

#[cfg(all(not(feature = "text"), any(feature = "tract", feature = "onnxruntime")))]
fn exported(engine: impl Backend) -> Arc<dyn Backend> {
    Arc::new(engine)
}

#[cfg(feature = "onnxruntime")]
fn onnxruntime(config: &EnginesConfig) -> millrace_backend_onnxruntime::OnnxRuntimeBackend {
    let library = config.onnxruntime_library.clone();
    millrace_backend_onnxruntime::OnnxRuntimeBackend::new(&millrace_backend_onnxruntime::OnnxRuntimeConfig { library })
}

/// What an operator should know about engines that the program was built with and that are not there: one line each.
pub(crate) fn missing_engines(config: &EnginesConfig) -> Vec<String> {
    let _ = config;
    vec![
        #[cfg(feature = "onnxruntime")]
        match onnxruntime(config).availability() {
            millrace_backend_onnxruntime::Availability::Absent(why) => Some(format!("onnxruntime: {why}")),
            _ => None,
        },
        #[cfg(not(feature = "onnxruntime"))]
        config.onnxruntime_library.as_ref().map(|library| {
            format!(
                "onnxruntime: {} is not used: this program was built without the feature `onnxruntime`",
                library.display()
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn chooser(choosing: Choosing, engines: &[Arc<dyn Backend>]) -> Vec<Arc<dyn Backend>> {
    if engines.is_empty() {
        return Vec::new();
    }
    let config = AutoConfig {
        budget: choosing.engines.budget,
        folder: choosing.folder,
        machine: machine(&choosing.engines),
        times_alone: choosing.times_alone,
        ..AutoConfig::default()
    };
    vec![Arc::new(AutoBackend::new(engines.to_vec(), config))]
}

/// What measured times hold for. A library that was replaced is another engine.
fn machine(config: &EnginesConfig) -> String {
    let libraries = libraries(config).into_iter().map(|library| format!("; {}", crate::machine::file(&library)));
    crate::machine::description() + &libraries.collect::<String>()
}

/// The libraries that are loaded when the program runs.
fn libraries(config: &EnginesConfig) -> Vec<PathBuf> {
    let _ = config;
    vec![
        #[cfg(feature = "onnxruntime")]
        match onnxruntime(config).availability() {
            millrace_backend_onnxruntime::Availability::Found { library }
            | millrace_backend_onnxruntime::Availability::Loaded { library, .. } => library,
            _ => PathBuf::new(),
        },
    ]
}

/// Every kind of pipeline.
pub(crate) fn pipelines() -> Vec<Arc<dyn PipelineFactory>> {
    let crates: Vec<Vec<Arc<dyn PipelineFactory>>> = vec![
        #[cfg(feature = "face")]
        millrace_face::factories(),
    ];
    crates.into_iter().flatten().collect()
}

/// What recognises models that take text.
#[cfg(feature = "text")]
fn text() -> Option<Arc<dyn TextFactory>> {
    Some(Arc::new(millrace_text::TextSupport))
}

#[cfg(not(feature = "text"))]
fn text() -> Option<Arc<dyn TextFactory>> {
    None
}

fn adapters() -> Vec<Arc<dyn InputAdapterFactory>> {
    vec![
        #[cfg(feature = "vision")]
        Arc::new(millrace_vision::ImageInput),
    ]
}
