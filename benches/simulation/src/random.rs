//! Random numbers that are the same on every machine and in every run.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 (included) to 1 (not).
    pub fn even(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from 0 to `below`.
    pub fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % below.max(1) as u64).unwrap_or_default()
    }

    /// Time to the next event of a Poisson process with `rate` events per second.
    pub fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.even()).ln() / rate
    }

    /// Around 1 with the given spread: the exponential of a normal number (by the sum of twelve even ones).
    pub fn noise(&mut self, spread: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| self.even()).sum::<f64>() - 6.0;
        (spread * normal).exp()
    }
}
