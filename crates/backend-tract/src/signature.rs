//! The signature that a typed graph has, and what the shapes do not tell about it.

use millrace_core::{DType, Dim, LoadError, LoadErrorKind, Signature, TensorSpec};
use tract_onnx::prelude::{OutletId, TypedFact, TypedModel};

use crate::convert::dtype_of;
use crate::rows;
use crate::scan::{Halves, Scanned};

/// The signature of `model`, as the engine read it from what `scanned` holds; and why its rows are not independent, where
/// its shapes look as if they were.
///
/// # Errors
/// [`LoadError`] when a tensor has a dtype or an axis that no request can have.
pub(crate) fn signature(model: &TypedModel, scanned: &Scanned) -> Result<(Signature, Option<String>), LoadError> {
    let (inputs, outputs) = (&scanned.inputs, &scanned.outputs);
    let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, text);
    if (inputs.len(), outputs.len()) != (model.inputs.len(), model.outputs.len()) {
        return Err(invalid("the graph lost an input or an output while it was typed".to_owned()));
    }
    let specs = |names: &[String], outlets: &[OutletId], what: &str| -> Result<Vec<TensorSpec>, LoadError> {
        let spec = |(name, outlet): (&String, &OutletId)| {
            let fact = model.outlet_fact(*outlet).map_err(|error| {
                LoadError::new(LoadErrorKind::Engine, format!("{what} `{name}` has no type")).with_cause(error)
            })?;
            spec(name, fact, what, &scanned.halves)
        };
        names.iter().zip(outlets).map(spec).collect()
    };
    let inputs = specs(inputs, &model.inputs, "input")?;
    let mut outputs = specs(outputs, &model.outputs, "output")?;
    let known: Vec<&Dim> = inputs.iter().flat_map(|spec| &spec.shape).collect();
    for dim in outputs.iter_mut().flat_map(|spec| &mut spec.shape) {
        // A size that only the run decides, such as the count of non-zero elements, is a symbol of the engine's own.
        let mut bound = true;
        match &*dim {
            Dim::Symbol(_) => bound = known.contains(&&*dim),
            Dim::Expr(expr) => expr.for_each_symbol(&mut |symbol| bound &= known.contains(&&Dim::symbol(symbol))),
            Dim::Fixed(_) | Dim::Unknown => {}
        }
        if !bound {
            *dim = Dim::Unknown;
        }
    }
    let signature = Signature::new(inputs, outputs).map_err(|error| invalid(error.to_string()))?;
    let Some(batch) = signature.batch_symbol().and_then(|name| model.symbols.get(name)) else {
        return Ok((signature, None));
    };
    let mixing = match &scanned.mixing {
        Some(known) => Some(known.clone()),
        None => rows::mixing(model, &batch).map_err(|error| {
            LoadError::new(LoadErrorKind::Engine, "the order of the nodes is unclear").with_cause(error)
        })?,
    };
    Ok(if mixing.is_some() { (signature.unbatched(), mixing) } else { (signature, None) })
}

fn spec(name: &str, fact: &TypedFact, what: &str, halves: &Halves) -> Result<TensorSpec, LoadError> {
    let Some(dtype) = dtype_of(fact.datum_type) else {
        let text = format!("{what} `{name}` is {:?}, which no request can carry", fact.datum_type);
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    };
    let dtype = halves.get(name).copied().filter(|_| dtype == DType::Fp32).unwrap_or(dtype);
    let shape: Vec<Dim> = fact.shape.iter().map(crate::dims::to_dim).collect();
    Ok(TensorSpec::new(name, dtype, shape))
}
