//! Whether runs of every size have begun to take longer, or less long: a neighbour came or went, the clock was lowered.
//!
//! Each size learns that by itself, but only from its own runs, and a size that seldom runs would be taken for what it once
//! was for as long. What several sizes show, one after another, is thought to hold for all.

/// So many runs in a row must say so.
const RUNS: u32 = 4;

/// What the last runs say about all sizes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Level {
    /// Runs in a row that took surprisingly long, or surprisingly short.
    runs: u32,
    /// The size of the first of them.
    bucket: usize,
    /// Whether another size was among them.
    is_shared: bool,
    /// How many times as long as usual they took: the one nearest to usual.
    factor: f64,
}

impl Level {
    /// Learns that a run of a well-known size took `factor` times its usual time, and whether that is a surprise. Returns how
    /// many times as long runs of every size take, once that is known.
    pub(super) fn observe(&mut self, bucket: usize, factor: f64, is_surprise: bool) -> Option<f64> {
        if !is_surprise {
            *self = Self::default();
            return None;
        }
        let is_longer = factor > 1.0;
        if self.runs == 0 || (self.factor > 1.0) != is_longer {
            *self = Self { runs: 0, bucket, is_shared: false, factor };
        }
        self.runs += 1;
        self.is_shared |= bucket != self.bucket;
        self.factor = if is_longer { self.factor.min(factor) } else { self.factor.max(factor) };
        if self.runs < RUNS || !self.is_shared {
            return None;
        }
        let factor = self.factor;
        *self = Self::default();
        Some(factor)
    }
}
