//! What is done with a row's vectors: pooling, linear layers, and making its length 1.

use millrace_core::{LoadError, LoadErrorKind, ModelSource};
use millrace_huggingface::{Activation, Dense, Pooling, PoolingMode, SentenceModules, SentenceStep};
use safetensors::{Dtype, SafeTensors};

use crate::folder::{refused, size};
use crate::wrapped::pool::pool;

/// The largest file of a linear layer's weights that is read.
const MAX_BYTES: u64 = 1 << 30;

/// The way from the vectors of tokens to the vector of a text.
#[derive(Debug)]
pub(crate) struct Steps {
    pooling: Pooling,
    steps: Vec<Step>,
    /// Numbers in a text's vector at the end, and before the last step where that makes its length 1.
    pub(crate) width: usize,
    pub(crate) before: Option<usize>,
}

#[derive(Debug)]
enum Step {
    Linear(Linear),
    Normalize,
}

#[derive(Debug)]
struct Linear {
    /// For each number taken, what it adds to each number given.
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: fn(f32) -> f32,
}

impl Steps {
    /// What `modules` say, or `option`, for tokens with `width` numbers; weights are read from `source`, of whose budget the
    /// network has `taken` so many bytes.
    pub(crate) fn read(
        modules: &SentenceModules,
        option: Option<PoolingMode>,
        width: usize,
        source: &ModelSource,
        taken: u64,
    ) -> Result<Self, LoadError> {
        let pooling = modules.pooling_or(option);
        let end = modules.dimension(&pooling, width).map_err(|error| refused(&error))?;
        let mut taken = taken;
        let mut steps = Vec::with_capacity(modules.steps.len());
        for step in &modules.steps {
            steps.push(match step {
                SentenceStep::Dense(dense) => {
                    let linear = Linear::read(dense, source, taken)?;
                    taken = taken.saturating_add(linear.bytes());
                    Step::Linear(linear)
                }
                SentenceStep::Normalize => Step::Normalize,
            });
        }
        let before = modules.is_normalised().then_some(end);
        Ok(Self { pooling, steps, width: end, before })
    }

    /// For networks that do all of it themselves.
    pub(crate) fn none(modules: &SentenceModules) -> Self {
        Self { pooling: modules.pooling_or(None), steps: Vec::new(), width: 0, before: None }
    }

    /// Bytes of weights.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |step: &Step| match step {
            Step::Linear(linear) => linear.bytes(),
            Step::Normalize => 0,
        };
        self.steps.iter().map(bytes).sum()
    }

    /// The pooling, for people.
    pub(crate) fn pooling(&self) -> String {
        self.pooling.to_string()
    }

    /// The vector of a row, and what it was before its length was made 1, where that is done last.
    pub(crate) fn run(&self, hidden: &[f32], width: usize, mask: &[i64]) -> (Vec<f32>, Option<Vec<f32>>) {
        let mut vector = Vec::with_capacity(width * self.pooling.modes.len());
        pool(hidden, width, mask, &self.pooling, &mut vector);
        let mut before = None;
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Linear(linear) => vector = linear.run(&vector),
                Step::Normalize => {
                    if index + 1 == self.steps.len() {
                        before = Some(vector.clone());
                    }
                    normalize(&mut vector);
                }
            }
        }
        (vector, before)
    }
}

/// Divides by the length, but by no less than what `torch.nn.functional.normalize` takes at least.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|number| *number /= length);
}

impl Linear {
    /// Bytes of weights.
    fn bytes(&self) -> u64 {
        4 * (self.weights.len() + self.bias.len()) as u64
    }

