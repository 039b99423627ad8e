//! A loaded network over text: what all its instances share.

use std::sync::Arc;

use millrace_core::{
    Admission, DType, Dim, InputError, Instance, LoadError, LoadErrorKind, Model, ModelFacts, Signature,
    SignatureError, Tensor, TensorSpec, TextTask,
};
use millrace_huggingface::TextConfig;

use super::encoder::Encoder;
use super::head::Head;
use super::instance::TextInstance;
use super::packed::{INPUTS, Limits};
use crate::device::{Grouping, Place};
use crate::nn::Kernels;
use crate::options::Precision;
use crate::weights::Weights;

/// An encoder and its head.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: TextConfig,
    pub(super) encoder: Encoder,
    pub(super) head: Head,
    pub(super) kernels: Kernels,
    pub(super) about: About,
}

/// What the files call the network.
#[derive(Debug)]
pub(super) struct About {
    pub(super) class: String,
    pub(super) model_type: String,
    /// Layers that the files have beyond those that are used.
    pub(super) unused: usize,
}

/// Everything about a model that does not change.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) network: Network,
    pub(super) place: Place,
    pub(super) grouping: Grouping,
    pub(super) limits: Limits,
    pub(super) outputs: Outputs,
    /// Bytes of one number where candle computes.
    pub(super) number_bytes: u64,
    signature: Signature,
    facts: ModelFacts,
}

/// Which output of the signature is which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outputs {
    pub(super) count: usize,
    pub(super) pooled: Option<usize>,
    pub(super) hidden: Option<usize>,
}

impl Outputs {
    /// `sentence_embedding` or `logits`.
    pub(super) const MAIN: usize = 0;
}

/// The model as the seams see it.
#[derive(Debug)]
pub(super) struct TextModel(Arc<Loaded>);

impl TextModel {
    pub(super) fn new(network: Network, weights: &Weights, place: &Place) -> Result<Self, LoadError> {
        Self::with(network, weights, place, place.grouping())
    }

    /// The same with rows grouped in another way than is best for the place.
    pub(super) fn with(
        network: Network,
        weights: &Weights,
        place: &Place,
        grouping: Grouping,
    ) -> Result<Self, LoadError> {
        let outputs = match network.head.task() {
            TextTask::Embedding if network.head.is_normalised() => {
                Outputs { count: 3, pooled: Some(1), hidden: Some(2) }
            }
            TextTask::Embedding => Outputs { count: 2, pooled: None, hidden: Some(1) },
            TextTask::Classification | TextTask::Ranking => Outputs { count: 1, pooled: None, hidden: None },
        };
        let signature = signature(&network).map_err(|error| {
            LoadError::new(LoadErrorKind::Engine, format!("its signature: {error}")).with_cause(error)
        })?;
        let facts = facts(&network, weights, place);
        Ok(Self(Arc::new(Loaded {
            limits: Limits::of(&network.config),
            place: place.clone(),
            grouping,
            outputs,
            number_bytes: weights.precision().dtype().size_in_bytes() as u64,
            signature,
            facts,
            network,
        })))
    }
}

impl Model for TextModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(TextInstance::new(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        (self.0.network.encoder.n_bytes() + self.0.network.head.n_bytes()) as u64
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        self.0.limits.check_columns(admission.group.0.first().copied().unwrap_or(0))
    }

    fn weigh(&self, inputs: &[Tensor], _admission: &Admission) -> Result<usize, InputError> {
        self.0.limits.visit(inputs, |_| {})
    }

    fn uses_threads(&self) -> bool {
        self.0.place.is_cpu()
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}

/// The token-level signature that every text model has, whatever the engine.
fn signature(network: &Network) -> Result<Signature, SignatureError> {
    let (batch, sequence) = (Dim::Symbol("batch".into()), Dim::Symbol("sequence".into()));
    let tokens = |name: &&str| TensorSpec::new(name, DType::Int64, [batch.clone(), sequence.clone()]);
    let count = if network.config.has_token_types() { 3 } else { 2 };
    let inputs = INPUTS[..count].iter().map(tokens).collect();
    let vectors = |name: &str, width: usize| TensorSpec::new(name, DType::Fp32, [batch.clone(), Dim::Fixed(width)]);
    let outputs = match &network.head {
        Head::Labels { labels, .. } => vec![vectors("logits", *labels)],
        Head::Embedding { dimension, .. } => {
            let mut outputs = vec![vectors("sentence_embedding", *dimension)];
            if network.head.is_normalised() {
                outputs.push(vectors("pooled", *dimension));
            }
            let width = Dim::Fixed(network.config.hidden_size);
            outputs.push(TensorSpec::new("last_hidden_state", DType::Fp32, [batch.clone(), sequence.clone(), width]));
            outputs
        }
    };
    Signature::new(inputs, outputs)?.mixed("sequence")
}

fn facts(network: &Network, weights: &Weights, place: &Place) -> ModelFacts {
    let kept = weights.precision();
    let precision = match network.kernels {
        Kernels::Own if kept != Precision::Fp32 => format!("{} weights, FP32 arithmetic", kept.name()),
        Kernels::Own | Kernels::Candle => kept.name().to_owned(),
    };
    let (layers, unused) = (network.config.layers, network.about.unused);
    let more = if unused > 0 { format!(", the first of {}", layers.saturating_add(unused)) } else { String::new() };
    let mut properties = vec![
        ("architecture", network.about.class.clone()),
        ("model type", network.about.model_type.clone()),
        ("task", network.head.task().name().to_owned()),
        ("precision", precision),
        ("device", place.name()),
        ("layers", format!("{layers}{more}")),
        ("hidden size", network.config.hidden_size.to_string()),
        ("most tokens", network.config.max_tokens().to_string()),
    ];
    if let Head::Embedding { pooling, .. } = &network.head {
        properties.push((ModelFacts::POOLING, pooling.to_string()));
    }
    properties.retain(|(_, value)| !value.is_empty());
    ModelFacts {
        weight_bytes: Some(weights.bytes_by_type().values().sum()),
        weight_types: weights.bytes_by_type(),
        properties: properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..ModelFacts::default()
    }
}
