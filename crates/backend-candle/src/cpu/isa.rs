//! The innermost step of every product, for each kind of processor: a few rows times a panel of columns.
//!
//! All pieces are laid out so that the step reads both of its operands from front to back: `a` as `[k][rows]`, `b` as
//! `[k][width]`. It is here that vector instructions are named; the loops around it are compiled with the same instructions.

use std::sync::LazyLock;

/// A kind of processor that this machine is. Only this module makes values, and only of what the machine said it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
}

/// This machine's.
pub(super) static ISA: LazyLock<Isa> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa(Kind::Avx512);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa(Kind::Avx2);
        }
    }
    Isa(Kind::Plain)
});

impl Isa {
    /// All that this machine has.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let faster = match ISA.0 {
            Kind::Avx512 => vec![Kind::Avx512, Kind::Avx2],
            Kind::Avx2 => vec![Kind::Avx2],
            Kind::Plain => vec![],
        };
        #[cfg(not(target_arch = "x86_64"))]
        let faster = vec![];
        faster.into_iter().chain([Kind::Plain]).map(Self).collect()
    }

    /// Columns of a panel of weights.
    pub(super) const fn width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Avx512::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Avx2::WIDTH,
            Kind::Plain => Plain::WIDTH,
        }
    }
}

/// Work that is compiled for each kind of processor.
pub(super) trait Work {
    type Output;

    /// Does it. Implementations are `#[inline(always)]`, so that they become part of the caller and are compiled with its
    /// instructions.
    fn run<S: Step>(self) -> Self::Output;
}

/// The step of one kind of processor.
pub(super) trait Step: Copy {
    /// The most rows at a time.
    const ROWS: usize;
    /// Columns of a panel of weights.
    const WIDTH: usize;
    /// Columns of a panel in attention, whose matrices are narrower.
    const NARROW: usize;

    /// `tile[r][c] = Σ a[i][r] · b[i][c]` over `i < k`, with `rows` ≤ [`Step::ROWS`] rows and `width` columns, which is one of
    /// the two widths. `a` holds `k × rows` numbers, `b` holds `k × width`, `tile` at least `rows × width`.
    fn tile(k: usize, rows: usize, width: usize, a: &[f32], b: &[f32], tile: &mut [f32]);
}

