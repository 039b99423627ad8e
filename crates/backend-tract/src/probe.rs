//! Tries out once, at load, whether rows give together what they give alone.
//!
//! `rows` knows the operators that mix along an axis, and shapes show which axis carries rows; but a reshape can hide
//! that axis. A model that cannot be tried, because no invented input suits it, is judged by `rows` only.

use std::sync::Arc;

use millrace_core::{Batch, DType, Instance, RunContext, TensorList, Trial, Verdict};

use crate::instance::TractInstance;
use crate::model::Loaded;

/// Sizes that are tried for the axes that a request may choose, until one suits the model.
const FREE_AXES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 224];
/// Bytes of a row of one input.
const LARGEST: usize = 4 << 20;

/// Tries the batched model `loaded`.
pub(crate) fn rows(loaded: &Arc<Loaded>) -> Verdict {
    let trial = Trial { signature: &loaded.signature, free: &FREE_AXES, most_bytes: LARGEST };
    trial.rows(tolerance(loaded), |inputs, rows| answer(loaded, inputs, rows))
}

fn answer(loaded: &Arc<Loaded>, inputs: &TensorList, rows: usize) -> Option<TensorList> {
    let admission = loaded.signature.check(inputs).ok()?;
    loaded.sizes.check(&admission).ok()?;
    let batch = Batch::single(inputs.clone(), rows);
    let outputs = TractInstance::undivided(Arc::clone(loaded)).run(&batch, &RunContext::plain()).ok()?;
    batch.split(&outputs, &loaded.signature).ok()?.into_iter().next()?.into_iter().collect()
}

/// How far apart equal answers may be, as a part of the largest number in them: sums are added up in another order.
fn tolerance(loaded: &Loaded) -> f64 {
    // Where numbers are rounded to 256 steps, or to halves, a last bit may become a whole step.
    let is_coarse = loaded.facts.operators.keys().any(|operator| operator.contains("Quantize"))
        || loaded.signature.outputs().iter().any(|spec| matches!(spec.dtype, DType::Fp16 | DType::Bf16));
    if is_coarse { 0.05 } else { 1e-3 }
}
