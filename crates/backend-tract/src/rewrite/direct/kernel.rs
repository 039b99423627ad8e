//! The inner loops of the direct convolution: sums of shifted, weighted rows for several output channels at once.
//!
//! The loops are written once and compiled for each instruction set, because what a build targets by default has neither
//! fused multiply-add nor vectors of more than four numbers. Where rows lie and what they mean is the business of
//! [`super`].

use crate::rewrite::steps::NEAREST;

/// What follows the sum of a convolution, number by number.
#[derive(Debug, Clone, Copy)]
pub(in crate::rewrite) enum After<'a> {
    /// The sum is the answer.
    Nothing,
    /// Negative numbers become zero. NaN and -0 stay, as for ONNX's `Relu`.
    Relu,
    /// Negative numbers are multiplied by their channel's slope. NaN and -0 stay.
    Prelu(&'a [f32]),
    /// Numbers outside of two limits become the nearer one. NaN stays.
    Clip(f32, f32),
    /// Numbers become the nearest whole number of steps of `size`, from `low` to `high` steps. NaN stays.
    Steps { size: f32, low: f32, high: f32 },
}

impl<'a> After<'a> {
    /// The part for `channels` channels, the first being `first`.
    pub(in crate::rewrite) fn of(self, first: usize, channels: usize) -> Self {
        match self {
            After::Prelu(slopes) => After::Prelu(&slopes[first..first + channels]),
            After::Nothing | After::Relu | After::Clip(..) | After::Steps { .. } => self,
        }
    }
}

/// For each channel `c` and each `i` below `len`:
/// `output[c][i] = after(bias[c] + Σ weights[tap][c] * input[taps[tap] + at + i])`.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) input: &'a [f32],
    /// Where each tap's first number lies in `input`.
    pub(super) taps: &'a [usize],
    /// Added to each tap.
    pub(super) at: usize,
    /// Numbers per channel; at least [`LANES`].
    pub(super) len: usize,
    /// `[taps, channels]`.
    pub(super) weights: &'a [f32],
    /// One number per channel; there are at most [`Isa::channels`] of them.
    pub(super) bias: &'a [f32],
    pub(super) after: After<'a>,
}

/// The longest vector of any instruction set: the shortest row that a [`Job`] may have.
pub(super) const LANES: usize = 16;

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rewrite) struct Isa(Kind);

/// The instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rewrite) enum Kind {
    /// Vectors of sixteen.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Vectors of eight, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the build targets.
    Portable,
}

impl Isa {
    /// The best one that is there.
    pub(in crate::rewrite) fn best() -> Self {
        Self::all().next().unwrap_or(Self(Kind::Portable))
    }

    /// Which one it is. There is no other way to one than [`Isa::all`], so the processor has it.
    pub(in crate::rewrite) fn kind(self) -> Kind {
        self.0
    }

    /// Every one that is there, the best one first.
    pub(in crate::rewrite) fn all() -> impl Iterator<Item = Self> {
        let all = [
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            (Kind::Portable, true),
        ];
        all.into_iter().filter_map(|(kind, is_there)| is_there.then_some(Self(kind)))
    }

