//! Every instruction set against the sum as it is written in books, and the layouts against each other.

use proptest::prelude::*;

use super::kernel::{Cell, LANES};
use super::sums::{self, Pictures, Weights};
use super::{from_blocks, into_blocks};
use crate::rewrite::direct::{After, Axis, Geometry, Isa};

/// Numbers between -1 and 1, other ones for each seed.
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, pads: (usize, usize)) -> Axis {
    let seen = (kernel - 1) * dilation + 1;
    Axis { input, output: (input + pads.0 + pads.1 - seen) / stride + 1, kernel, stride, dilation, pad_before: pads.0 }
}

/// The definition, in `f64`, with `groups` groups of channels; what is outside the picture is left out.
fn defined(
    geometry: &Geometry,
    groups: usize,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
    residual: &[f32],
    after: After<'_>,
) -> Vec<f64> {
    let Geometry { batch, inputs, outputs, y, x } = *geometry;
    let (of_group, per_group) = (inputs / groups, outputs / groups);
    let place = |axis: &Axis, output: usize, tap: usize| {
        (output * axis.stride + tap * axis.dilation).checked_sub(axis.pad_before).filter(|place| *place < axis.input)
    };
    let mut answer: Vec<f64> = Vec::new();
    for image in 0..batch {
        for output in 0..outputs {
            for (oy, ox) in (0..y.output).flat_map(|oy| (0..x.output).map(move |ox| (oy, ox))) {
                let mut sum = f64::from(bias[output]) + f64::from(residual.get(answer.len()).copied().unwrap_or(0.0));
                for channel in 0..of_group {
                    for (ky, kx) in (0..y.kernel).flat_map(|ky| (0..x.kernel).map(move |kx| (ky, kx))) {
                        let weight = weights[((output * of_group + channel) * y.kernel + ky) * x.kernel + kx];
                        if let (Some(row), Some(column)) = (place(&y, oy, ky), place(&x, ox, kx)) {
                            let plane = image * inputs + output / per_group * of_group + channel;
                            sum += f64::from(weight) * f64::from(input[(plane * y.input + row) * x.input + column]);
                        }
                    }
                }
                answer.push(match after {
                    After::Relu => sum.max(0.0),
                    After::Clip(low, high) => sum.clamp(f64::from(low), f64::from(high)),
                    After::Steps { size, low, high } => {
                        let step = (sum / f64::from(size)).clamp(f64::from(low), f64::from(high));
                        step.round_ties_even() * f64::from(size)
                    }
                    After::Prelu(slopes) if sum < 0.0 => sum * f64::from(slopes[output]),
                    After::Nothing | After::Prelu(_) => sum,
                });
            }
        }
    }
    answer
}

/// Compares answers that are sums of `terms` products.
fn same(want: &[f64], got: &[f32], terms: usize) {
    assert_eq!(want.len(), got.len());
    // What is clipped was larger before, and more terms are rounded more often.
    let least = f64::from(u32::try_from(terms).unwrap()).sqrt().max(4.0);
    let most = want.iter().fold(least, |most, number| most.max(number.abs()));
    for (place, (want, got)) in want.iter().zip(got).enumerate() {
        assert!((want - f64::from(*got)).abs() <= 1e-5 * most, "at {place}: expected {want}, got {got}");
    }
}

/// What lies in the lanes that count for nothing must not matter, and what is written must not depend on what was there.
fn spoiled(mut cells: Vec<Cell>, channels: usize, plane: usize) -> Vec<Cell> {
    let blocks = channels.div_ceil(LANES);
    for (index, cell) in cells.iter_mut().enumerate() {
        let block = index / plane.max(1) % blocks;
        cell[(channels - block * LANES).min(LANES)..].fill(7e8);
    }
    cells
}

/// A convolution of `groups` groups on every instruction set, from planes and from blocks, with and without a residual.
fn check_dense(geometry: &Geometry, groups: usize, seed: u32) {
    let Geometry { batch, inputs, outputs, y, x } = *geometry;
    let (taps, plane) = (y.kernel * x.kernel, y.output * x.output);
    let weights = noise(outputs * inputs / groups * taps, seed);
    let (bias, slopes) = (noise(outputs, seed + 1), noise(outputs, seed + 2));
    let input = noise(batch * inputs * y.input * x.input, seed + 3);
    let residual = noise(batch * outputs * plane, seed + 4);
    let packed = sums::pack(&weights, outputs, inputs / groups, taps);
    let (packed_bias, packed_slopes) = (sums::pack_channels(&bias), sums::pack_channels(&slopes));
    let blocks = spoiled(into_blocks(&input, inputs, y.input * x.input), inputs, y.input * x.input);
    let added = into_blocks(&residual, outputs, plane);
    for (after, packed_after) in [
        (After::Nothing, After::Nothing),
        (After::Relu, After::Relu),
        (After::Clip(-0.25, 0.5), After::Clip(-0.25, 0.5)),
        (After::Prelu(&slopes), After::Prelu(packed_slopes.as_flattened())),
    ] {
        let constants = Weights { groups, packed: &packed, bias: &packed_bias, after: packed_after };
        for residual in [None, Some(&residual)] {
            let want = defined(geometry, groups, &input, &weights, &bias, residual.map_or(&[], |all| all), after);
            for isa in Isa::all() {
                for pictures in [Pictures::Planes(&input), Pictures::Blocks(&blocks)] {
                    let mut output = vec![[f32::NAN; LANES]; batch * outputs.div_ceil(LANES) * plane];
                    let added = residual.map(|_| added.as_slice());
                    sums::dense(isa, geometry, constants, pictures, added, &mut output);
                    let mut got = vec![f32::NAN; batch * outputs * plane];
                    from_blocks(&output, outputs, plane, &mut got);
                    same(&want, &got, inputs / groups * taps);
                }
            }
        }
    }
}