/// Does `work` with the best instructions that `isa` has.
#[expect(unsafe_code, reason = "code for instructions that the processor was asked about")]
pub(super) fn on<W: Work>(isa: Isa, work: W) -> W::Output {
    match isa.0 {
        // SAFETY: an `Isa` of this kind is made only where the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { on_avx512(work) },
        // SAFETY: as above; and who has those of `Avx512` was asked about these too.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { on_avx2(work) },
        Kind::Plain => work.run::<Plain>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn on_avx512<W: Work>(work: W) -> W::Output {
    work.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn on_avx2<W: Work>(work: W) -> W::Output {
    work.run::<Avx2>()
}

/// Calls `$function::<rows, vectors>` for the number of rows at hand.
macro_rules! by_rows {
    ($rows:expr, $function:ident, $vectors:literal, $arguments:tt, [$($count:literal)*]) => {
        match $rows {
            $($count => $function::<$count, $vectors> $arguments,)*
            _ => unreachable!("at most `Step::ROWS` rows"),
        }
    };
}

/// Vectors of 16; 8 × 3 of them in registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Step for Avx512 {
    const ROWS: usize = 8;
    const WIDTH: usize = 48;
    const NARROW: usize = 32;

    #[inline(always)]
    #[expect(unsafe_code, reason = "this type is used only by `on_avx512`")]
    fn tile(k: usize, rows: usize, width: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
        // SAFETY: no other module can name this type, and here only `on_avx512` does, which has the instructions.
        unsafe {
            if width == Self::WIDTH {
                by_rows!(rows, tile_avx512, 3, (k, a, b, tile), [1 2 3 4 5 6 7 8]);
            } else {
                by_rows!(rows, tile_avx512, 2, (k, a, b, tile), [1 2 3 4 5 6 7 8]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
#[expect(
    unsafe_code,
    reason = "vector instructions; the safe form is vectorised by luck, and 40 times slower without it"
)]
fn tile_avx512<const ROWS: usize, const VECTORS: usize>(k: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    const LANES: usize = 16;
    assert!(a.len() >= k * ROWS && b.len() >= k * VECTORS * LANES && tile.len() >= ROWS * VECTORS * LANES);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for i in 0..k {
        let mut columns = [_mm512_setzero_ps(); VECTORS];
        for (v, column) in columns.iter_mut().enumerate() {
            // SAFETY: the sixteen numbers end at most at k · VECTORS · LANES, which was checked.
            *column = unsafe { _mm512_loadu_ps(b.as_ptr().add((i * VECTORS + v) * LANES)) };
        }
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: the place is below k · ROWS, which was checked.
            let x = _mm512_set1_ps(unsafe { *a.get_unchecked(i * ROWS + r) });
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(x, column, *sum);
            }
        }
    }
    for (r, row) in sums.into_iter().enumerate() {
        for (v, sum) in row.into_iter().enumerate() {
            // SAFETY: the sixteen numbers end at most at ROWS · VECTORS · LANES, which was checked.
            unsafe { _mm512_storeu_ps(tile.as_mut_ptr().add((r * VECTORS + v) * LANES), sum) };
        }
    }
}

/// Vectors of 8; 6 × 2 of them in registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Step for Avx2 {
    const ROWS: usize = 6;
    const WIDTH: usize = 16;
    const NARROW: usize = 16;

    #[inline(always)]
    #[expect(unsafe_code, reason = "this type is used only by `on_avx2`")]
    fn tile(k: usize, rows: usize, _width: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
        // SAFETY: no other module can name this type, and here only `on_avx2` does, which has the instructions.
        unsafe { by_rows!(rows, tile_avx2, 2, (k, a, b, tile), [1 2 3 4 5 6]) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
#[expect(
    unsafe_code,
    reason = "vector instructions; the safe form is vectorised by luck, and 40 times slower without it"
)]
fn tile_avx2<const ROWS: usize, const VECTORS: usize>(k: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    const LANES: usize = 8;
    assert!(a.len() >= k * ROWS && b.len() >= k * VECTORS * LANES && tile.len() >= ROWS * VECTORS * LANES);
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
    for i in 0..k {
        let mut columns = [_mm256_setzero_ps(); VECTORS];
        for (v, column) in columns.iter_mut().enumerate() {
            // SAFETY: the eight numbers end at most at k · VECTORS · LANES, which was checked.
            *column = unsafe { _mm256_loadu_ps(b.as_ptr().add((i * VECTORS + v) * LANES)) };
        }
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: the place is below k · ROWS, which was checked.
            let x = _mm256_set1_ps(unsafe { *a.get_unchecked(i * ROWS + r) });
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = _mm256_fmadd_ps(x, column, *sum);
            }
        }
    }
    for (r, row) in sums.into_iter().enumerate() {
        for (v, sum) in row.into_iter().enumerate() {
            // SAFETY: the eight numbers end at most at ROWS · VECTORS · LANES, which was checked.
            unsafe { _mm256_storeu_ps(tile.as_mut_ptr().add((r * VECTORS + v) * LANES), sum) };
        }
    }
}

/// No instruction by name: for processors without the others, and to check these against.
#[derive(Clone, Copy)]
struct Plain;

impl Step for Plain {
    const ROWS: usize = 4;
    const WIDTH: usize = 16;
    const NARROW: usize = 16;

    #[inline(always)]
    fn tile(k: usize, rows: usize, _width: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
        by_rows!(rows, tile_plain, 16, (k, a, b, tile), [1 2 3 4]);
    }
}

#[inline]
fn tile_plain<const ROWS: usize, const WIDTH: usize>(k: usize, a: &[f32], b: &[f32], tile: &mut [f32]) {
    let mut sums = [[0.0_f32; WIDTH]; ROWS];
    let (a, _) = a.as_chunks::<ROWS>();
    let (b, _) = b.as_chunks::<WIDTH>();
    for (a, b) in a.iter().zip(b).take(k) {
        for (row, x) in sums.iter_mut().zip(a) {
            for (sum, y) in row.iter_mut().zip(b) {
                *sum += x * y;
            }
        }
    }
    tile[..ROWS * WIDTH].copy_from_slice(sums.as_flattened());
}
