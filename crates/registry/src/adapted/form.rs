//! In which form callers give a model's inputs, where it is not the network's own, and what the model takes and gives then.

use std::sync::Arc;

use millrace_core::{
    Dim, LoadError, LoadErrorKind, Model, ModelSource, Signature, Signatures, TENSORS, TensorSpec, TextFactory,
    TextProcessor, Wanted,
};

use super::Adapters;
use super::declared::adapters;
use crate::pipeline::unknown;
use crate::{ModelConfig, Parts, TextConfig};

/// The form of a model's inputs.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// `[inputs.NAME]`: each input by itself.
    Inputs(Adapters),
    /// `[text]`: all of them as text, whose tokens they are.
    Text(Arc<dyn TextProcessor>),
}

impl Form {
    /// The form that `config` declares, or else text where `source` and `network` are a text model's; `None` where callers
    /// give what the network takes.
    ///
    /// # Errors
    /// [`LoadError`] for an input that the network does not have, a form that is not known or does not fit, and `[text]`
    /// about what is no text model.
    pub(crate) fn find(
        parts: &Parts,
        source: &ModelSource,
        network: &dyn Model,
        config: &ModelConfig,
    ) -> Result<Option<Self>, LoadError> {
        let adapters = adapters(network.signature(), &config.inputs, &parts.adapters)?;
        if adapters.iter().any(Option::is_some) {
            return Ok(Some(Self::Inputs(adapters)));
        }
        Ok(text(parts.text.as_ref(), source, network, &config.text)?.map(Self::Text))
    }

    /// What turns text into tokens.
    pub(crate) fn text(&self) -> Option<&Arc<dyn TextProcessor>> {
        match self {
            Self::Text(processor) => Some(processor),
            Self::Inputs(_) => None,
        }
    }

    /// What callers give and get, and beside it, as `tensors`, what the network takes and gives.
    ///
    /// # Errors
    /// [`LoadError`] where the form's inputs and the network's outputs make no signature.
    pub(crate) fn signatures(&self, network: &Signature) -> Result<Signatures, LoadError> {
        let (inputs, table): (Vec<TensorSpec>, _) = match self {
            Self::Inputs(adapters) => {
                let pairs = network.inputs().iter().zip(adapters);
                let given =
                    pairs.map(|(spec, adapter)| adapter.as_ref().map_or(spec, |adapter| adapter.spec()).clone());
                (given.collect(), "[inputs]")
            }
            Self::Text(processor) => (processor.inputs().to_vec(), "[text]"),
        };
        let wrong = |text: String| LoadError::new(LoadErrorKind::Invalid, format!("model.toml, {table}: {text}"));
        let outputs = match self {
            Self::Inputs(_) => Some(network.outputs().iter().collect::<Vec<_>>()),
            Self::Text(processor) => {
                processor.outputs().iter().map(|index| network.outputs().get(*index)).collect::<Option<_>>()
            }
        };
        let outputs = outputs.ok_or_else(|| wrong("it gives an output that the network does not have".to_owned()))?;
        let outputs = outputs.into_iter().map(|spec| without_unknown_symbols(spec, &inputs)).collect();
        let given = Signature::new(inputs, outputs).map_err(|error| wrong(error.to_string()).with_cause(error))?;
        let given = if network.is_batched() { given } else { given.unbatched() };
        Ok(Signatures::single(given).with(TENSORS, network.clone()))
    }

    /// The outputs `wanted` of this form as the network numbers them.
    ///
    /// # Errors
    /// The number of an output that this form does not have. Where it has those of the network, the queue looks.
    pub(crate) fn wanted(&self, wanted: Wanted) -> Result<Wanted, usize> {
        let Self::Text(processor) = self else { return Ok(wanted) };
        let chosen = processor.outputs();
        match wanted {
            Wanted::All => Ok(Wanted::Only(chosen.into())),
            Wanted::Only(own) => {
                let inner = own.iter().map(|index| chosen.get(*index).copied().ok_or(*index));
                inner.collect::<Result<_, usize>>().map(Wanted::Only)
            }
        }
    }
}

/// What turns text into the inputs of `network`, where there is such a thing and the operator did not forbid it.
fn text(
    factory: Option<&Arc<dyn TextFactory>>,
    source: &ModelSource,
    network: &dyn Model,
    config: &TextConfig,
) -> Result<Option<Arc<dyn TextProcessor>>, LoadError> {
    if config.enabled == Some(false) {
        return Ok(None);
    }
    let is_asked_for = config.enabled.is_some() || !config.options.is_empty();
    let Some(factory) = factory else {
        return if is_asked_for { Err(unknown("kind of input", "text", &[])) } else { Ok(None) };
    };
    let opened = factory.open(source, network, &config.options)?;
    if opened.is_none() && is_asked_for {
        let text = "model.toml: [text]: this is no text model: expected a tokenizer.json in the version's folder beside a \
                    network that takes token ids";
        return Err(LoadError::new(LoadErrorKind::Invalid, text));
    }
    Ok(opened)
}

/// `output` for callers who give `inputs`: a size that hangs on an axis which they do not give is known only after a run.
fn without_unknown_symbols(output: &TensorSpec, inputs: &[TensorSpec]) -> TensorSpec {
    let is_given = |symbol: &str| {
        let dims = inputs.iter().flat_map(|spec| &spec.shape);
        dims.into_iter().any(|dim| matches!(dim, Dim::Symbol(given) if **given == *symbol))
    };
    let mut output = output.clone();
    for dim in &mut output.shape {
        let is_known = match dim {
            Dim::Symbol(symbol) => is_given(symbol),
            Dim::Expr(expr) => {
                let mut all = true;
                expr.for_each_symbol(&mut |symbol| all &= is_given(symbol));
                all
            }
            Dim::Fixed(_) | Dim::Unknown => true,
        };
        if !is_known {
            *dim = Dim::Unknown;
        }
    }
    output
}