fn check_depthwise(geometry: &Geometry, seed: u32) {
    let Geometry { batch, inputs, outputs, y, x } = *geometry;
    let (taps, plane) = (y.kernel * x.kernel, y.output * x.output);
    let weights = noise(outputs * taps, seed);
    let (bias, slopes) = (noise(outputs, seed + 1), noise(outputs, seed + 2));
    let input = noise(batch * inputs * y.input * x.input, seed + 3);
    let packed = sums::pack_depthwise(&weights, outputs, taps);
    let (packed_bias, packed_slopes) = (sums::pack_channels(&bias), sums::pack_channels(&slopes));
    let blocks = spoiled(into_blocks(&input, inputs, y.input * x.input), inputs, y.input * x.input);
    let constants =
        Weights { groups: 1, packed: &packed, bias: &packed_bias, after: After::Prelu(packed_slopes.as_flattened()) };
    let want = defined(geometry, inputs, &input, &weights, &bias, &[], After::Prelu(&slopes));
    for isa in Isa::all() {
        let mut output = vec![[f32::NAN; LANES]; batch * outputs.div_ceil(LANES) * plane];
        sums::depthwise(isa, geometry, constants, &blocks, &mut output);
        let mut got = vec![f32::NAN; batch * outputs * plane];
        from_blocks(&output, outputs, plane, &mut got);
        same(&want, &got, taps);
    }
}

#[test]
fn blocks_and_back_is_the_same_picture() {
    for (batch, channels, plane) in [(1, 3, 5), (2, 16, 7), (3, 33, 4), (1, 24, 1)] {
        let planes = noise(batch * channels * plane, 5);
        let mut back = vec![f32::NAN; planes.len()];
        from_blocks(&into_blocks(&planes, channels, plane), channels, plane, &mut back);
        assert_eq!(planes, back);
    }
}

#[test]
fn the_shapes_of_large_networks_are_right() {
    // Channels that fill no block, pictures that fill no tile, the first layer of a photograph, bands of a large picture.
    for (inputs, outputs, side, kernel, stride, pad) in [
        (3, 32, 33, 3, 2, 1),
        (3, 64, 31, 7, 2, 3),
        (24, 144, 9, 1, 1, 0),
        (144, 24, 9, 1, 1, 0),
        (64, 48, 7, 3, 1, 1),
        (40, 32, 14, 1, 2, 0),
        (512, 16, 23, 1, 1, 0),
        (160, 16, 30, 3, 1, 1),
    ] {
        let side = axis(side, kernel, stride, 1, (pad, pad));
        check_dense(&Geometry { batch: 2, inputs, outputs, y: side, x: side }, 1, 3);
    }
    let side = axis(9, 3, 1, 1, (1, 1));
    check_dense(&Geometry { batch: 2, inputs: 64, outputs: 32, y: side, x: side }, 2, 3);
}

#[test]
fn several_threads_give_the_same_bits_as_one() {
    let side = axis(24, 3, 1, 1, (1, 1));
    let geometry = |channels| Geometry { batch: 2, inputs: channels, outputs: channels, y: side, x: side };
    let plane = side.input * side.input;
    for (channels, groups) in [(80, 1), (96, 2), (800, 800)] {
        let geometry = geometry(channels);
        let weights = noise(channels * channels / groups * 9, 1);
        let (input, residual) = (noise(2 * channels * plane, 2), noise(2 * channels * plane, 3));
        let (input, added) = (into_blocks(&input, channels, plane), into_blocks(&residual, channels, plane));
        let bias = sums::pack_channels(&noise(channels, 4));
        let with = |threads| {
            let work = || {
                let mut output = vec![[f32::NAN; LANES]; input.len()];
                if groups == channels {
                    let packed = sums::pack_depthwise(&weights, channels, 9);
                    let constants = Weights { groups: 1, packed: &packed, bias: &bias, after: After::Relu };
                    sums::depthwise(Isa::best(), &geometry, constants, &input, &mut output);
                } else {
                    let packed = sums::pack(&weights, channels, channels / groups, 9);
                    let constants = Weights { groups, packed: &packed, bias: &bias, after: After::Relu };
                    let pictures = Pictures::Blocks(&input);
                    sums::dense(Isa::best(), &geometry, constants, pictures, Some(&added), &mut output);
                }
                output
            };
            millrace_threads::within(threads, work).unwrap()
        };
        let alone = with(1);
        assert!(alone.as_flattened().iter().all(|number| number.is_finite()));
        for threads in [2, 3, 4, 16] {
            assert!(with(threads) == alone, "{channels} channels, {groups} groups, {threads} threads");
        }
    }
}

