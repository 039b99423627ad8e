//! Tries out once, at load, whether rows give together what they give alone, and of which rank outputs are.
//!
//! The graph is not looked at: it is the engine's, after its own rewriting, that runs.

use std::collections::HashMap;

use millrace_core::{Signature, TensorList, Trial, Verdict};
use smallvec::SmallVec;

use crate::input::Gathered;
use crate::session::Runner;

/// Sizes that are tried for the axes that a request may choose, until one suits the model. Sums over several places show
/// more than sums over one, so small sizes come late.
const FREE_AXES: [usize; 10] = [4, 8, 16, 2, 1, 32, 64, 128, 224, 512];
/// Bytes of a row of one input; pictures of networks that find things take 5 MB.
const LARGEST: usize = 64 << 20;

/// Tries a model with the batched `signature`. Coarse numbers may differ more: a last bit may become a whole step.
pub(crate) fn rows(runner: &Runner, signature: &Signature, is_coarse: bool) -> Verdict {
    let tolerance = if is_coarse { 0.05 } else { 1e-3 };
    trial(signature).rows(tolerance, |inputs, _| answer(runner, inputs))
}

/// The rank of every output, by name; empty where no invented input fits.
pub(crate) fn ranks(runner: &Runner, signature: &Signature) -> HashMap<String, usize> {
    let Some((_, outputs)) = trial(signature).once(1, |inputs, _| answer(runner, inputs)) else {
        return HashMap::new();
    };
    let ranked = signature.outputs().iter().zip(&outputs);
    ranked.map(|(spec, tensor)| (spec.name.to_string(), tensor.shape().len())).collect()
}

fn trial(signature: &Signature) -> Trial<'_> {
    Trial { signature, free: &FREE_AXES, most_bytes: LARGEST }
}

fn answer(runner: &Runner, inputs: &TensorList) -> Option<TensorList> {
    let bound = inputs.iter().map(Gathered::whole).collect::<Option<SmallVec<[Gathered<'_>; 4]>>>()?;
    runner.run(&bound, &|_| true).ok()?.into_iter().collect()
}
