//! Recognises text networks by what their exporters call inputs and outputs.

use std::sync::Arc;

use millrace_core::{DType, Dim, Signature, SignatureError, TensorSpec};
use millrace_huggingface::{Config, Head};

use crate::canonical::{BATCH, EMBEDDING, IDS, LOGITS, MASK, SEQUENCE, TYPES, inputs, symbol};

/// The vectors of tokens under the names that exporters give them; the first of these that is there.
const HIDDEN: [&str; 2] = ["last_hidden_state", "token_embeddings"];
/// The output of all tokens' vectors, FP32\[batch,sequence,H\].
const LAST_HIDDEN: &str = "last_hidden_state";
/// The vector before its length was made 1, FP32\[batch,H\].
const POOLED: &str = "pooled";

/// An exported text network.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// For each of its inputs, in its order: which of the canonical ones it is (0 ids, 1 mask, 2 types), and its type.
    pub(crate) inputs: Vec<(usize, DType)>,
    /// What it gives.
    pub(crate) gives: Gives,
}

/// What an exported network gives, each with the number of the output and of numbers in a row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// Vectors of tokens, to be pooled.
    Hidden { output: usize, width: usize },
    /// Vectors of texts, pooled by the network itself, and perhaps those of tokens.
    Sentence { output: usize, width: usize, hidden: Option<(usize, usize)> },
    /// The numbers of a classification.
    Logits { output: usize, width: usize },
}

impl Export {
    /// What `signature` is, or `None` where it is not that of a text network which can be given the canonical form.
    ///
    /// Exporters write networks that pool as well as give the vectors of tokens. Where it `is_said` outside of the network how
    /// they are pooled, its own pooling is left alone: then the outputs are those that the folder has on every engine.
    pub(crate) fn of(signature: &Signature, config: Option<&Config>, is_said: bool) -> Option<Self> {
        let inputs = takes(signature)?;
        let gives = gives(signature, config, is_said)?;
        Some(Self { inputs, gives })
    }

    /// Whether it takes token types.
    pub(crate) fn has_types(&self) -> bool {
        self.inputs.iter().any(|(which, _)| *which == 2)
    }

    /// The canonical signature, where vectors of texts have `width` numbers, and `before` numbers before their length was
    /// made 1, if it was.
    pub(crate) fn canonical(&self, width: usize, before: Option<usize>) -> Result<Signature, SignatureError> {
        let row = |name: &str, width| TensorSpec::new(name, DType::Fp32, vec![symbol(BATCH), Dim::Fixed(width)]);
        let tokens =
            |width| TensorSpec::new(LAST_HIDDEN, DType::Fp32, vec![symbol(BATCH), symbol(SEQUENCE), Dim::Fixed(width)]);
        let mut outputs = Vec::new();
        match self.gives {
            Gives::Logits { width, .. } => outputs.push(row(LOGITS, width)),
            Gives::Hidden { width: own, .. } => {
                outputs.push(row(EMBEDDING, width));
                outputs.extend(before.map(|width| row(POOLED, width)));
                outputs.push(tokens(own));
            }
            Gives::Sentence { width, hidden, .. } => {
                outputs.push(row(EMBEDDING, width));
                outputs.extend(hidden.map(|(_, width)| tokens(width)));
            }
        }
        Signature::new(inputs(self.has_types()), outputs)?.mixed(SEQUENCE)
    }
}

/// The inputs, where they are ids, mask and perhaps types, all with rows and tokens as free axes.
fn takes(signature: &Signature) -> Option<Vec<(usize, DType)>> {
    let batch = signature.batch_symbol()?;
    let [sequence] = signature.symbols() else { return None };
    let axes = [Dim::Symbol(Arc::clone(batch)), Dim::Symbol(Arc::clone(sequence))];
    let input = |spec: &TensorSpec| {
        let which = [IDS, MASK, TYPES].iter().position(|name| **name == *spec.name)?;
        let fits = matches!(spec.dtype, DType::Int64 | DType::Int32) && spec.shape == axes;
        fits.then_some((which, spec.dtype))
    };
    let inputs: Vec<(usize, DType)> = signature.inputs().iter().map(input).collect::<Option<_>>()?;
    let has = |which: usize| inputs.iter().any(|(known, _)| *known == which);
    (has(0) && has(1)).then_some(inputs)
}

fn gives(signature: &Signature, config: Option<&Config>, is_said: bool) -> Option<Gives> {
    let outputs = signature.outputs();
    let row = |name: &str| {
        let index = signature.output_index(name)?;
        match outputs[index].shape.as_slice() {
            [_, Dim::Fixed(width)] if outputs[index].dtype == DType::Fp32 => Some((index, *width)),
            _ => None,
        }
    };
    // The last axis may have lost its size on the way through an exporter.
    let declared = config.and_then(|config| config.text().ok().flatten()).map(|text| text.hidden_size);
    let tokens = |spec: &TensorSpec| match spec.shape.as_slice() {
        [_, _, Dim::Fixed(width)] if spec.dtype == DType::Fp32 => Some(*width),
        [_, _, Dim::Unknown] if spec.dtype == DType::Fp32 => declared,
        _ => None,
    };
    let named = HIDDEN.iter().find_map(|name| {
        let index = signature.output_index(name)?;
        Some((index, tokens(&outputs[index])?))
    });
    let hidden = named.or_else(|| outputs.iter().enumerate().find_map(|(index, spec)| Some((index, tokens(spec)?))));
    let may_classify = config.is_none_or(|config| config.head() == Head::Sequence);
    if let Some((output, width)) = row(LOGITS).filter(|_| may_classify) {
        return Some(Gives::Logits { output, width });
    }
    if let Some((output, width)) = row(EMBEDDING) {
        return Some(match named {
            Some((output, width)) if is_said => Gives::Hidden { output, width },
            _ => Gives::Sentence { output, width, hidden },
        });
    }
    hidden.map(|(output, width)| Gives::Hidden { output, width })
}
