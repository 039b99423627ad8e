use millrace_huggingface::Activation;
use proptest::prelude::*;

use super::isa::Isa;
use super::math::apply;
use super::{Matrix, Norm, Store, attention, layer_norm};

/// Numbers between −1 and 1 that look arbitrary.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).unwrap()) / 32768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance * want.abs().max(1.0), "{what}[{index}]: {got}, {want}");
    }
}

fn naive_product(x: &[f32], w: &[f32], bias: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |row: &[f32], weights: &[f32]| -> f64 {
        row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
    };
    let row = |row: &[f32]| -> Vec<f64> {
        let sums = w.chunks(inputs).map(|weights| dot(row, weights)).enumerate();
        sums.map(|(index, sum)| sum + bias.get(index).map_or(0.0, |bias| f64::from(*bias))).collect()
    };
    x.chunks(inputs).flat_map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_product_is_right_on_every_kind_of_processor(
        rows in 1_usize..40, inputs in 1_usize..70, outputs in 1_usize..110, has_bias: bool, seed: u64,
    ) {
        let (x, w) = (numbers(rows * inputs, seed), numbers(inputs * outputs, seed ^ 1));
        let bias = if has_bias { numbers(outputs, seed ^ 2) } else { Vec::new() };
        let want = naive_product(&x, &w, &bias, inputs);
        for isa in Isa::all() {
            let matrix = Matrix::with(isa, inputs, outputs, Store::Fp32(w.clone()), bias.clone());
            close(&matrix.multiply(&x, Activation::Identity), &want, 1e-5, &format!("{isa:?}"));
        }
    }

    #[test]
    fn attention_is_right_on_every_kind_of_processor(
        lengths in proptest::collection::vec(1_usize..50, 1..4), heads in 1_usize..4, size in 1_usize..40, seed: u64,
    ) {
        let (tokens, width) = (lengths.iter().sum::<usize>(), heads * size);
        let qkv = numbers(tokens * 3 * width, seed);
        let mut start = 0;
        let ranges: Vec<_> = lengths.iter().map(|length| { start += length; start - length..start }).collect();
        let at = |token: usize, part: usize, head: usize, i: usize| {
            f64::from(qkv[token * 3 * width + part * width + head * size + i])
        };
        let mut want = vec![0.0; tokens * width];
        for range in &ranges {
            for head in 0..heads {
                for token in range.clone() {
                    let score = |other: usize| {
                        let dot: f64 = (0..size).map(|i| at(token, 0, head, i) * at(other, 1, head, i)).sum();
                        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                        (dot / (size as f64).sqrt()).exp()
                    };
                    let total: f64 = range.clone().map(score).sum();
                    for i in 0..size {
                        let sum: f64 = range.clone().map(|other| score(other) * at(other, 2, head, i)).sum();
                        want[token * width + head * size + i] = sum / total;
                    }
                }
            }
        }
        for isa in Isa::all() {
            let got = attention::with(isa, &qkv, width, heads, &ranges);
            close(&got, &want, 1e-5, &format!("{isa:?}"));
        }
    }
}

/// Numbers in fewer bits are the nearest ones, and the arithmetic on them is the same.
#[test]
fn halves_multiply_as_the_numbers_that_they_stand_for() {
    use half::{bf16, f16};
    let (inputs, outputs) = (40, 70);
    let (x, w) = (numbers(9 * inputs, 1), numbers(inputs * outputs, 2));
    let half: Vec<f16> = w.iter().map(|x| f16::from_f32(*x)).collect();
    let brain: Vec<bf16> = w.iter().map(|x| bf16::from_f32(*x)).collect();
    let product = |store| Matrix::new(inputs, outputs, store, Vec::new()).multiply(&x, Activation::Identity);
    assert_eq!(product(Store::Fp16(half.clone())), product(Store::Fp32(half.iter().map(|x| x.to_f32()).collect())));
    assert_eq!(product(Store::Bf16(brain.clone())), product(Store::Fp32(brain.iter().map(|x| x.to_f32()).collect())));
}

#[test]
fn several_threads_give_the_same_bits_as_one() {
    let (inputs, outputs) = (64, 96);
    let matrix = Matrix::new(inputs, outputs, Store::Fp32(numbers(inputs * outputs, 1)), numbers(outputs, 2));
    let (x, qkv) = (numbers(101 * inputs, 3), numbers(101 * 3 * inputs, 4));
    let work = || {
        let ranges = [0..60, 60..101];
        (matrix.multiply(&x, Activation::Gelu), attention(&qkv, inputs, 4, &ranges))
    };
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work);
    assert_eq!(with(1), with(3));
}

