//! Every layout on every instruction set against the sum as it is written in books.

use proptest::prelude::*;

use super::kernel::Isa;
use super::{After, Axis, Geometry, Layout, Weights, pack_for, run_on, unpack_for};

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

fn plain(batch: usize, inputs: usize, outputs: usize, side: usize, kernel: usize) -> Geometry {
    let axis = axis(side, kernel, 1, 1, (0, 0));
    Geometry { batch, inputs, outputs, y: axis, x: axis }
}

/// The definition, in `f64`. What is outside the picture is zero, and a zero times an infinite weight is NaN.
fn defined(geometry: &Geometry, input: &[f32], weights: &[f32], bias: &[f32], after: After<'_>) -> Vec<f64> {
    let Geometry { batch, inputs, outputs, y, x } = *geometry;
    let place = |axis: &Axis, output: usize, tap: usize| {
        (output * axis.stride + tap * axis.dilation).checked_sub(axis.pad_before).filter(|place| *place < axis.input)
    };
    let mut answer = Vec::new();
    for image in 0..batch {
        for output in 0..outputs {
            for (oy, ox) in (0..y.output).flat_map(|oy| (0..x.output).map(move |ox| (oy, ox))) {
                let mut sum = f64::from(bias[output]);
                for channel in 0..inputs {
                    for (ky, kx) in (0..y.kernel).flat_map(|ky| (0..x.kernel).map(move |kx| (ky, kx))) {
                        let weight = weights[((output * inputs + channel) * y.kernel + ky) * x.kernel + kx];
                        let number = match (place(&y, oy, ky), place(&x, ox, kx)) {
                            (Some(row), Some(column)) => {
                                input[((image * inputs + channel) * y.input + row) * x.input + column]
                            }
                            _ => 0.0,
                        };
                        sum += f64::from(weight) * f64::from(number);
                    }
                }
                answer.push(match after {
                    After::Relu if sum < 0.0 => 0.0,
                    After::Prelu(slopes) if sum < 0.0 => sum * f64::from(slopes[output]),
                    After::Clip(low, high) => sum.clamp(f64::from(low), f64::from(high)),
                    After::Steps { size, low, high } => {
                        let step = (sum / f64::from(size)).clamp(f64::from(low), f64::from(high));
                        step.round_ties_even() * f64::from(size)
                    }
                    After::Nothing | After::Relu | After::Prelu(_) => sum,
                });
            }
        }
    }
    answer
}

#[test]
fn steps_are_the_nearest_ones_on_every_instruction_set() {
    let geometry = plain(1, 1, 1, 20, 1);
    // Quarters of a step: every tie among them is exact.
    let input: Vec<f32> = (0..400_u16).map(|number| f32::from(number) / 8.0 - 20.0).collect();
    let want: Vec<f32> = input.iter().map(|number| (number * 2.0).clamp(-30.0, 40.0).round_ties_even() / 2.0).collect();
    for isa in Isa::all() {
        let mut got = vec![f32::NAN; input.len()];
        let after = After::Steps { size: 0.5, low: -30.0, high: 40.0 };
        run_on(isa, &geometry, &input, Weights { packed: &[1.0], bias: &[0.0], after }, &mut got);
        assert_eq!(got, want, "{isa:?}");
    }
}

#[test]
fn weights_come_back_as_they_were() {
    for outputs in [1, 5, 8, 9, 31, 64] {
        let weights = noise(outputs * 6, 3);
        for isa in Isa::all() {
            assert_eq!(unpack_for(&pack_for(&weights, outputs, isa), outputs, isa), weights);
        }
    }
}

/// Runs `input` on every instruction set and compares with the definition.
fn check(geometry: &Geometry, input: &[f32], seed: u32) {
    let weights = noise(geometry.outputs * geometry.taps(), seed + 1);
    let (bias, slopes) = (noise(geometry.outputs, seed + 2), noise(geometry.outputs, seed + 3));
    for after in [After::Nothing, After::Relu, After::Prelu(&slopes), After::Clip(-0.25, 0.5)] {
        let want = defined(geometry, input, &weights, &bias, after);
        for isa in Isa::all() {
            let packed = pack_for(&weights, geometry.outputs, isa);
            let mut got = vec![f32::MAX; want.len()];
            run_on(isa, geometry, input, Weights { packed: &packed, bias: &bias, after }, &mut got);
            // Each of the sum's terms is at most 1 and is rounded once; they are added in another order.
            let tolerance = 1e-6 * (geometry.taps() as f64 + 1.0);
            for (place, (got, want)) in got.iter().zip(&want).enumerate() {
                let got = f64::from(*got);
                let same = (got.is_nan() && want.is_nan()) || got == *want || (got - want).abs() <= tolerance;
                assert!(same, "{isa:?} {after:?} {geometry:?} at {place}: expected {want}, got {got}");
            }
        }
    }
}

