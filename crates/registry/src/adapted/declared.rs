//! Which adapters a model's `[inputs.NAME]` mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{InputAdapterFactory, LoadError, LoadErrorKind, Signature};

use super::Adapters;
use crate::InputConfig;
use crate::pipeline::unknown;

/// The adapter of each input of `network`.
///
/// # Errors
/// [`LoadError`] naming the table: an input that the network does not have, a kind that is not known, the factory's own,
/// and an adapter that does not fit the input.
pub(super) fn adapters(
    network: &Signature,
    inputs: &BTreeMap<String, InputConfig>,
    factories: &[Arc<dyn InputAdapterFactory>],
) -> Result<Adapters, LoadError> {
    let mut adapters: Adapters = vec![None; network.inputs().len()];
    for (name, input) in inputs {
        let place = format!("[inputs.{name}]");
        let wrong = |kind, text: &str| {
            // A factory may have said itself where it stands.
            let text = if text.starts_with(&place) { text.to_owned() } else { format!("{place}: {text}") };
            LoadError::new(kind, format!("model.toml: {text}"))
        };
        let index = network.input_index(name).ok_or_else(|| {
            let text = network.unknown_input(name).to_string();
            wrong(LoadErrorKind::Invalid, &text)
        })?;
        let inner = &network.inputs()[index];
        let factory = factories.iter().find(|factory| factory.name() == input.kind).ok_or_else(|| {
            let names: Vec<&str> = factories.iter().map(|factory| factory.name()).collect();
            unknown("kind of input", &input.kind, &names)
        })?;
        let adapter = factory.build(inner, &input.options).map_err(|error| {
            let kind = error.kind();
            wrong(kind, &error.to_string()).with_cause(error)
        })?;
        let spec = adapter.spec();
        if spec.name != inner.name || spec.shape.first() != inner.shape.first() {
            let text = format!(
                "the kind `{}` takes {spec}, which does not fit the network's {inner}: expected the same name and the \
                 same first axis",
                input.kind
            );
            return Err(wrong(LoadErrorKind::Invalid, &text));
        }
        adapters[index] = Some(adapter);
    }
    Ok(adapters)
}
