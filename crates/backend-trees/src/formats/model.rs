//! A forest of a training library as a served model: what goes in, what comes out, and how sums become answers.
//!
//! One input, `input`, FP32 [N, features], where NaN is a missing value. Classifiers answer `label`, INT64 [N], the index
//! of the likeliest class, and `probabilities`, FP32 [N, classes]; everything else answers `prediction`, FP32 [N, targets].
//! So do the same models exported to ONNX.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{
    Batch, BatchOutputs, DType, Dim, Instance, LoadError, Model, ModelFacts, RunContext, RunError, Signature, Tensor,
    TensorSpec,
};

use super::invalid;
use crate::forest::{Forest, Rows, Scratch};

/// How a row of sums becomes an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Link {
    /// A classifier of two classes: the probability of the second is 1 / (1 + exp(-steepness · sum)).
    Binary { steepness: f64 },
    /// A classifier: exp(sum), divided by their sum over the classes.
    Softmax,
    /// A classifier: 1 / (1 + exp(-steepness · sum)) for each class on its own.
    OneVersusAll { steepness: f64 },
    /// The sum.
    Identity,
    /// 1 / (1 + exp(-sum)).
    Sigmoid,
    /// exp(sum).
    Exp,
    /// ln(1 + exp(sum)).
    SoftPlus,
    /// The square, with the sum's sign.
    SignedSquare,
}

impl Link {
    fn is_classifier(self) -> bool {
        matches!(self, Self::Binary { .. } | Self::Softmax | Self::OneVersusAll { .. })
    }

    /// Numbers in an answer to a row of `targets` sums.
    fn width(self, targets: usize) -> usize {
        if matches!(self, Self::Binary { .. }) { 2 } else { targets }
    }

    /// The answer to a row of sums.
    #[expect(clippy::cast_possible_truncation, reason = "answers are FP32")]
    fn apply(self, sums: &[f64], answer: &mut [f32]) {
        let sigmoid = |sum: f64| 1.0 / (1.0 + (-sum).exp());
        let each = |answer: &mut [f32], map: &dyn Fn(f64) -> f64| {
            for (answer, sum) in answer.iter_mut().zip(sums) {
                *answer = map(*sum) as f32;
            }
        };
        match self {
            Self::Binary { steepness } => {
                let second = sigmoid(steepness * sums[0]) as f32;
                answer.copy_from_slice(&[1.0 - second, second]);
            }
            Self::Softmax => {
                let greatest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = sums.iter().map(|sum| (sum - greatest).exp()).sum();
                each(answer, &|sum| (sum - greatest).exp() / total);
            }
            Self::OneVersusAll { steepness } => each(answer, &|sum| sigmoid(steepness * sum)),
            Self::Identity => each(answer, &|sum| sum),
            Self::Sigmoid => each(answer, &sigmoid),
            Self::Exp => each(answer, &f64::exp),
            Self::SoftPlus => each(answer, &|sum| sum.exp().ln_1p()),
            Self::SignedSquare => each(answer, &|sum| sum * sum.abs()),
        }
    }
}

/// What a reader found in a file.
pub(super) struct Parts {
    pub(super) forest: Forest,
    pub(super) link: Link,
    /// The type of the file's weights, as `inspect` calls it.
    pub(super) weight_type: &'static str,
    pub(super) properties: BTreeMap<String, String>,
    /// The features' names, or none.
    pub(super) feature_names: Vec<String>,
}

/// A model of a training library.
#[derive(Debug)]
pub(super) struct LibraryModel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signature: Signature,
    forest: Forest,
    link: Link,
    facts: ModelFacts,
}

/// The most features whose names `inspect` shows.
const SHOWN_NAMES: usize = 64;

