//! The inner loops over blocks of sixteen channels: sums for some places next to each other, kept in registers.
//!
//! A vector is the sixteen channels of one place, so a loop never depends on how wide a picture is. The loops are written
//! once and compiled for each instruction set. Where places lie is the business of [`super::sums`].

use crate::rewrite::direct::{After, Isa, Kind};
use crate::rewrite::steps::NEAREST;

/// Channels that lie together.
pub(in crate::rewrite) const LANES: usize = 16;

/// The channels of one place.
pub(in crate::rewrite) type Cell = [f32; LANES];

/// Input channels that lie together, under one tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rewrite) struct Run {
    /// Where the first place has them, in numbers.
    pub(in crate::rewrite) at: usize,
    /// How many count.
    pub(in crate::rewrite) channels: usize,
}

/// Sums over all channels and taps, for one or two blocks of output channels. For each place `p` and block `b`:
/// `output[b * stride + p] = after(bias[b] + Σ input[at + run.at + p * cell + channel] * weights[b][…] + residual[…])`.
#[derive(Debug)]
pub(in crate::rewrite) struct Dense<'a> {
    pub(in crate::rewrite) input: &'a [f32],
    /// Numbers from one place of the input to the next: 16, or 4 for pictures of few channels.
    pub(in crate::rewrite) cell: usize,
    pub(in crate::rewrite) at: usize,
    pub(in crate::rewrite) runs: &'a [Run],
    /// At most [`places`].
    pub(in crate::rewrite) places: usize,
    /// By block, then run, then channel.
    pub(in crate::rewrite) weights: &'a [Cell],
    /// By block.
    pub(in crate::rewrite) bias: &'a [Cell],
    /// Slopes are those of these blocks.
    pub(in crate::rewrite) after: After<'a>,
    /// Added to the sums, if any: it lies as the output does.
    pub(in crate::rewrite) residual: Option<&'a [Cell]>,
}

/// Sums over taps alone, for one block: `output[p] = after(bias + Σ input[tap + p * stride] * weights[…])`.
#[derive(Debug)]
pub(super) struct Depthwise<'a> {
    pub(super) input: &'a [Cell],
    pub(super) stride: usize,
    pub(super) taps: &'a [Tap],
    pub(super) places: usize,
    pub(super) weights: &'a [Cell],
    pub(super) bias: &'a Cell,
    pub(super) after: After<'a>,
}

/// A tap that lies inside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    /// Where the first place has it, in cells.
    pub(super) at: usize,
    /// Which one it is.
    pub(super) weight: usize,
}

/// The most places of one call.
pub(in crate::rewrite) fn places(isa: Isa) -> usize {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => 14,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => 6,
        Kind::Portable => 2,
    }
}

/// The most blocks of output channels of one call.
pub(in crate::rewrite) fn blocks(isa: Isa) -> usize {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => 2,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => 1,
        Kind::Portable => 1,
    }
}

