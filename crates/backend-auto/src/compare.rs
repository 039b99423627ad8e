//! Whether two engines gave the same answer.
//!
//! No two engines round alike: sums are taken in another order, and each step of a network carries the error on. What is
//! tolerated therefore grows with the size of an output's values, and with the coarseness of the numbers in which the
//! model computes. Everything that is not a number computed so must be equal, with two exceptions: a label that goes with
//! scores may be that of another score that is as good as equal to the best, and numbers that are quantised themselves may
//! be some steps off.

mod label;
mod scale;

use std::sync::Arc;

use half::{bf16, f16};
use millrace_core::{DType, ModelFacts, OutputDifference, PartOutputs, Signature, Tensor};

use label::{Labels, Ties};
use scale::Scales;

/// An output of 8 bits with more different values than this holds quantised numbers, not labels, marks or counts.
const MOST_LABELS: u32 = 32;
/// What rounds another way is one step off, and after the next operator perhaps another.
const STEPS: f64 = 3.0;

/// How coarsely a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Precision {
    Double,
    Single,
    Half,
    Brain,
    Quantised,
}

/// What is tolerated for a value `v` of an output whose largest absolute value is `m`: `floor + scale × m + value × |v|`.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    floor: f64,
    scale: f64,
    value: f64,
}

impl Precision {
    /// The coarsest that `facts` tell of.
    pub(crate) fn of<'a>(facts: impl IntoIterator<Item = &'a ModelFacts>) -> Self {
        let quantises = |name: &str| {
            name.starts_with("QLinear")
                || name.ends_with("QuantizeLinear")
                || matches!(name, "MatMulInteger" | "ConvInteger" | "MatMulNBits" | "DynamicQuantizeMatMul")
        };
        let mut coarsest = Self::Single;
        for facts in facts {
            let types = |wanted: &[&str]| facts.weight_types.keys().any(|name| wanted.contains(&name.as_str()));
            // The formats of GGUF: Q4_K, Q8_0 and so on.
            let is_block =
                |name: &str| name.strip_prefix('Q').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let is_quantised = facts.weight_types.keys().any(|name| is_block(name));
            let found = if is_quantised
                || facts.operators.keys().any(|name| quantises(name.rsplit('.').next().unwrap_or(name)))
            {
                Self::Quantised
            } else if types(&["BF16"]) {
                Self::Brain
            } else if types(&["FP16"]) {
                Self::Half
            } else {
                Self::Single
            };
            coarsest = coarsest.max(found);
        }
        coarsest
    }

    /// For an output of `dtype`: a narrow output is no more exact than its own numbers are.
    fn tolerance(self, dtype: DType) -> Tolerance {
        let own = match dtype {
            DType::Fp16 => Self::Half,
            DType::Bf16 => Self::Brain,
            DType::Fp64 if self == Self::Single => Self::Double,
            _ => self,
        };
        let coarser = if own == Self::Double { own } else { own.max(self) };
        match coarser {
            // Weights are often FP32 even where an output is FP64, so this is not the precision of doubles.
            Self::Double => Tolerance { floor: 1e-6, scale: 1e-5, value: 1e-4 },
            Self::Single => Tolerance { floor: 1e-5, scale: 1e-4, value: 1e-3 },
            Self::Half => Tolerance { floor: 1e-4, scale: 1e-2, value: 1e-2 },
            Self::Brain => Tolerance { floor: 1e-4, scale: 5e-2, value: 5e-2 },
            Self::Quantised => Tolerance { floor: 1e-4, scale: 1e-1, value: 5e-2 },
        }
    }
}

/// Compares answers, run after run.
#[derive(Debug)]
pub(crate) struct Comparison {
    precision: Precision,
    is_batched: bool,
    /// For each output, of what was expected so far: a single row may happen to be near zero.
    scales: Vec<Scales>,
    /// For each output of 8 bits, a bit for each value that it had.
    values: Vec<[u64; 4]>,
    labels: Labels,
}

