//! The requests that an operator wrote down to warm a model up with. Unlike invented ones they must succeed.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    DType, LoadError, LoadErrorKind, Model, Quoted, Samples, Signature, Strings, Tensor, TensorError, TensorList,
    TensorSpec,
};

use super::{Attempt, LARGEST, attempt};
use crate::{WarmupConfig, WarmupInput, WarmupRequest};

/// The requests of `config` for an engine that tries the model at load; `None` where there are none.
pub(crate) fn samples(config: &WarmupConfig) -> Option<Arc<dyn Samples>> {
    let requests = config.requests.clone();
    Some(requests)
        .filter(|requests| !requests.is_empty())
        .map(|requests| Arc::new(Recorded(requests)) as Arc<dyn Samples>)
}

#[derive(Debug)]
struct Recorded(Vec<WarmupRequest>);

impl Samples for Recorded {
    /// What does not fit is told when the model is warmed up.
    fn inputs(&self, signature: &Signature) -> Vec<TensorList> {
        let fits = |inputs: &TensorList| signature.check(inputs).is_ok();
        self.0.iter().filter_map(|request| inputs(request, signature).ok().filter(fits)).collect()
    }
}

/// Runs `request` as often as it says.
///
/// # Errors
/// [`LoadError`] when it does not fit the model, or a run does not succeed.
pub(super) fn run(model: &Arc<dyn Model>, request: &WarmupRequest) -> Result<(), LoadError> {
    let wrong = |text: String| wrong(request, &text);
    let inputs = inputs(request, model.signature())?;
    let admission = super::admit(model, &inputs).map_err(|error| wrong(error.to_string()))?;
    if let Err(error) = model.prepare(&admission.group, admission.rows) {
        tracing::debug!(rows = admission.rows, %error, "the model cannot be specialised for so many rows");
    }
    for _ in 0..request.runs.get() {
        match attempt(model, inputs.clone(), admission.rows) {
            Ok(()) => {}
            Err(Attempt::Invalid(text)) => return Err(wrong(format!("the model calls it invalid: {text}"))),
            Err(Attempt::Failed(error) | Attempt::Broken(error)) => return Err(error),
        }
    }
    Ok(())
}

fn wrong(request: &WarmupRequest, text: &str) -> LoadError {
    let name = Quoted(&request.name);
    LoadError::new(LoadErrorKind::Invalid, format!("config.pbtxt: `model_warmup` {name}: {text}"))
}

/// The inputs of `request` in the order of `signature`.
fn inputs(request: &WarmupRequest, signature: &Signature) -> Result<TensorList, LoadError> {
    let wrong = |text: String| wrong(request, &text);
    let mut random = Random::default();
    let mut named = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        let index = signature.input_index(&input.name);
        let spec = index.and_then(|index| signature.inputs().get(index));
        let spec = spec.ok_or_else(|| wrong(signature.unknown_input(&input.name).to_string()))?;
        named.push((&input.name, tensor(input, spec, request.rows, &mut random).map_err(wrong)?));
    }
    signature.arrange(named).map_err(|error| wrong(error.to_string()))
}

fn tensor(input: &WarmupInput, spec: &TensorSpec, rows: usize, random: &mut Random) -> Result<Tensor, String> {
    let mut sizes = input.dims.clone();
    if sizes.len() + 1 == spec.shape.len() {
        sizes.insert(0, rows);
    }
    let name = &input.name;
    let dtype = input.dtype.unwrap_or(spec.dtype);
    let made = if input.is_random { random.tensor(dtype, &sizes) } else { super::tensor(dtype, &sizes, 0, LARGEST) };
    let made = made.ok_or_else(|| format!("input `{name}`: more than {LARGEST} bytes are too many to make up"))?;
    made.map_err(|error| format!("input `{name}`: {error}"))
}

/// Values without a pattern, the same at every load.
#[derive(Debug)]
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// Marsaglia's xorshift: what is wanted is variety, not secrecy.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// From zero to below one.
    fn fraction(&mut self) -> f32 {
        let high = u16::try_from(self.next() >> 48).unwrap_or_default();
        f32::from(high) / 65_536.0
    }

    /// Numbers between 0 and 1 where the type has them, else 0 or 1: whole numbers are often positions in a table that has
    /// an end. `None` when the tensor would be too large.
    fn tensor(&mut self, dtype: DType, sizes: &[usize]) -> Option<Result<Tensor, TensorError>> {
        let zeros = match super::tensor(dtype, sizes, 0, LARGEST)? {
            Ok(zeros) => zeros,
            Err(error) => return Some(Err(error)),
        };
        let elements = zeros.shape().n_elements();
        Some(match dtype {
            DType::Fp32 => Tensor::from_vec(sizes, (0..elements).map(|_| self.fraction()).collect()),
            DType::Fp64 => Tensor::from_vec(sizes, (0..elements).map(|_| f64::from(self.fraction())).collect()),
            DType::Bytes => {
                let text: Vec<u8> = (0..elements).map(|_| if self.coin() { b'1' } else { b'0' }).collect();
                return Some(Tensor::from_strings(sizes, Strings::new(Bytes::from(text), (0..=elements).collect())?));
            }
            _ => {
                let one = super::one(dtype)?;
                let zero = vec![0; one.len()];
                let bytes: Vec<u8> =
                    (0..elements).flat_map(|_| if self.coin() { one } else { &zero[..] }).copied().collect();
                Tensor::new(dtype, zeros.shape().clone(), Bytes::from(bytes))
            }
        })
    }
}
