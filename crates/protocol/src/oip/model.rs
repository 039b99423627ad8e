//! What a model says of itself: metadata, and the configuration that Triton's clients ask for.

use millrace_core::{
    Catalog, DType, ModelRef, RequestContext, Resolver, Signature, TensorSpec, VersionChoice, VersionState,
    VersionStatus,
};

use super::datatype::{data_type_name, spec_sizes};
use super::failure::Failure;
use super::resolve::resolve;

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its element type; the name on the wire is [`DType::name`].
    pub dtype: DType,
    /// Its sizes, the batch axis included; `-1` where a request or the run decides.
    pub sizes: Vec<i64>,
}

/// A model's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The versions that can serve, ascending; only the one asked for where one was.
    pub versions: Vec<u64>,
    /// What kind of model and engine, such as `onnx_tract`.
    pub platform: String,
    /// The inputs in order.
    pub inputs: Vec<TensorMetadata>,
    /// The outputs in order.
    pub outputs: Vec<TensorMetadata>,
}

/// One input or output of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Its element type; the name on the wire is [`data_type_name`].
    pub dtype: DType,
    /// Its sizes, without the axis of rows where the model is batched.
    pub dims: Vec<i64>,
}

impl TensorConfig {
    /// The element type's name, such as `TYPE_FP32`.
    pub fn data_type(&self) -> &'static str {
        data_type_name(self.dtype)
    }
}

/// A model's configuration: what Triton's `ModelConfig` has and is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// What kind of model and engine, such as `onnx_tract`.
    pub platform: String,
    /// The engine, such as `tract`.
    pub backend: String,
    /// The most rows of one run; 0 where requests never share one.
    pub max_batch_size: i32,
    /// The inputs in order.
    pub inputs: Vec<TensorConfig>,
    /// The outputs in order.
    pub outputs: Vec<TensorConfig>,
    /// Microseconds that a batch waits for company, where an operator said so; for batched models only.
    pub max_queue_delay_microseconds: Option<u64>,
    /// The most runs at once, where that is bounded.
    pub instance_count: Option<i32>,
}

/// The platform of a model that the engine `backend` runs.
pub fn platform(backend: &str) -> String {
    // The one engine that has a single format; of another the name says as much as is known.
    if backend == "tract" { "onnx_tract".to_owned() } else { backend.to_owned() }
}

/// The metadata of `model`.
///
/// # Errors
/// A [`Failure`] when the model or version is unknown or cannot serve.
pub fn model_metadata(
    resolver: &dyn Resolver,
    catalog: &dyn Catalog,
    model: &ModelRef<'_>,
    context: &RequestContext,
) -> Result<ModelMetadata, Failure> {
    let servable = resolve(resolver, model, context)?;
    let status = catalog.model(model.name);
    let known = status.iter().flat_map(|status| &status.versions);
    let versions = match model.version {
        VersionChoice::Default => {
            let ready = known.clone().filter(|version| version.state == VersionState::Available);
            let ready: Vec<u64> = ready.map(|version| version.version).collect();
            // A layer may answer for a name that the catalog does not have.
            if ready.is_empty() { vec![servable.version()] } else { ready }
        }
        VersionChoice::Number(_) | VersionChoice::Label(_) => vec![servable.version()],
    };
    let backend = known.clone().find(|version| version.version == servable.version()).and_then(backend_of);
    let signature = servable.signatures().get(0);
    let view = |specs: &[TensorSpec]| {
        let one = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.to_string(),
            dtype: spec.dtype,
            sizes: spec_sizes(spec).collect(),
        };
        specs.iter().map(one).collect()
    };
    Ok(ModelMetadata {
        name: servable.model().to_string(),
        versions,
        platform: platform(backend.unwrap_or_default()),
        inputs: view(signature.map_or(&[], Signature::inputs)),
        outputs: view(signature.map_or(&[], Signature::outputs)),
    })
}

/// The configuration of `model`.
///
/// # Errors
/// A [`Failure`] when the model or version is unknown or cannot serve.
pub fn model_config(
    resolver: &dyn Resolver,
    catalog: &dyn Catalog,
    model: &ModelRef<'_>,
    context: &RequestContext,
) -> Result<ModelConfig, Failure> {
    let servable = resolve(resolver, model, context)?;
    let status = catalog.model(model.name);
    let version = status.iter().flat_map(|status| &status.versions).find(|it| it.version == servable.version());
    let backend = version.and_then(backend_of).unwrap_or_default();
    let max_batch_size = version.map_or(0, |version| version.max_batch_size);
    let signature = servable.signatures().get(0);
    let view = |specs: &[TensorSpec]| {
        let one = |spec: &TensorSpec| {
            // Clients put an axis in front of these. The rows of a ragged output are not those of a batch, but as many axes
            // as clients then count it has.
            let counts_rows = spec.batch_axis == Some(0) || spec.ragged_by.is_some();
            let without_rows = usize::from(max_batch_size > 0 && counts_rows);
            let dims = spec_sizes(spec).skip(without_rows).collect();
            TensorConfig { name: spec.name.to_string(), dtype: spec.dtype, dims }
        };
        specs.iter().map(one).collect()
    };
    let delay = version.and_then(|version| version.batch_delay).filter(|_| max_batch_size > 0);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    Ok(ModelConfig {
        name: servable.model().to_string(),
        platform: platform(backend),
        backend: backend.to_owned(),
        max_batch_size: count(max_batch_size),
        inputs: view(signature.map_or(&[], Signature::inputs)),
        outputs: view(signature.map_or(&[], Signature::outputs)),
        max_queue_delay_microseconds: delay.map(|delay| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        instance_count: version.and_then(|version| version.executors).map(count),
    })
}

fn backend_of(version: &VersionStatus) -> Option<&str> {
    version.backend.as_deref()
}

#[cfg(test)]
mod tests;
