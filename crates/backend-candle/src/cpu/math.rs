//! Functions of one number, written so that a compiler turns loops over them into vector instructions.

use millrace_huggingface::Activation;

use super::isa::{ISA, Step, Work, on};

/// e^x within 2 units of the last place for x from −87 to 88, which is also where other values are cut off: the least power
/// of two apart, a polynomial for the rest (the expansion of Taylor to the sixth power, on |r| ≤ ln 2 / 2).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that their multiples are exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LOW, n.mul_add(-HIGH, x));
    let mut sum = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = r.mul_add(sum, factor);
    }
    sum * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// x·Φ(x) within 1e-7, with the normal distribution Φ: `max(x, 0) − |x|·Φ(−|x|)`, where ln Φ(−t) on 0 ≤ t ≤ 8 is a polynomial
/// (fitted by weighted least squares so that the product's error is least). Below −8 the product is less than 1e-14.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const LN_PHI: [f32; 10] = [
        -0.693_147_06,
        -0.797_887_4,
        -0.318_291_57,
        -0.036_391_284,
        0.004_874_347,
        -5.106_836_4e-5,
        -0.000_165_094_48,
        4.226_471_4e-5,
        -5.051_437_7e-6,
        2.501_139_7e-7,
    ];
    // Comparisons rather than `min` and `max`, which would hide what is no number.
    let t = if x.abs() > 8.0 { 8.0 } else { x.abs() };
    let mut sum = LN_PHI[9];
    for factor in LN_PHI[..9].iter().rev() {
        sum = t.mul_add(sum, *factor);
    }
    t.mul_add(-exp(sum), relu(x))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// x·sigmoid(factor·x). Far below 0 it is 0, where the product of a huge and a tiny number would not be.
#[inline(always)]
fn swish(x: f32, factor: f32) -> f32 {
    let x = if x < -50.0 { -50.0 } else { x };
    x * sigmoid(factor * x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // The difference of 1 and nearly 1 would lose the digits of small x; tanh x = x to the last place there.
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    let square = x * x;
    let near = x * square.mul_add(square.mul_add(2.0 / 15.0, -1.0 / 3.0), 1.0);
    if x.abs() < 0.05 { near } else { far }
}

/// √(2/π) and its product with 0.044715, of the approximation x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // 1 + tanh y = 2·sigmoid(2y)
    swish(x, 2.0 * (x * x).mul_add(0.035_677_407, 0.797_884_6))
}

/// Applies `activation` to all of `numbers`.
#[inline(always)]
pub(super) fn activate(activation: Activation, numbers: &mut [f32]) {
    #[inline(always)]
    fn each(numbers: &mut [f32], function: impl Fn(f32) -> f32) {
        for number in numbers {
            *number = function(*number);
        }
    }
    match activation {
        Activation::Identity => {}
        Activation::Gelu => each(numbers, gelu),
        Activation::GeluTanh => each(numbers, gelu_tanh),
        Activation::QuickGelu => each(numbers, |x| swish(x, 1.702)),
        Activation::Relu => each(numbers, relu),
        Activation::Silu => each(numbers, |x| swish(x, 1.0)),
        Activation::Tanh => each(numbers, tanh),
        Activation::Sigmoid => each(numbers, sigmoid),
    }
}

/// Applies `activation` to all of `numbers`.
pub(crate) fn apply(activation: Activation, numbers: &mut [f32]) {
    struct Apply<'a>(Activation, &'a mut [f32]);
    impl Work for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Step>(self) {
            activate(self.0, self.1);
        }
    }
    on(*ISA, Apply(activation, numbers));
}

/// How many sums run beside each other.
const LANES: usize = 16;

/// Σ f(x).
#[inline(always)]
pub(super) fn sum(numbers: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += function(*x);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| function(*x)).sum::<f32>()
}

/// The largest number.
#[inline(always)]
pub(super) fn max(numbers: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    most.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}