    /// The most channels of one job: as many as the registers hold.
    pub(super) fn channels(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 6,
            Kind::Portable => 4,
        }
    }

    /// Does `job`. Channel `c` of the output begins at `output[c * stride]`.
    ///
    /// # Panics
    /// When a part of the job lies outside its slices.
    #[cfg_attr(
        target_arch = "x86_64",
        expect(unsafe_code, reason = "only the processor itself can tell which instructions it has")
    )]
    pub(super) fn run(self, job: &Job<'_>, output: &mut [f32], stride: usize) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` gives this kind only where the processor has AVX-512F.
            Kind::Avx512 => unsafe { avx512::run(job, output, stride) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` gives this kind only where the processor has AVX2 and FMA.
            Kind::Avx2 => unsafe { avx2::run(job, output, stride) },
            Kind::Portable => portable::run(job, output, stride),
        }
    }
}

/// The first `N` numbers, as many as there are channels.
#[inline]
fn first<const N: usize>(numbers: &[f32]) -> &[f32; N] {
    numbers.first_chunk().expect("a job has a number for each of its channels")
}

/// The loops, over the vectors of the module that they are in. `$tile` gives the vectors of a block by its channels: sums,
/// inputs and one weight must all fit in the registers.
macro_rules! loops {
    ($(#[$feature:meta])? { $($channels:literal: $vectors:literal),* $(,)? }) => {
        $(#[$feature])?
        pub(super) fn run(job: &Job<'_>, output: &mut [f32], stride: usize) {
            assert!(job.len >= LANES, "a row of {} numbers is too short", job.len);
            match job.bias.len() {
                $($channels => row::<$channels, $vectors>(job, output, stride),)*
                channels => unreachable!("no tile has {channels} channels"),
            }
        }

        /// A row in blocks of up to `MOST` vectors. The last block reaches back over its neighbour rather than over the end.
        $(#[$feature])?
        fn row<const CHANNELS: usize, const MOST: usize>(job: &Job<'_>, output: &mut [f32], stride: usize) {
            let mut done = 0;
            while done < job.len {
                let left = (job.len - done).div_ceil(WIDTH);
                // A single vector alone makes poor use of the loads, so one is not left over.
                let vectors = if left >= MOST && left != MOST + 1 { MOST } else { left.min(2) };
                let vectors = if vectors * WIDTH > job.len { 1 } else { vectors };
                let from = done.min(job.len - vectors * WIDTH);
                match vectors {
                    1 => block::<CHANNELS, 1>(job, from, output, stride),
                    2 => block::<CHANNELS, 2>(job, from, output, stride),
                    _ => block::<CHANNELS, MOST>(job, from, output, stride),
                }
                done = from + vectors * WIDTH;
            }
        }

        /// A function of its own, whose loops have lengths that the compiler knows: else it keeps the sums in memory.
        #[inline(never)]
        $(#[$feature])?
        fn block<const CHANNELS: usize, const VECTORS: usize>(
            job: &Job<'_>,
            from: usize,
            output: &mut [f32],
            stride: usize,
        ) {
            let bias = first::<CHANNELS>(job.bias);
            let mut sums = [[splat(0.0); VECTORS]; CHANNELS];
            for (sums, bias) in sums.iter_mut().zip(bias) {
                *sums = [splat(*bias); VECTORS];
            }
            for (tap, weights) in job.taps.iter().zip(job.weights.as_chunks::<CHANNELS>().0) {
                let start = tap + job.at + from;
                let numbers = &job.input[start..start + VECTORS * WIDTH];
                let mut inputs = [splat(0.0); VECTORS];
                for (input, numbers) in inputs.iter_mut().zip(numbers.as_chunks::<WIDTH>().0) {
                    *input = load(numbers);
                }
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    let weight = splat(*weight);
                    for (sum, input) in sums.iter_mut().zip(&inputs) {
                        *sum = multiply_add(weight, *input, *sum);
                    }
                }
            }
            match job.after {
                After::Nothing => {}
                After::Relu => {
                    for sum in sums.as_flattened_mut() {
                        *sum = where_negative(*sum, splat(0.0));
                    }
                }
                After::Clip(low, high) => {
                    let (low, high) = (splat(low), splat(high));
                    for sum in sums.as_flattened_mut() {
                        *sum = clip(*sum, low, high);
                    }
                }
                After::Steps { size, low, high } => {
                    let (times, size) = (splat(size.recip()), splat(size));
                    let (low, high) = (splat(low), splat(high));
                    for sum in sums.as_flattened_mut() {
                        let step = clip(multiply(*sum, times), low, high);
                        *sum = multiply(add(add(step, splat(NEAREST)), splat(-NEAREST)), size);
                    }
                }
                After::Prelu(slopes) => {
                    for (sums, slope) in sums.iter_mut().zip(first::<CHANNELS>(slopes)) {
                        let slope = splat(*slope);
                        for sum in sums {
                            *sum = where_negative(*sum, multiply(*sum, slope));
                        }
                    }
                }
            }
            for (channel, sums) in sums.iter().enumerate() {
                let start = channel * stride + from;
                let places = output[start..start + VECTORS * WIDTH].as_chunks_mut::<WIDTH>().0;
                for (place, sum) in places.iter_mut().zip(sums) {
                    store(*sum, place);
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

    use super::{After, Job, LANES, NEAREST, first};

    const WIDTH: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(numbers: &[f32; WIDTH]) -> __m512 {
        bytemuck::must_cast(*numbers)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(value: __m512, place: &mut [f32; WIDTH]) {
        *place = bytemuck::must_cast(value);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn where_negative(value: __m512, instead: __m512) -> __m512 {
        let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, _mm512_setzero_ps());
        _mm512_mask_mov_ps(value, negative, instead)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn clip(value: __m512, low: __m512, high: __m512) -> __m512 {
        // Where one is NaN these give the second operand, which is the value.
        _mm512_min_ps(high, _mm512_max_ps(low, value))
    }

    // 32 registers.
    loops!(#[target_feature(enable = "avx512f")] { 1: 8, 2: 8, 3: 6, 4: 5, 5: 4, 6: 4, 7: 3, 8: 3 });
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _CMP_LT_OQ, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_max_ps,
        _mm256_min_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps,
    };

    use super::{After, Job, LANES, NEAREST, first};

    const WIDTH: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn splat(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(numbers: &[f32; WIDTH]) -> __m256 {
        bytemuck::must_cast(*numbers)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(value: __m256, place: &mut [f32; WIDTH]) {
        *place = bytemuck::must_cast(value);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn multiply(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn where_negative(value: __m256, instead: __m256) -> __m256 {
        _mm256_blendv_ps(value, instead, _mm256_cmp_ps::<_CMP_LT_OQ>(value, _mm256_setzero_ps()))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn clip(value: __m256, low: __m256, high: __m256) -> __m256 {
        // Where one is NaN these give the second operand, which is the value.
        _mm256_min_ps(high, _mm256_max_ps(low, value))
    }

    // 16 registers.
    loops!(#[target_feature(enable = "avx2,fma")] { 1: 6, 2: 4, 3: 3, 4: 3, 5: 2, 6: 2 });
}

/// What every processor can do: four numbers at a time, which compilers turn into vectors by themselves.
mod portable {
    use super::{After, Job, LANES, NEAREST, first};

    const WIDTH: usize = 4;

    type Vector = [f32; WIDTH];

    #[inline]
    fn splat(value: f32) -> Vector {
        [value; WIDTH]
    }

    #[inline]
    fn load(numbers: &Vector) -> Vector {
        *numbers
    }

    #[inline]
    fn store(value: Vector, place: &mut Vector) {
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

    loops!({ 1: 4, 2: 4, 3: 3, 4: 3 });
}