impl LibraryModel {
    /// # Errors
    /// [`LoadError`] where the sizes make no signature.
    pub(super) fn new(parts: Parts) -> Result<Self, LoadError> {
        let Parts { forest, link, weight_type, mut properties, feature_names } = parts;
        let config = forest.config();
        let rows = || Dim::symbol("N");
        let input = TensorSpec::new("input", DType::Fp32, [rows(), Dim::Fixed(config.features)]);
        let answers = Dim::Fixed(link.width(config.targets));
        let outputs = if link.is_classifier() {
            vec![
                TensorSpec::new("label", DType::Int64, [rows()]),
                TensorSpec::new("probabilities", DType::Fp32, [rows(), answers]),
            ]
        } else {
            vec![TensorSpec::new("prediction", DType::Fp32, [rows(), answers])]
        };
        let signature = Signature::new(vec![input], outputs).map_err(|error| invalid(error.to_string()))?;
        if !feature_names.is_empty() {
            let more = feature_names.len().saturating_sub(SHOWN_NAMES);
            let mut shown = feature_names[..feature_names.len() - more].join(", ");
            if more > 0 {
                shown.push_str(&format!(" and {more} more"));
            }
            properties.insert("features".to_owned(), shown);
        }
        properties.insert("trees".to_owned(), forest.n_trees().to_string());
        let bytes = forest.bytes() as u64;
        let facts = ModelFacts {
            operators: BTreeMap::from([("Tree".to_owned(), forest.n_trees())]),
            nodes: Some(forest.n_nodes()),
            nodes_optimised: None,
            weight_bytes: Some(bytes),
            weight_types: BTreeMap::from([(weight_type.to_owned(), bytes)]),
            properties,
            choice: None,
        };
        Ok(Self(Arc::new(Inner { signature, forest, link, facts })))
    }
}

impl Model for LibraryModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Run {
            model: Arc::clone(&self.0),
            rows: Vec::new(),
            sums: Vec::new(),
            scratch: Scratch::default(),
        }))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.forest.bytes() as u64
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}

struct Run {
    model: Arc<Inner>,
    rows: Vec<f32>,
    sums: Vec<f64>,
    scratch: Scratch,
}

impl Instance for Run {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let Inner { forest, link, .. } = &*self.model;
        let (features, targets) = (forest.config().features, forest.config().targets);
        let n_rows = batch.rows();
        self.sums.clear();
        self.sums.resize(n_rows * targets, 0.0);
        if let [part] = batch.parts()
            && part.rows == n_rows
            && let Some(input) = part.inputs.first()
        {
            forest.scores(Rows::Single(&input.elements()?), &mut self.scratch, &mut self.sums);
        } else {
            self.rows.resize(n_rows * features, 0.0);
            batch.gather_into(0, bytemuck::cast_slice_mut(&mut self.rows))?;
            forest.scores(Rows::Single(&self.rows), &mut self.scratch, &mut self.sums);
        }
        let width = link.width(targets);
        let mut answers = vec![0.0; n_rows * width];
        for (sums, answer) in self.sums.chunks_exact(targets).zip(answers.chunks_exact_mut(width)) {
            link.apply(sums, answer);
        }
        let shape = [n_rows, width];
        if !link.is_classifier() {
            return Ok(BatchOutputs::all([Tensor::from_vec(&shape, answers)?]));
        }
        let labels = context.wanted.includes(0).then(|| Tensor::from_vec(&[n_rows], labels(&answers, width)));
        let answers = context.wanted.includes(1).then(|| Tensor::from_vec(&shape, answers));
        Ok(BatchOutputs([labels.transpose()?, answers.transpose()?].into_iter().collect()))
    }
}

/// For each row of probabilities, which is the greatest; of equal ones, the first.
fn labels(answers: &[f32], width: usize) -> Vec<i64> {
    let greatest = |row: &[f32]| {
        let mut best = 0;
        for (index, answer) in row.iter().enumerate() {
            if *answer > row[best] {
                best = index;
            }
        }
        i64::try_from(best).unwrap_or(i64::MAX)
    };
    answers.chunks_exact(width).map(greatest).collect()
}
