//! Which adapters a model's `[inputs.NAME]` mean, and what the model takes with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{Dim, InputAdapterFactory, LoadError, LoadErrorKind, Signature, TensorSpec};

use super::Adapters;
use crate::InputConfig;
use crate::pipeline::unknown;

/// The adapter of each input of `network`.
///
/// # Errors
/// [`LoadError`] naming the table: an input that the network does not have, a kind that is not known, the factory's own,
/// and an adapter that does not fit the input.
pub(crate) fn adapters(
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

/// What callers give and get: `network` with the adapters' inputs in place of its own; `None` where there are none.
///
/// Sizes of outputs that hang on an axis which callers no longer give are known only after a run.
///
/// # Errors
/// [`LoadError`] where the adapters' inputs make no signature.
pub(crate) fn declared(network: &Signature, adapters: &Adapters) -> Result<Option<Signature>, LoadError> {
    if adapters.iter().all(Option::is_none) {
        return Ok(None);
    }
    let inputs = network.inputs().iter().zip(adapters);
    let inputs: Vec<TensorSpec> =
        inputs.map(|(spec, adapter)| adapter.as_ref().map_or(spec, |adapter| adapter.spec()).clone()).collect();
    let is_given = |symbol: &str| {
        let dims = inputs.iter().flat_map(|spec| &spec.shape);
        dims.into_iter().any(|dim| matches!(dim, Dim::Symbol(given) if **given == *symbol))
    };
    let outputs = network.outputs().iter().cloned().map(|mut spec| {
        for dim in &mut spec.shape {
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
        spec
    });
    let outputs: Vec<TensorSpec> = outputs.collect();
    let declared = Signature::new(inputs, outputs).map_err(|error| {
        LoadError::new(LoadErrorKind::Invalid, format!("model.toml, [inputs]: {error}")).with_cause(error)
    })?;
    Ok(Some(if network.is_batched() { declared } else { declared.unbatched() }))
}
