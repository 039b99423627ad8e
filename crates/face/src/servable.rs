//! The form that all three pipelines have as servables.

use std::fmt;
use std::sync::Arc;

use millrace_core::{
    DType, Dim, InferFuture, InferRequest, LoadError, LoadErrorKind, ModelName, PipelineSource, Reason, Refusal,
    Servable, Signature, Signatures, Tensor, TensorError, TensorList, TensorSpec, Wanted,
};

use crate::request::{Common, Pictures};

/// What one kind of pipeline does with the pictures of a request.
pub(crate) trait Kind: fmt::Debug + Send + Sync + 'static {
    /// Begins to answer a request that fits the signature.
    fn answer(&self, common: &Common, pictures: Pictures, wanted: Wanted) -> Result<InferFuture, Refusal>;
}

/// A pipeline of some kind, ready to answer.
#[derive(Debug)]
pub(crate) struct Pipeline<K> {
    model: ModelName,
    version: u64,
    signatures: Signatures,
    common: Arc<Common>,
    kind: K,
}

impl<K: Kind> Pipeline<K> {
    /// A pipeline with one BYTES input, which holds pictures, and these outputs.
    pub(crate) fn servable(
        source: PipelineSource,
        common: Common,
        kind: K,
        input: &str,
        outputs: Vec<TensorSpec>,
    ) -> Result<Arc<dyn Servable>, LoadError> {
        let signature = Signature::new(vec![TensorSpec::new(input, DType::Bytes, [rows()])], outputs)
            .map_err(|error| LoadError::new(LoadErrorKind::Engine, error.to_string()))?;
        let (model, version) = (source.model, source.version);
        Ok(Arc::new(Self { model, version, signatures: Signatures::single(signature), common: Arc::new(common), kind }))
    }

    fn begin(&self, request: InferRequest) -> Result<InferFuture, Refusal> {
        let signature = self.signatures.get(request.signature).ok_or_else(|| {
            let text = format!("model `{}` has no signature number {}", self.model, request.signature);
            Refusal::new(Reason::SignatureUnknown, text)
        })?;
        let pictures = self.common.admit(signature, &request)?;
        self.kind.answer(&self.common, pictures, request.wanted)
    }
}

impl<K: Kind> Servable for Pipeline<K> {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        self.begin(request).unwrap_or_else(InferFuture::refused)
    }
}

/// The axis of the pictures of a request.
pub(crate) fn rows() -> Dim {
    Dim::Symbol(Arc::from("N"))
}

/// An output with some rows for each picture, which `counts` counts.
pub(crate) fn ragged(name: &str, sizes: &[usize], counts: &str) -> TensorSpec {
    let shape: Vec<Dim> = std::iter::once(Dim::Unknown).chain(sizes.iter().copied().map(Dim::Fixed)).collect();
    TensorSpec::new(name, DType::Fp32, shape).ragged_by(counts)
}

/// Puts the outputs that are wanted into the order wanted. `output` makes the one at a position of the signature.
pub(crate) fn wanted_outputs(
    wanted: &Wanted,
    count: usize,
    mut output: impl FnMut(usize) -> Result<Tensor, TensorError>,
) -> Result<TensorList, TensorError> {
    match wanted {
        Wanted::All => (0..count).map(output).collect(),
        Wanted::Only(indices) => indices.iter().map(|&index| output(index)).collect(),
    }
}
