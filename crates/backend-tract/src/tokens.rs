//! Indices that come straight from a request, such as token ids: the engine panics on one outside its table, so they are
//! compared with the table's size first.

use millrace_core::{Batch, DType, RunError, Signature, Tensor};
use tract_onnx::prelude::{OutletId, TypedModel};
use tract_onnx::tract_core::ops::array::Gather;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::identity::Identity;

/// An input whose elements select from a table of `size` entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookup {
    input: usize,
    size: i64,
}

/// Every lookup of `model` whose indices are an input, perhaps cast or reshaped.
pub(crate) fn lookups(model: &TypedModel) -> Vec<Lookup> {
    let mut found: Vec<Lookup> = Vec::new();
    for node in model.nodes() {
        let (Some(gather), [table, indices]) = (node.op_as::<Gather>(), node.inputs.as_slice()) else { continue };
        let Ok(table) = model.outlet_fact(*table) else { continue };
        let Some(size) = table.shape.get(gather.axis).and_then(|dim| dim.to_i64().ok()) else { continue };
        let Some(input) = source(model, *indices) else { continue };
        match found.iter_mut().find(|lookup| lookup.input == input) {
            Some(lookup) => lookup.size = lookup.size.min(size),
            None => found.push(Lookup { input, size }),
        }
    }
    found
}

/// The input that `outlet` holds the elements of.
fn source(model: &TypedModel, mut outlet: OutletId) -> Option<usize> {
    loop {
        if let Some(index) = model.inputs.iter().position(|input| *input == outlet) {
            return Some(index);
        }
        let node = model.node(outlet.node);
        if !(node.op_is::<Cast>() || node.op_is::<AxisOp>() || node.op_is::<Identity>()) {
            return None;
        }
        outlet = *node.inputs.first()?;
    }
}

/// Checks every lookup's indices.
///
/// # Errors
/// [`RunError::InvalidInput`] naming the input, the first index outside and the range.
pub(crate) fn check(lookups: &[Lookup], batch: &Batch, signature: &Signature) -> Result<(), RunError> {
    for lookup in lookups {
        for tensor in batch.parts().iter().filter_map(|part| part.inputs.get(lookup.input)) {
            if let Some(outside) = outside(tensor, lookup.size)? {
                let name = signature.inputs().get(lookup.input).map_or("?", |spec| &*spec.name);
                let (low, high) = (-lookup.size, lookup.size - 1);
                let text = format!("input `{name}`: {outside} is out of range; expected {low} to {high}");
                return Err(RunError::InvalidInput(text));
            }
        }
    }
    Ok(())
}

fn outside(tensor: &Tensor, size: i64) -> Result<Option<i64>, RunError> {
    let is_outside = |index: &i64| *index < -size || *index >= size;
    Ok(match tensor.dtype() {
        DType::Int64 => tensor.elements::<i64>()?.iter().copied().find(is_outside),
        DType::Int32 => tensor.elements::<i32>()?.iter().map(|&index| i64::from(index)).find(is_outside),
        _ => None,
    })
}
