//! What the program was built with: engines, pipelines and forms of input, each behind a feature.

use std::sync::Arc;

use millrace_core::{Backend, InputAdapterFactory, PipelineFactory};
use millrace_registry::Parts;

/// Everything that the program was built with.
pub(crate) fn built_in() -> Parts {
    Parts { backends: backends(), pipelines: pipelines(), adapters: adapters() }
}

fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "tract")]
        Arc::new(millrace_backend_tract::TractBackend::default()),
    ]
}

fn pipelines() -> Vec<Arc<dyn PipelineFactory>> {
    let crates: Vec<Vec<Arc<dyn PipelineFactory>>> = vec![
        #[cfg(feature = "face")]
        millrace_face::factories(),
    ];
    crates.into_iter().flatten().collect()
}

fn adapters() -> Vec<Arc<dyn InputAdapterFactory>> {
    vec![
        #[cfg(feature = "vision")]
        Arc::new(millrace_vision::ImageInput),
    ]
}