/// Does `job`.
///
/// # Panics
/// When a part of it lies outside its slices.
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "only the processor itself can tell which instructions it has")
)]
pub(in crate::rewrite) fn dense(isa: Isa, job: &Dense<'_>, output: &mut [Cell], stride: usize) {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::all` gives this kind only where the processor has AVX-512F.
        Kind::Avx512 => unsafe { avx512::dense(job, output, stride) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::all` gives this kind only where the processor has AVX2 and FMA.
        Kind::Avx2 => unsafe { avx2::dense(job, output, stride) },
        Kind::Portable => portable::dense(job, output, stride),
    }
}

/// Does `job`.
///
/// # Panics
/// When a part of it lies outside its slices.
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "only the processor itself can tell which instructions it has")
)]
pub(super) fn depthwise(isa: Isa, job: &Depthwise<'_>, output: &mut [Cell]) {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::all` gives this kind only where the processor has AVX-512F.
        Kind::Avx512 => unsafe { avx512::depthwise(job, output) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::all` gives this kind only where the processor has AVX2 and FMA.
        Kind::Avx2 => unsafe { avx2::depthwise(job, output) },
        Kind::Portable => portable::depthwise(job, output),
    }
}

/// The loops, over the vectors of the module that they are in, for so many places at once.
macro_rules! loops {
    ($(#[$feature:meta])? { $($places:literal),* $(,)? }) => {
        $(#[$feature])?
        pub(super) fn dense(job: &Dense<'_>, output: &mut [Cell], stride: usize) {
            match (job.places, job.bias.len(), job.cell) {
                $(
                    ($places, 1, 4) => sums::<$places, 1, 4>(job, output, stride),
                    ($places, 1, LANES) => sums::<$places, 1, LANES>(job, output, stride),
                    ($places, 2, 4) => sums::<$places, 2, 4>(job, output, stride),
                    ($places, 2, LANES) => sums::<$places, 2, LANES>(job, output, stride),
                )*
                (places, blocks, cell) => unreachable!("no loop has {places} places, {blocks} blocks, cells of {cell}"),
            }
            if job.residual.is_some() || !matches!(job.after, After::Nothing) {
                follow(job, output, stride);
            }
        }

        $(#[$feature])?
        pub(super) fn depthwise(job: &Depthwise<'_>, output: &mut [Cell]) {
            match (job.places, job.stride) {
                $(
                    ($places, 1) => taps::<$places, 1>(job, output),
                    ($places, 2) => taps::<$places, 2>(job, output),
                )*
                (places, stride) => unreachable!("no loop has {places} places with a stride of {stride}"),
            }
        }

        /// A function of its own, whose loops have lengths that the compiler knows, and a short one: else it keeps the sums
        /// in memory.
        #[inline(never)]
        $(#[$feature])?
        fn sums<const PLACES: usize, const BLOCKS: usize, const CELL: usize>(
            job: &Dense<'_>,
            output: &mut [Cell],
            stride: usize,
        ) {
            let bias: &[Cell; BLOCKS] = job.bias.first_chunk().expect("one bias per block");
            let mut sums = [[splat(0.0); BLOCKS]; PLACES];
            for sums in &mut sums {
                for (sum, bias) in sums.iter_mut().zip(bias) {
                    *sum = load(bias);
                }
            }
            let taps = job.weights.len() / BLOCKS;
            let mut done = 0;
            for run in job.runs {
                let channels = run.channels.min(CELL);
                let cells = job.input[job.at + run.at..].as_chunks::<CELL>().0;
                let cells: &[[f32; CELL]; PLACES] = cells.first_chunk().expect("places lie inside the picture");
                let mut weights: [&[Cell]; BLOCKS] = [&[]; BLOCKS];
                for (block, weights) in weights.iter_mut().enumerate() {
                    *weights = &job.weights[block * taps + done..][..channels];
                }
                for channel in 0..channels {
                    let mut vectors = [splat(0.0); BLOCKS];
                    for (vector, weights) in vectors.iter_mut().zip(&weights) {
                        *vector = load(&weights[channel]);
                    }
                    for (sums, cell) in sums.iter_mut().zip(cells) {
                        let number = splat(cell[channel]);
                        for (sum, vector) in sums.iter_mut().zip(&vectors) {
                            *sum = multiply_add(number, *vector, *sum);
                        }
                    }
                }
                done += channels;
            }
            for block in 0..BLOCKS {
                let output = &mut output[block * stride..][..PLACES];
                for (sums, output) in sums.iter().zip(output) {
                    store(sums[block], output);
                }
            }
        }

        /// Adds the residual and does what follows, in a second pass over what the nearest cache still holds.
        #[inline(never)]
        $(#[$feature])?
        fn follow(job: &Dense<'_>, output: &mut [Cell], stride: usize) {
            for block in 0..job.bias.len() {
                let after = job.after.of(block * LANES, LANES);
                let output = &mut output[block * stride..][..job.places];
                if let Some(residual) = job.residual {
                    for (place, residual) in output.iter_mut().zip(&residual[block * stride..]) {
                        store(finish(add(load(place), load(residual)), after), place);
                    }
                } else {
                    for place in output {
                        store(finish(load(place), after), place);
                    }
                }
            }
        }

        #[inline(never)]
        $(#[$feature])?
        fn taps<const PLACES: usize, const STRIDE: usize>(job: &Depthwise<'_>, output: &mut [Cell]) {
            let mut sums = [load(job.bias); PLACES];
            for tap in job.taps {
                let weight = load(&job.weights[tap.weight]);
                let input = &job.input[tap.at..][..(PLACES - 1) * STRIDE + 1];
                for (sum, input) in sums.iter_mut().zip(input.iter().step_by(STRIDE)) {
                    *sum = multiply_add(weight, load(input), *sum);
                }
            }
            for (sum, output) in sums.iter().zip(&mut output[..PLACES]) {
                store(finish(*sum, job.after), output);
            }
        }

        #[inline]
        $(#[$feature])?
        fn finish(sum: Vector, after: After<'_>) -> Vector {
            match after {
                After::Nothing => sum,
                After::Relu => where_negative(sum, splat(0.0)),
                After::Clip(low, high) => clip(sum, splat(low), splat(high)),
                After::Steps { size, low, high } => {
                    let step = clip(multiply(sum, splat(size.recip())), splat(low), splat(high));
                    multiply(add(add(step, splat(NEAREST)), splat(-NEAREST)), splat(size))
                }
                After::Prelu(slopes) => {
                    let slopes = load(slopes.first_chunk().expect("one slope per channel"));
                    where_negative(sum, multiply(sum, slopes))
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _CMP_LT_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_mask_mov_ps, _mm512_max_ps,
        _mm512_min_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{After, Cell, Dense, Depthwise, LANES, NEAREST};

    type Vector = __m512;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(value: f32) -> Vector {
        _mm512_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(numbers: &Cell) -> Vector {
        bytemuck::must_cast(*numbers)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(value: Vector, place: &mut Cell) {
        *place = bytemuck::must_cast(value);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm512_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply(a: Vector, b: Vector) -> Vector {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn where_negative(value: Vector, instead: Vector) -> Vector {
        let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, _mm512_setzero_ps());
        _mm512_mask_mov_ps(value, negative, instead)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn clip(value: Vector, low: Vector, high: Vector) -> Vector {
        // Where one is NaN these give the second operand, which is the value.
        _mm512_min_ps(high, _mm512_max_ps(low, value))
    }

    loops!(#[target_feature(enable = "avx512f")] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 });
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _CMP_LT_OQ, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_max_ps,
        _mm256_min_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps,
    };

    use super::{After, Cell, Dense, Depthwise, LANES, NEAREST};

    type Vector = [__m256; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn splat(value: f32) -> Vector {
        [_mm256_set1_ps(value); 2]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(numbers: &Cell) -> Vector {
        bytemuck::must_cast(*numbers)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(value: Vector, place: &mut Cell) {
        *place = bytemuck::must_cast(value);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(a: Vector, b: Vector) -> Vector {
        [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn multiply(a: Vector, b: Vector) -> Vector {
        [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
        [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn where_negative(value: Vector, instead: Vector) -> Vector {
        let zero = _mm256_setzero_ps();
        [
            _mm256_blendv_ps(value[0], instead[0], _mm256_cmp_ps::<_CMP_LT_OQ>(value[0], zero)),
            _mm256_blendv_ps(value[1], instead[1], _mm256_cmp_ps::<_CMP_LT_OQ>(value[1], zero)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn clip(value: Vector, low: Vector, high: Vector) -> Vector {
        // Where one is NaN these give the second operand, which is the value.
        [
            _mm256_min_ps(high[0], _mm256_max_ps(low[0], value[0])),
            _mm256_min_ps(high[1], _mm256_max_ps(low[1], value[1])),
        ]
    }

    loops!(#[target_feature(enable = "avx2,fma")] { 1, 2, 3, 4, 5, 6 });
}

/// What every processor can do: arrays, which compilers turn into the vectors that there are.
mod portable {
    use super::{After, Cell, Dense, Depthwise, LANES, NEAREST};

    type Vector = Cell;

    #[inline]
    fn splat(value: f32) -> Vector {
        [value; LANES]
    }

    #[inline]
    fn load(numbers: &Cell) -> Vector {
        *numbers
    }

    #[inline]
    fn store(value: Vector, place: &mut Cell) {
        *place = value;
    }

    #[inline]
    fn add(a: Vector, b: Vector) -> Vector {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline]
    fn multiply(a: Vector, b: Vector) -> Vector {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline]
    fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
        // Not `mul_add`: without the instruction for it that is a call into the C library.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline]
    fn where_negative(value: Vector, instead: Vector) -> Vector {
        std::array::from_fn(|lane| if value[lane] < 0.0 { instead[lane] } else { value[lane] })
    }

    #[inline]
    fn clip(value: Vector, low: Vector, high: Vector) -> Vector {
        std::array::from_fn(|lane| {
            let raised = if value[lane] < low[lane] { low[lane] } else { value[lane] };
            if raised > high[lane] { high[lane] } else { raised }
        })
    }

    loops!({ 1, 2 });
}
