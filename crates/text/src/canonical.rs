//! The form that every text model has behind its text: which inputs, which outputs, under which names.

use std::sync::Arc;

use millrace_core::{DType, Dim, Signature, TensorSpec, TextTask};

/// The symbol of rows.
pub(crate) const BATCH: &str = "batch";
/// The symbol of tokens.
pub(crate) const SEQUENCE: &str = "sequence";
/// The ids of tokens, INT64\[batch,sequence\].
pub(crate) const IDS: &str = "input_ids";
/// 1 for tokens and 0 for padding, INT64\[batch,sequence\].
pub(crate) const MASK: &str = "attention_mask";
/// Which of two texts a token is of, INT64\[batch,sequence\]; only where the network knows more than one.
pub(crate) const TYPES: &str = "token_type_ids";
/// The vector of a text, FP32\[batch,H\].
pub(crate) const EMBEDDING: &str = "sentence_embedding";
/// The numbers of a classification, FP32\[batch,labels\].
pub(crate) const LOGITS: &str = "logits";

/// The inputs, with or without token types.
pub(crate) fn inputs(has_types: bool) -> Vec<TensorSpec> {
    let axes = || vec![symbol(BATCH), symbol(SEQUENCE)];
    let names = [IDS, MASK, TYPES];
    names[..2 + usize::from(has_types)].iter().map(|name| TensorSpec::new(name, DType::Int64, axes())).collect()
}

/// The axis called `name`.
pub(crate) fn symbol(name: &str) -> Dim {
    Dim::Symbol(Arc::from(name))
}

/// What a network of this form gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// Whether it takes token types.
    pub(crate) has_types: bool,
    /// What it gives.
    pub(crate) task: TextTask,
    /// The output that has it.
    pub(crate) output: usize,
    /// How many numbers that has for each row.
    pub(crate) width: usize,
}

impl Network {
    /// What `signature` says, or `None` where it is not of this form.
    pub(crate) fn of(signature: &Signature) -> Option<Self> {
        let has_types = signature.inputs().len() == 3;
        let is_input = |(spec, expected): (&TensorSpec, TensorSpec)| {
            (&spec.name, spec.dtype, &spec.shape) == (&expected.name, expected.dtype, &expected.shape)
        };
        let expected = inputs(has_types);
        if signature.inputs().len() != expected.len()
            || !signature.is_mixed()
            || !signature.inputs().iter().zip(expected).all(is_input)
        {
            return None;
        }
        let width = |name: &str| {
            let output = signature.output_index(name)?;
            let spec = &signature.outputs()[output];
            match spec.shape.as_slice() {
                [_, Dim::Fixed(width)] if spec.dtype == DType::Fp32 => Some((output, *width)),
                _ => None,
            }
        };
        let (task, (output, width)) = match (width(LOGITS), width(EMBEDDING)) {
            (Some(found @ (_, 1)), _) => (TextTask::Ranking, found),
            (Some(found), _) => (TextTask::Classification, found),
            (None, Some(found)) => (TextTask::Embedding, found),
            (None, None) => return None,
        };
        Some(Self { has_types, task, output, width })
    }
}