#[test]
fn parts_of_a_picture_have_places_however_many_channels_there_are() {
    for (per_place, most, len, long) in
        [(64, 14, 100, 100), (64, 14, 2000, 1036), (70_000, 14, 4, 4), (70_000, 14, 100, 14)]
    {
        assert_eq!(sums::part_len(per_place, most, len), long, "{per_place}");
    }
}

#[test]
fn nan_and_infinities_go_through() {
    let side = axis(5, 1, 1, 1, (0, 0));
    let geometry = Geometry { batch: 1, inputs: 16, outputs: 16, y: side, x: side };
    let mut input = noise(16 * 25, 1);
    (input[7], input[60]) = (f32::NAN, f32::INFINITY);
    let weights = vec![1.0; 256];
    let packed = sums::pack(&weights, 16, 16, 1);
    let bias = sums::pack_channels(&[0.0; 16]);
    for isa in Isa::all() {
        for (after, infinite) in [(After::Clip(0.0, 6.0), 6.0), (After::Relu, f32::INFINITY)] {
            let mut output = vec![[0.0; LANES]; 25];
            let constants = Weights { groups: 1, packed: &packed, bias: &bias, after };
            sums::dense(isa, &geometry, constants, Pictures::Planes(&input), None, &mut output);
            assert!(output[7].iter().all(|number| number.is_nan()), "{isa:?}: {:?}", output[7]);
            assert_eq!(output[10], [infinite; LANES], "{isa:?}");
        }
    }
}

#[test]
fn steps_are_the_nearest_ones_on_every_instruction_set() {
    let side = axis(5, 1, 1, 1, (0, 0));
    let geometry = Geometry { batch: 1, inputs: 16, outputs: 16, y: side, x: side };
    // Quarters of a step: every tie among them is exact.
    let input: Vec<f32> = (0..16 * 25_u16).map(|number| f32::from(number) / 8.0 - 20.0).collect();
    let identity: Vec<f32> = (0..256).map(|place| if place % 17 == 0 { 1.0 } else { 0.0 }).collect();
    let packed = sums::pack(&identity, 16, 16, 1);
    let bias = sums::pack_channels(&[0.0; 16]);
    let after = After::Steps { size: 0.5, low: -30.0, high: 40.0 };
    for isa in Isa::all() {
        let mut output = vec![[0.0; LANES]; 25];
        let constants = Weights { groups: 1, packed: &packed, bias: &bias, after };
        sums::dense(isa, &geometry, constants, Pictures::Planes(&input), None, &mut output);
        let mut got = vec![f32::NAN; input.len()];
        from_blocks(&output, 16, 25, &mut got);
        let want: Vec<f32> =
            input.iter().map(|number| (number * 2.0).clamp(-30.0, 40.0).round_ties_even() / 2.0).collect();
        assert_eq!(got, want, "{isa:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution_is_the_sum_of_the_books(
        batch in 1_usize..3,
        inputs in prop_oneof![1_usize..6, Just(16), Just(20), Just(35)],
        outputs in prop_oneof![1_usize..6, Just(16), Just(31), Just(48)],
        sides in prop::array::uniform2(1_usize..20),
        kernels in prop::array::uniform2(1_usize..4),
        strides in prop::array::uniform2(1_usize..4),
        dilations in prop::array::uniform2(1_usize..3),
        pads in prop::array::uniform4(0_usize..3),
        seed in 1_u32..1000,
    ) {
        let seen = |index: usize| (kernels[index] - 1) * dilations[index] + 1;
        prop_assume!((0..2).all(|index| sides[index] + pads[index] + pads[index + 2] >= seen(index)));
        let [y, x] = [0, 1].map(|index| {
            axis(sides[index], kernels[index], strides[index], dilations[index], (pads[index], pads[index + 2]))
        });
        check_dense(&Geometry { batch, inputs, outputs, y, x }, 1, seed);
    }

    #[test]
    fn any_depthwise_convolution_is_the_sum_of_the_books(
        batch in 1_usize..3,
        channels in prop_oneof![1_usize..6, Just(16), Just(35)],
        sides in prop::array::uniform2(1_usize..30),
        kernels in prop::array::uniform2(1_usize..6),
        strides in prop::array::uniform2(1_usize..4),
        dilations in prop::array::uniform2(1_usize..3),
        pads in prop::array::uniform4(0_usize..4),
        seed in 1_u32..1000,
    ) {
        let seen = |index: usize| (kernels[index] - 1) * dilations[index] + 1;
        prop_assume!((0..2).all(|index| sides[index] + pads[index] + pads[index + 2] >= seen(index)));
        let [y, x] = [0, 1].map(|index| {
            axis(sides[index], kernels[index], strides[index], dilations[index], (pads[index], pads[index + 2]))
        });
        check_depthwise(&Geometry { batch, inputs: channels, outputs: channels, y, x }, seed);
    }
}
