//! The crates, embedded: a registry over a folder of models, and one question to it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use millrace_backend_tract::TractBackend;
use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{Catalog, InferRequest, ModelRef, RequestContext, Resolver, Strings, Tensor};
use millrace_registry::{Parts, Registry, RegistryConfig};
use pollster::block_on;
use serde::Serialize;

/// Faces nearer to each other than this are taken for the same person's.
pub(crate) const SAME_PERSON: f64 = 0.37;

/// The model that is asked.
const PIPELINE: &str = "face_pipeline";

/// A face, as the pipeline gives it. Positions are fractions of the photograph's width and height.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Face {
    /// Left, top, right, bottom; may reach past the photograph.
    pub(crate) bbox: [f32; 4],
    pub(crate) confidence: f32,
    /// Left eye, right eye, nose tip, left and right corner of the mouth, each x and y.
    pub(crate) landmarks: [[f32; 2]; 5],
    /// 128 numbers, of length 1.
    pub(crate) embedding: Vec<f32>,
}

impl Face {
    pub(crate) fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.bbox;
        (right - left) * (bottom - top)
    }
}

/// How unlike two embeddings are: their Euclidean distance.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Finds faces in photographs. Ask from as many threads as you like.
pub(crate) struct Finder {
    registry: Registry,
    pool: ComputePool,
}

impl Finder {
    /// Loads the networks and pipelines of a folder, and waits until that is done.
    pub(crate) fn open(models: &Path) -> Result<Self, Box<dyn Error>> {
        let pool = ComputePool::new(PoolConfig::default());
        let parts = Parts {
            backends: vec![Arc::new(TractBackend::default())],
            pipelines: millrace_face::factories(),
            ..Parts::default()
        };
        let config = RegistryConfig { watch: false, ..RegistryConfig::repository(models) };
        let registry = Registry::start(config, parts, pool.clone())?;
        block_on(registry.settled());
        let folder = models.display();
        let status = registry.model(PIPELINE).ok_or_else(|| format!("{folder}: there is no model `{PIPELINE}`"))?;
        if !status.is_ready() {
            let why = status.versions.iter().find_map(|version| version.failure.as_ref());
            let why = why.map_or("it has no version", |why| &why.message);
            return Err(format!("{folder}: the model `{PIPELINE}` does not serve: {why}").into());
        }
        Ok(Self { registry, pool })
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The faces in a JPEG or PNG file, in falling order of score.
    pub(crate) fn find(&self, file: &[u8]) -> Result<Vec<Face>, Box<dyn Error>> {
        let context = RequestContext::new(crate::now());
        let pipeline = self.registry.resolve(&ModelRef::new(PIPELINE), &context)?;
        let (_, signature) = pipeline.signatures().find("").ok_or("every model has a default signature")?;
        let file: Strings = std::iter::once(file).collect();
        let inputs = signature.arrange([("image", Tensor::from_strings(&[1], file)?)])?;
        let answer = block_on(pipeline.infer(InferRequest::new(inputs, context)))?;
        // One photograph was asked about, so all rows are its own; for several, `face_count` says how many each has.
        let output = |name: &str| {
            let index = signature.output_index(name).ok_or_else(|| format!("the pipeline has no output `{name}`"))?;
            Ok::<_, Box<dyn Error>>(answer.outputs[index].elements::<f32>()?)
        };
        let (boxes, scores, points) = (output("bbox")?, output("confidence")?, output("landmarks")?);
        let embeddings = output("embedding")?;
        let places = boxes.as_chunks::<4>().0.iter().zip(points.as_chunks::<10>().0);
        let descriptions = scores.iter().zip(embeddings.chunks_exact(millrace_face::EMBEDDING_LEN));
        let faces = places.zip(descriptions).map(|((&bbox, points), (&confidence, embedding))| Face {
            bbox,
            confidence,
            landmarks: std::array::from_fn(|index| [points[2 * index], points[2 * index + 1]]),
            embedding: embedding.to_vec(),
        });
        Ok(faces.collect())
    }
}