fn check_noise(geometry: &Geometry, seed: u32) {
    let len = geometry.batch * geometry.inputs * geometry.y.input * geometry.x.input;
    check(geometry, &noise(len, seed), seed);
}

#[test]
fn every_layout_is_chosen_somewhere_and_sums_as_defined() {
    let padded = axis(9, 3, 2, 1, (1, 1));
    let tiny = Geometry { y: padded, x: padded, ..plain(3, 3, 7, 9, 3) };
    for (geometry, layout) in [
        (plain(1, 2, 10, 48, 3), Layout::Rows),
        (plain(2, 5, 4, 9, 1), Layout::Rows),
        (plain(1, 3, 28, 24, 3), Layout::Flat),
        (plain(2, 4, 9, 11, 3), Layout::Gathered),
        (tiny, Layout::Gathered),
        (plain(11, 4, 9, 11, 3), Layout::Lanes),
        // More pictures than lanes; the rest is too few for them.
        (plain(20, 2, 5, 8, 3), Layout::Lanes),
        // Less than one vector.
        (plain(1, 3, 5, 3, 3), Layout::Flat),
    ] {
        assert_eq!(geometry.layout(geometry.batch), layout, "{geometry:?}");
        check_noise(&geometry, 7);
    }
}

#[test]
fn more_pictures_than_are_unfolded_at_once_are_unfolded_in_turn() {
    // 9 * 80 taps and 64 places: one picture at a time.
    let mut geometry = plain(3, 80, 6, 10, 3);
    geometry.outputs = 6;
    assert_eq!(geometry.layout(geometry.batch), Layout::Gathered);
    check_noise(&geometry, 3);
}

#[test]
fn nothing_in_is_nothing_out() {
    for geometry in [plain(0, 2, 3, 8, 3), Geometry { outputs: 0, ..plain(1, 2, 3, 8, 3) }] {
        let mut output = Vec::new();
        let weights = Weights { packed: &[], bias: &[], after: After::Nothing };
        run_on(Isa::best(), &geometry, &noise(128 * geometry.batch, 1), weights, &mut output);
    }
}

#[test]
fn nan_and_infinity_reach_the_places_that_see_them_and_no_others() {
    let framed = axis(12, 3, 2, 1, (1, 0));
    for geometry in [
        plain(1, 2, 9, 48, 3),
        plain(1, 2, 9, 24, 3),
        plain(2, 2, 9, 11, 3),
        plain(12, 2, 9, 11, 3),
        Geometry { y: framed, x: framed, ..plain(2, 2, 3, 12, 3) },
    ] {
        let len = geometry.batch * geometry.inputs * geometry.y.input * geometry.x.input;
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, len / 2, len - 1] {
                let mut input = noise(len, 5);
                input[place] = special;
                check(&geometry, &input, 5);
            }
        }
    }
}

fn any_axis() -> impl Strategy<Value = Axis> {
    (1_usize..50, 1_usize..5, 1_usize..4, 1_usize..3, (0_usize..3, 0_usize..3)).prop_map(
        |(input, kernel, stride, dilation, pads)| {
            let seen = (kernel - 1) * dilation + 1;
            axis(input.max(seen.saturating_sub(pads.0 + pads.1)).max(1), kernel, stride, dilation, pads)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_sizes_sum_as_defined(
        batch in prop_oneof![1_usize..4, 9_usize..20],
        inputs in 1_usize..4,
        outputs in 1_usize..20,
        y in any_axis().prop_filter("tests should be quick", |axis| axis.output < 14),
        x in any_axis(),
        seed in 1_u32..1000,
    ) {
        check_noise(&Geometry { batch, inputs, outputs, y, x }, seed);
    }
}