impl Comparison {
    pub(crate) fn new(precision: Precision, signature: &Signature) -> Self {
        let outputs = signature.outputs();
        let scales = outputs.iter().map(|_| Scales::default()).collect();
        let (is_batched, values) = (signature.is_batched(), vec![[0; 4]; outputs.len()]);
        Self { precision, is_batched, scales, values, labels: Labels::default() }
    }

    /// Learns from what is expected: how large values are, and which label goes with which score.
    pub(crate) fn learn(&mut self, expected: &PartOutputs) {
        for (index, output) in expected.iter().enumerate().take(self.scales.len()) {
            let Some((output, numbers)) = output.as_ref().and_then(|output| Some((output, numbers(output)?))) else {
                continue;
            };
            let rows = if self.is_batched { output.shape().rows().unwrap_or(1) } else { 1 };
            self.scales[index].learn(output.shape(), rows, &numbers);
            if is_byte(output.dtype()) {
                for byte in output.bytes().into_iter().flat_map(|bytes| bytes.iter()) {
                    self.values[index][usize::from(byte >> 6)] |= 1 << (byte & 63);
                }
            }
        }
        self.labels.learn(expected);
    }

    /// The largest difference of `got` to `expected`; `None` where there are no numbers.
    ///
    /// # Errors
    /// Which output differs beyond tolerance, where and by how much, in words.
    pub(crate) fn compare(
        &self,
        signature: &Signature,
        expected: &PartOutputs,
        got: &PartOutputs,
    ) -> Result<Option<OutputDifference>, String> {
        let allowed = |precision: Precision, output: usize, best: f64| {
            let tolerance = precision.tolerance(signature.outputs()[output].dtype);
            2.0 * (tolerance.floor + tolerance.scale * self.scales[output].whole() + tolerance.value * best.abs())
        };
        // Quantised scores differ by so much that nearly all are as good as equal; then a label must at least be that of the
        // engine's own best score.
        let narrow = if self.precision == Precision::Quantised { Precision::Half } else { self.precision };
        let ties = Ties {
            narrow: &|output, best| allowed(narrow, output, best),
            wide: &|output, best| allowed(self.precision, output, best),
        };
        let mut worst: Option<(f64, OutputDifference)> = None;
        for (index, spec) in signature.outputs().iter().enumerate() {
            let (Some(one), Some(other)) =
                (expected.get(index).and_then(Option::as_ref), got.get(index).and_then(Option::as_ref))
            else {
                continue;
            };
            let is_excused = |element: usize| {
                one.shape().row_elements() == 1 && self.labels.excuses(index, element, expected, got, &ties)
            };
            let found = self.output(index, &spec.name, one, other, &is_excused)?;
            if let Some((severity, difference)) = found
                && worst.as_ref().is_none_or(|(before, _)| severity > *before)
            {
                worst = Some((severity, difference));
            }
        }
        Ok(worst.map(|(_, difference)| difference))
    }