/// ∫ of the normal density, by a series of positive terms: erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)).
fn normal(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let (mut term, mut sum, mut n) = (z, z, 1.0);
    while term > 1e-20 * sum {
        term *= 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    let erf = std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum;
    0.5 * (1.0 + erf.copysign(x))
}

#[test]
fn functions_are_near_the_exact_ones() {
    let xs: Vec<f32> = (-90_000..90_000).map(|i: i32| f32::from(i16::try_from(i / 3).unwrap()) * 4e-4).collect();
    let check = |activation: Activation, tolerance: f64, exact: &dyn Fn(f64) -> f64| {
        let mut got = xs.clone();
        apply(activation, &mut got);
        let want: Vec<f64> = xs.iter().map(|x| exact(f64::from(*x))).collect();
        close(&got, &want, tolerance, &format!("{activation:?}"));
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    check(Activation::Gelu, 1.5e-7, &|x| x * normal(x));
    check(Activation::GeluTanh, 6e-7, &|x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    });
    check(Activation::QuickGelu, 6e-7, &|x| x * sigmoid(1.702 * x));
    check(Activation::Silu, 6e-7, &|x| x * sigmoid(x));
    check(Activation::Sigmoid, 3e-7, &sigmoid);
    check(Activation::Tanh, 3e-7, &f64::tanh);
    check(Activation::Relu, 0.0, &|x| x.max(0.0));
    check(Activation::Identity, 0.0, &|x| x);
}

#[test]
fn what_is_no_number_stays_none_and_the_largest_do_not_overflow() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh, Activation::Sigmoid]
    {
        let mut numbers = vec![f32::NAN, 3e38, -3e38, f32::INFINITY];
        apply(activation, &mut numbers);
        assert!(numbers[0].is_nan(), "{activation:?}");
        assert!(numbers[1] >= 0.99, "{activation:?}: {numbers:?}");
        assert!(numbers[2].abs() <= 1.0, "{activation:?}: {numbers:?}");
        assert!(numbers[3] >= 0.99, "{activation:?}: {numbers:?}");
    }
}

#[test]
fn rows_are_normalised() {
    for width in [1, 7, 16, 50] {
        let (x, added) = (numbers(3 * width, 5), numbers(3 * width, 6));
        let norm = Norm { weight: numbers(width, 7), bias: numbers(width, 8), eps: 1e-5 };
        let mut want = Vec::new();
        for (x, added) in x.chunks(width).zip(added.chunks(width)) {
            let row: Vec<f64> = x.iter().zip(added).map(|(x, y)| f64::from(*x) + f64::from(*y)).collect();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let count = width as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let scaled = row.iter().zip(norm.weight.iter().zip(&norm.bias));
            want.extend(scaled.map(|(x, (weight, bias))| {
                (x - mean) / (variance + 1e-5).sqrt() * f64::from(*weight) + f64::from(*bias)
            }));
        }
        close(&layer_norm(&norm, &x, Some(&added)), &want, 1e-5, &format!("width {width}"));
    }
}

/// Weights in blocks are widened as candle widens them, whole or as part of a larger matrix.
#[test]
fn quantised_numbers_multiply_as_the_numbers_that_they_stand_for() {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};
    use std::borrow::Cow;
    use std::sync::Arc;
    let (inputs, outputs) = (512, 70);
    let x = numbers(9 * inputs, 1);
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q5_1, GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K] {
        let tensor = Tensor::from_vec(numbers(outputs * inputs, 2), (outputs, inputs), &Device::Cpu).unwrap();
        let blocks = QTensor::quantize(&tensor, dtype).unwrap();
        let plain: Vec<f32> = blocks.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let data = blocks.data().unwrap();
        let store = || {
            let blocks = dtype.from_data(Cow::Borrowed(&data));
            Store::Blocks(Arc::new(super::Quantised::new(blocks, outputs, inputs).unwrap()))
        };
        assert!(super::Quantised::new(dtype.from_data(Cow::Borrowed(&data)), outputs + 1, inputs).is_none());
        let product =
            |outputs, store| Matrix::new(inputs, outputs, store, Vec::new()).multiply(&x, Activation::Identity);
        assert_eq!(product(outputs, store()), product(outputs, Store::Fp32(plain.clone())), "{dtype:?}");
        // Of another kind beside it, as files mix them.
        let other = numbers(outputs * inputs, 3);
        let joined = Store::joined(vec![store(), Store::Fp32(other.clone())], outputs * inputs);
        let both = [plain, other].concat();
        assert_eq!(product(2 * outputs, joined), product(2 * outputs, Store::Fp32(both)), "{dtype:?}");
    }
}
