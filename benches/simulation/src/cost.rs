//! What runs cost in the simulated engine, and how that differs from one engine to another.

use crate::random::Random;

/// Seconds that a run of so many rows takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Its name in tables.
    pub name: &'static str,
    /// The shape of the curve.
    pub curve: Curve,
    /// How much single runs differ: the spread of the logarithm.
    pub spread: f64,
    /// From this share of the time on, everything takes so many times as long.
    pub change: Option<(f64, f64)>,
    /// Runs that go on at once.
    pub workers: usize,
}

/// Time by rows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the formula of each variant names its fields")]
pub enum Curve {
    /// a + b·n: a small b is a GPU or a tiny model, a small a is a CPU.
    Affine { a: f64, b: f64 },
    /// a + b for each started block of rows, as kernels with fixed tiles have it.
    Steps { a: f64, b: f64, block: usize },
    /// a + b·n + c·n²: batches that outgrow a cache.
    Convex { a: f64, b: f64, c: f64 },
}

impl Cost {
    /// Every engine of the tables.
    pub fn all() -> Vec<Self> {
        let plain = |name, curve| Self { name, curve, spread: 0.02, change: None, workers: 1 };
        let tiny = Curve::Affine { a: 5e-6, b: 0.25e-6 };
        let cpu = Curve::Affine { a: 0.5e-3, b: 4e-3 };
        let gpu = Curve::Affine { a: 4e-3, b: 0.1e-3 };
        let even = Curve::Affine { a: 1e-3, b: 0.5e-3 };
        vec![
            plain("tiny model", tiny),
            plain("flat (CPU)", cpu),
            plain("steep (GPU)", gpu),
            plain("even", even),
            plain("steps of 8", Curve::Steps { a: 1e-3, b: 1e-3, block: 8 }),
            plain("convex", Curve::Convex { a: 1e-3, b: 0.4e-3, c: 0.02e-3 }),
            Self { spread: 0.3, ..plain("noisy", even) },
            Self { change: Some((0.5, 2.5)), ..plain("slower midway", even) },
            Self { workers: 16, ..plain("flat, 16 cores", cpu) },
            Self { workers: 16, ..plain("even, 16 cores", even) },
        ]
    }

    /// Seconds of a run of `rows` rows when nothing disturbs and nothing has changed.
    pub fn plain(&self, rows: usize) -> f64 {
        let n = rows as f64;
        match self.curve {
            Curve::Affine { a, b } => a + b * n,
            Curve::Steps { a, b, block } => a + b * rows.div_ceil(block) as f64,
            Curve::Convex { a, b, c } => a + b * n + c * n * n,
        }
    }

    /// Seconds of a run that begins when `progress` of the time is over.
    pub fn run(&self, rows: usize, progress: f64, random: &mut Random) -> f64 {
        let changed = self.change.map_or(1.0, |(at, factor)| if progress >= at { factor } else { 1.0 });
        self.plain(rows) * changed * random.noise(self.spread)
    }

    /// The most rows per second of all workers in runs that take at most `longest` seconds.
    pub fn capacity(&self, longest: f64) -> f64 {
        let worst = self.change.map_or(1.0, |(_, factor)| factor);
        let sizes = (1..=1024).filter(|size| *size == 1 || self.plain(*size) * worst <= longest);
        let rates = sizes.map(|size| size as f64 / self.plain(size));
        self.workers as f64 * rates.fold(0.0, f64::max)
    }
}