    fn output(
        &self,
        index: usize,
        name: &Arc<str>,
        expected: &Tensor,
        got: &Tensor,
        is_excused: &dyn Fn(usize) -> bool,
    ) -> Result<Option<(f64, OutputDifference)>, String> {
        if expected.dtype() != got.dtype() || expected.shape() != got.shape() {
            return Err(format!("output `{name}` is {got:?}, expected {expected:?}"));
        }
        let sizes = expected.shape();
        let Some((one, other)) = numbers(expected).zip(numbers(got)) else {
            let (one, other) = (expected.strings(), got.strings());
            let pairs = one
                .into_iter()
                .flat_map(millrace_core::Strings::iter)
                .zip(other.into_iter().flat_map(millrace_core::Strings::iter));
            return match pairs.enumerate().find(|(element, (one, other))| one != other && !is_excused(*element)) {
                Some((element, (one, other))) => Err(format!(
                    "output `{name}`: element {} is {}, expected {}",
                    place(sizes, element),
                    quoted(other),
                    quoted(one)
                )),
                None => Ok(None),
            };
        };
        let tolerance = self.precision.tolerance(expected.dtype());
        let is_exact = !is_float(expected.dtype());
        let different: u32 = self.values[index].iter().map(|bits| bits.count_ones()).sum();
        let is_quantised = self.precision == Precision::Quantised && is_byte(expected.dtype());
        let steps = if is_quantised && different > MOST_LABELS { STEPS } else { 0.0 };
        let scales = self.scales[index].by_element(sizes);
        // The place where the difference is largest as measured by what is tolerated there.
        let (mut severity, mut at, mut largest) = (0.0_f64, 0, 0.0_f64);
        for (element, (one, other)) in one.iter().zip(&other).enumerate() {
            let difference = difference(*one, *other);
            let allowed = if is_exact {
                steps
            } else {
                tolerance.floor + tolerance.scale * scales.scale(element) + tolerance.value * one.abs()
            };
            if is_exact && difference > allowed && is_excused(element) {
                continue;
            }
            largest = largest.max(difference);
            let share = match difference {
                0.0 => 0.0,
                _ if difference.is_infinite() || allowed <= 0.0 => f64::INFINITY,
                _ => difference / allowed,
            };
            if share > severity {
                (severity, at) = (share, element);
            }
        }
        if severity > 1.0 {
            return Err(format!(
                "output `{name}`: element {} is {}, expected {}; the largest difference is {largest:.3e}",
                place(sizes, at),
                other[at],
                one[at]
            ));
        }
        let scale = self.scales[index].whole();
        Ok(Some((severity, OutputDifference { output: Arc::clone(name), largest, scale })))
    }
}

/// Equal infinities and two NaNs are no difference; a NaN beside a number is an infinite one.
fn difference(one: f64, other: f64) -> f64 {
    if one == other || (one.is_nan() && other.is_nan()) {
        return 0.0;
    }
    let difference = (one - other).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::Int8 | DType::Uint8)
}

pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64)
}

/// The elements as numbers; `None` for strings. Whole numbers beyond 2^53 lose their last digits.
pub(crate) fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    macro_rules! read {
        ($type:ty, $convert:expr) => {
            tensor.elements::<$type>().ok()?.iter().copied().map($convert).collect()
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "for differences and messages; sixteen digits will do")]
    Some(match tensor.dtype() {
        DType::Bool => read!(bool, |value| f64::from(u8::from(value))),
        DType::Uint8 => read!(u8, f64::from),
        DType::Uint16 => read!(u16, f64::from),
        DType::Uint32 => read!(u32, f64::from),
        DType::Uint64 => read!(u64, |value| value as f64),
        DType::Int8 => read!(i8, f64::from),
        DType::Int16 => read!(i16, f64::from),
        DType::Int32 => read!(i32, f64::from),
        DType::Int64 => read!(i64, |value| value as f64),
        DType::Fp16 => read!(f16, |value| value.to_f64()),
        DType::Bf16 => read!(bf16, |value| value.to_f64()),
        DType::Fp32 => read!(f32, f64::from),
        DType::Fp64 => read!(f64, |value| value),
        DType::Bytes => return None,
    })
}

/// The indices of an element, such as `[0,3]`.
fn place(sizes: &[usize], element: usize) -> String {
    let mut rest = element;
    let mut indices: Vec<String> = Vec::new();
    for size in sizes.iter().rev() {
        indices.push((rest % size.max(&1)).to_string());
        rest /= size.max(&1);
    }
    indices.reverse();
    format!("[{}]", indices.join(","))
}

fn quoted(bytes: &[u8]) -> String {
    millrace_core::Quoted(&String::from_utf8_lossy(bytes)).to_string()
}

#[cfg(test)]
mod tests;
