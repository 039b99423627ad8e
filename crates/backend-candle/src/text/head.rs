//! What stands on the encoder: pooling and the modules behind it, or a classification of the first token.

use candle_core::{DType, Result, Tensor};
use millrace_core::{LoadError, TextTask};
use millrace_huggingface::{Activation, Pooling, SentenceModules, SentenceStep, TextConfig, TextFamily};

use super::packed::Packed;
use super::pooling::{Needs, needs, pool};
use crate::backend::refused;
use crate::device::Staging;
use crate::nn::{Kernels, Linear, Ranges};
use crate::options::Precision;
use crate::weights::{Scope, Weights};

/// A head.
#[derive(Debug)]
pub(super) enum Head {
    /// Vectors of texts.
    Embedding { pooling: Pooling, steps: Vec<Step>, dimension: usize, precision: Precision },
    /// A number for each label.
    Labels { dense: Linear, activation: Activation, out: Linear, labels: usize },
}

/// One step behind the pooling.
#[derive(Debug)]
pub(super) enum Step {
    Dense(Linear, Activation),
    Normalize,
}

/// What a head gives, [rows, …] in FP32.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// `sentence_embedding` or `logits`.
    pub(super) main: Option<Tensor>,
    /// The vector before it was normalised.
    pub(super) pooled: Option<Tensor>,
}

impl Head {
    /// The modules that `modules` lists; `open` gives the weights of a folder.
    ///
    /// # Errors
    /// [`LoadError`] for modules that do not fit one another, and weights that do not fit them.
    pub(super) fn embedding(
        modules: &SentenceModules,
        pooling: Pooling,
        hidden: usize,
        (kernels, precision): (Kernels, Precision),
        mut open: impl FnMut(&str) -> std::result::Result<Weights, LoadError>,
    ) -> std::result::Result<Self, LoadError> {
        let dimension = modules.dimension(&pooling, hidden).map_err(|error| refused(&error))?;
        let mut steps = Vec::new();
        for step in &modules.steps {
            steps.push(match step {
                SentenceStep::Normalize => Step::Normalize,
                SentenceStep::Dense(dense) => {
                    let weights = open(&format!("{}/", dense.folder))?;
                    let scope = weights.root().at("linear");
                    if dense.has_bias {
                        // A bias that is missing is found out here; `Linear` takes what there is.
                        scope.floats("bias", &[dense.outputs])?;
                    }
                    Step::Dense(Linear::load(&scope, dense.inputs, dense.outputs, kernels)?, dense.activation)
                }
            });
        }
        Ok(Self::Embedding { pooling, steps, dimension, precision })
    }

    /// The head of a `…ForSequenceClassification`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is missing or has another shape.
    pub(super) fn labels(
        root: &Scope<'_>,
        encoder: &Scope<'_>,
        config: &TextConfig,
        labels: usize,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let (dense, activation, out) = match config.family {
            TextFamily::Bert => (encoder.at("pooler.dense"), Activation::Tanh, root.at("classifier")),
            TextFamily::DistilBert => (root.at("pre_classifier"), Activation::Relu, root.at("classifier")),
            TextFamily::Roberta | TextFamily::XlmRoberta | TextFamily::Camembert => {
                (root.at("classifier.dense"), Activation::Tanh, root.at("classifier.out_proj"))
            }
        };
        let width = config.hidden_size;
        Linear::need_bias(std::slice::from_ref(&dense), width)?;
        Linear::need_bias(std::slice::from_ref(&out), labels)?;
        Ok(Self::Labels {
            dense: Linear::load(&dense, width, width, kernels)?,
            activation,
            out: Linear::load(&out, width, labels, kernels)?,
            labels,
        })
    }

    /// What the model gives.
    pub(super) fn task(&self) -> TextTask {
        match self {
            Self::Embedding { .. } => TextTask::Embedding,
            Self::Labels { labels: 1, .. } => TextTask::Ranking,
            Self::Labels { .. } => TextTask::Classification,
        }
    }

    /// Whether the last step makes vectors of length 1.
    pub(super) fn is_normalised(&self) -> bool {
        matches!(self, Self::Embedding { steps, .. } if matches!(steps.last(), Some(Step::Normalize)))
    }

    /// Which tokens' vectors it looks at.
    pub(super) fn needs(&self) -> Needs {
        match self {
            Self::Embedding { pooling, .. } => needs(pooling),
            Self::Labels { .. } => Needs::First,
        }
    }

    /// Bytes that it takes.
    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Embedding { steps, .. } => {
                let bytes = |step: &Step| if let Step::Dense(linear, _) = step { linear.n_bytes() } else { 0 };
                steps.iter().map(bytes).sum()
            }
            Self::Labels { dense, out, .. } => dense.n_bytes() + out.n_bytes(),
        }
    }

    /// The answers for packed rows, in their order. `picked` are the vectors of the one token of each row that the head looks
    /// at, where it looks at one; `hidden` those of all tokens, where they were computed.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(
        &self,
        vectors: &Vectors,
        packed: &Packed,
        ranges: &Ranges,
        kernels: Kernels,
        staging: &mut Staging,
    ) -> Result<Answers> {
        match self {
            Self::Labels { dense, activation, out, .. } => {
                let x = dense.forward(&vectors.picked(self.needs(), ranges, staging)?, *activation)?;
                let logits = out.forward(&x, Activation::Identity)?.to_dtype(DType::F32)?;
                Ok(Answers { main: Some(logits), pooled: None })
            }
            Self::Embedding { pooling, steps, precision, .. } => {
                let mut x = match (self.needs(), vectors) {
                    (Needs::All, Vectors::All(hidden)) => {
                        pool(pooling, hidden, ranges, &packed.columns, kernels, staging)?
                    }
                    (needs, vectors) => vectors.picked(needs, ranges, staging)?.to_dtype(DType::F32)?,
                };
                let mut before = None;
                for step in steps {
                    match step {
                        Step::Normalize => {
                            let length = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
                            before = Some(x.clone());
                            x = x.broadcast_div(&length)?;
                        }
                        Step::Dense(linear, activation) => {
                            let dtype = if kernels == Kernels::Own { DType::F32 } else { precision.dtype() };
                            x = linear.forward(&x.to_dtype(dtype)?, *activation)?.to_dtype(DType::F32)?;
                        }
                    }
                }
                Ok(Answers { main: Some(x), pooled: before.filter(|_| self.is_normalised()) })
            }
        }
    }
}

/// The encoder's vectors.
#[derive(Debug)]
pub(super) enum Vectors {
    /// Of all tokens.
    All(Tensor),
    /// Of the one token of each row that was asked for.
    Picked(Tensor),
}

impl Vectors {
    fn picked(&self, needs: Needs, ranges: &Ranges, staging: &mut Staging) -> Result<Tensor> {
        match self {
            Self::Picked(vectors) => Ok(vectors.clone()),
            Self::All(hidden) => hidden.index_select(&picks(needs, ranges, staging)?, 0),
        }
    }
}

/// The one token of each row that is looked at.
///
/// # Errors
/// candle's, and where a row's number does not fit.
pub(super) fn picks(needs: Needs, ranges: &Ranges, staging: &mut Staging) -> Result<Tensor> {
    let token = |row: &std::ops::Range<usize>| if needs == Needs::Last { row.end - 1 } else { row.start };
    let numbers = ranges.rows().iter().map(|row| u32::try_from(token(row)).map_err(candle_core::Error::wrap));
    let numbers = numbers.collect::<Result<Vec<u32>>>()?;
    staging.upload(&numbers, &[numbers.len()])
}