    /// Reads what stands in `source` while `taken` bytes are held by the rest of the model.
    fn read(dense: &Dense, source: &ModelSource, taken: u64) -> Result<Self, LoadError> {
        let file = format!("{}/model.safetensors", dense.folder);
        let fault = |kind, text: String| LoadError::new(kind, format!("{file}: {text}"));
        match size(&*source.files, &file) {
            None => {
                let text =
                    "is missing: save the layer again with `safe_serialization`, as the library has it by default";
                return Err(fault(LoadErrorKind::Missing, text.to_owned()));
            }
            Some(bytes) if bytes > MAX_BYTES => {
                return Err(fault(LoadErrorKind::TooLarge, format!("{bytes} bytes; at most {MAX_BYTES} are read")));
            }
            Some(bytes) => {
                // The file, its numbers as they stand there and once more by columns.
                let numbers = 4 * (dense.inputs as u64 + 1).saturating_mul(dense.outputs as u64);
                let need = taken.saturating_add(bytes).saturating_add(numbers.saturating_mul(2));
                if need > source.memory_budget {
                    let budget = source.memory_budget;
                    let text = format!(
                        "{need} bytes are needed while it loads, {taken} of them for the rest of the model; the memory budget is {budget}"
                    );
                    return Err(fault(LoadErrorKind::TooLarge, text));
                }
            }
        }
        let bytes = source.files.read(&file).map_err(|error| fault(LoadErrorKind::Missing, error.to_string()))?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| fault(LoadErrorKind::Invalid, error.to_string()))?;
        let numbers = |name: &str, shape: &[usize]| {
            let tensor = tensors.tensor(name).map_err(|error| fault(LoadErrorKind::Invalid, error.to_string()))?;
            if tensor.shape() != shape {
                let text = format!("`{name}` has shape {:?}; expected {shape:?}", tensor.shape());
                return Err(fault(LoadErrorKind::Invalid, text));
            }
            floats(tensor.dtype(), tensor.data()).ok_or_else(|| {
                fault(LoadErrorKind::Unsupported, format!("`{name}` is {}; expected F32, F16 or BF16", tensor.dtype()))
            })
        };
        let rows = numbers("linear.weight", &[dense.outputs, dense.inputs])?;
        let bias = if dense.has_bias { numbers("linear.bias", &[dense.outputs])? } else { vec![0.0; dense.outputs] };
        let activation = function(dense.activation).ok_or_else(|| {
            let text = format!(
                "the activation {:?} of {} is not supported beside an ONNX network",
                dense.activation, dense.folder
            );
            LoadError::new(LoadErrorKind::Unsupported, text)
        })?;
        let column = |input: usize| rows.iter().skip(input).step_by(dense.inputs);
        let weights = (0..dense.inputs).flat_map(|input| column(input).copied().collect::<Vec<_>>()).collect();
        Ok(Self { weights, bias, activation })
    }

    fn run(&self, vector: &[f32]) -> Vec<f32> {
        let mut sums = self.bias.clone();
        for (number, weights) in vector.iter().zip(self.weights.chunks_exact(self.bias.len())) {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += number * weight);
        }
        sums.iter_mut().for_each(|sum| *sum = (self.activation)(*sum));
        sums
    }
}

fn function(activation: Activation) -> Option<fn(f32) -> f32> {
    match activation {
        Activation::Identity => Some(|x| x),
        Activation::Relu => Some(|x| x.max(0.0)),
        Activation::Silu => Some(|x| x / (1.0 + (-x).exp())),
        Activation::Tanh => Some(f32::tanh),
        Activation::Sigmoid => Some(|x| 1.0 / (1.0 + (-x).exp())),
        Activation::GeluTanh => Some(|x| {
            const ROOT: f32 = 0.797_884_6; // √(2/π)
            0.5 * x * (1.0 + (ROOT * (x + 0.044_715 * x * x * x)).tanh())
        }),
        // The exact one needs the error function, which the standard library does not have.
        Activation::Gelu | Activation::QuickGelu => None,
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match dtype {
        Dtype::F32 => {
            Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
        }
        Dtype::F16 => Some(halves().map(|bits| half::f16::from_bits(bits).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|bits| half::bf16::from_bits(bits).to_f32()).collect()),
        _ => None,
    }
}
